//! `bellwether alerts ack`, `unack`, `silence`, `unsilence`, `feedback`.

mod silence;

use std::sync::Arc;

use bellwether_alerts::current::{CurrentAlert, current_alerts};
use bellwether_alerts::hands::{Action, ActionKind, Hands, Origin, Verdict, append};
use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_redact::Redactor;
use clap::{Args, ValueEnum};

use super::find::find;
use super::until::Until;
use super::{Stop, when};
use crate::root::RootArgs;

pub(super) use silence::{SilenceArgs, UnsilenceArgs, silence, unsilence};

/// Variables of the environment that name the user.
const USER: [&str; 3] = ["USER", "LOGNAME", "USERNAME"];

/// What every action has.
#[derive(Args, Debug)]
struct Who {
    /// Person who acts [default: the user of the environment].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Key of this action: a repetition with the same key changes nothing. For scripts that retry.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    root: RootArgs,
}

#[derive(Args, Debug)]
pub(crate) struct AckArgs {
    /// Ids of alerts, or unique prefixes of them.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why, or what is being done.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// End of the acknowledgement: a duration such as 2h, or a time in UTC.
    #[arg(long, value_name = "TIME", value_parser = Until::parse)]
    until: Option<Until>,
    #[command(flatten)]
    who: Who,
}

#[derive(Args, Debug)]
pub(crate) struct UnackArgs {
    /// Ids of alerts, or unique prefixes of them.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    who: Who,
}

#[derive(Args, Debug)]
pub(crate) struct FeedbackArgs {
    /// Id of the alert, or a unique prefix of it.
    #[arg(value_name = "ID")]
    id: String,
    /// Verdict.
    #[arg(value_enum, value_name = "VERDICT")]
    verdict: Said,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    who: Who,
}

/// A verdict on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Said {
    /// It was right to raise it.
    Useful,
    /// It should not have been raised.
    Noise,
}

// === impl Who ===

impl Who {
    fn person(&self) -> Result<String> {
        let of_environment = || USER.iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
        match self.by.clone().or_else(of_environment) {
            Some(person) if !person.trim().is_empty() => Ok(person),
            Some(_) => Err(Error::config("the name of the person is empty").with_hint("add --by NAME")),
            None => Err(Error::config("the environment does not say who acts").with_hint("add --by NAME, or set USER")),
        }
    }
}

/// The tables, and what people have done so far.
struct Bench {
    lake: Lake,
    hands: Hands,
    alerts: Vec<CurrentAlert>,
    person: String,
    key: Option<String>,
    now: i64,
    redactor: Arc<Redactor>,
}

// === impl Bench ===

impl Bench {
    async fn open(who: &Who) -> Result<Self> {
        Self::open_as(who, who.person()?).await
    }

    async fn open_as(who: &Who, person: String) -> Result<Self> {
        let lake = who.root.open_to_write().await?;
        let redactor = who.root.resolve()?.config.map_or_else(Arc::default, |config| config.redactor);
        let (hands, alerts) = (Hands::load(&lake).await?, current_alerts(&lake).await?);
        let now = lake.clock().now_micros();
        Ok(Self { lake, hands, alerts, person, key: who.key.clone(), now, redactor })
    }

    /// Makes an action on an alert.
    fn on(&self, kind: ActionKind, alert: &CurrentAlert, reason: Option<&String>) -> Action {
        let at = self.hands.moment(Some(&alert.alert_id), None, self.now);
        Action {
            alert_id: Some(alert.alert_id.clone()),
            rule: Some(alert.rule.clone()),
            tenant: alert.labels.get("tenant").cloned(),
            firing_since: alert.fired_at,
            reason: reason.map(|reason| self.redacted(reason)),
            ..Action::new(self.id(kind, Some(&alert.alert_id)), kind, &self.person, at, Origin::Cli)
        }
    }

    /// Returns what a person wrote, redacted: it is stored, and sent to others.
    fn redacted(&self, text: &str) -> String {
        self.redactor.session().text(text).into_owned()
    }

    /// Returns the id of a new action: random, or by the key and the alert or silence, since one command may act on several.
    fn id(&self, kind: ActionKind, about: Option<&str>) -> String {
        match (&self.key, about) {
            (Some(key), Some(about)) => format!("{key}/{}/{about}", kind.name()),
            (Some(key), None) => format!("{key}/{}", kind.name()),
            (None, _) => self.lake.clock().unique_id().to_string(),
        }
    }

    /// Records actions.
    async fn record(&mut self, actions: &[Action]) -> Result<()> {
        let done = append(&self.lake, &mut self.hands, actions).await?;
        if done.known > 0 {
            crate::print(&format!("{} of {} were recorded before, by their key", done.known, actions.len()))?;
        }
        Ok(())
    }
}

/// Describes an alert in a few words.
fn named(alert: &CurrentAlert) -> String {
    let task = alert.labels.get("task").map_or_else(String::new, |task| format!(", task {task}"));
    format!("{} ({}{task})", alert.alert_id, alert.rule)
}

pub(super) async fn ack(args: AckArgs) -> Result<(), Stop> {
    let mut bench = Bench::open(&args.who).await?;
    let until = args.until.map(|until| until.end(bench.now)).transpose()?;
    let (mut actions, mut lines) = (Vec::new(), Vec::new());
    for id in &args.ids {
        let alert = find(&bench.alerts, id)?;
        let Some(since) = alert.firing_since() else {
            let what =
                format!("alert {} is {}, since {}", named(alert), alert.state, when::with_age(alert.at, bench.now));
            let hint = match alert.state.as_str() {
                "pending" => "acknowledge it once it fires",
                _ => "there is nothing to acknowledge; judge it with `bellwether alerts feedback ID useful|noise`",
            };
            return Err(Stop::Refused(Error::config(what).with_hint(hint)));
        };
        let made = Action { until, ..bench.on(ActionKind::Ack, alert, args.reason.as_ref()) };
        match bench.hands.acknowledged(&alert.alert_id, since, bench.now) {
            Some(ack) if (&ack.person, &ack.reason, ack.until) == (&made.person, &made.reason, made.until) => {
                lines.push(format!("{} is acknowledged by {} already", named(alert), ack.person));
            }
            other => {
                let instead = other.map_or_else(String::new, |ack| format!(", in place of {}", ack.person));
                let until = until.map_or_else(String::new, |until| format!(" until {}", when::at(until)));
                lines.push(format!("acknowledged {} by {}{until}{instead}", named(alert), made.person));
                actions.push(made);
            }
        }
    }
    bench.record(&actions).await?;
    crate::print(&lines.join("\n"))?;
    Ok(())
}

pub(super) async fn unack(args: UnackArgs) -> Result<(), Stop> {
    let mut bench = Bench::open(&args.who).await?;
    let (mut actions, mut lines) = (Vec::new(), Vec::new());
    for id in &args.ids {
        let alert = find(&bench.alerts, id)?;
        let ack = alert.firing_since().and_then(|since| bench.hands.acknowledged(&alert.alert_id, since, bench.now));
        let made = bench.on(ActionKind::Unack, alert, args.reason.as_ref());
        match ack {
            Some(ack) => lines.push(format!("took back the acknowledgement of {} by {}", named(alert), ack.person)),
            // A retry of what has been done.
            None if bench.hands.knows(&made.action_id) => {}
            None => {
                return Err(Stop::Refused(
                    Error::config(format!("alert {} is not acknowledged", named(alert)))
                        .with_hint("`bellwether alerts list` shows who has acknowledged what"),
                ));
            }
        }
        actions.push(made);
    }
    bench.record(&actions).await?;
    crate::print(&lines.join("\n"))?;
    Ok(())
}

pub(super) async fn feedback(args: FeedbackArgs) -> Result<(), Stop> {
    let mut bench = Bench::open(&args.who).await?;
    let alert = find(&bench.alerts, &args.id)?;
    if alert.fired_at.is_none() {
        return Err(Stop::Refused(
            Error::config(format!("alert {} is {} and has never fired", named(alert), alert.state))
                .with_hint("only an alert that has fired is useful or noise"),
        ));
    }
    let verdict = match args.verdict {
        Said::Useful => Verdict::Useful,
        Said::Noise => Verdict::Noise,
    };
    let line = format!("recorded: {} was {}", named(alert), verdict.name());
    let action = Action { verdict: Some(verdict), ..bench.on(ActionKind::Feedback, alert, args.reason.as_ref()) };
    bench.record(&[action]).await?;
    crate::print(&line)?;
    Ok(())
}
