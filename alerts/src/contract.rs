//! Contracts: objectives and bounds of a task, from the configuration. Rules about objectives and bounds apply only to tasks
//! whose contract states them.

use std::collections::BTreeMap;

use bellwether_detect::Season;
use serde::Deserialize;

/// The contract of one task. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Share of judged runs that must succeed: the objective of the error budget.
    pub success: Option<f64>,
    /// Most cost of a completed task, units of the currency.
    pub cost_ceiling: Option<f64>,
    /// Largest share of runs handed to a person.
    pub escalation_most: Option<f64>,
    /// Smallest share of runs handed to a person: an assistant that never asks for help is wrong too.
    pub escalation_least: Option<f64>,
    /// Cost of one escalation in people's time, units of the currency.
    pub human_cost_per_escalation: Option<f64>,
    /// The release that all others are compared with.
    pub baseline: Option<String>,
    /// Intended share of traffic of a canary.
    pub canary_share: Option<f64>,
    /// Odds ratio up to which a release counts as no worse, for all outcomes of this task.
    pub margin: Option<f64>,
    /// Time zone of the weekly season, if it differs from that of `[alerts]`.
    pub time_zone: Option<String>,
}

/// Contracts by task.
pub type Contracts = BTreeMap<String, Contract>;

/// The contracts in a configuration.
#[derive(Deserialize)]
struct ContractsSection {
    #[serde(default)]
    contracts: Contracts,
}

/// Reads `[contracts.TASK]` of a configuration.
///
/// # Errors
/// Every problem found, each in one sentence.
pub fn parse(text: &str) -> Result<Contracts, Vec<String>> {
    let section: ContractsSection = toml::from_str(text).map_err(|error| vec![error.message().to_owned()])?;
    let mut problems = Vec::new();
    for (task, contract) in &section.contracts {
        let mut refuse = |key: &str, value: f64, right: &str| {
            problems.push(format!("`contracts.{task}.{key}` is `{value}`; it must be {right}"));
        };
        for (key, value) in [("success", contract.success), ("canary_share", contract.canary_share)] {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && *value < 1.0)) {
                refuse(key, value, "a share between 0 and 1, exclusive");
            }
        }
        for (key, value) in
            [("escalation_most", contract.escalation_most), ("escalation_least", contract.escalation_least)]
        {
            if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                refuse(key, value, "a share from 0 to 1");
            }
        }
        for (key, value) in
            [("cost_ceiling", contract.cost_ceiling), ("human_cost_per_escalation", contract.human_cost_per_escalation)]
        {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
                refuse(key, value, "an amount above 0");
            }
        }
        if let Some(Err(why)) = contract.time_zone.as_deref().map(Season::from_name) {
            problems.push(format!("`contracts.{task}.time_zone`: {why}"));
        }
        let mut refuse = |key: &str, value: f64, right: &str| {
            problems.push(format!("`contracts.{task}.{key}` is `{value}`; it must be {right}"));
        };
        if let Some(value) = contract.margin.filter(|value| !(1.0..=10.0).contains(value)) {
            refuse("margin", value, "an odds ratio from 1 to 10, such as 1.15");
        }
        if let (Some(least), Some(most)) = (contract.escalation_least, contract.escalation_most)
            && least >= most
        {
            refuse("escalation_least", least, "below `escalation_most`");
        }
    }
    if problems.is_empty() { Ok(section.contracts) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_is_read_and_every_problem_in_it_is_reported() {
        let contracts =
            parse("[contracts.refunds]\nsuccess = 0.95\ncost_ceiling = 0.2\nbaseline = \"r-1\"\n").expect("right");
        assert_eq!(contracts["refunds"].success, Some(0.95));
        assert_eq!(parse("version = 1\n").expect("none"), Contracts::new());
        let problems =
            parse("[contracts.a]\nsuccess = 95\nmargin = 0.5\nescalation_least = 0.3\nescalation_most = 0.2\n")
                .expect_err("wrong");
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("`contracts.a.success` is `95`"), "{problems:?}");
        let zones = |zone: &str| parse(&format!("[contracts.a]\ntime_zone = \"{zone}\"\n"));
        assert_eq!(zones("Asia/Tokyo").expect("right")["a"].time_zone.as_deref(), Some("Asia/Tokyo"));
        assert!(zones("Tokyo").expect_err("wrong")[0].contains("`contracts.a.time_zone`: unknown time zone `Tokyo`"));
        assert!(parse("[contracts.a]\nsucess = 0.9\n").expect_err("wrong")[0].contains("sucess"));
    }
}
