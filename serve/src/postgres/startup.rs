//! Starts a connection: TLS, the token, and the settings that are sent to the client.
//!
//! Nothing that a client sends before TLS is taken for a part of what it sends after, because each message is read for itself.

use std::collections::BTreeMap;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::Shared;
use super::command::{REPORTED, SETTINGS};
use super::failure::Failure;
use super::message::{Body, Request};
use super::wire::{Duplex, Received, Wire};
use crate::access::Caller;
use crate::stall::Impatient;

/// Longest first message, bytes, as in Postgres.
const FIRST_BYTES: usize = 10_000;

/// Most messages before the one that begins a session: requests for TLS and for another encryption.
const MOST_BEFORE: usize = 3;

/// Numbers in place of a version.
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// A client that may ask.
pub(super) struct Admitted {
    pub(super) wire: Wire,
    pub(super) caller: Caller,
    pub(super) token: Option<String>,
}

/// Reads the first messages of a client; none if it may not ask, or wants another connection cancelled.
///
/// # Errors
/// If the client goes or sends what is no message.
pub(super) async fn admit(
    shared: &Shared,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
) -> io::Result<Option<Admitted>> {
    let patience = shared.server.settings.patience;
    let mut stream: Box<dyn Duplex> = Box::new(Impatient::new(stream, patience));
    let mut is_encrypted = false;
    for _ in 0..=MOST_BEFORE {
        let first = first(&mut stream).await?;
        let mut body = Body(&first);
        let version = body.long().map_err(|failure| invalid(&failure.message))?;
        match version {
            TLS if !is_encrypted => match &tls {
                Some(tls) => {
                    stream.write_all(b"S").await?;
                    stream.flush().await?;
                    stream = Box::new(tls.accept(stream).await?);
                    is_encrypted = true;
                }
                None => stream.write_all(b"N").await?,
            },
            TLS | GSS => stream.write_all(b"N").await?,
            CANCEL => {
                if let (Ok(process), Ok(secret)) = (body.long(), body.long()) {
                    shared.keys.cancel(process, secret);
                }
                return Ok(None);
            }
            version => {
                let mut wire = Wire::new(stream, patience);
                let must_encrypt = tls.is_some() && !is_encrypted;
                let begun = begin(&mut wire, version, body);
                let begun = begun.and_then(|()| if must_encrypt { Err(no_tls()) } else { Ok(()) });
                let admitted = match begun {
                    Ok(()) => identify(shared, &mut wire).await?,
                    Err(failure) => Err(failure),
                };
                return match admitted {
                    Ok((caller, token)) => Ok(Some(Admitted { wire, caller, token })),
                    Err(failure) => {
                        wire.replies.failure(&failure.fatal());
                        wire.end().await;
                        Ok(None)
                    }
                };
            }
        }
        stream.flush().await?;
    }
    Err(invalid("too many requests for encryption"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn no_tls() -> Failure {
    Failure::new("28000", "the server answers by TLS alone").with_hint("connect with sslmode=verify-full")
}

/// Reads a message without a letter; returns its body.
async fn first(stream: &mut Box<dyn Duplex>) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    let length = length.checked_sub(4).filter(|length| (4..=FIRST_BYTES).contains(length));
    let mut body = vec![0; length.ok_or_else(|| invalid("the first message has an impossible length"))?];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Checks the version and the parameters of the message that begins a session.
fn begin(wire: &mut Wire, version: u32, mut body: Body<'_>) -> Result<(), Failure> {
    let (major, minor) = (version >> 16, version & 0xffff);
    if major != 3 {
        return Err(Failure::protocol(format!("version {major}.{minor} of the protocol is not supported"))
            .with_hint("use a client of Postgres 7.4 or newer"));
    }
    let mut parameters = BTreeMap::new();
    loop {
        let name = body.text()?;
        if name.is_empty() {
            break;
        }
        parameters.insert(name, body.text()?);
    }
    let options: Vec<String> = parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    if minor > 0 || !options.is_empty() {
        wire.replies.version(&options);
    }
    if parameters.get("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value.as_str())) {
        return Err(Failure::new("0A000", "there is no replication"));
    }
    Ok(())
}

/// Asks for the token, if one is needed, and finds out who has it.
async fn identify(shared: &Shared, wire: &mut Wire) -> io::Result<Result<(Caller, Option<String>), Failure>> {
    let access = &shared.server.access;
    if !access.needs_token() {
        return Ok(access.holder(None).map(|caller| (caller, None)).map_err(Failure::from));
    }
    // A password in clear text: the rule about addresses sees to it that it goes through TLS, or stays on this machine.
    wire.replies.authentication(3);
    wire.flush().await?;
    let until = Instant::now() + shared.server.settings.patience;
    let token = match wire.receive(until).await {
        Received::Message(letter, body) => match Request::read(letter, &body) {
            Ok(Request::Password(token)) => token,
            Ok(_) => return Ok(Err(Failure::protocol("the client must send its password now"))),
            Err(failure) => return Ok(Err(failure)),
        },
        Received::TooLong(_) => return Ok(Err(Failure::protocol("the password is too long"))),
        Received::Nothing | Received::Gone => return Err(invalid("no password came")),
    };
    let holder = access.holder(Some(token.trim()));
    Ok(match holder {
        Ok(caller) => Ok((caller, Some(token))),
        Err(refused) => Err(Failure::from(refused).with_hint("give a token as the password; any user name will do")),
    })
}

/// Tells a client that it is admitted.
pub(super) fn welcome(wire: &mut Wire, (process, secret): (u32, u32)) {
    let replies = &mut wire.replies;
    replies.authentication(0);
    for (name, value) in &SETTINGS[..REPORTED] {
        replies.parameter(name, value);
    }
    replies.key(process, secret);
}
