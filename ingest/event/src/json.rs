//! JSON as it stands in a message: a reader that goes through a text once, front to back, and borrows what has no escapes.
//!
//! It accepts what `serde_json` does (RFC 8259), which tests hold it against, and says of the rest only that it is wrong:
//! what is wrong, and where, is for the slow reading. Decoding is most of what a message costs, and a general
//! deserializer spends half of it between the text and the field: docs/performance.md has the numbers.
//!
//! Unlike `serde_json` it accepts half of a surrogate pair, which producers make when they cut a text: U+FFFD is read in
//! its place, and [`mended`] writes it there.
//!
//! Kept by hand: an event of 834 bytes takes 1.08 µs, with `serde_json` 1.85 µs (docs/decisions/0002).
//!
//! A value that is not kept as it was sent is noted with its place only ([`Note`]). Nearly no message has one, so that
//! finding its pointer is left to whoever looks at the notes (`marks.rs`).

use std::borrow::Cow;

use wide::u8x16;

use crate::surrogate::{is_high, is_low, mended, pair};

/// The text is not JSON, or not the JSON that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrong;

pub(crate) type Fast<T> = Result<T, Wrong>;

/// A number as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Without fraction and exponent, of at most [`EXACT_DIGITS`].
    Integer(i64),
    /// Any other, rounded to the nearest.
    Real(f64),
}

/// Digits that fit 64 bits, whatever they are.
const EXACT_DIGITS: usize = 18;

/// Digits of a number that a double has exactly.
const DOUBLE_DIGITS: usize = 15;

/// Powers of ten that a double has exactly, as far as [`DOUBLE_DIGITS`] go.
const TENS: [f64; DOUBLE_DIGITS + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Objects and lists that were met before: where one comes again, it need not be gone through.
pub(crate) trait Known {
    /// Bytes of the known value that the text begins with; 0 for none. It ends with its own bracket, so that nothing that
    /// comes after can be a part of it.
    fn length_in(&self, text: &str) -> usize;
}

/// What was done with a value that is not kept as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The contract does not know its key, or has no column for it.
    Unknown,
    /// It was longer than its limit, and ends there.
    Cut,
    /// It is not what the contract asks for, and was left out.
    LeftOut,
    /// It was beyond a bound, and counts as that.
    Bounded,
}

/// A value that is not kept as it was sent: the bytes of the text that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) from: usize,
    pub(crate) end: usize,
    pub(crate) mark: Mark,
}

/// Where a reading of a text has got to.
pub(crate) struct Reader<'a, 'k> {
    text: &'a str,
    at: usize,
    /// Objects and lists that may be opened inside those that are open.
    levels: usize,
    known: &'k dyn Known,
    /// In no order.
    pub(crate) notes: Vec<Note>,
    /// Half of a surrogate pair was met since this was last set to false.
    torn: bool,
}

/// A place in a text to go back to.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    levels: usize,
    notes: usize,
}

/// A number's text, with what was learnt by passing over it.
struct Digits {
    from: usize,
    negative: bool,
    /// All digits before the exponent as one number, if they are at most [`EXACT_DIGITS`].
    mantissa: u64,
    digits: usize,
    /// How many of them come after the point.
    fraction: usize,
    exponent: bool,
}

// === impl Reader ===

impl<'a, 'k> Reader<'a, 'k> {
    /// Starts at the front; objects and lists nested deeper than `levels` are wrong.
    pub(crate) fn new(text: &'a str, levels: usize, known: &'k dyn Known) -> Self {
        Self { text, at: 0, levels, known, notes: Vec::new(), torn: false }
    }

    /// Nothing is left.
    pub(crate) fn end(&mut self) -> Fast<()> {
        self.peek();
        right(self.at == self.text.len())
    }

    /// The first byte of what comes next; 0, with which nothing begins, at the end.
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        let byte = self.byte();
        if byte > b' ' { byte } else { self.after_whitespace() }
    }

    #[cold]
    fn after_whitespace(&mut self) -> u8 {
        while matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.byte()
    }

    #[inline]
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Fast<()> {
        right(self.peek() == byte)?;
        self.at += 1;
        Ok(())
    }

    /// `true`, `false` or `null`.
    fn literal(&mut self, word: &str) -> Fast<()> {
        self.peek();
        right(self.text.as_bytes()[self.at..].starts_with(word.as_bytes()))?;
        self.at += word.len();
        Ok(())
    }

    /// Takes a null if one comes next.
    #[inline]
    pub(crate) fn null(&mut self) -> Fast<bool> {
        let null = self.peek() == b'n';
        if null {
            self.literal("null")?;
        }
        Ok(null)
    }

    /// True or false.
    pub(crate) fn boolean(&mut self) -> Fast<bool> {
        let value = self.peek() == b't';
        self.literal(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// A value of any kind, as it stands.
    pub(crate) fn raw(&mut self) -> Fast<&'a str> {
        let from = self.start();
        self.skip()?;
        Ok(self.since(from))
    }

    /// The same, its halves of surrogate pairs replaced.
    pub(crate) fn whole_raw(&mut self) -> Fast<Cow<'a, str>> {
        let before = std::mem::replace(&mut self.torn, false);
        let raw = self.raw()?;
        let torn = std::mem::replace(&mut self.torn, before);
        Ok(if torn { mended(raw) } else { Cow::Borrowed(raw) })
    }

    // === values that are not kept as they were sent ===

    /// A value that the contract does not know.
    #[cold]
    pub(crate) fn unknown(&mut self) -> Fast<()> {
        self.pass_over(Mark::Unknown)
    }

    /// Notes a value that began there and ends here.
    #[cold]
    pub(crate) fn note(&mut self, from: usize, mark: Mark) {
        self.notes.push(Note { from, end: self.at, mark });
    }

    /// Here.
    #[inline]
    pub(crate) fn place(&self) -> Place {
        Place { at: self.at, levels: self.levels, notes: self.notes.len() }
    }

    /// Goes back to a place, and passes over the value that is there: it must be JSON, and is left out.
    #[cold]
    pub(crate) fn leave_out(&mut self, place: Place) -> Fast<()> {
        (self.at, self.levels) = (place.at, place.levels);
        self.notes.truncate(place.notes);
        self.pass_over(Mark::LeftOut)
    }

    fn pass_over(&mut self, mark: Mark) -> Fast<()> {
        let from = self.start();
        self.skip()?;
        self.note(from, mark);
        Ok(())
    }

    /// The same, of a value that may be known.
    pub(crate) fn raw_or_known(&mut self) -> Fast<&'a str> {
        let from = self.start();
        match self.known.length_in(&self.text[from..]) {
            0 => self.skip()?,
            length => self.at += length,
        }
        Ok(self.since(from))
    }

    /// Where the next value starts.
    pub(crate) fn start(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// The text from there to there.
    pub(crate) fn between(&self, from: usize, end: usize) -> &'a str {
        &self.text[from..end]
    }

    /// The text from there to here.
    pub(crate) fn since(&self, from: usize) -> &'a str {
        &self.text[from..self.at]
    }

    fn skip(&mut self) -> Fast<()> {
        match self.peek() {
            b'"' => self.skip_text(),
            b'{' => self.fields(Self::skip_text, |reader, ()| reader.skip()),
            b'[' => self.list(Self::skip),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.digits().map(|_| ()),
        }
    }

    // === objects and lists ===

    /// An object: `field` is called with each key, and reads its value.
    #[inline]
    pub(crate) fn object(&mut self, field: impl FnMut(&mut Self, Cow<'a, str>) -> Fast<()>) -> Fast<()> {
        self.fields(Self::text, field)
    }

    #[inline]
    fn fields<K>(
        &mut self,
        mut key: impl FnMut(&mut Self) -> Fast<K>,
        mut value: impl FnMut(&mut Self, K) -> Fast<()>,
    ) -> Fast<()> {
        self.nested(b'{', b'}', |reader| {
            let key = key(reader)?;
            reader.take(b':')?;
            value(reader, key)
        })
    }

    /// A list: `entry` is called before each entry, and reads it.
    #[inline]
    pub(crate) fn list(&mut self, entry: impl FnMut(&mut Self) -> Fast<()>) -> Fast<()> {
        self.nested(b'[', b']', entry)
    }

    #[inline]
    fn nested(&mut self, open: u8, close: u8, mut entry: impl FnMut(&mut Self) -> Fast<()>) -> Fast<()> {
        self.take(open)?;
        self.levels = self.levels.checked_sub(1).ok_or(Wrong)?;
        if self.peek() != close {
            loop {
                entry(self)?;
                if self.peek() != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.levels += 1;
        self.take(close)
    }

    // === texts ===

    /// A text.
    #[inline]
    pub(crate) fn text(&mut self) -> Fast<Cow<'a, str>> {
        right(self.peek() == b'"')?;
        match self.plain() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.unescaped().map(Cow::Owned),
        }
    }

    /// The text that comes next, if all of it stands for itself; otherwise it is still to be taken.
    fn plain(&mut self) -> Option<&'a str> {
        let from = self.at + 1;
        let end = end_of_plain(self.text.as_bytes(), from);
        if self.text.as_bytes().get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        self.text.get(from..end)
    }

    /// The text that comes next, whatever stands in it.
    #[cold]
    fn unescaped(&mut self) -> Fast<String> {
        let mut text = String::new();
        self.at += 1;
        loop {
            let from = self.at;
            self.at = end_of_plain(self.text.as_bytes(), from);
            text.push_str(self.since(from));
            if self.byte() == b'"' {
                self.at += 1;
                return Ok(text);
            }
            text.push(self.escape()?);
        }
    }

    /// Passes over a text.
    #[inline]
    fn skip_text(&mut self) -> Fast<()> {
        self.take(b'"')?;
        loop {
            self.at = end_of_plain(self.text.as_bytes(), self.at);
            if self.byte() == b'"' {
                self.at += 1;
                return Ok(());
            }
            self.escape()?;
        }
    }

    /// The character that is meant. RFC 8259, section 7: beyond the basic plane it is a pair of UTF-16 code units; half of
    /// one is read as U+FFFD, and what follows it is a character of its own.
    fn escape(&mut self) -> Fast<char> {
        let unit = match self.escape_name()? {
            Escape::Plain(char) => return Ok(char),
            Escape::Unit => self.unit()?,
        };
        if let Some(char) = char::from_u32(unit) {
            return Ok(char);
        }
        let after = self.at;
        if is_high(unit) && self.text.as_bytes()[after..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.unit()?;
            if is_low(low) {
                return pair(unit, low).ok_or(Wrong);
            }
            self.at = after;
        }
        self.torn = true;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn escape_name(&mut self) -> Fast<Escape> {
        right(self.byte() == b'\\')?;
        self.at += 1;
        let escape = match self.byte() {
            name @ (b'"' | b'\\' | b'/') => Escape::Plain(char::from(name)),
            b'b' => Escape::Plain('\u{8}'),
            b'f' => Escape::Plain('\u{c}'),
            b'n' => Escape::Plain('\n'),
            b'r' => Escape::Plain('\r'),
            b't' => Escape::Plain('\t'),
            b'u' => Escape::Unit,
            _ => return Err(Wrong),
        };
        self.at += 1;
        Ok(escape)
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Fast<u32> {
        (0..4).try_fold(0, |unit, _| {
            let digit = char::from(self.byte()).to_digit(16).ok_or(Wrong)?;
            self.at += 1;
            Ok(unit * 16 + digit)
        })
    }

    // === numbers ===

    /// A number.
    #[inline]
    pub(crate) fn number(&mut self) -> Fast<Number> {
        let found = self.digits()?;
        if !found.exponent && found.digits <= EXACT_DIGITS {
            let mantissa = found.mantissa.cast_signed();
            // A negative zero is a double: integers have none.
            if found.fraction == 0 && !(found.negative && mantissa == 0) {
                return Ok(Number::Integer(if found.negative { -mantissa } else { mantissa }));
            }
            if found.digits <= DOUBLE_DIGITS {
                // Both are exact, so that the quotient is rounded once (Clinger 1990, "How to read floating point numbers
                // accurately", section 4).
                #[expect(clippy::cast_precision_loss, reason = "15 digits fit 53 bits")]
                let number = mantissa as f64 / TENS[found.fraction];
                return Ok(Number::Real(if found.negative { -number } else { number }));
            }
        }
        let number: f64 = self.since(found.from).parse().map_err(|_| Wrong)?;
        right(number.is_finite())?;
        Ok(Number::Real(number))
    }

    #[inline]
    fn digits(&mut self) -> Fast<Digits> {
        let from = self.start();
        let negative = self.byte() == b'-';
        self.at += usize::from(negative);
        let mut mantissa = 0;
        let leading_zero = self.byte() == b'0';
        let whole = self.run_of_digits(&mut mantissa);
        right(whole == 1 || whole > 1 && !leading_zero)?;
        let mut fraction = 0;
        if self.byte() == b'.' {
            self.at += 1;
            fraction = self.run_of_digits(&mut mantissa);
            right(fraction > 0)?;
        }
        let exponent = matches!(self.byte(), b'e' | b'E');
        if exponent {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), b'+' | b'-'));
            right(self.run_of_digits(&mut 0) > 0)?;
        }
        Ok(Digits { from, negative, mantissa, digits: whole + fraction, fraction, exponent })
    }

    /// Appends digits to a number, and says how many there were. The number is right if they were not too many.
    #[inline]
    fn run_of_digits(&mut self, number: &mut u64) -> usize {
        let mut digits = 0;
        for digit in self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()) {
            *number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            digits += 1;
        }
        self.at += digits;
        digits
    }
}

/// What follows a backslash.
enum Escape {
    /// This character is meant.
    Plain(char),
    /// A UTF-16 code unit follows.
    Unit,
}

#[inline]
pub(crate) fn right(right: bool) -> Fast<()> {
    if right { Ok(()) } else { Err(Wrong) }
}

/// The next place from there on where a text ends or does not stand for itself: a quote, a backslash, a control character,
/// or the end.
///
/// Sixteen bytes are looked at in one go: texts are short, and there are fifty in a message.
#[inline]
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    while let Some(some) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let some = u8x16::new(*some);
        let control = some.min(u8x16::splat(0x1F)).simd_eq(some);
        let found = control | some.simd_eq(u8x16::splat(b'"')) | some.simd_eq(u8x16::splat(b'\\'));
        let found = found.to_bitmask();
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    let rest = bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    rest.map_or(bytes.len(), |plain| at + plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Map, Value};

    use super::*;

    const LEVELS: usize = 100;

    /// Nothing is known.
    impl Known for () {
        fn length_in(&self, _text: &str) -> usize {
            0
        }
    }

    /// The whole text as a value, read with everything the reader has.
    fn read(text: &str) -> Fast<Value> {
        let mut reader = Reader::new(text, LEVELS, &());
        let value = value(&mut reader)?;
        reader.end().map(|()| value)
    }

    fn value(reader: &mut Reader<'_, '_>) -> Fast<Value> {
        Ok(match reader.peek() {
            b'"' => Value::from(reader.text()?),
            b'{' => {
                let mut fields = Map::new();
                reader.object(|reader, key| {
                    fields.insert(key.into_owned(), value(reader)?);
                    Ok(())
                })?;
                Value::Object(fields)
            }
            b'[' => {
                let mut entries = Vec::new();
                reader.list(|reader| {
                    entries.push(value(reader)?);
                    Ok(())
                })?;
                Value::Array(entries)
            }
            b't' | b'f' => Value::from(reader.boolean()?),
            b'n' => {
                right(reader.null()?)?;
                Value::Null
            }
            _ => match reader.number()? {
                Number::Integer(number) => Value::from(number),
                Number::Real(number) => Value::from(number),
            },
        })
    }

    fn raw(text: &str) -> Fast<&str> {
        let mut reader = Reader::new(text, LEVELS, &());
        let raw = reader.raw()?;
        reader.end().map(|()| raw)
    }

    /// Integers beyond 18 digits are doubles here, and integers there as long as 64 bits hold them.
    fn as_doubles(value: &mut Value) {
        match value {
            Value::Number(number) => *value = Value::from(number.as_f64()),
            Value::Array(entries) => entries.iter_mut().for_each(as_doubles),
            Value::Object(fields) => fields.values_mut().for_each(as_doubles),
            _ => {}
        }
    }

    /// Of a text with halves of surrogate pairs, `serde_json` reads what it is mended to.
    fn same_as_serde(text: &str) -> Result<(), TestCaseError> {
        let whole = mended(text);
        prop_assert_eq!(whole.len(), text.len());
        let (mut ours, mut theirs) = (read(text), serde_json::from_str::<Value>(&whole));
        ours.iter_mut().for_each(as_doubles);
        theirs.iter_mut().for_each(as_doubles);
        prop_assert_eq!(ours.ok(), theirs.ok(), "{}", text);
        let (ours, theirs) = (raw(text), serde_json::from_str::<&RawValue>(text));
        prop_assert_eq!(ours.ok(), theirs.ok().map(RawValue::get), "{}", text);
        Ok(())
    }

    #[test]
    fn what_is_json_and_what_is_not_is_as_serde_json_has_it() {
        let texts = [
            "",
            " ",
            "null",
            "nul",
            "nulll",
            "true",
            "tru",
            "false",
            "fals",
            "x",
            "\u{0}",
            "null\u{0}",
            "[",
            "]",
            "[,]",
            "[1,]",
            "[1 2]",
            "[]",
            "[[]",
            "[[]]",
            "{}",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1 "b":2}"#,
            r#"{1:2}"#,
            r#"{"a":1,"b":[{}]}"#,
            " { \"a\" :\t1 ,\r\n\"b\": [ 1 , 2 ] } ",
            "\u{a0}1",
            "0",
            "-0",
            "-",
            "00",
            "01",
            "-01",
            "1.",
            ".5",
            "1.5",
            "-1.5",
            "1e",
            "1e5",
            "1E+5",
            "1e-5",
            "1e+",
            "1.e5",
            "1.5e3",
            "1e400",
            "-1e400",
            "1e-400",
            "0e0",
            "+1",
            "0x1",
            "123456789012345678",
            "-123456789012345678",
            "1234567890123456789",
            "9223372036854775808",
            "18446744073709551616",
            "0.1",
            "0.30000000000000004",
            "9007199254740993",
            "9007199254740993.0",
            "123456789012345.6",
            "12345678901234.56",
            "0.000000000000001",
            "0.0000000000000000001",
            "NaN",
            "Infinity",
            "--1",
            "1-",
            r#""""#,
            r#"""#,
            r#""a"#,
            "\"a\nb\"",
            "\"\u{7f}é→𝄞\"",
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\x""#,
            r#""\"#,
            r#""\u00e9""#,
            r#""\u00E9\u0000""#,
            r#""\u00g0""#,
            r#""\u12""#,
            r#""\ud834\udd1e""#,
            r#""\ud834""#,
            r#""\ud834x""#,
            r#""\ud834\n""#,
            r#""\ud834\u0041""#,
            r#""\udd1e""#,
            r#""\é""#,
            r#""01234567\n01234567\"0123456""#,
            r#"{"\u0061":1}"#,
            r#"["\ud834"]"#,
            r#"{"\ud834":["\udd1e"]}"#,
            r#""\\ud834 \\\ud834 \ud834\ud834\udd1e\udd1e""#,
            r#""\ud834\u00g0""#,
            r#""\ud834\u"#,
            r#""\uD83D\uDE00\uD83D""#,
            "'a'",
            "[1]2",
            "[1],",
        ];
        for text in texts {
            same_as_serde(text).unwrap_or_else(|failure| panic!("{failure}"));
        }
    }

    #[test]
    fn nesting_goes_as_far_as_it_may() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let skips = |text: &str, levels| Reader::new(text, levels, &()).raw().is_ok();
        assert!(skips(&nested(5), 5) && !skips(&nested(6), 5));
        assert!(skips("[[[]],[[]],[[]]]", 3), "levels that were closed do not count");
        assert!(skips(r#"{"a":{"b":{}},"c":[[]]}"#, 3) && !skips(r#"{"a":{"b":{}},"c":[[]]}"#, 2));
        assert!(!skips(&"[".repeat(1_000_000), LEVELS));
    }

    #[test]
    fn the_end_of_what_is_plain_is_found_at_every_place() {
        for length in 0..40 {
            for at in 0..=length {
                for stop in ['"', '\\', '\u{0}', '\u{1f}'] {
                    let plain = "é".repeat(at);
                    let text = format!("{plain}{stop}{}", " \u{7f}!#[]".repeat(length - at));
                    assert_eq!(end_of_plain(text.as_bytes(), 0), plain.len(), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_is_replaced_in_keys_in_values_and_in_what_is_kept_as_it_was_sent() {
        let text = r#"{"a\ud83d":["b\ude00c","\ud83d\ude00","\\ud83d"]}"#;
        let expected = serde_json::json!({ "a\u{fffd}": ["b\u{fffd}c", "😀", "\\ud83d"] });
        assert_eq!(read(text), Ok(expected));
        let mut reader = Reader::new(text, LEVELS, &());
        let kept = reader.whole_raw().expect("JSON");
        assert_eq!(kept, r#"{"a\ufffd":["b\ufffdc","\ud83d\ude00","\\ud83d"]}"#);
        assert!(matches!(Reader::new("[1,\"é\"]", LEVELS, &()).whole_raw(), Ok(Cow::Borrowed("[1,\"é\"]"))));
    }

    fn some_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ -~]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-z\"\\n]{0,20}", inner), 0..4)
                    .prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_as_serde_json_reads_it(text in "[\\[\\]{},:\" \\\\/nulltruefalse0-9.eE+é\u{0}-\u{1f}-]{0,24}") {
            same_as_serde(&text)?;
        }

        #[test]
        fn any_json_with_any_byte_changed_is_read_as_serde_json_reads_it(
            value in some_json(), pretty in any::<bool>(), place in any::<prop::sample::Index>(), byte in "[\\[\\]{},:\" \\\\0-9.e\u{0}-]",
        ) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
            same_as_serde(&text)?;
            let at = place.index(text.len() + 1);
            if text.is_char_boundary(at) {
                same_as_serde(&format!("{}{byte}{}", &text[..at], &text[at..]))?;
                same_as_serde(&text[..at])?;
                let after: String = text[at..].chars().skip(1).collect();
                same_as_serde(&format!("{}{byte}{after}", &text[..at]))?;
            }
        }

        #[test]
        fn any_string_survives_in_both_spellings(text in any::<String>()) {
            let plain = serde_json::to_string(&text).expect("JSON");
            prop_assert_eq!(read(&plain), Ok(Value::from(text.as_str())));
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(read(&format!("\"{escaped}\"")), Ok(Value::from(text)));
        }

        #[test]
        fn any_double_is_read_back_to_the_bit(bits in any::<u64>(), digits in 0..20_usize) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            for text in [format!("{number:?}"), format!("{number:e}"), format!("{:.digits$}", number % 1e9)] {
                let expected: f64 = text.parse().expect("a number");
                let found = match Reader::new(&text, 0, &()).number() {
                    Ok(Number::Real(found)) => found,
                    #[expect(clippy::cast_precision_loss, reason = "what is meant")]
                    Ok(Number::Integer(found)) => found as f64,
                    Err(Wrong) => f64::NAN,
                };
                prop_assert_eq!(found.to_bits(), expected.to_bits(), "{}", text);
            }
        }

        #[test]
        fn any_integer_is_read_exactly(integer in -999_999_999_999_999_999_i64..=999_999_999_999_999_999) {
            prop_assert_eq!(Reader::new(&integer.to_string(), 0, &()).number(), Ok(Number::Integer(integer)));
        }
    }
}
