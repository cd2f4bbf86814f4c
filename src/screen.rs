//! Lays out text for a terminal: cut texts, wrapped texts, and tables fitted to its width.
//!
//! Data may hold anything, so control characters are replaced. Numbers and times are never cut: a part of one would read as a
//! different value.

use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Widest text in a table; records show longer ones.
const TEXT: usize = 160;

/// Narrowest column of texts; below it, columns are left out.
const NARROW: usize = 12;

/// Narrowest terminal that is taken into account.
const LEAST: usize = 20;

/// Returns the width of the terminal on standard output, or `None` if that is not a terminal.
pub(crate) fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let columns = crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
    // Some terminals report zero.
    Some(if columns == 0 { 80 } else { columns.max(LEAST) })
}

/// One value of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value {
    pub(crate) text: String,
    /// True for numbers and times, which are never cut.
    pub(crate) whole: bool,
    /// True to align to the right.
    pub(crate) right: bool,
}

/// A table fitted to a width.
#[derive(Debug)]
pub(crate) struct Fitted {
    pub(crate) text: String,
    /// Number of columns that did not fit.
    pub(crate) left_out: usize,
}

/// Returns a text on one line, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' => '↵',
        '\t' | '\r' => ' ',
        other if other.is_control() || is_direction(other) => '\u{FFFD}',
        other => other,
    };
    text.chars().map(shown).collect()
}

/// Returns true for letters that change the text direction, with which one text could look like another.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Cuts a text to a width; an ellipsis marks the cut.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut cut, mut taken) = (String::new(), 0);
    for letter in text.chars() {
        taken += letter.width().unwrap_or(0);
        if taken > width.saturating_sub(1) {
            break;
        }
        cut.push(letter);
    }
    cut.push('…');
    cut
}

/// Wraps a text to a width, between words if possible. Existing line breaks are kept.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    for own in text.split('\n') {
        let (mut line, mut taken) = (String::new(), 0);
        for word in own.split_inclusive(' ') {
            let word = one_line(word);
            if taken > 0 && taken + word.trim_end().width() > width {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                taken = 0;
            }
            for letter in word.chars() {
                let wide = letter.width().unwrap_or(0);
                if taken + wide > width && letter != ' ' {
                    lines.push(std::mem::take(&mut line));
                    taken = 0;
                }
                line.push(letter);
                taken += wide;
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// Lists names and values, one pair below another. Values are wrapped if a width is given.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>, width: Option<usize>) -> String {
    let pairs: Vec<(&str, String)> = pairs.into_iter().collect();
    let names = pairs.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for (name, value) in &pairs {
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(names + 4).max(NARROW));
        for (place, line) in wrap(value, room).into_iter().enumerate() {
            let name = if place == 0 { one_line(name) } else { String::new() };
            let blank = " ".repeat(names.saturating_sub(name.width()));
            lines.push(format!("  {name}{blank}  {line}").trim_end().to_owned());
        }
    }
    lines.join("\n")
}

/// Fits a table to a width: long texts are cut, then columns are left out from the right.
pub(crate) fn table(headers: &[String], rows: &[Vec<Value>], width: usize) -> Fitted {
    let mut columns: Vec<ColumnWidth> =
        headers.iter().enumerate().map(|(place, name)| ColumnWidth::new(name, rows, place)).collect();
    // A frame takes three characters per column and one at the end.
    let needed = |columns: &[ColumnWidth], of: &dyn Fn(&ColumnWidth) -> usize| {
        columns.iter().map(|room| of(room) + 3).sum::<usize>() + 1
    };
    let mut shown = columns.len();
    while shown > 1 && needed(&columns[..shown], &|room| room.least) > width {
        shown -= 1;
    }
    columns.truncate(shown);
    // Column names are narrowed before texts, and the widest column first.
    for least in [|column: &ColumnWidth| column.content, |column: &ColumnWidth| column.least] {
        let mut over = needed(&columns, &|room| room.width).saturating_sub(width);
        while over > 0 {
            let wide = columns.iter_mut().filter(|room| room.width > least(room));
            let Some(widest) = wide.max_by_key(|room| room.width) else { break };
            widest.width -= 1;
            over -= 1;
        }
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.iter().zip(&columns).map(|(name, room)| Cell::new(in_lines(name, room.width).join("\n"))));
    for row in rows {
        table.add_row(row.iter().zip(&columns).map(|(value, room)| {
            let text = if value.whole { value.text.clone() } else { cut(&value.text, room.width) };
            Cell::new(text).set_alignment(if value.right { CellAlignment::Right } else { CellAlignment::Left })
        }));
    }
    Fitted { text: table.to_string(), left_out: headers.len() - shown }
}

/// Widths of a column.
struct ColumnWidth {
    width: usize,
    /// Width with the name wrapped.
    content: usize,
    /// Width with the name wrapped and texts cut.
    least: usize,
}

impl ColumnWidth {
    fn new(name: &str, rows: &[Vec<Value>], place: usize) -> Self {
        let values = || rows.iter().filter_map(|row| row.get(place));
        let widest = |whole: bool| values().filter(|value| value.whole == whole).map(|value| value.text.width()).max();
        let (whole, text) = (widest(true).unwrap_or(0), widest(false).unwrap_or(0));
        // Names are wrapped at underscores.
        let piece = name.split_inclusive('_').map(UnicodeWidthStr::width).max().unwrap_or(0).min(TEXT);
        let content = whole.max(text.min(TEXT)).max(piece);
        Self { width: content.max(name.width().min(TEXT)), content, least: whole.max(text.min(NARROW)).max(piece) }
    }
}

/// Wraps a column name to a width, at underscores.
fn in_lines(name: &str, width: usize) -> Vec<String> {
    let name = one_line(name);
    let mut lines: Vec<String> = Vec::new();
    for piece in name.split_inclusive('_') {
        match lines.last_mut() {
            Some(line) if line.width() + piece.width() <= width => line.push_str(piece),
            _ => lines.push(cut(piece, width)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value { text: text.to_owned(), ..Value::default() }
    }

    fn number(text: &str) -> Value {
        Value { text: text.to_owned(), whole: true, right: true }
    }

    fn widest(text: &str) -> usize {
        text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
    }

    #[test]
    fn texts_are_cut_first_then_columns_left_out_and_numbers_never_cut() {
        let headers = ["task", "longer_name_of_txt", "runs"].map(str::to_owned);
        let rows = vec![vec![text("refund_triage"), text(&"long ".repeat(20)), number("123456789")]];
        for width in [60, 80, 120, 200] {
            let fitted = table(&headers, &rows, width);
            assert!(widest(&fitted.text) <= width, "{width}:\n{}", fitted.text);
            assert_eq!(fitted.left_out, 0);
            assert!(fitted.text.contains("123456789"), "{}", fitted.text);
            assert_eq!(fitted.text.contains('…'), width < 140, "{}", fitted.text);
        }
        let fitted = table(&headers, &rows, 40);
        assert_eq!((fitted.left_out, widest(&fitted.text) <= 40), (1, true), "{}", fitted.text);
        // A name is wrapped only if it does not fit.
        let name = ["cost_per_completed_task".to_owned(), "a_b".to_owned()];
        let row = [vec![number("0.5"), text("x")]];
        assert_eq!(table(&name, &row, 80).text.lines().count(), 5);
        assert_eq!(table(&name, &row, 26).text.lines().count(), 6);
        assert_eq!(table(&name, &row, 20).text.lines().count(), 7);
        // A number is never cut, even if it does not fit.
        assert!(table(&headers[2..], &[vec![number(&"9".repeat(40))]], 20).text.contains(&"9".repeat(40)));
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(one_line("a\x1b[31m\nb\tc\u{202E}"), "a\u{FFFD}[31m↵b c\u{FFFD}");
        let rows = vec![vec![text(&one_line("red\x1b[31m"))]];
        assert!(!table(&["a".to_owned()], &rows, 80).text.contains('\x1b'));
        assert!(!pairs([("a", "x\x1b[2J".to_owned())], Some(80)).contains('\x1b'));
    }

    #[test]
    fn pairs_are_listed_one_below_another() {
        let shown = pairs([("id", "1".to_owned()), ("longer", "one two three four".to_owned())], Some(22));
        assert_eq!(shown, "  id      1\n  longer  one two\n          three four");
    }

    proptest! {
        #[test]
        fn wrapping_keeps_every_word_and_the_width(text in "[a-zäß漢 ]{0,80}", width in 2_usize..40) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| line.width() <= width), "{lines:?}");
            let letters = |text: &str| text.chars().filter(|letter| *letter != ' ').collect::<String>();
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
        }

        #[test]
        fn no_table_of_texts_is_too_wide(cells in proptest::collection::vec("[a-z漢_]{0,90}", 1..9), width in 40_usize..200) {
            let headers: Vec<String> = (0..cells.len()).map(|place| format!("column_{place}")).collect();
            let rows = vec![cells.iter().map(|cell| text(cell)).collect::<Vec<_>>()];
            let fitted = table(&headers, &rows, width);
            prop_assert!(widest(&fitted.text) <= width, "{}", fitted.text);
            prop_assert!(fitted.left_out < cells.len());
        }
    }
}
