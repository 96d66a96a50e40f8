//! Plots as SVG text, ready to stand inside a page: lines over rounds, grouped bars, a heat map.
//!
//! Plain numbers in, text out; nothing here knows what a run is. Any numbers will do: a value that is
//! not finite, or beyond [`LARGEST`], is a gap, and empty, single-point and constant data give a plot
//! with sensible axes.
//!
//! Paper is pure white and ink pure black, so that a page can give both colours of its own; the
//! values printed on cells are not quite black and stay readable on their light ground.

mod axis;
mod bars;
mod heat_map;
mod legend;
mod lines;

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use thiserror::Error;

pub use bars::{BarSeries, grouped_bars};
pub use heat_map::heat_map;
pub use lines::{Band, LineSeries, Stroke, line_plot};

/// Largest magnitude that is drawn: beyond it the distance of two axis ticks could overflow.
pub const LARGEST: f64 = 1e30;

/// Width and height of line and bar plots. Unit: pixels.
const SIZE: (u32, u32) = (660, 380);
const FONT: &str = "sans-serif";
const TITLE_FONT: (&str, u32) = (FONT, 18);
const LABEL_FONT: (&str, u32) = (FONT, 15);

/// The colours of Okabe and Ito, told apart under every common colour blindness, without the yellow
/// that white paper swallows.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Why a plot could not be drawn. Data never is the reason.
#[derive(Debug, Error)]
pub enum PlotError {
    /// The plotting library failed on its own backend.
    #[error("failed to draw the plot {title:?}")]
    Draw {
        /// Title of the plot.
        title: String,
        /// What the library says.
        source: DrawError,
    },
}

/// The words around a plot.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Stands above the plot.
    pub title: &'a str,
    /// What the horizontal axis counts, with its unit.
    pub x: &'a str,
    /// What the vertical axis measures, with its unit.
    pub y: &'a str,
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawError = DrawingAreaErrorKind<io::Error>;

/// Sets up a titled canvas, lets `draw` fill it, and returns the SVG text.
fn render(
    title: &str,
    size: (u32, u32),
    draw: impl FnOnce(&Canvas<'_>) -> Result<(), DrawError>,
) -> Result<String, PlotError> {
    let mut svg = String::new();
    let draw_all = || {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root.titled(title, TITLE_FONT)?)?;
        root.present()
    };
    draw_all().map_err(|source| PlotError::Draw { title: title.to_owned(), source })?;
    Ok(svg)
}

/// Colour of the `index`-th series; after its end the palette starts over half as strong, then again
/// from the beginning.
fn color(index: usize) -> RGBColor {
    let RGBColor(red, green, blue) = PALETTE[index % PALETTE.len()];
    if (index / PALETTE.len()).is_multiple_of(2) {
        return RGBColor(red, green, blue);
    }
    let pale = |part: u8| part / 2 + 127;
    RGBColor(pale(red), pale(green), pale(blue))
}

fn is_drawable(value: f64) -> bool {
    value.is_finite() && value.abs() <= LARGEST
}
