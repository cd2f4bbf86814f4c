//! Starts statements, for every protocol alike: a place among those that run, the record, the session, and the plan.

use std::sync::Arc;

use arrow::datatypes::DataType;
use bellwether_queries::{Answer, Prepared, ScalarValue, Session};
use tokio::sync::OwnedSemaphorePermit;

use crate::access::Caller;
use crate::listener::Connection;
use crate::recorded::Recorded;
use crate::refused::{Answered, Refused};
use crate::server::Server;

/// A client that asks.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) server: &'a Arc<Server>,
    pub(crate) caller: &'a Caller,
    pub(crate) connection: &'a Connection,
    /// The way by which it asks, as in the audit log.
    pub(crate) endpoint: &'static str,
}

/// A statement that may run, and that can be cancelled.
pub(crate) struct Begun {
    session: Session,
    pub(crate) recorded: Recorded,
    slot: OwnedSemaphorePermit,
}

/// A statement that runs, with everything that it holds.
pub(crate) struct Started {
    pub(crate) answer: Answer,
    pub(crate) recorded: Recorded,
    pub(crate) slot: OwnedSemaphorePermit,
}

// === impl Asker ===

impl Asker<'_> {
    /// Waits for a place among the statements that run, and puts a statement on record, in a session of its own.
    pub(crate) async fn begin(self, sql: &str) -> Answered<Begun> {
        let slot = self.server.slot().await?;
        let mut recorded = self.record(sql)?;
        let session = self.session()?;
        recorded.run(sql, session.canceller());
        Ok(Begun { session, recorded, slot })
    }

    /// Prepares a statement, within the time of one. If this fails, it is on record like a statement that fails later.
    pub(crate) async fn prepare(self, session: &Session, sql: &str, kinds: &[Option<DataType>]) -> Answered<Prepared> {
        let timeout = self.server.settings.timeout;
        let refused = match tokio::time::timeout(timeout, session.prepare(sql, kinds)).await {
            Ok(Ok(prepared)) => return Ok(prepared),
            Ok(Err(error)) => Refused::from(error),
            Err(_) => {
                let message = format!("planning the statement took longer than {} s", timeout.as_secs_f64());
                Refused::too_large(message).with_hint("simplify it, or raise `api.timeout` of the server")
            }
        };
        Err(self.record(sql)?.refuse(refused))
    }

    /// Opens a session within the limits of the caller.
    pub(crate) fn session(self) -> Answered<Session> {
        Ok(self.server.engine.session(self.server.session_settings(self.caller))?)
    }

    fn record(self, sql: &str) -> Answered<Recorded> {
        Ok(Recorded::begin(self.server, self.caller, self.connection, (self.endpoint, sql))?)
    }
}

// === impl Begun ===

impl Begun {
    /// Starts the statement, with values of its parameters `$1`, `$2`, ….
    pub(crate) async fn start(self, sql: &str, values: &[ScalarValue]) -> Answered<Started> {
        let Self { session, mut recorded, slot } = self;
        match execute(&session, sql, values).await {
            Ok(answer) => Ok(Started { answer, recorded, slot }),
            Err(refused) => Err(recorded.refuse(refused)),
        }
    }
}

async fn execute(session: &Session, sql: &str, values: &[ScalarValue]) -> Answered<Answer> {
    if values.is_empty() && !sql.contains('$') {
        return Ok(session.execute(sql).await?);
    }
    let prepared = session.prepare(sql, &[]).await?;
    Ok(session.execute_prepared(&prepared, values).await?)
}
