//! Ends the connection of a client that stops reading: the answer would otherwise wait, and hold its statement, for ever.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use crate::listener::Connection;

/// A stream on which a write fails once it has made no progress for some time.
pub(crate) struct Impatient<S> {
    stream: S,
    patience: Duration,
    sleep: Pin<Box<Sleep>>,
    is_waiting: bool,
}

// === impl Impatient ===

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, sleep: Box::pin(tokio::time::sleep(patience)), is_waiting: false }
    }

    /// Passes on the result of a write, or fails if there has been none for too long.
    fn in_time<T>(&mut self, result: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.is_waiting = false;
            return result;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.sleep.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.sleep.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.in_time(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(result, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.in_time(result, context)
    }
}

/// Ends a connection after some time, unless it is dropped before.
pub(crate) struct EndAfter(AbortHandle);

// === impl EndAfter ===

impl EndAfter {
    pub(crate) fn new(connection: &Connection, time: Duration) -> Self {
        let cut = connection.cut.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            cut.cancel();
        });
        Self(task.abort_handle())
    }
}

impl Drop for EndAfter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn a_write_fails_if_nobody_reads_and_not_if_somebody_reads_slowly() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Impatient::new(near, PATIENCE);
        let reads = async {
            let mut buffer = [0; 64];
            for _ in 0..3 {
                tokio::time::sleep(PATIENCE / 2).await;
                far.read_exact(&mut buffer).await.expect("reads");
            }
        };
        // Longer than its patience altogether, but each part is read in time.
        let (written, ()) = tokio::join!(near.write_all(&[7; 4 * 64]), reads);
        written.expect("each part in time");
        let began = Instant::now();
        let error = near.write_all(&[7; 1]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
    }
}
