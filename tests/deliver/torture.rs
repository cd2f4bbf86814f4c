//! Two deliverers that are killed at random moments, beside a receiver that answers late, twice, or not at all.
//!
//! The short form kills a few times. `make torture` kills `BELLWETHER_KILLS` / 10 times, and a seed repeats the moments.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{alerted, deliver, keys, last, pages};
use crate::common::program::{Running, text};
use crate::common::{bellwether, until};
use crate::crash::Random;

/// Default number of kills.
const KILLS: usize = 6;

/// The time-out of the sink, and the time that a late answer takes.
const TIMEOUT: &str = "1s";
const LATE: Duration = Duration::from_millis(1500);

/// A receiver that keeps what it receives, before it answers in one of several ways.
#[derive(Clone)]
struct Receiver {
    address: String,
    pages: Arc<Mutex<Vec<Value>>>,
    answers_well: Arc<AtomicBool>,
}

// === impl Receiver ===

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let receiver = Self { address, pages: Arc::default(), answers_well: Arc::default() };
        let (own, count) = (receiver.clone(), Arc::new(AtomicUsize::new(0)));
        // It ends with the process: nothing has to wait for it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, number) = (own.clone(), count.fetch_add(1, Ordering::Relaxed));
                std::thread::spawn(move || own.serve(stream, number));
            }
        });
        receiver
    }

    fn serve(&self, mut stream: TcpStream, number: usize) {
        let Some(event) = body(&mut stream).and_then(|body| serde_json::from_str::<Value>(&body).ok()) else { return };
        let received = event["data"]["pages"].as_array().cloned().unwrap_or_default();
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).extend(received);
        let status = match number % 4 {
            _ if self.answers_well.load(Ordering::Relaxed) => "200 OK",
            // The message has arrived, and nobody hears of it.
            0 => return,
            1 => "503 Service Unavailable",
            2 => {
                std::thread::sleep(LATE);
                "200 OK"
            }
            _ => "200 OK",
        };
        drop(
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()),
        );
    }

    fn pages(&self) -> Vec<Value> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads the body of a request.
fn body(stream: &mut TcpStream) -> Option<String> {
    let (mut request, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(body.to_owned());
            }
        }
        match stream.read(&mut part) {
            Ok(count) if count > 0 => request.extend_from_slice(&part[..count]),
            _ => return None,
        }
    }
}

#[test]
fn two_deliverers_killed_at_random_beside_a_bad_receiver_lose_nothing_and_keep_one_key_an_incident() {
    let setup = alerted();
    // What arrives without faults.
    deliver(&setup);
    let clean = pages(&setup);
    let expected = keys(&clean);
    let regression = clean.iter().find(|page| page["rule"] == "success_regression").expect("a page");
    let id = regression["alert_id"].as_str().expect("an id").to_owned();
    std::fs::remove_dir_all(setup.root().join("deliveries")).expect("the table is there");
    let receiver = Receiver::start();
    let config = setup.other("with-webhook.toml", |config| {
        let (before, _) = config.split_once("[deliver.sinks.file]").expect("the sink");
        format!(
            "{before}[deliver.sinks.hook]\nkind = \"webhook\"\nurl = \"http://{}/\"\nallow_private = true\ntimeout = \"{TIMEOUT}\"\n",
            receiver.address
        )
    });
    std::fs::rename(config, setup.config()).expect("replaces the configuration");

    let mut random = Random::new("deliver::torture");
    let kills = std::env::var("BELLWETHER_KILLS").ok().and_then(|text| text.parse::<usize>().ok());
    let kills = kills.map_or(KILLS, |kills| kills.div_ceil(10));
    let mut deliverers: [Running; 2] = [setup.start("deliver"), setup.start("deliver")];
    let config = setup.config();
    for round in 0..kills {
        // A lease passes on after three seconds.
        random.sleep_up_to(Duration::from_secs(4));
        // People act meanwhile, so that there is always something new.
        let act = if round % 2 == 0 { "ack" } else { "unack" };
        bellwether(&["alerts", act, &id, "--by", "kim", "--config", text(&config)]).succeeds();
        let victim = random.number(2);
        let next = setup.start("deliver");
        std::mem::replace(&mut deliverers[victim], next).kill();
    }
    let [one, two] = deliverers;
    one.kill();
    receiver.answers_well.store(true, Ordering::Relaxed);
    let unsettled = "SELECT count(*) FROM deliveries AS p WHERE p.step = 'planned' AND NOT EXISTS
        (SELECT 1 FROM deliveries AS s WHERE s.key = p.key AND s.step = 'sent')";
    until("the other one has sent everything", || {
        let complete = keys(&receiver.pages()).is_superset(&expected);
        (complete && setup.number(unsettled) == 0).then_some(())
    });
    two.stop();
    deliver(&setup);

    let arrived = receiver.pages();
    assert_eq!(keys(&arrived), expected, "no page is lost, and an incident has one key");
    assert_eq!(setup.number(unsettled), 0);
    let twice = "SELECT count(*) FROM (SELECT key, step FROM deliveries WHERE step IN ('planned', 'sent') GROUP BY key, step HAVING count(*) > 1)";
    assert_eq!(setup.number(twice), 0, "each transition is planned once and settled once");
    let states: BTreeMap<String, String> = last(&arrived);
    for (incident, status) in states {
        let query = format!(
            "SELECT state FROM deliveries WHERE incident = '{incident}' AND step = 'sent' ORDER BY transition DESC LIMIT 1"
        );
        assert_eq!(setup.sql(&query)[0]["state"], Value::from(status), "{incident}");
    }
}
