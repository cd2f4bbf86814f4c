//! The server of queries: SQL and read endpoints over HTTP, SQL by the protocol of Postgres and by Arrow Flight SQL, and the gate for
//! controllers that release software.
//!
//! * `server` brings each request in: by `access` (tokens of `token`), within the limits of `settings`, and on record in `audit`.
//!   `listener` and `stall` bound what a client can hold by not sending and not reading.
//! * `endpoint` is the table of endpoints, of which the router and the document of `openapi` are made.
//! * `start` starts statements; `recorded` keeps each on record; `running` lists what runs, and cancels it.
//! * `statement` sends the answer to one over HTTP, part by part; `postgres` and `flight` do so for clients of Postgres and of Arrow
//!   Flight SQL, with the same access, limits and records.
//! * `read` answers the other endpoints with the help of `cache`; `gate` asks whether a release may go on.
//! * [`Encoder`] writes rows in the forms that programs read, for the command line as well.
//!
//! Rules: nothing here writes to a table. Whoever is restricted to a tenant gets a session of that tenant, and the session is the
//! boundary: no endpoint reads rows by another way, except the list of alerts, which filters by their labels. A statement is on
//! record before it runs, and ends with its connection. This crate must not know Kafka, Delta, or the query engine's own types.

mod access;
mod audit;
mod cache;
mod encode;
mod endpoint;
mod flight;
mod gate;
mod listener;
mod metrics;
mod openapi;
mod postgres;
mod read;
mod recorded;
mod refused;
mod running;
mod server;
mod settings;
mod stall;
mod start;
mod statement;
mod token;

pub use encode::{EncodeError, Encoder, Format};
pub use gate::{Told, gate_routes};
pub use server::{Listening, listen};
pub use settings::ServerSettings;
pub use token::{Scope, Token, Tokens, expiry};
