//! `bellwether check health`: asks a running process whether it works. Containers without a shell use it as their health check.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bellwether_base::{Error, Result};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::CheckHealthArgs;
use crate::config::Config;
use crate::exit;
use crate::serve::ServeSettings;

/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(5);

/// Longest answer that is read, bytes.
const ANSWER_BYTES: u64 = 1 << 20;

/// The answer of a health endpoint.
#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    conditions: Vec<Role>,
}

#[derive(Debug, Deserialize)]
struct Role {
    name: String,
    why: Option<String>,
}

/// Asks the process and prints the state of each role.
///
/// # Errors
/// `Config` if the configuration is invalid, `Unavailable` if the process does not answer as Bellwether does.
pub(crate) async fn run(args: &CheckHealthArgs) -> Result<ExitCode> {
    let address = reachable(match (args.address, &args.config) {
        (Some(address), _) => address,
        (None, Some(file)) => Config::load(file)?.serve.address,
        (None, None) => ServeSettings::default().address,
    });
    let path = match (args.ready, args.live) {
        (true, _) => "/readyz",
        (_, true) => "/livez",
        _ => "/healthz",
    };
    let unreachable = |why: &str| {
        Error::unavailable(format!("no answer from `http://{address}{path}`: {why}"))
            .with_hint("start the process, or name its `serve.address` by --address or --config")
    };
    let (code, body) = tokio::time::timeout(WAIT, get(address, path))
        .await
        .map_err(|_| unreachable("it takes too long"))?
        .map_err(|source| unreachable("the connection failed").with_source(source))?;
    let answer: Answer = serde_json::from_str(&body)
        .map_err(|source| unreachable("another program answers there").with_source(source))?;
    let roles =
        answer.conditions.iter().map(|role| format!("{:<10} {}", role.name, role.why.as_deref().unwrap_or("ok")));
    let lines: Vec<String> = [answer.status.clone()].into_iter().chain(roles).collect();
    crate::print(&lines.join("\n"))?;
    Ok(if code == 200 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Returns an address at which a process that listens on every address can be reached.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// Requests a path; returns status and body.
async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // By version 1.0, the body comes in one piece and ends the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Ok((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in
            [("0.0.0.0:9464", "127.0.0.1:9464"), ("[::]:1", "[::1]:1"), ("10.0.0.7:2", "10.0.0.7:2")]
        {
            let address: SocketAddr = listens.parse().expect("an address");
            assert_eq!(reachable(address).to_string(), asked);
        }
    }
}
