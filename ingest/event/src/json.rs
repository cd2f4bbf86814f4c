//! A JSON reader that makes one pass over a text and borrows every string without escapes.
//!
//! It accepts the same JSON as `serde_json` (RFC 8259), and tests compare the two. Of anything else it reports only that it is
//! malformed; `explain.rs` finds the reason and the position. It is written by hand because decoding is most of the cost of a
//! message: an event of 834 bytes takes 1.08 µs, with `serde_json` 1.85 µs, and with `jiter` behind the same records 1.8 to 2.2
//! times as long as with this reader (docs/decisions/0002).
//!
//! Unlike `serde_json` it accepts half of a surrogate pair, which producers create by cutting a string within a character. It
//! reads U+FFFD instead, and [`replace_lone_surrogates`] writes U+FFFD into text that is kept as sent.
//!
//! For a value that is not kept as sent, the reader records its byte range only ([`Note`]). Few messages have such a value,
//! so `marks.rs` derives the JSON pointers from the notes in a second pass.

use std::borrow::Cow;

use wide::u8x16;

use crate::surrogate::{is_high, is_low, pair, replace_lone_surrogates};

/// The text is not JSON, or not the JSON that the caller expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) type Parsed<T> = Result<T, Malformed>;

/// A number, exact if it is an integer of at most [`EXACT_DIGITS`] digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum JsonNumber {
    /// A number without fraction and exponent, of at most [`EXACT_DIGITS`] digits.
    Integer(i64),
    /// Any other number, rounded to the nearest double.
    Real(f64),
}

/// Every number of this many digits fits 64 bits.
const EXACT_DIGITS: usize = 18;

/// A double represents every number of this many digits exactly.
const DOUBLE_DIGITS: usize = 15;

/// Powers of ten that a double represents exactly, up to [`DOUBLE_DIGITS`].
const TENS: [f64; DOUBLE_DIGITS + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Objects and arrays seen before. The reader skips them by their length instead of parsing them again.
pub(crate) trait KnownValues {
    /// Returns the length in bytes of the known value that `text` begins with, or 0. The value ends with its own bracket, so
    /// no byte after it can belong to it.
    fn known_length(&self, text: &str) -> usize;
}

/// The treatment of a value that is not kept as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The contract does not define its key, or has no column for it.
    Unknown,
    /// It exceeded its length limit and was cut there.
    Cut,
    /// It violates the contract and was left out.
    LeftOut,
    /// It exceeded a bound and was replaced by that bound.
    Bounded,
}

/// The byte range of a value that is not kept as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) from: usize,
    pub(crate) end: usize,
    pub(crate) mark: Mark,
}

/// A reader and its position in the text.
pub(crate) struct JsonReader<'a, 'k> {
    text: &'a str,
    at: usize,
    /// Remaining levels of nesting inside the open objects and arrays.
    levels: usize,
    known: &'k dyn KnownValues,
    /// Unordered.
    pub(crate) notes: Vec<Note>,
    /// Half of a surrogate pair was read since this was last set to false.
    has_lone_surrogate: bool,
}

/// A position that the reader can return to.
#[derive(Clone, Copy)]
pub(crate) struct Savepoint {
    at: usize,
    levels: usize,
    notes: usize,
}

/// The parts of a number's text.
struct Digits {
    from: usize,
    negative: bool,
    /// All digits before the exponent as one number; meaningful up to [`EXACT_DIGITS`] digits.
    mantissa: u64,
    digits: usize,
    /// Digits after the decimal point.
    fraction: usize,
    exponent: bool,
}

// === impl JsonReader ===

impl<'a, 'k> JsonReader<'a, 'k> {
    /// Starts at the beginning of `text`. Objects and arrays nested deeper than `levels` are malformed.
    pub(crate) fn new(text: &'a str, levels: usize, known: &'k dyn KnownValues) -> Self {
        Self { text, at: 0, levels, known, notes: Vec::new(), has_lone_surrogate: false }
    }

    /// Checks that only whitespace is left.
    pub(crate) fn expect_end(&mut self) -> Parsed<()> {
        self.peek();
        ensure(self.at == self.text.len())
    }

    /// Returns the first byte of the next token, or 0, which begins no token, at the end.
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
    fn expect_byte(&mut self, byte: u8) -> Parsed<()> {
        ensure(self.peek() == byte)?;
        self.at += 1;
        Ok(())
    }

    /// Consumes `true`, `false` or `null`.
    fn expect_word(&mut self, word: &str) -> Parsed<()> {
        self.peek();
        ensure(self.text.as_bytes()[self.at..].starts_with(word.as_bytes()))?;
        self.at += word.len();
        Ok(())
    }

    /// Consumes a null if it is the next value, and returns whether it was.
    #[inline]
    pub(crate) fn null(&mut self) -> Parsed<bool> {
        let null = self.peek() == b'n';
        if null {
            self.expect_word("null")?;
        }
        Ok(null)
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&mut self) -> Parsed<bool> {
        let value = self.peek() == b't';
        self.expect_word(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// Returns the text of the next value, whatever its type.
    pub(crate) fn raw(&mut self) -> Parsed<&'a str> {
        let from = self.start();
        self.skip()?;
        Ok(self.since(from))
    }

    /// Returns the text of the next value with lone surrogates replaced.
    pub(crate) fn repaired_raw(&mut self) -> Parsed<Cow<'a, str>> {
        let before = std::mem::replace(&mut self.has_lone_surrogate, false);
        let raw = self.raw()?;
        let has_lone_surrogate = std::mem::replace(&mut self.has_lone_surrogate, before);
        Ok(if has_lone_surrogate { replace_lone_surrogates(raw) } else { Cow::Borrowed(raw) })
    }

    // === values that are not kept as sent ===

    /// Skips and notes a value that the contract does not define.
    #[cold]
    pub(crate) fn unknown(&mut self) -> Parsed<()> {
        self.skip_and_note(Mark::Unknown)
    }

    /// Notes the value from `from` to the current position.
    #[cold]
    pub(crate) fn note(&mut self, from: usize, mark: Mark) {
        self.notes.push(Note { from, end: self.at, mark });
    }

    /// Returns the current position, for [`Self::leave_out`].
    #[inline]
    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint { at: self.at, levels: self.levels, notes: self.notes.len() }
    }

    /// Returns to a savepoint, and skips and notes the value there. The value must be JSON.
    #[cold]
    pub(crate) fn leave_out(&mut self, savepoint: Savepoint) -> Parsed<()> {
        (self.at, self.levels) = (savepoint.at, savepoint.levels);
        self.notes.truncate(savepoint.notes);
        self.skip_and_note(Mark::LeftOut)
    }

    fn skip_and_note(&mut self, mark: Mark) -> Parsed<()> {
        let from = self.start();
        self.skip()?;
        self.note(from, mark);
        Ok(())
    }

    /// Returns the text of the next value, skipping it by its length if it is known.
    pub(crate) fn raw_or_known(&mut self) -> Parsed<&'a str> {
        let from = self.start();
        match self.known.known_length(&self.text[from..]) {
            0 => self.skip()?,
            length => self.at += length,
        }
        Ok(self.since(from))
    }

    /// Returns the index of the next value.
    pub(crate) fn start(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// Returns the text of a byte range.
    pub(crate) fn between(&self, from: usize, end: usize) -> &'a str {
        &self.text[from..end]
    }

    /// Returns the text from `from` to the current position.
    pub(crate) fn since(&self, from: usize) -> &'a str {
        &self.text[from..self.at]
    }

    fn skip(&mut self) -> Parsed<()> {
        match self.peek() {
            b'"' => self.skip_text(),
            b'{' => self.fields(Self::skip_text, |reader, ()| reader.skip()),
            b'[' => self.list(Self::skip),
            b't' => self.expect_word("true"),
            b'f' => self.expect_word("false"),
            b'n' => self.expect_word("null"),
            _ => self.digits().map(|_| ()),
        }
    }

    // === objects and arrays ===

    /// Reads an object. `field` is called with each key and reads the value.
    #[inline]
    pub(crate) fn object(&mut self, field: impl FnMut(&mut Self, Cow<'a, str>) -> Parsed<()>) -> Parsed<()> {
        self.fields(Self::text, field)
    }

    #[inline]
    fn fields<K>(
        &mut self,
        mut key: impl FnMut(&mut Self) -> Parsed<K>,
        mut value: impl FnMut(&mut Self, K) -> Parsed<()>,
    ) -> Parsed<()> {
        self.nested(b'{', b'}', |reader| {
            let key = key(reader)?;
            reader.expect_byte(b':')?;
            value(reader, key)
        })
    }

    /// Reads an array. `entry` is called for each entry and reads it.
    #[inline]
    pub(crate) fn list(&mut self, entry: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.nested(b'[', b']', entry)
    }

    #[inline]
    fn nested(&mut self, open: u8, close: u8, mut entry: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.expect_byte(open)?;
        self.levels = self.levels.checked_sub(1).ok_or(Malformed)?;
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
        self.expect_byte(close)
    }

    // === strings ===

    /// Reads a string.
    #[inline]
    pub(crate) fn text(&mut self) -> Parsed<Cow<'a, str>> {
        ensure(self.peek() == b'"')?;
        match self.plain() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.unescaped().map(Cow::Owned),
        }
    }

    /// Reads the next string if it has no escapes; otherwise consumes nothing.
    fn plain(&mut self) -> Option<&'a str> {
        let from = self.at + 1;
        let end = end_of_plain(self.text.as_bytes(), from);
        if self.text.as_bytes().get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        self.text.get(from..end)
    }

    /// Reads the next string and resolves its escapes.
    #[cold]
    fn unescaped(&mut self) -> Parsed<String> {
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

    /// Skips a string.
    #[inline]
    fn skip_text(&mut self) -> Parsed<()> {
        self.expect_byte(b'"')?;
        loop {
            self.at = end_of_plain(self.text.as_bytes(), self.at);
            if self.byte() == b'"' {
                self.at += 1;
                return Ok(());
            }
            self.escape()?;
        }
    }

    /// Reads an escape. A character beyond the basic plane is a pair of UTF-16 code units (RFC 8259, section 7). Half of a pair
    /// is read as U+FFFD, and the escape after it as a character of its own.
    fn escape(&mut self) -> Parsed<char> {
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
                return pair(unit, low).ok_or(Malformed);
            }
            self.at = after;
        }
        self.has_lone_surrogate = true;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn escape_name(&mut self) -> Parsed<Escape> {
        ensure(self.byte() == b'\\')?;
        self.at += 1;
        let escape = match self.byte() {
            name @ (b'"' | b'\\' | b'/') => Escape::Plain(char::from(name)),
            b'b' => Escape::Plain('\u{8}'),
            b'f' => Escape::Plain('\u{c}'),
            b'n' => Escape::Plain('\n'),
            b'r' => Escape::Plain('\r'),
            b't' => Escape::Plain('\t'),
            b'u' => Escape::Unit,
            _ => return Err(Malformed),
        };
        self.at += 1;
        Ok(escape)
    }

    /// Reads the four hexadecimal digits of a UTF-16 code unit.
    fn unit(&mut self) -> Parsed<u32> {
        (0..4).try_fold(0, |unit, _| {
            let digit = char::from(self.byte()).to_digit(16).ok_or(Malformed)?;
            self.at += 1;
            Ok(unit * 16 + digit)
        })
    }

    // === numbers ===

    /// Reads a number.
    #[inline]
    pub(crate) fn number(&mut self) -> Parsed<JsonNumber> {
        let found = self.digits()?;
        if !found.exponent && found.digits <= EXACT_DIGITS {
            let mantissa = found.mantissa.cast_signed();
            // A negative zero stays a double, because integers have none.
            if found.fraction == 0 && !(found.negative && mantissa == 0) {
                return Ok(JsonNumber::Integer(if found.negative { -mantissa } else { mantissa }));
            }
            if found.digits <= DOUBLE_DIGITS {
                // Both operands are exact, so the quotient is rounded only once (Clinger 1990, "How to read floating point
                // numbers accurately", section 4).
                #[expect(clippy::cast_precision_loss, reason = "15 digits fit 53 bits")]
                let number = mantissa as f64 / TENS[found.fraction];
                return Ok(JsonNumber::Real(if found.negative { -number } else { number }));
            }
        }
        let number: f64 = self.since(found.from).parse().map_err(|_| Malformed)?;
        ensure(number.is_finite())?;
        Ok(JsonNumber::Real(number))
    }

    #[inline]
    fn digits(&mut self) -> Parsed<Digits> {
        let from = self.start();
        let negative = self.byte() == b'-';
        self.at += usize::from(negative);
        let mut mantissa = 0;
        let leading_zero = self.byte() == b'0';
        let whole = self.run_of_digits(&mut mantissa);
        ensure(whole == 1 || whole > 1 && !leading_zero)?;
        let mut fraction = 0;
        if self.byte() == b'.' {
            self.at += 1;
            fraction = self.run_of_digits(&mut mantissa);
            ensure(fraction > 0)?;
        }
        let exponent = matches!(self.byte(), b'e' | b'E');
        if exponent {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), b'+' | b'-'));
            ensure(self.run_of_digits(&mut 0) > 0)?;
        }
        Ok(Digits { from, negative, mantissa, digits: whole + fraction, fraction, exponent })
    }

    /// Appends digits to `number` and returns how many there were. `number` overflows silently: callers check the count.
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

/// The character after a backslash.
enum Escape {
    /// It stands for this character.
    Plain(char),
    /// A UTF-16 code unit in hexadecimal digits follows.
    Unit,
}

#[inline]
pub(crate) fn ensure(holds: bool) -> Parsed<()> {
    if holds { Ok(()) } else { Err(Malformed) }
}

/// Returns the index of the first quote, backslash or control character at or after `at`, or the length.
///
/// It examines sixteen bytes at a time: a message has about fifty strings, most of them short.
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
mod tests;
