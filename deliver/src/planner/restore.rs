//! The state of a planner from the tables.

use bellwether_base::Result;
use bellwether_evidence::AlertRecord;
use bellwether_sinks::Receipt;
use bellwether_sinks::page::Status;

use super::Planner;
use crate::destination::{DestinationId, Member, Wanted};
use crate::incident::Ended;
use crate::outbox::{DeliveryRow, DeliveryStep, Kind};

// === impl Planner ===

impl Planner {
    /// Builds the state from the rows of both tables, each in the order in which they were written. `position` is the last
    /// evaluation whose transitions are in `deliveries`; later ones are taken in as new. Without a position, nothing was ever
    /// delivered: only what fires now is news.
    ///
    /// Returns rows about what can no longer be delivered, because its route or sink is not configured any more.
    ///
    /// # Errors
    /// `Data` if a newer version has written the rows.
    pub fn restore(
        &mut self,
        deliveries: &[DeliveryRow],
        alerts: &[AlertRecord],
        position: Option<i64>,
        now: i64,
    ) -> Result<Vec<DeliveryRow>> {
        let known = alerts.partition_point(|row| position.is_none_or(|position| row.evaluation <= position));
        let (old, new) = alerts.split_at(known);
        for row in old {
            self.incidents.learn(row)?;
        }
        self.incidents.evaluation = self.incidents.evaluation.max(position);
        for row in deliveries {
            self.remember(row, now);
        }
        // The end of an incident is its last transition, wherever it is planned.
        let mut newest: Vec<&DeliveryRow> = deliveries.iter().collect();
        newest.sort_by_key(|row| std::cmp::Reverse((row.transition, row.number)));
        for row in newest {
            let is_needed =
                self.destinations.values().any(|destination| destination.members.contains_key(&row.incident));
            if is_needed && self.incidents.get(&row.incident).is_none() {
                self.restore_incident(row);
            }
        }
        // The configuration may have changed, so that the sink no longer takes late evidence.
        for (id, destination) in &mut self.destinations {
            if !self.sinks.get(&id.sink).is_some_and(|sink| sink.late_evidence) {
                destination.members.values_mut().for_each(|member| member.pending.retain(Wanted::is_change));
            }
        }
        // Whatever is planned may have been sent just before the process ended.
        for member in self.destinations.values_mut().flat_map(|destination| destination.members.values_mut()) {
            member.try_again_at_start();
            member.maybe_reported |= member.pending.iter().any(|wanted| wanted.status != Status::Resolved);
        }
        let given_up = self.give_up(now);
        self.incidents.open_firing();
        self.take(new)?;
        Ok(given_up)
    }

    /// Takes in a row of `deliveries`.
    fn remember(&mut self, row: &DeliveryRow, now: i64) {
        let grouped = !row.group_labels.is_empty();
        let id = DestinationId {
            route: row.route.clone(),
            sink: row.sink.clone(),
            group: row.group_labels.clone(),
            incident: (!grouped).then(|| row.incident.clone()),
        };
        let destination = self.destinations.entry(id.clone()).or_default();
        let member = destination.members.entry(row.incident.clone()).or_default();
        match row.step {
            DeliveryStep::Suppressed => member.suppressed = row.reason.clone(),
            DeliveryStep::Planned => member.plan(Wanted {
                number: row.transition,
                status: row.state,
                kind: row.kind,
                at: row.at,
                noticed_at: row.noticed_at,
                planned_at: row.written_at,
            }),
            DeliveryStep::Failed => destination.attempt = destination.attempt.max(row.attempt),
            DeliveryStep::Sent | DeliveryStep::Refused => {
                let sent_at = (row.step == DeliveryStep::Sent && row.missed != Some(true)).then_some(row.written_at);
                let refused_at = (row.step == DeliveryStep::Refused).then_some(row.written_at);
                member.settle(row.transition, sent_at, refused_at);
                if row.kind == Kind::Evidence {
                    (destination.resent_at, destination.attempt) = (Some(row.written_at), 0);
                } else if row.missed != Some(true) {
                    (destination.sent_at, destination.attempt) = (Some(row.written_at), 0);
                }
                if row.step == DeliveryStep::Sent && row.missed != Some(true) {
                    let text = |text: &Option<String>| text.clone().unwrap_or_default();
                    destination.receipt = Some(Receipt { reference: text(&row.receipt), answer: text(&row.answer) });
                }
            }
            DeliveryStep::GivenUp => {
                destination.members.remove(&row.incident);
            }
        }
        let ended_for = self.sinks.get(&row.sink).and_then(|sink| sink.ended_for);
        let is_over = |member: &Member| member.is_done() && !member.is_kept(ended_for, now);
        if destination.members.get(&row.incident).is_some_and(is_over) {
            destination.members.remove(&row.incident);
        }
        if destination.members.is_empty() {
            self.destinations.remove(&id);
        }
    }

    fn restore_incident(&mut self, row: &DeliveryRow) {
        let ended = matches!(row.kind, Kind::Ended | Kind::Corrected).then_some(Ended {
            at: row.at,
            corrected: row.kind == Kind::Corrected,
            noticed_at: row.noticed_at,
        });
        let members = self.destinations.values().filter_map(|destination| destination.members.get(&row.incident));
        let started_at = members.map(|member| member.started_at).max().filter(|at| *at != 0).unwrap_or(row.at);
        // If the alert is no longer in its table, this is all that is known about it.
        let described = AlertRecord {
            alert_id: row.alert_id.clone(),
            tenant: row.tenant.clone(),
            title: format!("alert {}", row.alert_id),
            severity: "page".to_owned(),
            at: started_at,
            evaluated_at: row.noticed_at,
            ..AlertRecord::default()
        };
        self.incidents.restore(&row.incident, &row.alert_id, described, ended);
    }

    /// Drops the destinations that are no longer configured.
    fn give_up(&mut self, now: i64) -> Vec<DeliveryRow> {
        let mut rows = Vec::new();
        let (settings, sinks, incidents) = (&self.settings, &self.sinks, &self.incidents);
        self.destinations.retain(|id, destination| {
            let route = settings.route(&id.route);
            let what = match (route, sinks.contains_key(&id.sink)) {
                (None, _) => format!("route `{}` is no longer configured", id.route),
                (_, false) => format!("sink `{}` is no longer configured", id.sink),
                (Some(route), true) if route.group_by.is_empty() == id.group.is_empty() => return true,
                (Some(_), true) => format!("route `{}` groups differently now", id.route),
            };
            for (key, member) in &destination.members {
                let Some(incident) = incidents.get(key) else { continue };
                for wanted in &member.pending {
                    let row = super::row(DeliveryStep::GivenUp, id, incident, wanted, now);
                    rows.push(DeliveryRow { reason: Some(what.clone()), ..row });
                }
            }
            false
        });
        rows
    }
}
