//! The runs of a world as the events that apps would send: JSON, some of them twice, some of them late.

use std::time::{Duration, UNIX_EPOCH};

use crate::chance::Key;
use crate::world::{EPOCH, Outcome, Run, World};

/// Why an answer ended, by place ([`World::finish`]).
pub const FINISH_REASONS: [&str; 4] = ["stop", "length", "tool_calls", "content_filter"];

/// How a stream of events is spoilt on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// Share of events that are sent twice.
    pub duplicates: f64,
    /// Share of events that come late.
    pub late: f64,
    /// Minutes that they come late at most.
    pub late_minutes: u64,
}

/// Nothing is spoilt.
pub const CLEAN: Way = Way { duplicates: 0.0, late: 0.0, late_minutes: 1 };

/// As it is in life: 1 % twice, 2 % up to half an hour late.
pub const USUAL: Way = Way { duplicates: 0.01, late: 0.02, late_minutes: 30 };

/// The events of the runs that end from one minute to another, in the order in which they arrive.
pub fn events(world: &World, from: i64, to: i64, way: Way) -> Vec<String> {
    let mut sent: Vec<(i64, u64, String)> = Vec::new();
    world.minutes(from, to, |minute, runs| {
        for run in runs {
            let key = Key::new(world.seed).at(run.session.bits()).at(run.second().to_bits());
            let late = key.at(1).uniform() < way.late;
            let behind = if late { 1 + key.at(2).below(way.late_minutes).cast_signed() } else { 0 };
            let text = event(world, run);
            if key.at(3).uniform() < way.duplicates {
                sent.push((minute + behind + key.at(4).below(5).cast_signed(), key.at(5).bits(), text.clone()));
            }
            sent.push((minute + behind, key.bits(), text));
        }
    });
    // Within a minute the order is by chance too: partitions are read side by side.
    sent.sort_unstable_by_key(|(minute, place, _)| (*minute, *place));
    sent.into_iter().map(|(_, _, text)| text).collect()
}

/// One run as a run event.
pub fn event(world: &World, run: &Run) -> String {
    let status = if world.happened(run, Outcome::Failure) { "failure" } else { "success" };
    let (release, stage) = if run.canary { ("canary", "canary") } else { ("baseline", "full") };
    let latency = world.latency_micros(run);
    // Seconds of a minute, with a fraction: below 60 million microseconds.
    let ended = (EPOCH + run.minute) * 60_000_000 + (run.second() * 1e6) as i64;
    let cost = world.cost_micros(run);
    let mut json = String::with_capacity(900);
    let mut push = |text: std::fmt::Arguments<'_>| json.push_str(&text.to_string());
    push(format_args!(
        r#"{{"spec":"run-event/1.0","source":"simulation","run_id":"{}","tenant":"tenant-{}","data":{{"task":"task-{:02}""#,
        run.id(),
        run.tenant(),
        run.task + 1,
    ));
    push(format_args!(
        r#","environment":"production","release":{{"id":"{release}","model":{{"requested":"model-{}"}}}},"rollout":{{"stage":"{stage}"}}"#,
        run.model() + 1,
    ));
    push(format_args!(
        r#","started_at":"{}","ended_at":"{}","session_id":"{}","user_key":"u_{:04}""#,
        time(ended - latency.cast_signed()),
        time(ended),
        run.session_id(),
        run.user(),
    ));
    push(format_args!(r#","outcome":{{"status":"{status}","finish_reason":"{}"}}"#, FINISH_REASONS[world.finish(run)]));
    push(format_args!(r#","validation":{{"applicable":true,"valid":{}}}"#, !world.happened(run, Outcome::Schema)));
    if world.happened(run, Outcome::Escalation) {
        push(format_args!(r#","escalation":{{"reason_code":"low_confidence"}}"#));
    }
    if world.happened(run, Outcome::Exception) {
        push(format_args!(r#","policy_exceptions":[{{"policy_id":"refund-limit","severity":"high"}}]"#));
    }
    let tool = if world.happened(run, Outcome::Tool) { "error" } else { "ok" };
    push(format_args!(r#","tool_calls":[{{"name":"lookup","status":"{tool}"}}]"#));
    push(format_args!(
        r#","tokens":{{"input":{}}},"cost":{{"amount":"{}.{:06}","currency":"USD"}},"latency":{{"total_ms":{}.{:03}}}}}}}"#,
        world.tokens(run),
        cost / 1_000_000,
        cost % 1_000_000,
        latency / 1000,
        latency % 1000,
    ));
    json
}

fn time(micros: i64) -> String {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    humantime::format_rfc3339_micros(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bellwether_event::{Decoder, Envelope, Limits};

    use super::*;
    use crate::world::Traffic;

    #[test]
    fn every_event_is_valid_by_the_contract() {
        let world = World::new(1, Traffic::of(3.0).canary(0.1));
        let events = events(&world, 0, 600, USUAL);
        assert!(events.len() > 500, "{}", events.len());
        let mut decoder = Decoder::new(Limits::default());
        for event in &events {
            let decoded = decoder.decode(event.as_bytes(), &Envelope::default(), (EPOCH + 700) * 60_000_000);
            assert!(decoded.is_ok(), "{decoded:?}: {event}");
        }
    }

    #[test]
    fn what_is_spoilt_on_the_way_changes_the_order_and_repeats_and_no_content() {
        let world = World::new(1, Traffic::of(3.0).canary(0.1));
        let clean = events(&world, 0, 600, CLEAN);
        let spoilt = events(&world, 0, 600, USUAL);
        assert_eq!(spoilt, events(&world, 0, 600, USUAL));
        assert!(spoilt.len() > clean.len());
        let set = |events: &[String]| events.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(set(&clean), set(&spoilt));
        assert_eq!(set(&clean).len(), clean.len());
        assert_ne!(clean, spoilt);
    }
}
