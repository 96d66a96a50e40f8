//! The plots of the page.

use maud::{Markup, PreEscaped, html};

use crate::cost::ClientCost;
use crate::federation::matrix::{Grouped, Matrix};
use crate::federation::mixing::MixingWeights;
use crate::ids::{ClientId, Round};
use crate::model::slice::Part;
use crate::report::plots::{
    Band, BarSeries, Labels, LineSeries, PlotError, Stroke, grouped_bars, heat_map, line_plot,
};
use crate::report::{History, Quantity, Series, Spread, spread};

/// With more clients than this, plots show their spread.
pub const MOST_LINES: usize = 10;
/// Clients of a heat map; with more, evenly spread ones stand for all.
const MOST_CELLS: usize = 40;

const ROUNDS: &str = "completed rounds";
const MEBIBYTE: f64 = (1 << 20) as f64;

pub fn loss(history: &History) -> Result<Markup, PlotError> {
    let labels = Labels { title: "Training loss", x: ROUNDS, y: "loss, nats" };
    over_rounds(&labels, &history.series(Quantity::Loss), None)
}

pub fn validation(history: &History) -> Result<Markup, PlotError> {
    let labels = Labels { title: "Validation NDCG@10", x: ROUNDS, y: "NDCG@10" };
    let popularity = history.summary().ndcg10.and_then(|figure| figure.popularity);
    over_rounds(&labels, &history.series(Quantity::Ndcg10), popularity)
}

pub fn openness(history: &History) -> Result<Markup, PlotError> {
    let labels = Labels { title: "Openness", x: ROUNDS, y: "w_c" };
    over_rounds(&labels, &history.series(Quantity::Openness), None)
}

pub fn self_weight(history: &History) -> Result<Markup, PlotError> {
    let labels = Labels { title: "Self-weight", x: ROUNDS, y: "weight of own tensors" };
    over_rounds(&labels, &history.series(Quantity::SelfWeight), None)
}

/// Traffic since the start, so that its slope is the traffic of a round.
pub fn traffic(history: &History) -> Result<Markup, PlotError> {
    let labels = Labels { title: "Traffic of a client so far", x: ROUNDS, y: "MiB, both ways" };
    let mut series = history.series(Quantity::Bytes);
    for points in series.values_mut() {
        let mut sum = 0.0;
        for (_, bytes) in points.iter_mut() {
            sum += *bytes / MEBIBYTE;
            *bytes = sum;
        }
        points.insert(0, (0, 0.0));
    }
    over_rounds(&labels, &series, None)
}

pub fn balance_range(history: &History) -> Result<Markup, PlotError> {
    let labels = Labels { title: "Best minus worst client", x: ROUNDS, y: "NDCG@10" };
    let points = history.balance().into_iter().map(|(state, balance)| (state.0, balance.range));
    one_line(&labels, "max - min", points.collect())
}

pub fn balance_ratio(history: &History) -> Result<Markup, PlotError> {
    let labels = Labels { title: "Worst over best client", x: ROUNDS, y: "ratio" };
    let balance = history.balance().into_iter();
    let points = balance.filter_map(|(state, b)| Some((state.0, b.worst_to_best?)));
    one_line(&labels, "worst / best", points.collect())
}

/// What the split asks of a client, in percent of training the whole model.
pub fn plan(history: &History) -> Result<Markup, PlotError> {
    let labels = Labels { title: "A client under the split", x: "", y: "% of the whole model" };
    let (split, whole) = (&history.plan.split, &history.plan.whole);
    let share = |part: u64, all: u64| 100.0 * part as f64 / all.max(1) as f64;
    let values = vec![
        share(split.parameters, whole.parameters),
        share(split.trainable, whole.trainable),
        share(split.bytes, whole.bytes),
        share(split.flops_per_position, whole.flops_per_position),
    ];
    let groups = ["held", "trained", "memory", "FLOPs"].map(str::to_owned);
    let bars = |name: &str, values| BarSeries { name: name.to_owned(), values };
    let series = [bars("split", values), bars("whole model", vec![100.0; 4])];
    figure(grouped_bars(&labels, &groups, &series), None)
}

/// Where a client's time goes: by client, or over rounds where there are many.
pub fn seconds(history: &History) -> Result<Markup, PlotError> {
    if history.clients.len() > MOST_LINES {
        let labels = Labels { title: "Time of a client", x: ROUNDS, y: "seconds" };
        return over_rounds(&labels, &history.series(Quantity::Seconds), None);
    }
    let labels = Labels { title: "Mean time of a client in a round", x: "", y: "seconds" };
    if history.rounds.is_empty() {
        return Ok(nothing_recorded(&labels));
    }
    let mean = |of: fn(&ClientCost) -> f64| {
        let by_client = history.clients.keys().map(|client| {
            let rounds = history.rounds.values().filter_map(|round| round.clients.get(client));
            let values: Vec<f64> = rounds.map(|part| of(&part.cost)).collect();
            values.iter().sum::<f64>() / values.len() as f64
        });
        by_client.collect()
    };
    let bars = |name: &str, values| BarSeries { name: name.to_owned(), values };
    let series = [
        bars("front", mean(|cost| cost.front_secs)),
        bars("body (server)", mean(|cost| cost.body_secs)),
        bars("back", mean(|cost| cost.back_secs)),
        bars("waiting", mean(|cost| cost.wait_secs)),
    ];
    let groups: Vec<String> = history.clients.keys().map(ClientId::to_string).collect();
    figure(grouped_bars(&labels, &groups, &series), None)
}

/// The mixing matrices of the newest round, one or one a part.
pub fn mixing_matrices(history: &History) -> Result<Markup, PlotError> {
    let Some((round, mixing)) = &history.mixing else { return Ok(html! {}) };
    let figures = mixing.matrices().iter().map(|(part, matrix)| {
        let part = matches!(mixing.matrices(), Grouped::Separate { .. }).then_some(part);
        mixing_matrix(*round, part, mixing, matrix)
    });
    let figures: Vec<Markup> = figures.collect::<Result<_, _>>()?;
    Ok(html! { @for figure in figures { (figure) } })
}

fn mixing_matrix(
    round: Round,
    part: Option<Part>,
    mixing: &MixingWeights,
    matrix: &Matrix,
) -> Result<Markup, PlotError> {
    let all = mixing.clients().len();
    let shown: Vec<usize> = if all <= MOST_CELLS {
        (0..all).collect()
    } else {
        (0..MOST_CELLS).map(|place| place * (all - 1) / (MOST_CELLS - 1)).collect()
    };
    // Among many, a client's own weight dwarfs the others' and would leave them all one colour.
    let hides_own = all > MOST_CELLS;
    let cell = |row: usize, column: usize| {
        if hides_own && row == column { f64::NAN } else { matrix.get(row, column) }
    };
    let rows: Vec<Vec<f64>> =
        shown.iter().map(|row| shown.iter().map(|column| cell(*row, *column)).collect()).collect();
    let names: Vec<String> =
        shown.iter().map(|place| mixing.clients()[*place].to_string()).collect();
    let of_part = part.map(|part| format!(", {part}")).unwrap_or_default();
    let title = format!("Mixing weights of round {}{of_part}", round.next());
    let labels = Labels { title: &title, x: "from whom", y: "who learns" };
    let rule = hides_own.then(|| {
        format!(
            "{MOST_CELLS} of {all} clients, evenly spaced by number. The diagonal, the self-weight, is grey: \
             it would leave the rest one colour."
        )
    });
    figure(heat_map(&labels, &names, &rows), rule)
}

/// One line a client, or the clients' spread.
fn over_rounds(
    labels: &Labels<'_>,
    series: &Series,
    popularity: Option<f64>,
) -> Result<Markup, PlotError> {
    if series.is_empty() {
        return Ok(nothing_recorded(labels));
    }
    let rounds = || series.values().flatten().map(|(round, _)| *round);
    let reference =
        popularity.zip(rounds().min().zip(rounds().max())).map(|(value, (first, last))| {
            LineSeries {
                name: "popularity".to_owned(),
                points: vec![(first, value), (last, value)],
                stroke: Stroke::Dashed,
            }
        });
    let note = reference.is_some().then(|| {
        "Popularity was measured on the test targets: a mark to go by, not the same protocol."
            .to_owned()
    });
    if series.len() > MOST_LINES {
        let spread = spread(series);
        let lines: Vec<LineSeries> = spread_lines(&spread).into_iter().chain(reference).collect();
        return figure(line_plot(labels, &bands(&spread), &lines), note);
    }
    let lines = series.iter().map(|(client, points)| solid(&client.to_string(), points.clone()));
    let lines: Vec<LineSeries> = lines.chain(reference).collect();
    figure(line_plot(labels, &[], &lines), note)
}

fn one_line(labels: &Labels<'_>, name: &str, points: Vec<(u64, f64)>) -> Result<Markup, PlotError> {
    if points.is_empty() {
        return Ok(nothing_recorded(labels));
    }
    figure(line_plot(labels, &[], &[solid(name, points)]), None)
}

/// Stands where an empty plot would.
fn nothing_recorded(labels: &Labels<'_>) -> Markup {
    html! { p.faint { (labels.title) ": nothing recorded." } }
}

fn bands(spread: &[Spread]) -> [Band; 2] {
    let band = |name: &str, edges: fn(&Spread) -> (f64, f64)| {
        let point = |at: &Spread| (at.round, edges(at).0, edges(at).1);
        let points = spread.iter().map(point).collect();
        Band { name: Some(name.to_owned()), line: 0, points }
    };
    [band("middle 90 %", |at| (at.p5, at.p95)), band("middle half", |at| (at.p25, at.p75))]
}

fn spread_lines(spread: &[Spread]) -> [LineSeries; 3] {
    let line = |name: &str, stroke, value: fn(&Spread) -> f64| LineSeries {
        name: name.to_owned(),
        points: spread.iter().map(|at| (at.round, value(at))).collect(),
        stroke,
    };
    [
        line("median", Stroke::Solid, |at| at.median),
        line("lowest", Stroke::Dashed, |at| at.min),
        line("highest", Stroke::Dashed, |at| at.max),
    ]
}

fn solid(name: &str, points: Vec<(u64, f64)>) -> LineSeries {
    LineSeries { name: name.to_owned(), points, stroke: Stroke::Solid }
}

fn figure(svg: Result<String, PlotError>, note: Option<String>) -> Result<Markup, PlotError> {
    let svg = PreEscaped(svg?);
    Ok(html! { figure { (svg) @if let Some(note) = note { figcaption { (note) } } } })
}
