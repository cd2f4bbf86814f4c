//! Reading files of events, one JSON object a line: plain, gzip or zstd, or standard input.
//!
//! Memory is bounded by the longest message allowed: of a longer line only the size is known, and the rest of the file
//! goes on. Lines count from 0, blank ones too, so that a line's number is its offset for ever.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use bellwether_lake::{Error, Result};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes at a file's beginning that tell it from another of the same name and size.
const HEAD_BYTES: u64 = 64 * 1024;

/// Standard input, as a file's name.
pub const STANDARD_INPUT: &str = "-";

/// One line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It is in the buffer.
    Whole,
    /// It has more bytes than are allowed.
    TooLong(usize),
}

/// Lines of a file.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    name: String,
    limit: usize,
    next: i64,
    bytes: u64,
}

// === impl Lines ===

impl Lines {
    /// Opens a file by its name; what it is compressed with is told by its first bytes.
    ///
    /// # Errors
    /// `Config` where it cannot be read.
    pub fn open(path: &Path, limit: usize) -> Result<Self> {
        let name = path.display().to_string();
        let refuse = |source: io::Error| Error::config(format!("file `{name}` cannot be read")).with_source(source);
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
        Ok(Self { reader, name, limit, next: 0, bytes: 0 })
    }

    /// Number of the line that is read next.
    pub fn next_line(&self) -> i64 {
        self.next
    }

    /// Bytes read so far, decompressed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads a line into the buffer, without its end.
    ///
    /// # Errors
    /// `Data` where the file ends inside its compression; the lines before are good.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Line>> {
        buffer.clear();
        let mut size = 0;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::data(format!("file `{}` breaks off after line {}", self.name, self.next))
                        .with_hint("the lines before were read; fetch the file again for the rest")
                        .with_source(source));
                }
            };
            if available.is_empty() {
                if size == 0 {
                    return Ok(None);
                }
                break;
            }
            let end = memchr::memchr(b'\n', available);
            let part = &available[..end.unwrap_or(available.len())];
            let room = self.limit.saturating_add(1).saturating_sub(buffer.len());
            buffer.extend_from_slice(&part[..part.len().min(room)]);
            let used = end.map_or(available.len(), |end| end + 1);
            size += used;
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        self.next += 1;
        self.bytes += size as u64;
        if buffer.len() > self.limit {
            return Ok(Some(Line::TooLong(size)));
        }
        if buffer.last() == Some(&b'\r') {
            buffer.pop();
        }
        Ok(Some(Line::Whole))
    }
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
        |source: io::Error| Error::config(format!("file `{}` cannot be read", path.display())).with_source(source);
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

    fn lines(bytes: &[u8], limit: usize) -> Result<Vec<(Line, Vec<u8>)>> {
        let mut file = tempfile::NamedTempFile::new().expect("temp file");
        file.write_all(bytes).expect("writes");
        let mut lines = Lines::open(file.path(), limit)?;
        let (mut all, mut buffer) = (Vec::new(), Vec::new());
        while let Some(line) = lines.read(&mut buffer)? {
            all.push((line, buffer.clone()));
        }
        Ok(all)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).expect("writes");
        encoder.finish().expect("writes")
    }

    #[test]
    fn plain_and_compressed_files_of_several_members_give_the_same_lines() {
        let plain = lines(b"one\r\n\ntwo\nthree", 100).expect("reads");
        let texts: Vec<&[u8]> = plain.iter().map(|(_, text)| text.as_slice()).collect();
        assert_eq!(texts, [&b"one"[..], b"", b"two", b"three"]);
        let members = [gzip("one\n\ntw"), gzip("o\nthree\n")].concat();
        assert_eq!(lines(&members, 100).expect("reads"), plain);
        let frame = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("writes");
        assert_eq!(lines(&[frame("one\n\n"), frame("two\nthree")].concat(), 100).expect("reads"), plain);
    }

    #[test]
    fn an_overlong_line_is_told_by_its_size_and_the_rest_goes_on() {
        let text = format!("short\n{}\nshort\n", "x".repeat(1_000_000));
        let all = lines(text.as_bytes(), 10).expect("reads");
        assert_eq!(
            all.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [Line::Whole, Line::TooLong(1_000_001), Line::Whole]
        );
        assert!(all[1].1.len() <= 11, "memory is bounded");
    }

    #[test]
    fn a_file_cut_short_says_so_after_its_good_lines() {
        let whole = gzip(&"a line that is long enough to be somewhere\n".repeat(5000));
        let error = lines(&whole[..whole.len() / 2], 100).expect_err("torn");
        assert!(error.message().contains("breaks off after line"), "{error}");
    }

    #[test]
    fn an_empty_file_has_no_lines() {
        assert_eq!(lines(b"", 10).expect("reads"), []);
    }
}
