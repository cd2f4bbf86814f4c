//! Answers to requests that fail: a status, and a JSON object that says what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bellwether_base::{Error, ErrorKind};

/// Flags of the command line in hints of the query engine, and the settings of the server that stand for them.
const FLAGS: [(&str, &str); 3] =
    [("--timeout", "`api.timeout`"), ("--memory-limit", "`api.memory_bytes`"), ("--max-rows", "`api.max_rows`")];

/// A request that is refused or that failed.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

pub(crate) type Answered<T> = Result<T, Refused>;

// === impl Refused ===

impl Refused {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Other requests take all of the capacity.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message).with_hint("send it again in some seconds")
    }

    /// The answer is larger than one may be.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// The answer has more bytes than one may have.
    pub(crate) fn too_many_bytes(most: usize) -> Self {
        Self::too_large(format!("the answer has more than {most} bytes"))
            .with_hint("select fewer rows or columns, or raise `api.max_bytes` of the server")
    }

    /// The request asks for something that the server does not do.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = match &self.hint {
            None => serde_json::json!({ "error": self.message }),
            Some(hint) => serde_json::json!({ "error": self.message, "hint": hint }),
        };
        let content = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
        let mut response = (self.status, content, body.to_string()).into_response();
        let more = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "2")),
            _ => None,
        };
        if let Some((name, value)) = more {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let mut hint = error.hint().map(str::to_owned);
        let mut is_limit = false;
        for (flag, setting) in FLAGS {
            if let Some(text) = hint.as_mut().filter(|text| text.contains(flag)) {
                *text = text.replace(flag, &format!("{setting} of the server"));
                is_limit = true;
            }
        }
        let status = match error.kind() {
            ErrorKind::Config | ErrorKind::BadEvent => StatusCode::BAD_REQUEST,
            // The same request would reach the same limit again.
            ErrorKind::Unavailable if is_limit => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Unavailable | ErrorKind::Fenced => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Data | ErrorKind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::warn!(reason = %error.chain(), "a request failed");
        }
        Self { status, message: error.message().to_owned(), hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_not_worth_a_repetition_and_names_the_setting_of_the_server() {
        let error = Error::unavailable("the query took longer than 1 s").with_hint("narrow it, or raise --timeout");
        let refused = Refused::from(error);
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.hint.as_deref(), Some("narrow it, or raise `api.timeout` of the server"));
        assert_eq!(Refused::from(Error::unavailable("storage is away")).status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Refused::from(Error::config("a syntax error")).status, StatusCode::BAD_REQUEST);
    }
}
