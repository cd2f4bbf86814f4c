//! A candidate with everything that a reviewer reads: its run, the statements about it, what changed in its release, its neighbours.
//!
//! `show` prints the sections of a case, and `next` draws them. Their text is as the tables have it: whoever shows it wraps it with
//! [`crate::screen::wrap`], which replaces control characters.

use bellwether_base::Result;
use bellwether_evidence::{Changes, changes_of_release};
use bellwether_queries::{Session, quoted};
use serde_json::{Map, Value};

use super::Candidate;
use super::content::{Part, parts};
use super::history::History;
use super::statement::Said;

/// Most neighbours of a case.
const NEIGHBOURS: usize = 6;

/// Columns of a run that a case has.
const OF_RUN: &str = "ended_at, outcome_status, outcome_reason_code, failure_component, failure_step, failure_error_type, \
    validation_valid, escalated, escalation_reason_code, escalation_to, model, prompt_name, prompt_version, latency_ms, cost, \
    cost_currency, trace_id, content_json, truncated, steps_json, tool_calls, retrieval, field_errors, policy_exceptions, scores";

/// Columns of a statement about a run.
const OF_STATEMENT: &str = "event_type, event_time, source, reviewer, review_decision, review_failure_mode, review_make_eval_case, \
    review_leased_until, review_retired, review_json, scores, topic, partition, \"offset\"";

/// A candidate with everything that a reviewer reads. Rows are as the views have them.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) candidate: Candidate,
    /// The row of the candidate, whole.
    pub(super) row: Map<String, Value>,
    /// None if the events of the run are no longer kept.
    pub(super) run: Option<Value>,
    pub(super) statements: Vec<Value>,
    pub(super) changes: Changes,
    /// None if it has no failure signature.
    pub(super) history: Option<History>,
    pub(super) neighbours: Vec<Value>,
    /// Input and output that were fetched.
    pub(super) fetched: Vec<(&'static str, String)>,
}

/// How a line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    Good,
    Bad,
}

/// A line of any length, perhaps with line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// A part of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) title: String,
    /// True for what was said and done; false for what is known about it.
    pub(super) is_content: bool,
    pub(super) lines: Vec<Line>,
}

// === impl Case ===

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// As the session's statements.
    pub(super) async fn load(session: &Session, candidate: Candidate) -> Result<Self> {
        let (id, run_id) = (quoted(&candidate.candidate_id), quoted(&candidate.run_id));
        let tenant = quoted(&candidate.tenant);
        let one = format!("SELECT * FROM current_candidates WHERE candidate_id = {id}");
        let of_run = format!("SELECT {OF_RUN} FROM runs WHERE {} LIMIT 1", candidate.is_run());
        let said = format!(
            "SELECT {OF_STATEMENT} FROM events WHERE event_type IN ('run.review', 'run.score') AND run_id = {run_id} \
             AND (tenant = {tenant} OR tenant = '') ORDER BY event_time, topic, partition, \"offset\""
        );
        let similar = format!(
            "SELECT candidate_id, state, decision, release_id, class, reviewers FROM current_candidates \
             WHERE signature = {} AND signature <> '' AND tenant = {tenant} AND candidate_id <> {id} \
             ORDER BY ended_at DESC, candidate_id LIMIT {NEIGHBOURS}",
            quoted(&candidate.signature)
        );
        let (one, mut run, statements, neighbours, changes, history) = tokio::try_join!(
            session.rows::<Map<String, Value>>(&one),
            session.rows::<Value>(&of_run),
            session.rows::<Value>(&said),
            session.rows::<Value>(&similar),
            changes(session, &candidate),
            History::load(session, &candidate),
        )?;
        Ok(Self {
            row: one.into_iter().next().unwrap_or_default(),
            run: run.pop(),
            statements,
            changes,
            history,
            neighbours,
            fetched: Vec::new(),
            candidate,
        })
    }

    /// Returns the reviews and leases.
    pub(super) fn said(&self) -> Vec<Said> {
        let reviews = self.statements.iter().filter(|said| said["event_type"] == "run.review");
        reviews.filter_map(|said| serde_json::from_value(said.clone()).ok()).collect()
    }

    /// Returns input and output of the run.
    pub(super) fn parts(&self) -> [(&'static str, Part); 2] {
        let run = self.run.as_ref().unwrap_or(&Value::Null);
        parts(run["content_json"].as_str(), &run["truncated"])
    }

    /// Returns a text to start an expected answer from: the output of the run, as far as it is known.
    pub(super) fn output(&self) -> String {
        if let Some((_, text)) = self.fetched.iter().find(|(name, _)| *name == "output") {
            return text.clone();
        }
        match &self.parts()[1].1 {
            Part::Stored(Value::String(text)) => text.clone(),
            Part::Stored(other) => format!("{other:#}"),
            _ => String::new(),
        }
    }

    /// Returns the parts of the case in the order in which they are read. `can_fetch` is true if a command fetches content.
    pub(super) fn sections(&self, can_fetch: bool) -> Vec<Section> {
        let run = self.run.clone().unwrap_or_default();
        let of =
            |title: &str, is_content: bool, lines: Vec<Line>| Section { title: title.to_owned(), is_content, lines };
        let mut sections = vec![of("Why it is here", false, self.reasons(&run))];
        if self.run.is_none() {
            sections.push(of("Run", true, vec![plain("The events of the run are no longer kept.".to_owned())]));
        } else {
            for (name, part) in self.parts() {
                let title = if name == "input" { "Input" } else { "Output" };
                sections.push(of(title, true, self.content(name, &part, can_fetch)));
            }
        }
        sections.push(of("Steps", true, steps(&run)));
        sections.push(of("Tool calls", true, list(&run["tool_calls"], tool_call)));
        sections.push(of("Retrieval", true, list(&run["retrieval"], retrieval)));
        sections.push(of("Verdicts", false, self.verdicts(&run)));
        let release = self.candidate.release_id.as_deref().unwrap_or("?");
        sections.push(of(&format!("Changed in release {release}"), false, self.changed()));
        sections.push(of("Same failure signature", false, self.neighbours.iter().map(neighbour).collect()));
        sections.push(of("Run", false, about_run(&self.candidate, &run)));
        sections.retain(|section| !section.lines.is_empty());
        sections
    }

    fn reasons(&self, run: &Value) -> Vec<Line> {
        let candidate = &self.candidate;
        let mut lines =
            vec![bad(joined(&[candidate.classes.replace(',', ", "), format!("severity {}", candidate.severity)]))];
        if !candidate.signature.is_empty() {
            lines.push(plain(candidate.signature.clone()));
        }
        lines.extend(self.history.iter().map(|history| plain(history.line(&candidate.week))));
        let ended = joined(&[
            field(run, "outcome_status", "outcome "),
            field(run, "outcome_reason_code", ""),
            field(run, "failure_component", "in "),
            field(run, "failure_step", "step "),
            field(run, "failure_error_type", ""),
        ]);
        lines.extend(Some(plain(ended)).filter(|line| !line.text.is_empty()));
        if run["escalated"] == true {
            let reason = joined(&[field(run, "escalation_reason_code", ""), field(run, "escalation_to", "to ")]);
            lines.push(bad(format!("escalated {reason}").trim_end().to_owned()));
        }
        lines.extend(list(&run["policy_exceptions"], |one| {
            let what = [field(one, "policy_id", "policy "), field(one, "severity", ""), field(one, "action", "")];
            bad(joined(&what))
        }));
        lines.extend(list(&run["field_errors"], |one| {
            let what = [field(one, "path", "invalid "), field(one, "rule", "rule "), field(one, "message", "")];
            bad(joined(&what))
        }));
        let members = match candidate.signature_members {
            0 | 1 => String::new(),
            members => format!("; {members} runs of this week have the same signature"),
        };
        lines.push(dim(format!("It stands for {:.1} runs{members}.", 1.0 / candidate.inclusion_probability)));
        lines
    }

    fn content(&self, name: &'static str, part: &Part, can_fetch: bool) -> Vec<Line> {
        if let Some((_, text)) = self.fetched.iter().find(|(fetched, _)| *fetched == name) {
            return vec![dim("Fetched now; not stored.".to_owned()), plain(text.clone())];
        }
        let Candidate { source, run_id, .. } = &self.candidate;
        match part {
            Part::Stored(value) => said(value),
            other => other.missing(name, source, run_id, can_fetch).map(dim).into_iter().collect(),
        }
    }

    fn verdicts(&self, run: &Value) -> Vec<Line> {
        let mut lines = list(&run["scores"], |one| score(one, ""));
        for statement in &self.statements {
            let at = statement["event_time"].as_i64().map(crate::rules::time).unwrap_or_default();
            if statement["event_type"] == "run.score" {
                lines.extend(list(&statement["scores"], |one| score(one, &at)));
            } else {
                lines.push(review(statement, &at));
            }
        }
        lines
    }

    fn changed(&self) -> Vec<Line> {
        let value = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let of = |change: &bellwether_sinks::page::Change| {
            plain(format!("{}: {} → {}", change.part, value(&change.before), value(&change.after)))
        };
        let changes = self.changes.changes.iter().map(of);
        changes.chain(self.changes.notes.iter().map(|note| dim(note.clone()))).collect()
    }
}

/// Returns the changes in the release of a candidate.
async fn changes(session: &Session, candidate: &Candidate) -> Result<Changes> {
    let (Some(task), Some(release)) = (&candidate.task, &candidate.release_id) else { return Ok(Changes::default()) };
    let tenant = Some(candidate.tenant.as_str()).filter(|tenant| !tenant.is_empty());
    Box::pin(changes_of_release(session, tenant, task, release, candidate.ended_at + 1)).await
}

fn plain(text: String) -> Line {
    Line { text, tone: Tone::Plain }
}

fn dim(text: String) -> Line {
    Line { text, tone: Tone::Dim }
}

fn good(text: String) -> Line {
    Line { text, tone: Tone::Good }
}

fn bad(text: String) -> Line {
    Line { text, tone: Tone::Bad }
}

/// Returns a field as text with words before it; empty if it is absent.
fn field(row: &Value, name: &str, before: &str) -> String {
    match &row[name] {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => String::new(),
        Value::String(text) => format!("{before}{text}"),
        other => format!("{before}{other}"),
    }
}

/// Joins the parts that are not empty.
fn joined(parts: &[String]) -> String {
    let there: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    there.join(" · ")
}

fn list(rows: &Value, line: impl Fn(&Value) -> Line) -> Vec<Line> {
    rows.as_array().into_iter().flatten().map(line).collect()
}

/// Returns a duration in microseconds, as text.
fn duration(row: &Value, name: &str) -> String {
    row[name].as_f64().map(|micros| format!("{:.0} ms", micros / 1e3)).unwrap_or_default()
}

/// Returns content as lines: messages by their roles, other JSON indented.
fn said(value: &Value) -> Vec<Line> {
    let messages = value.as_array().or_else(|| value["messages"].as_array());
    let is_message = |one: &Value| one["role"].is_string() && !one["content"].is_null();
    match (value, messages) {
        (Value::String(text), _) => vec![plain(text.clone())],
        (_, Some(messages)) if !messages.is_empty() && messages.iter().all(is_message) => messages
            .iter()
            .flat_map(|one| {
                let text = match &one["content"] {
                    Value::String(text) => text.clone(),
                    other => format!("{other:#}"),
                };
                [dim(format!("{}:", one["role"].as_str().unwrap_or_default())), plain(text)]
            })
            .collect(),
        (other, _) => vec![plain(format!("{other:#}"))],
    }
}

/// Returns the steps of a run, of which every field is optional and kept as sent.
fn steps(run: &Value) -> Vec<Line> {
    let steps: Value = run["steps_json"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let known = ["name", "kind", "decision", "status", "latency_ms", "span_id"];
    let step = |(place, one): (usize, &Value)| {
        let time = one["latency_ms"].as_f64().map(|time| format!("{time:.0} ms")).unwrap_or_default();
        let mut parts = vec![
            field(one, "name", ""),
            field(one, "kind", ""),
            field(one, "decision", "→ "),
            field(one, "status", ""),
            time,
        ];
        let others = one.as_object().into_iter().flatten().filter(|(name, _)| !known.contains(&name.as_str()));
        parts.extend(others.map(|(name, value)| format!("{name} {value}")));
        let text = format!("{}. {}", place + 1, joined(&parts));
        let failed = one["status"].as_str().is_some_and(|status| !["ok", "success", "completed"].contains(&status));
        if failed { bad(text) } else { plain(text) }
    };
    steps.as_array().into_iter().flatten().enumerate().map(step).collect()
}

fn tool_call(one: &Value) -> Line {
    let flag = |name: &str, text: &str| if one[name] == true { text.to_owned() } else { String::new() };
    let invalid = if one["args_valid"] == false { "invalid arguments".to_owned() } else { String::new() };
    let text = joined(&[
        field(one, "name", ""),
        field(one, "status", ""),
        field(one, "error_type", ""),
        invalid,
        duration(one, "latency_micros"),
        field(one, "risk", "risk "),
        flag("side_effect", "changes something outside"),
        field(one, "approval_decision", "approval "),
        one["attempt"].as_i64().filter(|attempt| *attempt > 1).map(|n| format!("attempt {n}")).unwrap_or_default(),
    ]);
    if one["failed"] == true { bad(text) } else { plain(text) }
}

fn retrieval(one: &Value) -> Line {
    let returned = match (one["returned_k"].as_i64(), one["requested_k"].as_i64()) {
        (Some(returned), Some(requested)) => format!("{returned} of {requested} documents"),
        (Some(returned), None) => format!("{returned} documents"),
        _ => String::new(),
    };
    let document = |one: &Value| {
        let version = field(one, "version", "@");
        let cited = if one["cited"] == true { " (cited)" } else { "" };
        format!("\n  {}{version}{cited}", field(one, "id", ""))
    };
    let documents: String = one["documents"].as_array().into_iter().flatten().map(document).collect();
    let text = joined(&[
        field(one, "source_id", ""),
        field(one, "status", ""),
        field(one, "error_type", ""),
        returned,
        duration(one, "latency_micros"),
    ]);
    let failed = one["status"].as_str().is_some_and(|status| !["ok", "success"].contains(&status));
    let text = format!("{text}{documents}");
    if failed { bad(text) } else { plain(text) }
}

fn score(one: &Value, at: &str) -> Line {
    let by = joined(&[field(one, "kind", ""), field(one, "evaluator_id", "")]);
    let text = joined(&[
        format!("{} by {by}", field(one, "name", "")),
        field(one, "value", ""),
        field(one, "label", ""),
        field(one, "explanation", ""),
        at.to_owned(),
    ]);
    match one["passed"].as_bool() {
        Some(true) => good(format!("passed {text}")),
        Some(false) => bad(format!("failed {text}")),
        None => plain(text),
    }
}

/// Returns a review with its origin: the name of the reviewer is what the event states, and only its source can be traced.
fn review(one: &Value, at: &str) -> Line {
    let name = one["reviewer"].as_str().unwrap_or("unknown");
    let origin = format!(
        "from {} at {}/{}/{}",
        field(one, "source", ""),
        field(one, "topic", ""),
        one["partition"],
        one["offset"]
    );
    if let Some(until) = one["review_leased_until"].as_i64() {
        return dim(format!("taken by {name} until {} · {origin}", crate::rules::time(until)));
    }
    if one["review_retired"] == true {
        return dim(format!("eval case retired by {name} · {at} · {origin}"));
    }
    let decision = one["review_decision"].as_str().unwrap_or_default();
    let more: Value = one["review_json"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let expected = match &more["expected"] {
        Value::Null => String::new(),
        Value::String(text) => format!("expected: {text}"),
        other => format!("expected: {other}"),
    };
    let case = if one["review_make_eval_case"] == true { "eval case".to_owned() } else { String::new() };
    let text = joined(&[
        format!("{decision} by {name}"),
        field(one, "review_failure_mode", ""),
        case,
        expected,
        at.to_owned(),
        origin,
    ]);
    match decision {
        "accept" => good(text),
        "reject" | "edit" => bad(text),
        _ => plain(text),
    }
}

fn neighbour(one: &Value) -> Line {
    let id: String = one["candidate_id"].as_str().unwrap_or_default().chars().take(8).collect();
    let state = field(one, "state", "").replace('_', " ");
    plain(joined(&[
        id,
        state,
        field(one, "decision", ""),
        field(one, "release_id", "release "),
        field(one, "reviewers", "by "),
    ]))
}

fn about_run(candidate: &Candidate, run: &Value) -> Vec<Line> {
    let cost = run["cost"].as_f64().map(|cost| format!("cost {cost:.4} {}", field(run, "cost_currency", "")));
    let prompt = joined(&[field(run, "prompt_name", "prompt "), field(run, "prompt_version", "version ")]);
    let lines = [
        joined(&[
            format!("run {}", candidate.run_id),
            format!("attempt {}", candidate.attempt),
            candidate.source.clone(),
        ]),
        joined(&[format!("ended {}", crate::rules::time(candidate.ended_at)), field(run, "model", "model "), prompt]),
        joined(&[
            run["latency_ms"].as_f64().map(|time| format!("{time:.0} ms")).unwrap_or_default(),
            cost.unwrap_or_default().trim_end().to_owned(),
            field(run, "trace_id", "trace "),
        ]),
    ];
    lines.into_iter().filter(|line| !line.is_empty()).map(plain).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A case with content in every section, of which some is hostile to a terminal.
    pub(in crate::candidates) fn example() -> Case {
        let candidate = Candidate {
            candidate_id: "3fa9c01d00000000".to_owned(),
            week: "2026-W48".to_owned(),
            state: "queued".to_owned(),
            class: "tool_failure".to_owned(),
            classes: "tool_failure,judged_bad".to_owned(),
            severity: "high".to_owned(),
            task: Some("refund_triage".to_owned()),
            release_id: Some("r142".to_owned()),
            stage: Some("canary".to_owned()),
            signature: "tool_failure tool=issue_refund".to_owned(),
            run_id: "run-1".to_owned(),
            source: "support-bot".to_owned(),
            attempt: 1,
            ended_at: 1_795_348_800_000_000,
            inclusion_probability: 0.25,
            signature_members: 12,
            ..Candidate::default()
        };
        let run = json!({
            "outcome_status": "failure", "escalated": true, "escalation_reason_code": "refused",
            "content_json": json!({
                "input": [{"role": "user", "content": "Refund me \u{1b}[2J\u{1b}]0;gone\u{7} now 👋 שלום \u{202e}"}],
                "output_sha256": "sha256:00ff",
            }).to_string(),
            "steps_json": json!([{"name": "plan", "latency_ms": 12.4}, {"name": "pay", "status": "error", "why": 7}]).to_string(),
            "tool_calls": [{"name": "issue_refund", "status": "error", "failed": true, "latency_micros": 1_500_000}],
            "retrieval": [{"source_id": "kb", "status": "ok", "returned_k": 1, "requested_k": 3,
                "documents": [{"id": "doc-1", "version": "7", "cited": true}]}],
            "field_errors": [{"path": "/amount", "rule": "type", "message": "is \u{0} not a number"}],
            "policy_exceptions": [{"policy_id": "pii", "severity": "high"}],
            "scores": [{"name": "ok", "kind": "llm", "evaluator_id": "judge", "passed": false}],
        });
        let statement = json!({
            "event_type": "run.review", "event_time": 1_795_348_900_000_000_i64, "source": "bellwether-review",
            "reviewer": "ben", "review_decision": "reject", "review_failure_mode": "wrong_sum",
            "review_json": "{\"expected\":\"12.50\"}", "topic": "llm.runs", "partition": 0, "offset": 41,
        });
        let change = bellwether_sinks::page::Change {
            part: "prompt".to_owned(),
            before: Some("17".to_owned()),
            after: Some("18".to_owned()),
        };
        Case {
            candidate,
            row: Map::new(),
            run: Some(run),
            statements: vec![statement],
            changes: Changes { changes: vec![change], notes: Vec::new() },
            history: Some(crate::candidates::history::tests::back()),
            neighbours: vec![
                json!({"candidate_id": "aaaabbbbccccdddd", "state": "second_review", "release_id": "r141"}),
            ],
            fetched: Vec::new(),
        }
    }

    fn text(case: &Case) -> String {
        let all = case.sections(false);
        all.iter().flat_map(|section| &section.lines).map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_case_says_what_a_reviewer_needs() {
        let text = text(&example());
        for part in [
            "tool_failure, judged_bad",
            "It stands for 4.0 runs; 12 runs of this week",
            "This failure came back after 3 weeks without it; first seen on 2026-10-26 in r140.",
            "user:",
            "only its hash sha256:00ff: ask the producer `support-bot` for run `run-1`",
            "2. pay · error · why 7",
            "issue_refund · error · 1500 ms",
            "doc-1@7 (cited)",
            "failed ok by llm · judge",
            "reject by ben · wrong_sum · expected: 12.50",
            "from bellwether-review at llm.runs/0/41",
            "prompt: 17 → 18",
            "aaaabbbb · second review · release r141",
            "invalid /amount · rule type",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn a_run_without_anything_has_no_empty_sections() {
        let bare = Case {
            run: None,
            statements: Vec::new(),
            changes: Changes::default(),
            neighbours: Vec::new(),
            ..example()
        };
        let sections = bare.sections(true);
        assert!(sections.iter().all(|section| !section.lines.is_empty()));
        assert!(text(&bare).contains("no longer kept"));
        assert_eq!(bare.output(), "");
    }

    #[test]
    fn an_answer_starts_from_the_output_that_is_known() {
        let with = |output: Value| {
            let run = json!({ "content_json": json!({ "output": output }).to_string() });
            Case { run: Some(run), ..example() }
        };
        assert_eq!(with(json!("12")).output(), "12");
        assert_eq!(with(json!({"sum": 12})).output(), "{\n  \"sum\": 12\n}");
        assert_eq!(example().output(), "", "only its hash is known");
        let fetched = Case { fetched: vec![("output", "whole".to_owned())], ..example() };
        assert_eq!(fetched.output(), "whole");
        assert!(text(&fetched).contains("Fetched now"));
    }
}
