//! No bytes make the decoder panic, and what it accepts the explanation does not reject.
#![no_main]

use bellwether_event::{Decoder, Envelope, Limits, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_future_micros: i64::MAX / 4, max_age_micros: i64::MAX / 4, ..Limits::default() };
    let answer = Decoder::new(limits).decode(bytes, &Envelope::default(), 0);
    if let Ok(text) = std::str::from_utf8(bytes)
        && bytes.len() <= limits.max_bytes
        && !bytes.is_empty()
    {
        let told = check(text, limits.max_depth);
        assert_eq!(answer.is_ok(), !told.iter().any(|problem| problem.rejects));
    }
});
