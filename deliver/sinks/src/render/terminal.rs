//! A page for the terminal, laid out like a chat message: a coloured bar, the title, and the parts below it.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::page::{Page, Severity, Status};
use crate::render::{Detail, PageWords, Part, Plain, line_of, page};

const LEAST_WIDTH: usize = 40;
const GREATEST_WIDTH: usize = 120;
/// Width of the labels at the left.
const LABEL: usize = 15;
/// Width of the bar and the space beside it.
const BAR: usize = 2;

/// Returns a page as text for a terminal of a width, in colour or not.
pub fn terminal(page: &Page, width: usize, colour: bool) -> String {
    let words = page::words(page, Detail::FULL);
    let width = width.clamp(LEAST_WIDTH, GREATEST_WIDTH) - BAR;
    let mut lines = vec![format!("{}  {}", style("bellwether", "1", colour), style("APP", "2", colour))];
    for line in wrapped(&words.title, width) {
        lines.push(style(&line, "1", colour));
    }
    for (index, line) in wrapped(&words.state, width).into_iter().enumerate() {
        let code = if index == 0 { paint(&words) } else { "0" };
        lines.push(style(&line, code, colour));
    }
    lines.push(String::new());
    for part in &words.parts {
        part_lines(part, width, colour, &mut lines);
    }
    for link in &words.links {
        for line in wrapped(&format!("[{}] {}", link.name, link.url), width) {
            lines.push(style(&line, "36", colour));
        }
    }
    let bar = style("▌", paint(&words), colour);
    lines.iter().map(|line| format!("{bar} {line}").trim_end().to_owned() + "\n").collect()
}

/// Returns the colour of a state: red pages, yellow tickets, green when it is over.
fn paint(words: &PageWords) -> &'static str {
    match (words.status, words.severity) {
        (Status::Resolved, _) => "32",
        (Status::Acknowledged, _) => "34",
        (Status::Firing, Severity::Page) => "31",
        (Status::Firing, Severity::Ticket) => "33",
        (Status::Firing, Severity::Info) => "36",
    }
}

fn part_lines(part: &Part, width: usize, colour: bool, lines: &mut Vec<String>) {
    let mut label = part.label;
    for line in &part.lines {
        for text in wrapped(&line_of(&Plain, line, usize::MAX), width - LABEL - 1) {
            lines.push(format!("{} {text}", style(&format!("{label:<LABEL$}"), "2", colour)));
            label = "";
        }
    }
    for text in part.code.iter().flat_map(|code| code.lines()).flat_map(|line| wrapped(line, width - 4)) {
        lines.push(format!("    {}", style(&text, "2", colour)));
    }
}

fn style(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Breaks text at spaces, and words that are too long anywhere.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        for character in word.chars() {
            if line.width() + character.width().unwrap_or(0) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(character);
        }
    }
    lines.push(line);
    lines
}
