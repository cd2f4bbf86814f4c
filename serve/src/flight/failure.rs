//! Errors as clients of gRPC read them: a status, and a message with its hint.

use axum::http::StatusCode;
use tonic::{Code, Status};

use crate::refused::Refused;

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = match &refused.hint {
            None => refused.message.clone(),
            Some(hint) => format!("{}\nhint: {hint}", refused.message),
        };
        Self::new(code(&refused), message)
    }
}

fn code(refused: &Refused) -> Code {
    match refused.status {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::UNPROCESSABLE_ENTITY if refused.message.contains("longer than") => Code::DeadlineExceeded,
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE if refused.message.contains("was cancelled") => Code::Cancelled,
        // gRPC's word for a call that may be sent again.
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use bellwether_base::Error;

    use super::*;

    #[test]
    fn an_error_has_a_status_and_its_hint() {
        let limit = Error::unavailable("the query took longer than 1 s").with_hint("raise --timeout");
        let status = Status::from(Refused::from(limit));
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.message(), "the query took longer than 1 s\nhint: raise `api.timeout` of the server");
        for (refused, code) in [
            (Refused::bad("x"), Code::InvalidArgument),
            (Refused::busy("x"), Code::Unavailable),
            (Refused::too_many_bytes(1), Code::ResourceExhausted),
            (Refused::unsupported("x"), Code::Unimplemented),
            (Refused::new(StatusCode::UNAUTHORIZED, "x"), Code::Unauthenticated),
            (Refused::from(Error::unavailable("the query was cancelled")), Code::Cancelled),
            (Refused::from(Error::bug("x")), Code::Internal),
        ] {
            assert_eq!(Status::from(refused).code(), code);
        }
    }
}
