//! Destinations: which state of a group of incidents a sink has received by one route, and which it has yet to receive.

use std::collections::BTreeMap;

use bellwether_sinks::Receipt;
use bellwether_sinks::page::Status;

use crate::incident::Incident;
use crate::outbox::Kind;
use crate::route::Route;

/// Half of the shortest time from a refusal to another attempt, microseconds. It doubles with each refusal in a row.
const TRY_REFUSED_AFTER: i64 = 30_000_000;

/// A route, a sink, and the incidents that share messages: those of a group, or one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DestinationId {
    pub(crate) route: String,
    pub(crate) sink: String,
    /// Labels by which the route groups.
    pub(crate) group: BTreeMap<String, String>,
    /// The incident, if the route does not group.
    pub(crate) incident: Option<String>,
}

/// A transition that is planned and has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) number: i64,
    pub(crate) status: Status,
    pub(crate) kind: Kind,
    pub(crate) at: i64,
    /// When it came about, and when it was planned; microseconds since the epoch.
    pub(crate) noticed_at: i64,
    pub(crate) planned_at: i64,
}

// === impl Wanted ===

impl Wanted {
    /// Returns true if it is a change of the incident, and not evidence that follows.
    pub(crate) fn is_change(&self) -> bool {
        self.kind != Kind::Evidence
    }
}

/// An incident as a destination knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    /// Number of transitions that were planned.
    pub(crate) planned: i64,
    /// The last one.
    pub(crate) status: Option<Status>,
    /// Start of the incident by the last one that states it.
    pub(crate) started_at: i64,
    /// The service has had a message that it fires, or has refused one.
    pub(crate) reported: bool,
    /// A message that it fires may have arrived, although no answer says so.
    pub(crate) maybe_reported: bool,
    pub(crate) pending: Vec<Wanted>,
    pub(crate) refused: Option<Refused>,
    /// Time at which the service accepted its end, microseconds since the epoch.
    pub(crate) ended_sent_at: Option<i64>,
    /// The reason for which it was held back, as last recorded.
    pub(crate) suppressed: Option<String>,
}

/// The service has refused the present state of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Time of the last refusal, microseconds since the epoch.
    at: i64,
    /// Refusals in a row.
    times: u32,
    /// The message is to be sent again, because the service may accept it now.
    is_due: bool,
}

/// The state of a destination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Destination {
    pub(crate) members: BTreeMap<String, Member>,
    /// Time of the last message with news, and of the last message at all.
    pub(crate) sent_at: Option<i64>,
    pub(crate) resent_at: Option<i64>,
    pub(crate) receipt: Option<Receipt>,
    /// Attempts of the message that is due.
    pub(crate) attempt: i64,
    /// No attempt before this time.
    pub(crate) not_before: i64,
    pub(crate) in_flight: bool,
}

/// What is known about an incident besides its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    /// The reason for which it is held back.
    pub(crate) held: Option<&'a str>,
    /// Still firing, and sent long enough ago to be sent again.
    pub(crate) repeat: bool,
    pub(crate) now: i64,
}

// === impl DestinationId ===

impl DestinationId {
    /// Returns the destination of an incident by a route and one of its sinks.
    pub(crate) fn of(route: &Route, sink: &str, incident: &Incident) -> Self {
        let value = |name: &String| (name.clone(), incident.alert.label(name).to_owned());
        Self {
            route: route.name.clone(),
            sink: sink.to_owned(),
            group: route.group_by.iter().map(value).collect(),
            incident: route.group_by.is_empty().then(|| incident.key.clone()),
        }
    }
}

// === impl Member ===

impl Member {
    /// Returns true if something is still to be sent.
    pub(crate) fn has_news(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns true if the service has not received the present state.
    pub(crate) fn has_change(&self) -> bool {
        self.pending.iter().any(Wanted::is_change)
    }

    /// Returns true if the service received the incident without its evidence, which is to follow.
    pub(crate) fn awaits_evidence(&self) -> bool {
        self.pending.iter().any(|wanted| !wanted.is_change())
    }

    /// Returns true if the incident ended, and no answer says that the service knows of it.
    pub(crate) fn is_missed(&self) -> bool {
        !self.reported && self.status == Some(Status::Resolved)
    }

    /// Returns true if the service believes that the incident fires.
    pub(crate) fn is_reported_firing(&self) -> bool {
        self.reported && self.status != Some(Status::Resolved) && !self.has_change()
    }

    /// Returns true if nothing more can come.
    pub(crate) fn is_done(&self) -> bool {
        self.pending.is_empty() && self.status == Some(Status::Resolved)
    }

    /// Returns the transitions that are to be sent and not planned yet.
    pub(crate) fn wants(&self, incident: &Incident, around: Circumstances<'_>) -> Vec<(Status, Kind, i64, i64)> {
        let started = (incident.started_at, incident.noticed_at);
        let end = incident.ended.map(|ended| {
            let kind = if ended.corrected { Kind::Corrected } else { Kind::Ended };
            (Status::Resolved, kind, ended.at, ended.noticed_at)
        });
        let acknowledged = incident.acknowledged.as_ref();
        let taken_on = acknowledged.map(|ack| (Status::Acknowledged, Kind::Acknowledged, ack.at, ack.at));
        let now = around.now;
        let Some(status) = self.status else {
            if around.held.is_some() || end.is_some() && self.suppressed.is_some() {
                return Vec::new();
            }
            let first = (Status::Firing, Kind::New, started.0, started.1);
            return std::iter::once(first).chain(taken_on.filter(|_| end.is_none())).chain(end).collect();
        };
        if status == Status::Resolved {
            return Vec::new();
        }
        if let Some(end) = end {
            return vec![end];
        }
        let mut wanted = Vec::new();
        if self.started_at != started.0 {
            wanted.push((status, Kind::Moved, started.0, started.1));
        }
        match (taken_on, status) {
            (Some(taken_on), Status::Firing) => wanted.push(taken_on),
            (None, Status::Acknowledged) => wanted.push((Status::Firing, Kind::Unacknowledged, now, now)),
            (None, Status::Firing) if (around.repeat || self.is_tried_again()) && around.held.is_none() => {
                wanted.push((Status::Firing, Kind::Repeated, now, now));
            }
            _ => {}
        }
        wanted
    }

    /// Returns true if a refused message is sent again.
    fn is_tried_again(&self) -> bool {
        self.pending.is_empty() && self.refused.is_some_and(|refused| refused.is_due)
    }

    /// Records that the service refused the present state.
    fn refuse(&mut self, now: i64) {
        let times = self.refused.map_or(0, |refused| refused.times).saturating_add(1);
        self.refused = Some(Refused { at: now, times, is_due: false });
    }

    /// Marks a refused message to be sent again, because the service accepts other messages, unless it was refused recently.
    pub(crate) fn try_again(&mut self, now: i64) {
        if let Some(refused) = &mut self.refused {
            let rest = TRY_REFUSED_AFTER.saturating_mul(1 << refused.times.min(10));
            refused.is_due |= now.saturating_sub(refused.at) >= rest;
        }
    }

    /// Marks a refused message to be sent again, however recently it was refused: the configuration may have changed.
    pub(crate) fn try_again_at_start(&mut self) {
        if let Some(refused) = &mut self.refused {
            refused.is_due = true;
        }
    }

    /// Takes in a planned transition.
    pub(crate) fn plan(&mut self, wanted: Wanted) {
        if let Some(refused) = &mut self.refused {
            refused.is_due = false;
        }
        self.planned = self.planned.max(wanted.number);
        self.status = Some(wanted.status);
        if matches!(wanted.kind, Kind::New | Kind::Moved) {
            self.started_at = wanted.at;
        }
        self.pending.push(wanted);
    }

    /// Returns true if the service has had the end of an incident that it knew of, no longer than `ended_for` microseconds ago, so
    /// that the end is sent again.
    pub(crate) fn is_kept(&self, ended_for: Option<i64>, now: i64) -> bool {
        let until = self.ended_sent_at.zip(ended_for).map(|(sent, ended_for)| sent.saturating_add(ended_for));
        self.is_done() && self.reported && until.is_some_and(|until| now < until)
    }

    /// Takes in the result of a transition: the service has it, since `sent_at`, or has refused it at `refused_at`.
    pub(crate) fn settle(&mut self, number: i64, sent_at: Option<i64>, refused_at: Option<i64>) {
        if let Some(place) = self.pending.iter().position(|wanted| wanted.number == number) {
            let wanted = self.pending.remove(place);
            match refused_at {
                None => self.refused = None,
                Some(at) if wanted.is_change() && wanted.status != Status::Resolved => self.refuse(at),
                Some(_) => {}
            }
            match wanted.status {
                Status::Resolved => self.ended_sent_at = sent_at,
                Status::Firing | Status::Acknowledged => self.reported = true,
            }
        }
    }
}

// === impl Destination ===

impl Destination {
    /// Returns true if all its news is missed incidents.
    pub(crate) fn only_missed(&self) -> bool {
        self.members.values().any(Member::is_missed)
            && self.members.values().all(|member| member.pending.is_empty() || member.is_missed())
    }

    /// Returns true if nothing is pending but evidence that follows.
    pub(crate) fn only_evidence(&self) -> bool {
        self.members.values().any(Member::awaits_evidence) && !self.members.values().any(Member::has_change)
    }

    /// Returns when something new is due, microseconds since the epoch, if no attempt has failed. `has_evidence` says whether the
    /// evidence of an incident is ready. Evidence that follows is due once all of it is ready.
    pub(crate) fn news_due(&self, route: &Route, has_evidence: impl Fn(&str) -> bool) -> Option<i64> {
        let pending = || self.members.values().flat_map(|member| &member.pending);
        let Some(planned) = pending().filter(|wanted| wanted.is_change()).map(|wanted| wanted.planned_at).min() else {
            let is_there = self.awaiting().all(has_evidence);
            return pending().map(|wanted| wanted.planned_at).max().filter(|_| is_there);
        };
        // Incidents whose end is only repeated are no group that a new one joins.
        let is_first = |member: &Member| usize::try_from(member.planned).is_ok_and(|n| n == member.pending.len());
        let is_group = !self.members.values().any(Member::is_done)
            || self.members.values().any(|member| !member.is_done() && !is_first(member));
        Some(match self.sent_at.filter(|_| is_group) {
            None => planned.saturating_add(micros(route.group_wait)),
            Some(sent) => planned.max(sent.saturating_add(micros(route.group_interval))),
        })
    }

    /// Returns the incidents whose evidence must be ready before the message with it is sent: all that the message shows. Empty if
    /// no evidence is to follow.
    pub(crate) fn awaiting(&self) -> impl Iterator<Item = &str> {
        let awaits = self.members.values().any(Member::awaits_evidence);
        let shown = self.members.iter().filter(move |(_, member)| awaits && member.planned > 0 && !member.is_done());
        shown.map(|(key, _)| key.as_str())
    }

    /// Returns when the same is sent again, for services that forget.
    pub(crate) fn resend_due(&self, every: Option<i64>) -> Option<i64> {
        let last = self.sent_at.max(self.resent_at)?;
        // Members that are done are only here to be sent again.
        let known = self.members.values().any(|member| member.is_reported_firing() || member.is_done());
        every.filter(|_| known).map(|every| last.saturating_add(every))
    }

    /// Returns true if a person should be reminded of what still fires.
    pub(crate) fn repeat_is_due(&self, route: &Route, now: i64) -> bool {
        let (Some(every), Some(sent)) = (route.repeat_interval, self.sent_at) else { return false };
        !self.in_flight && sent.saturating_add(micros(every)) <= now
    }
}

/// Returns a duration in microseconds.
pub(crate) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
