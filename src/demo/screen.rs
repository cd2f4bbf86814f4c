//! The live summary in a terminal.
//!
//! One loop reads the tables, draws them and reads keys. The terminal is restored however the loop ends, also after a panic
//! (by ratatui's hook).

use std::sync::Arc;
use std::time::Duration;

use bellwether_base::{Error, Result};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Gauge, Paragraph, Row, Sparkline, Table};
use tokio::task::JoinSet;

use super::apps::INVOICE_CANARY;
use super::observe::{Observer, View};
use super::{Demo, QUERIES, gates, pages};
use crate::memory;

/// Longest wait for a key before the screen is redrawn.
const TICK: Duration = Duration::from_millis(120);

/// Time between two reads of the metrics.
const LOOK: Duration = Duration::from_millis(1500);

/// Title of the gate's answers.
const GATE: &str = "the gate: may a release go on?";

/// Lines of a step through a long answer.
const PAGE: i32 = 20;

/// A canary is shown in red if its success rate is lower than its baseline's by more than this.
const WORSE: f64 = 0.05;

#[derive(Default)]
struct Screen {
    view: View,
    long_span: bool,
    input: Option<String>,
    answer: Option<Answer>,
}

/// A text over the screen.
struct Answer {
    title: String,
    text: String,
    /// First line that is shown.
    top: u16,
}

enum Action {
    Nothing,
    Quit,
    Ask(String),
    Page,
    Gates,
}

pub(crate) async fn run(demo: &Demo) -> Result<()> {
    let mut observer = Observer::open(demo).await?;
    let mut terminal = ratatui::try_init().map_err(|source| {
        Error::unavailable("cannot use the terminal").with_hint("add --headless").with_source(source)
    })?;
    let shown = show(demo, &mut observer, &mut terminal).await;
    ratatui::restore();
    shown
}

async fn show(demo: &Demo, observer: &mut Observer, terminal: &mut ratatui::DefaultTerminal) -> Result<()> {
    let broken = |source: std::io::Error| Error::unavailable("lost the terminal").with_source(source);
    let mut screen = Screen { view: observer.view(), ..Screen::default() };
    let mut looked = std::time::Instant::now();
    let mut asking = JoinSet::new();
    while !demo.process.is_stopping() {
        terminal.draw(|frame| draw(frame, demo, &screen)).map_err(broken)?;
        // Waiting for a key may block this worker thread; no other task needs it.
        if tokio::task::block_in_place(|| event::poll(TICK)).map_err(broken)?
            && let Event::Key(key) = event::read().map_err(broken)?
        {
            match screen.press(key) {
                Action::Nothing => {}
                Action::Quit => return Ok(()),
                Action::Ask(sql) => {
                    let answer = observer.ask(&sql).await;
                    screen.answer = Some(Answer::to(
                        sql,
                        answer.map(|answer| match answer.rows.is_empty() {
                            true => "no rows".to_owned(),
                            false => super::headless::table(&answer),
                        }),
                    ));
                }
                Action::Page => screen.answer = Some(Box::pin(page(demo, width_inside(terminal))).await?),
                Action::Gates => {
                    // It takes some seconds, and the screen goes on meanwhile.
                    asking.spawn(gates::ask(Arc::clone(&demo.gate), demo.process.lake.clone()));
                    screen.answer = Some(Answer::to(GATE.to_owned(), Ok("asking …".to_owned())));
                }
            }
        }
        if let Some(Ok(answers)) = asking.try_join_next()
            && let Some(answer) = screen.answer.as_mut().filter(|answer| answer.title == GATE)
        {
            let width = width_inside(terminal);
            *answer = Answer::to(GATE.to_owned(), answers.map(|answers| gates::shown(demo, &answers, Some(width))));
        }
        let read = refresh(demo, observer, &screen, &mut looked).await;
        match read {
            Ok(()) => observer.clear_error(),
            Err(error) => observer.set_error(&error),
        }
        screen.view = observer.view();
    }
    Ok(())
}

/// Returns the columns inside of an answer.
fn width_inside(terminal: &ratatui::DefaultTerminal) -> usize {
    terminal.size().map_or(80, |size| usize::from(size.width).saturating_sub(6))
}

/// Returns the page about the bad canary, and writes it as a message for Slack.
async fn page(demo: &Demo, width: usize) -> Result<Answer> {
    let pages = demo.pages.read();
    let text = match pages::about(&pages, INVOICE_CANARY) {
        Some(page) => {
            let page = Box::pin(pages::complete(&demo.process.lake, page)).await?;
            demo.pages.write_slack(&page)?;
            format!("{}\nas a message for Slack: {}", pages::shown(&page, width, false), demo.pages.slack.display())
        }
        None => "no page yet: the canary has too few runs to be judged".to_owned(),
    };
    Ok(Answer { title: "the page, as it arrives".to_owned(), text, top: 0 })
}

async fn refresh(demo: &Demo, observer: &mut Observer, screen: &Screen, looked: &mut std::time::Instant) -> Result<()> {
    observer.count(demo).await?;
    let span = if screen.long_span { "1h" } else { "5m" };
    if looked.elapsed() >= LOOK || screen.view.span != span {
        observer.look(span).await?;
        *looked = std::time::Instant::now();
    }
    Ok(())
}

// === impl Answer ===

impl Answer {
    fn to(title: String, text: Result<String>) -> Self {
        let text = text.unwrap_or_else(|error| match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        });
        Self { title, text, top: 0 }
    }

    /// Moves down by some lines, or up, but not beyond the text.
    fn scroll(&mut self, lines: i32) {
        let last = i32::try_from(self.text.lines().count()).unwrap_or(i32::MAX).saturating_sub(1);
        let top = i32::from(self.top).saturating_add(lines).clamp(0, last.max(0));
        self.top = u16::try_from(top).unwrap_or(u16::MAX);
    }
}

// === impl Screen ===

impl Screen {
    fn press(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if let Some(input) = &mut self.input {
            match key.code {
                KeyCode::Esc => self.input = None,
                KeyCode::Backspace => drop(input.pop()),
                KeyCode::Char(letter) => input.push(letter),
                KeyCode::Enter => {
                    let sql = self.input.take().unwrap_or_default();
                    if !sql.trim().is_empty() {
                        return Action::Ask(sql);
                    }
                }
                _ => {}
            }
            return Action::Nothing;
        }
        if let Some(answer) = &mut self.answer {
            match key.code {
                KeyCode::Down => answer.scroll(1),
                KeyCode::Up => answer.scroll(-1),
                KeyCode::PageDown | KeyCode::Char(' ') => answer.scroll(PAGE),
                KeyCode::PageUp => answer.scroll(-PAGE),
                _ => {}
            }
        }
        match key.code {
            KeyCode::Esc if self.answer.is_some() => self.answer = None,
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('p') => return Action::Page,
            KeyCode::Char('g') => return Action::Gates,
            KeyCode::Char('s') => self.long_span = !self.long_span,
            KeyCode::Char(':') | KeyCode::Enter => {
                self.answer = None;
                self.input = Some(String::new());
            }
            KeyCode::Char(digit @ '1'..='8') => {
                let index = usize::from(digit as u8 - b'1');
                if let Some((_, sql)) = QUERIES.get(index) {
                    return Action::Ask((*sql).to_owned());
                }
            }
            _ => {}
        }
        Action::Nothing
    }
}

fn draw(frame: &mut Frame<'_>, demo: &Demo, screen: &Screen) {
    let rows = u16::try_from(screen.view.rows.len()).unwrap_or(u16::MAX).clamp(3, 10) + 3;
    let [head, progress, metrics, below, foot] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(1),
        Constraint::Length(rows),
        Constraint::Min(6),
        Constraint::Length(11),
    ])
    .areas(frame.area());
    let [left, right] = Layout::horizontal([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(below);
    frame.render_widget(header(demo, &screen.view), head);
    backfill(frame, demo, progress);
    frame.render_widget(table(&screen.view), metrics);
    sparks(frame, &screen.view, left);
    frame.render_widget(news(&screen.view), right);
    frame.render_widget(footer(demo, screen), foot);
    if let Some(answer) = &screen.answer {
        over(frame, answer);
    }
}

/// Draws a text over the screen, as high as it needs.
fn over(frame: &mut Frame<'_>, answer: &Answer) {
    let lines = u16::try_from(answer.text.lines().count()).unwrap_or(u16::MAX);
    let all = frame.area();
    let height = lines.saturating_add(2).min(all.height.saturating_sub(2));
    let area = Rect { x: 2.min(all.width), y: 1.min(all.height), width: all.width.saturating_sub(4), height };
    let keys = if lines.saturating_add(2) > height { " ↑ ↓ space scroll  esc closes " } else { " esc closes " };
    let block = Block::bordered().title(format!(" {} ", answer.title)).title_bottom(keys);
    let paragraph = Paragraph::new(answer.text.as_str()).scroll((answer.top, 0));
    frame.render_widget(Clear, area);
    frame.render_widget(paragraph.block(block.border_style(Style::new().cyan())), area);
}

fn header<'a>(demo: &Demo, view: &View) -> Paragraph<'a> {
    let value = |text: String| Span::styled(text, Style::new().add_modifier(Modifier::BOLD));
    let lag = demo.progress.published().saturating_sub(demo.progress.committed());
    let fresh = view.event_lag_s.map_or("-".to_owned(), |lag| format!("{:.1} s", lag.max(0.0)));
    let memory = memory::resident_bytes().map_or("-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let first = Line::from(vec![
        "events/s ".dim(),
        value(format!("{:.0}", view.per_second)),
        "   total ".dim(),
        value(demo.progress.committed().to_string()),
        "   lag ".dim(),
        value(lag.to_string()),
        "   fresh ".dim(),
        value(fresh),
        "   quarantined ".dim(),
        value(view.quarantined.to_string()),
        "   commits ".dim(),
        value(view.commits.to_string()),
        "   memory ".dim(),
        value(memory),
    ]);
    let second = match &view.error {
        Some(error) => Line::from(error.clone().red()),
        None => Line::from("3 apps → Kafka → Delta tables → rolling metrics → SQL".dim()),
    };
    Paragraph::new(vec![first, second]).block(Block::bordered().title(" bellwether ".bold().cyan()))
}

fn backfill(frame: &mut Frame<'_>, demo: &Demo, area: Rect) {
    let history = demo.progress.history.max(1);
    let done = demo.progress.committed().min(history);
    if done < history {
        let label = format!("six hours of history: {done} of {history} runs");
        let gauge = Gauge::default()
            .ratio(done as f64 / history as f64)
            .label(label)
            .gauge_style(Style::new().cyan().on_black());
        frame.render_widget(gauge, area);
    } else {
        frame.render_widget(Line::from(" ● live: two apps each send 30 % of their traffic to a canary".green()), area);
    }
}

fn table<'a>(view: &View) -> Table<'a> {
    let percent = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{:.1}", value * 100.0));
    let plain = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let rows = view.rows.iter().map(|row| {
        let baseline = view.rows.iter().find(|other| other.task == row.task && other.stage == "full");
        let worse = row.stage == "canary"
            && baseline.is_some_and(|full| full.success.zip(row.success).is_some_and(|(a, b)| a - b > WORSE));
        let interval = match (row.success_low, row.success_high) {
            (Some(low), Some(high)) => format!("{:.0}–{:.0}", low * 100.0, high * 100.0),
            _ => String::new(),
        };
        let style = match (worse, row.stage.as_str()) {
            (true, _) => Style::new().fg(Color::Red).bold(),
            (false, "canary") => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        Row::new(vec![
            Cell::from(row.task.clone()),
            Cell::from(row.release.clone()),
            Cell::from(row.stage.clone()),
            Cell::from(format!("{:.0}", row.runs)),
            Cell::from(percent(row.success)),
            Cell::from(interval),
            Cell::from(percent(row.coverage)),
            Cell::from(plain(row.delay_s, 0)),
            Cell::from(percent(row.schema)),
            Cell::from(percent(row.escalation)),
            Cell::from(plain(row.p50_ms, 0)),
            Cell::from(plain(row.p95_ms, 0)),
            Cell::from(plain(row.cost, 4)),
            Cell::from(plain(row.exceptions, 1)),
        ])
        .style(style)
    });
    let widths = [18, 13, 7, 6, 8, 8, 6, 6, 7, 6, 6, 6, 8, 8].map(Constraint::Length);
    let names = [
        "task", "release", "stage", "runs", "success%", "95 %", "cover%", "delay", "schema%", "escal%", "p50ms",
        "p95ms", "cost/ok", "exc/1000",
    ];
    Table::new(rows, widths)
        .header(Row::new(names).style(Style::new().add_modifier(Modifier::DIM)))
        .block(Block::bordered().title(format!(" rolling metrics, last {} ", view.span)))
}

fn sparks(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let block = Block::bordered().title(" success % ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    for (index, (name, points)) in view.spark.iter().enumerate() {
        let Ok(offset) = u16::try_from(index) else { break };
        if offset >= inner.height {
            break;
        }
        let line = Rect { x: inner.x, y: inner.y + offset, width: inner.width, height: 1 };
        let [label, chart] = Layout::horizontal([Constraint::Length(33), Constraint::Min(4)]).areas(line);
        frame.render_widget(Line::from(name.clone().dim()), label);
        let bars: Vec<u64> = points.iter().copied().collect();
        frame.render_widget(Sparkline::default().data(bars).max(100).style(Style::new().green()), chart);
    }
}

fn news<'a>(view: &View) -> Paragraph<'a> {
    let lines: Vec<Line<'a>> = view
        .news
        .iter()
        .map(|text| {
            if text.contains("worse") || text.contains("  page: ") {
                Line::from(text.clone().red().bold())
            } else {
                Line::from(text.clone())
            }
        })
        .collect();
    Paragraph::new(lines).block(Block::bordered().title(" news "))
}

fn footer<'a>(demo: &Demo, screen: &Screen) -> Paragraph<'a> {
    let mut lines =
        vec![Line::from(format!("tables {}   broker {}   http://{}", demo.root(), demo.brokers, demo.process.address))];
    if let Some(input) = &screen.input {
        lines.push(Line::from(vec!["sql> ".cyan().bold(), Span::from(format!("{input}▏"))]));
        lines.push(Line::from("enter runs the query, esc cancels".dim()));
    } else {
        for (index, (_, sql)) in QUERIES.iter().enumerate() {
            lines.push(Line::from(vec![format!("{} ", index + 1).cyan(), Span::from(*sql).dim()]));
        }
    }
    Paragraph::new(lines)
        .block(Block::bordered().title(" q quit  p page  g gate  s span  : enter SQL  1–8 run a query "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn a_long_answer_scrolls_within_its_lines_and_escape_closes_it() {
        let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
        let text = (0..30).map(|line| format!("line {line}\n")).collect();
        let mut screen = Screen { answer: Some(Answer::to("t".to_owned(), Ok(text))), ..Screen::default() };
        let top = |screen: &Screen| screen.answer.as_ref().map(|answer| answer.top);
        for (code, expected) in [(KeyCode::Up, 0), (KeyCode::PageDown, 20), (KeyCode::Char(' '), 29), (KeyCode::Up, 28)]
        {
            screen.press(key(code));
            assert_eq!(top(&screen), Some(expected), "{code:?}");
        }
        let mut terminal = Terminal::new(TestBackend::new(60, 12)).expect("a test terminal");
        terminal.draw(|frame| over(frame, screen.answer.as_ref().expect("open"))).expect("draws");
        let shown: String = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        assert!(shown.contains("line 28") && shown.contains("scroll") && !shown.contains("line 27"), "{shown}");
        screen.press(key(KeyCode::Esc));
        assert_eq!(top(&screen), None);
        assert!(matches!(screen.press(key(KeyCode::Char('p'))), Action::Page));
    }

    #[test]
    fn a_bad_canary_stands_out_in_the_table() {
        let row = |stage: &str, success| crate::demo::observe::ReleaseRow {
            task: "t".to_owned(),
            release: "r".to_owned(),
            stage: stage.to_owned(),
            runs: 100.0,
            success: Some(success),
            ..crate::demo::observe::ReleaseRow::default()
        };
        let view = View { span: "5m", rows: vec![row("full", 0.9), row("canary", 0.6)], ..View::default() };
        let mut terminal = Terminal::new(TestBackend::new(130, 6)).expect("a test terminal");
        terminal.draw(|frame| frame.render_widget(table(&view), frame.area())).expect("draws");
        let buffer = terminal.backend().buffer();
        assert_eq!(buffer[(1, 3)].fg, Color::Red);
        assert_eq!(buffer[(1, 2)].fg, Color::Reset);
    }
}
