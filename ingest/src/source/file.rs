//! Reading files of events: plain, gzip or zstd, or standard input. The one reader of `replay` and `check event`, so that a
//! file holds the same events for both.
//!
//! A file holds events one a line; a JSON object may go over many lines, and a list holds one event an entry. Each event is
//! then decoded as a message of Kafka is. What ends a torn line: the end of a line within a text, and a line that is a whole
//! event by itself, so that one bad line costs no good one.
//!
//! Memory is bounded by the longest event allowed: of a longer one only the size is known, and the rest of the file goes on.
//! An event's offset is the number of the line it begins on, from 0 and blank ones too, or one more than that of the event
//! before, if that is greater: it stays the same however often the file is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use bellwether_base::{Error, Result};
use flate2::read::MultiGzDecoder;
use memchr::memmem;
use sha2::{Digest, Sha256};

/// Read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes at a file's beginning that tell it from another of the same name and size.
const HEAD_BYTES: u64 = 64 * 1024;

/// Standard input, as a file's name.
pub const STANDARD_INPUT: &str = "-";

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// An event of a file, or what stands in the place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset for ever.
    pub offset: i64,
    /// Line it begins on, from 0.
    pub line: i64,
    /// Whether it is in the buffer.
    pub size: Size,
}

/// Whether an event is in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// It is in the buffer.
    Whole,
    /// It has more bytes than are allowed: so many.
    TooLong(usize),
}

/// Events of a file.
pub struct Records {
    reader: Box<dyn BufRead + Send>,
    name: String,
    limit: usize,
    /// Lines that were read to their end.
    lines: i64,
    /// Least offset that is free.
    free: i64,
    /// A list is open.
    in_list: bool,
    /// A whole event that was read to see that it is one, with its line.
    ahead: Option<(i64, Vec<u8>)>,
}

/// How far JSON is from its end.
#[derive(Clone, Copy, Debug, Default)]
struct Balance {
    open: usize,
    in_text: bool,
    escaped: bool,
}

// === impl Balance ===

impl Balance {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.take_byte(*byte);
        }
    }

    #[inline]
    fn take_byte(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_text => self.escaped = true,
            b'"' => self.in_text = !self.in_text,
            b'{' | b'[' if !self.in_text => self.open += 1,
            b'}' | b']' if !self.in_text => self.open = self.open.saturating_sub(1),
            _ => {}
        }
    }

    /// Where an entry of a list ends: at a comma or bracket that is not its own.
    fn end_of_entry(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.open == 0 && !self.in_text && matches!(byte, b',' | b']') {
                return Some(at);
            }
            self.take_byte(*byte);
        }
        None
    }

    fn is_whole(self) -> bool {
        self.open == 0 && !self.in_text
    }
}

// === impl Records ===

impl Records {
    /// Opens a file by its name; what it is compressed with is told by its first bytes. Events of more than `limit` bytes
    /// are passed over.
    ///
    /// # Errors
    /// `Config` where it cannot be read.
    pub fn open(path: &Path, limit: usize) -> Result<Self> {
        let name = path.display().to_string();
        let refuse = |source: io::Error| Error::config(format!("cannot read file `{name}`")).with_source(source);
        let raw: Box<dyn Read + Send> =
            if name == STANDARD_INPUT { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(refuse)?) };
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, raw);
        let head = raw.fill_buf().map_err(refuse)?;
        let reader: Box<dyn BufRead + Send> = match head {
            [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(refuse)?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
            _ => Box::new(raw),
        };
        Ok(Self { reader, name, limit, lines: 0, free: 0, in_list: false, ahead: None })
    }

    /// Least offset that no event so far has: that of the next event, if no blank line comes before it.
    pub fn next_offset(&self) -> i64 {
        let ahead = self.ahead.as_ref().map_or(self.lines, |(line, _)| *line);
        self.free.max(ahead)
    }

    /// Reads an event into the buffer, without the space around it.
    ///
    /// # Errors
    /// `Data` where the file ends inside its compression; the events before are good.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Record>> {
        buffer.clear();
        if let Some((line, event)) = self.ahead.take() {
            *buffer = event;
            return Ok(Some(self.record(line, buffer, 0)));
        }
        loop {
            let Some(first) = self.first_byte()? else {
                if !std::mem::take(&mut self.in_list) {
                    return Ok(None);
                }
                // A list that is not closed is torn: its bracket stands for what is missing.
                buffer.push(b'[');
                return Ok(Some(self.record(self.lines, buffer, 0)));
            };
            let line = self.lines;
            match (self.in_list, first) {
                (true, b',') => self.consume(1),
                (true, b']') => {
                    self.in_list = false;
                    self.consume(1);
                }
                (true, _) => {
                    let size = self.entry(buffer)?;
                    return Ok(Some(self.record(line, buffer, size)));
                }
                (false, b'[') => {
                    self.in_list = true;
                    self.consume(1);
                }
                (false, _) => {
                    let size = self.object_or_line(buffer)?;
                    return Ok(Some(self.record(line, buffer, size)));
                }
            }
        }
    }

    /// A record that began on that line, with its bytes where they are more than fit.
    fn record(&mut self, line: i64, buffer: &mut Vec<u8>, size: usize) -> Record {
        let offset = self.free.max(line);
        self.free = offset + 1;
        if size > self.limit {
            return Record { offset, line, size: Size::TooLong(size) };
        }
        buffer.truncate(buffer.trim_ascii_end().len());
        Record { offset, line, size: Size::Whole }
    }

    /// An entry of a list, up to what comes after it. Gives its size.
    fn entry(&mut self, buffer: &mut Vec<u8>) -> Result<usize> {
        let (mut balance, mut size, limit) = (Balance::default(), 0, self.limit);
        loop {
            let available = self.available()?;
            if available.is_empty() {
                return Ok(size);
            }
            let end = balance.end_of_entry(available);
            let part = &available[..end.unwrap_or(available.len())];
            let used = part.len();
            let lines = memchr::memchr_iter(b'\n', part).count();
            keep(buffer, part, limit);
            size += used;
            self.consume(used);
            self.lines += i64::try_from(lines).unwrap_or(i64::MAX);
            if end.is_some() {
                return Ok(size);
            }
        }
    }

    /// The rest of a line, and where it begins an object that it does not end, the lines up to its end. Gives their size.
    fn object_or_line(&mut self, buffer: &mut Vec<u8>) -> Result<usize> {
        let mut balance = Balance::default();
        let is_object = self.available()?.first() == Some(&b'{');
        let mut size = self.line(buffer, &mut balance)?;
        while is_object && !balance.is_whole() && !balance.in_text {
            // A text cannot go over lines: one that is open at a line's end is torn.
            let (line, mut next, mut of_next) = (self.lines, Vec::new(), Balance::default());
            let begins_object = self.available()?.first() == Some(&b'{');
            if !begins_object {
                match self.line(buffer, &mut balance)? {
                    0 => break,
                    more => size += more,
                }
                continue;
            }
            let more = self.line(&mut next, &mut of_next)?;
            if more <= self.limit && of_next.is_whole() && is_event(&next) {
                self.ahead = Some((line, next));
                break;
            }
            size += more;
            balance.take(&next);
            keep(buffer, &next, self.limit);
        }
        Ok(size)
    }

    /// Appends the rest of a line, its end included, as far as there is room. Gives its size.
    fn line(&mut self, buffer: &mut Vec<u8>, balance: &mut Balance) -> Result<usize> {
        let (mut size, limit) = (0, self.limit);
        loop {
            let available = self.available()?;
            if available.is_empty() {
                self.lines += i64::from(size > 0);
                return Ok(size);
            }
            let end = memchr::memchr(b'\n', available).map(|end| end + 1);
            let part = &available[..end.unwrap_or(available.len())];
            let used = part.len();
            balance.take(part);
            keep(buffer, part, limit);
            size += used;
            self.consume(used);
            if end.is_some() {
                self.lines += 1;
                return Ok(size);
            }
        }
    }

    /// The first byte that is not space, which is passed over as a byte order mark is; none at the end.
    fn first_byte(&mut self) -> Result<Option<u8>> {
        loop {
            let available = self.available()?;
            if available.is_empty() {
                return Ok(None);
            }
            let blank = available.len() - available.trim_ascii_start().len();
            let (space, rest) = available.split_at(blank);
            let lines = memchr::memchr_iter(b'\n', space).count();
            let marked = rest.starts_with(BYTE_ORDER_MARK);
            let first = rest.first().copied().filter(|_| !marked);
            self.consume(if marked { blank + BYTE_ORDER_MARK.len() } else { blank });
            self.lines += i64::try_from(lines).unwrap_or(i64::MAX);
            if first.is_some() {
                return Ok(first);
            }
        }
    }

    fn available(&mut self) -> Result<&[u8]> {
        // Asked for twice, because a borrow that is returned in one arm lasts for the others too.
        loop {
            match self.reader.fill_buf() {
                Ok(_) => break,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::data(format!("file `{}` is truncated after line {}", self.name, self.lines))
                        .with_hint("the events before that were read; fetch the file again for the rest")
                        .with_source(source));
                }
            }
        }
        self.reader.fill_buf().map_err(|source| {
            Error::data(format!("file `{}` is truncated after line {}", self.name, self.lines)).with_source(source)
        })
    }

    fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }
}

/// Appends bytes up to one more than the limit.
fn keep(buffer: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let room = limit.saturating_add(1).saturating_sub(buffer.len());
    buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// True for a line with a key that events begin with.
fn is_event(line: &[u8]) -> bool {
    [&b"\"run_id\""[..], b"\"spec\"", b"\"specversion\""].iter().any(|key| memmem::find(line, key).is_some())
}

/// A name for a file's content, under which the tables remember how far it was read: its name, and a hash of its first
/// 64 KiB and its size. None for standard input, which cannot be read again.
///
/// # Errors
/// `Config` where it cannot be read.
pub fn identity(path: &Path) -> Result<Option<String>> {
    if path.as_os_str() == STANDARD_INPUT {
        return Ok(None);
    }
    let refuse =
        |source: io::Error| Error::config(format!("cannot read file `{}`", path.display())).with_source(source);
    let file = File::open(path).map_err(refuse)?;
    let size = file.metadata().map_err(refuse)?.len();
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).map_err(refuse)?;
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    hash.update(&head);
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().map_or_else(|| "file".to_owned(), |name| name.to_string_lossy().into_owned());
    // `/` and `#` separate the parts of an application id in the tables.
    Ok(Some(format!("{}@{hash}", name.replace(['/', '#'], "_"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn records(bytes: &[u8], limit: usize) -> Result<Vec<(Record, Vec<u8>)>> {
        let mut file = tempfile::NamedTempFile::new().expect("temp file");
        file.write_all(bytes).expect("writes");
        let mut records = Records::open(file.path(), limit)?;
        let (mut all, mut buffer) = (Vec::new(), Vec::new());
        while let Some(record) = records.read(&mut buffer)? {
            all.push((record, buffer.clone()));
        }
        Ok(all)
    }

    /// The events of a text, with their offsets.
    fn events(text: &str) -> Vec<(i64, String)> {
        let records = records(text.as_bytes(), 1000).expect("reads");
        records.into_iter().map(|(record, text)| (record.offset, String::from_utf8(text).expect("text"))).collect()
    }

    fn found(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
        expected.iter().map(|(offset, text)| (*offset, (*text).to_owned())).collect()
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).expect("writes");
        encoder.finish().expect("writes")
    }

    #[test]
    fn plain_and_compressed_files_of_several_members_give_the_same_events() {
        let plain = records(b"one\r\n\ntwo\nthree", 100).expect("reads");
        let texts: Vec<(i64, &[u8])> = plain.iter().map(|(record, text)| (record.offset, text.as_slice())).collect();
        assert_eq!(texts, [(0, &b"one"[..]), (2, b"two"), (3, b"three")]);
        let members = [gzip("one\n\ntw"), gzip("o\nthree\n")].concat();
        assert_eq!(records(&members, 100).expect("reads"), plain);
        let frame = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("writes");
        assert_eq!(records(&[frame("one\n\n"), frame("two\nthree")].concat(), 100).expect("reads"), plain);
    }

    #[test]
    fn an_event_may_go_over_many_lines_and_a_list_holds_many() {
        let (one, two) = ("{\n \"a\": [\n  \"}\"\n ]\n}", r#"{"run_id":"2"}"#);
        assert_eq!(events(one), found(&[(0, one)]));
        assert_eq!(events(&format!("\u{feff}{one}\n{one}\r\n{two}\n")), found(&[(0, one), (5, one), (10, two)]));
        assert_eq!(events(&format!("[{two},{two}, {two}]")), found(&[(0, two), (1, two), (2, two)]));
        assert_eq!(events(&format!("[\n{two},\n{one}\n]\n")), found(&[(1, two), (2, one)]));
        assert_eq!(events(&format!("[{two},{two}]\n{two}\n")), found(&[(0, two), (1, two), (2, two)]));
        assert_eq!(
            events(r#"[{"a":"]},["},[1,[2]],"x",3]"#),
            found(&[(0, r#"{"a":"]},["}"#), (1, "[1,[2]]"), (2, "\"x\""), (3, "3")])
        );
        assert_eq!(events("[]"), []);
        assert_eq!(events(""), []);
        assert_eq!(events(" \n\u{feff}\n"), []);
    }

    #[test]
    fn a_bad_line_costs_no_good_one() {
        let good = r#"{"spec":"run-event/1","run_id":"r"}"#;
        for bad in [
            "not json",
            r#"{"spec":"run-ev"#,
            r#"{"spec":"run-event/1","data":{"#,
            r#"{"spec":"run-event/1","data":{"a":[1}"#,
            "{}}",
            "]",
            r#"{"a":1}{"b":2}"#,
            "\0\0\0\0\u{7}{}",
        ] {
            let text = format!("{good}\n{bad}\n{good}\n\n{good}");
            assert_eq!(events(&text), found(&[(0, good), (1, bad), (2, good), (4, good)]), "{bad}");
        }
        let torn = "{\n \"spec\": 1,\n";
        assert_eq!(events(&format!("{torn}{good}\n")), found(&[(0, torn.trim_end()), (2, good)]));
        assert_eq!(events(&format!("[{good},{good}")), found(&[(0, good), (1, good), (2, "[")]));
    }

    #[test]
    fn an_overlong_event_is_told_by_its_size_and_the_rest_goes_on() {
        let long = "x".repeat(1_000_000);
        let sizes = |text: &str| -> Vec<Size> {
            let all = records(text.as_bytes(), 10).expect("reads");
            assert!(all.iter().all(|(_, text)| text.len() <= 11), "memory is bounded");
            all.iter().map(|(record, _)| record.size).collect()
        };
        assert_eq!(sizes(&format!("short\n{long}\nshort\n")), [Size::Whole, Size::TooLong(1_000_001), Size::Whole]);
        let object = format!("{{\"a\":\n\"{long}\"\n}}");
        assert_eq!(sizes(&format!("{object}\nshort\n")), [Size::TooLong(object.len() + 1), Size::Whole]);
        assert_eq!(sizes(&format!("[1,{object},2]")), [Size::Whole, Size::TooLong(object.len()), Size::Whole]);
    }

    #[test]
    fn a_file_cut_short_says_so_after_its_good_lines() {
        let whole = gzip(&"a line that is long enough to be somewhere\n".repeat(5000));
        let error = records(&whole[..whole.len() / 2], 100).expect_err("torn");
        assert!(error.message().contains("is truncated after line"), "{error}");
    }
}
