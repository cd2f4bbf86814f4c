//! A small client of gRPC that can also break the rules, which real clients do not. `tests/serve` asks with real ones.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The server is patient for a second; a busy machine may take longer.
const SOON: Duration = Duration::from_secs(30);

/// A connection to the server, which ends when this is dropped.
pub(super) struct Client {
    sender: SendRequest<Body>,
    address: SocketAddr,
    token: Option<String>,
    connection: JoinHandle<()>,
}

/// The answer to a call.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The status of gRPC; -1 if there is none.
    pub(super) code: i32,
    pub(super) message: String,
    pub(super) messages: Vec<Bytes>,
    /// The status of HTTP.
    pub(super) http: u16,
}

/// An answer whose messages were not read.
pub(super) struct Unread(Response<Incoming>);

/// Returns a message as gRPC sends it.
pub(super) fn framed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).expect("fits").to_be_bytes();
    [&[0], length.as_slice(), &body].concat()
}

// === impl Reply ===

impl Reply {
    /// Returns the only message.
    pub(super) fn one<M: Message + Default>(&self) -> M {
        assert_eq!((self.code, self.messages.len()), (0, 1), "{}", self.shown());
        M::decode(&*self.messages[0]).expect("a message")
    }

    /// Returns everything that it shows.
    pub(super) fn shown(&self) -> String {
        let texts: Vec<_> = self.messages.iter().map(|message| String::from_utf8_lossy(message)).collect();
        format!("{} {} {texts:?}", self.code, self.message)
    }
}

// === impl Client ===

impl Client {
    pub(super) async fn connect(address: SocketAddr, token: Option<&str>) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("begins");
        let connection = tokio::spawn(async move { drop(connection.await) });
        Self { sender, address, token: token.map(str::to_owned), connection }
    }

    /// Sends a message; returns the whole answer.
    pub(super) async fn call(&self, method: &str, message: &impl Message) -> Reply {
        self.call_as("application/grpc", method, message).await
    }

    pub(super) async fn call_as(&self, kind: &str, method: &str, message: &impl Message) -> Reply {
        let request = self.request(kind, method, Body::from(framed(message)));
        self.reply(request).await
    }

    /// Sends bytes; returns the whole answer.
    pub(super) async fn send(&self, method: &str, bytes: Vec<u8>) -> Reply {
        self.reply(self.request("application/grpc", method, Body::from(bytes))).await
    }

    /// Sends bytes and never the end; returns the whole answer.
    pub(super) async fn unfinished(&self, method: &str, bytes: Vec<u8>) -> Reply {
        let sent = futures::stream::iter([Ok::<_, Infallible>(bytes)]).chain(futures::stream::pending());
        self.reply(self.request("application/grpc", method, Body::from_stream(sent))).await
    }

    /// Sends a message; returns once the answer begins.
    pub(super) async fn begin(&self, method: &str, message: &impl Message) -> Option<Unread> {
        let request = self.request("application/grpc", method, Body::from(framed(message)));
        self.sender.clone().send_request(request).await.ok().map(Unread)
    }

    fn request(&self, kind: &str, method: &str, body: Body) -> Request<Body> {
        let uri = format!("http://{}/arrow.flight.protocol.FlightService/{method}", self.address);
        let mut request = Request::post(uri).header("content-type", kind).header("te", "trailers");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(body).expect("a request")
    }

    async fn reply(&self, request: Request<Body>) -> Reply {
        let uri = request.uri().clone();
        let answered = async {
            let response = self.sender.clone().send_request(request).await.expect("an answer");
            Reply::read(response).await
        };
        tokio::time::timeout(SOON, answered).await.unwrap_or_else(|_| panic!("no answer to {uri}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

// === impl Unread ===

impl Unread {
    /// Waits for the first bytes; returns their number.
    pub(super) async fn first(&mut self) -> usize {
        match frame(self.0.body_mut()).await {
            Some(Ok(Ok(data))) => data.len(),
            _ => 0,
        }
    }
}

impl Reply {
    async fn read(response: Response<Incoming>) -> Self {
        let mut reply = Self { code: -1, http: response.status().as_u16(), ..Self::default() };
        reply.end(response.headers());
        let (mut body, mut bytes) = (response.into_body(), Vec::new());
        while let Some(Ok(frame)) = frame(&mut body).await {
            match frame {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(trailers) => reply.end(&trailers),
            }
        }
        let mut rest = Bytes::from(bytes);
        while rest.len() >= 5 && reply.http == 200 {
            let length = u32::from_be_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
            reply.messages.push(rest.slice(5..5 + length));
            rest = rest.slice(5 + length..);
        }
        reply
    }

    fn end(&mut self, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(code) = text("grpc-status") {
            self.code = code.parse().expect("a number");
            let message = text("grpc-message").unwrap_or_default();
            self.message = url::form_urlencoded::parse(format!("m={}", message.replace('+', "%2B")).as_bytes())
                .next()
                .map(|(_, message)| message.into_owned())
                .unwrap_or_default();
        }
    }
}

/// Returns the next data or trailers of a body.
async fn frame(body: &mut Incoming) -> Option<Result<Result<Bytes, HeaderMap>, hyper::Error>> {
    let next = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    Some(next.map(|frame| match frame.into_data() {
        Ok(data) => Ok(data),
        Err(frame) => Err(frame.into_trailers().unwrap_or_default()),
    }))
}
