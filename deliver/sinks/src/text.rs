//! Text from events made fit for a message: one line, without control characters, and cut to a limit.

use sha2::{Digest, Sha256};

/// Stands for text that was cut off.
const ELLIPSIS: char = '…';

/// Returns the length of text as the strictest services count it: in UTF-16 code units, as JavaScript does.
pub(crate) fn length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Cuts text to a length, with an ellipsis in place of the rest.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    if length(text) <= limit {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut left = limit.saturating_sub(1);
    for character in text.chars() {
        if character.len_utf16() > left {
            break;
        }
        left -= character.len_utf16();
        cut.push(character);
    }
    if limit > 0 {
        cut.push(ELLIPSIS);
    }
    cut
}

/// Makes one line of text without control characters and cuts it.
pub(crate) fn line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    // What is cut off needs no cleaning.
    for character in text.chars().take(limit.saturating_mul(4).saturating_add(64)) {
        match character {
            character if character.is_whitespace() || character.is_control() => {
                if !line.is_empty() && !line.ends_with(' ') {
                    line.push(' ');
                }
            }
            character if invisible(character) => {}
            character => line.push(character),
        }
    }
    cut(line.trim_end(), limit)
}

/// Removes control characters except line feeds, and cuts.
pub(crate) fn block(text: &str, limit: usize) -> String {
    let kept = text
        .chars()
        .take(limit.saturating_mul(4).saturating_add(64))
        .filter(|character| *character == '\n' || !(character.is_control() || invisible(*character)));
    cut(kept.collect::<String>().trim_end(), limit)
}

/// Characters that have no form of their own and change how others read: marks of direction, spaces without width, separators.
fn invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Returns a key no longer than `limit` bytes that is the same for the same text: the text itself, if it fits and is plain.
pub(crate) fn key(text: &str, limit: usize) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic();
    if !text.is_empty() && text.len() <= limit && text.bytes().all(plain) { text.to_owned() } else { hash(text) }
}

/// Returns 32 hexadecimal digits that stand for a text.
pub(crate) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_no_control_characters_and_keeps_its_limit() {
        assert_eq!(line("a\r\nBcc: x\u{202e}y\u{0}z", 100), "a Bcc: xy z");
        assert_eq!(line("  spaced \t out ", 100), "spaced out");
        assert_eq!(line(&"x".repeat(10_000), 5), "xxxx…");
        assert_eq!(length(&line(&"😀".repeat(100), 10)), 9, "a character is never halved");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn a_block_keeps_its_line_feeds() {
        assert_eq!(block("SELECT 1\n\tFROM x\u{1b}[31m\n", 100), "SELECT 1\nFROM x[31m");
    }

    #[test]
    fn a_key_that_does_not_fit_is_replaced_by_its_hash() {
        assert_eq!(key("alert-1/7", 255), "alert-1/7");
        assert_eq!(key(&"k".repeat(256), 255).len(), 32);
        assert_ne!(key("a b", 255), key("a  b", 255));
    }
}
