//! Reads files of events: plain, gzip or zstd, or standard input. `replay` and `check event` share this reader, so that they find
//! the same events in a file.
//!
//! A file holds one event per line; a JSON object may span several lines, and an array holds one event per entry. Each event is
//! then decoded like a Kafka message. A truncated event ends at a line end within a string, or before a line that is a whole
//! event itself, so that one bad line spoils no good one.
//!
//! Memory is bounded by the longest event allowed: a longer one is reported by its size only, and reading continues after it. The
//! offset of an event is the number of the line on which it begins, counted from 0 and including blank lines, or one more than the
//! offset of the event before it, if that is greater. It is the same however often the file is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use bellwether_base::{Error, Result};
use flate2::read::MultiGzDecoder;
use memchr::memmem;
use sha2::{Digest, Sha256};

/// Size of the read buffer.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes at the beginning of a file that distinguish it from another of the same name and size.
const HEAD_BYTES: u64 = 64 * 1024;

/// The file name that stands for standard input.
pub const STANDARD_INPUT: &str = "-";

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// An event of a file, or an unreadable piece of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEvent {
    /// Offset, the same in every read of the file.
    pub offset: i64,
    /// Line on which it begins, from 0.
    pub line: i64,
    pub size: Size,
}

/// The size of an event, compared with the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The whole event is in the buffer.
    Whole,
    /// The event has this many bytes, more than allowed.
    TooLong(usize),
}

/// A reader of the events of a file.
pub struct FileEvents {
    reader: Box<dyn BufRead + Send>,
    name: String,
    limit: usize,
    /// Lines read to their end.
    lines: i64,
    /// Lowest unused offset.
    free: i64,
    /// The reader is inside a top-level array.
    in_list: bool,
    /// A whole event that was read ahead, with its line.
    ahead: Option<(i64, Vec<u8>)>,
}

/// Tracks the nesting of JSON.
#[derive(Clone, Copy, Debug, Default)]
struct Nesting {
    open: usize,
    in_text: bool,
    escaped: bool,
}

// === impl Nesting ===

impl Nesting {
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

    /// Returns the end of an array entry: the first comma or bracket outside it.
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

// === impl FileEvents ===

impl FileEvents {
    /// Opens a file, and detects its compression by its first bytes. Events of more than `limit` bytes are skipped.
    ///
    /// # Errors
    /// `Config` if the file cannot be read.
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

    /// Returns the lowest unused offset: that of the next event, unless blank lines precede it.
    pub fn next_offset(&self) -> i64 {
        let ahead = self.ahead.as_ref().map_or(self.lines, |(line, _)| *line);
        self.free.max(ahead)
    }

    /// Reads the next event into the buffer, without surrounding whitespace.
    ///
    /// # Errors
    /// `Data` if the compressed data is truncated; the events before that are valid.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Option<FileEvent>> {
        buffer.clear();
        if let Some((line, event)) = self.ahead.take() {
            *buffer = event;
            return Ok(Some(self.event(line, buffer, 0)));
        }
        loop {
            let Some(first) = self.first_byte()? else {
                if !std::mem::take(&mut self.in_list) {
                    return Ok(None);
                }
                // An unclosed array is reported by its opening bracket.
                buffer.push(b'[');
                return Ok(Some(self.event(self.lines, buffer, 0)));
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
                    return Ok(Some(self.event(line, buffer, size)));
                }
                (false, b'[') => {
                    self.in_list = true;
                    self.consume(1);
                }
                (false, _) => {
                    let size = self.object_or_line(buffer)?;
                    return Ok(Some(self.event(line, buffer, size)));
                }
            }
        }
    }

    /// Assigns an offset to an event that began on a line.
    fn event(&mut self, line: i64, buffer: &mut Vec<u8>, size: usize) -> FileEvent {
        let offset = self.free.max(line);
        self.free = offset + 1;
        if size > self.limit {
            return FileEvent { offset, line, size: Size::TooLong(size) };
        }
        buffer.truncate(buffer.trim_ascii_end().len());
        FileEvent { offset, line, size: Size::Whole }
    }

    /// Reads an array entry, and returns its size.
    fn entry(&mut self, buffer: &mut Vec<u8>) -> Result<usize> {
        let (mut nesting, mut size, limit) = (Nesting::default(), 0, self.limit);
        loop {
            let available = self.available()?;
            if available.is_empty() {
                return Ok(size);
            }
            let end = nesting.end_of_entry(available);
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

    /// Reads the rest of a line, and further lines up to the end of an object that begins on it. Returns their size.
    fn object_or_line(&mut self, buffer: &mut Vec<u8>) -> Result<usize> {
        let mut nesting = Nesting::default();
        let is_object = self.available()?.first() == Some(&b'{');
        let mut size = self.line(buffer, &mut nesting)?;
        while is_object && !nesting.is_whole() && !nesting.in_text {
            // A string cannot span lines: one that is open at a line end is truncated.
            let (line, mut next, mut of_next) = (self.lines, Vec::new(), Nesting::default());
            let begins_object = self.available()?.first() == Some(&b'{');
            if !begins_object {
                match self.line(buffer, &mut nesting)? {
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
            nesting.take(&next);
            keep(buffer, &next, self.limit);
        }
        Ok(size)
    }

    /// Appends the rest of a line, including its end, as far as it fits, and returns its size.
    fn line(&mut self, buffer: &mut Vec<u8>, nesting: &mut Nesting) -> Result<usize> {
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
            nesting.take(part);
            keep(buffer, part, limit);
            size += used;
            self.consume(used);
            if end.is_some() {
                self.lines += 1;
                return Ok(size);
            }
        }
    }

    /// Skips whitespace and byte order marks, and returns the next byte; `None` at the end.
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
        // Called twice, because the borrow checker extends a borrow returned in one arm to the others.
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

/// Appends bytes until the buffer holds one more than the limit.
fn keep(buffer: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let room = limit.saturating_add(1).saturating_sub(buffer.len());
    buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Returns true if a line contains a key with which events usually begin.
fn is_event(line: &[u8]) -> bool {
    [&b"\"run_id\""[..], b"\"spec\"", b"\"specversion\""].iter().any(|key| memmem::find(line, key).is_some())
}

/// Returns the name under which the tables record how far a file has been read: its file name, with a hash of its first 64 KiB
/// and its size. Returns `None` for standard input, which cannot be read again.
///
/// # Errors
/// `Config` if the file cannot be read.
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

    fn records(bytes: &[u8], limit: usize) -> Result<Vec<(FileEvent, Vec<u8>)>> {
        let mut file = tempfile::NamedTempFile::new().expect("temp file");
        file.write_all(bytes).expect("writes");
        let mut records = FileEvents::open(file.path(), limit)?;
        let (mut all, mut buffer) = (Vec::new(), Vec::new());
        while let Some(record) = records.read(&mut buffer)? {
            all.push((record, buffer.clone()));
        }
        Ok(all)
    }

    /// Returns the events of a text, with their offsets.
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
    fn plain_and_compressed_files_of_several_members_hold_the_same_events() {
        let plain = records(b"one\r\n\ntwo\nthree", 100).expect("reads");
        let texts: Vec<(i64, &[u8])> = plain.iter().map(|(record, text)| (record.offset, text.as_slice())).collect();
        assert_eq!(texts, [(0, &b"one"[..]), (2, b"two"), (3, b"three")]);
        let members = [gzip("one\n\ntw"), gzip("o\nthree\n")].concat();
        assert_eq!(records(&members, 100).expect("reads"), plain);
        let frame = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("writes");
        assert_eq!(records(&[frame("one\n\n"), frame("two\nthree")].concat(), 100).expect("reads"), plain);
    }

    #[test]
    fn an_event_may_span_lines_and_an_array_holds_many() {
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
    fn a_bad_line_spoils_no_good_one() {
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
    fn an_overlong_event_is_reported_by_its_size_and_reading_continues() {
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
    fn a_truncated_file_is_reported_after_its_good_lines() {
        let whole = gzip(&"a line that is long enough to be somewhere\n".repeat(5000));
        let error = records(&whole[..whole.len() / 2], 100).expect_err("torn");
        assert!(error.message().contains("is truncated after line"), "{error}");
    }
}
