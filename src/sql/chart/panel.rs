//! Draws lines that share an axis.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget};
use unicode_width::UnicodeWidthStr;

use super::scale::Times;
use super::series::{Column, Series};
use super::{Canvas, LINES, scale};
use crate::screen;

/// Colours of the lines. Yellow and white are missing: they are invisible on a light terminal.
const COLOURS: [Color; LINES] = [
    Color::Blue,
    Color::Red,
    Color::Green,
    Color::Magenta,
    Color::Cyan,
    Color::LightRed,
    Color::LightBlue,
    Color::DarkGray,
];

/// Letters of the lines on a terminal without colours.
const LETTERS: [char; LINES] = ['•', '+', 'x', 'o', '#', '*', '=', '%'];

/// A time without a point is a gap if it is longer than this many usual distances between points.
const GAP: f64 = 2.5;

/// Rows of the chart for each label of the vertical axis, and columns for each of the horizontal one.
const ROWS_PER_LABEL: usize = 3;
const COLUMNS_PER_LABEL: usize = 16;

/// The corner at which the axes meet.
const CORNER: &str = "└";

/// Widest name in a legend.
const NAME: usize = 40;

/// Draws a panel: a title, the chart, and a legend if there are several lines. `times` are the first and the last one of all panels.
pub(super) fn draw(columns: &[&Column], times: (f64, f64), canvas: Canvas) -> String {
    let Canvas { width, height, colour } = canvas;
    let lines: Vec<(&Column, &Series)> =
        columns.iter().flat_map(|column| column.series.iter().map(move |line| (*column, line))).take(LINES).collect();
    let values = || lines.iter().flat_map(|(_, line)| &line.points).filter_map(|(_, value)| *value);
    let (least, largest) = values()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, largest), value| (least.min(value), largest.max(value)));
    let unit = columns.first().map_or(scale::Unit::Plain, |column| column.unit);
    let y = scale::values(least, largest, height.saturating_sub(2).div_ceil(ROWS_PER_LABEL).max(3), unit);
    let x = scale::times(times.0, times.1, (width / COLUMNS_PER_LABEL).max(2));
    let pieces: Vec<(usize, Vec<(f64, f64)>)> = lines
        .iter()
        .enumerate()
        .flat_map(|(place, (_, line))| pieces(&line.points).into_iter().map(move |piece| (place, piece)))
        .collect();
    let datasets = pieces.iter().map(|(place, piece)| {
        let kind = if piece.len() == 1 { GraphType::Scatter } else { GraphType::Line };
        let marker = marker(*place, lines.len(), colour, piece.len() == 1);
        Dataset::default().marker(marker).graph_type(kind).style(style(*place, colour)).data(piece)
    });
    // The chart puts labels of the horizontal axis beside their places, so it gets blank ones, and they are written below.
    let horizontal = Axis::default().bounds(x.bounds).labels([" ", " "]);
    let vertical = Axis::default().bounds(y.bounds).labels(y.labels.into_iter().map(Line::from));
    let chart = Chart::new(datasets.collect()).x_axis(horizontal).y_axis(vertical).legend_position(None);
    // A terminal is at most as wide as a `u16`.
    let area = Rect::new(0, 0, u16::try_from(width).unwrap_or(u16::MAX), u16::try_from(height).unwrap_or(u16::MAX));
    let mut buffer = Buffer::empty(area);
    chart.render(area, &mut buffer);
    label(&mut buffer, &x);
    let title = title(columns, &lines);
    let mut text = screen::cut(&title, width);
    text.push('\n');
    text.push_str(&printed(&buffer));
    if lines.len() > 1 {
        text.push_str(&legend(columns, &lines, width, colour));
    }
    text
}

/// Writes the labels of the horizontal axis, each centred below its time. Those that would touch the one before are left out.
fn label(buffer: &mut Buffer, times: &Times) {
    let (width, row) = (buffer.area.width, buffer.area.height.saturating_sub(1));
    let corner = (0..width).find(|x| row > 0 && buffer[(*x, row - 1)].symbol() == CORNER);
    let Some(left) = corner.map(|corner| corner + 1).filter(|left| *left < width) else { return };
    let [first, last] = times.bounds;
    let mut free = 0;
    for (time, label) in &times.labels {
        let place = f64::from(left) + (time - first) / (last - first) * f64::from(width - 1 - left);
        let wide = u16::try_from(label.width()).unwrap_or(width).min(width);
        let start = (place.round() as u16).saturating_sub(wide / 2).min(width - wide);
        if start >= free {
            buffer.set_string(start, row, label, Style::default());
            free = start + wide + 2;
        }
    }
}

/// Returns the title: the only column, with its last value if it has one line.
fn title(columns: &[&Column], lines: &[(&Column, &Series)]) -> String {
    match (columns, lines) {
        ([column], [(_, line)]) => {
            let label = if line.label.is_empty() { String::new() } else { format!(" of {}", line.label) };
            format!("{}{label}{}", column.name, newest(column, line))
        }
        ([column], _) => column.name.clone(),
        _ => columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// Returns the newest value of a line, for its name.
fn newest(column: &Column, line: &Series) -> String {
    let newest = line.points.iter().rev().find_map(|(_, value)| *value);
    newest.map_or(String::new(), |value| format!(" ({})", column.unit.written(value)))
}

/// Lists the lines with their marks, as many beside each other as fit.
fn legend(columns: &[&Column], lines: &[(&Column, &Series)], width: usize, colour: bool) -> String {
    let (mut text, mut taken) = (String::new(), 0);
    for (place, (column, line)) in lines.iter().enumerate() {
        let name = match (columns.len(), line.label.is_empty()) {
            (1, false) => line.label.clone(),
            (_, true) => column.name.clone(),
            (_, false) => format!("{} of {}", column.name, line.label),
        };
        let name = format!("{}{}", screen::cut(&name, NAME), newest(column, line));
        let needed = name.width() + 5;
        if taken > 0 && taken + needed > width {
            text.push('\n');
            taken = 0;
        }
        let mark = if colour { "━━".to_owned() } else { LETTERS[place % LINES].to_string().repeat(2) };
        text.push_str(&format!("{} {name}  ", coloured(&mark, COLOURS[place % LINES], colour)));
        taken += needed;
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n"))
}

fn marker(place: usize, lines: usize, colour: bool, single: bool) -> Marker {
    match (colour, lines) {
        // A dot of braille is easily overlooked.
        _ if single && (colour || lines == 1) => Marker::Dot,
        (true, _) | (false, 1) => Marker::Braille,
        (false, _) => Marker::Custom(LETTERS[place % LINES]),
    }
}

fn style(place: usize, colour: bool) -> Style {
    if colour { Style::default().fg(COLOURS[place % LINES]) } else { Style::default() }
}

/// Splits a line where a value is missing, and where no point is for much longer than usual.
fn pieces(points: &[(f64, Option<f64>)]) -> Vec<Vec<(f64, f64)>> {
    let mut distances: Vec<f64> =
        points.windows(2).map(|pair| pair[1].0 - pair[0].0).filter(|distance| *distance > 0.0).collect();
    distances.sort_by(f64::total_cmp);
    let usual = distances.get(distances.len() / 2).copied().unwrap_or(f64::INFINITY);
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut last = None;
    for (time, value) in points {
        match value {
            None => last = None,
            Some(value) => {
                let joined = last.is_some_and(|last| time - last <= usual * GAP);
                match pieces.last_mut() {
                    Some(piece) if joined => piece.push((*time, *value)),
                    _ => pieces.push(vec![(*time, *value)]),
                }
                last = Some(*time);
            }
        }
    }
    pieces
}

/// Returns the rows of a buffer as text, with the colours of its cells.
fn printed(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let (mut line, mut current, mut run) = (String::new(), Color::Reset, String::new());
        for x in 0..buffer.area.width {
            let cell = &buffer[(x, y)];
            if cell.fg != current {
                line.push_str(&coloured(&run, current, true));
                run.clear();
                current = cell.fg;
            }
            run.push_str(cell.symbol());
        }
        line.push_str(&coloured(&run, current, true));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns a text in a colour.
fn coloured(text: &str, colour: Color, on: bool) -> String {
    let code = match colour {
        Color::Red => 31,
        Color::Green => 32,
        Color::Blue => 34,
        Color::Magenta => 35,
        Color::Cyan => 36,
        Color::DarkGray => 90,
        Color::LightRed => 91,
        Color::LightBlue => 94,
        _ => return text.to_owned(),
    };
    if on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
