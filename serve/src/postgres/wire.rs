//! The messages of one connection, within bounds of length and time.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::message::Replies;

/// Longest message of a client, bytes, as the body of a request over HTTP.
pub(super) const MESSAGE_BYTES: usize = 256 << 10;

/// Longest message that is read and thrown away so that its client reads the error; a longer one ends the connection.
const SKIPPED_BYTES: usize = 64 << 20;

/// Bytes of replies after which they are sent.
pub(super) const PART_BYTES: usize = 64 << 10;

/// A connection, with or without TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// The messages of one connection.
pub(super) struct Wire {
    stream: Box<dyn Duplex>,
    input: BytesMut,
    pub(super) replies: Replies,
    patience: Duration,
}

/// The result of waiting for a client's message.
#[derive(Debug)]
pub(super) enum Received {
    /// A message: its letter and its body.
    Message(u8, BytesMut),
    /// A message of this letter that is too long; it is left out.
    TooLong(u8),
    /// Nothing in time.
    Nothing,
    /// The client has gone, or sends half a message.
    Gone,
}

// === impl Wire ===

impl Wire {
    pub(super) fn new(stream: Box<dyn Duplex>, patience: Duration) -> Self {
        Self { stream, input: BytesMut::new(), replies: Replies::default(), patience }
    }

    /// Waits for a message, which must begin before `until`, and be complete soon after.
    ///
    /// Cancelling it loses no byte, except of a message that is too long.
    pub(super) async fn receive(&mut self, until: Instant) -> Received {
        if self.input.is_empty() {
            match timeout_at(until, self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return Received::Gone,
                Err(_) => return Received::Nothing,
            }
        }
        let whole = Instant::now() + self.patience;
        timeout_at(whole, self.rest()).await.unwrap_or(Received::Gone)
    }

    async fn rest(&mut self) -> Received {
        loop {
            if let [letter, a, b, c, d, ..] = *self.input {
                // The length counts itself.
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                let Some(body) = length.checked_sub(4) else { return Received::Gone };
                if body > MESSAGE_BYTES {
                    return if self.skip(body + 5).await { Received::TooLong(letter) } else { Received::Gone };
                }
                if self.input.len() >= body + 5 {
                    self.input.advance(5);
                    return Received::Message(letter, self.input.split_to(body));
                }
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(read) if read > 0 => {}
                _ => return Received::Gone,
            }
        }
    }

    /// Throws away the next bytes; returns false if there are too many, or the client goes.
    async fn skip(&mut self, mut bytes: usize) -> bool {
        if bytes > SKIPPED_BYTES {
            return false;
        }
        loop {
            let here = bytes.min(self.input.len());
            self.input.advance(here);
            bytes -= here;
            if bytes == 0 {
                return true;
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(read) if read > 0 => {}
                _ => return false,
            }
        }
    }

    /// Returns once the client has gone. Messages that it sends meanwhile are kept, up to a bound.
    async fn gone(&mut self) {
        loop {
            if self.input.len() > MESSAGE_BYTES {
                std::future::pending::<()>().await;
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
        }
    }

    /// Waits for work unless the client goes; none if it does.
    pub(super) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased; // Finished work counts.
            done = work => Some(done),
            () = self.gone() => None,
        }
    }

    /// Sends the replies.
    ///
    /// # Errors
    /// If the client has gone, or does not read.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.replies.0).await?;
        self.replies.0.clear();
        self.stream.flush().await
    }

    /// Sends the replies, and ends the connection.
    pub(super) async fn end(&mut self) {
        if self.flush().await.is_ok() {
            drop(self.stream.shutdown().await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    #[tokio::test]
    async fn messages_are_whole_and_bounded() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut wire = Wire::new(Box::new(near), PATIENCE);
        assert!(matches!(wire.receive(soon()).await, Received::Nothing));
        far.write_all(b"Q\0\0\0\x06a\0S\0\0\0\x04").await.expect("sent");
        let first = wire.receive(soon()).await;
        assert!(matches!(&first, Received::Message(b'Q', body) if **body == *b"a\0"), "{first:?}");
        assert!(matches!(wire.receive(soon()).await, Received::Message(b'S', body) if body.is_empty()));
        let long = vec![b'x'; MESSAGE_BYTES + 1];
        let length = u32::try_from(long.len() + 4).expect("fits").to_be_bytes();
        let sent = [b"Q".as_slice(), &length, &long, b"S\0\0\0\x04"].concat();
        far.write_all(&sent).await.expect("sent");
        assert!(matches!(wire.receive(soon()).await, Received::TooLong(b'Q')));
        assert!(matches!(wire.receive(soon()).await, Received::Message(b'S', _)), "the next message is read");
        far.write_all(b"Q\0\0\0\x06a").await.expect("sent");
        let began = Instant::now();
        assert!(matches!(wire.receive(soon()).await, Received::Gone), "half a message");
        assert!(began.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn a_length_that_cannot_be_is_the_end() {
        for sent in [b"Q\0\0\0\x03".as_slice(), b"Q\xff\xff\xff\xff"] {
            let (near, mut far) = tokio::io::duplex(64);
            far.write_all(sent).await.expect("sent");
            let mut wire = Wire::new(Box::new(near), PATIENCE);
            assert!(matches!(wire.receive(soon()).await, Received::Gone));
        }
    }

    #[tokio::test]
    async fn work_ends_when_the_client_goes_and_keeps_what_it_sent_before() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut wire = Wire::new(Box::new(near), PATIENCE);
        far.write_all(b"S\0\0\0\x04").await.expect("sent");
        let slow = tokio::time::sleep(PATIENCE);
        assert!(wire.hold(slow).await.is_some());
        assert!(matches!(wire.receive(soon()).await, Received::Message(b'S', _)));
        drop(far);
        assert!(wire.hold(std::future::pending::<()>()).await.is_none());
    }
}
