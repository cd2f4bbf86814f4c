//! Saved questions on the command line: those of the program, and those in a folder of the user.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bellwether_base::{Error, Result};
use bellwether_queries::{Parameter, Question, questions};

/// Width of the column of parameters in the list.
const PARAMETER_WIDTH: usize = 22;

/// Parses a parameter of the command line.
pub(super) fn pair(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "write NAME=VALUE".to_owned())
}

/// Returns the question with a name.
///
/// # Errors
/// `Config` if there is none, if two have the name, or if the file of the question is malformed.
pub(super) fn named(name: &str, folder: Option<&Path>) -> Result<Question> {
    let brought = questions()?.into_iter().find(|question| question.name == name);
    let file = folder.filter(|_| is_name(name)).map(|folder| folder.join(format!("{name}.sql")));
    match (brought, file.filter(|file| file.exists())) {
        (Some(question), None) => Ok(question),
        (None, Some(file)) => read(name, &file),
        (Some(_), Some(file)) => Err(taken(&file)),
        (None, None) => Err(Error::config(format!("there is no question `{name}`"))
            .with_hint("list them with bellwether sql --list; --questions names the folder of your own")),
    }
}

/// Returns the query of a question with values for its parameters.
///
/// # Errors
/// `Config` if a value is given twice, is missing, or is not of its kind.
pub(super) fn sql(question: &Question, pairs: &[(String, String)], now_micros: i64) -> Result<String> {
    let mut values = BTreeMap::new();
    for (name, value) in pairs {
        if values.insert(name.clone(), value.clone()).is_some() {
            return Err(Error::config(format!("parameter `{name}` is given twice")).with_hint("give it once"));
        }
    }
    question.sql(&values, now_micros)
}

/// Returns all questions, those of the program first.
///
/// # Errors
/// `Config` if the folder cannot be read, or a file in it is malformed.
pub(super) fn all(folder: Option<&Path>) -> Result<Vec<Question>> {
    let mut all = questions()?;
    for (name, file) in folder.map_or_else(|| Ok(Vec::new()), files)? {
        if all.iter().any(|question| question.name == name) {
            return Err(taken(&file));
        }
        all.push(read(&name, &file)?);
    }
    Ok(all)
}

/// Lists all questions.
///
/// # Errors
/// As [`all`].
pub(super) fn list(folder: Option<&Path>) -> Result<ExitCode> {
    let mut text = String::new();
    for question in all(folder)? {
        text.push_str(&format!("{}\n  {}\n", question.name, first_sentence(&question.doc)));
        question.parameters.iter().for_each(|parameter| text.push_str(&line(parameter)));
        text.push('\n');
    }
    text.push_str("Ask one with bellwether sql --root ROOT --name NAME --param NAME=VALUE\n");
    match io::stdout().write_all(text.as_bytes()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            Err(Error::unavailable("cannot write the list").with_source(source))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn line(parameter: &Parameter) -> String {
    let Parameter { name, doc, .. } = parameter;
    let default = parameter.default.as_ref().map_or("required".to_owned(), |default| format!("default: {default}"));
    format!("  --param {:PARAMETER_WIDTH$} {doc} [{}; {default}]\n", format!("{name}="), parameter.kind())
}

/// Returns the question itself: its documentation goes on to say what the answer holds.
pub(super) fn first_sentence(doc: &str) -> &str {
    doc.find(['?', '.']).map_or(doc, |end| &doc[..=end])
}

/// Returns the files of a folder with the names of their questions, in order.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let unreadable = |source| Error::config(format!("cannot read folder `{}`", folder.display())).with_source(source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "sql") {
            let name = file.file_stem().and_then(|stem| stem.to_str()).filter(|name| is_name(name));
            let name = name.ok_or_else(|| {
                Error::config(format!("`{}` has no name for a question", file.display()))
                    .with_hint("use small letters, digits and _, as in failing_tools.sql")
            })?;
            files.push((name.to_owned(), file));
        }
    }
    files.sort();
    Ok(files)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn taken(file: &Path) -> Error {
    Error::config(format!("`{}` has the name of a question of the program", file.display()))
        .with_hint("rename the file")
}

fn read(name: &str, file: &Path) -> Result<Question> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| Error::config(format!("cannot read `{}`", file.display())).with_source(source))?;
    Question::parse(name, &text).map_err(|error| {
        let named = Error::config(format!("`{}`: {}", file.display(), error.message()));
        match error.hint() {
            Some(hint) => named.with_hint(hint),
            None => named,
        }
    })
}
