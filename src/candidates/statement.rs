//! Statements of reviewers about candidates, as `run.review` events: decisions, leases and retirements.

use std::sync::atomic::{AtomicI64, Ordering};

use bellwether_base::{Clock, Error, Result, SystemClock, unique_id};
use serde_json::{Value, json};

use super::Candidate;

/// Longest name of a reviewer, characters; the limit of the contract.
const LONGEST_NAME: usize = 128;

/// A decision about a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Accept,
    Edit,
    Reject,
    Unsure,
    Skip,
}

/// A lease: nobody else takes the candidate until it ends. A later revision moves its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    id: String,
    revision: i64,
    /// Microseconds since the epoch.
    pub(super) until: i64,
}

/// A review with everything that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Review {
    pub(super) decision: Decision,
    pub(super) failure_mode: Option<String>,
    pub(super) expected: Option<Value>,
    pub(super) eval_case: bool,
    /// Time that the reviewer took, ms.
    pub(super) duration_ms: Option<i64>,
}

/// A statement about a candidate.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    Review(Review),
    Lease(Lease),
    /// The eval case of the run is out of use.
    Retired,
}

// === impl Decision ===

impl Decision {
    /// Returns its name, as in an event.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Edit => "edit",
            Self::Reject => "reject",
            Self::Unsure => "unsure",
            Self::Skip => "skip",
        }
    }
}

// === impl Lease ===

impl Lease {
    /// Makes a lease that ends at a time, microseconds since the epoch.
    pub(super) fn new(until: i64) -> Self {
        Self { id: unique_id().to_string(), revision: 0, until }
    }

    /// Moves the end of the lease; a time that has passed ends it.
    pub(super) fn moved(&self, until: i64) -> Self {
        Self { id: self.id.clone(), revision: self.revision + 1, until }
    }
}

// === impl Review ===

impl Review {
    /// Makes a review that is a decision and nothing else.
    pub(super) const fn of(decision: Decision) -> Self {
        Self { decision, failure_mode: None, expected: None, eval_case: false, duration_ms: None }
    }
}

// === impl Statement ===

impl Statement {
    /// Returns the expected answer that a person wrote.
    pub(super) fn expected_mut(&mut self) -> Option<&mut Value> {
        match self {
            Self::Review(review) => review.expected.as_mut(),
            Self::Lease(_) | Self::Retired => None,
        }
    }

    /// Returns the event that states this about a candidate, at a time in microseconds since the epoch.
    pub(super) fn event(&self, candidate: &Candidate, reviewer: &str, at: i64) -> Value {
        let id = unique_id().to_string();
        let mut data = json!({ "review_id": id, "queue": "candidates", "reviewer": reviewer });
        let mut put = |name: &str, value: Value| data[name] = value;
        let mut revision = 0;
        match self {
            Self::Review(review) => {
                put("decision", review.decision.name().into());
                put("severity", candidate.severity.clone().into());
                put("make_eval_case", review.eval_case.into());
                put("sampling_weight", json!(1.0 / candidate.inclusion_probability));
                review.failure_mode.iter().for_each(|mode| put("failure_mode", mode.clone().into()));
                review.expected.iter().for_each(|expected| put("expected", expected.clone()));
                review.duration_ms.iter().for_each(|spent| put("duration_ms", (*spent).into()));
            }
            // Neither is a review: a skip that sets no outcome says nothing about the run, also to older versions.
            Self::Lease(lease) => {
                revision = lease.revision;
                put("review_id", lease.id.clone().into());
                put("decision", "skip".into());
                put("sets_outcome", false.into());
                put("leased_until", time(lease.until).into());
            }
            Self::Retired => {
                put("decision", "skip".into());
                put("sets_outcome", false.into());
                put("retired", true.into());
            }
        }
        let mut event = json!({
            "spec": "run-event/1",
            "type": "run.review",
            "source": "bellwether-review",
            "id": id,
            "run_id": candidate.run_id,
            "time": time(at),
            "revision": revision,
            "data": data,
        });
        if !candidate.tenant.is_empty() {
            event["tenant"] = json!(candidate.tenant);
        }
        event
    }
}

/// Returns the time of day, microseconds since the epoch, later than all times that this process was given before: of two
/// statements by one person, the later one counts.
pub(super) fn now() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let clock = SystemClock.now_micros();
    let later = |last: i64| clock.max(last + 1);
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(later(last)));
    later(last.unwrap_or(0))
}

/// Formats a time, microseconds since the epoch, as RFC 3339 with all its digits.
pub(super) fn time(micros: i64) -> String {
    let since = std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + since).to_string()
}

/// Returns the name of a reviewer, if it is one.
///
/// # Errors
/// A text that says what is wrong.
pub(super) fn reviewer(text: &str) -> std::result::Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.chars().count() > LONGEST_NAME {
        return Err(format!("it is longer than {LONGEST_NAME} characters"));
    }
    if crate::screen::one_line(name) != name {
        return Err("it has control characters".to_owned());
    }
    Ok(name.to_owned())
}

/// Refuses a decision that the present state does not allow.
///
/// `statements` are all reviews and leases of the candidate; `now` is in microseconds since the epoch.
///
/// # Errors
/// `Config` if somebody else has the candidate or has decided while a lease of the reviewer had run out, or if its eval case is retired.
pub(super) fn allowed(
    candidate: &Candidate,
    statements: &[Said],
    reviewer: &str,
    eval_case: bool,
    now: i64,
) -> Result<()> {
    let id = &candidate.candidate_id;
    if candidate.state == "retired" && !eval_case {
        return Err(Error::config(format!("the eval case of candidate {id} is retired"))
            .with_hint("add --eval-case to make a new one"));
    }
    if let (Some(other), Some(until)) = (&candidate.leased_by, candidate.leased_until)
        && other != reviewer
        && until > now
    {
        let until = crate::rules::time(until);
        return Err(Error::config(format!(
            "{} has taken candidate {id} until {until}",
            crate::screen::one_line(other)
        ))
        .with_hint("take another one with `bellwether candidates take`, or wait"));
    }
    let own = || statements.iter().filter(|said| said.reviewer.as_deref() == Some(reviewer));
    let Some(lease) = own().filter(|said| said.leased_until.is_some()).max_by_key(|said| said.at) else {
        return Ok(());
    };
    let ran_out = lease.leased_until.is_some_and(|until| until <= now);
    let reviewed_since = own().any(|said| said.leased_until.is_none() && said.at >= lease.at);
    let decided = statements
        .iter()
        .filter(|said| said.reviewer.as_deref() != Some(reviewer) && said.decides() && said.at > lease.at);
    match decided.max_by_key(|said| said.at) {
        Some(said) if ran_out && !reviewed_since => {
            let other = crate::screen::one_line(said.reviewer.as_deref().unwrap_or("somebody"));
            Err(Error::config(format!(
                "your lease of candidate {id} ran out, and {other} has decided; nothing was sent"
            ))
            .with_hint(format!("if you disagree, run `bellwether candidates take {id}` first")))
        }
        _ => Ok(()),
    }
}

/// Returns true if the latest review of a person decides.
pub(super) fn has_decided(statements: &[Said], reviewer: &str) -> bool {
    let own =
        statements.iter().filter(|said| said.reviewer.as_deref() == Some(reviewer) && said.leased_until.is_none());
    own.max_by_key(|said| said.at).is_some_and(Said::decides)
}

/// A statement of a person, as `events` has it. Times are microseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Said {
    #[serde(rename = "event_time")]
    pub(super) at: i64,
    pub(super) reviewer: Option<String>,
    #[serde(rename = "review_decision")]
    pub(super) decision: Option<String>,
    #[serde(rename = "review_leased_until")]
    pub(super) leased_until: Option<i64>,
}

// === impl Said ===

impl Said {
    fn decides(&self) -> bool {
        matches!(self.decision.as_deref(), Some("accept" | "edit" | "reject"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_348_800_000_000;
    const MINUTE: i64 = 60_000_000;

    fn candidate() -> Candidate {
        Candidate {
            candidate_id: "3fa9c01d00000000".to_owned(),
            severity: "high".to_owned(),
            run_id: "r1".to_owned(),
            inclusion_probability: 0.25,
            ..Candidate::default()
        }
    }

    fn said(reviewer: &str, at: i64, decision: &str, leased_until: Option<i64>) -> Said {
        Said { at, reviewer: Some(reviewer.to_owned()), decision: Some(decision.to_owned()), leased_until }
    }

    #[test]
    fn statements_are_events_that_the_contract_accepts() {
        let review = Review {
            expected: Some(json!("שלום 👋 \u{202e}")),
            failure_mode: Some("wrong_sum".to_owned()),
            eval_case: true,
            duration_ms: Some(42_000),
            ..Review::of(Decision::Edit)
        };
        let lease = Lease::new(NOON + MINUTE);
        for (statement, revision) in [
            (Statement::Review(review), 0),
            (Statement::Lease(lease.clone()), 0),
            (Statement::Lease(lease.moved(NOON)), 1),
            (Statement::Retired, 0),
        ] {
            let event = statement.event(&candidate(), "ana", NOON + 1);
            assert_eq!(bellwether_event::problems(&event), [], "{event}");
            assert_eq!((&event["time"], &event["revision"]), (&json!("2026-11-22T12:00:00.000001Z"), &json!(revision)));
            let is_review = matches!(statement, Statement::Review(_));
            assert_eq!(event["data"]["sets_outcome"].is_null(), is_review, "{event}");
        }
        let moved = lease.moved(NOON);
        assert_eq!((moved.id, moved.until), (lease.id, NOON));
    }

    #[test]
    fn times_of_one_process_grow() {
        let times: Vec<i64> = (0..1000).map(|_| now()).collect();
        assert!(times.is_sorted_by(|one, other| one < other));
    }

    #[test]
    fn a_reviewer_has_a_name_that_can_be_shown() {
        assert_eq!(reviewer(" ana "), Ok("ana".to_owned()));
        assert_eq!(reviewer("Zoë 👩‍🔬"), Ok("Zoë 👩‍🔬".to_owned()));
        for (name, why) in [(" ", "empty"), ("a\u{1b}[31m", "control"), ("a\u{202e}b", "control"), ("a\0b", "control")]
        {
            assert!(reviewer(name).expect_err("refused").contains(why), "{name:?}");
        }
        assert!(reviewer(&"x".repeat(129)).is_err());
    }

    #[test]
    fn a_decision_under_a_lease_that_ran_out_counts_only_if_nobody_else_decided() {
        let lease = said("ana", NOON, "skip", Some(NOON + 15 * MINUTE));
        let ben = said("ben", NOON + 20 * MINUTE, "reject", None);
        let undecided = said("ben", NOON + 20 * MINUTE, "unsure", None);
        let check = |statements: &[Said], now| allowed(&candidate(), statements, "ana", false, now);
        let late = NOON + 30 * MINUTE;
        assert!(check(std::slice::from_ref(&lease), late).is_ok(), "nobody decided");
        assert!(check(&[lease.clone(), undecided], late).is_ok(), "nobody decided");
        let refused = check(&[lease.clone(), ben.clone()], late).expect_err("ben decided");
        assert!(refused.message().contains("ben has decided"), "{}", refused.message());
        assert!(check(&[lease.clone(), ben.clone()], NOON + 10 * MINUTE).is_ok(), "the lease holds");
        let earlier = said("ben", NOON - MINUTE, "reject", None);
        assert!(check(&[lease.clone(), earlier], late).is_ok(), "a second opinion on purpose");
        let again = said("ana", NOON + 25 * MINUTE, "skip", Some(NOON + 40 * MINUTE));
        assert!(check(&[lease.clone(), ben.clone(), again], late).is_ok(), "taken again");
        let own = said("ana", NOON + 21 * MINUTE, "accept", None);
        assert!(check(&[lease, ben, own], late).is_ok(), "her decision is in, and she changes it");
    }

    #[test]
    fn only_a_decision_of_ones_own_can_be_taken_back() {
        let all = [
            said("ana", NOON, "accept", None),
            said("ana", NOON + MINUTE, "skip", Some(NOON + 9 * MINUTE)),
            said("ben", NOON, "reject", None),
            said("ben", NOON + MINUTE, "unsure", None),
        ];
        assert_eq!(["ana", "ben", "cem"].map(|person| has_decided(&all, person)), [true, false, false]);
    }

    #[test]
    fn a_candidate_that_somebody_else_has_and_a_retired_case_are_refused() {
        let taken = Candidate {
            state: "leased".to_owned(),
            leased_by: Some("ben".to_owned()),
            leased_until: Some(NOON + MINUTE),
            ..candidate()
        };
        let refused = allowed(&taken, &[], "ana", false, NOON).expect_err("ben has it");
        assert!(refused.message().contains("ben has taken") && refused.message().contains("12:01:00"), "{refused}");
        assert!(allowed(&taken, &[], "ben", false, NOON).is_ok());
        assert!(allowed(&taken, &[], "ana", false, NOON + MINUTE).is_ok(), "it ran out");
        let retired = Candidate { state: "retired".to_owned(), ..candidate() };
        assert!(allowed(&retired, &[], "ana", false, NOON).expect_err("retired").message().contains("retired"));
        assert!(allowed(&retired, &[], "ana", true, NOON).is_ok(), "a new case");
    }
}
