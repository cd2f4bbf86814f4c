//! Clients of Postgres: its protocol, version 3.0, over the same engine, access, limits and records as HTTP.
//!
//! * `startup` admits a client: TLS, and a token as the password. `keys` finds the connection that a client wants cancelled.
//! * `connection` answers its messages, which `wire` reads and sends; `message` is their form.
//! * `portal` runs a statement and sends its rows, which `value` writes; `command` are statements about the connection.
//! * `failure` gives errors their SQLSTATE.
//!
//! Rules: a connection has one session, of the tenant of its token, and the token is looked up again for each statement. A statement
//! ends with its connection. What a client sends is bounded before it is admitted and after.

mod command;
mod connection;
mod failure;
mod keys;
mod message;
mod portal;
mod startup;
mod value;
mod wire;

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::listener::{Connection, Listener};
use crate::server::Server;

use connection::Client;
use keys::Keys;

/// Accepts clients of Postgres.
pub(crate) struct PostgresListener {
    shared: Shared,
    listener: Listener,
}

/// The parts that all connections share.
#[derive(Clone)]
struct Shared {
    server: Arc<Server>,
    keys: Arc<Keys>,
}

// === impl PostgresListener ===

impl PostgresListener {
    pub(crate) fn new(server: Arc<Server>, listener: Listener) -> Self {
        Self { shared: Shared { server, keys: Arc::default() }, listener }
    }

    /// Answers clients until `stop` is cancelled, and then until their statements are answered or too much time has passed.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (shared, ending) = (self.shared, stop.clone());
        self.listener
            .accept(stop, |listener, stream, connection| {
                answer(shared.clone(), listener.tls.clone(), stream, connection, ending.clone())
            })
            .await;
    }
}

/// Answers a client from its first message to its last.
async fn answer(
    shared: Shared,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    connection: Connection,
    stop: CancellationToken,
) {
    let patience = shared.server.settings.patience;
    let admitted = Box::pin(startup::admit(&shared, tls, stream));
    match tokio::time::timeout(patience, admitted).await {
        Ok(Ok(Some(admitted))) => match Client::new(shared, admitted, connection) {
            Ok(client) => Box::pin(client.serve(stop)).await,
            Err(error) => tracing::error!(reason = %error.chain(), "a client of Postgres gets no session"),
        },
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%error, client = &*connection.client, "no client of Postgres"),
        Err(_) => tracing::debug!(client = &*connection.client, "a client of Postgres took too long to begin"),
    }
}
