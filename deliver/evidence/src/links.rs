//! Links of a page to other services, made from templates of the configuration.
//!
//! A template is a URL with placeholders, such as `https://traces.example/{trace_id}`. [`LinkTemplate::parse`] refuses what could
//! lead elsewhere: other schemes than http and https, credentials, a placeholder before the path. A value is percent-encoded
//! wholly, so that it is one piece of a path or of a query and never changes the rest of the URL.

use bellwether_base::{Error, Result};
use bellwether_sinks::page::Link;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

/// Everything except the unreserved characters of RFC 3986 is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Longest URL that a page has: longer ones do not work in all browsers and chat services.
const MOST_CHARACTERS: usize = 2000;

/// The templates as the configuration has them, section `[links]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// A trace.
    pub trace: Option<String>,
    /// A run.
    pub run: Option<String>,
    /// A dashboard.
    pub dashboard: Option<String>,
    /// Beginning of the URL of runbooks that a rule names by a relative path.
    pub runbook: Option<String>,
}

/// Placeholders of a link about a run, and of one about an alert.
const OF_RUN: &[&str] = &["trace_id", "run_id", "source", "attempt", "tenant", "task", "release"];
const OF_ALERT: &[&str] = &["tenant", "task", "release", "baseline", "rule", "alert_id", "from", "to"];

/// A template that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTemplate {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(String),
}

/// The templates of a process. One that is broken is left out, and pages say so.
#[derive(Clone, Debug, Default)]
pub struct Links {
    trace: Option<LinkTemplate>,
    run: Option<LinkTemplate>,
    dashboard: Option<LinkTemplate>,
    runbook: Option<String>,
    problems: Vec<String>,
}

// === impl LinkSettings ===

impl LinkSettings {
    /// Returns what is wrong with each key, in words that follow the name of the key.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let templates =
            [("trace", &self.trace, OF_RUN), ("run", &self.run, OF_RUN), ("dashboard", &self.dashboard, OF_ALERT)];
        let wrong = templates.into_iter().filter_map(|(key, text, allowed)| {
            let error = LinkTemplate::parse(text.as_deref()?, allowed).err()?;
            Some((key, error.message().to_owned()))
        });
        let runbook = self.runbook.as_deref().and_then(|base| base_url(base).err());
        wrong.chain(runbook.map(|error| ("runbook", error.message().to_owned()))).collect()
    }
}

// === impl LinkTemplate ===

impl LinkTemplate {
    /// Checks a template; `allowed` are the names of its placeholders.
    ///
    /// # Errors
    /// `Config` with what is wrong, in words that follow the name of the key.
    pub fn parse(text: &str, allowed: &[&str]) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(open);
            let name = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let Some((name, after)) = name else {
                return Err(Error::config(
                    "has a brace without its pair; a placeholder is `{task}`, and a brace itself is `%7B` or `%7D`",
                ));
            };
            if !allowed.contains(&name) {
                let known = allowed.join("}`, `{");
                return Err(Error::config(format!(
                    "has the unknown placeholder `{{{name}}}`; known are `{{{known}}}`"
                )));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Value(name.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let template = Self { pieces };
        template.check()?;
        Ok(template)
    }

    /// Checks that every value leaves the scheme and the host as they are.
    fn check(&self) -> Result<()> {
        let filled = |value: &str| {
            let texts = self.pieces.iter().map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Value(_) => value,
            });
            texts.collect::<String>()
        };
        let url = base_url(&filled("a"))?;
        let origin = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port());
        if base_url(&filled("b")).map(|other| origin(&other)).ok() != Some(origin(&url)) {
            return Err(Error::config("has a placeholder in its host; put placeholders into the path or the query"));
        }
        Ok(())
    }

    /// Returns the URL for some values; `None` if one of them is missing or cannot be in a URL.
    pub fn fill(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut url = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => url.push_str(text),
                Piece::Value(name) => {
                    let value = value(name).filter(|value| !value.is_empty())?;
                    // These would be steps in a path, encoded or not.
                    if value == "." || value == ".." {
                        return None;
                    }
                    url.extend(utf8_percent_encode(&value, RESERVED));
                }
            }
        }
        Some(url).filter(|url| url.len() <= MOST_CHARACTERS)
    }
}

/// Checks a URL without placeholders.
fn base_url(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|source| {
        Error::config(format!("is `{text}`, which is no URL ({source}); write it as `https://HOST/PATH`"))
    })?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(Error::config(format!(
            "begins with `{}:`; it must begin with `https://` or `http://`",
            url.scheme()
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::config("contains credentials, which everybody who sees a page would see; leave them out"));
    }
    if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err(Error::config("contains white space; encode a space as `%20`"));
    }
    Ok(url)
}

// === impl Links ===

impl Links {
    /// Takes the templates of the configuration. A broken one is left out; [`LinkSettings::problems`] reports it earlier.
    pub fn new(settings: &LinkSettings) -> Self {
        let template = |text: &Option<String>, allowed| LinkTemplate::parse(text.as_deref()?, allowed).ok();
        let problems = settings.problems().into_iter();
        Self {
            trace: template(&settings.trace, OF_RUN),
            run: template(&settings.run, OF_RUN),
            dashboard: template(&settings.dashboard, OF_ALERT),
            runbook: settings.runbook.clone().filter(|base| base_url(base).is_ok()),
            problems: problems
                .map(|(key, problem)| format!("The link `links.{key}` is missing: it {problem}."))
                .collect(),
        }
    }

    /// Returns a sentence about each broken template.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Returns the links about a run. `value` returns the value of a placeholder.
    pub(crate) fn of_run(&self, value: impl Fn(&str) -> Option<String>) -> Vec<Link> {
        let named = [("trace", &self.trace), ("run", &self.run)];
        named.into_iter().filter_map(|(name, template)| Some(link(name, template.as_ref()?.fill(&value)?))).collect()
    }

    /// Returns the link to the dashboard. `value` returns the value of a placeholder.
    pub(crate) fn dashboard(&self, value: impl Fn(&str) -> Option<String>) -> Option<Link> {
        Some(link("dashboard", self.dashboard.as_ref()?.fill(value)?))
    }

    /// Returns the link to a runbook: a URL, or a path below the configured base.
    pub(crate) fn runbook(&self, named: &str) -> Option<Link> {
        if base_url(named).is_ok() {
            return Some(link("runbook", named.to_owned()));
        }
        // Another scheme, or a path that names a host.
        if named.contains("://") || named.starts_with("//") || Url::parse(named).is_ok() {
            return None;
        }
        let url = format!("{}/{}", self.runbook.as_deref()?.trim_end_matches('/'), named.trim_start_matches('/'));
        base_url(&url).is_ok().then(|| link("runbook", url))
    }
}

fn link(name: &str, url: String) -> Link {
    Link { name: name.to_owned(), url }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        LinkTemplate::parse(text, OF_RUN).expect_err(text).message().to_owned()
    }

    #[test]
    fn values_are_encoded_and_never_change_the_rest_of_the_url() {
        let template =
            LinkTemplate::parse("https://t.example/a/{trace_id}/b?run={run_id}#{task}", OF_RUN).expect("right");
        let filled = |value: &str| template.fill(|_| Some(value.to_owned()));
        assert_eq!(filled("4f-8_a.~").as_deref(), Some("https://t.example/a/4f-8_a.~/b?run=4f-8_a.~#4f-8_a.~"));
        for hostile in [
            "../../x",
            "a?b=c&d#e",
            "@evil.example/",
            "<!channel>",
            "a\"b'c\n",
            "é /\\",
            "%2e%2e",
            "\u{202e}",
            "javascript:alert(1)",
        ] {
            let url = Url::parse(&filled(hostile).expect("a URL")).expect("a URL");
            assert_eq!((url.scheme(), url.host_str()), ("https", Some("t.example")), "{hostile}");
            assert_eq!(url.path_segments().expect("a path").count(), 3, "{hostile}: {url}");
            let run = url.query_pairs().find(|(name, _)| name == "run").expect("the query is kept").1;
            assert_eq!(run, hostile);
        }
        for none in ["", ".", ".."] {
            assert_eq!(filled(none), None, "{none}");
        }
        assert_eq!(filled(&"x".repeat(1000)), None, "too long");
        assert_eq!(template.fill(|name| (name != "task").then(|| "x".to_owned())), None, "a value is missing");
    }

    #[test]
    fn a_broken_template_is_refused_with_the_reason() {
        for (text, part) in [
            ("https://t.example/{trace}", "unknown placeholder `{trace}`; known are `{trace_id}`, `{run_id}`"),
            ("https://t.example/{trace_id", "a brace without its pair"),
            ("https://t.example/trace_id}", "a brace without its pair"),
            ("https://{task}.example/", "a placeholder in its host"),
            ("https://t.example:{attempt}/", "is no URL"),
            ("javascript:alert('{run_id}')", "begins with `javascript:`"),
            ("file:///{run_id}", "begins with `file:`"),
            ("https://user:secret@t.example/{run_id}", "contains credentials"),
            ("t.example/{run_id}", "is no URL"),
            ("https://t.example/a b/{run_id}", "contains white space"),
            ("", "is no URL"),
        ] {
            assert!(refused(text).contains(part), "{text}: {}", refused(text));
        }
        assert!(!refused("https://user:secret@t.example/{run_id}").contains("secret"));
    }

    #[test]
    fn a_broken_template_leaves_the_others_and_is_named() {
        let settings = LinkSettings {
            trace: Some("https://t.example/{nothing}".to_owned()),
            run: Some("https://t.example/run/{run_id}".to_owned()),
            ..LinkSettings::default()
        };
        assert_eq!(settings.problems().len(), 1);
        let links = Links::new(&settings);
        let of_run = links.of_run(|_| Some("r1".to_owned()));
        assert_eq!(of_run, [Link { name: "run".to_owned(), url: "https://t.example/run/r1".to_owned() }]);
        assert!(links.problems()[0].starts_with("The link `links.trace` is missing: it has the unknown placeholder"));
    }

    #[test]
    fn a_runbook_is_a_url_or_a_path_below_the_base() {
        let links = Links::new(&LinkSettings {
            runbook: Some("https://wiki.example/bellwether/".to_owned()),
            ..LinkSettings::default()
        });
        let url = |named: &str| links.runbook(named).map(|link| link.url);
        assert_eq!(url("https://x.example/r").as_deref(), Some("https://x.example/r"));
        assert_eq!(url("docs/alerts.md#lag").as_deref(), Some("https://wiki.example/bellwether/docs/alerts.md#lag"));
        for hostile in ["javascript:alert(1)", "//evil.example/x", "ftp://evil.example/", "a b"] {
            assert_eq!(url(hostile), None, "{hostile}");
        }
        assert_eq!(Links::default().runbook("docs/alerts.md"), None, "no base");
    }
}
