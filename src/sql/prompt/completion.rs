//! Completion of what is typed, by its place in the statement, with the help of each candidate.

use std::borrow::Cow;
use std::sync::Arc;

use bellwether_queries::{
    ColumnInfo, Draft, FunctionInfo, FunctionKind, Named, Place, ends_between_words, is_complete,
};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Context, Helper};
use unicode_width::UnicodeWidthStr;

use super::commands::{self, Takes};
use super::known::{self, Known, first_sentence};
use crate::screen;
use crate::sql::Format;

/// First words of statements.
const STARTS: [&str; 8] =
    ["SELECT", "WITH", "EXPLAIN", "EXPLAIN ANALYZE", "DESCRIBE", "SHOW TABLES", "SHOW COLUMNS FROM", "SHOW FUNCTIONS"];

/// Words that may follow the name of a relation.
const CLAUSES: [&str; 13] = [
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "JOIN",
    "LEFT JOIN",
    "FULL JOIN",
    "CROSS JOIN",
    "ON",
    "USING",
    "AS",
    "UNION ALL",
];

/// Words within expressions, and those that end them.
const WORDS: [&str; 38] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "UNION ALL",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IS NULL",
    "IS NOT NULL",
    "IN",
    "BETWEEN",
    "LIKE",
    "ILIKE",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "AS",
    "ASC",
    "DESC",
    "NULLS LAST",
    "DISTINCT",
    "EXISTS",
    "OVER",
    "PARTITION BY",
    "FILTER (WHERE",
    "INTERVAL",
    "CURRENT_DATE",
    "CAST",
    "TRUE",
    "FALSE",
];

/// Widest name in a list of candidates, as a share of the terminal: the rest is for the help.
const NAME_SHARE: f64 = 0.45;

/// Widest type in a list of candidates.
const KIND: usize = 16;

/// Something that may be inserted.
#[derive(Clone, Debug, Default)]
struct Candidate {
    replacement: String,
    /// What the list shows; the same as the replacement, or more.
    name: String,
    kind: String,
    help: String,
}

/// The helper of the line editor.
pub(super) struct Assistant {
    known: Arc<Known>,
    files: FilenameCompleter,
    /// Columns of the last result.
    pub(super) columns: Vec<String>,
}

// === impl Candidate ===

impl Candidate {
    fn new(replacement: impl Into<String>, kind: impl Into<String>, help: impl Into<String>) -> Self {
        let replacement = replacement.into();
        Self { name: replacement.clone(), replacement, kind: kind.into(), help: help.into() }
    }

    fn column(column: &ColumnInfo) -> Self {
        Self::new(&column.name, &column.kind, &column.doc)
    }

    fn function(function: &FunctionInfo) -> Self {
        let help = first_sentence(&function.doc).to_owned();
        let kind = function.kind.name().to_owned();
        Self { replacement: format!("{}(", function.name), name: one_line(&function.syntax), kind, help }
    }

    /// Returns a keyword in the case in which the word was begun.
    fn keyword(keyword: &str, begun: &str) -> Self {
        let lower = !begun.is_empty() && begun.chars().all(|letter| !letter.is_uppercase());
        Self::new(if lower { keyword.to_lowercase() } else { keyword.to_owned() }, "", "").followed()
    }

    /// Adds a space: another word must follow.
    fn followed(mut self) -> Self {
        self.replacement.push(' ');
        self
    }
}

/// Returns columns, those of the same name once.
fn distinct<'a>(columns: impl Iterator<Item = &'a ColumnInfo>) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for column in columns {
        if found.iter().all(|other| other.replacement != column.name) {
            found.push(Candidate::column(column));
        }
    }
    found
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// === impl Assistant ===

impl Assistant {
    pub(super) fn new(known: Arc<Known>) -> Self {
        Self { known, files: FilenameCompleter::new(), columns: Vec::new() }
    }

    /// Returns the candidates at a position of a statement, and the length of the word that they complete.
    fn in_statement(&self, text: &str, position: usize) -> (usize, Vec<Candidate>) {
        let draft = Draft::read(text, position);
        let begun = draft.word.to_lowercase();
        let fits = |name: &str| name.to_lowercase().starts_with(&begun);
        let keywords = |words: &[&str]| -> Vec<Candidate> {
            words.iter().filter(|word| fits(word)).map(|word| Candidate::keyword(word, &draft.word)).collect()
        };
        let found = match &draft.place {
            Place::Text => Vec::new(),
            Place::Start => keywords(&STARTS),
            Place::Clause => keywords(&CLAUSES),
            Place::Relation => self.relations(&draft).into_iter().filter(|found| fits(&found.replacement)).collect(),
            Place::Expression { qualifier: Some(qualifier) } => {
                let called =
                    |named: &&Named| named.alias.as_ref().unwrap_or(&named.name).eq_ignore_ascii_case(qualifier);
                let named = draft.relations.iter().rev().find(called);
                match named.and_then(|named| self.known.relation(&named.name)) {
                    Some(relation) => distinct(relation.columns.iter().filter(|column| fits(&column.name))),
                    // A query of the statement has the columns of the relations within, as far as it renames none.
                    None => self.named_columns(&draft, fits),
                }
            }
            Place::Expression { qualifier: None } => {
                let mut found = self.columns_of(&draft, fits);
                let any = !begun.is_empty();
                if any || found.is_empty() {
                    let functions = self.known.functions.iter();
                    let functions = functions.filter(|function| function.kind != FunctionKind::Table);
                    let functions = functions.filter(|function| fits(&function.name) && (any || function.own));
                    found.extend(functions.map(Candidate::function));
                }
                if any {
                    found.extend(keywords(&WORDS));
                }
                found
            }
        };
        (draft.word.len(), found)
    }

    /// Returns what may be named in FROM.
    fn relations(&self, draft: &Draft) -> Vec<Candidate> {
        let own = draft.queries.iter().map(|name| Candidate::new(name, "query", "defined by WITH"));
        let relations = self.known.relations.iter();
        let relations = relations
            .map(|relation| Candidate::new(&relation.name, known::kind(relation), first_sentence(&relation.doc)));
        let functions = self.known.functions.iter().filter(|function| function.kind == FunctionKind::Table);
        own.chain(relations).chain(functions.map(Candidate::function)).collect()
    }

    /// Returns the columns of the relations that a statement names.
    fn named_columns(&self, draft: &Draft, fits: impl Fn(&str) -> bool) -> Vec<Candidate> {
        let named = draft.relations.iter().filter_map(|named| self.known.relation(&named.name));
        distinct(named.flat_map(|relation| &relation.columns).filter(|column| fits(&column.name)))
    }

    /// Returns the columns of the relations that a statement names, and the other names of these; of all relations, if it names
    /// none yet and a word is begun.
    fn columns_of(&self, draft: &Draft, fits: impl Fn(&str) -> bool) -> Vec<Candidate> {
        let names_none = draft.relations.iter().all(|named| self.known.relation(&named.name).is_none());
        let mut found = if names_none && !draft.word.is_empty() {
            let all = self.known.relations.iter().flat_map(|relation| &relation.columns);
            distinct(all.filter(|column| fits(&column.name)))
        } else {
            self.named_columns(draft, &fits)
        };
        let aliases = draft.relations.iter().filter_map(|named| named.alias.as_ref());
        if !draft.word.is_empty() {
            found.extend(aliases.filter(|alias| fits(alias)).map(|alias| Candidate::new(format!("{alias}."), "", "")));
        }
        found
    }

    /// Returns the candidates at the end of a command, and the length of the word that they complete.
    fn in_command(&self, line: &str) -> (usize, Vec<Candidate>) {
        let Some((name, rest)) = line.split_once(char::is_whitespace) else {
            let fits = |command: &&commands::Command| command.names.iter().any(|name| name.starts_with(line));
            let found = commands::ALL.iter().filter(fits).map(|command| {
                // Another name of the command is completed too.
                let name = command.names.iter().find(|name| name.starts_with(line)).copied().unwrap_or_default();
                let usage = format!("{name} {}", command.arguments).trim_end().to_owned();
                let found = Candidate { name: usage, ..Candidate::new(name, "", command.help) };
                if command.takes == Takes::Nothing { found } else { found.followed() }
            });
            return (line.len(), found.collect());
        };
        let Ok(command) = commands::find(name) else { return (0, Vec::new()) };
        let word = rest.rsplit(char::is_whitespace).next().unwrap_or(rest);
        let before = rest[..rest.len() - word.len()].trim();
        let first = before.is_empty();
        let all: Vec<Candidate> = match command.takes {
            Takes::Question if first => {
                let question = |question: &bellwether_queries::Question| {
                    Candidate::new(&question.name, "", crate::sql::questions::first_sentence(&question.doc)).followed()
                };
                self.known.questions.iter().map(question).collect()
            }
            Takes::Question => self.parameters(before, word),
            Takes::Relation if first => self
                .known
                .relations
                .iter()
                .map(|relation| Candidate::new(&relation.name, known::kind(relation), first_sentence(&relation.doc)))
                .collect(),
            Takes::Function if first => {
                let function = |function: &FunctionInfo| Candidate {
                    replacement: function.name.clone(),
                    ..Candidate::function(function)
                };
                self.known.functions.iter().map(function).collect()
            }
            Takes::Format if first => {
                let formats = <Format as clap::ValueEnum>::value_variants().iter().filter(|format| format.is_text());
                formats.map(|format| Candidate::new(format.name(), "", "")).collect()
            }
            Takes::Columns => self.columns.iter().map(|name| Candidate::new(name, "", "")).collect(),
            Takes::Command if first => {
                let each = commands::ALL.iter();
                each.map(|command| Candidate::new(command.names[0], "", command.help)).collect()
            }
            _ => Vec::new(),
        };
        let begun = word.to_lowercase();
        (word.len(), all.into_iter().filter(|found| found.replacement.to_lowercase().starts_with(&begun)).collect())
    }

    /// Returns the parameters of a question that have no value yet, or the values of the parameter that is being written.
    fn parameters(&self, before: &str, word: &str) -> Vec<Candidate> {
        let mut words = before.split_whitespace();
        let name = words.next().unwrap_or_default();
        let given: Vec<&str> = words.filter_map(|pair| pair.split_once('=')).map(|(name, _)| name).collect();
        let Some(question) = self.known.questions.iter().find(|question| question.name == name) else {
            return Vec::new();
        };
        if let Some((name, _)) = word.split_once('=') {
            let parameter = question.parameters.iter().find(|parameter| parameter.name == name);
            let values = parameter.and_then(|parameter| parameter.words());
            return values
                .into_iter()
                .flatten()
                .map(|value| Candidate::new(format!("{name}={value}"), "", ""))
                .collect();
        }
        let open = question.parameters.iter().filter(|parameter| !given.contains(&parameter.name.as_str()));
        open.map(|parameter| {
            let default = parameter.default.as_ref().map(|default| format!(" [default: {default}]"));
            let help = format!("{}{}", parameter.doc, default.unwrap_or_default());
            Candidate::new(format!("{}=", parameter.name), parameter.kind(), help)
        })
        .collect()
    }
}

/// Returns the line of a command, if the position is in one: a line that begins with a backslash, outside of texts.
pub(super) fn command_before(text: &str, position: usize) -> Option<&str> {
    let start = text[..position].rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..position].trim_start();
    (line.starts_with('\\') && ends_between_words(&text[..start])).then_some(line)
}

/// Returns the candidates as they are listed: one a line with its help, cut to the width of the terminal.
fn listed(candidates: Vec<Candidate>, width: usize) -> Vec<Pair> {
    // The list of the editor puts two spaces behind each candidate.
    let width = width.saturating_sub(2);
    let widest = |of: fn(&Candidate) -> &str| candidates.iter().map(|found| of(found).width()).max().unwrap_or(0);
    let most = (width as f64 * NAME_SHARE) as usize;
    let (names, kinds) = (widest(|found| &found.name).min(most), widest(|found| &found.kind).min(KIND));
    if kinds == 0 && widest(|found| &found.help) == 0 {
        return candidates
            .into_iter()
            .map(|found| Pair { display: found.name, replacement: found.replacement })
            .collect();
    }
    let pair = |found: Candidate| {
        let mut text = padded(&found.name, names);
        if kinds > 0 {
            text = format!("{text}  {}", padded(&found.kind, kinds));
        }
        let text = screen::cut(&format!("{text}  {}", one_line(&found.help)), width);
        Pair { display: padded(&text, width), replacement: found.replacement }
    };
    candidates.into_iter().map(pair).collect()
}

/// Returns a text of exactly a width.
fn padded(text: &str, width: usize) -> String {
    let text = screen::cut(text, width);
    let blank = " ".repeat(width.saturating_sub(text.width()));
    text + &blank
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let width = crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
        let (begun, found) = match command_before(line, position) {
            Some(command) => {
                let file = command
                    .split_once(' ')
                    .filter(|(name, _)| commands::find(name).is_ok_and(|command| command.takes == Takes::File));
                if file.is_some() {
                    return self.files.complete(line, position, context);
                }
                self.in_command(command)
            }
            None => self.in_statement(line, position),
        };
        Ok((position - begun, listed(found, width)))
    }
}

/// The arguments of a call that has just been opened. They are shown, and never inserted.
pub(super) struct Signature(String);

impl Hint for Signature {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = Signature;

    fn hint(&self, line: &str, position: usize, _: &Context<'_>) -> Option<Signature> {
        if position < line.len() || !line.ends_with('(') || command_before(line, position).is_some() {
            return None;
        }
        let call = Draft::read(line, position).call?;
        let function = self.known.functions.iter().find(|function| function.name == call)?;
        let syntax = one_line(&function.syntax);
        syntax.split_once('(').map(|(_, arguments)| Signature(arguments.to_owned()))
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }

    fn highlight_candidate<'c>(&self, candidate: &'c str, _: CompletionType) -> Cow<'c, str> {
        match candidate.split_once("  ") {
            Some((name, help)) => Cow::Owned(format!("{name}  \x1b[2m{help}\x1b[0m")),
            None => Cow::Borrowed(candidate),
        }
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let ended = text.trim().is_empty() || is_complete(text) || command_before(text, text.len()).is_some();
        Ok(if ended { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::prompt::known::tests::known;

    /// Returns the names that complete a text at the mark `|`.
    fn names(assistant: &Assistant, text: &str) -> Vec<String> {
        let position = text.find('|').expect("a mark");
        let text = text.replacen('|', "", 1);
        let (_, found) = match command_before(&text, position) {
            Some(command) => assistant.in_command(command),
            None => assistant.in_statement(&text, position),
        };
        found.into_iter().map(|found| found.replacement.trim_end().to_owned()).collect()
    }

    async fn assistant() -> Assistant {
        Assistant::new(Arc::new(known().await))
    }

    #[tokio::test]
    async fn the_candidates_follow_from_the_place() {
        let assistant = assistant().await;
        for (text, some, none) in [
            ("SELECT * FROM r|", &["runs", "rolling"][..], &["run_id", "replace("][..]),
            ("SELECT * FROM tasks_b|", &["tasks_between("], &[]),
            ("SELECT success_r| FROM rolling", &["success_rate", "success_rate_low"], &["success_rate_alert"]),
            ("SELECT | FROM rolling", &["task", "success_rate"], &["run_id", "SELECT"]),
            ("SELECT x.| FROM rolling JOIN runs x ON true", &["run_id"], &["success_rate", "date_trunc("]),
            ("WITH a AS (SELECT * FROM rolling) SELECT m.success_r| FROM a m", &["success_rate"], &["date_trunc("]),
            ("SELECT date_t|", &["date_trunc("], &[]),
            ("select * fr|", &["from"], &["FROM"]),
            ("SELECT 1 FROM runs WH|", &["WHERE"], &["window_start"]),
            ("WITH mine AS (SELECT 1) SELECT * FROM mi|", &["mine"], &[]),
            ("sel|", &["select"], &[]),
            ("SELECT 'ru|", &[], &["runs"]),
            // Earlier lines are part of the statement.
            ("SELECT *\nFROM rolling\nWHERE success_r|", &["success_rate"], &[]),
        ] {
            let names = names(&assistant, text);
            let has = |name: &&&str| names.iter().any(|other| other == **name);
            assert_eq!(some.iter().find(|name| !has(name)), None, "{text}: {names:?}");
            assert_eq!(none.iter().find(has), None, "{text}: {names:?}");
        }
    }

    #[tokio::test]
    async fn commands_complete_their_names_and_arguments() {
        let mut assistant = assistant().await;
        assistant.columns = vec!["window_start".to_owned(), "runs".to_owned()];
        assert_eq!(names(&assistant, "\\f|"), ["\\functions", "\\format"]);
        assert_eq!(names(&assistant, "\\format |"), ["table", "record", "csv", "json", "ndjson"]);
        assert_eq!(names(&assistant, "\\d roll|"), ["rolling_history", "rolling"]);
        assert_eq!(names(&assistant, "\\h date_tr|"), ["date_trunc"]);
        assert_eq!(names(&assistant, "\\chart r|"), ["runs"]);
        assert_eq!(names(&assistant, "\\ask failing|"), ["failing_tools"]);
        assert!(names(&assistant, "\\ask failing_tools |").contains(&"since=".to_owned()));
        assert_eq!(names(&assistant, "\\ask failing_tools since=1h si|"), [""; 0]);
        assert_eq!(names(&assistant, "SELECT 1\n\\|").len(), commands::ALL.len());
    }

    #[tokio::test]
    async fn a_list_of_candidates_shows_their_help_and_fits_the_terminal() {
        let assistant = assistant().await;
        for text in ["SELECT success FROM rolling", "SELECT d", "SELECT * FROM "] {
            let position = if text.contains("success") { 14 } else { text.len() };
            let (_, found) = assistant.in_statement(text, position);
            assert!(found.len() > 1, "{text}");
            for width in [40, 80, 200] {
                for pair in listed(found.clone(), width) {
                    assert_eq!(pair.display.width(), width - 2, "{}", pair.display);
                }
            }
        }
        let (_, found) = assistant.in_statement("SELECT success_rate FROM rolling", 19);
        let list = listed(found, 100);
        assert!(
            list[0].display.starts_with("success_rate ") && list[0].display.contains("double"),
            "{}",
            list[0].display
        );
        // Words without help are listed beside each other.
        assert!(listed(assistant.in_statement("", 0).1, 80).iter().all(|pair| !pair.display.ends_with(' ')));
    }

    #[tokio::test]
    async fn a_call_that_was_just_opened_shows_its_arguments() {
        let assistant = assistant().await;
        let history = rustyline::history::DefaultHistory::new();
        let context = Context::new(&history);
        let hint = |line: &str| assistant.hint(line, line.len(), &context).map(|hint| hint.0);
        assert_eq!(hint("SELECT date_trunc(").as_deref(), Some("precision, expression)"));
        assert_eq!(hint("SELECT date_trunc('hour'"), None);
        assert_eq!(hint("SELECT 1 IN ("), None);
    }
}
