//! Readers on small written files with every kind of dirt.

mod data_support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use anyhow::Result;
use data_support::{config, folder, read};
use fellrec::config::{DataFormat, OrNone, SplitKind};
use fellrec::data::{Dataset, Loaded, Part, ReadNotes, load, split};
use fellrec::ids::ItemId;
use proptest::prelude::*;

fn refusal(format: DataFormat, files: &[(&str, &[u8])]) -> Result<String> {
    let folder = folder(files)?;
    let error = read(format, &folder).expect_err("the files are wrong");
    Ok(error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

/// Histories by user key, items by key.
fn histories(dataset: &Dataset) -> Vec<(&str, Vec<&str>)> {
    let key = |item: &ItemId| dataset.catalogue.items[item.index()].key.as_str();
    dataset.users.iter().map(|u| (u.key.as_str(), u.history.iter().map(key).collect())).collect()
}

const MOVIES: &[u8] = b"1::Toy Story (1995)::Animation|Comedy\r\n\
    2::Mis\xe9rables, Les (1998)::Drama\n\
    9::Toy Story (1995)::Comedy\n\
    \n\
    9::Again::Comedy\n\
    4::Never: The Rated :: Film &amp; More (2000)::War\n";

#[test]
fn movielens_reads_dirt_and_counts_it() -> Result<()> {
    let ratings =
        b"7::2::5::30\n7::1::3::20\r\n7::9::3::30\n7::2::4::99\n8::77::1::1\n5::9::1::4\n";
    let users = b"5::F::25::3::12345\n7::M::1::10::48067\n6::M::1::1::1\n";
    let folder = folder(&[("movies.dat", MOVIES), ("ratings.dat", ratings), ("users.dat", users)])?;
    let Loaded { dataset, notes } = read(DataFormat::Movielens, &folder)?;

    // Equal timestamps keep file order; the second rating of item 2 is dropped.
    assert_eq!(histories(&dataset), [("7", vec!["1", "2", "9"]), ("5", vec!["9"])]);
    let titles: Vec<_> = dataset.catalogue.items.iter().map(|item| item.title.as_str()).collect();
    let odd = "Never: The Rated :: Film & More (2000)";
    assert_eq!(titles, ["Toy Story (1995)", "Misérables, Les (1998)", "Toy Story (1995)", odd]);
    assert_eq!(dataset.catalogue.items[0].category, "Animation|Comedy");
    assert_eq!(dataset.users[0].attributes["occupation"], "10");
    let expected = ReadNotes {
        duplicate_titles: 1,
        duplicate_items: 1,
        html_entities: 1,
        latin1_texts: 1,
        crlf_lines: 2,
        unknown_items: 1,
        repeated_interactions: 1,
        // User 8 rated an unknown item only, user 6 nothing.
        empty_histories: 2,
        ..ReadNotes::default()
    };
    assert_eq!(notes, expected);
    Ok(())
}

#[test]
fn movielens_takes_gzipped_ranks_as_they_are() -> Result<()> {
    let folder = folder(&[("movies.dat", MOVIES)])?;
    let file = fs::File::create(folder.path().join("ratings_ranked.dat.gz"))?;
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    gzip.write_all(b"1::9::5::2\n1::1::5::1\n")?;
    gzip.finish()?;
    let loaded = read(DataFormat::Movielens, &folder)?;
    assert_eq!(histories(&loaded.dataset), [("1", vec!["1", "9"])]);
    Ok(())
}

#[test]
fn refusals_name_file_line_got_and_expected() -> Result<()> {
    let movies = ("movies.dat", MOVIES);
    for (files, message) in [
        (vec![], " holds no movies.dat (or .gz)"),
        (vec![movies], " holds no ratings.dat or ratings_ranked.dat (or .gz)"),
        (
            vec![movies, ("ratings.dat", &b"1::1::5::1\n1::9::5\n"[..])],
            "ratings.dat:2: got 3 fields, expected user::movie::rating::timestamp",
        ),
        (
            vec![movies, ("ratings.dat", b"1::1::5::noon")],
            "ratings.dat:1: got \"noon\", expected a whole number as timestamp or rank",
        ),
        (
            vec![movies, ("ratings.dat", b"1::66::5::1")],
            "ratings.dat: got no interaction with an item of the catalogue",
        ),
        (
            vec![("movies.dat", b"1::Title\n")],
            "movies.dat:1: got 2 fields, expected movie::title::genres",
        ),
        (vec![("movies.dat", b"")], "movies.dat: got no item, expected at least one"),
    ] {
        let got = refusal(DataFormat::Movielens, &files)?;
        assert!(got.ends_with(message), "{got}");
    }
    Ok(())
}

#[test]
fn movielens_100k_reads_genre_flags() -> Result<()> {
    let item = b"1|Caf\xe9 (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n\
        2|Other|||u|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n";
    let folder = folder(&[
        ("u.item", item),
        ("u.data", b"1\t2\t3\t881250949\n1\t1\t3\t881250948\n"),
        ("u.user", b"1|24|M|technician|85711\n"),
    ])?;
    let loaded = read(DataFormat::Movielens100k, &folder)?;
    assert_eq!(histories(&loaded.dataset), [("1", vec!["1", "2"])]);
    let items = &loaded.dataset.catalogue.items;
    assert_eq!(items[0].title, "Café (1995)");
    assert_eq!(items[0].category, "Animation|Children's|Comedy");
    assert_eq!(items[1].category, "unknown");
    assert_eq!(loaded.dataset.users[0].attributes["occupation"], "technician");
    let got = refusal(DataFormat::Movielens100k, &[("u.item", b"1|Title|date")])?;
    assert_eq!(got, "u.item:1: got 3 fields, expected 24 separated by |");
    Ok(())
}

const ITEMS_TSV: &[u8] = b"item_id\toriginal_id\ttitle\tcategory\n\
    1\tA\t\"Quoted\" &quot;Game&quot;\tGames|PC\n2\tB\t\t\n3\tC\tThird\tGames\r\n";

#[test]
fn sequences_keep_the_given_parts() -> Result<()> {
    let folder = folder(&[
        ("items.tsv", ITEMS_TSV),
        ("sequential_train.txt", b"10 1 2\n11 3 99\n12\n"),
        ("sequential_valid.txt", b"10 3\n11 3\n12\n"),
        ("sequential_test.txt", b"10\n11 1 2\n12\n13 1"),
    ])?;
    let Loaded { dataset, notes } = read(DataFormat::Sequences, &folder)?;
    let expected = [("10", vec!["1", "2", "3"]), ("11", vec!["3", "1", "2"]), ("13", vec!["1"])];
    assert_eq!(histories(&dataset), expected);
    assert_eq!(dataset.catalogue.items[0].title, "\"Quoted\" \"Game\"");
    assert_eq!(dataset.catalogue.items[1].title, "2", "the key stands in for an empty title");
    let counts = (notes.empty_titles, notes.unknown_items, notes.repeated_interactions);
    assert_eq!((counts, notes.empty_histories, notes.crlf_lines), ((1, 1, 1), 1, 1));

    let splits = split(&dataset, SplitKind::Given)?;
    // User 11 repeats item 3 in validation: nothing is left there. User 13 is unknown until tested.
    assert_eq!(splits.users[0].validation, [ItemId(2)]);
    assert_eq!(splits.users[1].query(Part::Validation), None);
    assert_eq!(splits.users[1].query(Part::Test).expect("two targets").targets.len(), 2);
    assert_eq!(splits.untested, 2);
    Ok(())
}

#[test]
fn one_sequence_file_does_without_parts() -> Result<()> {
    let folder = folder(&[
        ("items.tsv", b"item_id\ttitle\n1\tA\n2\tB\n"),
        ("sequences.txt", b"u \t2  1\r\n\r\n"),
    ])?;
    let loaded = read(DataFormat::Sequences, &folder)?;
    assert_eq!(histories(&loaded.dataset), [("u", vec!["2", "1"])]);
    assert!(split(&loaded.dataset, SplitKind::Given).is_err());
    let got = refusal(
        DataFormat::Sequences,
        &[("items.tsv", ITEMS_TSV), ("sequential_train.txt", b"1 1")],
    )?;
    assert!(got.ends_with(" holds no sequential_valid.txt (or .gz)"), "{got}");
    Ok(())
}

#[test]
fn tables_find_columns_by_name_and_order_by_iso_time() -> Result<()> {
    let folder = folder(&[
        ("items.csv", b"\xef\xbb\xbftitle;item;genre\r\n\"A; the\r\nfirst\";i1;x\r\nB\xe9;i2;\r\n"),
        (
            "interactions.csv",
            b"timestamp,rating,item,user\n2001-01-02,5,i2,ann\n2001-01-01T10:00:00Z,1,i1,ann\n",
        ),
        ("users.csv", b"user\tcity\nann\tK\xc3\xb6ln\n"),
    ])?;
    let mut config = config(DataFormat::Table, Some(folder.path()));
    config.table.category_column = OrNone::Some("genre".to_owned());
    config.table.users = OrNone::Some("users.csv".into());
    let Loaded { dataset, notes } = load(&config, 42)?;
    assert_eq!(histories(&dataset), [("ann", vec!["i1", "i2"])]);
    assert_eq!(dataset.catalogue.items[0].title, "A; the first");
    assert_eq!(dataset.catalogue.items[1].title, "Bé");
    assert_eq!(dataset.users[0].attributes, BTreeMap::from([("city".into(), "Köln".into())]));
    assert_eq!((notes.crlf_lines, notes.latin1_texts), (4, 1));

    config.table.time_column = OrNone::None;
    assert_eq!(histories(&load(&config, 42)?.dataset), [("ann", vec!["i2", "i1"])]);
    Ok(())
}

#[test]
fn table_refusals_name_column_and_line() -> Result<()> {
    let items = ("items.csv", &b"item,title\n1,A\n"[..]);
    for (interactions, message) in [
        (
            &b"user,item\n"[..],
            "interactions.csv: no column \"timestamp\", the header has [\"user\", \"item\"]",
        ),
        (
            b"user,item,timestamp\na,1,5\n\na,1\n",
            "interactions.csv:4: got 2 fields, expected 3 as in the header",
        ),
        (
            b"user,item,timestamp\na,1,5\na,1,soon\n",
            "interactions.csv:3: got \"soon\", expected a number or an ISO 8601 date or time",
        ),
        (b"", "interactions.csv: no column \"user\", the header has []"),
    ] {
        let got = refusal(DataFormat::Table, &[items, ("interactions.csv", interactions)])?;
        assert_eq!(got, message);
    }
    Ok(())
}

#[test]
fn a_missing_folder_setting_is_named() {
    let error = load(&config(DataFormat::Movielens, None), 42).expect_err("no folder");
    let expected = "data.path: got \"none\", expected the folder of the data set";
    assert_eq!(error.to_string(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Random bytes made of what the formats are made of: errors are fine, panics are not.
    #[test]
    fn readers_never_panic(
        catalogue in "([0-9a-z]{0,2}(::|\t|,|;|\\||\"|\r|\n|\u{0}|é|&amp;| )){0,40}",
        rows in "([0-9]{0,2}(::|\t|,|;|\\||\"|\r|\n|\u{0}|é| )){0,40}",
        noise in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let bytes = |header: &str, body: &str| [header.as_bytes(), body.as_bytes(), &noise].concat();
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, header, body) in [
            ("movies.dat", "1::a::b\n", &catalogue),
            ("ratings.dat", "1::1::1::1\n", &rows),
            ("users.dat", "", &rows),
            ("u.item", "", &catalogue),
            ("u.data", "", &rows),
            ("items.tsv", "item_id\ttitle\n1\ta\n", &catalogue),
            ("sequences.txt", "1 1\n", &rows),
            ("items.csv", "item,title\n1,a\n", &catalogue),
            ("interactions.csv", "user,item,timestamp\n1,1,1\n", &rows),
        ] {
            fs::write(folder.path().join(name), bytes(header, body)).expect("written");
        }
        for format in [
            DataFormat::Movielens,
            DataFormat::Movielens100k,
            DataFormat::Sequences,
            DataFormat::Table,
        ] {
            if let Ok(loaded) = read(format, &folder) {
                let items = loaded.dataset.catalogue.items.len();
                for user in &loaded.dataset.users {
                    prop_assert!(user.history.iter().all(|item| item.index() < items));
                }
            }
        }
    }
}
