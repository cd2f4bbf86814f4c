//! Messages of the protocol of Postgres, version 3.0, as the server reads and writes them.
//!
//! A message has a letter, its length and a body; the first one of a connection has no letter. All numbers are big-endian. Reading
//! trusts no length in a body.

use super::failure::Failure;

/// Parts of a body, which are read from its begin.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Run statements, and send their rows as text.
    Query(String),
    /// Prepare a statement, with types of its first parameters; 0 leaves a type open.
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    /// Give values to a prepared statement.
    Bind(Bind),
    Describe(Target, String),
    /// Run a portal, and send at most so many rows; 0 means all.
    Execute {
        portal: String,
        most: u32,
    },
    Close(Target, String),
    Flush,
    Sync,
    Password(String),
    Terminate,
}

/// Values for a prepared statement, and the forms of its results.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    pub(super) formats: Vec<i16>,
    pub(super) values: Vec<Option<Vec<u8>>>,
    pub(super) results: Vec<i16>,
}

/// The things that a client names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Statement,
    Portal,
}

/// The forms of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Binary,
}

/// A column of an answer.
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    pub(super) oid: u32,
    pub(super) bytes: i16,
    pub(super) form: Form,
}

/// The state of a transaction, as the server reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transaction {
    None,
    Open,
    Failed,
}

/// Messages that are to be sent.
#[derive(Default)]
pub(super) struct Replies(pub(super) Vec<u8>);

// === impl Body ===

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Failure> {
        let (part, rest) =
            self.0.split_at_checked(length).ok_or_else(|| Failure::protocol("a message is incomplete"))?;
        self.0 = rest;
        Ok(part)
    }

    fn byte(&mut self) -> Result<u8, Failure> {
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> Result<u16, Failure> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn long(&mut self) -> Result<u32, Failure> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Reads text up to a zero byte.
    pub(super) fn text(&mut self) -> Result<String, Failure> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let bytes = self.take(end.ok_or_else(|| Failure::protocol("a text in a message has no end"))?)?;
        self.take(1)?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| Failure::new("22021", "a text is not UTF-8").with_hint("send UTF-8"))
    }

    /// Reads a number of things, and the things. Each takes at least one byte, so that a wrong number ends soon.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
        (0..self.short()?).map(|_| read(self)).collect()
    }

    fn form(&mut self) -> Result<i16, Failure> {
        Ok(self.short()?.cast_signed())
    }

    fn value(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self.long()?.cast_signed() {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Failure::protocol("a value has a negative length"))?;
                self.take(length).map(|bytes| Some(bytes.to_vec()))
            }
        }
    }

    fn target(&mut self) -> Result<Target, Failure> {
        match self.byte()? {
            b'S' => Ok(Target::Statement),
            b'P' => Ok(Target::Portal),
            other => Err(Failure::protocol(format!("a message names a thing of kind {other}"))),
        }
    }
}

// === impl Request ===

impl Request {
    /// Reads a message by its letter and body.
    pub(super) fn read(letter: u8, body: &[u8]) -> Result<Self, Failure> {
        let mut body = Body(body);
        let request = match letter {
            b'Q' => Self::Query(body.text()?),
            b'P' => Self::Parse { name: body.text()?, sql: body.text()?, types: body.list(Body::long)? },
            b'B' => Self::Bind(Bind {
                portal: body.text()?,
                statement: body.text()?,
                formats: body.list(Body::form)?,
                values: body.list(Body::value)?,
                results: body.list(Body::form)?,
            }),
            b'D' => Self::Describe(body.target()?, body.text()?),
            b'E' => Self::Execute { portal: body.text()?, most: body.long()? },
            b'C' => Self::Close(body.target()?, body.text()?),
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'p' => Self::Password(body.text()?),
            b'X' => Self::Terminate,
            b'F' => return Err(Failure::new("0A000", "calls of functions by number are not supported")),
            b'd' | b'c' | b'f' => return Err(Failure::protocol("there is no COPY that this message could belong to")),
            other => return Err(Failure::protocol(format!("there are no messages of kind {other}")).fatal()),
        };
        if body.0.is_empty() { Ok(request) } else { Err(Failure::protocol("a message is longer than its content")) }
    }

    /// Returns true if an error about this message ends at the next `Sync`.
    pub(super) fn is_extended(letter: u8) -> bool {
        matches!(letter, b'P' | b'B' | b'D' | b'E' | b'C' | b'H')
    }
}

// === impl Form ===

impl Form {
    /// Returns the form of the value at a place: no forms mean text, a single one is that of all values.
    pub(super) fn at(forms: &[i16], place: usize) -> Result<Self, Failure> {
        let form = match forms {
            [] => 0,
            [one] => *one,
            many => *many.get(place).ok_or_else(|| Failure::protocol("there are fewer forms than values"))?,
        };
        match form {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            other => Err(Failure::protocol(format!("there is no form {other} of values"))),
        }
    }
}

// === impl Replies ===

impl Replies {
    /// Adds a message.
    pub(super) fn add(&mut self, letter: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.0.push(letter);
        let begin = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        body(&mut self.0);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Adds a message without a body.
    pub(super) fn add_bare(&mut self, letter: u8) {
        self.add(letter, |_| {});
    }

    pub(super) fn authentication(&mut self, code: u32) {
        self.add(b'R', |body| body.extend_from_slice(&code.to_be_bytes()));
    }

    pub(super) fn parameter(&mut self, name: &str, value: &str) {
        self.add(b'S', |body| {
            put_text(body, name);
            put_text(body, value);
        });
    }

    pub(super) fn key(&mut self, process: u32, secret: u32) {
        self.add(b'K', |body| {
            body.extend_from_slice(&process.to_be_bytes());
            body.extend_from_slice(&secret.to_be_bytes());
        });
    }

    /// Says that there is no minor version of the protocol but 0, and no such options.
    pub(super) fn version(&mut self, options: &[String]) {
        self.add(b'v', |body| {
            body.extend_from_slice(&0_u32.to_be_bytes());
            body.extend_from_slice(&u32::try_from(options.len()).unwrap_or(0).to_be_bytes());
            for option in options {
                put_text(body, option);
            }
        });
    }

    pub(super) fn ready(&mut self, transaction: Transaction) {
        let letter = match transaction {
            Transaction::None => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
        };
        self.add(b'Z', |body| body.push(letter));
    }

    pub(super) fn complete(&mut self, tag: &str) {
        self.add(b'C', |body| put_text(body, tag));
    }

    pub(super) fn parameters(&mut self, oids: &[u32]) {
        self.add(b't', |body| {
            put_count(body, oids.len());
            for oid in oids {
                body.extend_from_slice(&oid.to_be_bytes());
            }
        });
    }

    pub(super) fn columns(&mut self, columns: &[Column<'_>]) {
        self.add(b'T', |body| {
            put_count(body, columns.len());
            for column in columns {
                put_text(body, column.name);
                // No table, and no column of one.
                body.extend_from_slice(&[0; 6]);
                body.extend_from_slice(&column.oid.to_be_bytes());
                body.extend_from_slice(&column.bytes.to_be_bytes());
                body.extend_from_slice(&(-1_i32).to_be_bytes());
                body.extend_from_slice(&i16::from(column.form == Form::Binary).to_be_bytes());
            }
        });
    }

    pub(super) fn failure(&mut self, failure: &Failure) {
        let severity = if failure.is_fatal { "FATAL" } else { "ERROR" };
        self.add(b'E', |body| {
            let hint = failure.hint.as_deref().unwrap_or_default();
            let fields = [
                (b'S', severity),
                (b'V', severity),
                (b'C', failure.code),
                (b'M', failure.message.as_str()),
                (b'H', hint),
            ];
            for (letter, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
                body.push(letter);
                put_text(body, text);
            }
            body.push(0);
        });
    }
}

/// Adds text with the zero byte that ends it. A zero byte within would end it early, and becomes a space.
fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
    body.push(0);
}

pub(super) fn put_count(body: &mut Vec<u8>, count: usize) {
    body.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_whole_or_refused() {
        let parse = b"name\0SELECT $1\0\0\x02\0\0\0\x17\0\0\0\0";
        let expected = Request::Parse { name: "name".to_owned(), sql: "SELECT $1".to_owned(), types: vec![23, 0] };
        assert_eq!(Request::read(b'P', parse).ok(), Some(expected));
        let bind = b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\0";
        let Ok(Request::Bind(read)) = Request::read(b'B', bind) else { panic!("no values") };
        assert_eq!((read.statement.as_str(), read.formats), ("s", vec![1]));
        assert_eq!(read.values, [Some(b"ab".to_vec()), None]);
        for (letter, body) in
            [(b'P', parse.as_slice()), (b'B', bind.as_slice()), (b'E', b"p\0\0\0\0\x05"), (b'D', b"Sx\0")]
        {
            assert!(Request::read(letter, body).is_ok());
            for end in 0..body.len() {
                assert_eq!(Request::read(letter, &body[..end]).expect_err("cut").code, "08P01", "{letter} {end}");
            }
            assert!(Request::read(letter, &[body, b"\0"].concat()).is_err(), "more than its content");
        }
        assert_eq!(Request::read(b'Q', b"\xff\0").expect_err("no UTF-8").code, "22021");
        assert!(Request::read(b'!', b"").expect_err("unknown").is_fatal);
        // 65,535 values are announced, and none follow.
        assert!(Request::read(b'B', b"\0\0\0\0\xff\xff").is_err());
    }

    #[test]
    fn a_reply_has_its_length_and_no_zero_byte_within_a_text() {
        let mut replies = Replies::default();
        replies.complete("a\0b");
        assert_eq!(replies.0, b"C\0\0\0\x08a b\0");
        replies.0.clear();
        replies.ready(Transaction::Failed);
        assert_eq!(replies.0, b"Z\0\0\0\x05E");
        assert_eq!(Form::at(&[1], 7).ok(), Some(Form::Binary));
        assert!(Form::at(&[1, 0], 2).is_err() && Form::at(&[2], 0).is_err());
    }
}
