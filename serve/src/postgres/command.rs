//! Statements about the connection rather than the tables: transactions, settings, and prepared statements.
//!
//! Each statement sees the newest tables, inside a transaction as outside, and none writes, so that a transaction is but a state that
//! is reported. A setting that would change the form of answers is refused unless it asks for the form that they have.

use super::failure::Failure;

/// The settings that `SHOW` answers. The first ones are also sent when a connection starts.
pub(super) const SETTINGS: [(&str, &str); 14] = [
    ("server_version", bellwether_queries::SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
    ("default_transaction_read_only", "on"),
    ("search_path", "public"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
    ("max_identifier_length", "63"),
];

/// Number of settings that are sent when a connection starts.
pub(super) const REPORTED: usize = 10;

/// A statement about the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Begin(&'static str),
    /// `COMMIT`, or `ROLLBACK` of the whole transaction.
    End(&'static str),
    /// Leaves a failed state inside the transaction.
    RollbackTo,
    Show {
        name: String,
        value: String,
    },
    /// Forgets a prepared statement, or all.
    Deallocate(Option<String>),
    /// Does nothing, and reports so.
    Nothing(&'static str),
}

// === impl Command ===

impl Command {
    /// Returns the command in a statement; none if the statement is a query.
    ///
    /// # Errors
    /// If it shows or changes a setting that does not exist or cannot be changed.
    pub(super) fn read(sql: &str) -> Result<Option<Self>, Failure> {
        let text = without_comments(sql);
        let words: Vec<String> = text
            .split(|letter: char| letter.is_whitespace() || letter == '=' || letter == ';')
            .filter(|word| !word.is_empty())
            .map(|word| word.trim_matches(['\'', '"', ',']).to_owned())
            .collect();
        let word = |place: usize| words.get(place).map(|word| word.to_uppercase()).unwrap_or_default();
        let is_savepoint = || words.iter().any(|word| word.eq_ignore_ascii_case("TO"));
        Ok(Some(match word(0).as_str() {
            "BEGIN" => Self::Begin("BEGIN"),
            "START" => Self::Begin("START TRANSACTION"),
            "COMMIT" | "END" => Self::End("COMMIT"),
            "ROLLBACK" if is_savepoint() => Self::RollbackTo,
            "ROLLBACK" | "ABORT" => Self::End("ROLLBACK"),
            "SAVEPOINT" => Self::Nothing("SAVEPOINT"),
            "RELEASE" => Self::Nothing("RELEASE"),
            "SET" => set(&words)?,
            "RESET" => Self::Nothing("RESET"),
            "DISCARD" => Self::Deallocate(None),
            "DEALLOCATE" => {
                let name = words[1..].iter().find(|word| !word.eq_ignore_ascii_case("PREPARE"));
                Self::Deallocate(name.filter(|name| !name.eq_ignore_ascii_case("ALL")).cloned())
            }
            "CLOSE" => Self::Nothing("CLOSE CURSOR"),
            "LISTEN" => return Err(Failure::new("0A000", "notifications are not supported")),
            "UNLISTEN" => Self::Nothing("UNLISTEN"),
            "SHOW" if !matches!(word(1).as_str(), "TABLES" | "COLUMNS" | "FUNCTIONS" | "") => show(&words)?,
            _ => return Ok(None),
        }))
    }
}

fn set(words: &[String]) -> Result<Command, Failure> {
    let mut rest = words
        .iter()
        .skip(1)
        .filter(|word| !["SESSION", "LOCAL", "TO", "TIME"].iter().any(|filler| word.eq_ignore_ascii_case(filler)));
    let name = rest.next().map(|name| name.to_lowercase()).unwrap_or_default();
    let value = rest.next().map(|value| value.to_lowercase()).unwrap_or_default();
    let is_default = value == "default";
    let fits = match name.as_str() {
        "client_encoding" | "names" => is_default || ["utf8", "utf-8", "unicode"].contains(&value.as_str()),
        "datestyle" => is_default || value.starts_with("iso"),
        "timezone" | "zone" => is_default || ["utc", "etc/utc", "gmt", "0", "+00:00"].contains(&value.as_str()),
        "standard_conforming_strings" => is_default || value == "on",
        _ => true,
    };
    if fits {
        return Ok(Command::Nothing("SET"));
    }
    Err(Failure::new("22023", format!("`{name}` cannot be `{value}`"))
        .with_hint("texts are UTF-8, dates have the style ISO, and times are in UTC"))
}

fn show(words: &[String]) -> Result<Command, Failure> {
    let name = words[1..].join(" ").to_lowercase();
    let name = match name.as_str() {
        "time zone" => "timezone",
        "transaction isolation level" => "transaction_isolation",
        other => other,
    };
    let found = SETTINGS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let unknown = || Failure::new("42704", format!("there is no setting `{name}`"));
    let (_, value) = found.ok_or_else(unknown)?;
    Ok(Command::Show { name: name.to_owned(), value: value.to_owned() })
}

/// Returns a statement without the comments before it.
fn without_comments(sql: &str) -> &str {
    let mut text = sql.trim_start();
    loop {
        let rest = match (text.strip_prefix("--"), text.strip_prefix("/*")) {
            (Some(line), _) => line.split_once('\n').map_or("", |(_, rest)| rest),
            (None, Some(block)) => block.split_once("*/").map_or("", |(_, rest)| rest),
            (None, None) => return text,
        };
        text = rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_from_a_query() {
        let read = |sql: &str| Command::read(sql).expect(sql);
        for (sql, expected) in [
            ("BEGIN READ ONLY", Command::Begin("BEGIN")),
            ("-- a\n/* b */ begin;", Command::Begin("BEGIN")),
            ("START TRANSACTION", Command::Begin("START TRANSACTION")),
            ("COMMIT", Command::End("COMMIT")),
            ("ROLLBACK", Command::End("ROLLBACK")),
            ("ROLLBACK TO SAVEPOINT \"a\"", Command::RollbackTo),
            ("SAVEPOINT \"a\"", Command::Nothing("SAVEPOINT")),
            ("SET extra_float_digits = 3", Command::Nothing("SET")),
            ("SET client_encoding TO 'UTF8'", Command::Nothing("SET")),
            ("SET TIME ZONE 'UTC'", Command::Nothing("SET")),
            ("DEALLOCATE ALL", Command::Deallocate(None)),
            ("DISCARD ALL", Command::Deallocate(None)),
            ("DEALLOCATE PREPARE \"_pg3_0\"", Command::Deallocate(Some("_pg3_0".to_owned()))),
        ] {
            assert_eq!(read(sql), Some(expected), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM runs",
            "EXPLAIN SELECT 1",
            "-- nothing",
            "WITH a AS (SELECT 1) SELECT 1",
        ] {
            assert_eq!(read(sql), None, "{sql}");
        }
        let shown = read("SHOW transaction isolation level");
        assert_eq!(
            shown,
            Some(Command::Show { name: "transaction_isolation".to_owned(), value: "read committed".to_owned() })
        );
        assert_eq!(
            read("show DateStyle"),
            Some(Command::Show { name: "datestyle".to_owned(), value: "ISO, MDY".to_owned() })
        );
    }

    #[test]
    fn a_setting_that_would_change_the_form_of_answers_is_refused() {
        for (sql, code) in [
            ("SET client_encoding = 'LATIN1'", "22023"),
            ("SET datestyle = 'German'", "22023"),
            ("SET TIME ZONE 'Europe/Berlin'", "22023"),
            ("SHOW work_mem", "42704"),
            ("LISTEN a", "0A000"),
        ] {
            assert_eq!(Command::read(sql).expect_err(sql).code, code);
        }
    }
}
