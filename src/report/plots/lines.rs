//! Lines and bands over rounds.

use plotters::element::DynElement;
use plotters::prelude::*;

use super::axis::{padded_range, tick, whole};
use super::{Canvas, DrawError, LABEL_FONT, Labels, PALETTE, PlotError, SIZE};
use super::{color, is_drawable, legend, render};

/// With more points than this in all, only points without a neighbour are marked: the page stays small.
const MOST_MARKERS: usize = 1500;
/// Most round numbers that fit under the plot.
const MOST_ROUNDS: usize = 12;

/// How much a band hides of what it lies on: the inner of two bands shows through the outer.
const BAND_OPACITY: f64 = 0.22;
/// A stroke and the gap after it in a dashed line. Unit: pixels.
const DASH: (i32, i32) = (7, 5);

/// One line.
#[derive(Clone, Debug)]
pub struct LineSeries {
    /// As the legend shows it.
    pub name: String,
    /// (round, value), rounds ascending. A value that is not finite breaks the line.
    pub points: Vec<(u64, f64)>,
    /// How it is drawn.
    pub stroke: Stroke,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// With a marker at every point.
    Solid,
    /// Without markers: a reference, or the edge of something.
    Dashed,
}

/// An area between two values of every round, for instance where the middle half of the clients is.
#[derive(Clone, Debug)]
pub struct Band {
    /// As the legend shows it; `None` where the line it goes with says enough.
    pub name: Option<String>,
    /// Line whose colour it has.
    pub line: usize,
    /// (round, lower, upper), rounds ascending. A value that is not finite breaks the band.
    pub points: Vec<(u64, f64, f64)>,
}

/// Draws the bands, each in the colour of its line, and one line a series over them, for instance
/// a client's NDCG@10 over the rounds.
///
/// # Errors
/// [`PlotError::Draw`] if the plotting library fails; never for the data.
pub fn line_plot(
    labels: &Labels<'_>,
    bands: &[Band],
    lines: &[LineSeries],
) -> Result<String, PlotError> {
    render(labels.title, SIZE, |canvas| {
        let named: Vec<&Band> = bands.iter().filter(|band| band.name.is_some()).collect();
        let names = lines.iter().map(|line| line.name.as_str());
        let names: Vec<&str> =
            names.chain(named.iter().filter_map(|band| band.name.as_deref())).collect();
        let (plot, side) = legend::beside(canvas, &names);
        draw_lines(&plot, labels, bands, lines)?;
        legend::draw(&side, &names, |area, index, at| match lines.get(index) {
            Some(line) => draw_sign(area, index, line.stroke, at),
            None => {
                // A band lies on those before it in its colour, and its sign is as dark as they make it.
                let (band, before) = (named[index - lines.len()], &named[..=index - lines.len()]);
                let depth = before.iter().filter(|other| other.line == band.line).count();
                draw_shade(area, band.line, depth as i32, at)
            }
        })
    })
}

fn draw_lines(
    canvas: &Canvas<'_>,
    labels: &Labels<'_>,
    bands: &[Band],
    lines: &[LineSeries],
) -> Result<(), DrawError> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let edges = || bands.iter().flat_map(|band| &band.points);
    let rounds = points().map(|(round, _)| *round).chain(edges().map(|(round, ..)| *round));
    let rounds = padded_range(rounds.map(|round| round as f64));
    let edge_values = edges().flat_map(|(_, low, high)| [*low, *high]);
    let values = padded_range(points().map(|(_, value)| *value).chain(edge_values));
    // No more ticks than rounds, or they would stand between two.
    let ticks = ((rounds.end - rounds.start) as usize + 1).min(MOST_ROUNDS);
    let mark_all = points().count() <= MOST_MARKERS;

    let mut chart = ChartBuilder::on(canvas)
        .margin(8)
        .x_label_area_size(46)
        .y_label_area_size(72)
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

    for band in bands {
        let is_gap = |(_, low, high): &_| !is_drawable(*low) || !is_drawable(*high);
        for run in band.points.split(is_gap).filter(|run| !run.is_empty()) {
            let lower = run.iter().map(|(round, low, _)| (*round as f64, *low));
            let upper = run.iter().rev().map(|(round, _, high)| (*round as f64, *high));
            let outline: Vec<_> = lower.chain(upper).collect();
            chart.draw_series([Polygon::new(outline, color(band.line).mix(BAND_OPACITY))])?;
        }
    }
    for (index, line) in lines.iter().enumerate() {
        for run in line.points.split(|(_, value)| !is_drawable(*value)) {
            let run = || run.iter().map(|(round, value)| (*round as f64, *value));
            let style = color(index).stroke_width(2);
            if line.stroke == Stroke::Dashed {
                chart.draw_series(DashedLineSeries::new(run(), DASH.0, DASH.1, style))?;
                continue;
            }
            chart.draw_series([PathElement::new(run().collect::<Vec<_>>(), style)])?;
            if mark_all || run().len() == 1 {
                chart.draw_series(run().map(|point| marker(index, point)))?;
            }
        }
    }
    Ok(())
}

/// What the legend shows for a line.
fn draw_sign(
    canvas: &Canvas<'_>,
    index: usize,
    stroke: Stroke,
    (x, y): (i32, i32),
) -> Result<(), DrawError> {
    let style = color(index).stroke_width(2);
    let draw = |left, right| canvas.draw(&PathElement::new([(left, y), (right, y)], style));
    match stroke {
        Stroke::Solid => {
            draw(x - 10, x + 10)?;
            canvas.draw(&marker(index, (x, y)))
        }
        Stroke::Dashed => {
            draw(x - 10, x - 3)?;
            draw(x + 3, x + 10)
        }
    }
}

/// What the legend shows for a place that `bands` bands of a line cover.
fn draw_shade(
    canvas: &Canvas<'_>,
    line: usize,
    bands: i32,
    (x, y): (i32, i32),
) -> Result<(), DrawError> {
    let style = color(line).mix(1.0 - (1.0 - BAND_OPACITY).powi(bands)).filled();
    canvas.draw(&Rectangle::new([(x - 10, y - 6), (x + 10, y + 6)], style))
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
