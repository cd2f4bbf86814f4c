//! `metrics`.
use super::{Column, Kind, required};
/// What a row is.
pub const DOC: &str = "metrics";
/// Columns in order.
pub const COLUMNS: &[Column] = &[required("window_start", Kind::Timestamp, "start")];
