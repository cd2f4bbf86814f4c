//! Routes: which sinks an alert goes to, and when; and maintenance windows, during which it waits.

use std::time::Duration;

use bellwether_evidence::AlertRecord;

use crate::hours::Hours;
use crate::matcher::Matcher;

/// A way from alerts to sinks.
#[derive(Clone, Debug)]
pub struct Route {
    pub name: String,
    pub matcher: Matcher,
    /// Times of the week at which it takes alerts; none for all.
    pub hours: Option<Hours>,
    pub sinks: Vec<String>,
    /// Later routes may take the alert too.
    pub goes_on: bool,
    /// Labels of which equal values make a group with common messages; empty if each incident has its own.
    pub group_by: Vec<String>,
    /// Time for which the first message of a group waits for further alerts.
    pub group_wait: Duration,
    /// Least time between two messages about a group.
    pub group_interval: Duration,
    /// Time after which an incident that still fires is sent again; none if it is not.
    pub repeat_interval: Option<Duration>,
}

/// A time during which matching alerts are not sent.
#[derive(Clone, Debug)]
pub struct Maintenance {
    pub name: String,
    pub matcher: Matcher,
    pub period: Period,
}

/// The time of a maintenance window.
#[derive(Clone, Debug)]
pub enum Period {
    /// From a moment to another, microseconds since the epoch.
    Once { from: i64, until: i64 },
    /// Every week.
    Weekly(Hours),
}

// === impl Route ===

impl Route {
    /// Makes a route that brings pages and tickets to some sinks, each incident by itself.
    pub fn to_all(name: &str, sinks: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            matcher: Matcher::severities(&["page", "ticket"]),
            hours: None,
            sinks,
            goes_on: false,
            group_by: Vec::new(),
            group_wait: Duration::ZERO,
            group_interval: Duration::ZERO,
            repeat_interval: None,
        }
    }

    /// Returns true if the route takes an alert at a moment, microseconds since the epoch.
    pub fn takes(&self, alert: &AlertRecord, at: i64) -> bool {
        self.hours.as_ref().is_none_or(|hours| hours.contains(at)) && self.matcher.matches(alert)
    }
}

/// Returns the routes that an alert takes at a moment: the first that takes it, and later ones as far as each says that they may.
pub fn taken<'a>(routes: &'a [Route], alert: &AlertRecord, at: i64) -> Vec<&'a Route> {
    let mut taken = Vec::new();
    for route in routes.iter().filter(|route| route.takes(alert, at)) {
        taken.push(route);
        if !route.goes_on {
            break;
        }
    }
    taken
}

// === impl Maintenance ===

impl Maintenance {
    /// Returns true if an alert is held back at a moment.
    pub fn holds(&self, alert: &AlertRecord, at: i64) -> bool {
        let is_now = match &self.period {
            Period::Once { from, until } => (*from..*until).contains(&at),
            Period::Weekly(hours) => hours.contains(at),
        };
        is_now && self.matcher.matches(alert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::DeliverSettings;

    fn alert(severity: &str, task: &str) -> AlertRecord {
        AlertRecord { severity: severity.to_owned(), task: Some(task.to_owned()), ..AlertRecord::default() }
    }

    /// 2026-07-06, a Monday, at an hour UTC.
    fn monday(hour: i64) -> i64 {
        (1_783_296_000 + hour * 3600) * 1_000_000
    }

    #[test]
    fn the_first_route_takes_an_alert_unless_it_lets_it_go_on() {
        let text = "[deliver.sinks.a]\n[deliver.sinks.b]\n[[deliver.routes]]\nname = \"all pages\"\nmatch = { severity = \"page\" }\n\
                    sinks = [\"a\"]\ncontinue = true\n[[deliver.routes]]\nname = \"office\"\nhours = \"08:00-18:00\"\n\
                    weekdays = [\"mon-fri\"]\nsinks = [\"a\", \"b\"]\n[[deliver.routes]]\nname = \"rest\"\nsinks = [\"b\"]\n";
        let settings = DeliverSettings::parse(text).expect("valid");
        let names = |severity: &str, at: i64| {
            let routes = taken(&settings.routes, &alert(severity, "t"), at);
            routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("page", monday(10)), ["all pages", "office"]);
        assert_eq!(names("page", monday(3)), ["all pages", "rest"]);
        assert_eq!(names("ticket", monday(10)), ["office"]);
        assert_eq!(names("info", monday(19)), ["rest"]);
    }

    #[test]
    fn a_maintenance_window_holds_what_it_matches_while_it_lasts() {
        let text = "[[deliver.maintenance]]\nname = \"index\"\nmatch = { task = \"search\" }\nweekdays = [\"mon\"]\nhours = \"02:00-04:00\"\n";
        let settings = DeliverSettings::parse(text).expect("valid");
        let window = &settings.maintenance[0];
        assert!(window.holds(&alert("page", "search"), monday(3)));
        assert!(!window.holds(&alert("page", "search"), monday(4)));
        assert!(!window.holds(&alert("page", "refunds"), monday(3)));
    }
}
