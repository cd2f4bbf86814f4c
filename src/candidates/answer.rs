//! Expected answers: from a file, or written in an editor.

use std::io::{IsTerminal, Read};
use std::path::Path;

use bellwether_base::{Error, Result};
use serde_json::Value;

use crate::editor;

/// Longest expected answer, bytes.
const LONGEST: u64 = 256 << 10;

/// Reads an expected answer from a file: JSON, or else text.
///
/// # Errors
/// `Config` if it cannot be read, is too long, is empty or is not text.
pub(super) fn from_file(file: &Path) -> Result<Value> {
    let unreadable = |source| Error::config(format!("cannot read `{}`", file.display())).with_source(source);
    let mut bytes = Vec::new();
    std::fs::File::open(file).map_err(unreadable)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    parsed(&bytes)
}

/// Lets the reviewer write the answer in an editor, starting from a text.
///
/// # Errors
/// `Config` if there is no terminal, the editor fails, or as [`from_file`].
pub(super) fn edited(start: &str) -> Result<Value> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::config("an edit needs the expected answer").with_hint("give it by --expected FILE"));
    }
    Ok(editor::edit(start, ".txt", from_file)?.value)
}

fn parsed(bytes: &[u8]) -> Result<Value> {
    let refuse = |what: &str| Err(Error::config(format!("the expected answer {what}")).with_hint("nothing was sent"));
    if bytes.len() as u64 > LONGEST {
        return Err(Error::config(format!("the expected answer is too long: {LONGEST} bytes are allowed"))
            .with_hint("keep the part that an evaluation compares"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return refuse("is not text in UTF-8") };
    if let Some(place) = text.find('\0') {
        return refuse(&format!("has a NUL character at byte {place}"));
    }
    if text.trim().is_empty() {
        return refuse("is empty");
    }
    // Numbers and words of JSON are text here: the contract knows objects, lists and texts.
    match serde_json::from_str(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_) | Value::String(_))) => Ok(value),
        _ => Ok(Value::String(text.trim_end().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_json_or_text_in_any_script() {
        for (bytes, expected) in [
            ("{\"a\": 1}\n", serde_json::json!({"a": 1})),
            ("12.50\n", "12.50".into()),
            ("null", "null".into()),
            ("שלום \u{202e}abc 👩‍🔬\n", "שלום \u{202e}abc 👩‍🔬".into()),
            ("{\"broken\": ", "{\"broken\": ".trim_end().into()),
        ] {
            assert_eq!(parsed(bytes.as_bytes()).expect("an answer"), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_that_is_binary_empty_or_too_long_is_refused() {
        for (bytes, what) in [
            (&b"a\0b"[..], "NUL character at byte 1"),
            (b"\xff\xfe", "not text in UTF-8"),
            (b" \n", "is empty"),
            (&[b'x'; 262_145], "262144 bytes are allowed"),
        ] {
            let error = parsed(bytes).expect_err("refused");
            assert!(error.message().contains(what), "{error}");
        }
        assert!(parsed(&[b'x'; 262_144]).is_ok());
    }

    #[test]
    fn a_huge_file_is_not_read_whole() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(1 << 40).expect("a sparse file");
        assert!(from_file(file.path()).expect_err("too long").message().contains("too long"));
    }
}
