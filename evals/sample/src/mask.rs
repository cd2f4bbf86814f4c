//! Messages without the parts that vary from run to run.
//!
//! | part | becomes |
//! |---|---|
//! | `https://shop.example/o/17` | `<url>` |
//! | `ann@shop.example` | `<email>` |
//! | `"…"`, `'…'`, `` `…` ``, `“…”` | `<text>` |
//! | `/var/log/a.txt`, `C:\tmp\a`, `src/app/main.py` | `<path>` |
//! | `0b7c1e9a-6d2f-4c53-9a55-1f0e4d2c8b7a` | `<uuid>` |
//! | `0xdeadbeef`, eight or more hexadecimal digits | `<hex>` |
//! | `ord_48213`, `W2378156`: letters and at least three digits | `<id>` |
//! | `42`, `1,024.5`, `2026-04-01T12:30:00Z`, `30ms`, `utf8` | `<n>`, `<n>`, `<n>`, `<n>ms`, `utf<n>` |
//! | `<EMAIL_1>`: a placeholder of a redaction | `<email>` |
//!
//! Letters become small, and white space and control characters become one space. Masking a masked message changes
//! nothing. The time is linear in the length.

/// Characters of a masked message at most.
pub const LONGEST: usize = 160;

/// Characters of a message that are read; events allow 1,024.
const READ: usize = 4_096;

/// Characters between quotation marks at most; a mark without its partner this near is left alone.
const QUOTED: usize = 400;

/// Returns a message without the parts that vary, of at most [`LONGEST`] characters.
pub fn masked(message: &str) -> String {
    let text: Vec<char> = message.chars().take(READ).collect();
    let mut found = String::new();
    let mut place = 0;
    while place < text.len() {
        let rest = &text[place..];
        let before = place.checked_sub(1).map(|place| text[place]);
        let (length, replacement) = part(rest, before);
        push(&mut found, &replacement);
        place += length;
    }
    let trimmed = found.trim();
    // A placeholder is never cut in two.
    match trimmed.char_indices().nth(LONGEST) {
        None => trimmed.to_owned(),
        Some((end, _)) => {
            let head = &trimmed[..end];
            let whole = match (head.rfind('<'), head.rfind('>')) {
                (Some(open), close) if close.is_none_or(|close| close < open) => &head[..open],
                _ => head,
            };
            whole.trim_end().to_owned()
        }
    }
}

fn push(found: &mut String, part: &str) {
    if part == " " && found.ends_with(' ') {
        return;
    }
    found.push_str(part);
}

/// Returns the length of the next part of a text, and its replacement.
fn part(rest: &[char], before: Option<char>) -> (usize, String) {
    let first = rest[0];
    if first.is_whitespace() || first.is_control() {
        return (1, " ".to_owned());
    }
    let starts = before.is_none_or(|before| !before.is_alphanumeric() && before != '>');
    let special = placeholder(rest)
        .or_else(|| quoted(rest, starts))
        .or_else(|| if starts { url(rest).or_else(|| path(rest)).or_else(|| email(rest)) } else { None });
    if let Some(found) = special {
        return found;
    }
    if first.is_alphanumeric() {
        return word(rest);
    }
    (1, first.to_lowercase().collect())
}

/// Recognises `<n>` of an earlier masking and `<EMAIL_1>` of a redaction.
fn placeholder(rest: &[char]) -> Option<(usize, String)> {
    let end = rest.iter().take(32).position(|c| *c == '>')?;
    let name = rest.get(1..end).filter(|_| rest[0] == '<')?;
    let plain = name.iter().all(|c| c.is_ascii_alphanumeric() || *c == '_');
    let letters: String = name.iter().filter(|c| !c.is_ascii_digit()).collect();
    let letters = letters.trim_matches('_').to_lowercase();
    (plain && !letters.is_empty()).then(|| (end + 1, format!("<{letters}>")))
}

fn quoted(rest: &[char], starts: bool) -> Option<(usize, String)> {
    let close = match rest[0] {
        '"' | '`' => rest[0],
        // Elsewhere it is an apostrophe.
        '\'' if starts => '\'',
        '“' => '”',
        '‘' => '’',
        '«' => '»',
        _ => return None,
    };
    let after = |place: usize| rest.get(place + 1).is_none_or(|next| !next.is_alphanumeric() && *next != '<');
    let inside = rest.iter().enumerate().skip(1).take(QUOTED);
    let mut ends = inside.filter(|(place, c)| **c == close && (close != '\'' || after(*place)));
    ends.next().map(|(place, _)| (place + 1, "<text>".to_owned()))
}

fn url(rest: &[char]) -> Option<(usize, String)> {
    let scheme = rest.iter().take(16).take_while(|c| c.is_ascii_alphanumeric() || "+.-".contains(**c)).count();
    let named = scheme >= 2 && rest[0].is_ascii_alphabetic() && rest[scheme..].starts_with(&[':', '/', '/']);
    named.then(|| (trimmed(rest, run_of(rest, |c| !c.is_whitespace() && !"\"'`<>”".contains(c))), "<url>".to_owned()))
}

fn path(rest: &[char]) -> Option<(usize, String)> {
    let part_of_name = |c: char| c.is_alphanumeric() || "_.-~+%@".contains(c);
    let drive = rest.len() > 3 && rest[0].is_ascii_alphabetic() && rest[1] == ':' && rest[2] == '\\';
    if drive {
        return Some((trimmed(rest, run_of(rest, |c| part_of_name(c) || c == '\\' || c == ':')), "<path>".to_owned()));
    }
    let length = trimmed(rest, run_of(rest, |c| part_of_name(c) || c == '/'));
    let text = &rest[..length];
    let slashes = text.iter().filter(|c| **c == '/').count();
    let absolute =
        matches!(text, ['/', next, ..] | ['~' | '.', '/', next, ..] | ['.', '.', '/', next, ..] if part_of_name(*next));
    let file = text.rsplit(|c| *c == '/').next().is_some_and(|name| {
        name.iter().rposition(|c| *c == '.').is_some_and(|dot| dot > 0 && dot + 1 < name.len() && name.len() - dot <= 6)
    });
    // `3/4` is a fraction, and `and/or` are words.
    let letters = text.iter().any(|c| c.is_alphabetic());
    let relative = part_of_name(rest[0]) && (slashes >= 2 || (slashes == 1 && file));
    (letters && slashes > 0 && (absolute || relative)).then(|| (length, "<path>".to_owned()))
}

fn email(rest: &[char]) -> Option<(usize, String)> {
    let length = trimmed(rest, run_of(rest, |c| c.is_alphanumeric() || "._%+-@".contains(c)));
    let text = &rest[..length];
    let at = text.iter().position(|c| *c == '@')?;
    let host = &text[at + 1..];
    (at > 0 && host.contains(&'.') && !host.contains(&'@')).then(|| (length, "<email>".to_owned()))
}

/// Returns the length of the longest start of which all characters fit, at most 256 of them.
fn run_of(rest: &[char], fits: impl Fn(char) -> bool) -> usize {
    rest.iter().take(256).take_while(|c| fits(**c)).count()
}

/// Leaves out punctuation at the end, which belongs to the sentence.
fn trimmed(rest: &[char], length: usize) -> usize {
    length - rest[..length].iter().rev().take_while(|c| ".,;:!?)]}".contains(**c)).count()
}

fn word(rest: &[char]) -> (usize, String) {
    let digit = |place: usize| rest.get(place).is_some_and(char::is_ascii_digit);
    let mut length = 0;
    while length < rest.len().min(256) {
        let c = rest[length];
        let inside = match c {
            '_' | '-' => rest.get(length + 1).is_some_and(|next| next.is_alphanumeric()),
            // Between digits they are part of a number or of a time.
            '.' | ',' | ':' => length > 0 && digit(length - 1) && digit(length + 1),
            _ => c.is_alphanumeric(),
        };
        if !inside {
            break;
        }
        length += 1;
    }
    // The caller has seen an alphanumeric character.
    let length = length.max(1);
    (length, masked_word(&rest[..length]))
}

fn masked_word(word: &[char]) -> String {
    let digits = word.iter().filter(|c| c.is_ascii_digit()).count();
    let letters = word.iter().filter(|c| c.is_alphabetic()).count();
    if digits == 0 {
        return word.iter().flat_map(|c| c.to_lowercase()).collect();
    }
    let hex = |part: &[char]| part.iter().all(char::is_ascii_hexdigit);
    let groups: Vec<&[char]> = word.split(|c| *c == '-').collect();
    let uuid = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(|group| hex(group));
    let prefixed = word.len() > 4 && word[0] == '0' && matches!(word[1], 'x' | 'X') && hex(&word[2..]);
    let time =
        letters <= 2 && word[0].is_ascii_digit() && word.iter().all(|c| !c.is_alphabetic() || "TtZz".contains(*c));
    let replacement = match () {
        () if uuid => "<uuid>",
        () if letters == 0 || (time && digits >= 8) => "<n>",
        () if prefixed || (word.len() >= 8 && hex(word)) => "<hex>",
        // Digits and a unit, such as 1500ms, are a number.
        () if digits >= 3 && !unit(word) => "<id>",
        () => return numbers(word),
    };
    replacement.to_owned()
}

/// Returns true for a number with up to three letters after it.
fn unit(word: &[char]) -> bool {
    let number = word.iter().take_while(|c| !c.is_alphabetic()).count();
    number > 0 && word.len() - number <= 3 && word[number..].iter().all(|c| c.is_alphabetic())
}

/// Replaces each number in a word.
fn numbers(word: &[char]) -> String {
    let mut found = String::new();
    let mut inside = false;
    for (place, c) in word.iter().enumerate() {
        let joined = inside && ".,:".contains(*c) && word.get(place + 1).is_some_and(char::is_ascii_digit);
        if c.is_ascii_digit() || joined {
            if !inside {
                found.push_str("<n>");
            }
            inside = true;
        } else {
            inside = false;
            found.extend(c.to_lowercase());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_that_vary_are_replaced() {
        for (message, expected) in [
            ("Order W2378156 not found after 3 attempts", "order <id> not found after <n> attempts"),
            ("GET https://shop.example/o/17?x=1, status=503", "get <url>, status=<n>"),
            ("mail to ann.lee+1@shop.example failed.", "mail to <email> failed."),
            ("can't parse \"12,5 €\" as 'amount'", "can't parse <text> as <text>"),
            ("open /var/log/app.log: no such file", "open <path>: no such file"),
            ("File src/app/main.py, line 42, and/or 3/4", "file <path>, line <n>, and/or <n>/<n>"),
            (r"cannot write C:\temp\out.txt", "cannot write <path>"),
            ("run 0b7c1e9a-6d2f-4c53-9a55-1f0e4d2c8b7a at 0xDEADBEEF", "run <uuid> at <hex>"),
            ("digest 9f86d081884c7d65 differs", "digest <hex> differs"),
            ("timed out after 30ms at 2026-04-01T12:30:00Z", "timed out after <n>ms at <n>"),
            ("1,024.5 tokens; gpt-4.1, utf8", "<n> tokens; gpt-<n>, utf<n>"),
            ("refused <EMAIL_1> and <CREDIT_CARD_12>", "refused <email> and <credit_card>"),
            ("two\n\n  lines\u{0}and\tTABS", "two lines and tabs"),
            ("waited 1500ms for tool_call_77", "waited <n>ms for tool_call_<n>"),
            ("שלום 12 🙂 مرحبا", "שלום <n> 🙂 مرحبا"),
            ("", ""),
        ] {
            assert_eq!(masked(message), expected, "{message:?}");
        }
    }

    #[test]
    fn long_messages_are_cut_but_no_placeholder_is() {
        let found = masked(&"word 12 ".repeat(400));
        assert!(
            found.chars().count() <= LONGEST && found.matches('<').count() == found.matches('>').count(),
            "{found}"
        );
    }

    #[test]
    fn adversarial_text_is_read_in_linear_time() {
        for text in ["'", "\"", "<", "/a", "a@", "1-", "0x", "http://", "“"] {
            // Quadratic time would need minutes for 100 texts of 4,096 characters with nested searches.
            for _ in 0..100 {
                assert!(masked(&text.repeat(100_000)).len() < 4 * LONGEST);
            }
        }
    }

    proptest! {
        #[test]
        fn masking_twice_changes_nothing(message in "[ -~é“”\\n]{0,120}") {
            let once = masked(&message);
            prop_assert_eq!(masked(&once), once.clone(), "{:?}", message);
            prop_assert!(once.chars().count() <= LONGEST);
            prop_assert!(!once.chars().any(|c| c.is_ascii_digit()), "{}", once);
        }

        #[test]
        fn any_text_can_be_masked(message in any::<String>()) {
            prop_assert!(masked(&message).chars().count() <= LONGEST);
        }

        #[test]
        fn numbers_do_not_matter(a in any::<u32>(), b in any::<u32>()) {
            let message = |n: u32| format!("order {n} of customer #{n}: amount {n}.50 EUR exceeds limit");
            prop_assert_eq!(masked(&message(a)), masked(&message(b)));
        }
    }
}
