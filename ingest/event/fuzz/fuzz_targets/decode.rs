//! Checks that no bytes make the decoder panic, and that decoder and validator reject the same messages.
#![no_main]

use bellwether_event::{Decoder, Envelope, Limits, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_future_micros: i64::MAX / 4, max_age_micros: i64::MAX / 4, content_bytes: Some(1 << 20), ..Limits::default() };
    let decoded = Decoder::new(limits).decode(bytes, &Envelope::default(), 0);
    if let Ok(text) = std::str::from_utf8(bytes)
        && bytes.len() <= limits.max_bytes
        && !bytes.is_empty()
    {
        let problems = check(text, limits.max_depth);
        assert_eq!(decoded.is_ok(), !problems.iter().any(|problem| problem.rejects));
    }
});
