//! The provider that outlives all kills: a simulator in this process that behaves badly on purpose, and a
//! record of what it was asked to do and what it told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use songflight::id::CallKey;
use songflight::simulator::{self, Latency, Options, Seen, Simulator, Told};
use songflight::time::Clock;

use super::harness::person::client;
use super::harness::program::{Folder, folder};

pub struct Provider {
    /// `None` while it is away.
    simulator: Option<Simulator>,
    seed: u64,
    /// What it keeps, so that it goes on where it was when it comes back.
    memory: Folder,
    record: Arc<Mutex<Record>>,
}

/// By task and call, then by attempt.
type Record = BTreeMap<(String, u8), BTreeMap<u16, Order>>;

/// One submission that was taken.
#[derive(Debug, Default)]
struct Order {
    accepted: Vec<Instant>,
    /// When the service first took a callback saying that it is alive.
    reported: Option<Instant>,
    /// The service was told that it failed: what is ordered in its place is no duplicate.
    failed: bool,
}

pub struct Submissions {
    pub accepted: usize,
    /// Orders that were paid for although an earlier one of the same call may be alive, as far as callbacks told.
    pub possible_duplicates: usize,
}

/// From recording an intent to the provider's having it. A report that comes in between is too late.
const UNDER_WAY: Duration = Duration::from_millis(1_500);

impl Provider {
    pub async fn start(seed: u64) -> Self {
        let record = Arc::new(Mutex::new(Record::new()));
        let mut provider = Self { simulator: None, seed, memory: folder(), record };
        provider.come_back().await;
        provider
    }

    /// Its service is gone; its tasks are not.
    pub async fn go_away(&mut self) {
        self.simulator.take().expect("it is there").stop().await;
    }

    /// At the address where it was, as bad as before.
    pub async fn come_back(&mut self) {
        let writing = self.record.clone();
        let options = Options {
            latency: Latency { lyrics_ms: [100, 300], music_ms: [150, 400] },
            seed: self.seed,
            observer: Some(Arc::new(move |seen: Seen| write(&mut writing.lock().unwrap(), seen))),
            memory: Some(self.memory.to_path_buf()),
            ..Options::default()
        };
        let listener = simulator::listen(&self.memory).expect("a port");
        self.simulator = Some(simulator::start(listener, options).expect("a simulator"));
        self.steer(json!({
            "loss": 0.1, "duplicate": 0.2, "reorder": true, "drop_answer": 0.03, "http_500": 0.02,
            "answer_delay_ms": 30, "callback_retry_ms": [200, 500, 1000, 2000],
        }))
        .await;
    }

    fn address(&self) -> SocketAddr {
        self.simulator.as_ref().expect("it is there").address()
    }

    pub fn url(&self) -> String {
        format!("http://{}/suno", self.address())
    }

    /// Nothing more goes wrong, so that everything ends.
    pub async fn be_kind(&self) {
        self.steer(json!({"loss": 0, "duplicate": 0, "drop_answer": 0, "http_500": 0})).await;
    }

    async fn steer(&self, change: Value) {
        let control = client().post(format!("http://{}/control", self.address())).json(&change);
        assert!(control.send().await.expect("an answer").status().is_success(), "{change}");
    }

    pub async fn stats(&self) -> Value {
        let stats = client().get(format!("http://{}/control/stats", self.address()));
        stats.send().await.expect("an answer").json().await.expect("figures")
    }

    /// Another order of a call only where no callback had said that the one before is alive (PROV-5).
    pub fn check(&self) -> Submissions {
        let record = self.record.lock().unwrap();
        let mut submissions = Submissions { accepted: 0, possible_duplicates: 0 };
        for ((task, call), orders) in &*record {
            let mut before: Option<&Order> = None;
            for (attempt, order) in orders.iter().filter(|(_, order)| !order.accepted.is_empty()) {
                assert_eq!(order.accepted.len(), 1, "{task}.{call}.{attempt} was accepted twice");
                submissions.accepted += 1;
                if let Some(before) = before {
                    submissions.possible_duplicates += usize::from(!before.failed);
                    let known = before.reported.is_some_and(|at| at + UNDER_WAY < order.accepted[0]);
                    assert!(
                        !known,
                        "{task}.{call}.{attempt} was submitted though the one before was reported"
                    );
                }
                before = Some(order);
            }
        }
        submissions
    }
}

fn write(record: &mut Record, seen: Seen) {
    let now = Clock.monotonic();
    match seen {
        Seen::Accepted { intent } => order(record, intent).accepted.push(now),
        Seen::CallbackTaken { intent, told: Told::Text | Told::First | Told::Complete } => {
            order(record, intent).reported.get_or_insert(now);
        }
        Seen::CallbackTaken { intent, told: Told::Failed } => order(record, intent).failed = true,
        Seen::CallbackLeaves { .. } => {}
    }
}

fn order<'a>(record: &'a mut Record, intent: &str) -> &'a mut Order {
    let key: CallKey = intent.parse().expect("every order names its call");
    record.entry((key.task.to_string(), key.call)).or_default().entry(key.attempt).or_default()
}
