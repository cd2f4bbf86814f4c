//! Alerts that explain others: the explained ones are not sent while the explaining one fires.
//!
//! * Missing data explains changes of quality, cost and latency of the same task: rates over a part of the runs mean little.
//! * An alert about a whole release explains those about its tasks.
//! * A drop of success explains a higher cost per completed task of the same task and release: fewer are completed.
//!
//! Rules: an alert never hides a more urgent one. Both are of one tenant. An alert of which the rows do not show this hides nothing.

use bellwether_evidence::AlertRecord;
use bellwether_sinks::page::Severity;

/// Detectors that fire because data is missing.
const MISSING_DATA: [&str; 1] = ["silence"];

/// Areas of alerts that are computed from the runs of a task.
const OF_RUNS: [&str; 3] = ["quality", "cost", "performance"];

/// Rules about the share of runs that succeed.
const SUCCESS: [&str; 5] =
    ["success_regression", "success_drift", "success_slow_drift", "slo_burn_fast", "slo_burn_slow"];

/// Rules about the cost of a completed task.
const COST_PER_SUCCESS: [&str; 2] = ["cost_regression", "cost_ceiling"];

/// Rules about a release over all its tasks.
const OF_RELEASE: [&str; 1] = ["release_success"];

/// Returns the reason for which an alert explains another one, as one sentence; none if it does not.
pub fn explains(source: &AlertRecord, target: &AlertRecord) -> Option<String> {
    if source.alert_id == target.alert_id || source.tenant != target.tenant || less_urgent(source, target) {
        return None;
    }
    let same_task = source.task.is_some() && source.task == target.task;
    let task = target.task.as_deref().unwrap_or_default();
    if same_task && is_missing_data(source) && OF_RUNS.contains(&target.label("area")) && !is_missing_data(target) {
        return Some(format!("data of `{task}` is missing ({})", source.rule));
    }
    if let Some(release) = source.release_id.as_deref()
        && is_of_release(source)
        && !is_of_release(target)
        && target.task.is_some()
        && target.release_id.as_deref() == Some(release)
        && target.label("area") == "quality"
    {
        return Some(format!("release `{release}` is worse over all its tasks ({})", source.rule));
    }
    if same_task
        && SUCCESS.contains(&source.rule.as_str())
        && COST_PER_SUCCESS.contains(&target.rule.as_str())
        && source.release_id == target.release_id
    {
        return Some(format!(
            "fewer runs of `{task}` succeed, which raises the cost of each success ({})",
            source.rule
        ));
    }
    None
}

/// Returns true if a page about the source would be less urgent than one about the target.
fn less_urgent(source: &AlertRecord, target: &AlertRecord) -> bool {
    let (source, target): (Severity, Severity) = (source.urgency(), target.urgency());
    source < target
}

fn is_missing_data(alert: &AlertRecord) -> bool {
    alert.label("area") == "data" && MISSING_DATA.contains(&alert.detector.as_str())
}

fn is_of_release(alert: &AlertRecord) -> bool {
    OF_RELEASE.contains(&alert.rule.as_str()) || alert.release_id.is_some() && alert.task.is_none()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn alert(rule: &str, severity: &str, area: &str, task: Option<&str>, release: Option<&str>) -> AlertRecord {
        AlertRecord {
            alert_id: format!("{rule} {task:?} {release:?}"),
            rule: rule.to_owned(),
            severity: severity.to_owned(),
            labels: BTreeMap::from([("area".to_owned(), area.to_owned())]),
            tenant: Some("acme".to_owned()),
            task: task.map(str::to_owned),
            release_id: release.map(str::to_owned),
            detector: if rule == "silent_producer" { "silence" } else { "regression" }.to_owned(),
            ..AlertRecord::default()
        }
    }

    #[test]
    fn missing_data_explains_what_is_computed_from_it() {
        let silent = alert("silent_producer", "page", "data", Some("refunds"), None);
        let drop = alert("success_drift", "page", "quality", Some("refunds"), None);
        assert!(explains(&silent, &drop).expect("explained").contains("data of `refunds` is missing"));
        assert_eq!(explains(&drop, &silent), None);
        let other_task = alert("success_drift", "page", "quality", Some("search"), None);
        assert_eq!(explains(&silent, &other_task), None);
        let other_tenant = AlertRecord { tenant: None, ..drop.clone() };
        assert_eq!(explains(&silent, &other_tenant), None);
        let policy = alert("policy_critical", "page", "policy", Some("refunds"), None);
        assert_eq!(explains(&silent, &policy), None, "an exception that happened did happen");
        let surprise = AlertRecord { detector: "threshold".to_owned(), ..silent };
        assert_eq!(explains(&surprise, &drop), None, "not every alert about data is about missing data");
    }

    #[test]
    fn a_release_explains_its_tasks_but_no_more_urgent_alert() {
        let release = alert("release_success", "ticket", "quality", Some("refunds"), Some("v2"));
        let task = alert("escalation_regression", "ticket", "quality", Some("search"), Some("v2"));
        assert!(explains(&release, &task).is_some());
        let page = alert("success_regression", "page", "quality", Some("search"), Some("v2"));
        assert_eq!(explains(&release, &page), None, "a ticket hides no page");
        let other = alert("escalation_regression", "ticket", "quality", Some("search"), Some("v3"));
        assert_eq!(explains(&release, &other), None);
        assert_eq!(explains(&task, &release), None);
        let wide = alert("own_rule", "page", "quality", None, Some("v2"));
        assert!(explains(&wide, &page).is_some(), "a rule without tasks is about the whole release");
    }

    #[test]
    fn fewer_successes_explain_their_higher_cost() {
        let drop = alert("success_regression", "page", "quality", Some("refunds"), Some("v2"));
        let cost = alert("cost_regression", "ticket", "cost", Some("refunds"), Some("v2"));
        assert!(explains(&drop, &cost).expect("explained").contains("raises the cost"));
        let other_release = alert("cost_regression", "ticket", "cost", Some("refunds"), Some("v1"));
        assert_eq!(explains(&drop, &other_release), None);
        let coverage = alert("cost_coverage_regression", "ticket", "cost", Some("refunds"), Some("v2"));
        assert_eq!(explains(&drop, &coverage), None, "runs that state no cost are another matter");
        assert_eq!(explains(&drop, &drop), None);
    }
}
