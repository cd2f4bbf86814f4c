//! Replays a rule over history, to show when it would have fired.

use std::collections::BTreeMap;

use bellwether_base::{Error, Result};
use bellwether_detect::Minute;
use bellwether_lake::{CommitLog, Lake, Layout};
use bellwether_tables::Table;

use crate::contract::Contracts;
use crate::engine::{BudgetSettings, Engine, Status};
use crate::read::{ReplaySpan, Schedule, replay, replay_tables};
use crate::record::{AlertRow, ChangeKind};
use crate::rule::{Rule, Rules, Source};
use crate::watch::WatchSettings;

/// Minutes in a month.
const MONTH: f64 = 30.0 * 1440.0;

/// Minutes before a replay in which an alert that is already due begins to fire.
const SETTLES: i64 = 60;

/// The outcome of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Transitions, in order.
    pub rows: Vec<AlertRow>,
    /// Days that were replayed.
    pub days: f64,
    /// Number of alerts that fired.
    pub fired: usize,
    /// Alerts that fired a month.
    pub a_month: f64,
    /// Median time from the likeliest beginning of a change to firing, minutes; none if it never fired.
    pub delay: Option<i64>,
    /// False alarms a month that its budget allows; none if its detector bounds none.
    pub allowed: Option<f64>,
    /// State of the rule.
    pub status: Status,
}

/// A rule to replay, and over which time.
#[derive(Clone, Copy)]
pub struct ReplayRequest<'a> {
    /// All rules.
    pub rules: &'a Rules,
    /// Name of the rule.
    pub name: &'a str,
    /// Contracts.
    pub contracts: &'a Contracts,
    /// Settings of the watcher.
    pub settings: &'a WatchSettings,
    /// First window.
    pub from: Minute,
    /// End of the last window.
    pub to: Minute,
}

/// Replays one rule of a set over the tables.
///
/// # Errors
/// `Config` if the rule does not exist or cannot be used.
pub async fn replayed(lake: &Lake, request: ReplayRequest<'_>) -> Result<Replayed> {
    let ReplayRequest { rules, name, contracts, settings, from, to } = request;
    if let Some(broken) = rules.broken.iter().find(|broken| broken.name == name) {
        return Err(Error::config(format!("rule `{name}` cannot be used: {}", broken.why))
            .with_hint("check all rules with `bellwether rules check`"));
    }
    let Some(rule) = rules.rules.iter().find(|rule| rule.name == name) else {
        let near = rules
            .rules
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(&a.name, name).total_cmp(&strsim::jaro_winkler(&b.name, name)));
        let hint = near.map_or_else(
            || "list the rules with `bellwether rules list`".to_owned(),
            |near| format!("did you mean `{}`?", near.name),
        );
        return Err(Error::config(format!("there is no rule `{name}`")).with_hint(hint));
    };
    let share = share_of(rule, rules, &settings.budget);
    // The rule alone, with its share of the whole budget.
    let only = Rules { rules: vec![rule.clone()], ..Rules::default() };
    let budget = BudgetSettings { pages: share, tickets: share, infos: share };
    let mut engine = Engine::new(&only, contracts, &budget)?.in_season(settings.season);
    let at = lake.log(Table::Metrics).load().await?;
    let versions = (at.version, Layout::reads_next(&at));
    // The time before is only learned from.
    let rows = if rule.source == Source::Tables {
        let schedule = Schedule { from: from.saturating_sub(rule.every.max(SETTLES)), to, every: rule.every };
        Box::pin(replay_tables(lake, &mut engine, settings, versions, schedule)).await?
    } else {
        let begin = from.saturating_sub(settings.history_days.saturating_mul(1440));
        let (metrics_version, events_next) = versions;
        let span = ReplaySpan { metrics_version, events_next, from: Some(begin), to: Some(to), silent_to: None };
        Box::pin(replay(lake, &mut engine, settings, span)).await?
    };
    let begin = crate::record::micros(from);
    let rows: Vec<AlertRow> = rows.into_iter().filter(|row| row.at >= begin).collect();
    let failed = engine.failures().next().and_then(|(_, failures)| failures.last_error.clone());
    let status = match (failed, engine.statuses().first()) {
        (Some(why), _) => Status::Broken(why),
        (None, Some((_, status, _))) => (*status).clone(),
        (None, None) => Status::Waiting,
    };
    let fired: Vec<&AlertRow> = rows
        .iter()
        .filter(|row| row.state == "firing" && row.state_from == "pending" && row.change != ChangeKind::Retracted)
        .collect();
    let mut delays: Vec<i64> = fired.iter().filter_map(|row| Some((row.at - row.since()?) / 60_000_000)).collect();
    delays.sort_unstable();
    let minutes = (to - from).max(1) as f64;
    let spends = rule.settings.detector(None).ok().flatten().and_then(|detector| detector.spending()).is_some();
    Ok(Replayed {
        days: minutes / 1440.0,
        fired: fired.len(),
        a_month: fired.len() as f64 * MONTH / minutes,
        delay: delays.get(delays.len() / 2).copied(),
        allowed: spends.then_some(share),
        rows,
        status,
    })
}

/// Returns a rule's share of the budget of its severity.
fn share_of(rule: &Rule, rules: &Rules, budget: &BudgetSettings) -> f64 {
    let spends =
        |rule: &&Rule| rule.settings.detector(None).ok().flatten().and_then(|detector| detector.spending()).is_some();
    let mut weights: BTreeMap<&str, f64> = BTreeMap::new();
    for rule in rules.rules.iter().filter(spends) {
        *weights.entry(rule.severity.name()).or_default() += rule.weight;
    }
    let whole = match rule.severity {
        crate::rule::Severity::Page => budget.pages,
        crate::rule::Severity::Ticket => budget.tickets,
        crate::rule::Severity::Info => budget.infos,
    };
    whole * rule.weight / weights.get(rule.severity.name()).copied().unwrap_or(rule.weight).max(rule.weight)
}
