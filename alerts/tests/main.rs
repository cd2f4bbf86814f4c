//! Tests of the watcher and of actions on alerts, over real tables.

mod common;
mod failing;
mod hands;
mod watch;
