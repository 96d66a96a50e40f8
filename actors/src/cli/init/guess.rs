//! Which file is which, and which column is what, by their names.

use anyhow::{Context, Result, bail};

use super::header::Header;

// Names in order of preference, written as `plain` leaves them.
const USER: &[&str] = &[
    "user",
    "userid",
    "uid",
    "customer",
    "customerid",
    "reviewerid",
    "memberid",
    "accountid",
    "visitorid",
    "reviewer",
    "member",
    "account",
    "visitor",
    "profile",
    "username",
];
const ITEM: &[&str] = &[
    "item",
    "itemid",
    "iid",
    "movieid",
    "productid",
    "asin",
    "parentasin",
    "sku",
    "bookid",
    "isbn",
    "articleid",
    "gameid",
    "songid",
    "trackid",
    "videoid",
    "businessid",
    "movie",
    "product",
    "book",
    "article",
    "game",
    "song",
    "track",
    "video",
    "business",
];
const TIME: &[&str] = &[
    "timestamp",
    "time",
    "datetime",
    "date",
    "createdat",
    "unixreviewtime",
    "eventtime",
    "ratedat",
    "ts",
];
const TITLE: &[&str] =
    &["title", "name", "itemname", "productname", "movietitle", "booktitle", "producttitle"];
const CATEGORY: &[&str] =
    &["category", "categories", "genre", "genres", "maincategory", "department", "tags", "brand"];

/// What the headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    pub interactions: Header,
    pub items: Header,
    pub users: Option<Header>,
    pub user_column: String,
    pub item_column: String,
    pub time_column: Option<String>,
    pub title_column: String,
    pub category_column: Option<String>,
}

impl Guess {
    /// Puts the tables in their places; those given by name are taken as they are.
    pub fn from_headers(
        tables: &[Header],
        interactions: Option<Header>,
        items: Option<Header>,
        users: Option<Header>,
    ) -> Result<Self> {
        let is_events = |table: &&Header| {
            find(&table.columns, USER).is_some() && find(&table.columns, ITEM).is_some()
        };
        let interactions = match interactions {
            Some(table) => table,
            None => tables.iter().find(is_events).cloned().with_context(|| {
                let seen = describe(tables);
                format!(
                    "no file has a user and an item column, name it with --interactions; {seen}"
                )
            })?,
        };
        let user_column = find(&interactions.columns, USER)
            .with_context(|| format!("no column names the user; {}", one(&interactions)))?;

        let is_catalogue = |table: &&Header| {
            table.file != interactions.file
                && find(&table.columns, TITLE).is_some()
                && shared_item_column(&interactions, table, &user_column).is_some()
        };
        let items = match items {
            Some(table) => table,
            None => tables.iter().find(is_catalogue).cloned().with_context(|| {
                let seen = describe(tables);
                format!(
                    "no file has a title column and the item column of {}, name it with --items; {seen}",
                    interactions.file
                )
            })?,
        };
        let Some(item_column) = shared_item_column(&interactions, &items, &user_column) else {
            bail!(
                "no item column has the same name in both files, rename it in one; {}; {}",
                one(&interactions),
                one(&items)
            );
        };
        let title_column = find(&items.columns, TITLE)
            .with_context(|| format!("no column holds titles; {}", one(&items)))?;

        let is_users = |table: &&Header| {
            ![&interactions.file, &items.file].contains(&&table.file)
                && table.columns.contains(&user_column)
                && !table.columns.contains(&item_column)
        };
        let users = users.or_else(|| tables.iter().find(is_users).cloned());
        let time_column = find(&interactions.columns, TIME);
        let category_column = find(&items.columns, CATEGORY).filter(|name| *name != title_column);
        Ok(Self {
            interactions,
            items,
            users,
            user_column,
            item_column,
            time_column,
            title_column,
            category_column,
        })
    }
}

/// The item column by a name that both tables have; a bare `id` counts where it is all they share.
fn shared_item_column(interactions: &Header, items: &Header, user_column: &str) -> Option<String> {
    let shared: Vec<_> = interactions
        .columns
        .iter()
        .filter(|name| *name != user_column && items.columns.contains(name))
        .cloned()
        .collect();
    find(&shared, ITEM).or_else(|| shared.into_iter().find(|name| plain(name) == "id"))
}

/// The column with the most usual of `names`; failing that, one that contains such a name.
fn find(columns: &[String], names: &[&str]) -> Option<String> {
    let exact = |&name: &&str| columns.iter().find(|column| plain(column) == name);
    let inside = |&name: &&str| columns.iter().find(|column| plain(column).contains(name));
    // Short names stand inside too many others: `ts` in `counts`.
    let long = names.iter().filter(|name| name.len() >= 4);
    names.iter().find_map(exact).or_else(|| long.into_iter().find_map(inside)).cloned()
}

/// Lower case, letters and digits only: `User ID`, `user_id` and `userId` are one name.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn one(table: &Header) -> String {
    format!("{} has {}", table.file, table.columns.join(", "))
}

fn describe(tables: &[Header]) -> String {
    if tables.is_empty() {
        return "there is no .csv, .tsv or .txt file with a header".to_owned();
    }
    tables.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(file: &str, columns: &str) -> Header {
        Header { file: file.into(), columns: columns.split(',').map(str::to_owned).collect() }
    }

    fn guess(tables: &[Header]) -> Result<Guess> {
        Guess::from_headers(tables, None, None, None)
    }

    #[test]
    fn usual_headers_are_understood() {
        let tables = [
            table("movies.csv", "movieId,title,genres"),
            table("people.csv", "userId,age,city"),
            table("ratings.csv", "userId,movieId,rating,timestamp"),
        ];
        let guess = guess(&tables).unwrap();
        assert_eq!(guess.interactions.file, "ratings.csv");
        assert_eq!(guess.items.file, "movies.csv");
        assert_eq!(guess.users.unwrap().file, "people.csv");
        assert_eq!(guess.time_column.as_deref(), Some("timestamp"));
        assert_eq!(guess.category_column.as_deref(), Some("genres"));
    }

    #[test]
    fn unusual_names_are_found_by_what_they_contain() {
        let tables = [
            table("a.tsv", "shop_customer_key,Product ID,Created At"),
            table("b.tsv", "Product ID,Product Name"),
        ];
        let guess = guess(&tables).unwrap();
        assert_eq!(guess.user_column, "shop_customer_key");
        assert_eq!(guess.item_column, "Product ID");
        assert_eq!(guess.time_column.as_deref(), Some("Created At"));
        assert_eq!((guess.title_column.as_str(), guess.users), ("Product Name", None));
    }

    #[test]
    fn what_cannot_be_guessed_is_refused_with_the_headers_seen() {
        let message = guess(&[]).unwrap_err().to_string();
        assert!(message.contains("no .csv"), "{message}");
        let tables = [table("r.csv", "user,movie,time"), table("m.csv", "film,title")];
        let message = guess(&tables).unwrap_err().to_string();
        assert!(message.contains("m.csv has film, title"), "{message}");
        let items = Some(table("m.csv", "film,title"));
        let error = Guess::from_headers(&tables, None, items, None).unwrap_err();
        assert!(error.to_string().contains("rename it"), "{error}");
    }
}
