//! The history of a failure signature: as one line of a case, and as a mark in the list.

use bellwether_base::Result;
use bellwether_queries::{Session, quoted};
use serde::Deserialize;

use super::Candidate;

/// A row of the view `failure_signatures`. Times are microseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct History {
    first_seen: i64,
    last_seen: i64,
    first_release: Option<String>,
    last_release: Option<String>,
    last_week: String,
    weeks: i64,
    weeks_absent: i64,
    history: String,
}

// === impl History ===

impl History {
    /// Reads the history of the signature of a candidate. `None` if it has no signature.
    ///
    /// # Errors
    /// As the session's statements.
    pub(super) async fn load(session: &Session, candidate: &Candidate) -> Result<Option<Self>> {
        if candidate.signature.is_empty() {
            return Ok(None);
        }
        let sql = format!(
            "SELECT * FROM failure_signatures WHERE tenant = {} AND task = {} AND class = {} AND signature = {}",
            quoted(&candidate.tenant),
            quoted(candidate.task.as_deref().unwrap_or_default()),
            quoted(&candidate.class),
            quoted(&candidate.signature)
        );
        Ok(session.rows(&sql).await?.into_iter().next())
    }

    /// Returns a sentence about the signature, for a candidate of the given week.
    pub(super) fn line(&self, week: &str) -> String {
        let day = |micros: i64| crate::rules::time(micros).chars().take(10).collect::<String>();
        let release =
            |release: &Option<String>| release.as_ref().map_or_else(String::new, |name| format!(" in {name}"));
        let first = format!("first seen on {}{}", day(self.first_seen), release(&self.first_release));
        let last = format!("last seen on {}{}", day(self.last_seen), release(&self.last_release));
        match self.history.as_str() {
            "new" if self.last_week == week => format!("This failure is new: {first}."),
            "back" if self.last_week == week => {
                format!("This failure came back after {} without it; {first}.", weeks(self.weeks_absent))
            }
            _ => format!("This failure was {first}, and {last}; it is in the samples of {}.", weeks(self.weeks)),
        }
    }
}

/// Returns a number of weeks with its unit.
fn weeks(number: i64) -> String {
    if number == 1 { "1 week".to_owned() } else { format!("{number} weeks") }
}

/// Returns the mark of a candidate whose signature is new or back in its week; otherwise an empty text.
pub(super) fn mark(history: Option<&str>, weeks_absent: Option<i64>) -> String {
    match history {
        Some("new") => "new".to_owned(),
        Some("back") => format!("back after {}", weeks(weeks_absent.unwrap_or(0))),
        _ => String::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A signature that was absent for three weeks before 2026-W49.
    pub(in crate::candidates) fn back() -> History {
        History {
            first_seen: 1_793_000_000_000_000,
            last_seen: 1_795_900_000_000_000,
            first_release: Some("r140".to_owned()),
            last_release: Some("r142".to_owned()),
            last_week: "2026-W48".to_owned(),
            weeks: 2,
            weeks_absent: 3,
            history: "back".to_owned(),
        }
    }

    #[test]
    fn a_line_says_what_is_new_back_and_known() {
        let back = back();
        let first = "first seen on 2026-10-26 in r140";
        assert_eq!(back.line("2026-W48"), format!("This failure came back after 3 weeks without it; {first}."));
        assert_eq!(
            back.line("2026-W44"),
            format!("This failure was {first}, and last seen on 2026-11-28 in r142; it is in the samples of 2 weeks.")
        );
        let new = History { history: "new".to_owned(), first_release: None, ..back };
        assert_eq!(new.line("2026-W48"), "This failure is new: first seen on 2026-10-26.");
        assert_eq!((mark(Some("back"), Some(1)), mark(Some("new"), None)), ("back after 1 week".into(), "new".into()));
        assert_eq!((mark(Some("known"), Some(0)), mark(None, None)), (String::new(), String::new()));
    }
}
