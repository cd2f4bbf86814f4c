//! Connections: their number, TLS, and time limits for clients that do not send or do not read.
//!
//! A [`Listener`] accepts the connections of one protocol; all share the places for connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use bellwether_base::{Error, Result};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::settings::ServerSettings;
use crate::stall::Impatient;

/// Longest head of a request, bytes.
const HEAD_BYTES: usize = 32 << 10;

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
    /// Answers requests over HTTP until `stop` is cancelled, and then until those that run are answered, or for as long as its
    /// patience.
    pub(crate) async fn run(self, router: Router, stop: CancellationToken) {
        let ending = stop.clone();
        self.accept(stop, |listener, stream, connection| {
            listener.serve(stream, connection, router.clone(), ending.clone())
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
        connection: Connection,
        router: Router,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (patience, tls) = (self.patience, self.tls.clone());
        async move {
            let stream = Impatient::new(stream, patience);
            match tls {
                None => exchange(stream, connection, router, (patience, stop)).await,
                Some(tls) => match tokio::time::timeout(patience, tls.accept(stream)).await {
                    Ok(Ok(stream)) => exchange(stream, connection, router, (patience, stop)).await,
                    Ok(Err(error)) => tracing::debug!(%error, client = &*connection.client, "no TLS"),
                    Err(_) => tracing::debug!(client = &*connection.client, "TLS took too long"),
                },
            }
        }
    }
}

/// Answers the requests of a connection.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    connection: Connection,
    router: Router,
    (patience, stop): (Duration, CancellationToken),
) {
    let (router, cut, client) =
        (TowerToHyperService::new(router), connection.cut.clone(), Arc::clone(&connection.client));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        biased; // A finished answer wins over the end of the connection.
        ended = served.as_mut() => ended,
        () = cut.cancelled() => return,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, client = &*client, "a connection ended early");
    }
}
