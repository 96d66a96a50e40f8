//! The names of the series, beside the plot, where they cover nothing.

use plotters::prelude::*;

use super::{Canvas, DrawError, LABEL_FONT};

/// Least width of the column that holds the legend, and what a character beyond it takes. Unit: pixels.
const WIDTH: i32 = 148;
const CHARACTER: i32 = 7;
/// Characters that the least width holds, and those at which a name is cut.
const FITTING: usize = 15;
const LONGEST_NAME: usize = 24;
const LINE_HEIGHT: usize = 20;

/// Splits the canvas into the plot's part and that of a legend of these names.
pub fn beside<'a>(canvas: &Canvas<'a>, names: &[&str]) -> (Canvas<'a>, Canvas<'a>) {
    let (width, _) = canvas.dim_in_pixel();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let beyond = longest.min(LONGEST_NAME).saturating_sub(FITTING);
    canvas.split_horizontally(width as i32 - WIDTH - CHARACTER * beyond as i32)
}

/// Draws one line a series; those that do not fit are counted.
///
/// `swatch` draws the sign of the `index`-th series around a point of the area.
pub fn draw(
    area: &Canvas<'_>,
    names: &[&str],
    swatch: impl Fn(&Canvas<'_>, usize, (i32, i32)) -> Result<(), DrawError>,
) -> Result<(), DrawError> {
    let (_, height) = area.dim_in_pixel();
    let fitting = (height as usize / LINE_HEIGHT).saturating_sub(2);
    let position = |row: usize| (row * LINE_HEIGHT + LINE_HEIGHT) as i32;
    let text = |text: String, row: usize| Text::new(text, (28, position(row) - 8), LABEL_FONT);

    for (index, name) in names.iter().enumerate().take(fitting) {
        swatch(area, index, (14, position(index)))?;
        area.draw(&text(shortened(name), index))?;
    }
    if names.len() > fitting {
        area.draw(&text(format!("and {} more", names.len() - fitting), fitting))?;
    }
    Ok(())
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    let start: String = name.chars().take(LONGEST_NAME - 1).collect();
    format!("{start}…")
}
