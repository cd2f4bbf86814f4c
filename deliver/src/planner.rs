//! The planner: decides what is sent, where and when. Pure: rows and the time come in, rows and messages come out.
//!
//! * [`Planner::take`] takes in rows of `alerts`, [`Planner::plan`] the time and what people have said. It returns the rows of
//!   `deliveries` that state what is to be sent.
//! * [`Planner::due`] returns messages, once those rows are committed; [`Planner::settle`] takes in their results.
//! * A page that was sent without its evidence is sent again with it: `Planner::incomplete` returns such incidents, and
//!   [`Planner::complete`] takes in pages that are ready.
//! * `planner/restore.rs` builds the same state from the tables, at a start.
//!
//! Rules: a message shows the present state, and settles all transitions up to it. A destination has one message under way, so that
//! an older state never overtakes a newer one. While a sink fails, it gets one message at a time. An incident goes where it went
//! first, until it ends.

mod message;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_base::Result;
use bellwether_evidence::{AlertRecord, Links};
use bellwether_sinks::page::{Status, Suppressed};
use bellwether_sinks::{Failure, Page, Receipt};

use crate::destination::{Circumstances, Destination, DestinationId, Wanted, micros};
use crate::hands::Silences;
use crate::incident::{Incident, Incidents};
use crate::inhibit;
use crate::outbox::{DeliveryRow, DeliveryStep, Kind, hash};
use crate::route::{Route, taken};
use crate::settings::DeliverSettings;

pub use message::{Delivery, Draft};

/// Messages to one sink at the same time.
const AT_ONCE: usize = 4;

/// The state of a sink.
#[derive(Clone, Debug, Default)]
struct SinkState {
    /// How often an incident is sent again, microseconds; none if once is enough.
    resend_every: Option<i64>,
    /// For how long one that has ended is sent again, microseconds.
    ended_for: Option<i64>,
    /// It takes evidence that follows its page.
    late_evidence: bool,
    in_flight: usize,
    /// The reason for which its last message failed.
    failing: Option<String>,
    /// The reason for which it refused the last message that it answered.
    refusing: Option<String>,
    not_before: i64,
}

/// Rules for sending the same incident to a sink again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resend {
    /// How often; none if once is enough.
    pub every: Option<Duration>,
    /// For how long an incident that has ended is sent again; none if its end is sent once.
    pub ended_for: Option<Duration>,
    /// A page that was sent without its evidence is sent again once its evidence is ready.
    pub late_evidence: bool,
}

/// The destinations of an incident.
#[derive(Clone, Debug, Default)]
struct Place {
    destinations: BTreeSet<DestinationId>,
    /// Something is planned at one of them.
    is_planned: bool,
}

/// The result of a message.
pub struct Outcome {
    pub result: Result<Receipt, Failure>,
    /// The incidents whose pages were sent without their evidence.
    pub incomplete: BTreeSet<String>,
    /// If it failed: no attempt at this destination, and none at this sink, before these times.
    pub destination_after: i64,
    pub sink_after: i64,
}

/// Everything that is to be sent, and everything that was.
pub struct Planner {
    settings: DeliverSettings,
    links: Links,
    incidents: Incidents,
    destinations: BTreeMap<DestinationId, Destination>,
    sinks: BTreeMap<String, SinkState>,
    /// The alerts that each incident explains, by its key.
    explained: BTreeMap<String, Vec<Suppressed>>,
}

// === impl Planner ===

impl Planner {
    /// Makes a planner without state, for sinks by their names.
    pub fn new(settings: DeliverSettings, sinks: impl IntoIterator<Item = (String, Resend)>) -> Self {
        let state = |again: Resend| SinkState {
            resend_every: again.every.map(micros),
            ended_for: again.every.and(again.ended_for).map(micros),
            late_evidence: again.late_evidence,
            ..SinkState::default()
        };
        Self {
            settings,
            links: Links::default(),
            incidents: Incidents::default(),
            destinations: BTreeMap::new(),
            sinks: sinks.into_iter().map(|(name, again)| (name, state(again))).collect(),
            explained: BTreeMap::new(),
        }
    }

    /// Puts these links on pages.
    #[must_use]
    pub fn with_links(self, links: Links) -> Self {
        Self { links, ..self }
    }

    /// Returns the last evaluation that was taken in.
    pub fn evaluation(&self) -> Option<i64> {
        self.incidents.evaluation
    }

    /// Takes in new rows of `alerts`, in the order of the table.
    ///
    /// # Errors
    /// `Data` if a newer version has written them.
    pub fn take(&mut self, rows: &[AlertRecord]) -> Result<()> {
        for evaluation in rows.chunk_by(|a, b| a.evaluation == b.evaluation) {
            self.incidents.take(evaluation)?;
        }
        Ok(())
    }

    /// Returns the rows that state what is to be sent from now on, and what is held back.
    pub fn plan(&mut self, now: i64, silences: &dyn Silences) -> Vec<DeliveryRow> {
        let places = self.places();
        let held = self.look(now, silences, &places);
        let keys: Vec<String> = self.incidents.all().map(|incident| incident.key.clone()).collect();
        let mut rows = Vec::new();
        for key in &keys {
            let known = places.get(key).map(|place| &place.destinations);
            self.plan_incident(key, known, held.get(key).map(String::as_str), now, &mut rows);
        }
        self.forget(now);
        rows
    }

    /// Returns the destinations of each incident that has any.
    fn places(&self) -> BTreeMap<String, Place> {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for (id, destination) in &self.destinations {
            for (key, member) in &destination.members {
                let place = places.entry(key.clone()).or_default();
                place.destinations.insert(id.clone());
                place.is_planned |= member.planned > 0;
            }
        }
        places
    }

    /// Asks who has said what, and which alerts explain others. Returns the reason for each incident that is held back.
    fn look(
        &mut self,
        now: i64,
        silences: &dyn Silences,
        places: &BTreeMap<String, Place>,
    ) -> BTreeMap<String, String> {
        let mut held: BTreeMap<String, String> = BTreeMap::new();
        for incident in self.incidents.all_mut() {
            let alert = &incident.alert;
            let window = self.settings.maintenance.iter().find(|window| window.holds(alert, now));
            let window = window.map(|window| format!("maintenance window `{}`", window.name));
            if let Some(reason) = silences.silenced(alert, now).or(window) {
                held.insert(incident.key.clone(), reason);
            }
            let said = silences.acknowledged(alert, incident.started_at, now);
            incident.acknowledged = said.filter(|_| incident.ended.is_none());
        }
        // An alert that reaches no one explains nothing.
        let is_planned = |incident: &Incident| places.get(&incident.key).is_some_and(|place| place.is_planned);
        let reaches = |incident: &&Incident| {
            let incident: &Incident = incident;
            incident.ended.is_none()
                && !held.contains_key(&incident.key)
                && (is_planned(incident) || !taken(&self.settings.routes, &incident.alert, now).is_empty())
        };
        let sources: Vec<&Incident> = self.incidents.all().filter(reaches).collect();
        let mut explained: BTreeMap<String, Vec<Suppressed>> = BTreeMap::new();
        let mut reasons = Vec::new();
        for target in self.incidents.all().filter(|incident| !held.contains_key(&incident.key)) {
            let explains =
                |source: &&Incident| Some((source.key.clone(), inhibit::explains(&source.alert, &target.alert)?));
            let Some((source, reason)) = sources.iter().find_map(explains) else { continue };
            if target.ended.is_none() && !is_planned(target) {
                let (alert_id, title) = (target.alert.alert_id.clone(), target.alert.title.clone());
                explained.entry(source).or_default().push(Suppressed { alert_id, title, reason: reason.clone() });
            }
            reasons.push((target.key.clone(), reason));
        }
        self.explained = explained;
        held.extend(reasons);
        held
    }

    fn plan_incident(
        &mut self,
        key: &str,
        known: Option<&BTreeSet<DestinationId>>,
        held: Option<&str>,
        now: i64,
        rows: &mut Vec<DeliveryRow>,
    ) {
        let Some(incident) = self.incidents.get(key) else { return };
        let ids: BTreeSet<DestinationId> = match known {
            Some(known) => known.clone(),
            None => taken(&self.settings.routes, &incident.alert, now)
                .into_iter()
                .flat_map(|route| route.sinks.iter().map(move |sink| DestinationId::of(route, sink, incident)))
                .collect(),
        };
        for id in ids {
            let Some(route) = self.settings.route(&id.route) else { continue };
            let destination = self.destinations.entry(id.clone()).or_default();
            let repeat_is_due = destination.repeat_is_due(route, now);
            let member = destination.members.entry(key.to_owned()).or_default();
            let around = Circumstances { held, repeat: repeat_is_due && member.is_reported_firing(), now };
            for (status, kind, at, noticed_at) in member.wants(incident, around) {
                let number = member.planned + 1;
                let wanted = Wanted { number, status, kind, at, noticed_at, planned_at: now };
                rows.push(row(DeliveryStep::Planned, &id, incident, &wanted, now));
                member.plan(wanted);
            }
            // An incident is held back once for each reason, and only before its first message.
            if member.planned == 0 && held.is_some() && held != member.suppressed.as_deref() && incident.ended.is_none()
            {
                let (at, noticed_at) = (incident.started_at, incident.noticed_at);
                let (status, kind) = (Status::Firing, Kind::New);
                let nothing = Wanted { number: 0, status, kind, at, noticed_at, planned_at: now };
                let suppressed = row(DeliveryStep::Suppressed, &id, incident, &nothing, now);
                rows.push(DeliveryRow { reason: held.map(str::to_owned), ..suppressed });
                member.suppressed = held.map(str::to_owned);
            }
        }
    }

    /// Drops what has come to its end.
    fn forget(&mut self, now: i64) {
        for (id, destination) in self.destinations.iter_mut().filter(|(_, destination)| !destination.in_flight) {
            let ended_for = self.sinks.get(&id.sink).and_then(|sink| sink.ended_for);
            destination.members.retain(|key, member| {
                let has_ended = self.incidents.get(key).is_none_or(|incident| incident.ended.is_some());
                let is_over = member.is_done() && !member.is_kept(ended_for, now);
                !(is_over || member.planned == 0 && (has_ended || member.suppressed.is_none()))
            });
        }
        self.destinations.retain(|_, destination| destination.in_flight || !destination.members.is_empty());
        let members = self.destinations.values().flat_map(|destination| destination.members.keys());
        let needed: BTreeSet<&str> = members.map(String::as_str).collect();
        self.incidents.retain(|key| needed.contains(key));
    }

    /// Takes in the result of a message. Returns the rows that state it.
    pub fn settle(&mut self, delivery: Delivery, outcome: Outcome, now: i64) -> Vec<DeliveryRow> {
        let ids = std::iter::once(&delivery.destination).chain(&delivery.others);
        for id in ids {
            if let Some(destination) = self.destinations.get_mut(id) {
                destination.in_flight = false;
                if let Err(Failure::Later { .. }) = outcome.result {
                    destination.not_before = outcome.destination_after;
                }
            }
        }
        let sink = self.sinks.entry(delivery.destination.sink.clone()).or_default();
        let late_evidence = sink.late_evidence;
        sink.in_flight = sink.in_flight.saturating_sub(1);
        match &outcome.result {
            Ok(_) => (sink.failing, sink.refusing, sink.not_before) = (None, None, 0),
            Err(Failure::Refused { reason }) => {
                (sink.failing, sink.refusing, sink.not_before) = (None, Some(reason.clone()), 0);
            }
            Err(Failure::Later { reason, .. }) => {
                (sink.failing, sink.not_before) = (Some(reason.clone()), outcome.sink_after);
            }
        }
        let is_news = !delivery.covers.is_empty();
        let attempt = self.destinations.get(&delivery.destination).map_or(0, |destination| destination.attempt) + 1;
        let (step, reason, receipt) = match &outcome.result {
            Ok(receipt) => (DeliveryStep::Sent, None, Some(receipt)),
            Err(Failure::Refused { reason }) => (DeliveryStep::Refused, Some(reason.clone()), None),
            Err(Failure::Later { reason, .. }) => (DeliveryStep::Failed, Some(reason.clone()), None),
        };
        let is_final = step != DeliveryStep::Failed;
        let mut rows = Vec::new();
        for cover in &delivery.covers {
            let Some(destination) = self.destinations.get_mut(&cover.destination) else { continue };
            let Some(member) = destination.members.get_mut(&cover.incident) else { continue };
            let Some(incident) = self.incidents.get(&cover.incident) else { continue };
            let wanted = member.pending.iter().find(|wanted| wanted.number == cover.number).cloned();
            let Some(wanted) = wanted else { continue };
            // The message reported a change, again without evidence: the evidence is still to follow.
            if !wanted.is_change() && outcome.incomplete.contains(&cover.incident) {
                continue;
            }
            // A long outage is recorded ever more rarely, and for what the message is about.
            let is_own = cover.destination == delivery.destination && !cover.missed;
            if is_final || is_own && attempt.unsigned_abs().is_power_of_two() {
                rows.push(DeliveryRow {
                    attempt,
                    reason: reason.clone(),
                    missed: (is_final && cover.missed).then_some(true),
                    receipt: receipt.map(|receipt| receipt.reference.clone()).filter(|text| !text.is_empty()),
                    answer: receipt.map(|receipt| receipt.answer.clone()).filter(|text| !text.is_empty()),
                    ..row(step, &cover.destination, incident, &wanted, now)
                });
            }
            match is_final {
                true => member.settle(cover.number, receipt.map(|_| now), receipt.is_none().then_some(now)),
                false => member.maybe_reported |= cover.fires,
            }
        }
        if let Some(destination) = self.destinations.get_mut(&delivery.destination) {
            match (is_final, is_news) {
                (true, true) if !delivery.is_evidence() => (destination.sent_at, destination.attempt) = (Some(now), 0),
                (true, _) => (destination.resent_at, destination.attempt) = (Some(now), 0),
                (false, _) => destination.attempt = attempt,
            }
            if let Ok(receipt) = outcome.result {
                destination.receipt = Some(receipt);
            }
        }
        if step == DeliveryStep::Sent {
            let of_sink = self.destinations.iter_mut().filter(|(id, _)| id.sink == delivery.destination.sink);
            let members = of_sink.flat_map(|(_, destination)| destination.members.values_mut());
            members.for_each(|member| member.try_again(now));
            // The evidence is planned together with the result, so that it is not lost if the process ends.
            if late_evidence {
                rows.extend(self.plan_evidence(&delivery.destination, &outcome.incomplete, now));
            }
        }
        self.forget(now);
        rows
    }

    /// Plans the evidence of incidents that a destination received without it. An incident that has ended needs none, and one that
    /// has changed gets it with the change.
    fn plan_evidence(&mut self, id: &DestinationId, without: &BTreeSet<String>, now: i64) -> Vec<DeliveryRow> {
        let Some(destination) = self.destinations.get_mut(id) else { return Vec::new() };
        let mut rows = Vec::new();
        for (key, member) in destination.members.iter_mut().filter(|(key, _)| without.contains(*key)) {
            let incident = self.incidents.get(key).filter(|incident| incident.ended.is_none());
            let (Some(incident), Some(status), false) = (incident, member.status, member.has_news()) else { continue };
            let (number, kind) = (member.planned + 1, Kind::Evidence);
            let evidence = Wanted { number, status, kind, at: now, noticed_at: now, planned_at: now };
            rows.push(row(DeliveryStep::Planned, id, incident, &evidence, now));
            member.plan(evidence);
        }
        rows
    }

    /// Returns the incidents whose evidence is to follow and is not ready, each with a destination that waits for it.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = (&DestinationId, &str)> {
        let waiting = self.destinations.iter().flat_map(|(id, waits)| waits.awaiting().map(move |key| (id, key)));
        waiting.filter(|(_, key)| !self.has_evidence(key))
    }

    /// Returns true if changes are due at a sink that works and have not been sent yet.
    pub(crate) fn has_waiting_news(&self, now: i64) -> bool {
        self.destinations.iter().any(|(id, destination)| {
            let works = self.sinks.get(&id.sink).is_some_and(|sink| sink.failing.is_none());
            let due = || self.route(id).and_then(|route| destination.news_due(route, |_| false));
            works && !destination.in_flight && due().is_some_and(|due| due <= now)
        })
    }

    /// Takes in a page that was completed with its evidence, from a row of this evaluation.
    pub fn complete(&mut self, evaluation: i64, page: Page) {
        if let Some(incident) = self.incidents.get_mut(&page.incident) {
            incident.complete(evaluation, page);
        }
    }

    /// Returns the time at which the oldest change without a result came about, microseconds since the epoch.
    pub fn oldest(&self) -> Option<i64> {
        let members = self.destinations.values().flat_map(|destination| destination.members.values());
        let changes = members.flat_map(|member| &member.pending).filter(|wanted| wanted.is_change());
        changes.map(|wanted| wanted.noticed_at).min()
    }

    /// Returns the number of messages under way.
    pub fn in_flight(&self) -> usize {
        self.sinks.values().map(|sink| sink.in_flight).sum()
    }

    /// Returns the sinks whose last message failed or was refused, with the reason.
    pub fn failing(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sinks.iter().filter_map(|(name, sink)| {
            let reason = sink.failing.as_deref().or(sink.refusing.as_deref())?;
            Some((name.as_str(), reason))
        })
    }

    /// Returns the state of each incident at each destination that fires as far as its service knows: route, sink and incident.
    #[cfg(test)]
    pub(crate) fn reported(&self) -> BTreeSet<(String, String, String)> {
        let mut reported = BTreeSet::new();
        for (id, destination) in &self.destinations {
            for (key, _) in destination.members.iter().filter(|(_, member)| member.is_reported_firing()) {
                reported.insert((id.route.clone(), id.sink.clone(), key.clone()));
            }
        }
        reported
    }

    fn route(&self, id: &DestinationId) -> Option<&Route> {
        self.settings.route(&id.route)
    }
}

/// Makes the row of a step.
fn row(step: DeliveryStep, id: &DestinationId, incident: &Incident, wanted: &Wanted, now: i64) -> DeliveryRow {
    let number = wanted.number.to_string();
    let alert = &incident.alert;
    DeliveryRow {
        number: 0,
        alerts_version: 0,
        written_at: now,
        step,
        route: id.route.clone(),
        sink: id.sink.clone(),
        group_labels: id.group.clone(),
        key: hash(&[&id.route, &id.sink, &alert.alert_id, &incident.key, &number]),
        incident: incident.key.clone(),
        alert_id: alert.alert_id.clone(),
        tenant: alert.tenant.clone(),
        at: wanted.at,
        state: wanted.status,
        kind: wanted.kind,
        transition: wanted.number,
        noticed_at: wanted.noticed_at,
        attempt: 0,
        reason: None,
        missed: None,
        receipt: None,
        answer: None,
    }
}
