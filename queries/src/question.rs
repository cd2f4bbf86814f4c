//! Saved questions: documented queries with typed parameters, one SQL file each.
//!
//! The first comment of a file documents the question. Its lines of the form `-- param NAME KIND = DEFAULT: MEANING` declare the
//! parameters that the query names as `$NAME`; `-- example: --param NAME=VALUE` shows a call. A value becomes a literal of its kind
//! and never SQL text: a parameter is one word of the query, which is replaced.

mod parameter;

use std::collections::BTreeMap;

use bellwether_base::{Error, Result};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

pub use parameter::{Parameter, since};

use crate::statement::split;

/// A saved question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name to ask it by.
    pub name: String,
    /// The question, and what the answer says.
    pub doc: String,
    /// Parameters, in the order of the file.
    pub parameters: Vec<Parameter>,
    /// Arguments of an example.
    pub example: Option<String>,
    sql: String,
}

/// Files of the questions, in the order of the reference.
const FILES: &[(&str, &str)] = &[
    ("weekly_quality_review", include_str!("question/weekly_quality_review.sql")),
    ("changes_of_week", include_str!("question/changes_of_week.sql")),
    ("cost_with_escalations", include_str!("question/cost_with_escalations.sql")),
    ("schema_breaking_fields", include_str!("question/schema_breaking_fields.sql")),
    ("failing_tools", include_str!("question/failing_tools.sql")),
    ("stale_documents", include_str!("question/stale_documents.sql")),
    ("unapproved_actions", include_str!("question/unapproved_actions.sql")),
    ("waiting_for_verdict", include_str!("question/waiting_for_verdict.sql")),
    ("judge_disagreements", include_str!("question/judge_disagreements.sql")),
];

/// Returns the questions that the program brings along, in the order of the reference.
///
/// # Errors
/// `Bug` if one of their files is malformed.
pub fn questions() -> Result<Vec<Question>> {
    let parsed = |(name, text): &(&str, &str)| {
        Question::parse(name, text).map_err(|error| Error::bug("a saved question is malformed").with_source(error))
    };
    FILES.iter().map(parsed).collect()
}

// === impl Question ===

impl Question {
    /// Reads the file of a question.
    ///
    /// # Errors
    /// `Config` if a line of its comment is malformed, if the query names other parameters than those declared, or if there is not
    /// exactly one statement.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let (mut doc, mut parameters, mut example) = (Vec::new(), Vec::<Parameter>::new(), None);
        for line in text.lines().map_while(|line| line.strip_prefix("--")).map(str::trim) {
            if let Some(declaration) = line.strip_prefix("param ") {
                let parameter = Parameter::parse(declaration)?;
                if parameters.iter().any(|known| known.name == parameter.name) {
                    return Err(Error::config(format!("parameter `{}` is declared twice", parameter.name)));
                }
                parameters.push(parameter);
            } else if let Some(arguments) = line.strip_prefix("example:") {
                example = Some(arguments.trim().to_owned());
            } else {
                doc.push(line);
            }
        }
        if doc.is_empty() {
            return Err(Error::config("the question has no documentation")
                .with_hint("begin the file with a comment: -- Which tool fails?"));
        }
        let sql = text.lines().skip_while(|line| line.starts_with("--")).collect::<Vec<_>>().join("\n");
        let statements = split(&sql)?;
        let [sql] = <[String; 1]>::try_from(statements).map_err(|statements| {
            Error::config(format!("a question is one statement, and the file has {}", statements.len()))
        })?;
        let question = Self { name: name.to_owned(), doc: doc.join(" "), parameters, example, sql };
        question.check()?;
        Ok(question)
    }

    /// Checks that the query names the declared parameters, all of them and no others.
    fn check(&self) -> Result<()> {
        let mut named = Vec::new();
        self.with_each(|name| {
            named.push(name.to_owned());
            Ok(String::new())
        })?;
        if let Some(name) = named.iter().find(|name| self.parameters.iter().all(|known| known.name != **name)) {
            return Err(Error::config(format!("parameter `${name}` is not declared"))
                .with_hint(format!("declare it in the first comment: -- param {name} text = any: MEANING")));
        }
        match self.parameters.iter().find(|parameter| !named.contains(&parameter.name)) {
            None => Ok(()),
            Some(unused) => Err(Error::config(format!("the query does not name parameter `${}`", unused.name))
                .with_hint("remove its declaration")),
        }
    }

    /// Returns the query with values in place of its parameters; `now_micros` is the time from which durations count back.
    ///
    /// # Errors
    /// `Config` if a value is missing, has no parameter, or is not of its kind.
    pub fn sql(&self, values: &BTreeMap<String, String>, now_micros: i64) -> Result<String> {
        if let Some(name) = values.keys().find(|name| self.parameters.iter().all(|known| known.name != **name)) {
            let names: Vec<&str> = self.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
            let hint = match names.as_slice() {
                [] => "it has no parameters".to_owned(),
                names => format!("its parameters are {}", names.join(", ")),
            };
            return Err(Error::config(format!("question `{}` has no parameter `{name}`", self.name)).with_hint(hint));
        }
        let literals: BTreeMap<&str, String> = self
            .parameters
            .iter()
            .map(|parameter| {
                let value = values.get(&parameter.name).map(String::as_str);
                Ok((parameter.name.as_str(), parameter.literal(value, now_micros)?))
            })
            .collect::<Result<_>>()?;
        self.with_each(|name| {
            literals.get(name).cloned().ok_or_else(|| Error::bug(format!("parameter `${name}` is not declared")))
        })
    }

    /// Returns the query with another text in place of each parameter.
    fn with_each(&self, mut text: impl FnMut(&str) -> Result<String>) -> Result<String> {
        let tokens = Tokenizer::new(&GenericDialect {}, &self.sql)
            .with_unescape(false)
            .tokenize()
            .map_err(|source| Error::config(format!("the SQL text is incomplete: {source}")))?;
        tokens
            .into_iter()
            .map(|token| match &token {
                Token::Placeholder(name) => text(name.trim_start_matches('$')),
                other => Ok(other.to_string()),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
