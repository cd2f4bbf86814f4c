//! What a statement is, and whether a read-only session may run it.

use bellwether_lake::{Error, Result};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// What is allowed, for the hint of a refusal.
const ALLOWED: &str =
    "tables are read-only here: SELECT, EXPLAIN, DESCRIBE, SHOW TABLES, SHOW COLUMNS and SHOW FUNCTIONS are allowed";

/// Depth of nested parentheses and expressions that the parser follows.
const RECURSION_LIMIT: usize = 50;

/// Splits SQL text at its semicolons into statements, each as written. Comments alone are no statement.
///
/// # Errors
/// `Config` where the text cannot be split into words, as with a quote left open.
pub fn split(text: &str) -> Result<Vec<String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .with_unescape(false)
        .tokenize()
        .map_err(|source| Error::config(format!("the SQL text is not complete: {source}")))?;
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut has_words = false;
    for token in tokens {
        match token {
            Token::SemiColon => {
                if has_words {
                    statements.push(current.trim().to_owned());
                }
                current.clear();
                has_words = false;
            }
            Token::Whitespace(space) => current.push_str(&space.to_string()),
            other => {
                has_words = true;
                current.push_str(&other.to_string());
            }
        }
    }
    if has_words {
        statements.push(current.trim().to_owned());
    }
    Ok(statements)
}

/// Parses exactly one statement and refuses it unless it only reads.
pub(crate) fn parse(text: &str) -> Result<Statement> {
    let dialect = GenericDialect {};
    let mut statements = DFParserBuilder::new(text)
        .with_dialect(&dialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|source| crate::explain::explain(source, &[]))?;
    match (statements.pop_front(), statements.len()) {
        (None, _) => Err(Error::config("there is no SQL statement").with_hint("try SELECT * FROM rolling;")),
        (Some(statement), 0) => match refusal(&statement) {
            None => Ok(statement),
            Some(what) => Err(Error::config(format!("`{what}` is refused")).with_hint(ALLOWED)),
        },
        (Some(_), _) => Err(Error::config("there is more than one SQL statement").with_hint("run them one at a time")),
    }
}

/// The name of a statement that may write, change the session, or read outside the lake.
fn refusal(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Explain(explain) => refusal(&explain.statement),
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(_)
            | Sql::ShowTables { .. }
            | Sql::ShowColumns { .. }
            | Sql::ShowFunctions { .. }
            | Sql::ExplainTable { .. } => None,
            Sql::Explain { statement, .. } => refusal(&Statement::Statement(statement.clone())),
            other => Some(first_words(&other.to_string())),
        },
        Statement::CreateExternalTable(_) => Some("CREATE EXTERNAL TABLE".to_owned()),
        Statement::CopyTo(_) => Some("COPY".to_owned()),
        Statement::Reset(_) => Some("RESET".to_owned()),
    }
}

/// The leading upper-case words of a statement, at most three: `CREATE OR REPLACE`, `INSERT INTO`, `SET`.
fn first_words(text: &str) -> String {
    let words: Vec<&str> = text
        .split_whitespace()
        .take_while(|word| word.chars().all(|letter| letter.is_ascii_uppercase()))
        .take(3)
        .collect();
    if words.is_empty() { text.chars().take(20).collect() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_inside_quotes_and_comments_do_not_split() {
        let text = "SELECT ';' AS a; -- one; two\nSELECT \"x;y\" FROM t /* ; */;;\n-- nothing";
        assert_eq!(split(text).expect("splits"), ["SELECT ';' AS a", "-- one; two\nSELECT \"x;y\" FROM t /* ; */"]);
        assert_eq!(split("SELECT 'it''s'").expect("splits"), ["SELECT 'it''s'"]);
        assert!(split("SELECT 'open").is_err());
    }

    #[test]
    fn whatever_only_reads_is_allowed() {
        for text in [
            "SELECT 1",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM runs",
            "SHOW FUNCTIONS",
            "DESCRIBE runs",
        ] {
            parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.chain()));
        }
    }

    #[test]
    fn whatever_writes_is_refused_with_what_is_allowed() {
        for (text, name) in [
            ("CREATE TABLE a AS SELECT 1", "CREATE TABLE"),
            ("CREATE EXTERNAL TABLE a STORED AS PARQUET LOCATION '/etc'", "CREATE EXTERNAL TABLE"),
            ("CREATE VIEW a AS SELECT 1", "CREATE VIEW"),
            ("DROP TABLE events", "DROP TABLE"),
            ("INSERT INTO events VALUES (1)", "INSERT INTO"),
            ("DELETE FROM events", "DELETE FROM"),
            ("UPDATE events SET a = 1", "UPDATE"),
            ("COPY events TO 'x.csv'", "COPY"),
            ("SET datafusion.execution.batch_size = 1", "SET"),
            ("EXPLAIN ANALYZE INSERT INTO events VALUES (1)", "INSERT INTO"),
            ("EXPLAIN COPY events TO 'x.csv'", "COPY"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.message().contains(name), "{text}: {error}");
            assert_eq!(error.hint(), Some(ALLOWED), "{text}");
        }
        assert!(parse("SELECT 1; SELECT 2").is_err());
    }
}
