//! The documentation of every key, taken from the comments of `configs/default.toml`.

use serde::Serialize;
use toml_edit::{DocumentMut, Table};

use super::DEFAULT_TOML;

/// One configuration key as a user meets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyDoc {
    /// Full name, such as `model.hidden`.
    pub key: String,
    /// Table the key stands in, such as `data.synthetic`.
    pub section: String,
    /// Default as TOML.
    pub default: String,
    /// What it means, with unit and source, in the words of `default.toml`.
    pub doc: String,
}

/// All keys in the order of `default.toml`.
pub fn keys() -> Vec<KeyDoc> {
    let document: DocumentMut =
        DEFAULT_TOML.parse().expect("the embedded default.toml is TOML: tested");
    let mut keys = Vec::new();
    collect(document.as_table(), "", &mut keys);
    keys
}

fn collect(table: &Table, section: &str, keys: &mut Vec<KeyDoc>) {
    for (name, item) in table {
        let full = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        if let Some(child) = item.as_table() {
            collect(child, &full, keys);
            continue;
        }
        let comment = table.key(name).and_then(|key| key.leaf_decor().prefix());
        keys.push(KeyDoc {
            key: full,
            section: section.to_owned(),
            default: item.to_string().trim().to_owned(),
            doc: comment.and_then(|raw| raw.as_str()).map(prose).unwrap_or_default(),
        });
    }
}

/// Comment lines without their marks, joined to one paragraph.
fn prose(comment: &str) -> String {
    let lines = comment.lines().map(|line| line.trim().trim_start_matches('#').trim());
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
