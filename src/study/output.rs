//! The files of a study as text. No times, so that equal studies give equal files.

use super::results::{MeanSd, Study};
use super::table;

/// `table.md`: the table, what is missing, and where its columns are explained.
pub fn markdown(study: &Study, missing: &[(String, u64)]) -> String {
    let table = table(study).to_markdown();
    let mut text = format!("# {}: {} methods\n\n{table}", study.dataset, study.methods.len());
    if !missing.is_empty() {
        let cells = missing.iter().map(|(method, seed)| format!("{method} seed {seed}"));
        let cells = cells.collect::<Vec<_>>().join(", ");
        text += &format!("\n**Incomplete.** Not finished, and not in any number above: {cells}.\n");
    }
    text + "\nEvery number of a run is taken first and then averaged over seeds. \"all users\" are means over \
            users, \"clients\" unweighted means over clients, \"to local\" and \"to central\" each client's \
            NDCG@5 over its own under the methods `local` and `central`, \"labels\" what a run trained on. \
            docs/compare.md explains the columns.\n"
}

/// `results.csv`: one row a method, seed and client.
pub fn results_csv(study: &Study) -> String {
    let header = [
        "method",
        "seed",
        "client",
        "users",
        "ndcg5",
        "ndcg10",
        "recall10",
        "best_round",
        "to_local",
        "to_central",
    ];
    let cells = study.cell_summaries();
    let rows = cells.iter().flat_map(|cell| {
        cell.clients.iter().map(|client| {
            let quality = client.quality;
            vec![
                cell.method.clone(),
                cell.seed.to_string(),
                client.client.0.to_string(),
                quality.users.to_string(),
                quality.ndcg5.to_string(),
                quality.ndcg10.to_string(),
                quality.recall10.to_string(),
                client.best_round.to_string(),
                or_empty(client.ratios.to_local_only),
                or_empty(client.ratios.to_central),
            ]
        })
    });
    csv(&header, rows)
}

/// `summary.csv`: one row a method, the numbers of the table. Gains are shares, not percent.
pub fn summary_csv(study: &Study) -> String {
    let header = [
        "method",
        "seeds",
        "ndcg5",
        "ndcg5_sd",
        "ndcg10",
        "ndcg10_sd",
        "recall10",
        "recall10_sd",
        "gain",
        "gain_low",
        "gain_high",
        "client_mean",
        "worst_client",
        "client_range",
        "client_sd",
        "to_local_mean",
        "to_local_min",
        "to_central_mean",
        "to_central_min",
        "labels",
    ];
    let rows = study.method_summaries().into_iter().map(|method| {
        let mut row = vec![method.method, method.seeds.to_string()];
        for MeanSd { mean, sd } in [method.ndcg5, method.ndcg10, method.recall10] {
            row.extend([mean.to_string(), or_empty(sd)]);
        }
        let gain = method.gain;
        row.extend(
            [gain.map(|g| g.relative), gain.map(|g| g.low), gain.map(|g| g.high)].map(or_empty),
        );
        let clients = [method.client_mean, method.worst, method.range, method.client_sd];
        row.extend(clients.map(|value| value.mean.to_string()));
        for pair in [method.to_local, method.to_central] {
            row.extend([or_empty(pair.map(|(mean, _)| mean)), or_empty(pair.map(|(_, min)| min))]);
        }
        row.push(method.labels.mean.to_string());
        row
    });
    csv(&header, rows)
}

/// `curves.csv`: one row a method, seed and evaluated round.
pub fn curves_csv(study: &Study) -> String {
    let rows = study.cells().iter().flat_map(|cell| {
        cell.curve.iter().map(|(round, ndcg10)| {
            vec![cell.method.clone(), cell.seed.to_string(), round.to_string(), ndcg10.to_string()]
        })
    });
    csv(&["method", "seed", "round", "validation_ndcg10"], rows)
}

fn csv(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = writer.write_record(header);
    let written = rows.fold(written, |done, row| done.and_then(|()| writer.write_record(row)));
    written.expect("memory takes every row, and rows are as long as the header");
    let bytes = writer.into_inner().expect("memory takes everything");
    String::from_utf8(bytes).expect("fields are text")
}

fn or_empty(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
