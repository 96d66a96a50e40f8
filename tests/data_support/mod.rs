//! Configurations and written folders for the tests of `fellrec::data`.

// Every test binary compiles this file and uses its own part of it.
#![allow(dead_code, reason = "shared between test binaries")]

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use anyhow::Result;
use fellrec::config::{
    AssignmentKind, ClientsConfig, DataConfig, DataFormat, OrNone, SplitKind, SyntheticConfig,
    TableConfig,
};
use fellrec::data::{DataError, Loaded, load};
use tempfile::TempDir;

pub fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("a number above 0")
}

pub fn config(format: DataFormat, path: Option<&Path>) -> DataConfig {
    DataConfig {
        format,
        path: path.map_or(OrNone::None, |path| OrNone::Some(path.to_owned())),
        split: SplitKind::LeaveOneOut,
        synthetic: SyntheticConfig {
            users: number(600),
            items: number(400),
            groups: number(5),
            mean_history: number(24),
            odd_group: true,
        },
        table: TableConfig {
            interactions: "interactions.csv".into(),
            items: "items.csv".into(),
            users: OrNone::None,
            delimiter: "auto".to_owned(),
            user_column: "user".to_owned(),
            item_column: "item".to_owned(),
            time_column: OrNone::Some("timestamp".to_owned()),
            title_column: "title".to_owned(),
            category_column: OrNone::None,
        },
    }
}

pub fn clients_config(assignment: AssignmentKind, count: u32) -> ClientsConfig {
    ClientsConfig {
        assignment,
        count: number(count),
        file: OrNone::None,
        attribute: OrNone::None,
        factors: number(16),
        factor_epochs: number(8),
        pooled: false,
    }
}

/// A folder with the given files.
pub fn folder(files: &[(&str, &[u8])]) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes)?;
    }
    Ok(folder)
}

pub fn read(format: DataFormat, folder: &TempDir) -> Result<Loaded, DataError> {
    load(&config(format, Some(folder.path())), 42)
}
