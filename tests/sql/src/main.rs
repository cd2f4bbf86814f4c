//! Runs the .slt files in this folder against the built program, over the tables that it makes of `events.ndjson`.
//!
//! ```sh
//! bellwether-sql-tests check PROGRAM    # fails if an answer differs, or if a view or a function has no queries
//! bellwether-sql-tests write PROGRAM    # writes the present answers into the files; read the diff before committing it
//! ```
//!
//! In `questions/NAME.slt`, which belongs to the saved question of that name, a query `ask NAME=VALUE …` asks it, over the recording
//! and `questions/events.ndjson`: a week before, a canary that is worse and cheaper, and actions without an approval.
//! `views/NAME.slt` belongs to the view of that name; so does `live/NAME.slt`, for views that look back from the present, over
//! the same recording with its times shifted to now. In `functions/*.slt`, a comment line `# NAME(…` introduces the queries
//! of a function. `docs/sql.md` says which views and functions there are. Floating-point numbers are compared to six
//! significant digits, so that the files hold on every machine.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use futures::executor::block_on;
use humantime::{format_rfc3339, parse_rfc3339};
use serde_json::Value;
use sqllogictest::{
    DB, DBOutput, DefaultColumnType, Runner, default_normalizer, default_validator, strict_column_validator,
};

/// Any error fails the run; its text is for people.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Settings under which the recording, which is of January 2026, becomes tables.
const SETTINGS: &str = "[kafka]\nbrokers = [\"127.0.0.1:9\"]\ntopics = [\"unused\"]\n[serve]\naddress = \"127.0.0.1:0\"\n\
    [ingest]\nmax_event_age = \"36500d\"\n";

/// A command line that runs the program on the tables.
#[derive(Clone, Debug)]
struct Program {
    file: PathBuf,
    root: PathBuf,
    /// The question that `ask` asks.
    question: Option<String>,
}

/// The program refused a statement; the text is what it printed.
#[derive(Clone, Debug)]
struct Refused(String);

/// The command: check the answers, or write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Check,
    Write,
}

// === impl Refused ===

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl Error for Refused {}

// === impl Program ===

impl Program {
    /// Makes the tables of the recording in a folder.
    fn with_tables(file: &Path, recording: &Path, folder: &Path) -> Result<Self> {
        let (root, config) = (folder.join("tables"), folder.join("bellwether.toml"));
        std::fs::write(&config, format!("[tables]\nroot = \"{}\"\n{SETTINGS}", root.display()))?;
        let program = Self { file: file.to_owned(), root, question: None };
        // Exit code 1: some events were rejected, as the recording intends.
        program.run(&[&"replay", &recording, &"--to", &"tables", &"--config", &config], 1)?;
        program.run(&[&"aggregate", &"--until-caught-up", &"--config", &config], 0)?;
        program.run(&[&"watch", &"--until-caught-up", &"--config", &config], 0)?;
        program.run(&[&"evals", &"--until-caught-up", &"--config", &config], 0)?;
        program.act()?;
        Ok(program)
    }

    /// Records actions on alerts: two silences, one of which is ended, and feedback that replaces earlier feedback.
    fn act(&self) -> Result<()> {
        let act = |arguments: &[&dyn AsRef<OsStr>]| {
            let (alerts, who) = (["alerts"], ["--by", "ada", "--root"]);
            let all = alerts.iter().map(|text| text as &dyn AsRef<OsStr>).chain(arguments.iter().copied());
            let all = all.chain(who.iter().map(|text| text as &dyn AsRef<OsStr>));
            self.run(&all.chain([&self.root as &dyn AsRef<OsStr>]).collect::<Vec<_>>(), 0)
        };
        let silence = |matcher: &str, key: &str| {
            act(&[&"silence", &matcher, &"--for", &"300d", &"--reason", &"load test", &"--key", &key])
        };
        silence("task=refund", "kept")?;
        silence("task=search", "ended")?;
        act(&[&"unsilence", &"ended/"])?;
        let query = "SELECT alert_id FROM alerts WHERE rule = 'policy_critical' AND state = 'firing' LIMIT 1";
        let answer = self.run(&[&"sql", &"--root", &self.root, &"--format", &"json", &query], 0)?;
        let rows: Vec<Value> = serde_json::from_str(&answer)?;
        let id = rows.first().and_then(|row| row["alert_id"].as_str()).ok_or("the recording raises no alert")?;
        act(&[&"feedback", &id, &"noise", &"--reason", &"a test"])?;
        act(&[&"feedback", &id, &"useful"])?;
        Ok(())
    }

    /// Answers a statement, or a question, as JSON.
    fn answer(&self, sql: &str) -> std::result::Result<String, Refused> {
        let mut arguments: Vec<&dyn AsRef<OsStr>> = vec![&"sql", &"--root", &self.root, &"--format", &"json"];
        let Some(question) = self.question.as_ref().filter(|_| sql == "ask" || sql.starts_with("ask ")) else {
            arguments.push(&sql);
            return self.run(&arguments, 0);
        };
        arguments.extend([&"--name" as &dyn AsRef<OsStr>, question]);
        let pairs: Vec<&str> = sql.split_whitespace().skip(1).collect();
        for pair in &pairs {
            arguments.extend([&"--param" as &dyn AsRef<OsStr>, pair]);
        }
        self.run(&arguments, 0)
    }

    /// Runs the program, which must end with a code; returns what it printed.
    fn run(&self, arguments: &[&dyn AsRef<OsStr>], code: i32) -> std::result::Result<String, Refused> {
        let mut command = Command::new(&self.file);
        command.env_remove("RUST_LOG").env_remove("BELLWETHER_CONFIG").env("NO_COLOR", "1");
        command.args(arguments.iter().map(|argument| argument.as_ref()));
        let ended =
            command.output().map_err(|error| Refused(format!("cannot run {}: {error}", self.file.display())))?;
        if ended.status.code() == Some(code) {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        Err(Refused(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
    }
}

impl DB for Program {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> std::result::Result<DBOutput<DefaultColumnType>, Refused> {
        let answer = self.answer(sql)?;
        let rows: Vec<Value> = serde_json::from_str(&answer).map_err(|error| Refused(format!("{error}: {answer}")))?;
        let cells = |row: &Value| row.as_object().map(|row| row.values().cloned().collect()).unwrap_or_default();
        let rows: Vec<Vec<Value>> = rows.iter().map(cells).collect();
        let width = rows.first().map_or(0, Vec::len);
        let types = (0..width).map(|column| kind(rows.iter().map(|row| &row[column]))).collect();
        Ok(DBOutput::Rows { types, rows: rows.iter().map(|row| row.iter().map(text).collect()).collect() })
    }
}

/// The recording with the newest of its times moved to now, and all others with it.
#[expect(clippy::disallowed_methods, reason = "the views that it is for look back from the present")]
fn shifted_to_now(recording: &str) -> Result<String> {
    // A time is all that has its form between two quotation marks.
    let parts: Vec<&str> = recording.split('"').collect();
    let times: Vec<SystemTime> = parts.iter().filter_map(|part| parse_rfc3339(part).ok()).collect();
    let newest = times.into_iter().max().ok_or("the recording has no times")?;
    let by = SystemTime::now().duration_since(newest)?;
    let shifted =
        |part: &&str| parse_rfc3339(part).map_or_else(|_| (*part).to_owned(), |at| format_rfc3339(at + by).to_string());
    Ok(parts.iter().map(shifted).collect::<Vec<_>>().join("\""))
}

/// The type of a column, from its first value that is not null.
fn kind<'a>(mut values: impl Iterator<Item = &'a Value>) -> DefaultColumnType {
    match values.find(|value| !value.is_null()) {
        Some(Value::Number(number)) if number.is_f64() => DefaultColumnType::FloatingPoint,
        Some(Value::Number(_)) => DefaultColumnType::Integer,
        Some(_) => DefaultColumnType::Text,
        None => DefaultColumnType::Any,
    }
}

/// A value as the files have it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) if text.is_empty() => "(empty)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            number.as_f64().filter(|_| number.is_f64()).map_or_else(|| number.to_string(), rounded)
        }
        Value::Array(all) => format!("[{}]", all.iter().map(text).collect::<Vec<_>>().join(", ")),
        Value::Object(all) => {
            let fields: Vec<String> = all.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Bool(_) => value.to_string(),
    }
}

/// A number to six significant digits.
fn rounded(number: f64) -> String {
    let short = format!("{number:.5e}").parse::<f64>().unwrap_or(number);
    // Zero has no sign.
    if short == 0.0 { "0".to_owned() } else { short.to_string() }
}

/// The .slt files of a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut found: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    found.sort();
    Ok(found)
}

/// Runs one file, or writes the present answers into it; returns what is wrong.
fn run_file(program: &Program, file: &Path, mode: Mode) -> Option<String> {
    let in_questions = file.parent().is_some_and(|folder| folder.ends_with("questions"));
    let question = file.file_stem().and_then(OsStr::to_str).filter(|_| in_questions).map(str::to_owned);
    let program = Program { question, ..program.clone() };
    let mut runner = Runner::new(|| async { Ok(program.clone()) });
    runner.with_column_validator(strict_column_validator);
    match mode {
        Mode::Check => runner.run_file(file).err().map(|error| error.display(false).to_string()),
        Mode::Write => {
            let written =
                runner.update_test_file(file, "  ", default_validator, default_normalizer, strict_column_validator);
            if let Err(error) = block_on(written) {
                return Some(format!("{}: {error}", file.display()));
            }
            // An intended error has its text on the same line.
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.lines().any(|line| line == "query error").then(|| format!("{}: a query failed", file.display()))
        }
    }
}

/// Runs files on two threads; returns what is wrong.
fn run_files(program: &Program, files: &[PathBuf], mode: Mode) -> Vec<String> {
    let half = files.len().div_ceil(2).max(1);
    std::thread::scope(|scope| {
        let run = |files: &[PathBuf]| files.iter().filter_map(|file| run_file(program, file, mode)).collect::<Vec<_>>();
        let threads: Vec<_> = files.chunks(half).map(|files| scope.spawn(move || run(files))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<String>>| {
            thread.join().unwrap_or_else(|_| vec!["a thread panicked".to_owned()])
        };
        threads.into_iter().flat_map(join).collect()
    })
}

/// Names that the table of contents of `docs/sql.md` lists after a title.
fn listed<'a>(reference: &'a str, title: &str) -> Result<BTreeSet<&'a str>> {
    let line = reference.lines().find_map(|line| line.strip_prefix(title)).ok_or("docs/sql.md has no contents")?;
    Ok(line.split('`').skip(1).step_by(2).collect())
}

/// The function that a line such as `# NAME(…)` introduces.
fn heading(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix("# ")?.split_once('(')?;
    name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_').then_some(name)
}

/// Views, questions and functions without queries, and files and headings without a view, question or function.
fn not_covered(
    reference: &str,
    views: &[PathBuf],
    questions: &[PathBuf],
    functions: &[PathBuf],
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (what, title, files) in [("view", "* Views: ", views), ("question", "* Saved questions: ", questions)] {
        let named: BTreeSet<&str> = files.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
        for name in listed(reference, title)?.symmetric_difference(&named) {
            wrong.push(format!("{what}s/{name}.slt and {what} `{name}`: one of the two is missing"));
        }
    }
    let texts = functions.iter().map(std::fs::read_to_string).collect::<std::io::Result<Vec<_>>>()?;
    // Of each heading, whether a query under it calls the function.
    let mut headings: Vec<(&str, bool)> = Vec::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        if let Some(name) = heading(line) {
            headings.push((name, false));
        } else if let Some((name, used)) = headings.last_mut() {
            *used |= !line.starts_with('#') && line.contains(&format!("{name}("));
        }
    }
    for (name, _) in headings.iter().filter(|(_, used)| !used) {
        wrong.push(format!("no query under the heading of `{name}` calls it"));
    }
    let covered: BTreeSet<&str> = headings.iter().map(|(name, _)| *name).collect();
    for name in listed(reference, "* Functions: ")?.symmetric_difference(&covered) {
        wrong.push(format!("function `{name}` and its heading in functions/*.slt: one of the two is missing"));
    }
    Ok(wrong)
}

fn run(mode: Mode, program: &Path) -> Result<Vec<String>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of = |folder: &str| files(&here.join(folder));
    let (views, live, questions, functions) = (of("views")?, of("live")?, of("questions")?, of("functions")?);
    let (folder, recording) = (tempfile::tempdir()?, here.join("events.ndjson"));
    let [dated, shifted, asked] = ["dated", "shifted", "asked"].map(|name| folder.path().join(name));
    for folder in [&dated, &shifted, &asked] {
        std::fs::create_dir(folder)?;
    }
    let recorded = std::fs::read_to_string(&recording)?;
    let events = shifted.join("events.ndjson");
    std::fs::write(&events, shifted_to_now(&recorded)?)?;
    let more = asked.join("events.ndjson");
    std::fs::write(&more, recorded + &std::fs::read_to_string(here.join("questions/events.ndjson"))?)?;
    let asked = Program::with_tables(program, &more, &asked)?;
    let dated = Program::with_tables(program, &recording, &dated)?;
    let shifted = Program::with_tables(program, &events, &shifted)?;
    let reference = std::fs::read_to_string(here.join("../../docs/sql.md"))?;
    let all_views: Vec<PathBuf> = views.iter().chain(&live).cloned().collect();
    let mut wrong = not_covered(&reference, &all_views, &questions, &functions)?;
    wrong.extend(run_files(&dated, &[views, functions].concat(), mode));
    wrong.extend(run_files(&asked, &questions, mode));
    wrong.extend(run_files(&shifted, &live, mode));
    Ok(wrong)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mode, program) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check", program] => (Mode::Check, program),
        ["write", program] => (Mode::Write, program),
        _ => {
            eprintln!("usage: bellwether-sql-tests check|write PROGRAM");
            return ExitCode::from(2);
        }
    };
    match run(mode, Path::new(program)) {
        Ok(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("{}\n{} problems; `make generate` writes the present answers", wrong.join("\n"), wrong.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
