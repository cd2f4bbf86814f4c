//! One action, and its row of `alert_actions`.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use bellwether_base::{Error, Result};
use bellwether_tables::Table;
use serde::{Deserialize, Serialize};

use super::Matchers;

/// Most characters of a reason.
const MOST_REASON: usize = 2000;

/// Most characters of a name.
const MOST_PERSON: usize = 200;

/// The kinds of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// A person works on an alert, as long as it fires.
    Ack,
    /// No longer.
    Unack,
    /// No messages about one alert, or about all with certain labels, until a time.
    Silence,
    /// Ends a silence.
    Unsilence,
    /// A verdict on an alert.
    Feedback,
}

/// The origin of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Cli,
    Http,
    Pagerduty,
}

/// A person's verdict on an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Useful,
    Noise,
}

/// One action. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    pub action_id: String,
    pub kind: ActionKind,
    pub alert_id: Option<String>,
    /// Labels that a silence matches, as [`Matchers`] writes them.
    pub matchers: Option<String>,
    /// The silence that an unsilence ends.
    pub silence_id: Option<String>,
    pub rule: Option<String>,
    pub tenant: Option<String>,
    /// When the firing began that the action is about.
    pub firing_since: Option<i64>,
    pub person: String,
    pub reason: Option<String>,
    pub starts_at: Option<i64>,
    pub until: Option<i64>,
    pub verdict: Option<Verdict>,
    pub at: i64,
    pub origin: Origin,
}

// === impl ActionKind ===

impl ActionKind {
    /// Returns the name as in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Unack => "unack",
            Self::Silence => "silence",
            Self::Unsilence => "unsilence",
            Self::Feedback => "feedback",
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Returns the name as in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Useful => "useful",
            Self::Noise => "noise",
        }
    }
}

// === impl Action ===

impl Action {
    /// Makes an action without an object.
    pub fn new(action_id: String, kind: ActionKind, person: &str, at: i64, origin: Origin) -> Self {
        Self {
            action_id,
            kind,
            alert_id: None,
            matchers: None,
            silence_id: None,
            rule: None,
            tenant: None,
            firing_since: None,
            person: person.to_owned(),
            reason: None,
            starts_at: None,
            until: None,
            verdict: None,
            at,
            origin,
        }
    }

    /// Checks what every action must hold.
    ///
    /// # Errors
    /// `Config`, with the remedy.
    pub fn validate(&self) -> Result<()> {
        if self.person.trim().is_empty() {
            return Err(Error::config("the action has no person").with_hint("add --by NAME"));
        }
        let long = |what: &str, text: &str, most: usize| {
            let count = text.chars().count();
            let message = format!("the {what} has {count} characters; at most {most} are kept");
            if count > most { Err(Error::config(message).with_hint("shorten it, or link to a page")) } else { Ok(()) }
        };
        long("name", &self.person, MOST_PERSON)?;
        long("reason", self.reason.as_deref().unwrap_or_default(), MOST_REASON)?;
        let missing = |what: &str| Err(Error::bug(format!("an action of kind {} has no {what}", self.kind.name())));
        match self.kind {
            ActionKind::Ack | ActionKind::Unack | ActionKind::Feedback if self.alert_id.is_none() => missing("alert"),
            ActionKind::Feedback if self.verdict.is_none() => missing("verdict"),
            ActionKind::Unsilence if self.silence_id.is_none() => missing("silence"),
            ActionKind::Silence => self.validate_silence(),
            _ => Ok(()),
        }
    }

    fn validate_silence(&self) -> Result<()> {
        let (Some(start), Some(end)) = (self.starts_at, self.until) else {
            return Err(Error::config("a silence has no end").with_hint("add --for 2h or --until TIME"));
        };
        if end <= start {
            return Err(Error::config("a silence ends before it begins").with_hint("give a later --until"));
        }
        match (&self.alert_id, &self.matchers) {
            (Some(_), None) => Ok(()),
            (None, Some(text)) => Matchers::parse(text).map(|_| ()),
            _ => Err(Error::bug("a silence is about one alert, or about labels")),
        }
    }
}

/// Returns actions as rows of the table.
pub(super) fn batch(actions: &[Action]) -> Result<RecordBatch> {
    let wrong = |source| Error::bug("rows of `alert_actions` do not fit the table").with_source(source);
    let schema = Table::AlertActions.arrow_schema();
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().map_err(wrong)?;
    decoder.serialize(actions).map_err(wrong)?;
    Ok(decoder.flush().map_err(wrong)?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}

/// Returns the actions in rows of the table. Those of a kind, an origin or a verdict that this version does not know are left out:
/// they take nothing back that it knows.
pub(super) fn actions(rows: &RecordBatch) -> Result<Vec<Action>> {
    let column = |name: &str| -> Result<&ArrayRef> {
        rows.column_by_name(name).ok_or_else(|| Error::bug(format!("rows of `alert_actions` lack column `{name}`")))
    };
    let text = |name: &str| -> Result<ArrayRef> { Ok(cast(column(name)?, &DataType::Utf8)?) };
    let [id, kind, alert, matchers, silence, rule, tenant, person, reason, verdict, origin] = [
        "action_id",
        "kind",
        "alert_id",
        "matchers",
        "silence_id",
        "rule",
        "tenant",
        "person",
        "reason",
        "verdict",
        "origin",
    ]
    .map(text);
    let (id, kind, alert, matchers) = (id?, kind?, alert?, matchers?);
    let (silence, rule, tenant, person) = (silence?, rule?, tenant?, person?);
    let (reason, verdict, origin) = (reason?, verdict?, origin?);
    let [since, starts, until, at] = ["firing_since", "starts_at", "until", "at"].map(column);
    let (since, starts, until, at) = (since?, starts?, until?, at?);
    let mut found = Vec::new();
    for row in 0..rows.num_rows() {
        let said = |of: &ArrayRef| of.is_valid(row).then(|| of.as_string::<i32>().value(row).to_owned());
        let moment = |of: &ArrayRef| of.is_valid(row).then(|| of.as_primitive::<TimestampMicrosecondType>().value(row));
        let verdict = match said(&verdict) {
            None => None,
            Some(name) => match named(&name) {
                Some(known) => Some(known),
                None => continue,
            },
        };
        let kind = said(&kind).and_then(|name| named(&name));
        let origin = said(&origin).and_then(|name| named(&name));
        let (Some(kind), Some(origin), Some(action_id), Some(at)) = (kind, origin, said(&id), moment(at)) else {
            continue;
        };
        found.push(Action {
            action_id,
            kind,
            alert_id: said(&alert),
            matchers: said(&matchers),
            silence_id: said(&silence),
            rule: said(&rule),
            tenant: said(&tenant),
            firing_since: moment(since),
            person: said(&person).unwrap_or_default(),
            reason: said(&reason),
            starts_at: moment(starts),
            until: moment(until),
            verdict,
            at,
            origin,
        });
    }
    Ok(found)
}

/// Returns the variant of an enum with a name, if there is one.
fn named<T: for<'a> Deserialize<'a>>(name: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::hands) fn action(id: &str, kind: ActionKind, at: i64) -> Action {
        Action { alert_id: Some("a1".to_owned()), ..Action::new(id.to_owned(), kind, "ada", at, Origin::Cli) }
    }

    #[test]
    fn an_action_is_read_back_from_its_row() {
        let whole = Action {
            action_id: "1".to_owned(),
            kind: ActionKind::Silence,
            alert_id: Some("a1".to_owned()),
            matchers: Some("{task=\"refund\"}".to_owned()),
            silence_id: Some("s".to_owned()),
            rule: Some("success_drift".to_owned()),
            tenant: Some("acme".to_owned()),
            firing_since: Some(5),
            person: "ada".to_owned(),
            reason: Some("deploy\n\"quoted\"".to_owned()),
            starts_at: Some(6),
            until: Some(7),
            verdict: Some(Verdict::Noise),
            at: 8,
            origin: Origin::Pagerduty,
        };
        let bare = Action::new("2".to_owned(), ActionKind::Unack, "bob", 9, Origin::Http);
        let rows = batch(&[whole.clone(), bare.clone()]).expect("rows");
        assert_eq!(rows.schema(), Table::AlertActions.arrow_schema());
        assert_eq!(actions(&rows).expect("actions"), [whole, bare]);
    }

    #[test]
    fn an_action_that_says_too_little_or_too_much_is_refused() {
        let ack = action("1", ActionKind::Ack, 1);
        assert!(ack.validate().is_ok());
        let refused = |action: Action, why: &str| {
            let error = action.validate().expect_err(why);
            assert!(error.message().contains(why), "{}", error.message());
        };
        refused(Action { person: " ".to_owned(), ..ack.clone() }, "no person");
        refused(Action { person: "x".repeat(201), ..ack.clone() }, "name has 201 characters");
        refused(Action { reason: Some("x".repeat(2001)), ..ack.clone() }, "reason has 2001 characters");
        refused(Action { kind: ActionKind::Silence, ..ack.clone() }, "no end");
        let silence = Action { kind: ActionKind::Silence, starts_at: Some(5), until: Some(5), ..ack };
        refused(silence.clone(), "ends before it begins");
        let broken = Some("{task".to_owned());
        refused(Action { until: Some(6), alert_id: None, matchers: broken, ..silence }, "matcher");
    }
}
