//! Pages of incidents, made from the rows of `alerts` alone, and the interface of a builder that adds evidence from the tables.

use async_trait::async_trait;
use bellwether_base::Result;
use bellwether_evidence::{AlertRecord, Links, minimal};
use bellwether_sinks::page::{Acknowledgement, Evidence, Status, Suppressed};
use bellwether_sinks::{Notice, Page, ReleaseNotice};

/// Completes pages with evidence from the tables.
#[async_trait]
pub trait PageBuilder: Send + Sync {
    /// Returns the page with its evidence. `page` is what the row says by itself; incident, status, times and suppressed alerts stay
    /// as they are. If this takes too long, the page is sent without evidence, which follows if the sink takes late evidence.
    ///
    /// # Errors
    /// Any: the page is then sent as it is, with a note, and the build is tried again.
    async fn build(&self, page: Page, alert: &AlertRecord) -> Result<Page>;

    /// Adds its changes and links to a new release. The default implementation adds nothing.
    ///
    /// # Errors
    /// Any: the release is then announced as it is.
    async fn describe(&self, release: ReleaseNotice) -> Result<ReleaseNotice> {
        Ok(release)
    }
}

/// Leaves pages as they are: the evidence is what the row of `alerts` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowOnly;

#[async_trait]
impl PageBuilder for RowOnly {
    async fn build(&self, page: Page, _: &AlertRecord) -> Result<Page> {
        Ok(page)
    }
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

/// Makes the page of an incident from the row of its alert.
pub(crate) fn page_of(alert: &AlertRecord, links: &Links, shown: Shown) -> Page {
    let page = minimal(alert, links);
    let mut title = page.title;
    let mut notes = page.evidence.notes;
    if shown.corrected {
        title = format!("corrected: {title}");
        notes.insert(0, "Late data corrected the figures: by them, the alert did not fire.".to_owned());
    }
    notes.extend(shown.acknowledgement.as_ref().map(|ack| match &ack.note {
        Some(note) => format!("Acknowledged by {}: {note}", ack.person),
        None => format!("Acknowledged by {}.", ack.person),
    }));
    Page {
        incident: shown.incident,
        status: shown.status,
        title,
        started_at: shown.started_at,
        ended_at: shown.ended_at,
        acknowledgement: shown.acknowledgement,
        suppressed: shown.suppressed,
        evidence: Evidence { notes, ..page.evidence },
        ..page
    }
}

/// Returns a message of a test of a route: a page that says so, firing or, to leave nothing behind, resolved.
pub fn test_notice(route: &str, incident: String, status: Status, now: i64) -> Notice {
    let alert = AlertRecord {
        alert_id: incident.clone(),
        rule: "test".to_owned(),
        severity: "info".to_owned(),
        title: format!("test of route {route}: this is no alert"),
        ..AlertRecord::default()
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
    let page = Page { test: true, ..page_of(&alert, &Links::default(), shown) };
    Notice { route: route.to_owned(), pages: vec![page], ..Notice::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(corrected: bool, acknowledgement: Option<Acknowledgement>) -> Page {
        let alert = AlertRecord {
            alert_id: "a1".to_owned(),
            state: "firing".to_owned(),
            title: "checkout: failure rate 8 % → 14 %".to_owned(),
            canary_runs: Some(100),
            notes: "One.\n\nTwo.".to_owned(),
            ..AlertRecord::default()
        };
        let shown = Shown {
            incident: "i1".to_owned(),
            status: if corrected { Status::Resolved } else { Status::Firing },
            started_at: 7,
            ended_at: corrected.then_some(9),
            corrected,
            acknowledgement,
            suppressed: Vec::new(),
        };
        page_of(&alert, &Links::default(), shown)
    }

    #[test]
    fn a_page_has_the_state_of_the_incident_and_the_figures_of_the_row() {
        let by = |note: Option<&str>| Acknowledgement {
            person: "ana".to_owned(),
            at: 8,
            until: None,
            note: note.map(str::to_owned),
        };
        let page = page(false, Some(by(Some("looking"))));
        assert_eq!((page.incident.as_str(), page.status, page.started_at), ("i1", Status::Firing, 7));
        assert_eq!(page.evidence.canary.expect("an arm").runs, Some(100));
        assert_eq!(page.evidence.notes, ["One.", "Two.", "Acknowledged by ana: looking"]);
        assert_eq!(self::page(false, Some(by(None))).evidence.notes[2], "Acknowledged by ana.");
    }

    #[test]
    fn a_correction_is_named_first() {
        let page = page(true, None);
        assert!(page.title.starts_with("corrected: ") && page.evidence.notes[0].contains("corrected"));
        assert_eq!((page.status, page.ended_at), (Status::Resolved, Some(9)));
    }
}
