//! Masks the head of a rejected message, so that no unredacted content is stored (P-1).
//!
//! Object keys, redacted, and punctuation stay, as do the values of the few contract fields that hold one lower-case word of a small set.
//! In everything else, letters become `x` and digits become `0`, which preserves lengths and shapes.

use std::borrow::Cow;

use bellwether_redact::{Redactor, Session};

/// Bytes of a message that are kept.
pub const HEAD_BYTES: usize = 4096;

/// Fields with values that help to find the cause and hold no personal data, provided that they look like one lower-case word.
const KEPT: [&str; 5] = ["spec", "type", "stage", "status", "severity"];

/// Longest kept value.
const KEPT_CHARACTERS: usize = 32;

/// Returns the column `redaction` of a row: the version of the policy, and the number of redacted values by kind.
pub(crate) fn redactions<'r>(redactor: &'r Redactor, session: &Session<'_>) -> Vec<(&'static str, Cow<'r, str>)> {
    let counts = session.counts().map(|(kind, count)| (kind, Cow::Owned(count.to_string())));
    std::iter::once(("policy", Cow::Borrowed(redactor.version()))).chain(counts).collect()
}

/// Returns the masked head of a message. Its keys are redacted.
pub fn masked_head(message: &[u8], session: &mut Session<'_>) -> String {
    let head = String::from_utf8_lossy(&message[..message.len().min(HEAD_BYTES)]);
    let json = head.trim_start().starts_with(['{', '[']);
    if json { mask_json(&head, session) } else { head.chars().map(mask).collect() }
}

fn mask(character: char) -> char {
    match character {
        '0'..='9' => '0',
        _ if character.is_alphanumeric() || character == char::REPLACEMENT_CHARACTER => 'x',
        _ if character.is_control() => ' ',
        _ => character,
    }
}

fn mask_json(head: &str, session: &mut Session<'_>) -> String {
    let mut masked = String::with_capacity(head.len());
    let mut key = String::new();
    let mut rest = head;
    while let Some(open) = rest.find('"') {
        masked.extend(rest[..open].chars().map(mask));
        let text = &rest[open + 1..];
        let end = end_of_text(text);
        let (content, after) = (&text[..end], text.get(end + 1..).unwrap_or(""));
        masked.push('"');
        if after.trim_start().starts_with(':') {
            key = content.to_owned();
            masked.push_str(&session.text(content));
        } else if KEPT.contains(&key.as_str()) && is_word(content) {
            masked.push_str(content);
        } else {
            masked.extend(content.chars().map(mask));
        }
        if end < text.len() {
            masked.push('"');
        }
        rest = after;
    }
    masked.extend(rest.chars().map(mask));
    masked
}

fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index,
            _ => {}
        }
    }
    text.len()
}

fn is_word(text: &str) -> bool {
    text.len() <= KEPT_CHARACTERS
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'-' | b'.' | b'/' | b'0'..=b'2'))
}

#[cfg(test)]
mod tests {
    use bellwether_redact::Redactor;

    use super::*;

    fn masked(message: &[u8]) -> String {
        masked_head(message, &mut Redactor::default().session_of(message))
    }

    #[test]
    fn values_are_masked_except_known_words() {
        let message =
            br#"{"spec":"run-event/1","type":"run.done","user":"Ann Lee <ann@x.org>","phone":5551234,"status":"Ann"}"#;
        assert_eq!(
            masked(message),
            r#"{"spec":"run-event/1","type":"run.done","user":"xxx xxx <xxx@x.xxx>","phone":0000000,"status":"xxx"}"#
        );
    }

    #[test]
    fn text_that_is_not_json_is_masked_entirely() {
        assert_eq!(masked("card 4111 é\u{0}".as_bytes()), "xxxx 0000 x ");
        assert_eq!(masked(b"\xff\xfe"), "xx");
    }

    #[test]
    fn an_unterminated_string_and_an_escaped_quote_are_masked() {
        assert_eq!(masked(br#"{"a":"say \"hi\" to Bo"#), r#"{"a":"xxx \"xx\" xx xx"#);
    }

    #[test]
    fn a_key_that_holds_personal_data_is_redacted() {
        assert_eq!(
            masked(br#"{"ann@example.org":"x","a":{"bob@example.org":1"#),
            r#"{"[EMAIL_1]":"x","a":{"[EMAIL_2]":0"#
        );
    }
}
