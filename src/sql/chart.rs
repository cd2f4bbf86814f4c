//! Draws a result over time, as lines on the terminal.
//!
//! * `series` reads the lines off the rows: the first column of times is the x axis; each column of numbers is a line, or one for
//!   each value of the columns of texts.
//! * `scale` chooses the bounds and labels of the axes.
//! * `panel` draws lines that share an axis. Columns of other magnitudes get a panel of their own.

mod panel;
mod scale;
mod series;

use bellwether_base::Result;

use super::output::Kept;
use crate::screen;
use series::{Column, Plot};

/// Most panels of a chart.
const PANELS: usize = 4;

/// Most lines of a panel: readers cannot distinguish more.
const LINES: usize = 8;

/// Columns share a panel if their largest values differ by at most this factor.
const SAME_MAGNITUDE: f64 = 20.0;

/// Height of a panel in rows, with its axes.
const LEAST_HEIGHT: usize = 7;
const MOST_HEIGHT: usize = 16;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canvas {
    /// Width of the terminal, columns.
    pub(super) width: usize,
    /// Its height, rows.
    pub(super) height: usize,
    /// True if the terminal shows colours; otherwise each line has a letter of its own.
    pub(super) colour: bool,
}

/// Draws the chosen columns of a result, or all if none are chosen.
///
/// # Errors
/// `Config` if a chosen column does not exist or cannot be drawn, if there is no column of times or of numbers, or no value.
pub(super) fn draw(result: &Kept, chosen: &[String], canvas: Canvas) -> Result<String> {
    let plot = series::read(result, chosen)?;
    let panels = panels(&plot);
    let shown = panels.len().min(PANELS);
    // Titles, legends and the last line take rows too.
    let height = (canvas.height.saturating_sub(2) / shown.max(1)).saturating_sub(3).clamp(LEAST_HEIGHT, MOST_HEIGHT);
    let times = plot.times();
    let mut text = String::new();
    let (mut drawn, mut left_out, mut repeats) = (0, 0, false);
    for panel in panels.iter().take(PANELS) {
        let lines = panel.iter().map(|column| column.series.len()).sum::<usize>();
        drawn += lines.min(LINES);
        repeats |= panel.iter().flat_map(|column| column.series.iter().take(LINES)).any(series::Series::repeats);
        left_out += lines.saturating_sub(LINES);
        text.push_str(&panel::draw(panel, times, Canvas { height, ..canvas }));
    }
    let columns: usize = panels.iter().skip(PANELS).map(Vec::len).sum();
    let mut notes = vec![
        format!("{} over {}, {}", counted(drawn, "line"), plot.time, scale::between(times.0, times.1)),
        counted(plot.rows, "row"),
    ];
    if left_out > 0 {
        notes.push(format!("{} left out: narrow the query", counted(left_out, "more line")));
    }
    if columns > 0 {
        notes.push(format!("{} left out: \\chart COLUMN... draws those you name", counted(columns, "more column")));
    }
    if repeats {
        notes.push("several values at one time: select the text that tells them apart".to_owned());
    }
    text.push_str(&screen::wrap(&format!("({})", notes.join(", ")), canvas.width).join("\n"));
    Ok(text)
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Puts columns of one unit and similar magnitude into one panel. If texts make several lines of a column, it has its own.
fn panels(plot: &Plot) -> Vec<Vec<&Column>> {
    let mut panels: Vec<Vec<&Column>> = Vec::new();
    for column in &plot.columns {
        let same = panels.iter_mut().find(|panel| {
            let Some(first) = panel.first() else { return false };
            let (one, other) = (first.largest(), column.largest());
            let similar = one == other || one.max(other) <= one.min(other) * SAME_MAGNITUDE;
            column.series.len() == 1 && panel.len() < LINES && similar && first.unit == column.unit
        });
        match same {
            Some(panel) => panel.push(column),
            None => panels.push(vec![column]),
        }
    }
    panels
}

#[cfg(test)]
mod tests;
