#!/usr/bin/env bash
# Makes ./libtorch usable, then runs the command it was given, if any:
#
#   scripts/libtorch.sh [COMMAND ARGUMENT...]
#
# The first of these that holds libtorch 2.11 wins: $LIBTORCH, ./libtorch as an earlier run left it,
# the torch package of python3, and at last the wheels that pip downloads (about 550 MB).
# Nothing happens, at once, when ./libtorch is ready.
set -euo pipefail

readonly TORCH_VERSION=2.11.0 # what the crate torch-sys 0.24 is written for
readonly CUDA_VERSION=13.0    # what that wheel of torch was built with
readonly RUST_VERSION=1.90    # rust-version in Cargo.toml
readonly DISK_MIB=3072        # wheels, libtorch, and a release build

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT TARGET="$ROOT/libtorch" DOWNLOADS="$ROOT/.downloads"

say() { printf 'libtorch: %s\n' "$*" >&2; }

# die PROBLEM REMEDY...
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    printf '  %s\n' "$@" >&2
    exit 1
}

# Prints the version of the libtorch in directory $1, or nothing.
version_of() {
    if [[ -r $1/build-version ]]; then
        sed 's/+.*//' "$1/build-version"
    elif [[ -r $1/version.py ]]; then
        sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$1/version.py"
    elif [[ -r $1/include/torch/headeronly/version.h ]]; then
        sed -n 's/^#define TORCH_VERSION_[MP][A-Z]* \([0-9]*\)$/\1/p' \
            "$1/include/torch/headeronly/version.h" | paste -sd. -
    fi
}

# Headers and libraries are there, and of a version that torch-sys takes.
usable() {
    [[ -d $1/include/torch/csrc ]] || return 1
    [[ -e $1/lib/libtorch_cpu.so || -e $1/lib/libtorch_cpu.dylib ]] || return 1
    local version
    version=$(version_of "$1")
    # torch-sys reads build-version and insists on the patch level; elsewhere any 2.11 is as good.
    [[ $version == "$TORCH_VERSION" || ! -e $1/build-version && $version == "${TORCH_VERSION%.*}".* ]]
}

# True when dotted version $1 is at least $2.
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

check_rust() {
    local remedy="https://rustup.rs: curl https://sh.rustup.rs -sSf | sh; to update: rustup update stable"
    command -v cargo >/dev/null || die "cargo is needed and was not found" "$remedy"
    local found
    found=$(cargo --version | cut -d' ' -f2)
    at_least "$found" "$RUST_VERSION" ||
        die "Rust $RUST_VERSION or later is needed, found $found" "$remedy"
}

check_compiler() {
    local compiler
    for compiler in "${CXX:-}" c++ g++ clang++; do
        if [[ -n $compiler ]] && command -v "${compiler%% *}" >/dev/null; then return; fi
    done
    die "a C++17 compiler is needed to build the binding to libtorch" \
        "Debian, Ubuntu: sudo apt install g++" \
        "Fedora:         sudo dnf install gcc-c++" \
        "macOS:          xcode-select --install"
}

check_pip() {
    python3 -m pip --version >/dev/null 2>&1 ||
        die "python3 with pip is needed to download libtorch" \
            "Debian, Ubuntu: sudo apt install python3-pip" \
            "Fedora:         sudo dnf install python3-pip" \
            "macOS:          brew install python" \
            "or set LIBTORCH to an unpacked libtorch $TORCH_VERSION (docs/installation.md)"
}

check_platform() {
    [[ $(uname -sm) == "Linux x86_64" ]] ||
        die "no libtorch is downloaded for $(uname -sm), only for Linux x86_64" \
            "python3 -m pip install torch==$TORCH_VERSION, then run this again;" \
            "or set LIBTORCH to an unpacked libtorch $TORCH_VERSION (docs/installation.md)"
}

check_disk() {
    local free
    free=$(df -Pm "$ROOT" | awk 'NR == 2 { print $4 }')
    ((free >= DISK_MIB)) ||
        die "$DISK_MIB MiB of free disk are needed, $ROOT has $free MiB" \
            "free some, or set LIBTORCH to a libtorch $TORCH_VERSION elsewhere"
}

# Prints the folder of the torch package of python3, or nothing. Does not import it: that takes seconds.
python_torch() {
    python3 2>/dev/null - <<'PYTHON' || true
from importlib.util import find_spec
spec = find_spec("torch")
if spec and spec.submodule_search_locations:
    print(spec.submodule_search_locations[0])
PYTHON
}

# Replaces a link or a broken folder at ./libtorch by a link to directory $1.
link_to() {
    rm -rf "$TARGET"
    ln -s "$1" "$TARGET"
    say "using $1 ($(version_of "$1"))"
}

# The torch wheel is the same for our purpose under any Python, so one is named that surely has it:
# the user's python3 may be older or newer than those torch was built for.
download() {
    say "downloading torch $TORCH_VERSION (about 550 MB, once)"
    mkdir "$1"
    local pip=(python3 -m pip download --no-deps --only-binary=:all: --dest "$1")
    local cuda=("nvidia-cuda-runtime==$CUDA_VERSION.*" "nvidia-cuda-cupti==$CUDA_VERSION.*")
    if ! "${pip[@]}" --python-version 3.11 "torch==$TORCH_VERSION" >&2 ||
        ! "${pip[@]}" --quiet "${cuda[@]}" >&2; then
        die "pip could not download libtorch (its own words are above)" \
            "check the network and pip's configuration (pip config list; HTTPS_PROXY, PIP_INDEX_URL)," \
            "or set LIBTORCH to an unpacked libtorch $TORCH_VERSION (docs/installation.md)"
    fi
}

# Unpacks from the wheels in $1 to $2 what a CPU build links: libtorch_cpu and all it loads.
unpack() {
    python3 - "$1" "$2" <<'PYTHON'
import pathlib, re, shutil, sys, zipfile

source, target = map(pathlib.Path, sys.argv[1:])
wanted = re.compile(
    r"torch/(?P<header>include/.+[^/])"
    r"|.*/(?P<library>libtorch_cpu\.so|libc10\.so|libgomp[^/]*\.so[^/]*|libcudart\.so\.13|libcupti\.so\.13)"
)
for wheel in source.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not (match := wanted.fullmatch(name)):
                continue
            path = target / (match["header"] or f"lib/{match['library']}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
PYTHON
    ln -s libtorch_cpu.so "$2/lib/libtorch.so" # torch-sys links it by name; the wheel's pulls in CUDA
    echo "$TORCH_VERSION+wheel" >"$2/build-version"
}

# ./libtorch appears in one rename, so an interrupted download leaves nothing half-done. What a killed
# one left is removed a day later: until then it may belong to a download that still runs.
fetch() {
    check_platform
    check_pip
    check_disk
    mkdir -p "$DOWNLOADS"
    find "$DOWNLOADS" -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {} +
    scratch=$(mktemp -d "$DOWNLOADS/XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    download "$scratch/wheels"
    say "unpacking"
    unpack "$scratch/wheels" "$scratch/libtorch"
    usable "$scratch/libtorch" ||
        die "the wheels hold no usable libtorch $TORCH_VERSION" "set LIBTORCH (docs/installation.md)"
    rm -rf "$TARGET"
    mv "$scratch/libtorch" "$TARGET"
    rm -rf "$scratch"
    trap - EXIT
    say "ready in libtorch/"
}

prepare() {
    if [[ -n ${LIBTORCH:-} ]]; then
        if [[ $LIBTORCH == /* ]] && usable "$LIBTORCH"; then
            usable "$TARGET" || link_to "$LIBTORCH"
            return
        fi
        say "LIBTORCH=$LIBTORCH is no absolute path to a libtorch ${TORCH_VERSION%.*}: not used"
        unset LIBTORCH
    fi
    if usable "$TARGET"; then return; fi
    local installed
    installed=$(python_torch)
    if [[ -n $installed ]] && usable "$installed"; then
        link_to "$installed"
    else
        fetch
    fi
}

check_rust
check_compiler
prepare
if (($# > 0)); then exec "$@"; fi
