//! Shared by both packages: writes the place of libtorch into every binary, test and bench as its
//! rpath, so that they start without LD_LIBRARY_PATH. torch-sys links, but cannot do this for us:
//! linker arguments do not travel to dependents.

use std::env;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    // `.cargo/config.toml` sets it to ./libtorch unless the environment already does.
    let libtorch = env::var("LIBTORCH").unwrap_or_default();
    let library =
        Path::new(&libtorch).join("lib").join(format!("{DLL_PREFIX}torch_cpu{DLL_SUFFIX}"));
    println!("cargo::rerun-if-changed={}", library.display());

    // Canonical, because libtorch may be a link into a Python installation, and the libraries there
    // name their NVIDIA siblings relative to themselves.
    match library.parent().map(Path::canonicalize) {
        Some(Ok(folder)) if library.is_file() => {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
        }
        _ => println!(
            "cargo::error=no libtorch at LIBTORCH={libtorch:?}: run `make demo` or scripts/libtorch.sh, which \
             fetch it, or set LIBTORCH to an unpacked libtorch 2.11.0 (docs/installation.md)"
        ),
    }
}
