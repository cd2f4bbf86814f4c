//! Connections: their number, TLS, and time limits for clients that do not send or do not read.
//!
//! A [`Listener`] accepts the connections of one protocol; all share the places for connections.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Version};
use bellwether_base::{Error, Result};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::settings::ServerSettings;
use crate::stall::Impatient;

/// Longest head of a request, bytes.
const HEAD_BYTES: u32 = 32 << 10;

/// Requests of one connection of HTTP/2 that are answered at the same time.
const STREAMS: u32 = 64;

/// Time after which a silent client of HTTP/2 is asked whether it is still there.
const ALIVE: Duration = Duration::from_secs(60);

/// Time after which a connection of HTTP/2 that asks nothing ends: it takes the place of another.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// Wait after a connection that could not be accepted, as without free file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The connection of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    /// Address of the client.
    pub(crate) client: Arc<str>,
    /// Ends the connection.
    pub(crate) cut: CancellationToken,
}

/// Accepts connections.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) patience: Duration,
    pub(crate) metrics: Metrics,
}

/// Binds an address that `key` names in the configuration.
///
/// # Errors
/// `Config` if it cannot be used.
pub(crate) async fn bind(address: SocketAddr, key: &str) -> Result<(TcpListener, SocketAddr)> {
    let bound = async {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    bound.await.map_err(|source: std::io::Error| {
        Error::config(format!("cannot listen on `{address}`"))
            .with_hint(format!("change `{key}`, or stop the process that uses it; port 0 picks any free port"))
            .with_source(source)
    })
}

/// Reads the certificate and its key, if the settings name them, for the protocol that clients name in TLS (ALPN).
///
/// # Errors
/// `Config` if a file cannot be read, or the two do not belong together.
pub(crate) fn tls(settings: &ServerSettings, protocol: &str) -> Result<Option<TlsAcceptor>> {
    let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else { return Ok(None) };
    let unread = |key: &str, source: rustls::pki_types::pem::Error| {
        Error::config(format!("`{key}` names no readable PEM file")).with_source(source)
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'static>> = chain.map_err(|source| unread("api.certificate_file", source))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| unread("api.key_file", source))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|source| {
        Error::config("`api.certificate_file` and `api.key_file` make no server certificate").with_source(source)
    })?;
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

// === impl Listener ===

impl Listener {
    /// Answers requests over HTTP of a version until `stop` is cancelled, and then until those that run are answered, or for as
    /// long as its patience.
    pub(crate) async fn run(self, router: Router, version: Version, stop: CancellationToken) {
        let ending = stop.clone();
        self.accept(stop, |listener, stream, connection| {
            let exchange =
                Exchange { connection, router: router.clone(), patience: listener.patience, stop: ending.clone() };
            listener.serve(stream, version, exchange)
        })
        .await;
    }

    /// Serves connections until `stop` is cancelled, and then until they end, or for as long as its patience.
    pub(crate) async fn accept<F>(self, stop: CancellationToken, serve: impl Fn(&Self, TcpStream, Connection) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            // The place comes second: a listener that waits for clients must not take one from another.
            let accepted = async {
                let accepted = self.socket.accept().await;
                (Arc::clone(&self.places).acquire_owned().await, accepted)
            };
            let (slot, accepted) = tokio::select! {
                biased; // Stopping wins over new connections.
                () = stop.cancelled() => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    let connection = Connection { client: client.to_string().into(), cut: CancellationToken::new() };
                    // Small answers must not wait for more.
                    drop(stream.set_nodelay(true));
                    let served = serve(&self, stream, connection);
                    let open = self.metrics.connections.clone();
                    open.inc();
                    connections.spawn(async move {
                        served.await;
                        drop(slot);
                        open.dec();
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.patience, ended).await.is_err() {
            tracing::info!(connections = connections.len(), "requests that still ran were ended");
        }
    }

    fn serve(
        &self,
        stream: TcpStream,
        version: Version,
        exchange: Exchange,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (patience, tls) = (self.patience, self.tls.clone());
        async move {
            let stream = Impatient::new(stream, patience);
            let client = Arc::clone(&exchange.connection.client);
            match tls {
                None => exchange.run(stream, version).await,
                Some(tls) => match tokio::time::timeout(patience, tls.accept(stream)).await {
                    Ok(Ok(stream)) => exchange.run(stream, version).await,
                    Ok(Err(error)) => tracing::debug!(%error, client = &*client, "no TLS"),
                    Err(_) => tracing::debug!(client = &*client, "TLS took too long"),
                },
            }
        }
    }
}

/// The requests of one connection, and their answers.
struct Exchange {
    connection: Connection,
    router: Router,
    patience: Duration,
    stop: CancellationToken,
}

// === impl Exchange ===

impl Exchange {
    /// Answers requests until the connection ends.
    async fn run<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, version: Version) {
        let Self { connection, router, patience, stop } = self;
        let (cut, client) = (connection.cut.clone(), Arc::clone(&connection.client));
        let (asked, idle) = Idle::begin(patience);
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            asked.again();
            request.extensions_mut().insert(connection.clone());
            router.call(request)
        });
        let stream = TokioIo::new(stream);
        let ended = if version == Version::HTTP_2 {
            let served = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(Some(ALIVE))
                .keep_alive_timeout(patience)
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEAD_BYTES)
                .serve_connection(stream, service);
            let ending = async {
                tokio::select! {
                    () = stop.cancelled() => End::Graceful,
                    end = idle.end() => end,
                }
            };
            until(served, http2::Connection::graceful_shutdown, ending, &cut).await
        } else {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(patience)
                .max_buf_size(HEAD_BYTES as usize)
                .serve_connection(stream, service);
            let ending = async {
                stop.cancelled().await;
                End::Graceful
            };
            until(served, http1::Connection::graceful_shutdown, ending, &cut).await
        };
        if let Some(Err(error)) = ended {
            tracing::debug!(%error, client = &*client, "a connection ended early");
        }
    }
}

/// How a connection ends that its client has not ended.
enum End {
    /// After the answers to the requests that came.
    Graceful,
    AtOnce,
}

/// Answers requests until the connection ends by itself, by `ending`, or is cut; none if it ends at once.
async fn until<C: Future<Output = hyper::Result<()>>>(
    served: C,
    shut_down: impl FnOnce(Pin<&mut C>),
    ending: impl Future<Output = End>,
    cut: &CancellationToken,
) -> Option<hyper::Result<()>> {
    tokio::pin!(served);
    let end = tokio::select! {
        biased; // A finished answer wins over the end of the connection.
        ended = served.as_mut() => return Some(ended),
        () = cut.cancelled() => return None,
        end = ending => end,
    };
    match end {
        End::AtOnce => return None,
        End::Graceful => shut_down(served.as_mut()),
    }
    tokio::select! {
        biased; // As above.
        ended = served.as_mut() => Some(ended),
        () = cut.cancelled() => None,
    }
}

/// When a connection of HTTP/2 ends that asks nothing: such a connection has no time limit of its own.
struct Idle(watch::Receiver<Option<Instant>>, Instant);

/// Tells [`Idle`] of requests.
struct Asked(watch::Sender<Option<Instant>>);

// === impl Asked ===

impl Asked {
    /// Notes that a request came.
    fn again(&self) {
        self.0.send_replace(Some(Instant::now() + IDLE));
    }
}

// === impl Idle ===

impl Idle {
    /// Begins with a time limit for the first request.
    fn begin(patience: Duration) -> (Asked, Self) {
        let (sender, receiver) = watch::channel(None);
        (Asked(sender), Self(receiver, Instant::now() + patience))
    }

    /// Waits for as long as the client asks in time.
    async fn end(self) -> End {
        loop {
            let next = *self.0.borrow();
            let until = next.unwrap_or(self.1);
            if until <= Instant::now() {
                return if next.is_some() { End::Graceful } else { End::AtOnce };
            }
            tokio::time::sleep_until(until).await;
        }
    }
}
