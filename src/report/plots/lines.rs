//! Lines over rounds.

use plotters::element::DynElement;
use plotters::prelude::*;

use super::axis::{padded_range, tick, whole};
use super::{Canvas, DrawError, LABEL_FONT, Labels, PALETTE, PlotError, SIZE};
use super::{color, is_drawable, legend, render};

/// With more points than this in all, only points without a neighbour are marked: the page stays small.
const MOST_MARKERS: usize = 1500;
/// Most round numbers that fit under the plot.
const MOST_ROUNDS: usize = 12;

/// One line.
#[derive(Clone, Debug)]
pub struct LineSeries {
    /// As the legend shows it.
    pub name: String,
    /// (round, value), rounds ascending. A value that is not finite breaks the line.
    pub points: Vec<(u64, f64)>,
}

/// Draws one line a series, for instance a client's NDCG@10 over the rounds.
///
/// # Errors
/// [`PlotError::Draw`] if the plotting library fails; never for the data.
pub fn line_plot(labels: &Labels<'_>, series: &[LineSeries]) -> Result<String, PlotError> {
    render(labels.title, SIZE, |canvas| {
        let (plot, side) = legend::beside(canvas);
        draw_lines(&plot, labels, series)?;
        let names: Vec<&str> = series.iter().map(|line| line.name.as_str()).collect();
        legend::draw(&side, &names, marker)
    })
}

fn draw_lines(
    canvas: &Canvas<'_>,
    labels: &Labels<'_>,
    series: &[LineSeries],
) -> Result<(), DrawError> {
    let points = || series.iter().flat_map(|line| &line.points);
    let rounds = padded_range(points().map(|(round, _)| *round as f64));
    let values = padded_range(points().map(|(_, value)| *value));
    // No more ticks than rounds, or they would stand between two.
    let ticks = ((rounds.end - rounds.start) as usize + 1).min(MOST_ROUNDS);
    let mark_all = points().count() <= MOST_MARKERS;

    let mut chart = ChartBuilder::on(canvas)
        .margin(8)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(rounds, values)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(LABEL_FONT)
        .axis_desc_style(LABEL_FONT)
        .x_labels(ticks)
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_label_formatter(&|x| whole(*x).map(|round| round.to_string()).unwrap_or_default())
        .y_label_formatter(&|y| tick(*y))
        .draw()?;

    for (index, line) in series.iter().enumerate() {
        for run in line.points.split(|(_, value)| !is_drawable(*value)) {
            let run = || run.iter().map(|(round, value)| (*round as f64, *value));
            chart.draw_series([PathElement::new(
                run().collect::<Vec<_>>(),
                color(index).stroke_width(2),
            )])?;
            if mark_all || run().len() == 1 {
                chart.draw_series(run().map(|point| marker(index, point)))?;
            }
        }
    }
    Ok(())
}

/// The sign of a series: its shape changes each time the palette starts over.
fn marker<'a, C>(index: usize, at: C) -> DynElement<'static, SVGBackend<'a>, C>
where
    C: Clone + 'static,
{
    let style = color(index).filled();
    match index / PALETTE.len() % 3 {
        0 => Circle::new(at, 3, style).into_dyn(),
        1 => TriangleMarker::new(at, 5, style).into_dyn(),
        _ => Cross::new(at, 4, color(index).stroke_width(2)).into_dyn(),
    }
}
