//! The generator, clients and the inspection.

mod data_support;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use anyhow::Result;
use data_support::{clients_config, config, folder, number, read};
use fellrec::config::{
    AssignmentKind, ClientsConfig, DataFormat, OrNone, SplitKind, SyntheticConfig,
};
use fellrec::data::{
    ClientData, DataError, Loaded, Part, TrainingRows, UserSplit, assign, inspect, load, split,
};
use fellrec::ranking::{MetricSums, Popularity, ranks};
use fellrec::training::{Examples, HistoryExamples};

fn synthetic() -> Result<Loaded> {
    Ok(load(&config(DataFormat::Synthetic, None), 42)?)
}

#[test]
fn the_generator_repeats_and_its_titles_are_distinct() -> Result<()> {
    let mut config = config(DataFormat::Synthetic, None);
    let dataset = load(&config, 42)?.dataset;
    assert_eq!(dataset.users, load(&config, 42)?.dataset.users);
    assert_ne!(dataset.users, load(&config, 43)?.dataset.users);
    assert_eq!((dataset.users.len(), dataset.catalogue.items.len()), (600, 400));

    config.synthetic.items = number(10_000);
    for items in [dataset.catalogue.items, load(&config, 42)?.dataset.catalogue.items] {
        let titles: HashSet<_> = items.iter().map(|item| &item.title).collect();
        assert_eq!(titles.len(), items.len());
        assert!(items.iter().all(|item| !item.title.starts_with(' ')));
    }
    for user in dataset.users {
        assert_eq!(user.history.iter().collect::<HashSet<_>>().len(), user.history.len());
    }
    Ok(())
}

#[test]
fn the_generator_takes_any_legal_size() -> Result<()> {
    for (users, items, groups, mean_history) in [(1, 1, 1, 1), (3, 2, 3, 9), (20, 5, 9, 50)] {
        let mut config = config(DataFormat::Synthetic, None);
        config.synthetic = SyntheticConfig {
            users: number(users),
            items: number(items),
            groups: number(groups),
            mean_history: number(mean_history),
            odd_group: false,
        };
        let dataset = load(&config, 1)?.dataset;
        assert_eq!(dataset.users.len(), users as usize);
        assert!(dataset.users.iter().all(|user| !user.history.is_empty()));
    }
    Ok(())
}

/// What makes the demo worth watching: the last item says much about the next, popularity little.
#[test]
fn the_next_item_can_be_learnt_and_popularity_does_not_know_it() -> Result<()> {
    let mut config = config(DataFormat::Synthetic, None);
    config.synthetic.odd_group = false;
    let dataset = load(&config, 42)?.dataset;
    let items = dataset.catalogue.items.len();
    let splits = split(&dataset, SplitKind::LeaveOneOut)?;
    let popularity = Popularity::fit(items, &splits.users);
    let popular = popularity.evaluate(&splits.users, Part::Test, &[10]).means().expect("tested");

    // A first-order Markov chain over training pairs stands for the least a sequence model learns.
    let mut follows = vec![vec![0.0_f32; items]; items];
    for pair in splits.users.iter().flat_map(|user| user.train.windows(2)) {
        follows[pair[0].index()][pair[1].index()] += 1.0;
    }
    let mut chain = MetricSums::new(&[10]);
    for query in splits.users.iter().filter_map(|user| user.query(Part::Test)) {
        let last = query.known[query.known.len() - 1];
        chain.add(&ranks(&follows[last.index()], &query.known, query.targets));
    }
    let chain = chain.means().expect("tested");
    println!("popularity {popular:?}, chain {chain:?}");
    assert!(popular.recall[&10] < 0.1, "popularity {}", popular.recall[&10]);
    assert!(chain.recall[&10] > 0.5, "chain {}", chain.recall[&10]);
    Ok(())
}

fn assert_partition(clients: &[ClientData], users: usize) {
    let ids: Vec<u32> = clients.iter().map(|client| client.client.0).collect();
    assert_eq!(ids, (0..clients.len() as u32).collect::<Vec<_>>());
    let mut seen = HashSet::new();
    for client in clients {
        assert!(!client.users.is_empty());
        assert!(client.users.is_sorted_by_key(|user| user.user));
        assert!(client.users.iter().all(|user| seen.insert(user.user)));
    }
    assert_eq!(seen.len(), users);
}

#[test]
fn k_means_finds_the_taste_groups_again() -> Result<()> {
    let dataset = synthetic()?.dataset;
    let splits = split(&dataset, SplitKind::LeaveOneOut)?;
    let config = clients_config(AssignmentKind::KMeans, 5);
    let clients = assign(&dataset, &splits.users, &config, 42)?;
    assert_partition(&clients, 600);
    assert_eq!(clients, assign(&dataset, &splits.users, &config, 42)?);
    assert!(clients.is_sorted_by(|a, b| a.users.len() >= b.users.len()));
    let mut agreeing = 0;
    for client in &clients {
        let mut groups = BTreeMap::new();
        for user in &client.users {
            let group = &dataset.users[user.user.0 as usize].attributes["group"];
            *groups.entry(group).or_insert(0) += 1;
        }
        agreeing += groups.values().max().copied().unwrap_or(0);
    }
    assert!(agreeing > 540, "{agreeing} of 600 users stand with their group");
    Ok(())
}

#[test]
fn every_assignment_partitions_the_users() -> Result<()> {
    let dataset = synthetic()?.dataset;
    let users = split(&dataset, SplitKind::LeaveOneOut)?.users;
    let uniform = assign(&dataset, &users, &clients_config(AssignmentKind::Uniform, 7), 42)?;
    assert_partition(&uniform, 600);
    assert!(uniform.iter().all(|client| [85, 86].contains(&client.users.len())));
    let each = assign(&dataset, &users, &clients_config(AssignmentKind::PerUser, 1), 42)?;
    assert_partition(&each, 600);
    assert_eq!(each.len(), 600);

    let mut by_group = clients_config(AssignmentKind::Attribute, 1);
    by_group.attribute = OrNone::Some("group".to_owned());
    let groups = assign(&dataset, &users, &by_group, 42)?;
    assert_partition(&groups, 600);
    assert_eq!(groups.len(), 5);

    by_group.attribute = OrNone::Some("city".to_owned());
    let error = assign(&dataset, &users, &by_group, 42).expect_err("no such attribute");
    let expected =
        "clients.attribute: got \"city\", expected one of [\"group\"], which user \"u1\" has";
    assert_eq!(error.to_string(), expected);
    let many = clients_config(AssignmentKind::KMeans, 601);
    let error = assign(&dataset, &users, &many, 42).expect_err("more clients than users");
    assert_eq!(
        error.to_string(),
        "clients.count: got 601, expected at most 600, the number of users"
    );
    Ok(())
}

/// Client after client, so that a pooled result can be read by the clients it would have had.
#[test]
fn pooled_users_stand_in_the_order_of_their_clients() -> Result<()> {
    let loaded = synthetic()?;
    let splits = split(&loaded.dataset, SplitKind::LeaveOneOut)?;
    for (assignment, count) in [(AssignmentKind::KMeans, 5), (AssignmentKind::PerUser, 1)] {
        let apart = clients_config(assignment, count);
        let pooled = ClientsConfig { pooled: true, ..apart.clone() };
        let apart = assign(&loaded.dataset, &splits.users, &apart, 42)?;
        let pooled = assign(&loaded.dataset, &splits.users, &pooled, 42)?;
        let [one] = &pooled[..] else { panic!("{} clients", pooled.len()) };
        let expected: Vec<_> = apart.into_iter().flat_map(|client| client.users).collect();
        assert_eq!((one.client.0, &one.users), (0, &expected));
        let inspection = inspect(&loaded, &splits, &pooled);
        assert_eq!((inspection.clients.len(), inspection.clients[0].users), (1, 600));
        assert_eq!(inspection.clients[0].interactions, inspection.interactions);
        assert_eq!(inspection.clients[0].item_divergence, 0.0, "nothing differs from the whole");
    }
    Ok(())
}

#[test]
fn training_rows_are_drawn_by_the_seed_and_not_by_the_clients() -> Result<()> {
    let loaded = synthetic()?;
    let mut users = split(&loaded.dataset, SplitKind::LeaveOneOut)?.users;
    users[0].train.truncate(1);
    let draw = |users: &[UserSplit], count, seed| TrainingRows::draw(users, count, seed);
    let few = draw(&users, Some(40), 42)?;
    let TrainingRows::Drawn(drawn) = &few else { panic!("{few:?}") };
    assert_eq!(drawn.len(), 40);
    assert_ne!(few, draw(&users, Some(40), 43)?);
    let backwards: Vec<_> = users.iter().rev().cloned().collect();
    assert_eq!(few, draw(&backwards, Some(40), 42)?, "who stands where does not matter");

    let rows = |clients: &[ClientData]| -> usize {
        clients.iter().map(|client| HistoryExamples::among(client, &few, 20).rows()).sum()
    };
    let apart = assign(&loaded.dataset, &users, &clients_config(AssignmentKind::Uniform, 7), 42)?;
    assert_eq!(rows(&apart), 40);

    let all = draw(&users, Some(599), 42)?;
    assert!(!all.admit(&users[0]), "one item is no row");
    assert!(users[1..].iter().all(|user| all.admit(user)));
    assert_eq!(draw(&users, None, 42)?, TrainingRows::All);
    let error = draw(&users, Some(600), 42).expect_err("more than there are");
    assert_eq!(
        error.to_string(),
        "training.rows: got 600, expected at most 599, the users with two training items"
    );
    Ok(())
}

#[test]
fn an_assignment_file_orders_clients_as_numbers() -> Result<()> {
    let folder = folder(&[
        ("items.tsv", b"item_id\ttitle\n1\tA\n"),
        ("sequences.txt", b"a 1\nb 1\nc 1\n"),
        ("clients.csv", b"user,client\r\na,10\r\nb,9\r\nc,10\r\nz,1\r\n"),
        ("partial.csv", b"a,1\nb,1\n"),
        ("torn.csv", b"a,1\na,2\n"),
    ])?;
    let dataset = read(DataFormat::Sequences, &folder)?.dataset;
    let users = split(&dataset, SplitKind::LeaveOneOut)?.users;
    let with = |file: &str| -> Result<Vec<ClientData>, DataError> {
        let file: PathBuf = folder.path().join(file);
        let base = clients_config(AssignmentKind::File, 1);
        assign(&dataset, &users, &ClientsConfig { file: OrNone::Some(file), ..base }, 42)
    };
    let clients = with("clients.csv")?;
    assert_partition(&clients, 3);
    assert_eq!(clients[0].users[0].user.0, 1, "client 9 stands before client 10");
    assert!(
        matches!(with("partial.csv"), Err(DataError::UnassignedUser { user, .. }) if user == "c")
    );
    assert!(matches!(with("torn.csv"), Err(DataError::Field { line: 2, .. })));
    assert!(matches!(with("none.csv"), Err(DataError::Read { .. })));
    Ok(())
}

#[test]
fn the_inspection_shows_the_odd_group_as_small_and_far() -> Result<()> {
    let loaded = synthetic()?;
    let splits = split(&loaded.dataset, SplitKind::LeaveOneOut)?;
    let mut by_group = clients_config(AssignmentKind::Attribute, 1);
    by_group.attribute = OrNone::Some("group".to_owned());
    let clients = assign(&loaded.dataset, &splits.users, &by_group, 42)?;
    let inspection = inspect(&loaded, &splits, &clients);
    assert_eq!((inspection.users, inspection.items), (600, 400));
    let held: usize = inspection.clients.iter().map(|client| client.interactions).sum();
    assert_eq!(held, inspection.interactions);
    let (odd, others) = inspection.clients.split_last().expect("five clients");
    for other in others {
        assert!(other.history.mean > 2.0 * odd.history.mean);
        assert!(other.category_divergence < odd.category_divergence);
    }
    assert!(serde_json::to_string(&inspection)?.contains("\"duplicate_titles\":0"));
    Ok(())
}
