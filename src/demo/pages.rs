//! The pages of the demo: the role `deliver` appends them to a file, as it would send them to people, and this reads them back.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use bellwether_alerts::current::current_alerts;
use bellwether_base::{Error, Result};
use bellwether_deliver::{DeliverSettings, NO_EVIDENCE};
use bellwether_evidence::LinkSettings;
use bellwether_lake::Lake;
use bellwether_sinks::page::{Severity, Status};
use bellwether_sinks::{Notice, Page, slack_message, terminal};
use serde::Deserialize;

use crate::alerts::page_of;

/// Lines of the SQL on a page that are shown; the file has all of them.
const SQL_LINES: usize = 3;

/// The files of the pages, beside the folder of the tables.
#[derive(Clone, Debug)]
pub(crate) struct PageFiles {
    /// One document a line, as the webhook sends it.
    pub(crate) inbox: PathBuf,
    /// The body of the message about the bad canary for Slack.
    pub(crate) slack: PathBuf,
    /// The folder of the weekly report.
    pub(crate) report: PathBuf,
}

/// The part of a document that is read back.
#[derive(Deserialize)]
struct Document {
    pages: Vec<Page>,
}

// === impl PageFiles ===

impl PageFiles {
    /// Returns the files for the tables in a folder.
    pub(crate) fn beside(root: &Path) -> Self {
        let named = |end: &str| match root.file_name() {
            Some(name) => root.with_file_name(format!("{}-{end}", name.to_string_lossy())),
            None => root.join(end),
        };
        Self { inbox: named("pages.ndjson"), slack: named("slack.json"), report: named("report") }
    }

    /// Returns the settings that deliver every page and ticket to the file.
    ///
    /// # Errors
    /// `Config` if the name of the file cannot be used.
    pub(crate) fn settings(&self) -> Result<DeliverSettings> {
        let path = toml::Value::from(self.inbox.display().to_string());
        let text = format!("deliver.sinks.inbox = {{ kind = \"inbox\", path = {path} }}\n");
        DeliverSettings::parse(&text).map_err(|problems| Error::config(problems.join("; ")))
    }

    /// Reads all pages, oldest first. A line that is still being written is left out.
    pub(crate) fn read(&self) -> Vec<Page> {
        let text = std::fs::read_to_string(&self.inbox).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str::<Document>(line).ok()).flat_map(|it| it.pages).collect()
    }

    /// Writes a page as the body of a message for Slack.
    ///
    /// # Errors
    /// `Unavailable` if the file cannot be written.
    pub(crate) fn write_slack(&self, page: &Page) -> Result<()> {
        let notice = Notice { route: "default".to_owned(), pages: vec![page.clone()], ..Notice::default() };
        let text = format!("{:#}\n", slack_message(&notice));
        std::fs::write(&self.slack, text).map_err(|source| {
            Error::unavailable(format!("cannot write `{}`", self.slack.display())).with_source(source)
        })
    }
}

/// Returns the page about a release that says the most to on-call: about its success, or else the newest one that fires.
pub(crate) fn about<'a>(pages: &'a [Page], release: &str) -> Option<&'a Page> {
    let of = pages.iter().filter(|page| page.release.as_deref() == Some(release) && page.status == Status::Firing);
    of.max_by_key(|page| (page.rule == "success_regression", page.severity == Severity::Page, page.started_at))
}

/// Returns a page with all its evidence. On a busy machine, delivery does not wait for it, and the page says so.
///
/// # Errors
/// `Unavailable` if the tables do not answer.
pub(crate) async fn complete(lake: &Lake, page: &Page) -> Result<Page> {
    if !page.evidence.notes.iter().any(|note| note == NO_EVIDENCE) {
        return Ok(page.clone());
    }
    let alerts = current_alerts(lake).await?;
    let Some(alert) = alerts.iter().find(|alert| alert.alert_id == page.alert_id) else { return Ok(page.clone()) };
    let whole = Box::pin(page_of(lake.clone(), alert, &LinkSettings::default())).await?;
    Ok(Page { evidence: whole.evidence, links: whole.links, ..page.clone() })
}

/// Returns a page as it looks in a chat.
pub(crate) fn shown(page: &Page, width: usize, colour: bool) -> String {
    let mut page = page.clone();
    if let Some(reproduce) = &mut page.evidence.reproduce {
        let (lines, all) = (reproduce.sql.lines().take(SQL_LINES), reproduce.sql.lines().count());
        let first: Vec<&str> = lines.collect();
        if all > SQL_LINES {
            reproduce.sql = format!("{}\n… {} more lines", first.join("\n"), all - SQL_LINES);
        }
    }
    terminal(&page, width, colour)
}

/// Returns true if standard output shows colours.
pub(crate) fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_beside_the_tables_and_the_settings_name_them() {
        let files = PageFiles::beside(Path::new("data/a \"demo\"/"));
        assert_eq!(files.inbox, Path::new("data/a \"demo\"-pages.ndjson"));
        let settings = files.settings().expect("valid");
        assert_eq!(settings.sinks["inbox"]["path"].as_str(), files.inbox.to_str());
        assert_eq!(PageFiles::beside(Path::new("/")).slack, Path::new("/slack.json"));
    }
}
