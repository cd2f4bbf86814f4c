//! A line in the format of a service.

use crate::render::Piece;
use crate::text;

/// A format of text.
pub(crate) trait Markup {
    /// Appends a character so that it stands for itself. `before` is the character in front of it.
    fn escape(&self, before: Option<char>, character: char, out: &mut String);

    /// Returns what stands around text that may be copied.
    fn code(&self) -> (&'static str, &'static str) {
        ("", "")
    }

    /// Returns a link; `name` is escaped, `url` is a valid URL.
    fn link(&self, name: &str, url: &str) -> String;
}

/// Text without a format.
pub(crate) struct Plain;

impl Markup for Plain {
    fn escape(&self, _: Option<char>, character: char, out: &mut String) {
        out.push(character);
    }

    fn link(&self, name: &str, url: &str) -> String {
        format!("{name} {url}")
    }
}

/// Writes a line, cut to a length in the format of the service. No escape and no link is cut in its middle.
pub(crate) fn line_of(markup: &dyn Markup, pieces: &[Piece], limit: usize) -> String {
    let mut out = String::new();
    for piece in pieces {
        let left = limit.saturating_sub(text::length(&out));
        let (written, whole) = match piece {
            Piece::Text(value) => escaped(markup, value, left),
            Piece::Code(value) => {
                let (open, close) = markup.code();
                let (inner, whole) = escaped(markup, value, left.saturating_sub(open.len() + close.len()));
                (if inner.is_empty() { inner } else { format!("{open}{inner}{close}") }, whole)
            }
            Piece::Link { name, url } => {
                let link = markup.link(&escaped(markup, name, usize::MAX).0, url);
                if text::length(&link) <= left { (link, true) } else { escaped(markup, name, left) }
            }
        };
        out.push_str(&written);
        if !whole {
            break;
        }
    }
    out
}

/// Escapes as much of a text as fits, and says whether that is all.
fn escaped(markup: &dyn Markup, value: &str, limit: usize) -> (String, bool) {
    let mut out = String::new();
    let mut before = None;
    let mut one = String::new();
    let mut length = 0;
    for (index, character) in value.char_indices() {
        one.clear();
        markup.escape(before, character, &mut one);
        // The last character may take the place of the ellipsis.
        let rest = usize::from(index + character.len_utf8() < value.len());
        if length + text::length(&one) + rest > limit {
            if limit > length {
                out.push('…');
            }
            return (out, false);
        }
        length += text::length(&one);
        out.push_str(&one);
        before = Some(character);
    }
    (out, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Html;

    impl Markup for Html {
        fn escape(&self, _: Option<char>, character: char, out: &mut String) {
            match character {
                '<' => out.push_str("&lt;"),
                other => out.push(other),
            }
        }

        fn code(&self) -> (&'static str, &'static str) {
            ("<b>", "</b>")
        }

        fn link(&self, name: &str, url: &str) -> String {
            format!("[{name}]({url})")
        }
    }

    #[test]
    fn a_line_is_cut_between_escapes() {
        let line = [Piece::Text("a<<<".to_owned())];
        assert_eq!(line_of(&Html, &line, 13), "a&lt;&lt;&lt;");
        assert_eq!(line_of(&Html, &line, 12), "a&lt;&lt;…");
        assert_eq!(line_of(&Html, &line, 2), "a…");
        assert_eq!(line_of(&Html, &[Piece::Code("abcdef".to_owned())], 10), "<b>ab…</b>");
        assert_eq!(line_of(&Html, &[Piece::Code("abcdef".to_owned())], 6), "");
    }

    #[test]
    fn a_link_that_does_not_fit_is_its_name() {
        let line = [Piece::Link { name: "run".to_owned(), url: "https://x.example/".to_owned() }];
        assert_eq!(line_of(&Html, &line, 100), "[run](https://x.example/)");
        assert_eq!(line_of(&Html, &line, 10), "run");
    }
}
