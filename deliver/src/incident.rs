//! Incidents: the firings of alerts, as people hear of them. They follow from the rows of `alerts`.
//!
//! Rules: an incident keeps its key while corrections move its start. It ends when the alert no longer fires, by whatever row, and
//! an alert that fires again is another incident. The key is a function of the rows, so that it comes out the same when they are
//! read again.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_base::Result;
use bellwether_evidence::AlertRecord;
use bellwether_sinks::Page;
use bellwether_sinks::page::Status;

use crate::hands::Acknowledgement;
use crate::ledger::{Alert, Birth, Episode, Ledger};
use crate::outbox::hash;

/// The end of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Event time, microseconds since the epoch.
    pub(crate) at: i64,
    /// A correction took the firing back.
    pub(crate) corrected: bool,
    /// Time at which the end was written to `alerts`.
    pub(crate) noticed_at: i64,
}

/// A firing of an alert.
#[derive(Clone, Debug)]
pub(crate) struct Incident {
    pub(crate) key: String,
    birth: Birth,
    /// The row that describes it best.
    pub(crate) alert: AlertRecord,
    /// Start, event time, microseconds since the epoch.
    pub(crate) started_at: i64,
    /// Time at which the last change of its start was written to `alerts`.
    pub(crate) noticed_at: i64,
    pub(crate) ended: Option<Ended>,
    pub(crate) acknowledged: Option<Acknowledgement>,
    /// The page with its evidence, as last built, preceded by the evaluation of the row that it was built for.
    page: Option<(i64, Page)>,
}

/// All incidents that are open, or of which something is still to be sent.
#[derive(Default)]
pub(crate) struct Incidents {
    ledger: Ledger,
    all: BTreeMap<String, Incident>,
    /// The open incident of each alert.
    open: BTreeMap<String, String>,
    /// Last evaluation that was taken in.
    pub(crate) evaluation: Option<i64>,
}

// === impl Incident ===

impl Incident {
    fn new(alert: &Alert, episode: &Episode, evaluation: i64) -> Self {
        let row = alert.firing.clone();
        // Ends with the id of the alert, so that an answer of the service that names the incident names the alert.
        let unique = hash(&[&row.alert_id, &evaluation.to_string(), &episode.at.to_string()]);
        let key = format!("{unique}-{}", row.alert_id);
        Self {
            key,
            birth: episode.births.first().copied().unwrap_or((evaluation, episode.at)),
            started_at: episode.at,
            noticed_at: row.evaluated_at,
            alert: row,
            ended: None,
            acknowledged: None,
            page: None,
        }
    }

    fn end(&mut self, at: i64, corrected: bool, last: &AlertRecord) {
        self.ended = Some(Ended { at, corrected, noticed_at: last.evaluated_at });
        // The last row has the figures at the end; that of a retraction those of the firing that it takes back.
        if !corrected {
            self.alert = last.clone();
        }
    }

    /// Takes in a page with its evidence, which was built for a row of this evaluation.
    pub(crate) fn complete(&mut self, evaluation: i64, page: Page) {
        self.page = Some((evaluation, page));
    }

    /// Returns the page with its evidence, if one was built for the present state.
    pub(crate) fn completed(&self) -> Option<&Page> {
        let (_, page) = self.page.as_ref().filter(|(evaluation, _)| *evaluation == self.alert.evaluation)?;
        (page.status == self.status()).then_some(page)
    }

    /// Returns the present state.
    pub(crate) fn status(&self) -> Status {
        match (&self.ended, &self.acknowledged) {
            (Some(_), _) => Status::Resolved,
            (None, Some(_)) => Status::Acknowledged,
            (None, None) => Status::Firing,
        }
    }
}

// === impl Incidents ===

impl Incidents {
    /// Takes in a row whose incidents are known already, or do not matter.
    ///
    /// # Errors
    /// `Data` if a newer version has written it.
    pub(crate) fn learn(&mut self, row: &AlertRecord) -> Result<()> {
        self.evaluation = self.evaluation.max(Some(row.evaluation));
        self.ledger.apply(row)
    }

    /// Opens an incident for each alert that fires and has none.
    pub(crate) fn open_firing(&mut self) {
        let mut opened = Vec::new();
        for (id, alert) in self.ledger.alerts().filter(|(id, _)| !self.open.contains_key(*id)) {
            if let Some(episode) = alert.episodes().last().filter(|episode| episode.end.is_none()) {
                let evaluation = episode.births.first().map_or(0, |birth| birth.0);
                opened.push((id.clone(), Incident::new(alert, episode, evaluation)));
            }
        }
        for (id, incident) in opened {
            self.open.insert(id, incident.key.clone());
            self.all.insert(incident.key.clone(), incident);
        }
    }

    /// Takes in the rows of one evaluation.
    ///
    /// # Errors
    /// `Data` if a newer version has written them.
    pub(crate) fn take(&mut self, rows: &[AlertRecord]) -> Result<()> {
        let mut ids = BTreeSet::new();
        for row in rows {
            self.learn(row)?;
            ids.insert((row.alert_id.as_str(), row.evaluation));
        }
        for (id, evaluation) in ids {
            self.follow(id, evaluation);
        }
        Ok(())
    }

    /// Brings the incidents of an alert in line with its transitions.
    fn follow(&mut self, id: &str, evaluation: i64) {
        let Some(alert) = self.ledger.get(id) else { return };
        let episodes = alert.episodes();
        let current = episodes.last().filter(|episode| episode.end.is_none());
        let is_new = |episode: &&Episode| episode.births.first().is_some_and(|birth| birth.0 == evaluation);
        let mut known: Option<&Episode> = None;
        if let Some(incident) = self.open.get(id).and_then(|key| self.all.get_mut(key)) {
            let own = episodes.iter().find(|episode| episode.births.contains(&incident.birth));
            // If a correction took the own transition back, another one may stand for it.
            known = own.or(current).or_else(|| episodes.iter().rfind(is_new));
            match known {
                Some(Episode { end: None, at, births }) => {
                    incident.birth = if own.is_some() { incident.birth } else { births[0] };
                    if incident.started_at != *at {
                        (incident.started_at, incident.noticed_at) = (*at, alert.last.evaluated_at);
                        incident.alert = alert.firing.clone();
                    }
                }
                Some(Episode { end: Some(end), .. }) => incident.end(*end, false, &alert.last),
                None => incident.end(alert.last.at, true, &alert.last),
            }
            if incident.ended.is_some() {
                self.open.remove(id);
            }
        }
        for episode in episodes.iter().filter(|episode| Some(*episode) != known) {
            let mut incident = Incident::new(alert, episode, evaluation);
            match episode.end {
                Some(end) if is_new(&episode) => incident.end(end, false, &alert.last),
                None if !self.open.contains_key(id) => {
                    self.open.insert(id.to_owned(), incident.key.clone());
                }
                _ => continue,
            }
            self.all.insert(incident.key.clone(), incident);
        }
    }

    /// Adds an incident that `deliveries` knows: an open one, or one that has ended. `row` says what is known of it without `alerts`;
    /// its time is the start.
    pub(crate) fn restore(&mut self, key: &str, alert_id: &str, row: AlertRecord, ended: Option<Ended>) {
        let alert = self.ledger.get(alert_id);
        let episode = alert.and_then(|alert| alert.episodes().pop()).filter(|episode| episode.end.is_none());
        // An alert that is no longer in the table fires no more.
        let gone = Ended { at: row.at, corrected: true, noticed_at: row.evaluated_at };
        let ended = ended.or_else(|| episode.is_none().then_some(gone));
        if ended.is_none() {
            self.open.insert(alert_id.to_owned(), key.to_owned());
        }
        let now = episode.filter(|_| ended.is_none());
        let described = alert.map(|alert| if ended.is_some() { &alert.last } else { &alert.firing });
        let incident = Incident {
            key: key.to_owned(),
            birth: now.as_ref().and_then(|episode| episode.births.first().copied()).unwrap_or((0, row.at)),
            started_at: now.map_or(row.at, |episode| episode.at),
            noticed_at: row.evaluated_at,
            alert: described.cloned().unwrap_or(row),
            ended,
            acknowledged: None,
            page: None,
        };
        self.all.insert(key.to_owned(), incident);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Incident> {
        self.all.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Incident> {
        self.all.get_mut(key)
    }

    /// Returns true if an alert fires.
    pub(crate) fn is_open(&self, alert_id: &str) -> bool {
        self.open.contains_key(alert_id)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Incident> {
        self.all.values_mut()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Incident> {
        self.all.values()
    }

    /// Removes the incidents that have ended and of which nothing is to be sent.
    pub(crate) fn retain(&mut self, is_needed: impl Fn(&str) -> bool) {
        self.all.retain(|key, incident| incident.ended.is_none() || is_needed(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(evaluation: i64, at: i64, from: &str, state: &str, change: &str, was: Option<i64>) -> AlertRecord {
        AlertRecord {
            evaluation,
            evaluated_at: evaluation * 100,
            at,
            was,
            alert_id: "a".to_owned(),
            state_from: from.to_owned(),
            state: state.to_owned(),
            change: change.to_owned(),
            ..AlertRecord::default()
        }
    }

    fn fires(evaluation: i64, at: i64) -> AlertRecord {
        row(evaluation, at, "pending", "firing", "new", None)
    }

    /// Key, start and end of each incident, by key.
    fn taken(incidents: &Incidents) -> Vec<(String, i64, Option<Ended>)> {
        let all = incidents.all().map(|incident| (incident.key.clone(), incident.started_at, incident.ended));
        all.collect()
    }

    #[test]
    fn a_moved_incident_keeps_its_key_and_a_retracted_one_is_corrected() {
        let mut incidents = Incidents::default();
        incidents.take(&[fires(1, 10)]).expect("takes");
        let before = taken(&incidents);
        incidents.take(&[row(2, 8, "pending", "firing", "moved", Some(10))]).expect("takes");
        let moved = taken(&incidents);
        assert_eq!((moved.len(), &moved[0].0, moved[0].1), (1, &before[0].0, 8));
        incidents.take(&[row(3, 8, "firing", "inactive", "retracted", None)]).expect("takes");
        let ended = taken(&incidents)[0].2.expect("ended");
        assert!(ended.corrected && ended.noticed_at == 300);
    }

    #[test]
    fn a_start_that_is_retracted_and_stated_at_another_time_is_the_same_incident() {
        let mut incidents = Incidents::default();
        incidents.take(&[fires(1, 20)]).expect("takes");
        let before = taken(&incidents);
        let late = row(2, 15, "pending", "firing", "late", None);
        incidents.take(&[row(2, 20, "firing", "firing", "retracted", None), late]).expect("takes");
        let after = taken(&incidents);
        assert_eq!((after.len(), &after[0].0, after[0].1, after[0].2), (1, &before[0].0, 15, None));
    }

    #[test]
    fn an_alert_that_fires_again_is_another_incident_even_if_only_its_end_was_retracted() {
        let mut incidents = Incidents::default();
        incidents.take(&[fires(1, 10)]).expect("takes");
        incidents.take(&[row(2, 30, "firing", "resolved", "new", None)]).expect("takes");
        assert_eq!(taken(&incidents)[0].2.map(|ended| (ended.at, ended.corrected)), Some((30, false)));
        incidents.take(&[row(3, 30, "resolved", "firing", "retracted", None)]).expect("takes");
        let again = taken(&incidents);
        assert_eq!(again.iter().filter(|(_, _, ended)| ended.is_none()).count(), 1);
        assert_eq!(again.len(), 2, "two keys");
    }

    #[test]
    fn an_incident_within_one_evaluation_is_noticed_and_staleness_is_none() {
        let mut incidents = Incidents::default();
        let resolved = row(1, 12, "firing", "resolved", "new", None);
        incidents.take(&[fires(1, 10), resolved, fires(1, 20)]).expect("takes");
        let all = taken(&incidents);
        assert_eq!(all.len(), 2);
        assert_eq!(all.iter().filter(|(_, at, ended)| (*at, ended.is_some()) == (10, true)).count(), 1);
        incidents.take(&[row(2, 25, "firing", "firing", "restated", None)]).expect("takes");
        assert_eq!(taken(&incidents), all);
    }
}
