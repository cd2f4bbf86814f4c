//! Pages: a minimal one from the row of `alerts` alone, and the interface of a builder that adds evidence from the tables.

use async_trait::async_trait;
use bellwether_base::Result;
use bellwether_sinks::page::{Acknowledgement, Arm, Coverage, Effect, Evidence, Link, Reproduce, Status, Suppressed};
use bellwether_sinks::{Notice, Page};

use crate::alert::AlertRow;

/// Completes pages with evidence from the tables.
#[async_trait]
pub trait PageBuilder: Send + Sync {
    /// Returns the page with its evidence. `page` is what the row says by itself; incident, status, times and suppressed alerts stay
    /// as they are. A builder that takes too long is not waited for.
    ///
    /// # Errors
    /// Any: the page is then sent as it is, with a note.
    async fn build(&self, page: Page, alert: &AlertRow) -> Result<Page>;
}

/// Leaves pages as they are: the evidence is what the row of `alerts` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowOnly;

#[async_trait]
impl PageBuilder for RowOnly {
    async fn build(&self, page: Page, _: &AlertRow) -> Result<Page> {
        Ok(page)
    }
}

/// Returns a message of a test of a route: a page that says so, firing or, to leave nothing behind, resolved.
pub fn test_notice(route: &str, incident: String, status: Status, now: i64) -> Notice {
    let alert = AlertRow {
        alert_id: incident.clone(),
        rule: "test".to_owned(),
        severity: "info".to_owned(),
        title: format!("test of route {route}: this is no alert"),
        ..AlertRow::default()
    };
    let shown = Shown {
        incident,
        status,
        started_at: now,
        ended_at: (status == Status::Resolved).then_some(now),
        corrected: false,
        acknowledgement: None,
        suppressed: Vec::new(),
    };
    let page = Page { test: true, ..minimal(&alert, shown) };
    Notice { route: route.to_owned(), group: Vec::new(), pages: vec![page], missed: Vec::new() }
}

/// The state of an incident, as its page shows it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) incident: String,
    pub(crate) status: Status,
    pub(crate) started_at: i64,
    pub(crate) ended_at: Option<i64>,
    /// It ended because a correction of the data took it back.
    pub(crate) corrected: bool,
    pub(crate) acknowledgement: Option<Acknowledgement>,
    pub(crate) suppressed: Vec<Suppressed>,
}

/// Makes the page of an alert from its row alone.
pub(crate) fn minimal(alert: &AlertRow, shown: Shown) -> Page {
    let mut evidence = evidence(alert);
    let mut title = alert.title.clone();
    if shown.corrected {
        title = format!("corrected: {title}");
        evidence.notes.insert(0, "Late data corrected the figures: by them, the alert did not fire.".to_owned());
    }
    evidence.notes.extend(shown.acknowledgement.as_ref().map(|ack| match &ack.note {
        Some(note) => format!("Acknowledged by {}: {note}", ack.person),
        None => format!("Acknowledged by {}.", ack.person),
    }));
    let runbook = alert.runbook.iter().map(|url| Link { name: "runbook".to_owned(), url: url.clone() });
    Page {
        incident: shown.incident,
        alert_id: alert.alert_id.clone(),
        status: shown.status,
        severity: alert.urgency(),
        rule: alert.rule.clone(),
        owner: alert.owner.clone(),
        labels: alert.labels.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect(),
        tenant: alert.tenant.clone(),
        task: alert.task.clone(),
        release: alert.release_id.clone(),
        baseline_release: alert.baseline_release.clone(),
        title,
        started_at: shown.started_at,
        ended_at: shown.ended_at,
        acknowledgement: shown.acknowledgement,
        test: false,
        evidence,
        links: runbook.collect(),
        suppressed: shown.suppressed,
    }
}

fn evidence(alert: &AlertRow) -> Evidence {
    let arm = |name: &str, events: Option<u64>, runs: Option<u64>, value: Option<f64>| {
        let known = events.is_some() || runs.is_some() || value.is_some();
        known.then(|| Arm { name: name.to_owned(), events, runs, value })
    };
    let baseline = alert.baseline_release.as_deref().unwrap_or(&alert.baseline);
    let effect = alert.effect.map(|value| {
        let ends = match (alert.effect_low, alert.effect_high) {
            (Some(low), Some(high)) => format!(" (at any time with 95 %: {low:.3} to {high:.3})"),
            (Some(low), None) => format!(" (at any time with 95 %: at least {low:.3})"),
            (None, Some(high)) => format!(" (at any time with 95 %: at most {high:.3})"),
            (None, None) => String::new(),
        };
        Effect {
            words: format!("{} {value:.3}{ends}", alert.effect_kind.replace('_', " ")),
            kind: alert.effect_kind.clone(),
            value,
            low: alert.effect_low,
            high: alert.effect_high,
        }
    });
    Evidence {
        since: alert.since,
        baseline: arm(baseline, alert.baseline_events, alert.baseline_runs, alert.baseline_value),
        canary: arm(
            alert.release_id.as_deref().unwrap_or("now"),
            alert.canary_events,
            alert.canary_runs,
            alert.canary_value,
        ),
        effect,
        false_alarm: false_alarm(alert),
        coverage: (alert.complete_to > 0).then_some(Coverage { complete_to: alert.complete_to, stated: None }),
        reproduce: (!alert.sql.is_empty()).then(|| Reproduce {
            sql: alert.sql.clone(),
            metrics_version: alert.metrics_version,
            checked: false,
        }),
        notes: alert.notes.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        ..Evidence::default()
    }
}

/// Returns the bound on false alarms in one sentence.
fn false_alarm(alert: &AlertRow) -> Option<String> {
    let bound = alert.false_alarm?;
    match alert.false_alarm_unit.as_deref() {
        Some("per_release") => Some(format!("At most {} % of healthy releases ever raise it.", short(bound * 100.0))),
        Some("a_month") => Some(format!("At most {} false alarms of this rule a month.", short(bound))),
        _ => None,
    }
}

/// Returns a number with two significant digits.
fn short(value: f64) -> String {
    format!("{value:.1e}").parse::<f64>().unwrap_or(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert() -> AlertRow {
        AlertRow {
            alert_id: "a1".to_owned(),
            severity: "page".to_owned(),
            title: "checkout: failure rate 8 % → 14 %".to_owned(),
            release_id: Some("v2".to_owned()),
            canary_events: Some(14),
            canary_runs: Some(100),
            effect: Some(1.876),
            effect_low: Some(1.2),
            effect_kind: "odds_ratio".to_owned(),
            false_alarm: Some(0.000_123),
            false_alarm_unit: Some("per_release".to_owned()),
            notes: "One.\n\nTwo.".to_owned(),
            ..AlertRow::default()
        }
    }

    fn shown(corrected: bool) -> Shown {
        Shown {
            incident: "i1".to_owned(),
            status: if corrected { Status::Resolved } else { Status::Firing },
            started_at: 7,
            ended_at: corrected.then_some(9),
            corrected,
            acknowledgement: None,
            suppressed: Vec::new(),
        }
    }

    #[test]
    fn the_row_alone_makes_a_page_with_numbers() {
        let page = minimal(&alert(), shown(false));
        assert_eq!((page.incident.as_str(), page.status, page.started_at), ("i1", Status::Firing, 7));
        assert_eq!(page.evidence.canary.expect("an arm").runs, Some(100));
        assert_eq!(
            page.evidence.effect.expect("an effect").words,
            "odds ratio 1.876 (at any time with 95 %: at least 1.200)"
        );
        assert_eq!(page.evidence.false_alarm.as_deref(), Some("At most 0.012 % of healthy releases ever raise it."));
        assert_eq!(page.evidence.notes, ["One.", "Two."]);
        assert_eq!(page.evidence.baseline, None);
    }

    #[test]
    fn a_correction_is_named_first() {
        let page = minimal(&alert(), shown(true));
        assert!(page.title.starts_with("corrected: ") && page.evidence.notes[0].contains("corrected"));
        assert_eq!(page.status, Status::Resolved);
    }
}
