//! Ids that are derived where a producer sends none: functions of the statement alone, so that a retry gets the same.

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::decode::EventType;

/// Characters of a derived id's hash: 128 bits.
const HASH_CHARACTERS: usize = 32;

/// Characters of an id at most.
const MAX_CHARACTERS: usize = 128;

/// Hash of a message body. Of two statements with equal revision and time the one with the greater hash counts, so that
/// the choice depends on content and never on arrival.
pub fn content_hash(message: &[u8]) -> i64 {
    xxh3_64(message).cast_signed()
}

/// `RUN:completed:ATTEMPT:REVISION`, within the 128 characters of an id.
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

/// Appends a number: one digit, as nearly all attempts and revisions are, without the formatter.
fn push_number(text: &mut String, number: i64) {
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => text.push(char::from(b'0' + digit)),
        _ => text.push_str(&number.to_string()),
    }
}

/// Id of a late statement: a hash of what is stated of which run, and when. A statement that is sent again gets the same;
/// the same of a later time is another statement.
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
