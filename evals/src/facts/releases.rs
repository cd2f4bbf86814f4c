//! Finds the releases that are new in a week: reviewers learn more from failures of a new release than from those of a known one.

use std::collections::HashMap;

use bellwether_base::{Result, Week};
use bellwether_queries::Session;
use bellwether_sample::weight::Novelty;
use serde::Deserialize;

use super::{RunFacts, between, span};

/// Number of weeks before a week with which its releases are compared.
pub const LOOK_BACK: i64 = 4;

const RELEASES: &str = include_str!("releases.sql");

/// Releases of a week that did not run in the week before it.
///
/// A release is new if it was first seen in this week, after another release of its task; so the first release of a task is not new. It
/// has returned if it was seen in one of the [`LOOK_BACK`] weeks before this one, but not in the last of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Releases {
    /// Novelty by tenant, task and release.
    novelty: HashMap<(String, Option<String>, String), Novelty>,
}

/// A release of a task in a week and those before it. Times are microseconds since the epoch.
#[derive(Deserialize)]
struct Seen {
    tenant: String,
    #[serde(default)]
    task: Option<String>,
    release_id: String,
    first_seen: i64,
    /// Time at which it was last seen before the week.
    #[serde(default)]
    last_before: Option<i64>,
}

// === impl Releases ===

impl Releases {
    /// Reads the releases of a week, as far as the events of the weeks before it are kept.
    ///
    /// # Errors
    /// As the session's statements.
    pub async fn read(session: &Session, week: Week) -> Result<Self> {
        let weeks = between("ended_at", week.later(-LOOK_BACK), week.later(1));
        let query = RELEASES.replace("{weeks}", &weeks).replace("{week}", &span("ended_at", week));
        Ok(Self::of(&session.rows::<Seen>(&query).await?, week))
    }

    fn of(seen: &[Seen], week: Week) -> Self {
        let mut first_of_task: HashMap<(&str, Option<&str>), i64> = HashMap::new();
        for one in seen {
            let first = first_of_task.entry((&one.tenant, one.task.as_deref())).or_insert(one.first_seen);
            *first = one.first_seen.min(*first);
        }
        let novelty = |one: &Seen| match one.last_before {
            Some(last) if last >= week.before().start() => Novelty::Known,
            Some(_) => Novelty::Returned,
            None if one.first_seen > first_of_task[&(one.tenant.as_str(), one.task.as_deref())] => Novelty::New,
            None => Novelty::Known,
        };
        let key = |one: &Seen| (one.tenant.clone(), one.task.clone(), one.release_id.clone());
        let all = seen.iter().map(|one| (key(one), novelty(one)));
        Self { novelty: all.filter(|(_, novelty)| *novelty != Novelty::Known).collect() }
    }

    /// Gives a run the novelty of its release. A canary is new for as long as it is on trial.
    pub fn give(&self, run: &mut RunFacts) {
        let of_release = |release: &String| {
            let key = (run.tenant.clone(), run.task.clone(), release.clone());
            self.novelty.get(&key).copied().unwrap_or_default()
        };
        run.novelty = match run.stage.as_deref() {
            Some("canary") => Novelty::New,
            _ => run.release_id.as_ref().map(of_release).unwrap_or_default(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn a_release_is_new_in_its_first_week_and_returns_after_a_pause() {
        let week = Week::of(1_795_392_000_000_000);
        let seen = |task: &str, release: &str, first_seen: i64, last_before: Option<i64>| Seen {
            tenant: String::new(),
            task: Some(task.to_owned()),
            release_id: release.to_owned(),
            first_seen,
            last_before,
        };
        let releases = Releases::of(
            &[
                seen("refund", "steady", week.later(-3).start(), Some(week.start() - 1)),
                seen("refund", "rolled back to", week.later(-4).start(), Some(week.before().start() - 1)),
                seen("refund", "fresh", week.start(), None),
                seen("first task", "first", week.start() + HOUR, None),
                seen("first task", "second", week.start() + 2 * HOUR, None),
            ],
            week,
        );
        let novelty = |tenant: &str, task: &str, release: &str, stage: &str| {
            let text = |text: &str| Some(text.to_owned());
            let mut run = RunFacts { tenant: tenant.to_owned(), ..RunFacts::default() };
            (run.task, run.release_id, run.stage) = (text(task), text(release), text(stage));
            releases.give(&mut run);
            run.novelty
        };
        for (task, release, stage, expected) in [
            ("refund", "steady", "full", Novelty::Known),
            ("refund", "rolled back to", "full", Novelty::Returned),
            ("refund", "fresh", "full", Novelty::New),
            ("refund", "steady", "canary", Novelty::New),
            ("first task", "first", "full", Novelty::Known),
            ("first task", "second", "full", Novelty::New),
            ("other task", "fresh", "full", Novelty::Known),
        ] {
            assert_eq!(novelty("", task, release, stage), expected, "{task} {release} {stage}");
        }
        assert_eq!(novelty("acme", "refund", "fresh", "full"), Novelty::Known, "that of another tenant");
    }
}
