//! The sinks against recording servers, real services, and the contracts of the vendors.
//!
//! `tests/data` holds these contracts as JSON Schemas. A test that needs a program which is not installed prints `skipped: …` and how
//! to get it.

mod alertmanager;
mod chat;
mod common;
mod email;
mod hostile;
mod http;
mod incidents;
mod limits;
mod local;
mod settings;
mod webhook;
