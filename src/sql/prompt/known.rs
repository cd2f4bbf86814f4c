//! The names that the prompt knows: tables, views, functions and saved questions, with their documentation.

use std::path::Path;

use bellwether_base::Result;
use bellwether_queries::{FunctionInfo, FunctionKind, Question, Session, TableInfo, TableKind, nearest};

use unicode_width::UnicodeWidthStr;

use crate::exit;
use crate::screen;
use crate::sql::questions;

/// Narrowest room for a description; below it, descriptions begin on a line of their own.
const NARROW: usize = 24;

/// Widest type of a column that is shown as it is.
const KIND: usize = 24;

/// Everything with a name.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) relations: Vec<TableInfo>,
    pub(super) functions: Vec<FunctionInfo>,
    pub(super) questions: Vec<Question>,
}

// === impl Known ===

impl Known {
    /// Asks a session. A question of the user that cannot be read is reported, and the others are known.
    ///
    /// # Errors
    /// `Bug` if a view cannot be planned.
    pub(super) async fn of(session: &Session, folder: Option<&Path>) -> Result<Self> {
        let relations = [session.tables().await?, session.views().await?].concat();
        let questions = match questions::all(folder) {
            Ok(questions) => questions,
            Err(error) => {
                exit::report(&error);
                questions::all(None)?
            }
        };
        Ok(Self { relations, functions: session.functions().to_vec(), questions })
    }

    /// Returns the table or view with a name.
    pub(super) fn relation(&self, name: &str) -> Option<&TableInfo> {
        self.relations.iter().find(|relation| relation.name == name)
    }

    /// Lists tables and views, or describes one; `width` is that of the terminal.
    pub(super) fn describe(&self, name: &str, width: usize) -> String {
        let name = name.to_lowercase();
        if name.is_empty() {
            let rows = self.relations.iter().map(|relation| {
                [relation.name.clone(), kind(relation).to_owned(), first_sentence(&relation.doc).to_owned()]
            });
            return format!("{}\n\\d NAME lists the columns of one.", listing(&rows.collect::<Vec<_>>(), width));
        }
        let Some(relation) = self.relation(&name) else {
            if self.functions.iter().any(|function| function.kind == FunctionKind::Table && function.name == name) {
                return self.function(&name, width);
            }
            let names = self.relations.iter().map(|relation| relation.name.as_str());
            return unknown("table or view", &name, names, "\\d lists all");
        };
        let columns = relation.columns.iter();
        let rows = columns.map(|column| {
            let (kind, fields) = short_kind(&column.kind);
            [column.name.clone(), kind, format!("{}{fields}", column.doc)]
        });
        let mut lines = screen::wrap(&format!("{} {}: {}", kind(relation), relation.name, relation.doc), width);
        lines.push(listing(&rows.collect::<Vec<_>>(), width));
        if let Some(example) = &relation.example {
            lines.push(format!("example:\n  {example};"));
        }
        lines.join("\n")
    }

    /// Lists functions, or documents one; `width` is that of the terminal.
    pub(super) fn function(&self, name: &str, width: usize) -> String {
        let name = name.trim_end_matches(['(', ')']).to_lowercase();
        if name.is_empty() {
            let own = self.functions.iter().filter(|function| function.own);
            let more = "\\h NAME documents one. All functions of Apache DataFusion are available too.";
            return format!("{}\n{}", listing(&summaries(own), width), screen::wrap(more, width).join("\n"));
        }
        let same: Vec<&FunctionInfo> = self.functions.iter().filter(|function| function.name == name).collect();
        if !same.is_empty() {
            return same.into_iter().map(|function| document(function, width)).collect::<Vec<_>>().join("\n\n");
        }
        let with_part: Vec<[String; 3]> =
            summaries(self.functions.iter().filter(|function| function.name.contains(&name)));
        if with_part.is_empty() {
            let names = self.functions.iter().map(|function| function.name.as_str());
            return unknown("function", &name, names, "\\h lists Bellwether's own");
        }
        format!("There is no function `{name}`; these have it in their names:\n{}", listing(&with_part, width))
    }

    /// Lists the saved questions; `width` is that of the terminal.
    pub(super) fn list_questions(&self, width: usize) -> String {
        let rows: Vec<[String; 3]> = self
            .questions
            .iter()
            .map(|question| {
                let names: Vec<String> = question
                    .parameters
                    .iter()
                    .map(|parameter| {
                        let name = &parameter.name;
                        if parameter.default.is_some() { format!("[{name}=]") } else { format!("{name}=") }
                    })
                    .collect();
                let doc = questions::first_sentence(&question.doc);
                [question.name.clone(), String::new(), format!("{doc} {}", names.join(" "))]
            })
            .collect();
        format!("{}\n\\ask NAME PARAM=VALUE asks one; Tab completes both.", listing(&rows, width))
    }
}

/// Returns what a relation is, in a word.
pub(super) fn kind(relation: &TableInfo) -> &'static str {
    match relation.kind {
        TableKind::Table => "table",
        TableKind::View => "view",
    }
}

/// Splits a type that is too long for a column, as a list of records is, into a short one and its fields.
fn short_kind(kind: &str) -> (String, String) {
    match kind.split_once('(') {
        Some((head, fields)) if kind.width() > KIND => {
            (format!("{}records", head), format!("; fields: {}", fields.trim_end_matches(')')))
        }
        _ => (kind.to_owned(), String::new()),
    }
}

/// Returns the first sentence of a documentation.
pub(super) fn first_sentence(doc: &str) -> &str {
    let line = doc.split("\n\n").next().unwrap_or(doc);
    let ends =
        |(place, _): &(usize, &str)| !["al", "e.g", "i.e", "cf"].iter().any(|word| line[..*place].ends_with(word));
    line.match_indices(". ").find(ends).map_or(line, |(end, _)| &line[..=end])
}

fn summaries<'a>(functions: impl Iterator<Item = &'a FunctionInfo>) -> Vec<[String; 3]> {
    let row = |function: &FunctionInfo| {
        let kind = if function.kind == FunctionKind::Scalar { "" } else { function.kind.name() };
        [function.name.clone(), kind.to_owned(), first_sentence(&function.doc).to_owned()]
    };
    functions.map(row).collect()
}

/// Documents a function.
fn document(function: &FunctionInfo, width: usize) -> String {
    let mut lines = vec![format!("{}   ({} function)", function.syntax, function.kind.name())];
    lines.extend(screen::wrap(&function.doc, width.saturating_sub(2)).into_iter().map(|line| format!("  {line}")));
    let arguments = function.arguments.iter();
    let rows: Vec<[String; 3]> = arguments.map(|(name, doc)| [name.clone(), String::new(), doc.clone()]).collect();
    if !rows.is_empty() {
        lines.push("arguments:".to_owned());
        lines.push(listing(&rows, width));
    }
    if let Some(example) = &function.example {
        lines.push("example:".to_owned());
        let example = example.trim().trim_start_matches("```sql").trim_end_matches("```").trim();
        lines.extend(example.lines().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}

fn unknown<'a>(what: &str, name: &str, names: impl Iterator<Item = &'a str>, otherwise: &str) -> String {
    match nearest(name, names) {
        Some(near) => format!("there is no {what} `{name}`; did you mean `{near}`?"),
        None => format!("there is no {what} `{name}`; {otherwise}"),
    }
}

/// Lists names, kinds and descriptions in columns; descriptions are wrapped to the width.
fn listing(rows: &[[String; 3]], width: usize) -> String {
    let widest = |place: usize| rows.iter().map(|row| row[place].chars().count()).max().unwrap_or(0);
    let (names, kinds) = (widest(0), widest(1));
    let indent = 2 + names + if kinds > 0 { kinds + 2 } else { 0 } + 2;
    let room = width.saturating_sub(indent);
    let mut lines = Vec::new();
    for [name, kind, doc] in rows {
        let mut head = format!("  {name:<names$}");
        if kinds > 0 {
            head.push_str(&format!("  {kind:<kinds$}"));
        }
        if room >= NARROW {
            let mut docs = screen::wrap(doc, room).into_iter();
            lines.push(format!("{head}  {}", docs.next().unwrap_or_default()).trim_end().to_owned());
            lines.extend(docs.map(|line| format!("{:indent$}{line}", "").trim_end().to_owned()));
        } else {
            lines.push(head.trim_end().to_owned());
            let docs = screen::wrap(doc, width.saturating_sub(6)).into_iter().filter(|line| !line.is_empty());
            lines.extend(docs.map(|line| format!("      {line}")));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use bellwether_queries::SessionSettings;

    /// What a session over empty tables knows.
    pub(in crate::sql::prompt) async fn known() -> Known {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        Known::of(&session, None).await.expect("is known")
    }

    #[tokio::test]
    async fn what_is_listed_fits_the_terminal() {
        let known = known().await;
        for width in [60, 80, 120] {
            for text in [
                known.describe("", width),
                known.describe("runs", width),
                known.function("", width),
                known.list_questions(width),
            ] {
                // Examples are statements, which are not wrapped.
                for line in text.lines().take_while(|line| *line != "example:") {
                    assert!(line.width() <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn an_abbreviation_ends_no_sentence() {
        assert_eq!(first_sentence("As Smith et al. say. More."), "As Smith et al. say.");
        assert_eq!(first_sentence("One sentence"), "One sentence");
    }

    #[tokio::test]
    async fn one_function_is_documented_with_an_example() {
        let known = known().await;
        let own: Vec<&FunctionInfo> = known.functions.iter().filter(|function| function.own).collect();
        assert!(own.len() > 20);
        for function in own {
            let text = known.function(&function.name.to_uppercase(), 80);
            assert!(text.starts_with(&function.syntax), "{text}");
            assert!(text.contains("example:\n  SELECT") || text.contains("example:\n  WITH"), "{text}");
        }
        assert!(known.function("date_trunc", 80).contains("arguments:\n  precision"));
    }

    #[tokio::test]
    async fn a_name_that_is_not_known_suggests_others() {
        let known = known().await;
        assert!(known.describe("rollin", 80).contains("did you mean `rolling`?"));
        assert!(
            known.describe("tasks_between", 80).starts_with("tasks_between("),
            "a table function is a relation too"
        );
        assert!(known.describe("RUNS", 80).starts_with("view runs: "));
        assert!(known.function("date_trunk", 80).contains("did you mean `date_trunc`?"));
        assert!(
            known.function("wilson", 80).contains("these have it in their names"),
            "{}",
            known.function("wilson", 80)
        );
        assert!(known.function("zzzzzzzz", 80).contains("\\h lists"));
    }
}
