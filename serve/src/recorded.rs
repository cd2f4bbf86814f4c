//! A statement on record: in the audit log, in the list of those that run, and in the metrics.

use std::sync::Arc;
use std::time::Instant;

use bellwether_base::{Result, unique_id};
use bellwether_queries::Canceller;

use crate::access::Caller;
use crate::audit::Record;
use crate::listener::Connection;
use crate::refused::Refused;
use crate::server::Server;

/// A statement from its first record in the audit log to its last, which is written when this is dropped.
pub(crate) struct Recorded {
    pub(crate) server: Arc<Server>,
    pub(crate) caller: Caller,
    pub(crate) id: String,
    pub(crate) connection: Connection,
    endpoint: &'static str,
    began: Instant,
    is_running: bool,
    /// Status, rows, bytes and error; a status of none means that the client went away.
    pub(crate) status: Option<u16>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) error: Option<String>,
}

// === impl Recorded ===

impl Recorded {
    /// Records a statement that was asked of an endpoint.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be recorded; it must not run then.
    pub(crate) fn begin(
        server: &Arc<Server>,
        caller: &Caller,
        connection: &Connection,
        (endpoint, sql): (&'static str, &str),
    ) -> Result<Self> {
        let id = unique_id().simple().to_string();
        let record = Record::of(caller, &id, &connection.client);
        server.audit.write(&Record { event: "asked", endpoint, text: Some(sql), ..record })?;
        server.metrics.statements.inc();
        let (server, caller, connection) = (Arc::clone(server), caller.clone(), connection.clone());
        let began = Instant::now();
        Ok(Self {
            server,
            caller,
            id,
            connection,
            endpoint,
            began,
            is_running: false,
            status: None,
            rows: 0,
            bytes: 0,
            error: None,
        })
    }

    /// Adds it to the list of running statements, so that it can be cancelled.
    pub(crate) fn run(&mut self, sql: &str, canceller: Canceller) {
        let started_at = self.server.now_text();
        self.server.running.add(&self.id, &self.caller, sql, started_at, canceller);
        self.is_running = true;
    }

    /// Notes that it failed.
    pub(crate) fn refuse(&mut self, refused: Refused) -> Refused {
        self.status = Some(refused.status.as_u16());
        self.error = Some(refused.message.clone());
        refused
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.server.metrics.statements.dec();
        if self.is_running {
            self.server.running.remove(&self.id);
        }
        if self.status.is_none() {
            self.server.metrics.cut.inc();
            self.error.get_or_insert_with(|| "the client went away".to_owned());
        }
        let record = Record {
            event: "answered",
            endpoint: self.endpoint,
            status: self.status,
            rows: Some(self.rows),
            bytes: Some(self.bytes),
            duration_ms: Some(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)),
            error: self.error.as_deref(),
            ..Record::of(&self.caller, &self.id, &self.connection.client)
        };
        if let Err(error) = self.server.audit.write(&record) {
            tracing::error!(reason = %error.chain(), "the end of a statement cannot be recorded");
        }
    }
}
