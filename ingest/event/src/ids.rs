//! Derived ids, for events that a producer sends without one. They depend on the statement alone, so a retry gets the same id.

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::decode::EventType;

/// Characters of a derived id's hash: 128 bits.
const HASH_CHARACTERS: usize = 32;

/// Most characters of an id.
const MAX_CHARACTERS: usize = 128;

/// Hashes a message body. Of two statements with equal revision and time, the one with the greater hash counts, so the choice
/// depends on content and never on the order of arrival.
pub fn content_hash(message: &[u8]) -> i64 {
    xxh3_64(message).cast_signed()
}

/// Returns `RUN:completed:ATTEMPT:REVISION`, or a hash if that exceeds the 128 characters of an id.
pub(crate) fn completed(run_id: &str, attempt: i64, revision: i64) -> String {
    let mut id = String::with_capacity(run_id.len() + 32);
    id.push_str(run_id);
    id.push_str(":completed:");
    push_number(&mut id, attempt);
    id.push(':');
    push_number(&mut id, revision);
    if id.len() <= MAX_CHARACTERS || id.chars().count() <= MAX_CHARACTERS {
        return id;
    }
    hashed(&["run.completed", run_id, &format!("{attempt}:{revision}")])
}

/// Appends a number. A single digit, as nearly all attempts and revisions are, bypasses the formatter.
fn push_number(text: &mut String, number: i64) {
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => text.push(char::from(b'0' + digit)),
        _ => text.push_str(&number.to_string()),
    }
}

/// Returns the id of a late statement: a hash of its type, tenant, run, time and data. A repeated message gets the same id;
/// the same data at another time is another statement.
pub(crate) fn late(event_type: EventType, tenant: &str, run_id: &str, time_micros: i64, data: &str) -> String {
    hashed(&[event_type.name(), tenant, run_id, &time_micros.to_string(), data])
}

fn hashed(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut text = hex(&hash.finalize());
    text.truncate(HASH_CHARACTERS);
    text
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
