//! A real Prometheus and a real Alertmanager beside the program: its alerts, and those of the shipped rules about it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::program::{KEEP_HISTORY, Running, get, text};
use crate::common::{Setup, alertmanager, bellwether, broker, prometheus, repository, until, until_or};
use crate::pipeline::alerts::canary;

/// A service that runs on an address of its own, until it is dropped.
struct Service {
    running: Running,
    address: String,
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

/// Starts a service, and waits until it is ready.
fn start(program: &Path, name: &str, arguments: &[String]) -> Service {
    let address = free_address();
    let mut command = Command::new(program);
    command.args(arguments).arg(format!("--web.listen-address={address}"));
    let running = Running::spawn(&mut command, name.to_owned());
    until_or(
        || get(&address, "/-/ready").filter(|(status, _)| *status == 200),
        || format!("{name} is ready\n{}", running.printed()),
    );
    Service { running, address }
}

// === impl Service ===

impl Service {
    /// Returns what its API lists.
    fn list(&self, path: &str) -> Vec<Value> {
        let (status, body) = get(&self.address, path).expect("an answer");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Waits until Alertmanager has an alert with a label of this value, in this state.
    fn alert(&self, label: &str, value: &str, state: &str) -> Value {
        let is_it = |alert: &Value| alert["labels"][label] == value && alert["status"]["state"] == state;
        until_or(
            || self.list("/api/v2/alerts").into_iter().find(is_it),
            || format!("{label}={value} is {state}: {:#?}\n{}", self.list("/api/v2/alerts"), self.running.printed()),
        )
    }

    /// Returns the silences in force.
    fn silences(&self) -> Vec<Value> {
        let mut silences = self.list("/api/v2/silences");
        silences.retain(|silence| silence["status"]["state"] != "expired");
        silences
    }
}

fn run_alertmanager(program: &Path, setup: &Setup) -> Service {
    let config = setup.file("alertmanager.yml");
    let route = "route: {receiver: none, group_wait: 0s, group_interval: 1s}\nreceivers: [{name: none}]\n";
    std::fs::write(&config, route).expect("the configuration is written");
    let (config, data) = (format!("--config.file={}", config.display()), setup.file("alertmanager"));
    start(
        program,
        "Alertmanager",
        &[config, format!("--storage.path={}", data.display()), "--cluster.listen-address=".to_owned()],
    )
}

/// Starts Prometheus with the shipped configuration and rules; only the addresses and the intervals differ.
fn run_prometheus(program: &Path, setup: &Setup, target: &str, alertmanager: &str) -> Service {
    let folder = setup.file("prometheus");
    std::fs::create_dir(&folder).expect("a folder");
    let read = |name: &str| std::fs::read_to_string(repository("deploy/prometheus").join(name)).expect("shipped");
    let mut config = read("prometheus.yml");
    for (shipped, here) in [("127.0.0.1:9464", target), ("127.0.0.1:9093", alertmanager), ("15s", "1s")] {
        assert!(config.contains(shipped), "{config}");
        config = config.replace(shipped, here);
    }
    std::fs::write(folder.join("prometheus.yml"), config).expect("the configuration is written");
    std::fs::write(folder.join("bellwether.rules.yml"), read("bellwether.rules.yml")).expect("the rules are written");
    let (config, data) = (folder.join("prometheus.yml"), folder.join("data"));
    let arguments = [format!("--config.file={}", config.display()), format!("--storage.tsdb.path={}", data.display())];
    start(program, "Prometheus", &arguments)
}

#[test]
fn prometheus_and_the_program_raise_their_alerts_in_one_alertmanager_and_an_acknowledgement_silences_there() {
    let (Some(broker), Some(manager), Some(prometheus)) = (broker(), alertmanager(), prometheus()) else { return };
    let topic = broker.topic("services", 1);
    let setup = Setup::new(&broker.address, &topic, KEEP_HISTORY);
    let manager = run_alertmanager(&manager, &setup);
    let sink = format!(
        "[deliver.sinks.manager]\nkind = \"alertmanager\"\nurls = [\"http://{}\"]\nresend_every = \"1s\"\nallow_private = true\n",
        manager.address
    );
    let config = setup.other("with-sink.toml", |config| format!("{config}{sink}"));
    std::fs::rename(config, setup.config()).expect("replaces the configuration");
    setup.replay_and_watch(&canary("checkout", 240, 3));
    let program = setup.start("run");
    let target = until_or(|| program.address(), || format!("the program listens\n{}", program.printed()));
    let prometheus = run_prometheus(&prometheus, &setup, &target, &manager.address);

    // Bellwether's own alert, and that of Prometheus, which holds only while everything works.
    let regression = manager.alert("alertname", "success_regression", "active");
    let watchdog = until_or(
        || {
            manager
                .list("/api/v2/alerts")
                .into_iter()
                .find(|alert| alert["labels"]["alertname"] == "BellwetherWatchdog")
        },
        || format!("the watchdog fires\n{}\n{:?}", prometheus.running.printed(), program.get("/readyz")),
    );
    assert_eq!((&watchdog["labels"]["severity"], &regression["labels"]["severity"]), (&"none".into(), &"page".into()));
    let up = prometheus_value(&prometheus, "up%7Bjob%3D%22bellwether%22%7D");
    assert_eq!(up.as_deref(), Some("1"), "Prometheus reads the program");

    // A person takes the alert on, and lets it go again.
    let (config, id) = (setup.config(), regression["labels"]["alert_id"].as_str().expect("an id").to_owned());
    let config = text(&config);
    bellwether(&["alerts", "ack", &id, "--by", "kim", "--reason", "on it", "--config", config]).succeeds();
    manager.alert("alert_id", &id, "suppressed");
    let silences = manager.silences();
    assert_eq!(silences.len(), 1, "{silences:#?}");
    assert_eq!(silences[0]["createdBy"], "kim");
    assert!(silences[0]["comment"].as_str().is_some_and(|comment| comment.starts_with("on it [")), "{silences:#?}");
    // Another process finds the silence, and makes no second one.
    program.stop();
    let program = setup.start("run");
    until("the alert was sent again", || {
        let sent = "bellwether_deliver_messages_total{result=\"sent\",sink=\"manager\"}";
        program.metric(sent).filter(|sent| *sent > 1.0)
    });
    assert_eq!(manager.silences().len(), 1);
    bellwether(&["alerts", "unack", &id, "--by", "kim", "--config", config]).succeeds();
    manager.alert("alert_id", &id, "active");
    assert!(manager.silences().is_empty());
    program.stop();
}

/// Returns the value of a query of one series.
fn prometheus_value(prometheus: &Service, query: &str) -> Option<String> {
    let (_, body) = get(&prometheus.address, &format!("/api/v1/query?query={query}"))?;
    let answer: Value = serde_json::from_str(&body).ok()?;
    answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
}
