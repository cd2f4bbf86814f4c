//! A small client of Postgres that can also break the rules, which real clients do not. `tests/serve` asks with real ones.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The server is patient for a second; a busy machine may take longer.
const SOON: Duration = Duration::from_secs(30);

/// A connection to the server.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    /// The numbers of its key.
    pub(super) key: (u32, u32),
}

/// The answer to a request.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// Rows as text; null values are `NULL`.
    pub(super) rows: Vec<Vec<String>>,
    pub(super) columns: Vec<String>,
    pub(super) tags: Vec<String>,
    /// Code and message of the error, with its hint.
    pub(super) error: Option<(String, String)>,
    /// State of the transaction; none if the connection has ended.
    pub(super) state: Option<u8>,
    /// The letters of all messages.
    pub(super) letters: String,
}

// === impl Reply ===

impl Reply {
    pub(super) fn code(&self) -> &str {
        self.error.as_ref().map_or("", |(code, _)| code)
    }

    /// Returns everything that it shows.
    pub(super) fn shown(&self) -> String {
        format!("{:?} {:?} {:?}", self.columns, self.rows, self.error)
    }
}

/// Returns a message with its length.
pub(super) fn message(letter: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("fits").to_be_bytes();
    [&[letter], length.as_slice(), body].concat()
}

/// Returns the messages that run a statement with parameters, whose values and rows are texts.
pub(super) fn extended(sql: &str, values: &[&str], most: u32) -> Vec<u8> {
    let count = u16::try_from(values.len()).expect("fits").to_be_bytes();
    let mut bind = b"\0\0\0\0".to_vec();
    bind.extend(count);
    for value in values {
        bind.extend(u32::try_from(value.len()).expect("fits").to_be_bytes());
        bind.extend(value.as_bytes());
    }
    bind.extend(b"\0\0");
    let parse = message(b'P', format!("\0{sql}\0\0\0").as_bytes());
    let execute = message(b'E', &[b"\0".as_slice(), &most.to_be_bytes()].concat());
    [parse, message(b'B', &bind), message(b'D', b"P\0"), execute, message(b'S', b"")].concat()
}

// === impl Client ===

impl Client {
    /// Connects, and gives a token if there is one.
    pub(super) async fn connect(address: SocketAddr, token: Option<&str>) -> Result<Self, Reply> {
        let stream = TcpStream::connect(address).await.expect("connects");
        let mut client = Self { stream, key: (0, 0) };
        let body = b"\0\x03\0\0user\0anybody\0database\0bellwether\0\0";
        let length = u32::try_from(body.len() + 4).expect("fits").to_be_bytes();
        client.send(&[length.as_slice(), body].concat()).await;
        if let Some(token) = token {
            client.send(&message(b'p', format!("{token}\0").as_bytes())).await;
        }
        let reply = client.reply().await;
        if reply.state.is_some() { Ok(client) } else { Err(reply) }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // The server may have ended the connection meanwhile.
        drop(self.stream.write_all(bytes).await);
    }

    pub(super) async fn query(&mut self, sql: &str) -> Reply {
        self.send(&message(b'Q', format!("{sql}\0").as_bytes())).await;
        self.reply().await
    }

    pub(super) async fn ask(&mut self, bytes: &[u8]) -> Reply {
        self.send(bytes).await;
        self.reply().await
    }

    /// Reads messages until the server is ready again, or ends the connection.
    pub(super) async fn reply(&mut self) -> Reply {
        tokio::time::timeout(SOON, self.read()).await.expect("the server answers or ends the connection")
    }

    async fn read(&mut self) -> Reply {
        let mut reply = Reply::default();
        loop {
            let Ok(letter) = self.stream.read_u8().await else { return reply };
            let Ok(length) = self.stream.read_u32().await else { return reply };
            let mut body = vec![0; length as usize - 4];
            if self.stream.read_exact(&mut body).await.is_err() {
                return reply;
            }
            reply.letters.push(char::from(letter));
            match letter {
                b'T' => reply.columns = columns(&body),
                b'D' => reply.rows.push(row(&body)),
                b'C' => reply.tags.push(texts(&body)[0].clone()),
                b'E' => {
                    let fields = texts(&body);
                    let field = |letter| fields.iter().find_map(|text| text.strip_prefix(letter)).unwrap_or_default();
                    reply.error = Some((field('C').to_owned(), format!("{} {}", field('M'), field('H'))));
                }
                b'K' => self.key = (number(&body[..4]), number(&body[4..])),
                b'Z' => {
                    reply.state = Some(body[0]);
                    return reply;
                }
                _ => {}
            }
        }
    }

    /// Returns true once the server has ended the connection.
    pub(super) async fn has_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(SOON, self.stream.read_to_end(&mut rest)).await.is_ok()
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

fn texts(body: &[u8]) -> Vec<String> {
    body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

fn columns(mut body: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    body = &body[2..];
    while !body.is_empty() {
        let end = body.iter().position(|byte| *byte == 0).expect("a name ends");
        names.push(String::from_utf8_lossy(&body[..end]).into_owned());
        body = &body[end + 19..];
    }
    names
}

fn row(mut body: &[u8]) -> Vec<String> {
    let mut values = Vec::new();
    body = &body[2..];
    while !body.is_empty() {
        let length = number(&body[..4]).cast_signed();
        body = &body[4..];
        match usize::try_from(length) {
            Ok(length) => {
                values.push(String::from_utf8_lossy(&body[..length]).into_owned());
                body = &body[length..];
            }
            Err(_) => values.push("NULL".to_owned()),
        }
    }
    values
}
