//! Generates run events as apps would send them, from a seed: high-cardinality ids, varied text, amounts, latencies,
//! tools and sessions, for six tasks with two releases each, or for a [`Fleet`] of any number of groups.
//!
//! Rules: every event is valid and belongs to a run of its own; the same seed and calls give the same bytes; no clock
//! is read. Amounts of money are integer micro-units, so that any program can add them exactly.

mod conversation;

use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The amount of detail in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// About 800 bytes: outcome, tokens, cost, latency, a tool call or two.
    Small,
    /// About 3 kB: retrieval, approvals, validation, steps, scores, and the text of question and answer too.
    Large,
    /// About 11 kB: as [`Self::Large`], with the messages of a conversation instead. Results of tools are JSON in strings, full of
    /// ids, dates, times and amounts.
    Conversation,
}

/// One message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Kafka key: the run's id.
    pub key: String,
    /// JSON text.
    pub payload: Vec<u8>,
}

/// A fleet: every task has all releases, and every release has all models. Each run belongs to any of the groups with equal
/// probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Tasks, variants of the six above.
    pub tasks: usize,
    /// Releases of each task; the first is in full rollout, the others are canaries.
    pub releases: usize,
    /// Models of each release.
    pub models: usize,
}

/// The group of a run in a fleet, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Number of the task.
    pub task: usize,
    /// Number of the release.
    pub release: usize,
    /// Number of the model.
    pub model: usize,
}

/// Generates events.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    size: Size,
    session: u64,
    left_in_session: u32,
    fleet: Option<Fleet>,
    /// Runs of each group of the fleet so far.
    drawn: Vec<u64>,
}

/// A task and the app that performs it.
struct Task {
    source: &'static str,
    name: &'static str,
    /// Model and its provider.
    model: (&'static str, &'static str),
    /// The release in full rollout, and the canary.
    releases: [&'static str; 2],
    success: f64,
    latency_ms: f64,
    cost_micros: f64,
    tools: &'static [&'static str],
}

const TASKS: [Task; 6] = [
    Task {
        source: "support-assistant",
        name: "refund_triage",
        model: ("gpt-5.4", "openai"),
        releases: ["2026-11-12.2", "2026-11-23.1"],
        success: 0.86,
        latency_ms: 2600.0,
        cost_micros: 6100.0,
        tools: &["lookup_order", "check_refund_policy", "issue_refund"],
    },
    Task {
        source: "support-assistant",
        name: "order_status",
        model: ("gpt-5.4-mini", "openai"),
        releases: ["2026-11-12.2", "2026-11-23.1"],
        success: 0.95,
        latency_ms: 1100.0,
        cost_micros: 900.0,
        tools: &["lookup_order", "track_parcel"],
    },
    Task {
        source: "policy-assistant",
        name: "policy_answer",
        model: ("claude-sonnet-4-5", "anthropic"),
        releases: ["policy-41", "policy-42"],
        success: 0.91,
        latency_ms: 3400.0,
        cost_micros: 9800.0,
        tools: &["search_policies"],
    },
    Task {
        source: "invoice-extractor",
        name: "invoice_extraction",
        model: ("gemini-2.5-flash", "google"),
        releases: ["extract-7.3", "extract-7.4"],
        success: 0.93,
        latency_ms: 4200.0,
        cost_micros: 3200.0,
        tools: &["read_pages", "lookup_supplier"],
    },
    Task {
        source: "review-bot",
        name: "code_review",
        model: ("claude-opus-4-5", "anthropic"),
        releases: ["r118", "r119"],
        success: 0.82,
        latency_ms: 14_000.0,
        cost_micros: 41_000.0,
        tools: &["read_file", "run_tests", "search_code", "post_comment"],
    },
    Task {
        source: "meeting-notes",
        name: "meeting_summary",
        model: ("gpt-5.4-mini", "openai"),
        releases: ["notes-3.0.4", "notes-3.1.0"],
        success: 0.97,
        latency_ms: 7800.0,
        cost_micros: 2100.0,
        tools: &["fetch_transcript"],
    },
];

/// Fraction of a task's runs that the canary gets.
const CANARY_SHARE: f64 = 0.1;

/// Vocabulary of generated texts.
const WORDS: [&str; 64] = [
    "the",
    "order",
    "arrived",
    "late",
    "and",
    "customer",
    "asks",
    "for",
    "a",
    "refund",
    "of",
    "shipping",
    "costs",
    "because",
    "parcel",
    "was",
    "damaged",
    "please",
    "check",
    "policy",
    "section",
    "about",
    "returns",
    "within",
    "thirty",
    "days",
    "invoice",
    "total",
    "does",
    "not",
    "match",
    "line",
    "items",
    "supplier",
    "changed",
    "address",
    "tests",
    "fail",
    "on",
    "main",
    "since",
    "yesterday",
    "function",
    "returns",
    "null",
    "when",
    "list",
    "is",
    "empty",
    "meeting",
    "agreed",
    "to",
    "ship",
    "next",
    "week",
    "after",
    "review",
    "by",
    "legal",
    "team",
    "in",
    "Lisbon",
    "with",
    "Müller",
];

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Crockford's alphabet, as used by ULIDs.
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Properties drawn once per run, so that all its fields are consistent.
struct Draw {
    task: &'static Task,
    group: Option<Group>,
    canary: bool,
    status: &'static str,
    latency_ms: f64,
}

// === impl Fleet ===

impl Fleet {
    /// Returns the number of groups.
    pub fn groups(self) -> usize {
        self.tasks * self.releases * self.models
    }

    /// Returns a group by its number among all groups.
    fn group(self, number: usize) -> Group {
        let (rest, model) = (number / self.models, number % self.models);
        Group { task: rest / self.releases, release: rest % self.releases, model }
    }
}

// === impl Group ===

impl Group {
    /// Returns the names of the task, the release and the model, as events state them.
    pub fn names(self) -> [String; 3] {
        let task = &TASKS[self.task % TASKS.len()];
        [
            format!("{}_{}", task.name, self.task),
            format!("{}.{}", task.releases[0], self.release),
            format!("{}-{}", task.model.0, self.model),
        ]
    }
}

// === impl Generator ===

impl Generator {
    /// Creates a generator of runs of the six tasks.
    pub fn new(seed: u64, size: Size) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), size, session: 0, left_in_session: 0, fleet: None, drawn: Vec::new() }
    }

    /// Creates a generator of small runs of a fleet.
    pub fn of(fleet: Fleet, seed: u64) -> Self {
        Self { fleet: Some(fleet), drawn: vec![0; fleet.groups()], ..Self::new(seed, Size::Small) }
    }

    /// Returns the groups of the fleet that have runs so far, with their numbers of runs.
    pub fn drawn(&self) -> impl Iterator<Item = (Group, u64)> {
        let groups = self.fleet.into_iter().flat_map(|fleet| (0..fleet.groups()).map(move |n| fleet.group(n)));
        groups.zip(self.drawn.iter().copied()).filter(|(_, runs)| *runs > 0)
    }

    /// Returns the next event: a new run that ended at this time (µs since 1970).
    pub fn next(&mut self, ended_micros: i64) -> Event {
        let draw = self.draw();
        let key = format!("run_{}", self.text_of(26, BASE32));
        let mut json = String::with_capacity(if self.size == Size::Small { 1024 } else { 4096 });
        self.envelope(&mut json, &key, &draw, ended_micros);
        self.outcome(&mut json, &draw);
        self.usage(&mut json, &draw);
        self.tools(&mut json, &draw);
        if self.size != Size::Small {
            self.details(&mut json, &draw);
        }
        json.push_str("}}");
        Event { key, payload: json.into_bytes() }
    }

    fn draw(&mut self) -> Draw {
        let group = self.fleet.map(|fleet| {
            let number = self.rng.random_range(0..fleet.groups());
            self.drawn[number] += 1;
            fleet.group(number)
        });
        let (task, canary) = match group {
            Some(group) => (&TASKS[group.task % TASKS.len()], group.release > 0),
            None => (&TASKS[self.rng.random_range(0..TASKS.len())], self.chance(CANARY_SHARE)),
        };
        let status = match self.rng.random::<f64>() {
            x if x < task.success => "success",
            x if x < task.success + 0.01 => "unknown",
            _ => *self.pick(&["failure", "failure", "failure", "error", "timeout", "abandoned"]),
        };
        let latency_ms = task.latency_ms * self.spread(0.5) * if status == "timeout" { 4.0 } else { 1.0 };
        Draw { task, group, canary, status, latency_ms }
    }

    fn envelope(&mut self, json: &mut String, run_id: &str, draw: &Draw, ended_micros: i64) {
        let Draw { task, canary, latency_ms, .. } = draw;
        let (ended, started) = (time(ended_micros), time(ended_micros - (latency_ms * 1000.0) as i64));
        let provider = task.model.1;
        let [name, release, model] = draw.group.map_or_else(
            || [task.name, task.releases[usize::from(*canary)], task.model.0].map(str::to_owned),
            Group::names,
        );
        let prompt = 17 + u32::from(*canary);
        let stage = if *canary { "canary" } else { "full" };
        json.push_str(&format!(
            r#"{{"spec":"run-event/1.0","type":"run.completed","source":"{}","run_id":"{run_id}","time":"{ended}","data":{{"task":"{}","environment":"production","release":{{"id":"{release}","prompt":{{"name":"{}","version":"{prompt}"}},"model":{{"provider":"{provider}","requested":"{model}","responded":"{model}"}}"#,
            task.source, name, task.name,
        ));
        if self.size != Size::Small {
            json.push_str(r#","params":{"temperature":0.2,"max_tokens":900},"retrieval":{"index_version":"2026-11-19","top_k":6},"code":{"version":"5.2.1","commit":"9f1c2e7"}"#);
        }
        if self.left_in_session == 0 {
            self.session = self.rng.random();
            self.left_in_session = self.rng.random_range(1..6);
        }
        self.left_in_session -= 1;
        json.push_str(&format!(
            r#"}},"rollout":{{"stage":"{stage}"}},"started_at":"{started}","ended_at":"{ended}","session_id":"s_{:016x}""#,
            self.session,
        ));
        let locale = *self.pick(&["en-US", "en-GB", "de-DE", "fr-FR", "pt-BR", "ja-JP"]);
        let plan = *self.pick(&["free", "pro", "team"]);
        json.push_str(&format!(r#","segments":{{"locale":"{locale}","plan":"{plan}"}}"#));
    }

    fn outcome(&mut self, json: &mut String, draw: &Draw) {
        let Draw { status, .. } = draw;
        json.push_str(&format!(r#","outcome":{{"status":"{status}","source":"rule""#));
        if matches!(*status, "failure" | "error" | "timeout") {
            let reason = *self.pick(&["wrong_answer", "schema_invalid", "provider_error", "deadline", "tool_error"]);
            let component = *self.pick(&["model", "tool", "parser", "retrieval"]);
            json.push_str(&format!(
                r#","reason_code":"{reason}"}},"failure_point":{{"component":"{component}","step":"answer"}}"#
            ));
        } else {
            json.push('}');
        }
        if self.chance(0.05) {
            let reason = *self.pick(&["low_confidence", "user_requested", "policy_limit"]);
            json.push_str(&format!(
                r#","escalation":{{"reason_code":"{reason}","initiated_by":"model","to":"tier2"}}"#
            ));
        }
    }

    fn usage(&mut self, json: &mut String, draw: &Draw) {
        let input = (2400.0 * self.spread(0.6)) as u64 + 20;
        let output = (260.0 * self.spread(0.7)) as u64 + 1;
        let micros = (draw.task.cost_micros * self.spread(0.4)) as u64 + 1;
        let ttft = draw.latency_ms * self.rng.random_range(0.1..0.3);
        let llm = draw.latency_ms * self.rng.random_range(0.6..0.9);
        json.push_str(&format!(
            r#","tokens":{{"input":{input},"output":{output}}},"cost":{{"amount":"{}.{:06}","currency":"USD"}},"latency":{{"total_ms":{:.1},"ttft_ms":{ttft:.1},"llm_ms":{llm:.1}}}"#,
            micros / 1_000_000,
            micros % 1_000_000,
            draw.latency_ms,
        ));
        if self.size != Size::Small {
            let (trace, span) = (self.text_of(32, HEX), self.text_of(16, HEX));
            let user = self.text_of(24, HEX);
            json.push_str(&format!(
                r#","llm_calls":{},"turns":{},"user_key":"u_{user}","trace":{{"trace_id":"1{}","span_id":"1{}"}}"#,
                self.rng.random_range(1..5),
                self.rng.random_range(1..9),
                &trace[1..],
                &span[1..],
            ));
        }
    }

    fn tools(&mut self, json: &mut String, draw: &Draw) {
        let most = if self.size == Size::Small { 2 } else { 6 };
        let count = self.rng.random_range(0..=most);
        if count == 0 {
            return;
        }
        json.push_str(r#","tool_calls":["#);
        for index in 0..count {
            let name = *self.pick(draw.task.tools);
            let latency = 120.0 * self.spread(0.8);
            let ok = self.chance(0.97);
            let status = if ok { r#""ok""# } else { r#""error","error_type":"upstream_timeout""# };
            let comma = if index > 0 { "," } else { "" };
            json.push_str(&format!(r#"{comma}{{"name":"{name}","status":{status},"latency_ms":{latency:.1}"#));
            if self.size != Size::Small {
                let id = self.text_of(20, BASE32);
                json.push_str(&format!(r#","id":"call_{id}","args_valid":true,"attempt":1"#));
            }
            if name == "issue_refund" {
                json.push_str(
                    r#","side_effect":true,"risk":"high","approval":{"required":true,"decision":"approved"}"#,
                );
            }
            json.push('}');
        }
        json.push(']');
    }

    fn details(&mut self, json: &mut String, draw: &Draw) {
        json.push_str(r#","retrieval":[{"source_id":"knowledge","index_version":"2026-11-19","requested_k":6,"returned_k":4,"status":"ok","documents":["#);
        for index in 0..4 {
            let comma = if index > 0 { "," } else { "" };
            json.push_str(&format!(
                r#"{comma}{{"id":"doc-{:05}","version":"{}","score":{:.3},"cited":{}}}"#,
                self.rng.random_range(0..20_000),
                self.rng.random_range(1..9),
                self.rng.random_range(0.4..0.95),
                self.chance(0.4),
            ));
        }
        json.push_str("]}]");
        let valid = draw.status == "success" || self.chance(0.5);
        json.push_str(&format!(
            r#","validation":{{"applicable":true,"valid":{valid},"first_attempt_valid":{valid},"attempts":1,"schema_id":"{}","schema_version":"9","fields_total":14,"fields_invalid":{},"fields":["#,
            draw.task.name,
            u8::from(!valid),
        ));
        if !valid {
            let path = *self.pick(&["/total_amount", "/vat_id", "/due_date", "/line_items/0/quantity"]);
            json.push_str(&format!(
                r#"{{"path":"{path}","valid":false,"rule":"type","message":"expected another type"}}"#
            ));
        }
        json.push_str("]}");
        json.push_str(&format!(
            r#","scores":[{{"name":"helpfulness","value":{:.2},"kind":"llm","evaluator":{{"id":"judge-2","model":"gpt-5.4-mini"}},"explanation":"{}"}}]"#,
            self.rng.random::<f64>(),
            self.sentence(12),
        ));
        json.push_str(r#","steps":["#);
        for (index, name) in ["classify", "retrieve", "draft", "check"].into_iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let latency = draw.latency_ms * self.rng.random_range(0.05..0.4);
            json.push_str(&format!(r#"{comma}{{"name":"{name}","status":"ok","latency_ms":{latency:.1}}}"#));
        }
        json.push_str(r#"],"content":"#);
        if self.size == Size::Conversation {
            self.conversation(json);
        } else {
            json.push_str(&format!(r#"{{"input":"{}","output":"{}"}}"#, self.sentence(30), self.sentence(75)));
        }
    }

    /// Generates a text of roughly `words` words, varying by half in both directions.
    fn sentence(&mut self, words: usize) -> String {
        let count = self.rng.random_range(words / 2..=words + words / 2);
        let mut text = String::with_capacity(count * 7);
        for index in 0..count {
            if index > 0 {
                text.push(' ');
            }
            text.push_str(WORDS[self.rng.random_range(0..WORDS.len())]);
        }
        text
    }

    /// Draws random letters from an alphabet; its size is a power of two, at most 32.
    fn text_of<const N: usize>(&mut self, length: usize, alphabet: &[u8; N]) -> String {
        let bits = N.trailing_zeros();
        let mut text = String::with_capacity(length);
        let (mut pool, mut left) = (0_u64, 0);
        for _ in 0..length {
            if left < bits {
                (pool, left) = (self.rng.random(), u64::BITS);
            }
            text.push(char::from(alphabet[(pool as usize) & (N - 1)]));
            pool >>= bits;
            left -= bits;
        }
        text
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random::<f64>() < probability
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.rng.random_range(0..choices.len())]
    }

    /// Draws a log-normal factor with median 1; the normal is the sum of six uniform draws.
    fn spread(&mut self, sigma: f64) -> f64 {
        let normal = ((0..6).map(|_| self.rng.random::<f64>()).sum::<f64>() - 3.0) * std::f64::consts::SQRT_2;
        (sigma * normal).exp()
    }
}

fn time(micros: i64) -> String {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_event::Limits;
    use bellwether_ingest::{BatchBuilder, Message, Pushed};

    const NOW: i64 = 1_795_543_200_000_000; // 2026-11-24T18:00:00Z

    fn events(seed: u64, size: Size, count: usize) -> Vec<Event> {
        let mut generator = Generator::new(seed, size);
        (0..count).map(|_| generator.next(NOW - 60_000_000)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        assert_eq!(events(7, Size::Large, 300), events(7, Size::Large, 300));
        assert_ne!(events(7, Size::Large, 3), events(8, Size::Large, 3));
    }

    #[test]
    fn a_fleet_has_all_its_groups_and_counts_their_runs() {
        let fleet = Fleet { tasks: 7, releases: 3, models: 2 };
        let mut generator = Generator::of(fleet, 1);
        let mut stated = std::collections::BTreeMap::<[String; 3], u64>::new();
        for _ in 0..2000 {
            let event: serde_json::Value = serde_json::from_slice(&generator.next(NOW).payload).expect("valid JSON");
            let data = &event["data"];
            let names = [&data["task"], &data["release"]["id"], &data["release"]["model"]["requested"]];
            *stated.entry(names.map(|name| name.as_str().unwrap_or_default().to_owned())).or_default() += 1;
        }
        let counted: std::collections::BTreeMap<_, _> =
            generator.drawn().map(|(group, runs)| (group.names(), runs)).collect();
        assert_eq!(counted.len(), 42);
        assert_eq!(stated, counted);
    }

    #[test]
    fn every_event_is_valid_unique_and_of_the_stated_size() {
        for (size, bytes) in [(Size::Small, 800.0), (Size::Large, 3000.0), (Size::Conversation, 11_000.0)] {
            let events = events(1, size, 2000);
            let mut builder = BatchBuilder::new(Limits::default());
            for event in &events {
                let message = Message { topic: "t", payload: Some(&event.payload), ..Message::default() };
                let pushed = builder.push(&message, NOW);
                assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?}: {}", String::from_utf8_lossy(&event.payload));
            }
            let keys: std::collections::BTreeSet<&str> = events.iter().map(|event| event.key.as_str()).collect();
            assert_eq!(keys.len(), events.len());
            let total: usize = events.iter().map(|event| event.payload.len()).sum();
            let mean = total as f64 / events.len() as f64;
            assert!((mean / bytes - 1.0).abs() < 0.08, "{size:?}: {mean} bytes on average");
        }
    }
}
