//! What people have done about an alert, for a list.

use bellwether_alerts::current::CurrentAlert;
use bellwether_alerts::hands::{Ack, Hands, Silence};
use bellwether_stats::figure;

use super::when;

/// The marks of an alert at a moment.
pub(super) struct Marks<'a> {
    pub(super) ack: Option<&'a Ack>,
    pub(super) silence: Option<&'a Silence>,
}

// === impl Marks ===

impl<'a> Marks<'a> {
    pub(super) fn of(alert: &CurrentAlert, hands: &'a Hands, now: i64) -> Self {
        let ack = alert.firing_since().and_then(|since| hands.acknowledged(&alert.alert_id, since, now));
        Self { ack, silence: hands.silenced(&alert.matched_labels(), &alert.alert_id, now) }
    }

    /// Describes each mark in one line.
    pub(super) fn lines(&self, now: i64) -> Vec<String> {
        let reason = |reason: &Option<String>| reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let mut lines = Vec::new();
        if let Some(ack) = self.ack {
            let until = ack.until.map_or_else(String::new, |until| format!(" until {}", when::at(until)));
            let ago = figure::duration(now.saturating_sub(ack.at).max(0) as f64);
            lines.push(format!("acknowledged by {}{until} ({ago} ago){}", ack.person, reason(&ack.reason)));
        }
        if let Some(silence) = self.silence {
            let (id, end) = (short(&silence.id), when::with_age(silence.ends_at(), now));
            lines.push(format!("silenced by {} until {end}, silence {id}{}", silence.person, reason(&silence.reason)));
        }
        lines
    }

    /// Describes the marks in a few words.
    pub(super) fn words(&self) -> String {
        let ack = self.ack.map(|ack| format!("acknowledged by {}", ack.person));
        let silence = self.silence.map(|silence| format!("silenced until {}", when::at(silence.ends_at())));
        ack.into_iter().chain(silence).collect::<Vec<_>>().join("; ")
    }
}

/// Returns the beginning of a silence's id: the time in it, to the millisecond.
pub(super) fn short(id: &str) -> String {
    id.chars().take(13).collect()
}
