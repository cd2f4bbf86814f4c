//! Clients of Arrow Flight SQL: gRPC over HTTP/2, with the same engine, access, limits and records as HTTP.
//!
//! * `call` brings each call in: its caller, and its messages, of which `message` is the form.
//! * `service` answers the calls; `command` reads what they ask for; `handle` is a statement as a client holds it.
//! * `catalogue` describes the server, its tables and its types; `rows` sends the rows of a statement.
//! * `failure` gives errors their status.
//!
//! Rules: the server keeps nothing for a client between two calls: a ticket or a handle of a prepared statement holds the statement
//! and its values. It permits nothing, because whoever uses it is asked for a token again, and sees the rows of that token. A
//! statement ends with its call. Nothing here writes, and there are no transactions.

mod call;
mod catalogue;
mod command;
mod failure;
mod handle;
mod message;
mod rows;
mod service;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;

use crate::access::Caller;
use crate::server::Server;

/// How statements are named in the audit log, as endpoints are.
const ENDPOINT: &str = "flight";

/// Returns the service, for connections of HTTP/2.
pub(crate) fn router(server: Arc<Server>) -> Router {
    Router::new().fallback(service::answer).with_state(Arc::new(Flight { server, tickets: Tickets::default() }))
}

/// The parts that all calls share.
struct Flight {
    server: Arc<Server>,
    tickets: Tickets,
}

/// The tickets of statements that run, each with the id of its request, by which it can be cancelled.
#[derive(Default)]
struct Tickets(Mutex<BTreeSet<(String, String)>>);

/// A ticket in use.
struct InUse {
    flight: Arc<Flight>,
    entry: (String, String),
}

// === impl Flight ===

impl Flight {
    /// Notes that a request answers a ticket, until the result is dropped.
    fn uses(self: &Arc<Self>, ticket: &str, request: &str) -> InUse {
        let entry = (ticket.to_owned(), request.to_owned());
        self.tickets.lock().insert(entry.clone());
        InUse { flight: Arc::clone(self), entry }
    }

    /// Cancels the statements of a ticket that the caller may see; returns false if there is none.
    fn cancel(&self, ticket: &str, caller: &Caller) -> bool {
        let requests: Vec<String> = {
            let entries = self.tickets.lock();
            let from = entries.range((ticket.to_owned(), String::new())..);
            from.take_while(|(of, _)| of == ticket).map(|(_, request)| request.clone()).collect()
        };
        requests.iter().filter(|request| self.server.running.cancel(request, caller)).count() > 0
    }
}

// === impl Tickets ===

impl Tickets {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.flight.tickets.lock().remove(&self.entry);
    }
}
