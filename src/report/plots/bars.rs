//! Grouped bars.

use plotters::prelude::*;

use super::axis::{padded_range, tick, whole};
use super::{Canvas, DrawError, LABEL_FONT, Labels, PlotError, SIZE};
use super::{color, is_drawable, legend, render};

/// Share of a group's width that its bars fill.
const FILLED: f64 = 0.8;
/// Most group names that fit side by side.
const MOST_NAMES: usize = 9;

/// One bar in each group, in one colour.
#[derive(Clone, Debug)]
pub struct BarSeries {
    /// As the legend shows it.
    pub name: String,
    /// One value a group, in the groups' order; a missing or non-finite one has no bar.
    pub values: Vec<f64>,
}

/// Draws the series side by side in each group, for instance NDCG@10 before and after, by client.
///
/// The vertical axis always shows 0. Values beyond the last group are not drawn.
///
/// # Errors
/// [`PlotError::Draw`] if the plotting library fails; never for the data.
pub fn grouped_bars(
    labels: &Labels<'_>,
    groups: &[String],
    series: &[BarSeries],
) -> Result<String, PlotError> {
    render(labels.title, SIZE, |canvas| {
        let names: Vec<&str> = series.iter().map(|bars| bars.name.as_str()).collect();
        let (plot, side) = legend::beside(canvas, &names);
        draw_bars(&plot, labels, groups, series)?;
        legend::draw(&side, &names, |area, index, (x, y)| {
            area.draw(&Rectangle::new([(x - 6, y - 5), (x + 6, y + 5)], color(index).filled()))
        })
    })
}

fn draw_bars(
    canvas: &Canvas<'_>,
    labels: &Labels<'_>,
    groups: &[String],
    series: &[BarSeries],
) -> Result<(), DrawError> {
    let shown = || series.iter().flat_map(|bars| bars.values.iter().take(groups.len()));
    let values = padded_range(shown().copied().chain([0.0]));
    // Group g stands around x = g.
    let places = -0.5..groups.len().max(1) as f64 - 0.5;
    let group_name = |x: &f64| {
        let index = whole(*x).and_then(|group| usize::try_from(group).ok());
        index.and_then(|index| groups.get(index)).cloned().unwrap_or_default()
    };

    let mut chart = ChartBuilder::on(canvas)
        .margin(8)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(places, values)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(LABEL_FONT)
        .axis_desc_style(LABEL_FONT)
        .x_labels(MOST_NAMES)
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_label_formatter(&group_name)
        .y_label_formatter(&|y| tick(*y))
        .draw()?;

    let width = FILLED / series.len().max(1) as f64;
    for (index, bars) in series.iter().enumerate() {
        let drawable =
            bars.values.iter().take(groups.len()).enumerate().filter(|(_, v)| is_drawable(**v));
        chart.draw_series(drawable.map(|(group, value)| {
            let left = group as f64 - FILLED / 2.0 + index as f64 * width;
            Rectangle::new([(left, 0.0), (left + width, *value)], color(index).filled())
        }))?;
    }
    Ok(())
}
