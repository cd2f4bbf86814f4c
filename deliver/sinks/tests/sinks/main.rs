//! The sinks against recording servers, real services, and the contracts of the vendors.
//!
//! `tests/data` holds these contracts as JSON Schemas, and the recording server checks every request. A test that needs a program which is not installed prints `skipped: …` and how
//! to get it.

mod alertmanager;
mod chat;
mod common;
mod contracts;
mod email;
mod hostile;
mod http;
mod incidents;
mod limits;
mod local;
mod settings;
mod webhook;
