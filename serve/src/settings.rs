//! Settings of the server, with their defaults, and the rule about addresses beyond loopback.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bellwether_base::{Error, Result};

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Address to listen on for HTTP.
    pub address: SocketAddr,
    /// Address to listen on for clients of Postgres; none for no such clients.
    pub postgres: Option<SocketAddr>,
    /// Address to listen on for clients of Arrow Flight SQL; none for no such clients.
    pub flight: Option<SocketAddr>,
    /// File with the certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// File with the certificate's private key, PEM.
    pub key: Option<PathBuf>,
    /// File with the hashes of the tokens. Without one, everybody on this machine may ask everything.
    pub tokens: Option<PathBuf>,
    /// File to which requests are recorded with their statements.
    pub audit: Option<PathBuf>,
    /// Memory of all statements together, bytes. A single one may take half of it.
    pub memory_bytes: usize,
    /// Statements that run at the same time; further ones wait, then are refused.
    pub statements: usize,
    /// Longest time for a statement, until its last row.
    pub timeout: Duration,
    /// Most rows of an answer.
    pub max_rows: u64,
    /// Most bytes of an answer, as it is sent.
    pub max_bytes: usize,
    /// Most connections; further ones wait to be accepted.
    pub connections: usize,
    /// Longest time for a client to send a request, to go on reading an answer, or to wait for others.
    pub patience: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 9465)),
            postgres: None,
            flight: None,
            certificate: None,
            key: None,
            tokens: None,
            audit: None,
            memory_bytes: 256 << 20,
            statements: 2,
            timeout: Duration::from_secs(60),
            max_rows: 10_000_000,
            max_bytes: 1 << 30,
            connections: 256,
            patience: Duration::from_secs(10),
        }
    }
}

// === impl ServerSettings ===

impl ServerSettings {
    /// Checks the rules that span several settings. Does no I/O.
    ///
    /// # Errors
    /// `Config` if an address is not on loopback and TLS or tokens are missing, or only one file of TLS is named.
    pub fn check(&self) -> Result<()> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err(Error::config("TLS needs both a certificate and its key")
                .with_hint("set `api.certificate_file` and `api.key_file`, or neither"));
        }
        let mut addresses = [Some(self.address), self.postgres, self.flight].into_iter().flatten();
        let exposed = addresses.find(|address| !address.ip().is_loopback());
        let Some(exposed) = exposed.filter(|_| self.certificate.is_none() || self.tokens.is_none()) else {
            return Ok(());
        };
        Err(Error::config(format!("`{exposed}` is not on loopback, and queries there need TLS and tokens"))
            .with_hint("set `api.certificate_file`, `api.key_file` and `api.tokens_file`; docs/serve.md shows how"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_beyond_loopback_needs_tls_and_tokens() {
        let open = ServerSettings { address: SocketAddr::from(([0, 0, 0, 0], 9465)), ..ServerSettings::default() };
        let file = || Some(PathBuf::from("file"));
        let tls = ServerSettings { certificate: file(), key: file(), ..open.clone() };
        let tokens = ServerSettings { tokens: file(), ..open.clone() };
        let postgres =
            ServerSettings { address: ([127, 0, 0, 1], 9465).into(), postgres: Some(open.address), ..tls.clone() };
        let flight = ServerSettings { flight: postgres.postgres, postgres: None, ..postgres.clone() };
        for refused in [&open, &tls, &tokens, &postgres, &flight] {
            let error = refused.check().expect_err("refused");
            assert!(error.message().contains("0.0.0.0:9465") && error.message().contains("TLS and tokens"));
        }
        assert!(ServerSettings { tokens: file(), ..tls }.check().is_ok());
        assert!(ServerSettings::default().check().is_ok());
        let half = ServerSettings { key: file(), ..ServerSettings::default() };
        assert!(half.check().expect_err("half of TLS").message().contains("both"));
    }
}
