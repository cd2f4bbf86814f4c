//! Calls: who makes one, the messages that come, within their time, and those that go.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use prost::Message;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::{ENDPOINT, Flight};
use crate::access::Caller;
use crate::listener::Connection;
use crate::refused::Refused;
use crate::start::Asker;

/// Longest message of a client, bytes: a handle has a statement and the values of its parameters.
const MESSAGE_BYTES: usize = 1 << 20;

/// Messages for the client, computed as it reads them.
pub(super) type Replies<B> = BoxStream<'static, Result<B, Status>>;

/// A call, and who makes it.
pub(super) struct Call {
    pub(super) flight: Arc<Flight>,
    pub(super) caller: Caller,
    pub(super) connection: Connection,
}

/// Messages of the client.
pub(super) struct Messages<A> {
    stream: Streaming<A>,
    patience: Duration,
}

/// The work of one call, in the form that gRPC asks for.
struct Once<W>(Option<W>);

/// Returns a single message.
pub(super) fn one<B: Send + 'static>(message: B) -> Replies<B> {
    futures::stream::iter([Ok(message)]).boxed()
}

/// Returns no message.
pub(super) fn none<B: Send + 'static>() -> Replies<B> {
    futures::stream::empty().boxed()
}

/// Answers a call with an error.
pub(super) fn refuse(refused: Refused) -> Response {
    Status::from(refused).into_http()
}

/// Does the work of a call, if the caller is known.
pub(super) async fn serve<A, B, W, F>(flight: Arc<Flight>, request: Request, work: W) -> Response
where
    A: Message + Default + 'static,
    B: Message + 'static,
    W: FnOnce(Call, Messages<A>) -> F + Send + 'static,
    F: Future<Output = Result<Replies<B>, Status>> + Send + 'static,
{
    let headers = request.headers();
    // A page of another site can send other types without asking first.
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if !kind.starts_with(b"application/grpc") {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this address answers clients of Arrow Flight SQL")
            .into_response();
    }
    let caller = match flight.server.access.caller_with(request.uri(), headers, token(headers).as_deref()) {
        Ok(caller) => caller,
        Err(refused) => return refuse(refused),
    };
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
    let patience = flight.server.settings.patience;
    let call = Call { flight, caller, connection };
    let work = Once(Some(move |stream| work(call, Messages { stream, patience })));
    let mut grpc = Grpc::new(ProstCodec::<B, A>::default()).max_decoding_message_size(MESSAGE_BYTES);
    Box::pin(grpc.streaming(work, request)).await.map(axum::body::Body::new)
}

/// Returns the token that a client gives: as such, or as a password.
pub(super) fn token(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = given.strip_prefix("Bearer ") {
        return Some(token.trim().to_owned());
    }
    // The clients of Go leave the padding out.
    let decoded = BASE64_STANDARD_NO_PAD.decode(given.strip_prefix("Basic ")?.trim().trim_end_matches('=')).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(_, password)| password.trim().to_owned())
}

// === impl Call ===

impl Call {
    pub(super) fn asker(&self) -> Asker<'_> {
        let Self { flight, caller, connection } = self;
        Asker { server: &flight.server, caller, connection, endpoint: ENDPOINT }
    }
}

// === impl Messages ===

impl<A> Messages<A> {
    /// Returns the next message, if there is one.
    pub(super) async fn next(&mut self) -> Result<Option<A>, Status> {
        let late = |_| {
            let message = format!("the request did not come within {} s", self.patience.as_secs_f64());
            Status::from(Refused::new(StatusCode::REQUEST_TIMEOUT, message))
        };
        tokio::time::timeout(self.patience, self.stream.message()).await.map_err(late)?
    }

    /// Returns the only message.
    pub(super) async fn only(mut self) -> Result<A, Status> {
        let missing = || Status::from(Refused::bad("the request has no message"));
        self.next().await?.ok_or_else(missing)
    }
}

// === impl Once ===

impl<A, B, W, F> StreamingService<A> for Once<W>
where
    W: FnOnce(Streaming<A>) -> F,
    F: Future<Output = Result<Replies<B>, Status>> + Send + 'static,
    B: 'static,
{
    type Response = B;
    type ResponseStream = Replies<B>;
    type Future = BoxFuture<'static, Result<tonic::Response<Replies<B>>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<A>>) -> Self::Future {
        let Some(work) = self.0.take() else {
            return Box::pin(async { Err(Status::internal("a call is answered once")) });
        };
        let working = work(request.into_inner());
        Box::pin(async move { working.await.map(tonic::Response::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_as_such_or_as_a_password() {
        let given = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a value"))]);
            token(&headers)
        };
        assert_eq!(given("Bearer bellwether_1").as_deref(), Some("bellwether_1"));
        // me:a:b and me:ab, with and without padding; me
        assert_eq!(given("Basic bWU6YTpi").as_deref(), Some("a:b"));
        assert_eq!(given("Basic bWU6YWI=").as_deref(), Some("ab"));
        assert_eq!(given("Basic bWU6YWI").as_deref(), Some("ab"));
        for none in ["bellwether_1", "Basic bellwether_1", "Basic", "", "Basic bWU="] {
            assert_eq!(given(none), None, "{none}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }
}
