//! Turns the runs of a world into events as apps would send them: JSON, some duplicated, some late.

use std::time::{Duration, UNIX_EPOCH};

use crate::chance::Key;
use crate::world::{EPOCH, Outcome, Run, World};

/// Finish reasons, by index ([`World::finish`]).
pub const FINISH_REASONS: [&str; 4] = ["stop", "length", "tool_calls", "content_filter"];

/// Imperfections of the delivery of events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delivery {
    /// Fraction of events that are sent twice.
    pub duplicates: f64,
    /// Fraction of events that arrive late.
    pub late: f64,
    /// Maximum delay in minutes.
    pub late_minutes: u64,
}

/// Perfect delivery.
pub const CLEAN: Delivery = Delivery { duplicates: 0.0, late: 0.0, late_minutes: 1 };

/// Realistic delivery: 1 % duplicates, 2 % up to half an hour late.
pub const USUAL: Delivery = Delivery { duplicates: 0.01, late: 0.02, late_minutes: 30 };

/// Returns the events of the runs that end between two minutes, in order of arrival.
pub fn events(world: &World, from: i64, to: i64, delivery: Delivery) -> Vec<String> {
    let mut sent: Vec<(i64, u64, String)> = Vec::new();
    world.minutes(from, to, |minute, runs| {
        for run in runs {
            let key = Key::new(world.seed).at(run.session.bits()).at(run.second().to_bits());
            let late = key.at(1).uniform() < delivery.late;
            let behind = if late { 1 + key.at(2).below(delivery.late_minutes).cast_signed() } else { 0 };
            let text = event(world, run);
            if key.at(3).uniform() < delivery.duplicates {
                sent.push((minute + behind + key.at(4).below(5).cast_signed(), key.at(5).bits(), text.clone()));
            }
            sent.push((minute + behind, key.bits(), text));
        }
    });
    // The order within a minute is random too, because partitions are read in parallel.
    sent.sort_unstable_by_key(|(minute, place, _)| (*minute, *place));
    sent.into_iter().map(|(_, _, text)| text).collect()
}

/// Builds the event of a run.
pub fn event(world: &World, run: &Run) -> String {
    let status = if world.has_outcome(run, Outcome::Failure) { "failure" } else { "success" };
    let (release, stage) = if run.canary { ("canary", "canary") } else { ("baseline", "full") };
    let latency = world.latency_micros(run);
    // The second of the minute, with a fraction: below 60 million microseconds.
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
    push(format_args!(r#","validation":{{"applicable":true,"valid":{}}}"#, !world.has_outcome(run, Outcome::Schema)));
    if world.has_outcome(run, Outcome::Escalation) {
        push(format_args!(r#","escalation":{{"reason_code":"low_confidence"}}"#));
    }
    if world.has_outcome(run, Outcome::Exception) {
        push(format_args!(r#","policy_exceptions":[{{"policy_id":"refund-limit","severity":"high"}}]"#));
    }
    let tool = if world.has_outcome(run, Outcome::Tool) { "error" } else { "ok" };
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
        let world = World::new(1, Traffic::new(3.0).canary(0.1));
        let events = events(&world, 0, 600, USUAL);
        assert!(events.len() > 500, "{}", events.len());
        let mut decoder = Decoder::new(Limits::default());
        for event in &events {
            let decoded = decoder.decode(event.as_bytes(), &Envelope::default(), (EPOCH + 700) * 60_000_000);
            assert!(decoded.is_ok(), "{decoded:?}: {event}");
        }
    }

    #[test]
    fn delivery_changes_order_and_duplicates_but_not_content() {
        let world = World::new(1, Traffic::new(3.0).canary(0.1));
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
