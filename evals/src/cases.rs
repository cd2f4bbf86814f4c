//! Eval cases from decided candidates.
//!
//! * An edited run becomes a case with the edited answer, an accepted run one with its own answer. Both need their content.
//! * Runs with the same input are one case. An edit wins over runs that were accepted as they are, since it says what is right;
//!   then the latest edit counts, or the first accepted answer, so that another good answer changes no case.
//! * A case of the set stays as it is while its expected answer is that of the reviews. Otherwise its next version supersedes it.
//! * A retirement is about the input: a run with it counts again once a later review of that run asks for a case. A case that was
//!   taken out of the set comes back only on request.
//! * A new case gets the split of the cases near it, those that were taken out included. One that is near cases of both splits would
//!   leak one into the other, and is left out.
//!
//! [`gaps`] chooses candidates of the queue that would fill the gaps of a set.

mod content;
pub mod gaps;

use std::collections::BTreeMap;

use bellwether_base::Result;
use bellwether_evalsets::{CaseKind, EvalCase, Provenance, RunIdentity, Split, Superseded};
use bellwether_queries::{Session, quoted};
use bellwether_redact::may_be_redacted;
use bellwether_sample::split::{Case, Side, split};
use serde::Deserialize;
use serde_json::Value;

use crate::class::Class;
use crate::leaks::fingerprint;
use content::{Content, text};

pub use content::input_of;

/// Which candidates become cases.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Only inputs that were reviewed since then, microseconds since the epoch.
    pub since: i64,
    /// Also candidates for which no reviewer asked for a case.
    pub all: bool,
    /// Also inputs whose case was taken out of the set.
    pub retired: bool,
    /// Share of new clusters of near-duplicates that are held out, 0 to 1.
    pub holdout: f64,
}

/// The set for which cases are made.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its name, which makes its split independent of those of other sets.
    pub name: &'a str,
    pub cases: &'a [EvalCase],
    /// Cases that were taken out of it, in their last versions.
    pub taken_out: &'a [EvalCase],
}

/// Redacts a case, because a set is a file outside the tables.
pub type Redact<'a> = &'a dyn Fn(&EvalCase) -> Result<EvalCase>;

/// A decided candidate with the review that decides its answer, as the query returns it. Times are microseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Decided {
    pub candidate_id: String,
    pub tenant: String,
    pub source: String,
    pub run_id: String,
    pub attempt: u32,
    pub task: String,
    pub release_fingerprint: Option<String>,
    pub class: String,
    pub signature: String,
    pub inclusion_probability: f64,
    /// accept, edit or reject; empty for a retired case whose reviewers are tied.
    pub decision: String,
    pub reviewer: String,
    pub reviewed_at: i64,
    /// Time of the latest review by anybody.
    pub last_reviewed: i64,
    /// Time of the latest review that asks for a case.
    pub wanted_at: Option<i64>,
    /// Time of the latest retirement.
    pub retired_at: Option<i64>,
    pub review_json: Option<String>,
    pub content_json: Option<String>,
    /// Input and output that are stored elsewhere, if they were fetched: text or JSON.
    #[serde(skip)]
    pub fetched: (Option<String>, Option<String>),
}

/// The reason for which a candidate gives no case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    NotAsked,
    Rejected,
    NoInput,
    NoAnswer,
    TakenOut,
    BothSplits,
    /// The case would break a limit, as this message says.
    Invalid(String),
}

/// Cases from candidates, beside those of a set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Harvest {
    /// New cases, and next versions of cases of the set.
    pub cases: Vec<EvalCase>,
    /// Candidates whose input the set has, with the same expected answer.
    pub known: usize,
    /// Ids of candidates without a case, by reason.
    pub left_out: BTreeMap<LeftOut, Vec<String>>,
    /// Ids of cases of the set that have no accepted answer any more.
    pub rejected: Vec<String>,
    /// Ids of cases of the set that a reviewer has retired.
    pub retired: Vec<String>,
}

/// A run with its content.
struct Answered<'a> {
    run: &'a Decided,
    content: Content,
}

/// Decided candidates. Of the reviews that agree with the majority, the latest edit counts, otherwise the latest of them.
const DECIDED: &str = "
WITH review AS (
    SELECT * FROM (
        SELECT
            c.*, v.reviewer, v.decision AS said, v.reviewed_at, v.review_json,
            row_number() OVER (
                PARTITION BY c.candidate_id ORDER BY v.decision = 'edit' DESC, v.reviewed_at DESC, v.reviewer
            ) AS place
        FROM current_candidates AS c
        LEFT JOIN reviews AS v ON v.candidate_id = c.candidate_id AND v.passed = c.passed
        WHERE c.state IN ('decided', 'eval_case', 'retired') AND {where}
    ) WHERE place = 1
)
SELECT
    d.candidate_id, d.tenant, d.source, d.run_id, d.attempt, coalesce(d.task, '') AS task, d.release_fingerprint, d.class,
    d.signature, d.inclusion_probability, coalesce(d.said, '') AS decision, coalesce(d.reviewer, '') AS reviewer,
    coalesce(d.reviewed_at, d.last_reviewed) AS reviewed_at, d.last_reviewed, d.wanted_at, d.retired_at,
    d.review_json, r.content_json
FROM review AS d
LEFT JOIN runs AS r ON r.run_id = d.run_id AND r.tenant = d.tenant AND r.source = d.source AND r.attempt = d.attempt
ORDER BY d.candidate_id";

/// Reads all decided candidates, or those of a task.
///
/// # Errors
/// As the session's statements.
pub async fn decided(session: &Session, task: Option<&str>) -> Result<Vec<Decided>> {
    let filter = task.map_or_else(|| "true".to_owned(), |task| format!("c.task = {}", quoted(task)));
    session.rows(&DECIDED.replace("{where}", &filter)).await
}

/// Returns the cases that candidates add to a set.
///
/// # Errors
/// Those of `redact`.
pub fn harvest(decided: &[Decided], target: Target<'_>, wanted: &Wanted, redact: Redact<'_>) -> Result<Harvest> {
    let mut found = Harvest::default();
    let mut inputs: BTreeMap<String, Vec<Answered<'_>>> = BTreeMap::new();
    for run in decided {
        match Content::of(run) {
            Some(content) => inputs.entry(content.id(&run.task)).or_default().push(Answered { run, content }),
            None if run.last_reviewed < wanted.since || !run.counts_after(run.retired_at) => {}
            None if run.is_asked(wanted) => found.leave_out(LeftOut::NoInput, run),
            None => found.leave_out(LeftOut::NotAsked, run),
        }
    }
    let mut new = Vec::new();
    for (id, mut runs) in inputs {
        let is = |case: &&EvalCase| case.id == id;
        let (old, taken_out) = (target.cases.iter().find(is), target.taken_out.iter().find(is));
        let retired_at = runs.iter().filter_map(|one| one.run.retired_at).max();
        runs.retain(|one| one.run.counts_after(retired_at));
        if runs.is_empty() {
            found.retired.extend(old.map(|_| id));
            continue;
        }
        if !runs.iter().any(|one| one.run.is_asked(wanted) || old.is_some() && one.run.last_reviewed >= wanted.since) {
            runs.iter()
                .filter(|one| one.run.last_reviewed >= wanted.since)
                .for_each(|one| found.leave_out(LeftOut::NotAsked, one.run));
            continue;
        }
        let Some((best, answer)) = best(&runs) else {
            match old {
                // An answer that was fetched for an earlier version is not fetched again.
                Some(_) if runs.iter().any(Answered::is_elsewhere) => found.known += runs.len(),
                Some(_) => found.rejected.push(id),
                None => runs.iter().for_each(|one| found.leave_out(one.run.unanswered(), one.run)),
            }
            continue;
        };
        let raw = case_of(id, best, answer, &runs);
        let case = redact(&raw)?;
        // Both: a text that is too long to be redacted becomes a short one.
        if let Err(error) = raw.check().and_then(|()| case.check()) {
            found.leave_out(LeftOut::Invalid(error.message().to_owned()), best.run);
            continue;
        }
        match (old, taken_out) {
            (None, None) => new.push((best.run, case)),
            (None, Some(_)) if !wanted.retired => found.leave_out(LeftOut::TakenOut, best.run),
            (None, Some(before)) => found.cases.push(superseding(case, before)),
            (Some(old), _) if is_same(old, &raw, &case, redact)? => found.known += runs.len(),
            (Some(old), _) => found.cases.push(superseding(case, old)),
        }
    }
    found.place(new, target, wanted.holdout);
    Ok(found)
}

/// Returns the kind of input that a run of a class tests.
pub fn kind_of(class: &str) -> CaseKind {
    match Class::named(class) {
        Some(Class::Success) => CaseKind::Normal,
        Some(Class::PolicyException | Class::UnapprovedAction) => CaseKind::MustFailSafely,
        Some(
            Class::VerdictsDisagree
            | Class::StaleSource
            | Class::LatencyOutlier
            | Class::CostOutlier
            | Class::Uncertain,
        ) => CaseKind::Edge,
        _ => CaseKind::Failure,
    }
}

/// Returns the run that gives the case of an input, and its answer: the latest edit, or the first accepted run.
fn best<'a, 'b>(runs: &'a [Answered<'b>]) -> Option<(&'a Answered<'b>, String)> {
    let usable = runs.iter().filter_map(|one| Some((one, one.answer()?)));
    usable.min_by_key(|(one, _)| match one.run.decision.as_str() {
        "edit" => (0, -one.run.reviewed_at, &one.run.candidate_id),
        _ => (1, one.run.reviewed_at, &one.run.candidate_id),
    })
}

/// Makes the case of an input from the run that gives its answer, and all runs that have it.
fn case_of(id: String, best: &Answered<'_>, answer: String, runs: &[Answered<'_>]) -> EvalCase {
    let Answered { run, content } = best;
    let failed = Class::named(&run.class).is_some_and(|class| Class::FAILURES.contains(&class));
    let several = runs.len() > 1;
    EvalCase {
        id,
        version: 1,
        task: run.task.clone(),
        split: Split::Regression,
        kind: kind_of(&run.class),
        input: content.input.clone(),
        content_ref: content.reference.clone(),
        content_sha256: content.sha256.clone(),
        expected: Some(answer),
        grading: Vec::new(),
        tags: Vec::new(),
        failure_class: failed.then(|| run.class.clone()),
        erased: false,
        provenance: Provenance {
            run: Some(run.identity()),
            file: None,
            runs: runs.iter().filter(|_| several).map(|one| one.run.identity()).collect(),
            release_fingerprint: run.release_fingerprint.clone(),
            signature: Some(run.signature.clone()).filter(|signature| !signature.is_empty()),
            reviewer: Some(run.reviewer.clone()),
            decision: Some(run.decision.clone()),
            inclusion_probability: Some(run.inclusion_probability),
            supersedes: None,
        },
    }
}

/// Returns whether a case of the set needs no new version.
fn is_same(old: &EvalCase, raw: &EvalCase, new: &EvalCase, redact: Redact<'_>) -> Result<bool> {
    if old.input.is_empty() && !new.input.is_empty() {
        return Ok(false);
    }
    // Rules that somebody wrote for the case say more than an answer.
    if !old.grading.is_empty() || old.expected == new.expected {
        return Ok(true);
    }
    // The policy of redaction may have changed since. A weaker one must not bring back what was redacted.
    let may_be = match (&old.expected, &raw.expected) {
        (Some(old), Some(raw)) => may_be_redacted(old, raw),
        _ => false,
    };
    Ok(may_be || redact(old)?.expected == new.expected)
}

/// Makes a case the next version of another one with the same input.
fn superseding(mut case: EvalCase, old: &EvalCase) -> EvalCase {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let run = case.provenance.run.as_ref().map_or("", |run| run.run_id.as_str());
    let fetched = if old.input.is_empty() && !case.input.is_empty() && !old.erased { "fetched input; " } else { "" };
    let reason =
        format!("{fetched}{} of run {run} by {}", of(&case.provenance.decision), of(&case.provenance.reviewer));
    // Rules of the old version still hold: only its input was missing.
    case.grading.clone_from(&old.grading);
    // Keep an input that was fetched or given by hand: cases with the same id have the same input.
    if case.input.is_empty() {
        case.input.clone_from(&old.input);
    }
    case.version = old.version + 1;
    case.split = old.split;
    case.provenance.supersedes = Some(Superseded { version: old.version, reason });
    case
}

/// Makes a case one to place beside others.
fn placed(case: &EvalCase, accepted: i64, fixed: Option<Side>) -> Case {
    Case { id: case.id.clone(), accepted, fingerprint: fingerprint(case), fixed }
}

// === impl Answered ===

impl Answered<'_> {
    /// Returns the expected answer by the decision.
    fn answer(&self) -> Option<String> {
        match self.run.decision.as_str() {
            "accept" => self.content.output.clone(),
            "edit" => {
                let review: Value = serde_json::from_str(self.run.review_json.as_deref()?).ok()?;
                review.get("expected").and_then(text)
            }
            _ => None,
        }
    }

    /// Returns true if the answer was accepted and is stored elsewhere.
    fn is_elsewhere(&self) -> bool {
        self.run.decision == "accept" && self.content.output.is_none() && self.content.has_output_elsewhere
    }
}

// === impl Decided ===

impl Decided {
    fn identity(&self) -> RunIdentity {
        RunIdentity {
            tenant: Some(self.tenant.clone()).filter(|tenant| !tenant.is_empty()),
            source: self.source.clone(),
            run_id: self.run_id.clone(),
            attempt: self.attempt,
        }
    }

    /// Returns whether the candidate should become a case.
    pub fn is_asked(&self, wanted: &Wanted) -> bool {
        (self.wanted_at.is_some() || wanted.all) && self.last_reviewed >= wanted.since
    }

    /// Returns whether the run counts although the case of its input was retired at a time.
    fn counts_after(&self, retired_at: Option<i64>) -> bool {
        retired_at.is_none_or(|retired| self.wanted_at.is_some_and(|wanted| wanted > retired))
    }

    /// Returns why the run has no answer.
    fn unanswered(&self) -> LeftOut {
        if self.decision == "reject" { LeftOut::Rejected } else { LeftOut::NoAnswer }
    }
}

// === impl Harvest ===

impl Harvest {
    fn leave_out(&mut self, why: LeftOut, candidate: &Decided) {
        self.left_out.entry(why).or_default().push(candidate.candidate_id.clone());
    }

    /// Places new cases beside those that the set has or had, which keep their splits.
    fn place(&mut self, new: Vec<(&Decided, EvalCase)>, target: Target<'_>, holdout: f64) {
        let known = target.cases.iter().chain(target.taken_out).map(|case| {
            let side = match case.split {
                Split::Regression => Side::Regression,
                Split::Holdout => Side::HoldOut,
            };
            placed(case, i64::MIN, Some(side))
        });
        let later = new.iter().map(|(best, case)| placed(case, best.reviewed_at, None));
        let cases: Vec<Case> = known.chain(later).collect();
        let places = split(&cases, holdout, target.name);
        for (best, mut case) in new {
            match places.get(&case.id).map(|placed| placed.side) {
                Some(Side::Bridge) => {
                    self.leave_out(LeftOut::BothSplits, best);
                    continue;
                }
                Some(Side::HoldOut) => case.split = Split::Holdout,
                Some(Side::Regression) | None => case.split = Split::Regression,
            }
            self.cases.push(case);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted() -> Wanted {
        Wanted { since: i64::MIN, all: false, retired: false, holdout: 0.5 }
    }

    /// Harvests beside the cases of a set, without redaction.
    fn beside(set: &[EvalCase], decided: &[Decided]) -> Harvest {
        by(&wanted(), set, &[], decided)
    }

    fn by(wanted: &Wanted, cases: &[EvalCase], taken_out: &[EvalCase], decided: &[Decided]) -> Harvest {
        harvest(decided, Target { name: "s", cases, taken_out }, wanted, &|case| Ok(case.clone())).expect("harvests")
    }

    /// A decided candidate, reviewed at the time of its number.
    fn decided(number: u8, input: &str, output: &str) -> Decided {
        Decided {
            candidate_id: format!("c{number}"),
            source: "app".to_owned(),
            run_id: format!("r{number}"),
            attempt: 1,
            task: "refund".to_owned(),
            class: "success".to_owned(),
            inclusion_probability: 0.5,
            decision: "accept".to_owned(),
            reviewer: "ana".to_owned(),
            reviewed_at: i64::from(number),
            last_reviewed: i64::from(number),
            wanted_at: Some(i64::from(number)),
            content_json: Some(json!({ "input": input, "output": output }).to_string()),
            ..Decided::default()
        }
    }

    fn edited(number: u8, input: &str, answer: &str) -> Decided {
        let review = json!({ "expected": answer }).to_string();
        Decided { decision: "edit".to_owned(), review_json: Some(review), ..decided(number, input, "wrong") }
    }

    fn expected(found: &Harvest) -> Vec<&str> {
        found.cases.iter().map(|case| case.expected.as_deref().unwrap_or_default()).collect()
    }

    fn reasons(found: &Harvest) -> Vec<(&LeftOut, Vec<&str>)> {
        found.left_out.iter().map(|(why, ids)| (why, ids.iter().map(String::as_str).collect())).collect()
    }

    #[test]
    fn another_good_answer_changes_no_case_and_an_edit_does() {
        let first = beside(&[], &[decided(1, "a", "yes")]);
        assert_eq!(expected(&first), ["yes"]);
        assert!(first.cases[0].provenance.runs.is_empty(), "there is one run");
        let mut runs = vec![decided(1, "a", "yes"), decided(2, " A ", "sure")];
        let second = beside(&first.cases, &runs);
        assert_eq!((second.cases.len(), second.known), (0, 2));
        runs.push(edited(3, "a", "no"));
        let third = beside(&first.cases, &runs);
        assert_eq!((expected(&third), third.cases[0].version), (vec!["no"], 2));
        let provenance = &third.cases[0].provenance;
        let superseded = provenance.supersedes.as_ref().expect("it supersedes");
        assert_eq!((superseded.version, superseded.reason.as_str()), (1, "edit of run r3 by ana"));
        let ids: Vec<&str> = provenance.runs.iter().map(|run| run.run_id.as_str()).collect();
        assert_eq!(ids, ["r1", "r2", "r3"], "all runs with this input");
        let again = beside(&third.cases, &runs);
        assert_eq!((again.cases.len(), again.known), (0, 3), "nothing is left to change");
    }

    #[test]
    fn a_case_with_rules_of_its_own_stays() {
        let mut set = beside(&[], &[decided(1, "a", "yes")]).cases;
        set[0].grading = vec![bellwether_evalsets::Grading::Contains("yes".to_owned())];
        let found = beside(&set, &[edited(2, "a", "no")]);
        assert_eq!((found.cases.len(), found.known), (0, 1));
    }

    #[test]
    fn a_case_whose_run_is_rejected_later_is_reported_and_stays() {
        let set = beside(&[], &[decided(1, "a", "yes")]).cases;
        let rejected = Decided { decision: "reject".to_owned(), last_reviewed: 9, ..decided(1, "a", "yes") };
        let found = beside(&set, &[rejected]);
        assert_eq!((&found.rejected, found.cases.len()), (&vec![set[0].id.clone()], 0));
        assert_eq!(found.left_out, BTreeMap::new());
    }

    #[test]
    fn a_retired_input_gives_no_case_until_a_later_review_asks_for_one() {
        let set = beside(&[], &[decided(1, "a", "yes")]).cases;
        let retired = Decided { retired_at: Some(5), ..decided(1, "a", "yes") };
        // Another run with this input was accepted before the retirement.
        let found = beside(&set, &[retired.clone(), decided(2, "a", "sure")]);
        assert_eq!((&found.retired, found.cases.len(), found.known), (&vec![set[0].id.clone()], 0, 0));
        assert_eq!(beside(&[], &[retired.clone(), decided(2, "a", "sure")]), Harvest::default());
        let found = beside(&set, &[retired, decided(7, "a", "of course")]);
        assert_eq!((expected(&found), found.cases[0].version), (vec!["of course"], 2));
        assert_eq!(found.retired, Vec::<String>::new());
    }

    #[test]
    fn a_case_that_was_taken_out_of_the_set_comes_back_on_request_and_in_its_split() {
        for split in [Split::Regression, Split::Holdout] {
            let taken_out = [EvalCase { split, ..beside(&[], &[decided(1, "a", "yes")]).cases.remove(0) }];
            let found = by(&wanted(), &[], &taken_out, &[decided(1, "a", "yes")]);
            assert_eq!((found.cases.len(), reasons(&found)), (0, vec![(&LeftOut::TakenOut, vec!["c1"])]));
            let asked = Wanted { retired: true, ..wanted() };
            let found = by(&asked, &[], &taken_out, &[decided(1, "a", "yes")]);
            assert_eq!((found.cases[0].version, found.cases[0].split), (2, split));
        }
    }

    #[test]
    fn only_wanted_and_recent_candidates_make_cases() {
        let unasked = [Decided { wanted_at: None, ..decided(1, "a", "yes") }];
        let found = beside(&[], &unasked);
        assert_eq!((found.cases.len(), reasons(&found)), (0, vec![(&LeftOut::NotAsked, vec!["c1"])]));
        assert_eq!(by(&Wanted { all: true, ..wanted() }, &[], &[], &unasked).cases.len(), 1);
        let silent = [Decided { content_json: None, ..unasked[0].clone() }];
        assert_eq!(reasons(&beside(&[], &silent)), [(&LeftOut::NotAsked, vec!["c1"])]);
        let runs = [decided(1, "a", "yes"), decided(5, "b", "no")];
        let recent = by(&Wanted { since: 3, ..wanted() }, &[], &[], &runs);
        assert_eq!((expected(&recent), recent.left_out.len()), (vec!["no"], 0));
    }

    #[test]
    fn near_duplicates_follow_the_cases_of_the_set_and_bridges_are_left_out() {
        let words: Vec<String> =
            (0..20_u8).map(|n| format!("{}word{}", char::from(b'a' + n), char::from(b'a' + n))).collect();
        let text = |changed: &[usize]| {
            let word =
                |(n, word): (usize, &String)| if changed.contains(&n) { format!("{word}q") } else { word.clone() };
            words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
        };
        let of = |input: &str| beside(&[], &[decided(1, input, "x")]).cases.remove(0);
        for split in [Split::Regression, Split::Holdout] {
            let set = [EvalCase { split, ..of(&text(&[])) }];
            let near = [decided(2, &text(&[4]), "x")];
            assert_eq!(beside(&set, &near).cases[0].split, split);
            assert_eq!(by(&wanted(), &[], &set, &near).cases[0].split, split, "a release may know what was taken out");
        }
        let ends = [
            EvalCase { split: Split::Regression, ..of(&text(&[1, 3])) },
            EvalCase { split: Split::Holdout, ..of(&text(&[15, 18])) },
        ];
        let between = beside(&ends, &[decided(2, &text(&[]), "x")]);
        assert_eq!((between.cases.len(), reasons(&between)), (0, vec![(&LeftOut::BothSplits, vec!["c2"])]));
    }

    #[test]
    fn candidates_without_content_or_answer_are_left_out_with_the_reason() {
        let nothing = Decided { content_json: None, ..decided(1, "a", "x") };
        let unanswered = Decided { content_json: Some(json!({ "input": "b" }).to_string()), ..decided(2, "b", "x") };
        let rejected = Decided { decision: "reject".to_owned(), ..decided(3, "c", "x") };
        let large = edited(4, "d", &"x".repeat(1 << 20));
        let found = beside(&[], &[nothing, unanswered, rejected, large]);
        let all = reasons(&found);
        let usual =
            [(&LeftOut::Rejected, vec!["c3"]), (&LeftOut::NoInput, vec!["c1"]), (&LeftOut::NoAnswer, vec!["c2"])];
        assert_eq!((found.cases.len(), &all[..3]), (0, &usual[..]));
        let (LeftOut::Invalid(why), ids) = &all[3] else { panic!("{all:?}") };
        assert!(why.contains("its expected answer has 1048576 bytes; the limit is 262144"), "{why}");
        assert_eq!(ids, &["c4"]);
        // A reference is enough for an edited case.
        let hash = "a".repeat(64);
        let stored = json!({ "input_ref": "s3://b/1", "input_sha256": format!("sha256:{hash}") }).to_string();
        let found = beside(&[], &[Decided { content_json: Some(stored), ..edited(5, "", "right") }]);
        assert_eq!(found.cases[0].content_sha256.as_deref(), Some(hash.as_str()));
        assert!(found.cases[0].missing_content().is_some_and(|missing| missing.contains("s3://b/1")));
    }

    #[test]
    fn a_case_gets_its_input_once_it_was_fetched() {
        let stored = Some(json!({ "input_ref": "s3://b/1" }).to_string());
        let run = Decided { content_json: stored, ..edited(5, "", "right") };
        let set = beside(&[], std::slice::from_ref(&run)).cases;
        let fetched = [Decided { fetched: (Some("a question".to_owned()), None), ..run.clone() }];
        let found = beside(&set, &fetched);
        assert_eq!((found.cases[0].version, found.cases[0].input[0].content.as_str()), (2, "a question"));
        let reason = found.cases[0].provenance.supersedes.as_ref().map(|old| old.reason.as_str());
        assert_eq!(reason, Some("fetched input; edit of run r5 by ana"));
        // Without a fetch the case keeps it, and so does its next version.
        assert_eq!(beside(&found.cases, std::slice::from_ref(&run)).known, 1);
        let review_json = Some(json!({ "expected": "better" }).to_string());
        let later = beside(&found.cases, &[Decided { review_json, reviewed_at: 9, last_reviewed: 9, ..run }]);
        let case = &later.cases[0];
        assert_eq!((case.version, case.expected.as_deref(), &case.input), (3, Some("better"), &found.cases[0].input));
    }

    #[test]
    fn an_accepted_answer_that_was_fetched_once_is_not_missed_later() {
        let stored = Some(json!({ "input": "a question", "output_ref": "s3://b/2" }).to_string());
        let run = Decided { content_json: stored, ..decided(1, "", "") };
        let fetched = Decided { fetched: (None, Some("right".to_owned())), ..run.clone() };
        let set = beside(&[], &[fetched]).cases;
        assert_eq!(set[0].expected.as_deref(), Some("right"));
        let found = beside(&set, std::slice::from_ref(&run));
        assert_eq!((found.known, found.rejected.len()), (1, 0));
        let found = beside(&set, &[Decided { decision: "reject".to_owned(), ..run }]);
        assert_eq!((found.known, found.rejected.len()), (0, 1), "no reviewer accepts it now");
    }

    #[test]
    fn a_policy_that_changes_supersedes_no_case() {
        let redact = |case: &EvalCase| {
            let mut case = case.clone();
            case.expected = case.expected.map(|answer| answer.replace("Zed", "[NAME_1]"));
            Ok(case)
        };
        let runs = [decided(1, "a", "ask Zed")];
        let target = |cases| Target { name: "s", cases, taken_out: &[] };
        let before = beside(&[], &runs).cases;
        let found = harvest(&runs, target(&before), &wanted(), &redact).expect("harvests");
        assert_eq!((found.cases.len(), found.known), (0, 1));
        let new = harvest(&runs, target(&[]), &wanted(), &redact).expect("harvests").cases;
        assert_eq!((new[0].expected.as_deref(), &new[0].id), (Some("ask [NAME_1]"), &before[0].id));
        // Without the name in the policy, the case stays redacted.
        let found = beside(&new, &runs);
        assert_eq!((found.cases.len(), found.known), (0, 1));
    }

    #[test]
    fn every_class_has_a_kind() {
        let kinds = ["success", "policy_exception", "uncertain", "tool_failure"].map(kind_of);
        assert_eq!(kinds, [CaseKind::Normal, CaseKind::MustFailSafely, CaseKind::Edge, CaseKind::Failure]);
    }
}
