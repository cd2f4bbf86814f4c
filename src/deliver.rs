//! `bellwether deliver`: its arguments, the sinks of a configuration, and commands that show and test routes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bellwether_base::{Clock, Error, Result, SystemClock, unique_id};
use bellwether_deliver::page::test_notice;
use bellwether_deliver::route::{Route, taken};
use bellwether_deliver::{DeliverSettings, within};
use bellwether_evidence::AlertRecord;
use bellwether_sinks::page::Status;
use bellwether_sinks::{Failure, Sink, SinkSettings};
use clap::{Args, Subcommand};

use crate::config::Config;
use crate::exit;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether deliver --config bellwether.toml
  bellwether deliver test default --config bellwether.toml
  bellwether deliver routes --label task=refunds --label severity=page --config bellwether.toml")]
pub(crate) struct DeliverArgs {
    #[command(subcommand)]
    pub(crate) command: Option<DeliverCommand>,
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Send what is due now, once, and exit 0.
    #[arg(long)]
    pub(crate) until_caught_up: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DeliverCommand {
    /// Send a test through all sinks of a route, and print their answers.
    ///
    /// The test says that it is one. It is resolved at once, so that nothing stays open. No table is read or written.
    #[command(after_help = "Examples:
  bellwether deliver test default --config bellwether.toml

Exit codes:
  0  all sinks accepted the test
  1  a sink did not")]
    Test {
        /// Name of the route; a configuration without routes has the route `default`.
        #[arg(value_name = "ROUTE")]
        route: String,
    },
    /// Show all routes, or those that an alert with some labels would take.
    #[command(after_help = "Examples:
  bellwether deliver routes --config bellwether.toml
  bellwether deliver routes --label rule=success_drift --label severity=page -c bellwether.toml

Exit codes:
  0  the alert takes a route
  1  it takes none, or waits for the end of a maintenance window")]
    Routes {
        /// Label of the alert; `rule`, `severity`, `owner`, `tenant`, `task` and `release_id` are labels too.
        #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
        label: Vec<(String, String)>,
    },
}

// === impl DeliverArgs ===

impl DeliverArgs {
    /// Reads the configuration.
    ///
    /// # Errors
    /// `Config` if none is named, or it is invalid.
    pub(crate) fn config(&self) -> Result<Config> {
        let named = self.config.as_deref();
        let file = named.ok_or_else(|| {
            Error::config("no configuration is named").with_hint("add `--config FILE`, or set BELLWETHER_CONFIG")
        })?;
        Config::load(file)
    }
}

fn label(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE, such as task=refunds".to_owned()),
    }
}

/// Returns the problems of the settings of all sinks, each in one sentence. Does no I/O.
pub(crate) fn problems(settings: &DeliverSettings) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in &settings.sinks {
        match read(name, value) {
            Ok(settings) => problems.extend(settings.validate().iter().map(|what| format!("sink `{name}`: {what}"))),
            Err(what) => problems.push(what),
        }
    }
    problems
}

/// Reads the settings of one sink.
pub(crate) fn read(name: &str, value: &toml::Value) -> std::result::Result<SinkSettings, String> {
    value.clone().try_into::<SinkSettings>().map_err(|error| format!("sink `{name}`: {}", error.message()))
}

/// Makes all sinks of a configuration.
///
/// # Errors
/// `Config` if the settings of one are invalid.
pub(crate) fn sinks(settings: &DeliverSettings, clock: &Arc<dyn Clock>) -> Result<BTreeMap<String, Arc<dyn Sink>>> {
    let mut sinks = BTreeMap::new();
    for (name, value) in &settings.sinks {
        let read = read(name, value).map_err(Error::config)?;
        sinks.insert(name.clone(), read.build(Arc::clone(clock))?);
    }
    Ok(sinks)
}

pub(crate) async fn run(command: DeliverCommand, config: Config) -> Result<ExitCode> {
    match command {
        DeliverCommand::Test { route } => test(&config.deliver, &route).await,
        DeliverCommand::Routes { label } => routes(&config.deliver, label),
    }
}

/// Sends a test through the sinks of a route: firing, then resolved.
async fn test(settings: &DeliverSettings, name: &str) -> Result<ExitCode> {
    let Some(route) = settings.route(name) else {
        let names: Vec<&str> = settings.routes.iter().map(|route| route.name.as_str()).collect();
        let hint = match names.is_empty() {
            true => "add a sink under `deliver.sinks`; docs/delivery.md shows how".to_owned(),
            false => format!("the routes are `{}`", names.join("`, `")),
        };
        return Err(Error::config(format!("there is no route `{name}`")).with_hint(hint));
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let all = sinks(settings, &clock)?;
    let incident = format!("test-{}", unique_id());
    let mut failed = false;
    for name in &route.sinks {
        let Some(sink) = all.get(name) else { continue };
        let mut earlier = None;
        for status in [Status::Firing, Status::Resolved] {
            let notice = test_notice(&route.name, incident.clone(), status, clock.now_micros());
            let answer = within(sink.send(&notice, earlier.as_ref()), &*clock).await;
            let what = if status == Status::Firing { "test" } else { "its end" };
            crate::print(&format!("{name} ({}), {what}: {}", sink.kind(), answered(&answer)))?;
            match answer {
                Ok(receipt) => earlier = Some(receipt),
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
    }
    Ok(if failed { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
}

fn answered(answer: &std::result::Result<bellwether_sinks::Receipt, Failure>) -> String {
    match answer {
        Ok(receipt) if receipt.answer.is_empty() => "accepted".to_owned(),
        Ok(receipt) => format!("accepted: {}", receipt.answer),
        Err(Failure::Later { reason, .. }) => format!("failed, and would be tried again: {reason}"),
        Err(Failure::Refused { reason }) => format!("refused: {reason}"),
    }
}

/// Prints the routes that an alert would take, or all of them.
fn routes(settings: &DeliverSettings, labels: Vec<(String, String)>) -> Result<ExitCode> {
    if labels.is_empty() {
        let all: Vec<&Route> = settings.routes.iter().collect();
        crate::print(&shown(&all).unwrap_or_else(|| "no routes; add a sink under `deliver.sinks`".to_owned()))?;
        for warning in settings.warnings() {
            crate::print(&format!("warning: {warning}"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemClock.now_micros();
    let alert = AlertRecord::of_labels(labels.into_iter().collect());
    let taken = taken(&settings.routes, &alert, now);
    let held = settings.maintenance.iter().find(|window| window.holds(&alert, now));
    match shown(&taken) {
        Some(text) => crate::print(&text)?,
        None => crate::print("no route takes this alert now")?,
    };
    if let Some(window) = held.filter(|_| !taken.is_empty()) {
        crate::print(&format!("it waits for the end of maintenance window `{}`", window.name))?;
    }
    let reaches = !taken.is_empty() && held.is_none();
    Ok(if reaches { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Returns one line for each route; none if there is none.
fn shown(routes: &[&Route]) -> Option<String> {
    let lines = routes.iter().map(|route| {
        let group = match route.group_by.is_empty() {
            true => String::new(),
            false => format!(", grouped by {}", route.group_by.join(", ")),
        };
        format!("{} → {}{group}", route.name, route.sinks.join(", "))
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn config(folder: &std::path::Path) -> Config {
        let text = format!(
            "deliver.sinks.file = {{ kind = \"inbox\", path = \"{}\" }}\n[[deliver.routes]]\nname = \"pages\"\n\
             match = {{ severity = \"page\" }}\nsinks = [\"file\"]\n",
            folder.join("pages.ndjson").display()
        );
        Config::parse("test.toml", &text, &Environment).expect("valid")
    }

    #[tokio::test]
    async fn a_test_reaches_the_sinks_of_its_route_and_says_that_it_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let code = test(&config.deliver, "pages").await.expect("sends");
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
        let text = std::fs::read_to_string(folder.path().join("pages.ndjson")).expect("written");
        assert_eq!(text.lines().filter(|line| line.contains("\"test\":true")).count(), 2, "{text}");
        let error = test(&config.deliver, "page").await.expect_err("no such route");
        assert!(error.hint().is_some_and(|hint| hint.contains("`pages`")));
    }

    #[test]
    fn the_routes_of_labels_are_shown_and_none_is_a_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let code = |severity: &str| {
            let labels = vec![("severity".to_owned(), severity.to_owned())];
            format!("{:?}", routes(&config.deliver, labels).expect("prints"))
        };
        assert_eq!(code("page"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code("info"), format!("{:?}", ExitCode::from(exit::FAILED)));
        assert!(label("task").is_err() && label("=x").is_err());
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    }
}
