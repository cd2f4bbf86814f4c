//! One alert by the beginning of its id.

use bellwether_alerts::current::CurrentAlert;
use bellwether_base::Error;

use super::Stop;

/// Most ids that a message names.
const NEAR: usize = 3;

/// Ids at least this similar are named.
const SIMILAR: f64 = 0.6;

/// Finds the alert whose id begins with a text.
pub(super) fn find<'a>(alerts: &'a [CurrentAlert], id: &str) -> Result<&'a CurrentAlert, Stop> {
    let found: Vec<&CurrentAlert> = alerts.iter().filter(|alert| alert.alert_id.starts_with(id)).collect();
    match found.as_slice() {
        [alert] => Ok(alert),
        [] => {
            let near = near(id, alerts.iter().map(|alert| alert.alert_id.as_str()));
            let hint = match near.as_slice() {
                [] => "list all ids with `bellwether alerts list --all`".to_owned(),
                near => format!("did you mean {}? `bellwether alerts list --all` lists all ids", near.join(", ")),
            };
            Err(Stop::Refused(Error::config(format!("no alert has the id `{id}`")).with_hint(hint)))
        }
        many => Err(Stop::Refused(
            Error::config(format!("{} alert ids begin with `{id}`", many.len())).with_hint("give a longer prefix"),
        )),
    }
}

/// Returns the ids that begin much like a text, the most similar first, in backticks.
pub(super) fn near<'a>(id: &str, ids: impl Iterator<Item = &'a str>) -> Vec<String> {
    let length = id.chars().count().max(1);
    let mut near: Vec<(f64, &str)> = ids
        .map(|known| {
            // A prefix is compared with as much of each id.
            let beginning: String = known.chars().take(length).collect();
            (strsim::normalized_damerau_levenshtein(id, &beginning), known)
        })
        .filter(|(score, _)| *score >= SIMILAR)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(NEAR).map(|(_, known)| format!("`{known}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_beginning_names_the_ids_that_are_meant() {
        let ids = ["4f80a64ee339139e", "4f80b64ee339139e", "91c2000000000000"];
        assert_eq!(near("4f80a46e", ids.into_iter())[0], "`4f80a64ee339139e`");
        assert_eq!(near("91c3", ids.into_iter()), ["`91c2000000000000`"]);
        assert!(near("zzzz", ids.into_iter()).is_empty());
    }
}
