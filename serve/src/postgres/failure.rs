//! Errors as clients of Postgres read them: with an SQLSTATE, by which programs decide what to do.

use axum::http::StatusCode;
use bellwether_base::Error;

use crate::refused::Refused;

/// Begins of messages about statements, with the SQLSTATE of each.
const BEGINS: [(&str, &str); 14] = [
    ("cannot parse the SQL text", "42601"),
    ("the SQL text", "42601"),
    ("there is no table or view", "42P01"),
    ("there is no relation", "42P01"),
    ("there is no column", "42703"),
    ("there is no function", "42883"),
    ("there is no table function", "42883"),
    ("there is no type", "42704"),
    ("not supported", "0A000"),
    ("parameter $", "22P02"),
    ("the statement has", "08P01"),
    ("the type of parameter", "42P18"),
    ("the query failed: Cast error", "22P02"),
    ("the query failed", "22000"),
];

/// An error to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// It ends the connection.
    pub(super) is_fatal: bool,
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, is_fatal: false }
    }

    /// The client breaks the rules of the protocol.
    pub(super) fn protocol(message: impl Into<String>) -> Self {
        Self::new("08P01", message)
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn fatal(mut self) -> Self {
        self.is_fatal = true;
        self
    }
}

impl From<&Refused> for Failure {
    fn from(refused: &Refused) -> Self {
        let message = &refused.message;
        let code = match refused.status {
            StatusCode::BAD_REQUEST => of_statement(message),
            StatusCode::UNAUTHORIZED => "28P01",
            StatusCode::FORBIDDEN => "28000",
            StatusCode::UNPROCESSABLE_ENTITY if message.contains("longer than") => "57014",
            StatusCode::UNPROCESSABLE_ENTITY if message.contains("memory") => "53200",
            StatusCode::UNPROCESSABLE_ENTITY => "54000",
            StatusCode::TOO_MANY_REQUESTS => "53300",
            StatusCode::SERVICE_UNAVAILABLE if message.contains("was cancelled") => "57014",
            StatusCode::SERVICE_UNAVAILABLE => "58030",
            _ => "XX000",
        };
        Self { code, message: message.clone(), hint: refused.hint.clone(), is_fatal: false }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::from(&refused)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(Refused::from(error))
    }
}

/// Returns the SQLSTATE of an error about a statement.
fn of_statement(message: &str) -> &'static str {
    if message.ends_with("is refused") {
        return "25006";
    }
    if message.contains("is ambiguous") {
        return "42702";
    }
    BEGINS.into_iter().find(|(begin, _)| message.starts_with(begin)).map_or("42000", |(_, code)| code)
}
