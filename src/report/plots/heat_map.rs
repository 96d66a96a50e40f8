//! A matrix as coloured cells.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::tick;
use super::{Canvas, DrawError, FONT, LABEL_FONT, Labels, PlotError, is_drawable, render};

/// Width and height of the whole plot. Unit: pixels.
const SIZE: (u32, u32) = (630, 524);
/// Where the cells start, below the column names and right of the row names. Unit: pixels.
const CORNER: (i32, i32) = (110, 56);
/// Longest side of the block of cells. Unit: pixels.
const BLOCK: i32 = 420;
/// Largest side of one cell. Unit: pixels.
const LARGEST_CELL: i32 = 90;
/// Smallest cell that still holds its value in print. Unit: pixels.
const PRINTED_CELL: i32 = 34;
/// Rows between two names at most, when cells are small. Unit: pixels.
const NAME_HEIGHT: i32 = 18;
/// Ends of the colour scale.
const PALEST: RGBColor = RGBColor(244, 248, 252);
const DARKEST: RGBColor = RGBColor(0, 98, 155);
const EMPTY_CELL: RGBColor = RGBColor(225, 225, 225);
/// Values on light and on dark cells. Neither is the pure black or white that a page may replace.
const CELL_INK: (RGBColor, RGBColor) = (RGBColor(17, 17, 17), RGBColor(250, 250, 250));

/// Most rows and columns that are drawn; a page with more cells is slow to open.
const MOST_NAMES: usize = 100;

/// Draws a matrix, for instance the mixing matrix: row = who learns, column = from whom.
///
/// `names` label rows and columns alike; rows may differ in length. Of a large matrix the upper left
/// corner is shown, and the plot says so. The palest blue is the smaller of 0 and the smallest value,
/// the darkest the largest; a cell that is missing or not finite is grey.
///
/// # Errors
/// [`PlotError::Draw`] if the plotting library fails; never for the data.
pub fn heat_map(
    labels: &Labels<'_>,
    names: &[String],
    rows: &[Vec<f64>],
) -> Result<String, PlotError> {
    render(labels.title, SIZE, |canvas| {
        let all_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let all = rows.len().max(all_columns);
        let rows = &rows[..rows.len().min(MOST_NAMES)];
        let columns = all_columns.min(MOST_NAMES);
        let grid = Grid::new(rows.len().max(columns));
        let scale = Scale::of(rows);
        for (row, values) in rows.iter().enumerate() {
            for column in 0..columns {
                let value = values.get(column).copied().filter(|value| is_drawable(*value));
                draw_cell(canvas, &grid, &scale, (row, column), value)?;
            }
        }
        let outline = [CORNER, grid.corner((rows.len(), columns))];
        canvas.draw(&Rectangle::new(outline, BLACK))?;
        draw_names(canvas, &grid, names, (rows.len(), columns))?;
        draw_axis_words(canvas, labels, all)?;
        draw_scale(canvas, &scale)
    })
}

/// Where cells stand.
struct Grid {
    cell: i32,
}

impl Grid {
    fn new(longest: usize) -> Self {
        Self { cell: (BLOCK / longest.max(1) as i32).min(LARGEST_CELL) }
    }

    fn corner(&self, (row, column): (usize, usize)) -> (i32, i32) {
        (CORNER.0 + column as i32 * self.cell, CORNER.1 + row as i32 * self.cell)
    }

    /// Every how many rows a name fits.
    fn name_stride(&self, slot: i32) -> usize {
        (slot / self.cell) as usize + 1
    }
}

/// Which value has which colour.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(rows: &[Vec<f64>]) -> Self {
        let values = rows.iter().flatten().copied().filter(|value| is_drawable(*value));
        let (low, high) = values
            .fold((0.0, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
        Self { low, high }
    }

    /// Place of a value between the palest (0) and the darkest blue (1).
    fn shade(&self, value: f64) -> f64 {
        if self.high > self.low { (value - self.low) / (self.high - self.low) } else { 0.0 }
    }

    fn color(&self, value: f64) -> RGBColor {
        let shade = self.shade(value);
        let (pale, dark) = (PALEST, DARKEST);
        let mix = |from: u8, to: u8| {
            (f64::from(from) + shade * (f64::from(to) - f64::from(from))).round() as u8
        };
        RGBColor(mix(pale.0, dark.0), mix(pale.1, dark.1), mix(pale.2, dark.2))
    }
}

fn draw_cell(
    canvas: &Canvas<'_>,
    grid: &Grid,
    scale: &Scale,
    place: (usize, usize),
    value: Option<f64>,
) -> Result<(), DrawError> {
    let (x, y) = grid.corner(place);
    let fill = value.map_or(EMPTY_CELL, |value| scale.color(value));
    canvas.draw(&Rectangle::new([(x, y), (x + grid.cell, y + grid.cell)], fill.filled()))?;
    if grid.cell < PRINTED_CELL {
        return Ok(());
    }

    let on_dark = value.is_some_and(|value| scale.shade(value) > 0.6);
    let ink = if on_dark { CELL_INK.1 } else { CELL_INK.0 };
    let style = (FONT, 14).into_font().color(&ink).pos(Pos::new(HPos::Center, VPos::Center));
    let center = (x + grid.cell / 2, y + grid.cell / 2);
    let print = value.map_or("–".to_owned(), |value| format!("{value:.2}"));
    canvas.draw(&Text::new(print, center, style))
}

/// Names the rows and columns, as many as fit.
fn draw_names(
    canvas: &Canvas<'_>,
    grid: &Grid,
    names: &[String],
    (rows, columns): (usize, usize),
) -> Result<(), DrawError> {
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as i32;
    let half = grid.cell / 2;
    let style = |anchor| LABEL_FONT.into_font().color(&BLACK).pos(anchor);

    let beside = style(Pos::new(HPos::Right, VPos::Center));
    for (row, name) in names.iter().enumerate().take(rows).step_by(grid.name_stride(NAME_HEIGHT)) {
        let (x, y) = grid.corner((row, 0));
        canvas.draw(&Text::new(name.as_str(), (x - 6, y + half), beside.clone()))?;
    }
    let above = style(Pos::new(HPos::Center, VPos::Bottom));
    let column_stride = grid.name_stride(widest * 8);
    for (column, name) in names.iter().enumerate().take(columns).step_by(column_stride) {
        let (x, y) = grid.corner((0, column));
        canvas.draw(&Text::new(name.as_str(), (x + half, y - 4), above.clone()))?;
    }
    Ok(())
}

fn draw_axis_words(canvas: &Canvas<'_>, labels: &Labels<'_>, all: usize) -> Result<(), DrawError> {
    let x = match all {
        0..=MOST_NAMES => labels.x.to_owned(),
        _ => format!("{} (first {MOST_NAMES} of {all})", labels.x),
    };
    let style = LABEL_FONT.into_font().color(&BLACK);
    let x_place = (CORNER.0 + BLOCK / 2, 12);
    let x_style = style.clone().pos(Pos::new(HPos::Center, VPos::Center));
    canvas.draw(&Text::new(x, x_place, x_style))?;
    let y_style =
        style.transform(FontTransform::Rotate270).pos(Pos::new(HPos::Center, VPos::Center));
    canvas.draw(&Text::new(labels.y, (14, CORNER.1 + BLOCK / 2), y_style))
}

/// A bar of the colours with the values of its ends.
fn draw_scale(canvas: &Canvas<'_>, scale: &Scale) -> Result<(), DrawError> {
    const STEPS: i32 = 50;
    const HEIGHT: i32 = BLOCK / 2;
    let (x, top) = (CORNER.0 + BLOCK + 20, CORNER.1);
    for step in 0..STEPS {
        let share = f64::from(STEPS - 1 - step) / f64::from(STEPS - 1);
        let value = scale.low + share * (scale.high - scale.low);
        let corners =
            [(x, top + step * HEIGHT / STEPS), (x + 16, top + (step + 1) * HEIGHT / STEPS)];
        canvas.draw(&Rectangle::new(corners, scale.color(value).filled()))?;
    }
    canvas.draw(&Rectangle::new([(x, top), (x + 16, top + HEIGHT)], BLACK))?;
    canvas.draw(&Text::new(tick(scale.high), (x + 22, top), LABEL_FONT))?;
    canvas.draw(&Text::new(tick(scale.low), (x + 22, top + HEIGHT - 10), LABEL_FONT))
}
