//! Messages: chosen when they are due, and made of the present state.

use std::collections::BTreeSet;

use bellwether_evidence::AlertRecord;
use bellwether_sinks::page::{Status, Suppressed};
use bellwether_sinks::{Notice, Page, Receipt};

use super::{AT_ONCE, Planner};
use crate::destination::{DestinationId, Member};
use crate::incident::Incident;
use crate::outbox::Kind;
use crate::page::{Shown, page_of};

/// Most lines about missed incidents in one message.
const MISSED_LINES: usize = 50;

/// Most ends in one message of incidents that other messages may have announced.
const MOST_ENDS: usize = 20;

/// Attempts of one message to a failing sink before another one is tried.
const PERSISTENCE: i64 = 4;

/// An incident at a destination.
type Part = (DestinationId, String);

/// A page without evidence from the tables, unless it was built before.
#[derive(Clone, Debug)]
pub struct Draft {
    pub page: Page,
    pub alert: AlertRecord,
    /// It has its evidence already.
    pub is_built: bool,
}

/// A transition that a message settles.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    pub(super) destination: DestinationId,
    pub(super) incident: String,
    pub(super) number: i64,
    pub(super) missed: bool,
    /// The message says that the incident fires.
    pub(super) fires: bool,
    pub(super) kind: Kind,
}

/// A message that is due.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) destination: DestinationId,
    /// Labels of the group in the order of the route.
    group: Vec<(String, String)>,
    pub drafts: Vec<Draft>,
    missed: Vec<String>,
    /// The receipt of the last message about the same.
    pub earlier: Option<Receipt>,
    /// When the oldest change in it came about; none if it only repeats or completes what the service knows.
    pub noticed_at: Option<i64>,
    /// Since when it is due, microseconds since the epoch.
    pub due_at: i64,
    /// Transitions that it settles.
    pub(super) covers: Vec<Cover>,
    /// Further destinations of the same route and sink, whose missed incidents it names.
    pub(super) others: Vec<DestinationId>,
}

// === impl Delivery ===

impl Delivery {
    /// Returns the name of the sink.
    pub fn sink(&self) -> &str {
        &self.destination.sink
    }

    /// Returns the message with finished pages.
    pub fn notice(&self, pages: Vec<Page>) -> Notice {
        Notice {
            route: self.destination.route.clone(),
            group: self.group.clone(),
            pages,
            missed: self.missed.clone(),
            evidence_only: self.is_evidence(),
        }
    }

    /// Returns true if it only brings the evidence of pages that were sent without it.
    pub fn is_evidence(&self) -> bool {
        self.is_news() && self.covers.iter().all(|cover| cover.kind == Kind::Evidence)
    }

    /// Returns true if it brings the evidence of an incident whose page was sent without it.
    pub(crate) fn brings_evidence(&self, incident: &str) -> bool {
        self.covers.iter().any(|cover| cover.kind == Kind::Evidence && cover.incident == incident)
    }

    /// Returns true if it brings news.
    pub fn is_news(&self) -> bool {
        !self.covers.is_empty()
    }
}

// === impl Planner ===

impl Planner {
    /// Returns the messages that are due, and takes them as under way. Call it once the rows of [`Planner::plan`] are committed.
    pub fn due(&mut self, now: i64) -> Vec<Delivery> {
        let mut due: Vec<((bool, bool, u8), i64, DestinationId)> = Vec::new();
        for (id, destination) in self.destinations.iter().filter(|(_, destination)| !destination.in_flight) {
            let (Some(route), Some(sink)) = (self.route(id), self.sinks.get(&id.sink)) else { continue };
            let at = destination
                .news_due(route, |key| self.has_evidence(key))
                .or_else(|| destination.resend_due(sink.resend_every));
            // While the sink fails, its own pause decides.
            let not_before = if sink.failing.is_some() { 0 } else { destination.not_before };
            if let Some(at) = at.filter(|at| (*at).max(not_before).max(sink.not_before) <= now) {
                // The message that failed is tried again before others: a service cannot know of incidents that were never tried, so
                // that these may become lines. One that has failed often lets others try.
                let rank = match destination.attempt {
                    _ if sink.failing.is_none() => 0,
                    0 => 1,
                    attempt if attempt < PERSISTENCE => 0,
                    _ => 2,
                };
                // Evidence comes after all pages.
                let order = (destination.only_missed(), destination.only_evidence(), rank);
                due.push((order, at, id.clone()));
            }
        }
        // Missed incidents come last: an earlier message names them, or the newest of them does.
        due.sort();
        let mut deliveries = Vec::new();
        for (_, due_at, id) in due {
            let free = self.destinations.get(&id).is_some_and(|destination| !destination.in_flight);
            let sink = self.sinks.entry(id.sink.clone()).or_default();
            let most = if sink.failing.is_some() { 1 } else { AT_ONCE };
            if !free || sink.in_flight >= most {
                continue;
            }
            if let Some(delivery) = self.message(&id, due_at) {
                deliveries.push(delivery);
            }
        }
        deliveries
    }

    /// Makes the message of a destination, and takes it as under way.
    fn message(&mut self, id: &DestinationId, due_at: i64) -> Option<Delivery> {
        let destination = self.destinations.get(id)?;
        let is_resend = !destination.members.values().any(Member::has_news);
        // The end of an earlier incident must not follow the page of a later one about the same alert.
        let is_past = |key: &String, member: &Member| {
            member.is_done()
                && self.incidents.get(key).is_none_or(|incident| self.incidents.is_open(&incident.alert.alert_id))
        };
        let reported = destination
            .members
            .iter()
            .filter(|(key, member)| !member.is_missed() && member.planned > 0 && !is_past(key, member));
        let mut shown: Vec<Part> = reported.map(|(key, _)| (id.clone(), key.clone())).collect();
        let mut lines: Vec<Part> = Vec::new();
        if !is_resend {
            let (ends, missed) = self.missed(id);
            shown.extend(ends.into_iter().take(MOST_ENDS));
            lines = missed;
        }
        // A message has at least one page: here the incident that ended last.
        if shown.is_empty() {
            let ended = |key: &str| self.incidents.get(key).and_then(|incident| incident.ended).map(|ended| ended.at);
            let newest = lines.iter().enumerate().max_by_key(|(_, (_, key))| ended(key)).map(|(place, _)| place)?;
            shown.push(lines.remove(newest));
        }
        let mut drafts: Vec<Draft> = shown.iter().filter_map(|(of, key)| self.draft(of, key)).collect();
        if drafts.is_empty() {
            return None;
        }
        drafts.sort_by_key(|draft| (draft.page.status == Status::Resolved, draft.page.started_at));
        let mut covers: Vec<(i64, Cover)> =
            self.covers(&shown, false).into_iter().chain(self.covers(&lines, true)).collect();
        // While evidence is missing, a message that is only repeated, for a service that forgets, does not count as bringing it.
        let only_evidence = covers.iter().all(|(_, cover)| cover.kind == Kind::Evidence);
        if only_evidence && !covers.iter().all(|(_, cover)| self.has_evidence(&cover.incident)) {
            covers.clear();
        }
        let order = self.route(id).map(|route| route.group_by.clone()).unwrap_or_default();
        let group = order.into_iter().filter_map(|label| Some((label.clone(), id.group.get(&label)?.clone())));
        let changes = covers.iter().filter(|(_, cover)| cover.kind != Kind::Evidence);
        let all: BTreeSet<&DestinationId> = shown.iter().chain(&lines).map(|(of, _)| of).collect();
        let delivery = Delivery {
            destination: id.clone(),
            group: group.collect(),
            drafts,
            missed: self.lines(&lines),
            earlier: self.destinations.get(id).and_then(|destination| destination.receipt.clone()),
            noticed_at: changes.map(|(noticed_at, _)| *noticed_at).min(),
            due_at,
            covers: covers.into_iter().map(|(_, cover)| cover).collect(),
            others: all.into_iter().filter(|other| *other != id).cloned().collect(),
        };
        for id in std::iter::once(&delivery.destination).chain(&delivery.others) {
            if let Some(destination) = self.destinations.get_mut(id) {
                destination.in_flight = true;
            }
        }
        self.sinks.entry(id.sink.clone()).or_default().in_flight += 1;
        Some(delivery)
    }

    /// Returns the transitions of some parts of a message, each with the time at which it came about.
    fn covers(&self, parts: &[Part], missed: bool) -> Vec<(i64, Cover)> {
        let mut covers = Vec::new();
        for (of, key) in parts {
            let member = self.destinations.get(of).and_then(|destination| destination.members.get(key));
            let fires = self.incidents.get(key).is_some_and(|incident| incident.ended.is_none());
            for wanted in member.map(|member| member.pending.as_slice()).unwrap_or_default() {
                let (destination, incident) = (of.clone(), key.clone());
                let (number, kind) = (wanted.number, wanted.kind);
                covers.push((wanted.noticed_at, Cover { destination, incident, number, missed, fires, kind }));
            }
        }
        covers
    }

    /// Returns the missed incidents of a destination, and of others of the same route and sink that have nothing else to tell: first
    /// those that the service may know of, which it must hear the end of, then those that it cannot know of.
    fn missed(&self, id: &DestinationId) -> (Vec<Part>, Vec<Part>) {
        let (mut ends, mut missed) = (Vec::new(), Vec::new());
        for (other, destination) in &self.destinations {
            let of_route = other.route == id.route && other.sink == id.sink;
            if other != id && !(of_route && destination.only_missed() && !destination.in_flight) {
                continue;
            }
            for (key, member) in destination.members.iter().filter(|(_, member)| member.is_missed()) {
                let part = (other.clone(), key.clone());
                if member.maybe_reported { ends.push(part) } else { missed.push(part) }
            }
        }
        // Its own come first: the rest of a long list is for the next message.
        ends.sort_by_key(|(other, _)| other != id);
        (ends, missed)
    }

    /// Returns one line for each missed incident.
    fn lines(&self, missed: &[Part]) -> Vec<String> {
        let mut ordered: Vec<&Incident> = missed.iter().filter_map(|(_, key)| self.incidents.get(key)).collect();
        ordered.sort_by_key(|incident| incident.started_at);
        let mut lines: Vec<String> = ordered.iter().take(MISSED_LINES).map(|incident| line(incident)).collect();
        if ordered.len() > MISSED_LINES {
            lines.push(format!("and {} more", ordered.len() - MISSED_LINES));
        }
        lines
    }

    /// Returns true if the evidence of the present state of an incident is ready.
    pub(super) fn has_evidence(&self, key: &str) -> bool {
        self.incidents.get(key).is_some_and(|incident| incident.completed().is_some())
    }

    /// Returns the page of an incident in its present state. If the destination knows that state, its evidence need not be built again.
    pub(crate) fn draft(&self, id: &DestinationId, key: &str) -> Option<Draft> {
        let incident = self.incidents.get(key)?;
        let member = self.destinations.get(id)?.members.get(key)?;
        let suppressed: Vec<Suppressed> = self.explained.get(key).cloned().unwrap_or_default();
        let shown = Shown {
            incident: incident.key.clone(),
            status: incident.status(),
            started_at: incident.started_at,
            ended_at: incident.ended.map(|ended| ended.at),
            corrected: incident.ended.is_some_and(|ended| ended.corrected),
            acknowledgement: incident.acknowledged.clone(),
            suppressed,
        };
        let fresh = page_of(&incident.alert, &self.links, shown);
        let built = incident.completed().filter(|_| !member.has_change()).cloned();
        let is_built = built.is_some();
        let page = match built {
            Some(built) => Page {
                suppressed: fresh.suppressed,
                started_at: fresh.started_at,
                acknowledgement: fresh.acknowledgement,
                ..built
            },
            None => fresh,
        };
        Some(Draft { page, alert: incident.alert.clone(), is_built })
    }
}

fn line(incident: &Incident) -> String {
    let minutes = incident.ended.map_or(0, |ended| (ended.at - incident.started_at).max(0) / 60_000_000);
    let corrected = if incident.ended.is_some_and(|ended| ended.corrected) { ", corrected" } else { "" };
    let begun = chrono::DateTime::from_timestamp_micros(incident.started_at);
    let begun = begun.map(|moment| moment.format("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default();
    format!("{} (from {begun}, {minutes} min{corrected})", incident.alert.title)
}
