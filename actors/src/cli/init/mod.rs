//! `fellrec init`: a commented configuration for one's own CSV files, guessed from their headers.

mod guess;
mod header;
mod template;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use fellrec::config::{Layers, Loaded};
use tempfile::NamedTempFile;

use self::guess::Guess;
use self::header::Header;
use super::{ExitStatus, print};

/// Write a commented configuration for your own CSV or TSV files
#[derive(Debug, Args)]
#[command(after_help = "\
The files' headers tell which file is which and which column is what; docs/own-data.md walks through it.

Examples:
  fellrec init data/shop
  fellrec init data/shop --interactions orders.csv --items products.tsv
  fellrec init data/shop --output shop.toml --force")]
pub struct InitArgs {
    /// Folder with the files
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Interactions file, relative to DIR [default: the one with a user and an item column]
    #[arg(long, value_name = "FILE")]
    interactions: Option<PathBuf>,
    /// Catalogue file, relative to DIR [default: the one with an item and a title column]
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// User attributes, relative to DIR [default: the one with a user column and no item column, if any]
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Configuration file to write [default: DIR/fellrec.toml]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrites the configuration file
    #[arg(long)]
    force: bool,
}

/// Reads the headers, guesses, and writes the file.
///
/// # Errors
/// No usable files, headers that say too little, or a configuration file that is there already.
pub fn run(args: InitArgs) -> Result<ExitStatus> {
    let output = args.output.clone().unwrap_or_else(|| args.folder.join("fellrec.toml"));
    if output.exists() && !args.force {
        bail!("{} exists, --force overwrites it", output.display());
    }
    let guess = Guess::from_headers(
        &header::tables_in(&args.folder)?,
        named(&args, args.interactions.as_deref())?,
        named(&args, args.items.as_deref())?,
        named(&args, args.users.as_deref())?,
    )
    .with_context(|| format!("failed to guess the tables in {}", args.folder.display()))?;

    write(&template::render(&args.folder, &guess), &output, args.force)?;
    print(&summary(&guess, &output))?;
    Ok(ExitStatus::Success)
}

fn named(args: &InitArgs, file: Option<&Path>) -> Result<Option<Header>> {
    file.map(|file| Header::read(&args.folder, file)).transpose()
}

/// Writes beside the target, checks that the result is a valid configuration, and moves it into place.
fn write(text: &str, output: &Path, force: bool) -> Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .with_context(|| format!("failed to write {}", output.display()))?;
    file.write_all(text.as_bytes())?;
    let layers = Layers { file: Some(file.path().display().to_string()), ..Layers::default() };
    Loaded::load(&layers).context("the headers make no valid configuration")?;
    // Without --force the move itself refuses to overwrite: the check before was for a quick answer.
    let moved = if force { file.persist(output) } else { file.persist_noclobber(output) };
    moved.with_context(|| format!("failed to write {}", output.display()))?;
    Ok(())
}

fn summary(guess: &Guess, output: &Path) -> String {
    let or_none = |column: &Option<String>| column.clone().unwrap_or_else(|| "none".to_owned());
    let users = guess.users.as_ref().map_or("none".to_owned(), |users| users.file.clone());
    let output = output.display();
    format!(
        "wrote {output}
  interactions  {} (user {}, item {}, time {})
  items         {} (title {}, category {})
  users         {users}
next:
  fellrec data inspect --config {output}
  fellrec simulate --config {output} --dry-run",
        guess.interactions.file,
        guess.user_column,
        guess.item_column,
        or_none(&guess.time_column),
        guess.items.file,
        guess.title_column,
        or_none(&guess.category_column),
    )
}
