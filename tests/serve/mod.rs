//! `bellwether serve`. The tests of the crate `serve` cover its answers.

mod command;
mod flight;
mod postgres;
