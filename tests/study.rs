//! A study by hand: three users on two clients, four methods, every number of the table.

use std::collections::BTreeMap;

use fellrec::ids::{ClientId, Round, UserId};
use fellrec::ranking::UserRanks;
use fellrec::study::{
    CellResult, ClientResult, MeanSd, MethodSummary, Study, curves_csv, markdown, plots,
    results_csv, summary_csv, table,
};

/// Ranks that make NDCG@5 easy: 1 is worth 1, 3 a half, 6 nothing.
const WHOLE: u32 = 1;
const HALF: u32 = 3;
const NOTHING: u32 = 6;

/// Users 0 and 1 on client 0, user 2 on client 1; all on one client for the central method.
fn cell(method: &str, seed: u64, ranks: [u32; 3]) -> CellResult {
    let user = |user: usize| UserRanks { user: UserId(user as u64), ranks: vec![ranks[user]] };
    let groups: &[&[usize]] = if method == "central" { &[&[0, 1, 2]] } else { &[&[0, 1], &[2]] };
    let clients = groups.iter().zip(0..).map(|(users, client)| {
        let users = users.iter().map(|place| user(*place)).collect();
        (ClientId(client), ClientResult { best_round: Round(4 + seed), users })
    });
    CellResult {
        method: method.to_owned(),
        seed,
        clients: clients.collect(),
        curve: vec![(0, 0.01), (1, 0.1 * seed as f64)],
        labels: 1_000 * seed,
    }
}

fn study() -> Study {
    let methods = ["local", "central", "fedavg", "mine"].map(str::to_owned).to_vec();
    let cells = vec![
        cell("mine", 2, [WHOLE, WHOLE, WHOLE]),
        cell("fedavg", 1, [WHOLE, WHOLE, NOTHING]),
        cell("central", 1, [WHOLE, WHOLE, HALF]),
        cell("local", 1, [WHOLE, HALF, HALF]),
        cell("fedavg", 2, [HALF, HALF, HALF]),
        cell("mine", 1, [HALF, WHOLE, WHOLE]),
    ];
    Study::new("three users".to_owned(), methods, Some("fedavg".to_owned()), cells)
}

fn summary(study: &Study, method: &str) -> MethodSummary {
    let summaries = study.method_summaries();
    summaries.into_iter().find(|summary| summary.method == method).expect("it has cells")
}

fn assert_close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-12, "got {got}, expected {expected}");
}

#[test]
fn over_users_and_seeds_by_hand() {
    let fedavg = summary(&study(), "fedavg");
    // Seeds: 2/3 and 1/2.
    assert_close(fedavg.ndcg5.mean, 7.0 / 12.0);
    assert_close(fedavg.ndcg5.sd.expect("two seeds"), (1.0_f64 / 6.0) / 2.0_f64.sqrt());
    let tenth = (2.0 + 1.0 / 7.0_f64.log2()) / 3.0;
    assert_close(fedavg.ndcg10.mean, (tenth + 0.5) / 2.0);
    assert_close(fedavg.recall10.mean, 1.0);
    assert_close(fedavg.labels.mean, 1_500.0);
    assert_eq!(summary(&study(), "local").ndcg5, MeanSd { mean: 2.0 / 3.0, sd: None });
}

/// method.md 7: mean, worst, max - min and standard deviation over clients, unweighted.
#[test]
fn over_clients_by_hand() {
    let fedavg = summary(&study(), "fedavg");
    // Clients: 1 and 0 under seed 1, a half each under seed 2.
    assert_close(fedavg.client_mean.mean, 0.5);
    assert_close(fedavg.worst.mean, 0.25);
    assert_close(fedavg.range.mean, 0.5);
    assert_close(fedavg.client_sd.mean, 0.25);
}

/// method.md 7: each client's ratio to its own local-only and central result, where there is one.
#[test]
fn ratios_by_hand_and_the_central_run_grouped_as_the_others() {
    let study = study();
    let fedavg = summary(&study, "fedavg");
    // Local: 3/4 and 1/2. Central: 1 and 1/2, if its users are grouped. Seed 2 has neither.
    let (mean, smallest) = fedavg.to_local.expect("seed 1 has it");
    assert_close(mean, (4.0 / 3.0 + 0.0) / 2.0);
    assert_close(smallest, 0.0);
    assert_eq!(fedavg.to_central, Some((0.5, 0.0)));
    let mine = summary(&study, "mine");
    assert_eq!(mine.to_local, Some((1.5, 1.0)));
    assert_eq!(mine.to_central, Some((1.375, 0.75)));
    let central = study.cell_summaries().into_iter().find(|cell| cell.method == "central");
    let central = central.expect("a cell");
    assert_eq!(central.clients.len(), 2);
    assert!(central.clients.iter().all(|client| client.best_round == Round(5)));
}

#[test]
fn clients_with_other_users_have_no_ratio() {
    let mut other = cell("mine", 1, [HALF, WHOLE, WHOLE]);
    let moved = other.clients.get_mut(&ClientId(0)).expect("there").users.pop().expect("two");
    other.clients.get_mut(&ClientId(1)).expect("there").users.insert(0, moved);
    let methods = ["local", "mine"].map(str::to_owned).to_vec();
    let cells = vec![cell("local", 1, [WHOLE, HALF, HALF]), other];
    let study = Study::new("three users".to_owned(), methods, None, cells);
    assert_eq!(summary(&study, "mine").to_local, None);
    assert_eq!(summary(&study, "local").to_local, Some((1.0, 1.0)));
}

/// Pairs by user: means over seeds are .75 .75, 1 .75 and 1 .25.
#[test]
fn the_gain_is_paired_and_the_baseline_has_none() {
    let study = study();
    let gain = summary(&study, "mine").gain.expect("both have two seeds");
    assert_close(gain.relative, 2.75 / 1.75 - 1.0);
    // The extremes draw user 0 or user 2 three times: their gains are 0 and 3.
    assert!(0.0 <= gain.low && gain.low < gain.relative, "{gain:?}");
    assert!(gain.relative < gain.high && gain.high <= 3.0, "{gain:?}");
    assert_eq!(summary(&study, "fedavg").gain, None);
    // Against local only the first seed counts: 2.5 / 2 - 1.
    let mut over_local = study;
    over_local.baseline = Some("local".to_owned());
    assert_close(summary(&over_local, "mine").gain.expect("seed 1").relative, 0.25);
}

#[test]
fn files_hold_the_same_numbers() {
    let study = study();
    let row = |text: &str, start: &str| {
        let found = text.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in\n{text}")).to_owned()
    };
    let text = markdown(&study, &[("local".to_owned(), 2)]);
    let fedavg = row(&text, "| fedavg ");
    assert!(fedavg.starts_with("| fedavg | 2 | 0.5833 ± 0.1179 | "), "{fedavg}");
    assert!(
        fedavg.ends_with(
            "| – | 0.5000 | 0.2500 | 0.5000 | 0.2500 | 0.667 | 0.000 | 0.500 | 0.000 | 1,500 |"
        ),
        "{fedavg}"
    );
    assert!(row(&text, "| central ").starts_with("| central | 1 | 0.8333 ± – | "));
    assert!(row(&text, "| mine ").contains("| +57.1 % ["));
    assert!(text.contains("not in any number above: local seed 2."), "{text}");
    assert!(!markdown(&study, &[]).contains("Incomplete"));
    let table = table(&study);
    assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));

    let results = results_csv(&study);
    assert_eq!(results.lines().count(), 1 + 6 * 2);
    assert_eq!(row(&results, "mine,1,0,"), "mine,1,0,2,0.75,0.75,1,5,1,0.75");
    assert_eq!(row(&results, "mine,2,1,"), "mine,2,1,1,1,1,1,6,,");
    let summary = summary_csv(&study);
    assert_eq!(summary.lines().count(), 1 + 4);
    assert!(row(&summary, "local,").starts_with("local,1,0.6666666666666666,,"), "{summary}");
    assert_eq!(row(&curves_csv(&study), "mine,2,1,"), "mine,2,1,0.2");
}

/// One line a method; only methods with several seeds have a band. Ratios are drawn with the method local.
#[test]
fn plots_show_every_method() {
    let drawn = plots(&study()).expect("drawn");
    for method in ["local", "central", "fedavg", "mine"] {
        assert!(drawn.curves.contains(method) && drawn.ndcg5.contains(method), "{method}");
    }
    assert_eq!(drawn.curves.matches("<polygon").count(), 2);
    assert!(drawn.to_local.expect("local is there").contains("from the worst alone to the best"));
    let methods = vec!["fedavg".to_owned()];
    let cells = vec![cell("fedavg", 1, [WHOLE, WHOLE, NOTHING])];
    let study = Study::new("three users".to_owned(), methods, None, cells);
    assert_eq!(plots(&study).expect("drawn").to_local, None);
}

/// Nothing is finished, or nobody is tested: rows are left out, nothing fails.
#[test]
fn empty_studies_and_cells_are_no_defect() {
    let methods = vec!["fedavg".to_owned()];
    let empty = CellResult { clients: BTreeMap::new(), ..cell("fedavg", 1, [1, 1, 1]) };
    for cells in [vec![], vec![empty]] {
        let study = Study::new(String::new(), methods.clone(), None, cells);
        assert!(table(&study).rows.is_empty());
        assert_eq!(results_csv(&study).lines().count(), 1);
        plots(&study).expect("drawn");
    }
}
