//! Splits SQL text into statements, parses one, and refuses it unless it only reads.

use std::ops::ControlFlow;

use bellwether_base::{Error, Result};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Ident, Statement as Sql, Value, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// The hint of a refusal.
const ALLOWED: &str =
    "the tables are read-only; SELECT, EXPLAIN, DESCRIBE, SHOW TABLES, SHOW COLUMNS and SHOW FUNCTIONS are allowed";

/// Depth to which the parser follows nested parentheses and expressions.
const RECURSION_LIMIT: usize = 50;

/// Most words that may hang together: a chain such as `1 + 1 + …` nests as deep as it is long, and planning and dropping it takes
/// stack for each level. Measured: 3000 levels exceed the 2 MiB of a thread.
const MOST_CHAINED: usize = 2000;

/// Splits SQL text at its semicolons into statements, each as written. Text with comments only is no statement.
///
/// # Errors
/// `Config` if the text cannot be split into words, as with an unclosed quote.
pub fn split(text: &str) -> Result<Vec<String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .with_unescape(false)
        .tokenize()
        .map_err(|source| Error::config(format!("the SQL text is incomplete: {source}")))?;
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

/// Returns a text as a SQL literal. Only a quotation mark means anything in one.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Parses exactly one statement and refuses it unless it only reads.
pub(crate) fn parse(text: &str) -> Result<Statement> {
    refuse_chains(text)?;
    let dialect = GenericDialect {};
    let mut statements = DFParserBuilder::new(text)
        .with_dialect(&dialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|source| crate::explain::explain(source, &[]))?;
    match (statements.pop_front(), statements.len()) {
        (None, _) => Err(Error::config("the SQL text has no statement").with_hint("try SELECT * FROM rolling;")),
        (Some(statement), 0) => match refusal(&statement) {
            None => Ok(rewritten(statement)),
            Some(what) => Err(Error::config(format!("`{what}` is refused")).with_hint(ALLOWED)),
        },
        (Some(_), _) => {
            Err(Error::config("the SQL text has more than one statement").with_hint("run them one at a time"))
        }
    }
}

/// Refuses a statement in which too many words hang together. A comma begins another chain, except in `FROM`: it joins there.
fn refuse_chains(text: &str) -> Result<()> {
    // The parser reports text that cannot be split into words.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else { return Ok(()) };
    // Words of the chain at each depth of parentheses, and whether the depth is in a FROM clause.
    let mut open = vec![(0_usize, false)];
    let mut chained = 0;
    for token in tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => open.push((0, false)),
            Token::RParen | Token::RBracket | Token::RBrace if open.len() > 1 => {
                chained -= open.pop().map_or(0, |(words, _)| words);
            }
            token => {
                let Some((words, in_from)) = open.last_mut() else { return Ok(()) };
                match &token {
                    Token::Comma if !*in_from => {
                        chained -= std::mem::take(words);
                        continue;
                    }
                    Token::Word(word) if word.keyword == Keyword::FROM => *in_from = true,
                    Token::Word(word) if word.keyword == Keyword::SELECT || word.keyword == Keyword::WHERE => {
                        *in_from = false;
                    }
                    _ => {}
                }
                *words += 1;
                chained += 1;
            }
        }
        if chained > MOST_CHAINED {
            return Err(Error::config(format!("more than {MOST_CHAINED} words of the statement hang together"))
                .with_hint(
                    "shorten the expression: write a IN (1, 2, ...) for a = 1 OR a = 2 OR ..., or join VALUES",
                ));
        }
    }
    Ok(())
}

/// A request for the columns of a relation.
pub(crate) struct Described {
    pub(crate) name: String,
    /// True for `SHOW COLUMNS`, which names the relation in its answer as well.
    pub(crate) shown: bool,
}

/// Returns the relation that a `DESCRIBE` or `SHOW COLUMNS` statement describes; `None` for any other statement.
pub(crate) fn described(statement: &Statement) -> Option<Described> {
    let Statement::Statement(sql) = statement else { return None };
    let (name, shown) = match sql.as_ref() {
        Sql::ExplainTable { table_name, .. } => (table_name, false),
        Sql::ShowColumns { show_options, extended: false, full: false } if show_options.filter_position.is_none() => {
            (show_options.show_in.as_ref()?.parent_name.as_ref()?, true)
        }
        _ => return None,
    };
    let ident = match name.0.as_slice() {
        [one] => one.as_ident()?,
        _ => return None,
    };
    Some(Described { name: written(ident), shown })
}

/// Returns a name as DataFusion resolves it: in lower case unless quoted.
fn written(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Rewrites expressions that DataFusion does not accept: `tool_calls[1].name` becomes `tool_calls[1]['name']`, and `->` and
/// `->>` bind as in PostgreSQL, while the parser reads `a ->> 'b' = 'c'` as `a ->> ('b' = 'c')`.
fn rewritten(mut statement: Statement) -> Statement {
    let inner = match &mut statement {
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(sql) => sql,
            _ => return statement,
        },
        Statement::Statement(sql) => sql,
        _ => return statement,
    };
    let walked: ControlFlow<()> = visit_expressions_mut(inner.as_mut(), |expr| {
        if let Expr::CompoundFieldAccess { access_chain, .. } = expr {
            // Names before the first subscript are of a table and its columns.
            let elements = access_chain.iter_mut().skip_while(|access| matches!(access, AccessExpr::Dot(_)));
            for access in elements {
                if let AccessExpr::Dot(Expr::Identifier(ident)) = access {
                    *access = AccessExpr::Dot(Expr::value(Value::SingleQuotedString(written(ident))));
                }
            }
        }
        if is_arrow(expr) {
            tighten(expr);
        }
        ControlFlow::Continue(())
    });
    debug_assert!(walked.is_continue(), "the visitor never breaks");
    statement
}

fn is_arrow(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::Arrow | BinaryOperator::LongArrow, .. })
}

/// Moves expressions that bind less tightly than an arrow out of its operands.
fn tighten(expr: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = expr else { return };
    let arrow =
        |left: Expr, right: Expr| Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) };
    let nothing = || Expr::value(Value::Null);
    if let Some(place) = last_operand(left) {
        let inner = std::mem::replace(place, nothing());
        *place = arrow(inner, std::mem::replace(right, nothing()));
        tighten(place);
        *expr = std::mem::replace(left, nothing());
    } else if let Some(place) = first_operand(right) {
        let key = std::mem::replace(place, nothing());
        *place = arrow(std::mem::replace(left, nothing()), key);
        *expr = std::mem::replace(right, nothing());
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq, Spaceship};
    matches!(op, Eq | NotEq | Gt | GtEq | Lt | LtEq | Spaceship)
}

/// Returns the first operand of an expression that binds less tightly than an arrow.
fn first_operand(expr: &mut Expr) -> Option<&mut Expr> {
    let first = match expr {
        Expr::BinaryOp { left, op, .. } if is_comparison(op) || *op == BinaryOperator::StringConcat => left,
        Expr::IsNull(of)
        | Expr::IsNotNull(of)
        | Expr::IsTrue(of)
        | Expr::IsNotTrue(of)
        | Expr::IsFalse(of)
        | Expr::IsNotFalse(of)
        | Expr::IsDistinctFrom(of, _)
        | Expr::IsNotDistinctFrom(of, _)
        | Expr::InList { expr: of, .. }
        | Expr::InSubquery { expr: of, .. }
        | Expr::Between { expr: of, .. }
        | Expr::Like { expr: of, .. }
        | Expr::ILike { expr: of, .. }
        | Expr::SimilarTo { expr: of, .. } => of,
        _ => return None,
    };
    Some(operand(first, first_operand))
}

/// Returns the last operand of such an expression.
fn last_operand(expr: &mut Expr) -> Option<&mut Expr> {
    let last = match expr {
        Expr::BinaryOp { op, right, .. } if is_comparison(op) => right,
        Expr::IsDistinctFrom(_, of) | Expr::IsNotDistinctFrom(_, of) => of,
        Expr::Between { high: of, .. } | Expr::Like { pattern: of, .. } | Expr::ILike { pattern: of, .. } => of,
        _ => return None,
    };
    Some(operand(last, last_operand))
}

/// Returns the innermost operand, if the operand is such an expression itself.
fn operand(expr: &mut Expr, within: fn(&mut Expr) -> Option<&mut Expr>) -> &mut Expr {
    if within(expr).is_some() {
        // Computed twice, because the borrow checker does not release the first borrow when it is `None`.
        if let Some(inner) = within(expr) {
            return inner;
        }
        unreachable!("the expression is the same");
    }
    expr
}

/// Returns the name of a statement that may write, change the session, or read outside the lake.
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

/// Returns the leading upper-case words of a statement, at most three: `CREATE OR REPLACE`, `INSERT INTO`, `SET`.
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
    fn a_quoted_text_stays_one_literal() {
        assert_eq!(quoted("it's'; DROP TABLE events --"), "'it''s''; DROP TABLE events --'");
    }

    #[test]
    fn statements_that_only_read_are_allowed() {
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
    fn a_chain_of_words_that_nests_too_deep_is_refused() {
        let many = |word: &str, between: &str, times: usize| vec![word; times].join(between);
        for text in [
            format!("SELECT {}", many("1", " + ", 3000)),
            format!("SELECT 1{}", "::int".repeat(3000)),
            many("SELECT 1", " UNION ALL ", 3000),
            format!("SELECT 1 WHERE {}", many("a IN (1, 2)", " OR ", 1000)),
            format!("SELECT {}", many("[1, 2]", " || ", 3000)),
            format!("SELECT 1 FROM {}", many("t", ", ", 3000)),
        ] {
            let error = parse(&text).expect_err("too deep");
            assert!(error.message().contains("hang together"), "{}: {}", &text[..40], error.message());
        }
        for text in [
            format!("SELECT 1 WHERE a IN ({})", many("1", ", ", 10_000)),
            format!("SELECT {} FROM t", many("a + 1", ", ", 5000)),
            format!("VALUES {}", many("(1, 'a')", ", ", 5000)),
            format!("SELECT {}", many("1", " + ", 500)),
        ] {
            parse(&text).unwrap_or_else(|error| panic!("{}: {}", &text[..40], error.chain()));
        }
    }

    #[test]
    fn a_field_of_an_element_is_named_with_a_dot_or_in_brackets() {
        for (text, same) in [
            ("SELECT calls[1].name FROM t", "SELECT calls[1].'name' FROM t"),
            ("SELECT t.calls[1].Name FROM t", "SELECT t.calls[1].'name' FROM t"),
            ("SELECT 1 FROM t WHERE calls[1].\"Name\" = 'a'", "SELECT 1 FROM t WHERE calls[1].'Name' = 'a'"),
            ("EXPLAIN SELECT calls[1].a[2].b FROM t", "EXPLAIN SELECT calls[1].'a'[2].'b' FROM t"),
            ("SELECT t.call.name FROM t", "SELECT t.call.name FROM t"),
        ] {
            assert_eq!(parse(text).expect("parses").to_string(), same);
        }
    }

    #[test]
    fn arrows_bind_as_in_postgres() {
        for (text, same) in [
            ("a ->> 'b' = 'c'", "(a ->> 'b') = 'c'"),
            ("'c' = a ->> 'b'", "'c' = (a ->> 'b')"),
            ("a ->> 'b' = c ->> 'd'", "(a ->> 'b') = (c ->> 'd')"),
            ("a -> 'b' -> 'c' ->> 'd' <> 'e'", "(((a -> 'b') -> 'c') ->> 'd') <> 'e'"),
            ("a ->> 'b' IS NOT NULL", "(a ->> 'b') IS NOT NULL"),
            ("a ->> 'b' IN ('c', 'd')", "(a ->> 'b') IN ('c', 'd')"),
            ("a ->> 'b' LIKE 'c%'", "(a ->> 'b') LIKE 'c%'"),
            ("a ->> 'b' BETWEEN 'c' AND 'd'", "(a ->> 'b') BETWEEN 'c' AND 'd'"),
            ("a ->> 'b' || 'c' = 'd'", "((a ->> 'b') || 'c') = 'd'"),
            ("a ->> 'b' = 'c' AND d ->> 'e' > 'f' OR g", "(a ->> 'b') = 'c' AND (d ->> 'e') > 'f' OR g"),
            ("(a ->> 'b')::int > 1", "(a ->> 'b')::int > 1"),
            ("NOT a ->> 'b' = 'c'", "NOT (a ->> 'b') = 'c'"),
            ("a ->> ('b' = 'c')", "a ->> ('b' = 'c')"),
        ] {
            // Compares trees, because parentheses do not matter.
            let tree = |text: &str| {
                let mut statement = parse(&format!("SELECT {text} FROM t")).expect("parses");
                if let Statement::Statement(sql) = &mut statement {
                    let walked: ControlFlow<()> = visit_expressions_mut(sql.as_mut(), |expr| {
                        if let Expr::Nested(inner) = expr {
                            *expr = std::mem::replace(inner, Expr::value(Value::Null));
                        }
                        ControlFlow::Continue(())
                    });
                    assert!(walked.is_continue());
                }
                format!("{statement:?}")
                    .split("Location(")
                    .map(|part| part.split_once(')').map_or(part, |(_, rest)| rest).to_owned())
                    .collect::<String>()
            };
            assert_eq!(tree(text), tree(same), "{text}");
        }
    }

    #[test]
    fn a_request_for_columns_names_its_relation() {
        let of = |text: &str| described(&parse(text).expect("parses")).map(|found| (found.name, found.shown));
        assert_eq!(of("DESCRIBE Runs"), Some(("runs".to_owned(), false)));
        assert_eq!(of("SHOW COLUMNS FROM runs"), Some(("runs".to_owned(), true)));
        assert_eq!(of("DESCRIBE information_schema.columns"), None);
        assert_eq!(of("SELECT 1"), None);
    }

    #[test]
    fn statements_that_write_are_refused_with_a_hint() {
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
