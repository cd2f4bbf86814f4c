//! The interactive prompt: history, completion, multi-line statements, and backslash commands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bellwether_base::{Error, Result};
use bellwether_queries::{Session, TableInfo, split};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Context, Editor, Helper, Highlighter, Hinter, Validator};

use super::output::{self, Format};
use crate::exit;

const HELP: &str = "End a statement with `;`.
  \\d [NAME]           list tables and views, or the columns of one
  \\functions [NAME]   list functions, or document one
  \\x                  switch between records (one column per line, nothing cut) and tables
  \\o FORMAT           set the output format: table, record, csv, json, ndjson
  \\timing             switch the display of execution times on or off
  \\watch [SECONDS]    repeat the last statement until Ctrl-C
  \\q                  quit";

const KEYWORDS: [&str; 28] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "HAVING",
    "JOIN",
    "LEFT JOIN",
    "ON",
    "AS",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IS",
    "IN",
    "BETWEEN",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "DESC",
    "DISTINCT",
    "COUNT",
    "WITH",
    "EXPLAIN",
];

#[derive(Helper, Highlighter, Hinter, Validator)]
struct WordCompleter(Vec<String>);

impl Completer for WordCompleter {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let word_character = |character: char| character.is_alphanumeric() || character == '_' || character == '\\';
        let start = line[..position]
            .rfind(|character| !word_character(character))
            .map_or(0, |place| place + line[place..].chars().next().map_or(1, char::len_utf8));
        let begun = line[start..position].to_lowercase();
        let fits = |word: &&String| !begun.is_empty() && word.to_lowercase().starts_with(&begun);
        let pairs = self.0.iter().filter(fits).map(|word| Pair { display: word.clone(), replacement: word.clone() });
        Ok((start, pairs.collect()))
    }
}

struct Prompt<'a> {
    session: &'a Session,
    format: Format,
    timing: bool,
    last: Option<String>,
}

/// Runs the prompt until the user quits.
pub(crate) async fn run(session: &Session, format: Format) -> Result<ExitCode> {
    let broken = |source: ReadlineError| Error::unavailable("cannot use the terminal").with_source(source);
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(false).build();
    let mut editor: Editor<WordCompleter, DefaultHistory> = Editor::with_config(config).map_err(broken)?;
    editor.set_helper(Some(WordCompleter(words(session).await?)));
    let history = history_file();
    if let Some(file) = &history {
        // The first session has no history.
        drop(editor.load_history(file));
    }
    println("Bellwether SQL. Type \\? for help, \\d to list tables and views, \\q to quit.");
    let mut prompt = Prompt { session, format, timing: false, last: None };
    let mut text = String::new();
    loop {
        let line = match editor.readline(if text.is_empty() { "bellwether> " } else { "        ... " }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                text.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(source) => return Err(broken(source)),
        };
        if text.is_empty() && line.trim_start().starts_with('\\') {
            drop(editor.add_history_entry(line.trim()));
            if !prompt.command(line.trim()).await {
                break;
            }
            continue;
        }
        text.push_str(&line);
        text.push('\n');
        if text.trim().is_empty() {
            text.clear();
        } else if text.trim_end().ends_with(';') {
            let statement = std::mem::take(&mut text);
            drop(editor.add_history_entry(statement.trim()));
            // Saved before it runs: a statement that allocates far too much ends the process.
            save_history(&mut editor, history.as_deref());
            prompt.answer(&statement).await;
        }
    }
    save_history(&mut editor, history.as_deref());
    Ok(ExitCode::SUCCESS)
}

/// Saves the history, if the file can be written.
fn save_history(editor: &mut Editor<WordCompleter, DefaultHistory>, file: Option<&Path>) {
    let Some(file) = file else { return };
    if let Some(folder) = file.parent() {
        drop(std::fs::create_dir_all(folder));
    }
    drop(editor.save_history(file));
}

/// Returns the history file, in the user's state folder.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local").join("state"));
    Some(state.or_else(home)?.join("bellwether").join("history"))
}

async fn words(session: &Session) -> Result<Vec<String>> {
    let mut words: Vec<String> = KEYWORDS.iter().map(|word| (*word).to_owned()).collect();
    for info in session.tables().await?.into_iter().chain(session.views().await?) {
        words.push(info.name);
        words.extend(info.columns.into_iter().map(|column| column.name));
    }
    words.extend(session.functions().iter().map(|function| format!("{}(", function.name)));
    words.extend(["\\d", "\\functions", "\\o", "\\timing", "\\x", "\\watch", "\\q"].map(str::to_owned));
    words.sort_unstable();
    words.dedup();
    Ok(words)
}

#[expect(clippy::print_stdout, reason = "the prompt is interactive")]
fn println(text: &str) {
    println!("{text}");
}

impl Prompt<'_> {
    /// Runs statements; Ctrl-C cancels the running one.
    async fn answer(&mut self, text: &str) {
        let started = Instant::now();
        let work = async {
            for statement in split(text)? {
                let answer = self.session.execute(&statement).await?;
                output::write(answer, self.format, None).await?;
            }
            Ok::<_, Error>(())
        };
        tokio::select! {
            done = work => {
                if let Err(error) = done {
                    exit::report(&error);
                }
            }
            _ = tokio::signal::ctrl_c() => println("cancelled"),
        }
        if self.timing {
            println(&format!("{:.3} s", started.elapsed().as_secs_f64()));
        }
        self.last = Some(text.to_owned());
    }

    /// Runs a backslash command. Returns false to quit.
    async fn command(&mut self, line: &str) -> bool {
        let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim().trim_end_matches(';');
        match command {
            "\\q" | "\\quit" | "\\exit" => return false,
            "\\?" | "\\h" | "\\help" => println(HELP),
            "\\d" => self.describe(argument).await,
            "\\functions" => self.functions(argument),
            "\\timing" => {
                self.timing = !self.timing;
                println(if self.timing { "timing is on" } else { "timing is off" });
            }
            "\\x" => {
                self.format = if self.format == Format::Record { Format::Table } else { Format::Record };
                println(if self.format == Format::Record { "output format: record" } else { "output format: table" });
            }
            "\\o" => match <Format as clap::ValueEnum>::from_str(argument, true) {
                Ok(Format::Parquet | Format::Arrow) | Err(_) => {
                    println("choose one of table, record, csv, json, ndjson")
                }
                Ok(format) => self.format = format,
            },
            "\\watch" => self.watch(argument).await,
            other => println(&format!("unknown command `{other}`; \\? lists all commands")),
        }
        true
    }

    async fn watch(&mut self, seconds: &str) {
        let Some(last) = self.last.clone() else { return println("no statement to repeat yet") };
        let Ok(seconds) = (if seconds.is_empty() { Ok(2.0) } else { seconds.parse::<f64>() }) else {
            return println("usage: \\watch [SECONDS]");
        };
        let pause = Duration::from_secs_f64(seconds.clamp(0.1, 86_400.0));
        loop {
            self.answer(&last).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }

    async fn describe(&self, name: &str) {
        let infos =
            async { Ok::<_, Error>([self.session.tables().await?, self.session.views().await?].concat()) }.await;
        let infos: Vec<TableInfo> = match infos {
            Ok(infos) => infos,
            Err(error) => {
                exit::report(&error);
                return;
            }
        };
        if name.is_empty() {
            for info in &infos {
                println(&format!("  {:<20} {}", info.name, info.doc));
            }
            return println("\\d NAME lists the columns of a table or view");
        }
        match infos.iter().find(|info| info.name == name) {
            None => println(&format!("no table or view `{name}`; \\d lists all")),
            Some(info) => {
                println(&info.doc);
                for column in &info.columns {
                    println(&format!("  {:<32} {:<20} {}", column.name, column.kind, column.doc));
                }
                if let Some(example) = &info.example {
                    println(&format!("  example: {example}"));
                }
            }
        }
    }

    fn functions(&self, name: &str) {
        let functions = self.session.functions();
        if name.is_empty() {
            for function in functions.iter().filter(|function| function.own) {
                println(&format!("  {:<60} {}", function.syntax, function.doc));
            }
            return println(
                "All functions of Apache DataFusion are available too; \\functions NAME documents any function.",
            );
        }
        for function in functions.iter().filter(|function| function.name == name) {
            println(&format!("{}\n  {}", function.syntax, function.doc));
            for (argument, meaning) in &function.arguments {
                println(&format!("  {argument}: {meaning}"));
            }
            if let Some(example) = &function.example {
                println(&format!("  example: {example}"));
            }
        }
    }
}
