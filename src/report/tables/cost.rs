//! What a client pays, planned and measured.

use super::{Column, Table};
use crate::cost::{ClientCost, ClientNeed};
use crate::report::History;
use crate::report::format::{NOTHING, bytes, count, flops, percent, seconds};
use crate::report::series::quantile;

/// A client under the split beside a client that trains the whole model.
pub fn planned_cost(history: &History) -> Table {
    let plan = &history.plan;
    let row = |name: &str, of: fn(&ClientNeed) -> u64, shown: fn(u64) -> String| {
        let (split, whole) = (of(&plan.split), of(&plan.whole));
        let share = split as f64 / whole.max(1) as f64;
        vec![name.to_owned(), shown(split), shown(whole), percent(share)]
    };
    let wire = bytes(plan.wire_bytes_per_position);
    let wire = ["over the cut, one position", &wire, NOTHING, NOTHING];
    Table {
        caption: "Planned for one client".to_owned(),
        columns: vec![
            Column::words(""),
            Column::numbers("split"),
            Column::numbers("whole model"),
            Column::numbers("share"),
        ],
        rows: vec![
            row("parameters held", |need| need.parameters, count),
            row("parameters trained", |need| need.trainable, count),
            row("memory to train", |need| need.bytes, bytes),
            row("forward, one position", |need| need.flops_per_position, flops),
            wire.map(str::to_owned).to_vec(),
        ],
        foot: Vec::new(),
    }
}

/// Seconds and bytes of a client in a round: where the clients and rounds are.
pub fn measured_cost(history: &History) -> Table {
    let row = |name: &str, of: fn(&ClientCost) -> f64, shown: fn(f64) -> String| {
        let parts = history.rounds.values().flat_map(|round| round.clients.values());
        let mut values: Vec<f64> = parts.map(|part| of(&part.cost)).collect();
        values.sort_by(f64::total_cmp);
        let mut row = vec![name.to_owned()];
        let shares = if values.is_empty() { &[][..] } else { &[0.0, 0.5, 0.95, 1.0] };
        row.extend(shares.iter().map(|share| shown(quantile(&values, *share))));
        row
    };
    let shown_bytes = |value: f64| bytes(value as u64);
    let rows = vec![
        row("front", |cost| cost.front_secs, seconds),
        row("body, on the server", |cost| cost.body_secs, seconds),
        row("back", |cost| cost.back_secs, seconds),
        row("waiting", |cost| cost.wait_secs, seconds),
        row("sent", |cost| cost.bytes_up as f64, shown_bytes),
        row("received", |cost| cost.bytes_down as f64, shown_bytes),
    ];
    Table {
        caption: "Measured, one client in one round; over all clients and rounds".to_owned(),
        columns: vec![
            Column::words(""),
            Column::numbers("least"),
            Column::numbers("median"),
            Column::numbers("95 % below"),
            Column::numbers("most"),
        ],
        rows: if history.rounds.is_empty() { Vec::new() } else { rows },
        foot: Vec::new(),
    }
}
