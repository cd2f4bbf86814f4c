//! `bellwether serve`: answers queries over HTTP and by the protocol of Postgres, and makes and revokes the tokens of those who ask.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bellwether_base::{Clock, Error, Result, SystemClock};
use bellwether_serve::{Scope, Tokens, expiry};
use clap::{Args, Subcommand, ValueEnum};

use crate::config::Config;
use crate::{block_on, process, roles};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether serve --config bellwether.toml
  bellwether serve token add grafana --tenant acme --valid 90d --config bellwether.toml
  curl http://127.0.0.1:9465/v1/rolling?span=24h
  curl http://127.0.0.1:9465/v1/sql -H 'content-type: application/json' \\
    -d '{\"sql\": \"SELECT * FROM runs WHERE task = $1 LIMIT 5\", \"parameters\": [\"refunds\"]}'")]
pub(crate) struct ServeArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ServeCommand>,
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG", global = true)]
    config: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ServeCommand {
    /// Make, list and revoke tokens; a running server notices at once.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Make a token and print it. It is stored nowhere: only its hash is.
    #[command(after_help = "Examples:
  bellwether serve token add grafana --config bellwether.toml
  bellwether serve token add acme-pages --tenant acme --valid 90d --config bellwether.toml")]
    Add {
        /// Name of the token, as in the audit log.
        #[arg(value_name = "NAME")]
        name: String,
        /// Requests that the token permits.
        #[arg(long, value_enum, default_value_t, value_name = "SCOPE")]
        scope: Permitted,
        /// Let the token see the rows of this tenant alone.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Let the token expire after this time [default: never].
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        valid: Option<Duration>,
    },
    /// List the tokens: name, scope, tenant, end.
    List,
    /// Revoke a token.
    Revoke {
        /// Name of the token.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// The scope of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Permitted {
    /// Ask everything, and see and cancel one's own statements.
    #[default]
    Read,
    /// See and cancel the statements of all.
    Admin,
}

pub(crate) fn run(args: ServeArgs) -> Result<ExitCode> {
    let file = args.config.as_deref().ok_or_else(|| {
        Error::config("no configuration is named").with_hint("add `--config FILE`, or set BELLWETHER_CONFIG")
    })?;
    let config = Config::load(file)?;
    match args.command {
        None => {
            // A server only reads, so it does no maintenance either.
            let mut roles = roles::only(&config, roles::serve::NAME);
            roles.retain(|role| role.name() == roles::serve::NAME);
            block_on(process::run(&config, roles, false))
        }
        Some(ServeCommand::Token(command)) => {
            let file = config.api.server.tokens.as_deref().ok_or_else(|| {
                Error::config("the configuration names no file of tokens").with_hint("set `api.tokens_file`")
            })?;
            token(command, file)
        }
    }
}

fn token(command: TokenCommand, file: &Path) -> Result<ExitCode> {
    match command {
        TokenCommand::Add { name, scope, tenant, valid } => {
            // The first token makes the file.
            let mut tokens = if file.exists() { Tokens::load(file)? } else { Tokens::default() };
            let scope = match scope {
                Permitted::Read => Scope::Read,
                Permitted::Admin => Scope::Admin,
            };
            let expires = valid.map(|valid| expiry(SystemClock.now_micros(), valid));
            let text = tokens.add(&name, scope, tenant, expires)?;
            tokens.save(file)?;
            crate::print(&text)
        }
        TokenCommand::List => {
            let now = SystemClock.now_micros();
            let tokens = Tokens::load(file)?;
            let lines = tokens.all().iter().map(|token| {
                let scope = match token.scope {
                    Scope::Read => "read",
                    Scope::Admin => "admin",
                };
                let tenant = token.tenant.as_deref().map_or("all tenants".to_owned(), |name| format!("tenant {name}"));
                let ends = match &token.expires {
                    None => "never expires".to_owned(),
                    Some(time) if token.has_expired(now) => format!("expired at {time}"),
                    Some(time) => format!("expires at {time}"),
                };
                format!("{}: {scope}, {tenant}, {ends}", token.name)
            });
            let lines: Vec<String> = lines.collect();
            crate::print(if lines.is_empty() { "no tokens".to_owned() } else { lines.join("\n") }.as_str())
        }
        TokenCommand::Revoke { name } => {
            let mut tokens = Tokens::load(file)?;
            if !tokens.revoke(&name) {
                return Err(Error::config(format!("there is no token `{name}`"))
                    .with_hint("`bellwether serve token list` lists all tokens"));
            }
            tokens.save(file)?;
            crate::print(&format!("{name} is revoked"))
        }
    }
}
