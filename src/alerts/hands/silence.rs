//! `bellwether alerts silence` and `unsilence`.

use bellwether_alerts::current::CurrentAlert;
use bellwether_alerts::hands::{Action, ActionKind, Matchers, Origin, Silence};
use bellwether_base::{Error, Result};
use clap::Args;

use super::{Bench, Who, named};
use crate::alerts::find::{find, near};
use crate::alerts::marks::short;
use crate::alerts::until::Until;
use crate::alerts::{Stop, when};
use crate::{exit, screen};

/// Most alerts that a preview lists.
const PREVIEWED: usize = 20;

/// Most silences that a hint lists.
const LISTED: usize = 5;

#[derive(Args, Debug)]
pub(crate) struct SilenceArgs {
    /// Ids of alerts, or label matchers such as task=refund or 'rule=~"cost_.*"'.
    #[arg(value_name = "ID|MATCHER")]
    about: Vec<String>,
    /// How long it lasts, such as 2h.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "until")]
    lasts: Option<std::time::Duration>,
    /// Its end: a time in UTC, or a duration from now.
    #[arg(long, value_name = "TIME", value_parser = Until::parse)]
    until: Option<Until>,
    /// Its start, if it is planned: a time in UTC, or a duration from now [default: now].
    #[arg(long, value_name = "TIME", value_parser = Until::parse)]
    from: Option<Until>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Confirm that the matchers exclude hardly any alert.
    #[arg(long)]
    everything: bool,
    /// Only show which alerts it matches at present.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    who: Who,
}

#[derive(Args, Debug)]
pub(crate) struct UnsilenceArgs {
    /// Id of the silence, or a unique prefix of it.
    #[arg(value_name = "ID")]
    id: String,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    who: Who,
}

/// What a silence is about.
enum About {
    Alerts(Vec<String>),
    Labels(Matchers),
}

// === impl SilenceArgs ===

impl SilenceArgs {
    fn about(&self) -> Result<About> {
        let is_matcher = |text: &&String| text.contains('=') || text.starts_with('{') || text.contains('~');
        let matchers = self.about.iter().filter(is_matcher).count();
        if matchers == 0 && !self.about.is_empty() {
            return Ok(About::Alerts(self.about.clone()));
        }
        if self.about.is_empty() && !self.everything {
            return Err(Error::config("nothing to silence was named")
                .with_hint("name ids of alerts, or labels such as task=refund; --everything silences all alerts"));
        }
        if matchers < self.about.len() {
            return Err(Error::config("a silence is about ids or about labels, not both")
                .with_hint("make two silences; a matcher is written task=refund"));
        }
        let mut parsed = self.about.iter().map(|text| Matchers::parse(text));
        let all = parsed.try_fold(Matchers::default(), |all, more| Ok::<_, Error>(all.and(more?)))?;
        if all.match_everything() && !self.everything {
            return Err(Error::config(format!("the silence {all} matches about every alert"))
                .with_hint("name a label that limits it, such as task=refund; or confirm it with --everything"));
        }
        Ok(About::Labels(all))
    }

    /// Returns start and end.
    fn span(&self, now: i64) -> Result<(i64, i64)> {
        let start = self.from.map_or(now, |from| from.from(now)).max(now);
        let end = match (self.lasts, self.until) {
            (Some(lasts), _) => Until::In(lasts).end(start)?,
            (None, Some(until)) => until.end(now)?,
            (None, None) => {
                return Err(Error::config("a silence needs an end").with_hint("add --for 2h or --until TIME"));
            }
        };
        if end <= start {
            return Err(Error::config("the silence ends before it begins").with_hint("give a later --until"));
        }
        Ok((start, end))
    }
}

pub(in crate::alerts) async fn silence(args: SilenceArgs) -> Result<(), Stop> {
    let about = args.about()?;
    let mut bench = match args.dry_run {
        // Nothing will be recorded, so it does not matter who asks.
        true => Bench::open_as(&args.who, String::new()).await?,
        false => Bench::open(&args.who).await?,
    };
    let (start, end) = args.span(bench.now)?;
    let base = |bench: &Bench, alert: Option<&str>| Action {
        starts_at: Some(start),
        until: Some(end),
        reason: Some(bench.redacted(&args.reason)),
        ..Action::new(bench.id(ActionKind::Silence, alert), ActionKind::Silence, &bench.person, bench.now, Origin::Cli)
    };
    let (actions, matched) = match about {
        About::Alerts(ids) => {
            let found = ids.iter().map(|id| find(&bench.alerts, id)).collect::<Result<Vec<&CurrentAlert>, Stop>>()?;
            let actions = found.iter().map(|alert| Action {
                alert_id: Some(alert.alert_id.clone()),
                rule: Some(alert.rule.clone()),
                tenant: alert.labels.get("tenant").cloned(),
                ..base(&bench, Some(&alert.alert_id))
            });
            (actions.collect::<Vec<_>>(), found)
        }
        About::Labels(matchers) => {
            let active = bench.alerts.iter().filter(|alert| ["firing", "pending"].contains(&alert.state.as_str()));
            let matched = active.filter(|alert| matchers.match_labels(&alert.matched_labels())).collect();
            let action = Action {
                tenant: matchers.required("tenant").map(str::to_owned),
                rule: matchers.required("rule").map(str::to_owned),
                matchers: Some(matchers.to_string()),
                ..base(&bench, None)
            };
            (vec![action], matched)
        }
    };
    preview(&matched)?;
    if args.dry_run {
        crate::print("nothing was recorded: --dry-run")?;
        return Ok(());
    }
    bench.record(&actions).await?;
    let from = if start > bench.now { format!(" from {}", when::at(start)) } else { String::new() };
    for action in &actions {
        let what = action.matchers.as_ref().or(action.alert_id.as_ref()).map_or("", String::as_str);
        crate::print(&format!("silenced {what}{from} until {}", when::at(end)))?;
        crate::print(&format!("end it with `bellwether alerts unsilence {}`", action.action_id))?;
    }
    Ok(())
}

/// Lists the alerts that a silence matches at present.
fn preview(matched: &[&CurrentAlert]) -> Result<()> {
    if matched.is_empty() {
        exit::warn(
            "it matches no pending or firing alert at present",
            "check the labels with `bellwether alerts list --json`",
        );
        return Ok(());
    }
    let noun = if matched.len() == 1 { "alert" } else { "alerts" };
    let mut lines = vec![format!("matches {} {noun} at present", matched.len())];
    lines.extend(
        matched.iter().take(PREVIEWED).map(|alert| screen::one_line(&format!("  {}, {}", named(alert), alert.state))),
    );
    if matched.len() > PREVIEWED {
        lines.push(format!("  and {} more", matched.len() - PREVIEWED));
    }
    crate::print(&lines.join("\n")).map(|_| ())
}

pub(in crate::alerts) async fn unsilence(args: UnsilenceArgs) -> Result<(), Stop> {
    let mut bench = Bench::open(&args.who).await?;
    let found: Vec<&Silence> = bench.hands.silences().filter(|silence| silence.id.starts_with(&args.id)).collect();
    let silence = match found.as_slice() {
        [silence] => (*silence).clone(),
        [] => return Err(unknown(&bench, &args.id)),
        many => {
            return Err(Stop::Refused(
                Error::config(format!("{} silence ids begin with `{}`", many.len(), args.id))
                    .with_hint("give a longer prefix"),
            ));
        }
    };
    let at = bench.hands.moment(None, Some(&silence.id), bench.now);
    let action = Action {
        silence_id: Some(silence.id.clone()),
        tenant: silence.tenant.clone(),
        reason: args.reason.as_deref().map(|reason| bench.redacted(reason)),
        ..Action::new(
            bench.id(ActionKind::Unsilence, Some(&silence.id)),
            ActionKind::Unsilence,
            &bench.person,
            at,
            Origin::Cli,
        )
    };
    if silence.ends_at() <= bench.now && !bench.hands.knows(&action.action_id) {
        let ended = when::with_age(silence.ends_at(), bench.now);
        return Err(Stop::Refused(
            Error::config(format!("silence `{}` ended at {ended}", silence.id)).with_hint("nothing is left to do"),
        ));
    }
    bench.record(&[action]).await?;
    crate::print(&format!("ended silence {} of {}", silence.id, object(&silence)))?;
    Ok(())
}

/// Describes what a silence is about.
fn object(silence: &Silence) -> String {
    silence.alert_id.clone().unwrap_or_else(|| silence.matchers.to_string())
}

/// Explains that there is no silence with an id, and which there are.
fn unknown(bench: &Bench, id: &str) -> Stop {
    let active: Vec<&Silence> = bench.hands.silences().filter(|silence| bench.now < silence.ends_at()).collect();
    let hint = match near(id, active.iter().map(|silence| silence.id.as_str())).as_slice() {
        [] if active.is_empty() => "no silence is active".to_owned(),
        [] => {
            let named =
                active.iter().take(LISTED).map(|silence| format!("`{}` of {}", short(&silence.id), object(silence)));
            format!("active: {}", named.collect::<Vec<_>>().join(", "))
        }
        near => format!("did you mean {}? `SELECT * FROM silences` lists all active ones", near.join(", ")),
    };
    Stop::Refused(Error::config(format!("no silence has the id `{id}`")).with_hint(hint))
}
