//! The picture of the screen: fits 80 × 24 characters and grows. On a wide terminal, content is on the left and what is known about it
//! on the right; on a narrow one, one text has both.
//!
//! Text of runs is wrapped by [`crate::screen::wrap`], which replaces control characters.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::screen::{Held, Screen, Supply, short};
use crate::candidates::case::{self, Section, Tone};
use crate::screen::{cut, one_line, wrap};

/// Narrowest terminal with two columns.
const WIDE: u16 = 120;

/// A text that scrolls, and the lines at which its parts begin.
struct Text<'a> {
    lines: Vec<Line<'a>>,
    parts: Vec<usize>,
}

/// Draws the screen, and keeps its scrolling within the text.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen, now: i64) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(3)]).areas(frame.area());
    frame.render_widget(header(screen, now, head.width), head);
    frame.render_widget(footer(screen, foot.width), foot);
    let Some(held) = screen.current() else {
        frame.render_widget(idle(screen, body), body);
        return;
    };
    let title = title(held, body.width);
    let sections = screen.sections();
    if body.width < WIDE {
        screen.right = false;
        column(frame, screen, body, &sections.iter().collect::<Vec<_>>(), title);
        return;
    }
    let [left, right] = Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)]).areas(body);
    let (content, known): (Vec<&Section>, Vec<&Section>) = sections.iter().partition(|section| section.is_content);
    let scrolls_right = screen.right ^ std::mem::take(&mut screen.to_next_part);
    for (is_right, area, sections, title) in [(false, left, content, title), (true, right, known, String::new())] {
        screen.right = is_right;
        column(frame, screen, area, &sections, title);
    }
    screen.right = scrolls_right;
}

/// Draws one column at its scroll position.
fn column(frame: &mut Frame<'_>, screen: &mut Screen, area: Rect, sections: &[&Section], title: String) {
    let inside = area.width.saturating_sub(4);
    let height = usize::from(area.height.saturating_sub(2));
    let text = text(sections, usize::from(inside));
    let last = text.lines.len().saturating_sub(height);
    let top = &mut screen.tops[usize::from(screen.right)];
    *top = (*top).min(last);
    if std::mem::take(&mut screen.to_next_part) {
        // After the last part comes the first one.
        let next = text.parts.iter().copied().find(|part| *part > *top && *top < last);
        *top = next.unwrap_or(0).min(last);
    }
    let from = *top;
    let below = text.lines.len().saturating_sub(from + height);
    let more = if below > 0 { format!(" {below} more lines ") } else { String::new() };
    let block =
        Block::bordered().padding(ratatui::widgets::Padding::horizontal(1)).title(title.bold()).title_bottom(more);
    let lines: Vec<Line<'_>> = text.lines.into_iter().skip(from).take(height).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Lays out parts below one another.
fn text<'a>(sections: &[&Section], width: usize) -> Text<'a> {
    let mut text = Text { lines: Vec::new(), parts: Vec::new() };
    for section in sections {
        if !text.lines.is_empty() {
            text.lines.push(Line::default());
        }
        text.parts.push(text.lines.len());
        text.lines.push(Line::from(cut(&one_line(&section.title), width).cyan().bold()));
        for line in &section.lines {
            let style = style(line.tone);
            text.lines.extend(wrap(&line.text, width).into_iter().map(|text| Line::styled(text, style)));
        }
    }
    text
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Dim => Style::new().dim(),
        Tone::Good => Style::new().green(),
        Tone::Bad => Style::new().red(),
    }
}

fn header<'a>(screen: &Screen, now: i64, width: u16) -> Line<'a> {
    let pace = screen.pace(now).map_or_else(String::new, |pace| format!(", {} s each", pace.as_secs()));
    let text = format!(
        " {}: {} reviewed{pace} · {} at hand · {} wait",
        screen.reviewer,
        screen.reviewed(),
        screen.ahead() + usize::from(screen.current().is_some()),
        screen.waiting
    );
    Line::from(cut(&text, usize::from(width)).bold())
}

/// Returns the title of a candidate, within a width.
fn title(held: &Held, width: u16) -> String {
    let candidate = &held.case.candidate;
    let text = |text: &Option<String>| text.as_deref().map(one_line).unwrap_or_default();
    let lease = match held.confirmed {
        true => crate::rules::time(held.lease.until).get(11..16).map(|time| format!("yours until {time} UTC")),
        // The first of several people has it, and that is not known yet.
        false => Some("not confirmed: is ingest running?".to_owned()),
    };
    let second = if candidate.decisions > 0 { " · second review" } else { "" };
    let name = format!(
        " {} {} {} {}{second} · {} ",
        short(candidate),
        text(&candidate.task),
        text(&candidate.release_id),
        text(&candidate.stage),
        lease.unwrap_or_default()
    );
    cut(&name, usize::from(width.saturating_sub(2)))
}

fn idle<'a>(screen: &Screen, area: Rect) -> Paragraph<'a> {
    let text = match &screen.supply {
        Supply::Taking => "Taking the next candidates …".to_owned(),
        Supply::Nothing => "No candidate waits for you: all are decided or taken by others, or need another person. \
                            New ones appear here by themselves."
            .to_owned(),
        Supply::Trouble(why) => format!("Candidates cannot be taken now: {why}"),
    };
    let width = usize::from(area.width.saturating_sub(4));
    let lines: Vec<Line<'_>> = wrap(&text, width).into_iter().map(Line::from).collect();
    Paragraph::new(lines).block(Block::bordered().padding(ratatui::widgets::Padding::horizontal(1)))
}

fn footer<'a>(screen: &Screen, width: u16) -> Paragraph<'a> {
    let width = usize::from(width);
    let keys = |keys: &[(&'static str, String)]| {
        let mut spans = vec![Span::raw(" ")];
        for (key, does) in keys {
            spans.push((*key).cyan().bold());
            spans.push(Span::raw(format!(" {does}  ")));
        }
        Line::from(spans)
    };
    let of = |key: &'static str, does: &str| (key, does.to_owned());
    let first = keys(&[
        of("a", "accept"),
        of("r", "reject"),
        of("e", "edit answer"),
        of("u", "unsure"),
        of("s", "skip"),
        of("z", "undo"),
        of("q", "quit"),
    ]);
    let case = if screen.draft.eval_case { "[x] eval case" } else { "[ ] eval case" };
    let mode = match &screen.draft.failure_mode {
        Some(mode) => format!("mode: {}", cut(&one_line(mode), 12)),
        None => "failure mode".to_owned(),
    };
    let second =
        keys(&[of("c", case), ("m", mode), of("f", "fetch"), of("tab", "next part"), of("↑ ↓ space", "scroll")]);
    let third = match (&screen.input, &screen.message) {
        (Some(input), _) => Line::from(vec![
            Span::from(" failure mode> ".to_owned()).cyan().bold(),
            Span::from(format!("{}▏", one_line(input))),
            Span::from(" enter keeps it, esc cancels".to_owned()).dim(),
        ]),
        (None, Some(case::Line { text, tone })) => {
            Line::styled(format!(" {}", cut(&one_line(text), width.saturating_sub(2))), style(*tone))
        }
        (None, None) => Line::default(),
    };
    Paragraph::new(vec![first, second, third])
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::screen::tests::{NOON, with};
    use super::*;

    /// Returns the screen as lines of text.
    fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test terminal");
        terminal.draw(|frame| draw(frame, screen, NOON)).expect("draws");
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect()
    }

    #[test]
    fn all_keys_and_the_candidate_fit_80_by_24() {
        let mut screen = with(3);
        screen.waiting = 47;
        let lines = drawn(&mut screen, 80, 24);
        let text = lines.join("\n");
        for part in [
            "ana: 0 reviewed · 3 at hand · 47 wait",
            "00000000 refund_triage r142 canary · yours until 12:15 UTC",
            "Why it is here",
            "tool_failure, judged_bad",
            "a accept  r reject  e edit answer  u unsure  s skip  z undo  q quit",
            "c [ ] eval case  m failure mode  f fetch  tab next part  ↑ ↓ space scroll",
            "more lines",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        for (width, height) in [(80, 60), (160, 50)] {
            let mut screen = with(1);
            let lines = drawn(&mut screen, width, height);
            assert!(lines.concat().chars().all(|letter| !letter.is_control()), "{lines:?}");
            assert!(lines.concat().contains("Refund me"), "{lines:#?}");
            assert!(!lines.concat().contains('\u{202e}'));
        }
    }

    #[test]
    fn tab_goes_through_the_parts_and_scrolling_stays_in_the_text() {
        let mut screen = with(1);
        let first = |screen: &mut Screen| drawn(screen, 80, 24)[2].trim_matches(['│', ' ']).to_owned();
        assert_eq!(first(&mut screen), "Why it is here");
        screen.to_next_part = true;
        assert_eq!(first(&mut screen), "Input");
        screen.to_next_part = true;
        assert_eq!(first(&mut screen), "Output");
        screen.tops[0] = usize::MAX;
        let end = drawn(&mut screen, 80, 24);
        assert!(
            end[19].contains("run run-1") || end[18].contains("run run-1") || end[20].contains("ended"),
            "{end:#?}"
        );
        screen.to_next_part = true;
        assert_eq!(first(&mut screen), "Why it is here", "after the last part comes the first one");
    }

    #[test]
    fn a_wide_terminal_has_content_beside_what_is_known_about_it() {
        let mut screen = with(1);
        let lines = drawn(&mut screen, 160, 40);
        let row = lines.iter().find(|line| line.contains("Why it is here")).expect("a part");
        assert!(row.contains("Input"), "side by side: {row}");
        screen.to_next_part = true;
        drawn(&mut screen, 160, 40);
        assert!(screen.right, "tab goes to the other side");
    }

    #[test]
    fn a_small_terminal_and_an_empty_queue_are_drawn() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            drawn(&mut with(2), width, height);
        }
        let mut screen = with(0);
        assert!(drawn(&mut screen, 80, 24).concat().contains("Taking the next candidates"));
        screen.receive(super::super::worker::News::Nothing, NOON);
        assert!(drawn(&mut screen, 80, 24).concat().contains("No candidate waits for you"));
        screen.receive(super::super::worker::News::Trouble("the broker is gone".to_owned()), NOON);
        assert!(drawn(&mut screen, 80, 24).concat().contains("the broker is gone"));
    }
}
