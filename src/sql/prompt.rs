//! The interactive prompt.
//!
//! * `completion` completes what is typed, and says when a statement is complete; `known` holds the names and their help.
//! * `commands` lists the commands that begin with a backslash; this module runs them, and `result` runs statements.
//! * `history` keeps what was typed.

mod commands;
mod completion;
mod history;
mod known;
mod result;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_queries::{Session, nearest};
use clap::ValueEnum;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, KeyEvent,
    RepeatCount,
};
use tokio::signal::unix::{SignalKind, signal};

use super::output::{Format, Kept};
use super::pager::{self, Screen};
use super::{questions, sink};
use crate::{editor, exit, screen};
use commands::{Action, Command};
use completion::Assistant;
use history::HistoryFile;
use known::Known;
use result::{Ended, OutputFile};

/// Names of the text formats.
const FORMATS: &str = "table, record, csv, json, ndjson";

/// Clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Pause of `\watch`, seconds.
const PAUSE: f64 = 2.0;

/// The state of the prompt.
struct Prompt<'a> {
    session: &'a Session,
    /// The time of the tables, microseconds since the epoch.
    now_micros: &'a (dyn Fn() -> i64 + Sync),
    /// Folder of the user's questions.
    folder: Option<&'a Path>,
    known: Arc<Known>,
    format: Format,
    /// The file that gets the results instead of the screen.
    output: Option<OutputFile>,
    pager: Option<String>,
    paging: bool,
    timing: bool,
    /// The last statement, or several.
    last: Option<String>,
    /// Its result, if all of it was shown.
    kept: Option<Kept>,
    /// Columns of the chart, if the last result was drawn: `\watch` then draws it again.
    drawn: Option<Vec<String>>,
}

/// The next step after a command.
enum Next {
    /// Read the next statement.
    Read,
    /// Give the text that was typed before the command back to the person.
    Resume,
    /// Run a statement that was written elsewhere.
    Run(String),
    Quit,
}

/// Notes whether Ctrl-C was typed on an empty line.
struct NoteEmpty(Arc<AtomicBool>);

impl ConditionalEventHandler for NoteEmpty {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(context.line().trim().is_empty(), Ordering::Relaxed);
        None
    }
}

/// Runs the prompt until the person quits. `folder` holds their own questions.
///
/// # Errors
/// `Unavailable` if the terminal or the tables cannot be used.
pub(super) async fn run(
    session: &Session,
    format: Format,
    folder: Option<&Path>,
    now_micros: &(dyn Fn() -> i64 + Sync),
) -> Result<ExitCode> {
    let broken = |source: ReadlineError| Error::unavailable("cannot use the terminal").with_source(source);
    let known = Arc::new(Known::of(session, folder).await?);
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .completion_show_all_if_ambiguous(true)
        .max_history_size(history::ENTRIES)
        .map_err(broken)?
        .auto_add_history(false)
        .build();
    let mut editor: Editor<Assistant, DefaultHistory> = Editor::with_config(config).map_err(broken)?;
    editor.set_helper(Some(Assistant::new(Arc::clone(&known))));
    let empty = Arc::new(AtomicBool::new(false));
    editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(NoteEmpty(Arc::clone(&empty)))));
    // From here on Ctrl-C ends what runs in the foreground, and never the prompt.
    drop(signal(SignalKind::interrupt()));
    let history = HistoryFile::of_the_user();
    history.load(&mut editor);
    println("Bellwether SQL. Type \\? for help, \\d to list tables and views, \\q to quit.");
    let pager = pager::command();
    let paging = pager.is_some();
    let mut prompt = Prompt {
        session,
        now_micros,
        folder,
        known,
        format,
        output: None,
        pager,
        paging,
        timing: false,
        last: None,
        kept: None,
        drawn: None,
    };
    let (mut typed, mut warned) = (String::new(), false);
    loop {
        let text = match editor.readline_with_initial("bellwether> ", (&typed, "")) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => {
                typed.clear();
                if empty.load(Ordering::Relaxed) {
                    if warned {
                        break;
                    }
                    println("Press Ctrl-C again, or Ctrl-D, to quit.");
                    warned = true;
                }
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(source) => return Err(broken(source)),
        };
        (typed, warned) = (String::new(), false);
        if text.trim().is_empty() {
            continue;
        }
        history.add(&mut editor, &text);
        match completion::command_before(&text, text.len()) {
            None => {
                prompt.answer(&text).await;
            }
            Some(line) => {
                // A statement that is still being written may stand before the command.
                let before = text[..text.len() - line.len()].trim_end();
                match prompt.command(line, before).await {
                    Next::Read => {}
                    Next::Resume => typed = before.to_owned(),
                    Next::Run(statement) => {
                        history.add(&mut editor, &statement);
                        prompt.answer(&statement).await;
                    }
                    Next::Quit => break,
                }
            }
        }
        if let (Some(assistant), Some(kept)) = (editor.helper_mut(), &prompt.kept) {
            assistant.columns = kept.schema.fields().iter().map(|field| field.name().clone()).collect();
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the prompt is interactive")]
fn println(text: &str) {
    println!("{text}");
}

// === impl Prompt ===

impl Prompt<'_> {
    /// Runs a command; `before` is the statement that was typed before it.
    async fn command(&mut self, line: &str, before: &str) -> Next {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (name, rest) = (name.trim().trim_end_matches(';'), rest.trim().trim_end_matches(';').trim_end());
        let command = match commands::find(name) {
            Ok(command) => command,
            Err(message) => {
                println(&message);
                return Next::Resume;
            }
        };
        match command.action {
            Action::Quit => return Next::Quit,
            Action::Edit => return self.edit(before),
            Action::Again | Action::Watch | Action::Chart => {
                self.with_statement(command, rest, before).await;
                return Next::Read;
            }
            Action::Ask => {
                self.ask(rest).await;
                return Next::Read;
            }
            _ => self.setting(command, rest),
        }
        Next::Resume
    }

    /// Runs a command that runs no statement.
    fn setting(&mut self, command: &Command, rest: &str) {
        let width = screen::width().unwrap_or(80);
        match command.action {
            Action::Help if rest.is_empty() => self.show(&commands::help()),
            Action::Help => match commands::find(&format!("\\{}", rest.trim_start_matches('\\'))) {
                Ok(command) => println(&commands::help_of(command)),
                Err(message) => println(&message),
            },
            Action::Describe => self.show(&self.known.describe(rest, width)),
            Action::Function => self.show(&self.known.function(rest, width)),
            Action::Timing => {
                self.timing = !self.timing;
                println(if self.timing { "timing is on" } else { "timing is off" });
            }
            Action::Pager => self.switch_pager(),
            Action::Records => {
                self.format = if self.format == Format::Record { Format::Table } else { Format::Record };
                println(&format!("output format: {}", self.format.name()));
            }
            Action::Format => self.set_format(rest),
            Action::Output => self.redirect(rest),
            _ => {}
        }
    }

    /// Shows a text, by way of the pager if it is long.
    fn show(&self, text: &str) {
        use std::io::Write;
        let mut screen = Screen::new(self.pager());
        // A person may leave the pager at once.
        drop(writeln!(screen, "{text}"));
        if let Err(source) = screen.finish() {
            exit::report(&Error::unavailable("cannot write to the terminal").with_source(source));
        }
    }

    /// Returns the command of the pager, if it is on.
    fn pager(&self) -> Option<&str> {
        self.pager.as_deref().filter(|_| self.paging)
    }

    fn switch_pager(&mut self) {
        let Some(pager) = &self.pager else {
            return println("there is no pager: set PAGER to the command of one");
        };
        self.paging = !self.paging;
        println(&if self.paging { format!("the pager is on: {pager}") } else { "the pager is off".to_owned() });
    }

    fn set_format(&mut self, name: &str) {
        match Format::from_str(name, true) {
            Ok(format) if format.is_text() => {
                self.format = format;
                println(&format!("output format: {}", format.name()));
            }
            Ok(format) => println(&format!("{0} is no text; \\o FILE.{0} writes a file", format.name())),
            Err(_) if name.is_empty() => {
                println(&format!("output format: {}; choose one of {FORMATS}", self.format.name()));
            }
            Err(_) => match nearest(name, FORMATS.split(", ")) {
                Some(near) => println(&format!("there is no format `{name}`; did you mean `{near}`?")),
                None => println(&format!("there is no format `{name}`; choose one of {FORMATS}")),
            },
        }
    }

    /// Sends results to a file, or to the screen again.
    fn redirect(&mut self, name: &str) {
        let name = name.trim_matches(['\'', '"']);
        if name.is_empty() {
            self.output = None;
            return println("results go to the screen");
        }
        match OutputFile::create(&sink::path(name)) {
            Ok(output) => {
                println(&format!("results go to {name} as {}, until \\o", output.format(self.format).name()));
                self.output = Some(output);
            }
            Err(error) => {
                exit::report(&error);
            }
        }
    }

    /// Opens the statement that was typed before, or the last one, in an editor; what was saved runs.
    fn edit(&mut self, before: &str) -> Next {
        let start = if before.is_empty() { self.last.as_deref().unwrap_or_default() } else { before };
        let read = |file: &Path| {
            std::fs::read_to_string(file)
                .map_err(|source| Error::config("cannot read the edited statement as text").with_source(source))
        };
        let edited = match editor::edit(&format!("{}\n", start.trim_end()), ".sql", read) {
            Ok(edited) => edited,
            Err(error) => {
                exit::report(&error);
                return Next::Resume;
            }
        };
        let text = edited.value.trim();
        if !edited.saved || text.is_empty() {
            println("nothing was saved, and nothing runs");
            return Next::Resume;
        }
        println(text);
        Next::Run(if text.ends_with(';') { text.to_owned() } else { format!("{text};") })
    }

    /// Runs a command about the statement that was typed before it, or the last one.
    async fn with_statement(&mut self, command: &Command, rest: &str, before: &str) {
        if !before.is_empty() {
            self.last = Some(before.to_owned());
            self.kept = None;
        }
        let Some(last) = self.last.clone() else { return println("there is no statement yet") };
        match command.action {
            Action::Watch => self.watch(&last, rest).await,
            Action::Chart => match commands::arguments(rest) {
                Some(columns) => {
                    self.chart(&last, &columns).await;
                }
                None => println("a quotation mark is not closed"),
            },
            _ => {
                self.answer(&last).await;
            }
        }
    }

    /// Repeats a statement, or the chart of its result, until Ctrl-C, or until it fails.
    async fn watch(&mut self, statement: &str, seconds: &str) {
        let seconds = if seconds.is_empty() { Ok(PAUSE) } else { seconds.parse::<f64>() };
        let Some(seconds) = seconds.ok().filter(|seconds| seconds.is_finite()) else {
            return println("usage: \\watch [SECONDS]");
        };
        let seconds = seconds.clamp(0.1, 86_400.0);
        let paging = std::mem::replace(&mut self.paging, false);
        let drawn = self.drawn.clone();
        loop {
            let now = std::time::UNIX_EPOCH + Duration::from_micros((self.now_micros)().max(0).unsigned_abs());
            let clear = if drawn.is_some() { CLEAR } else { "" };
            println(&format!("{clear}{}, every {seconds} s; Ctrl-C ends", humantime::format_rfc3339_seconds(now)));
            let ended = match &drawn {
                Some(columns) => {
                    self.kept = None;
                    self.chart(statement, columns).await
                }
                None => self.answer(statement).await,
            };
            if ended != Ended::Whole {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => {}
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        self.paging = paging;
    }

    /// Asks a saved question, or lists them.
    async fn ask(&mut self, rest: &str) {
        let Some(arguments) = commands::arguments(rest) else { return println("a quotation mark is not closed") };
        let Some((name, pairs)) = arguments.split_first() else {
            return self.show(&self.known.list_questions(screen::width().unwrap_or(80)));
        };
        let mut values = Vec::new();
        for pair in pairs {
            match questions::pair(pair) {
                Ok(pair) => values.push(pair),
                Err(_) => return println(&format!("`{pair}` gives no parameter a value: write NAME=VALUE")),
            }
        }
        let known = || self.known.questions.iter().map(|question| question.name.as_str());
        let question = match questions::named(name, self.folder) {
            Ok(question) => question,
            Err(_) if !known().any(|known| known == name) => {
                let near = nearest(name, known())
                    .map_or("\\ask lists all".to_owned(), |near| format!("did you mean `{near}`?"));
                return println(&format!("there is no question `{name}`; {near}"));
            }
            Err(error) => {
                exit::report(&error);
                return;
            }
        };
        match questions::sql(&question, &values, (self.now_micros)()) {
            Ok(sql) => {
                self.answer(&sql).await;
            }
            Err(error) => {
                exit::report(&error);
            }
        }
    }
}
