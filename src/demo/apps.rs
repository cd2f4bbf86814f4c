//! Three simulated apps that emit run events as real apps would: plain JSON, one object per message.
//!
//! * support-assistant: tasks `refund_triage` and `order_status`, with tool calls. Refunds need an approval, and some lack it.
//! * policy-assistant: task `policy_answer`, citing versioned documents, some of them outdated. It rarely knows whether it was
//!   right: a judge model decides some minutes later, too leniently, and people review a part of its answers later still.
//! * invoice-extractor: task `invoice_extraction`, with schema errors by field.
//!
//! * `apps/task.rs` describes the tasks; `apps/verdict.rs` makes scores, reviews and reopened tickets, which are held back until
//!   they are due.
//!
//! Rules: the same seed and the same calls produce the same bytes; no clock is read. The generator knows nothing of Kafka.

mod content;
mod task;
mod verdict;

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use task::{INVOICE, ORDER, POLICY, REFUND, Task, provider};
pub(crate) use task::{INVOICE_CANARY, SUPPORT_CANARY};
use verdict::{JUDGE_SECONDS, REOPEN_SECONDS, REVIEW_SECONDS, Verdict};

/// Runs between two poison messages.
const POISON_EVERY: u64 = 1500;

/// Citations before the policies are revised.
const CITED_BEFORE_REVISION: u32 = 1000;

/// Share of policy answers with an outcome that the app does not know.
const POLICY_UNKNOWN: f64 = 0.6;

/// Share of policy answers that people review.
const POLICY_REVIEWED: f64 = 0.3;

/// Share of wrong policy answers that the judge passes.
const JUDGE_LENIENT: f64 = 0.7;

/// Share of order tickets that are reopened.
const REOPENED: f64 = 0.02;

/// Share of an app's traffic that its canary gets.
const CANARY_SHARE: f64 = 0.3;

/// One message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Kafka key: the run's id.
    pub(crate) key: String,
    /// The message as the app sends it.
    pub(crate) payload: Vec<u8>,
}

/// The canaries at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Trial {
    /// Harm of the invoice extractor's canary, if it runs: 0 is as good as the baseline, 1 is worst.
    pub(crate) invoice: Option<f64>,
    /// True while the support assistant has a canary, which is as good as its baseline.
    pub(crate) support: bool,
}

/// The three apps.
pub(crate) struct Apps {
    rng: StdRng,
    prefix: u64,
    sequence: u64,
    cited: u32,
    /// Pending verdicts by due time.
    later: BTreeMap<(i64, u64), Verdict>,
}

/// The random choices of a run, drawn once so that all fields agree.
struct Draw {
    canary: bool,
    harm: f64,
    status: &'static str,
    latency_ms: f64,
    cost_nanos: f64,
    escalated: bool,
}

// === impl Apps ===

impl Apps {
    /// Creates the apps with a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), prefix: seed, sequence: 0, cited: 0, later: BTreeMap::new() }
    }

    /// Returns the next message, about a run that ended at this time (µs since 1970).
    pub(crate) fn next(&mut self, ended_micros: i64, trial: Trial) -> Message {
        self.sequence += 1;
        if self.sequence.is_multiple_of(POISON_EVERY) {
            return self.poison(ended_micros);
        }
        let pick: f64 = self.rng.random();
        let task = match pick {
            x if x < 0.24 => &REFUND,
            x if x < 0.46 => &ORDER,
            x if x < 0.68 => &POLICY,
            _ => &INVOICE,
        };
        self.run(task, ended_micros, trial)
    }

    /// Returns the next verdict that is due by now.
    pub(crate) fn late(&mut self, now_micros: i64) -> Option<Message> {
        self.late_by(now_micros, 0)
    }

    /// As [`Apps::late`], with verdicts due earlier by `ahead_micros`, but never before the end of their run.
    pub(crate) fn late_by(&mut self, now_micros: i64, ahead_micros: i64) -> Option<Message> {
        let due = self.later.first_entry().filter(|first| first.key().0 <= now_micros.saturating_add(ahead_micros))?;
        Some(due.remove().message(now_micros))
    }

    fn schedule(&mut self, ended_micros: i64, (least, most): (i64, i64), verdict: Verdict) {
        let due = ended_micros + self.between(least * 1000, most * 1000) * 1000;
        self.later.insert((due, self.sequence * 4 + self.later.len() as u64 % 4), verdict);
    }

    /// Schedules the verdicts about a run. Only the generator knows if it truly succeeded.
    fn schedule_verdicts(&mut self, task: &Task, run_id: &str, ended_micros: i64, succeeded: bool) {
        let run_id = run_id.to_owned();
        match task.name {
            "policy_answer" => {
                if self.chance(POLICY_REVIEWED) {
                    let reviewer = self.pick(&["ann", "bob", "chen"]);
                    let review = Verdict::Review { run_id: run_id.clone(), reviewer, accepts: succeeded };
                    self.schedule(ended_micros, REVIEW_SECONDS, review);
                }
                let passed = if succeeded { !self.chance(0.01) } else { self.chance(JUDGE_LENIENT) };
                self.schedule(ended_micros, JUDGE_SECONDS, Verdict::Score { run_id, passed });
            }
            "order_status" if self.chance(REOPENED) => {
                self.schedule(ended_micros, REOPEN_SECONDS, Verdict::Reopened { run_id });
            }
            _ => {}
        }
    }

    fn run(&mut self, task: &Task, ended_micros: i64, trial: Trial) -> Message {
        let mut draw = self.draw(task, trial);
        let run_id = format!("run_{:x}_{:07}", self.prefix, self.sequence);
        self.schedule_verdicts(task, &run_id, ended_micros, draw.status == "success");
        let app = task.name == "policy_answer";
        if app && self.chance(POLICY_UNKNOWN) {
            draw.status = "unknown";
        }
        let started = ended_micros - micros(draw.latency_ms);
        let latency = rounded(draw.latency_ms, 1);
        let input = self.between(900, 5200);
        let output = self.between(80, 900);
        let mut data = json!({
            "task": task.name,
            "environment": "production",
            "release": self.release(task, draw.canary),
            "rollout": { "stage": if draw.canary { "canary" } else { "full" }, "assignment_unit": "session" },
            "started_at": time(started),
            "ended_at": time(ended_micros),
            "outcome": { "status": draw.status, "source": if app { "app" } else { "rule" } },
            "tokens": { "input": input, "input_cache_read": input * 6 / 10, "output": output },
            "cost": { "amount": amount(draw.cost_nanos), "currency": "USD", "source": "gateway" },
            "latency": {
                "total_ms": latency,
                "ttft_ms": rounded(draw.latency_ms * self.rng.random_range(0.12..0.25), 1),
                "llm_ms": rounded(draw.latency_ms * 0.78, 1),
            },
            "llm_calls": self.between(1, 3),
            "session_id": format!("s_{:x}_{}", self.prefix, self.sequence / 3),
            "segments": { "locale": self.pick(&["en-US", "en-GB", "de-DE", "fr-FR"]), "plan": self.pick(&["free", "pro", "team"]) },
        });
        if draw.status != "success" {
            data["outcome"]["reason_code"] = json!(reason(draw.status));
        }
        if draw.escalated {
            data["escalation"] = json!({
                "reason_code": self.pick(&["low_confidence", "user_requested", "policy_limit"]),
                "initiated_by": "model", "to": "tier2", "phase": "before_answer",
            });
        }
        match task.name {
            "policy_answer" => self.cite(&mut data),
            "invoice_extraction" => self.validate(&mut data, &draw),
            name => self.call_tools(&mut data, name == "refund_triage"),
        }
        data["content"] = content::of(task.name, self.prefix ^ self.sequence, draw.status, &data);
        let event = json!({
            "spec": "run-event/1.0", "type": "run.completed", "source": task.source,
            "run_id": run_id, "time": time(ended_micros), "data": data,
        });
        Message { key: run_id, payload: event.to_string().into_bytes() }
    }

    fn draw(&mut self, task: &Task, trial: Trial) -> Draw {
        let on_trial = match task.source {
            "invoice-extractor" => trial.invoice,
            "support-assistant" => trial.support.then_some(0.0),
            _ => None,
        };
        let canary = on_trial.is_some() && self.chance(CANARY_SHARE);
        let harm = if canary { on_trial.unwrap_or(0.0).clamp(0.0, 1.0) } else { 0.0 };
        let status = if self.chance(0.01) {
            "unknown"
        } else if self.chance(task.success - 0.34 * harm) {
            "success"
        } else {
            match self.rng.random::<f64>() {
                x if x < 0.70 => "failure",
                x if x < 0.85 => "error",
                x if x < 0.95 => "timeout",
                _ => "abandoned",
            }
        };
        let slow = if status == "timeout" { 4.0 } else { 1.0 };
        Draw {
            canary,
            harm,
            status,
            latency_ms: task.latency_ms * self.spread(0.45) * slow * (1.0 + 0.5 * harm),
            cost_nanos: task.cost_nanos * self.spread(0.35) * (1.0 + 1.1 * harm),
            escalated: self.chance(task.escalation + 0.08 * harm),
        }
    }

    fn release(&mut self, task: &Task, canary: bool) -> Value {
        let (id, prompt) = match (canary, task.source) {
            (true, "invoice-extractor") => (INVOICE_CANARY, "12"),
            (true, _) => (SUPPORT_CANARY, "18"),
            (false, "invoice-extractor") => (task.release, "11"),
            (false, _) => (task.release, "17"),
        };
        let mut release = json!({
            "id": id,
            "prompt": { "name": task.name, "version": prompt },
            "model": { "provider": provider(task.model), "requested": task.model, "responded": task.model },
            "params": { "temperature": 0.2, "max_tokens": 900 },
            "code": { "version": "5.2.1", "commit": "9f1c2e7" },
        });
        if canary {
            release["parent_id"] = json!(task.release);
        }
        if task.name == "policy_answer" {
            release["retrieval"] = json!({ "index_version": "2026-11-19", "top_k": 6 });
        }
        release
    }

    fn call_tools(&mut self, data: &mut Value, refund: bool) {
        let mut calls = vec![self.tool("lookup_order", 0.985)];
        if refund {
            calls.push(self.tool("check_refund_policy", 0.99));
            if self.chance(0.6) {
                let mut call = self.tool("issue_refund", 0.97);
                call["side_effect"] = json!(true);
                call["risk"] = json!("high");
                // 2 % of refunds go through without an approval, for the pipeline to find.
                if self.chance(0.98) {
                    let decision = self.pick(&["approved", "approved", "approved", "edited"]);
                    call["approval"] =
                        json!({ "required": true, "decision": decision, "wait_ms": self.between(400, 90_000) });
                }
                calls.push(call);
            }
        }
        data["tool_calls"] = json!(calls);
        if self.chance(0.004) {
            data["policy_exceptions"] = json!([{
                "policy_id": "pii_v2", "severity": "medium", "category": "pii", "action": "redacted", "source": "output",
            }]);
        }
    }

    fn tool(&mut self, name: &str, ok: f64) -> Value {
        let latency = self.between(40, 400);
        if self.chance(ok) {
            json!({ "name": name, "status": "ok", "latency_ms": latency, "args_valid": true })
        } else {
            json!({ "name": name, "status": "error", "error_type": "upstream_timeout", "latency_ms": latency * 5, "args_valid": true })
        }
    }

    fn cite(&mut self, data: &mut Value) {
        let mut documents = Vec::new();
        for _ in 0..self.between(1, 3) {
            let number = self.between(1, 24);
            // The policies are revised early in the history; after that, one citation in 25 is of the old version.
            self.cited += 1;
            let version = if self.cited <= CITED_BEFORE_REVISION || self.chance(0.04) { 3 } else { 4 };
            documents.push(json!({
                "id": format!("policy-{number:02}"), "version": version.to_string(), "cited": true,
                "score": rounded(self.rng.random_range(0.55..0.95), 3),
            }));
        }
        data["retrieval"] = json!([{
            "source_id": "policies", "index_version": "2026-11-19", "requested_k": 6, "returned_k": 6,
            "latency_ms": self.between(30, 180), "status": "ok", "documents": documents,
        }]);
    }

    fn validate(&mut self, data: &mut Value, draw: &Draw) {
        const FIELDS: &[(&str, &str, &str)] = &[
            ("/total_amount", "type", "expected number"),
            ("/vat_id", "pattern", "does not look like a VAT id"),
            ("/due_date", "format", "expected a date"),
            ("/currency", "enum", "not a currency"),
            ("/line_items/0/quantity", "minimum", "must be above zero"),
            ("/supplier/name", "required", "is missing"),
        ];
        let broken = self.chance(0.035 + 0.30 * draw.harm);
        let first_valid = !broken && !self.chance(0.04);
        let mut fields = Vec::new();
        if broken {
            // The bad canary mostly gets the amount wrong.
            let index = if draw.harm > 0.0 && self.chance(0.7) { 0 } else { self.rng.random_range(0..FIELDS.len()) };
            let (path, rule, message) = FIELDS[index];
            fields.push(json!({ "path": path, "valid": false, "rule": rule, "message": message }));
        }
        data["validation"] = json!({
            "applicable": true, "valid": !broken, "first_attempt_valid": first_valid,
            "attempts": if first_valid { 1 } else { 2 }, "schema_id": "invoice", "schema_version": "9",
            "fields_total": 14, "fields_invalid": fields.len(), "fields": fields,
        });
    }

    /// Returns a message that the decoder must reject.
    fn poison(&mut self, ended_micros: i64) -> Message {
        let key = format!("poison_{:x}_{}", self.prefix, self.sequence);
        let text = match self.rng.random_range(0..5) {
            0 => "{\"spec\":\"run-event/1.0\",\"run_id\":\"cut".to_owned(),
            1 => "Traceback (most recent call last): ValueError".to_owned(),
            2 => json!({
                "spec": "run-event/1.0", "run_id": key,
                "data": { "task": "refund_triage", "release": { "id": "x" }, "rollout": { "stage": "prod" },
                          "started_at": time(ended_micros), "ended_at": time(ended_micros), "outcome": { "status": "success" } },
            })
            .to_string(),
            3 => json!({ "spec": "run-event/1.0", "run_id": key, "data": { "task": "order_status" } }).to_string(),
            _ => json!({
                "spec": "run-event/1.0", "run_id": key,
                "data": { "task": "refund_triage", "release": { "id": "x" }, "started_at": "yesterday",
                          "ended_at": time(ended_micros), "outcome": { "status": "success" } },
            })
            .to_string(),
        };
        Message { key, payload: text.into_bytes() }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random::<f64>() < probability
    }

    fn between(&mut self, least: i64, most: i64) -> i64 {
        self.rng.random_range(least..=most)
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[self.rng.random_range(0..words.len())]
    }

    /// Returns a log-normal factor with median one; the normal is the sum of twelve uniform draws.
    fn spread(&mut self, sigma: f64) -> f64 {
        let normal: f64 = (0..12).map(|_| self.rng.random::<f64>()).sum::<f64>() - 6.0;
        (sigma * normal).exp()
    }
}

fn reason(status: &str) -> &'static str {
    match status {
        "failure" => "wrong_answer",
        "error" => "provider_error",
        "timeout" => "deadline",
        "abandoned" => "user_left",
        _ => "not_judged",
    }
}

/// Converts milliseconds to microseconds; simulated latencies are far inside the range.
fn micros(ms: f64) -> i64 {
    (ms * 1000.0) as i64
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Formats nano-units as a decimal number.
fn amount(nanos: f64) -> String {
    let nanos = nanos as u64;
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn time(micros: i64) -> String {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_435_200_000_000;

    fn messages(seed: u64, count: i64, trial: Trial) -> Vec<Message> {
        let mut apps = Apps::new(seed);
        (0..count).map(|index| apps.next(NOON + index * 1_000_000, trial)).collect()
    }

    #[test]
    fn the_same_seed_produces_the_same_bytes() {
        let trial = Trial { invoice: Some(0.5), support: true };
        assert_eq!(messages(7, 2000, trial), messages(7, 2000, trial));
        assert_ne!(messages(7, 10, trial), messages(8, 10, trial));
    }

    #[test]
    fn a_bad_canary_succeeds_less_than_its_baseline() {
        let trial = Trial { invoice: Some(1.0), support: true };
        let mut runs = [[0u32; 2]; 2];
        for message in messages(1, 20_000, trial) {
            let Ok(event) = serde_json::from_slice::<Value>(&message.payload) else { continue };
            if event["source"] == "invoice-extractor" {
                let canary = usize::from(event["data"]["rollout"]["stage"] == "canary");
                runs[canary][usize::from(event["data"]["outcome"]["status"] == "success")] += 1;
            }
        }
        let rate = |[bad, good]: [u32; 2]| f64::from(good) / f64::from(good + bad);
        assert!(rate(runs[0]) - rate(runs[1]) > 0.25, "{runs:?}");
    }

    #[test]
    fn the_judge_is_more_lenient_than_people_and_both_decide_minutes_after_the_run() {
        let mut apps = Apps::new(5);
        let (mut scores, mut reviews, mut reopened) = ([0_u32; 2], [0_u32; 2], 0);
        let mut ended = BTreeMap::new();
        for index in 0..8000 {
            let now = NOON + index * 500_000;
            let message = apps.next(now, Trial::default());
            ended.insert(message.key, now);
            while let Some(message) = apps.late(now) {
                let event: Value = serde_json::from_slice(&message.payload).expect("JSON");
                let after = now - ended[&message.key];
                assert!((120_000_000..=1_210_000_000).contains(&after), "{after} µs after: {event}");
                match event["type"].as_str() {
                    Some("run.score") => scores[usize::from(event["data"]["passed"] == true)] += 1,
                    Some("run.review") => reviews[usize::from(event["data"]["decision"] == "accept")] += 1,
                    _ => reopened += 1,
                }
            }
        }
        let rate = |[bad, good]: [u32; 2]| f64::from(good) / f64::from(good + bad);
        assert!(rate(scores) > rate(reviews) + 0.03, "{scores:?} {reviews:?}");
        assert!(reopened > 5, "{reopened}");
    }

    #[test]
    fn few_messages_are_poison() {
        let whole = messages(3, 3000, Trial::default());
        assert_eq!(whole.iter().filter(|message| message.key.starts_with("poison")).count(), 2);
    }
}
