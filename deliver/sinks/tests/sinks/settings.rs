//! What the configuration accepts, and what it says about the rest.

use bellwether_sinks::SinkSettings;

use crate::common::{clock, settings};

/// A valid example of each kind.
const VALID: [&str; 9] = [
    "kind = \"alertmanager\"\nurls = [\"http://am-0:9093\", \"http://am-1:9093/prefix/\"]\nallow_private = true",
    "kind = \"pagerduty\"\nrouting_key = { env = \"KEY\" }",
    "kind = \"slack\"\nurl = { file = \"/run/secrets/slack\" }",
    "kind = \"slack\"\ntoken = { env = \"TOKEN\" }\nchannel = \"#on-call\"",
    "kind = \"opsgenie\"\napi_key = { env = \"KEY\" }\nteams = [\"checkout\"]",
    "kind = \"teams\"\nurl = { env = \"URL\" }\ntimeout = \"5s\"",
    "kind = \"webhook\"\nurl = \"https://example.org/hook\"\nkeys = [{ env = \"OLD\" }, { env = \"NEW\" }]",
    "kind = \"email\"\nhost = \"smtp.example.org\"\nfrom = \"Bellwether <b@example.org>\"\nto = [\"on-call@example.org\"]",
    "kind = \"inbox\"\nstdout = true",
];

fn problems(text: &str) -> Vec<String> {
    settings(text).validate()
}

#[test]
fn valid_settings_are_built_and_survive_a_round_trip() {
    for text in VALID {
        let settings = settings(text);
        assert_eq!(settings.validate(), Vec::<String>::new(), "{text}");
        let sink = settings.build(clock()).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        let written = toml::to_string(&settings).unwrap();
        assert!(written.contains(&format!("kind = \"{}\"", sink.kind())), "{written}");
        assert_eq!(toml::from_str::<SinkSettings>(&written).unwrap(), settings, "{written}");
    }
}

#[test]
fn an_unknown_setting_is_refused_in_every_kind() {
    for text in VALID {
        let error = toml::from_str::<SinkSettings>(&format!("{text}\ncolour = \"red\"")).unwrap_err().to_string();
        assert!(error.contains("unknown field `colour`"), "{text}\n{error}");
    }
    let error = toml::from_str::<SinkSettings>("kind = \"pigeon\"").unwrap_err().to_string();
    assert!(error.contains("unknown variant `pigeon`, expected one of `alertmanager`"), "{error}");
}

#[test]
fn a_secret_in_the_configuration_is_refused_in_every_kind() {
    for (text, name) in [
        ("kind = \"pagerduty\"\nrouting_key = \"S3CRET\"", "routing_key"),
        ("kind = \"slack\"\nurl = \"https://hooks.slack.com/S3CRET\"", "url"),
        ("kind = \"slack\"\ntoken = \"S3CRET\"\nchannel = \"C1\"", "token"),
        ("kind = \"opsgenie\"\napi_key = \"S3CRET\"", "api_key"),
        ("kind = \"teams\"\nurl = \"https://S3CRET.example/\"", "url"),
        ("kind = \"webhook\"\nurl = \"https://example.org/\"\nkeys = [\"S3CRET\"]", "keys"),
        ("kind = \"alertmanager\"\nurls = [\"https://am.example/\"]\ntoken = \"S3CRET\"", "token"),
    ] {
        let settings = settings(text);
        let problems = settings.validate();
        assert!(problems.len() == 1 && problems[0].starts_with(&format!("`{name}` is a secret")), "{problems:?}");
        let shown = format!("{settings:?}{problems:?}{}", toml::to_string(&settings).unwrap());
        assert!(!shown.contains("S3CRET"), "{shown}");
        assert!(settings.build(clock()).is_err());
    }
}

#[test]
fn each_problem_is_named() {
    for (text, expected) in [
        ("kind = \"alertmanager\"\nurls = []", "`urls` must name at least one"),
        ("kind = \"alertmanager\"\nurls = [\"am:9093\"]", "`urls` must begin with https://, not am:"),
        ("kind = \"alertmanager\"\nurls = [\"/am\"]", "`urls` is not a URL"),
        ("kind = \"alertmanager\"\nurls = [\"http://am.example\"]", "`urls` must begin with https://, or set"),
        ("kind = \"alertmanager\"\nurls = [\"https://10.0.0.1\"]", "10.0.0.1 is not a public address"),
        ("kind = \"alertmanager\"\nurls = [\"https://u:p@am.example\"]", "holds a user name or password"),
        ("kind = \"alertmanager\"\nurls = [\"https://am.example\"]\nresend_every = \"0s\"", "`resend_every` must be"),
        ("kind = \"alertmanager\"\nurls = [\"https://am.example\"]\nusername = \"u\"", "belong together"),
        ("kind = \"slack\"", "give `url` for an incoming webhook"),
        ("kind = \"slack\"\ntoken = { env = \"T\" }", "`channel` must name"),
        ("kind = \"slack\"\nurl = { env = \"U\" }\ntoken = { env = \"T\" }", "not both"),
        ("kind = \"teams\"\nurl = { env = \"\" }", "is not the name of an environment variable"),
        ("kind = \"teams\"\nurl = { env = \"U\" }\ntimeout = \"1h\"", "`timeout` must be from 100ms to 2m"),
        ("kind = \"webhook\"\nurl = \"ftp://example.org\"", "must begin with https://, not ftp:"),
        ("kind = \"webhook\"\nurl = \"https://example.org\"\nsource = \"a b\"", "`source` must be a URI reference"),
        ("kind = \"email\"\nhost = \"\"\nfrom = \"b@example.org\"\nto = [\"a@example.org\"]", "`host` must be"),
        ("kind = \"email\"\nhost = \"m.example\"\nfrom = \"b\"\nto = [\"a@example.org\"]", "`b` in `from` is not"),
        ("kind = \"email\"\nhost = \"m.example\"\nfrom = \"b@example.org\"\nto = []", "`to` must name"),
        ("kind = \"inbox\"", "give `path`, `stdout = true`, or both"),
    ] {
        let problems = problems(text);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text}\n{problems:?}");
    }
}

#[test]
fn an_email_without_encryption_stays_in_the_own_network() {
    let text =
        "kind = \"email\"\nhost = \"m.example\"\nfrom = \"b@example.org\"\nto = [\"a@example.org\"]\ntls = \"none\"\n";
    assert!(problems(text)[0].contains("needs `allow_private = true`"));
    let with_password = format!("{text}allow_private = true\nusername = \"u\"\npassword = {{ env = \"P\" }}");
    assert!(problems(&with_password)[0].contains("would send the password in plain text"));
    let header = "kind = \"email\"\nhost = \"m.example\"\nfrom = \"b@example.org\\r\\nBcc: x@example.org\"\nto = [\"a@example.org\"]";
    assert!(problems(header)[0].contains("is not an e-mail address"));
}

#[test]
fn a_file_of_authorities_must_hold_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let text = format!("kind = \"teams\"\nurl = {{ env = \"U\" }}\nca_file = \"{}\"", path.display());
    let error = settings(&text).build(clock()).err().unwrap();
    assert!(error.message().starts_with("cannot read `ca_file`"), "{error}");
    std::fs::write(&path, "not a certificate").unwrap();
    assert_eq!(settings(&text).build(clock()).err().unwrap().message(), "`ca_file` holds no certificate");
}
