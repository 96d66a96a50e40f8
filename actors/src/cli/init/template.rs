//! The text of a new configuration.

use std::path::Path;

use super::guess::Guess;

/// A configuration for the guessed tables, with the keys one is likely to change and why.
pub(super) fn render(folder: &Path, guess: &Guess) -> String {
    let path = quoted(&folder.display().to_string());
    let optional = |value: Option<&str>| quoted(value.unwrap_or("none"));
    let attributes = match &guess.users {
        None => "there is no users file".to_owned(),
        Some(users) => {
            let others = users.columns.iter().filter(|column| **column != guess.user_column);
            let others: Vec<_> = others.map(|column| quoted(column)).collect();
            format!("here one of {}", others.join(", "))
        }
    };
    format!(
        r#"# Your own data as a federation. Written by `fellrec init` from the files' headers: check the columns.
# Keys that are not here have their defaults; `fellrec config keys` explains all of them.

[data]
format = "table"
# Relative to the folder in which fellrec is started.
path = {path}
# The last item of a user tests, the one before validates.
split = "leave-one-out"

[data.table]
interactions = {interactions}
items = {items}
# One row a user; "none" when there is no such file.
users = {users}
user_column = {user_column}
# Must have the same name in both files.
item_column = {item_column}
# Orders a user's interactions; "none" keeps the order of the file.
time_column = {time_column}
title_column = {title_column}
# "none" when there is no such column.
category_column = {category_column}

[clients]
# Real clients (shops, regions, platforms) are cut by "attribute" or by a "file" of `user,client` rows;
# "k-means" simulates them by taste.
assignment = "k-means"
count = 5
# For assignment = "attribute": {attributes}.
attribute = "none"

[model]
# A small model that trains in full on a CPU. The newest max_history items of a user enter it.
hidden = 64
layers = 4
heads = 4
kv_heads = 4
ffn = 172
max_history = 50

[training]
batch = 32

[federation]
rounds = 10

[evaluation]
# Rounds are compared on a sample of users; the final test ranks everyone.
validation_users = 500
"#,
        interactions = quoted(&guess.interactions.file),
        items = quoted(&guess.items.file),
        users = optional(guess.users.as_ref().map(|users| users.file.as_str())),
        user_column = quoted(&guess.user_column),
        item_column = quoted(&guess.item_column),
        time_column = optional(guess.time_column.as_deref()),
        title_column = quoted(&guess.title_column),
        category_column = optional(guess.category_column.as_deref()),
    )
}

/// A TOML string: a column may be called `say "hi"`.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
