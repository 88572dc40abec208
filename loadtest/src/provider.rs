//! The providers' side: the simulator in this process, what it is told to do when, and its own record of what
//! was ordered and when callbacks left.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use songflight::id::{CallKey, TaskId};
use songflight::simulator::{self, Options, Seen, Simulator, Told};
use songflight::time::Clock;

use super::scenario::Scenario;
use super::{Failure, cannot};

pub struct Provider {
    simulator: Simulator,
    pub record: Record,
    http: reqwest::Client,
}

/// What the simulator saw, shared with its threads.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// The first time; again for each double, each try, and each clip where those are told one by one.
    departures: HashMap<(TaskId, Told), Instant>,
    /// How often each attempt of each call was taken, and paid for.
    orders: HashMap<(TaskId, u8), HashMap<u16, u32>>,
    /// Submissions without a key of ours.
    strangers: u64,
}

/// What was paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    pub accepted: u64,
    /// The same attempt was taken again: must never be.
    pub repeated: u64,
    /// Several attempts of one call were taken: the earlier ones had failed, or their fate was unknown.
    pub again: u64,
    pub strangers: u64,
}

impl Record {
    /// When the callback that told this left first, if it did.
    pub fn departure(&self, task: TaskId, told: Told) -> Option<Instant> {
        self.held().departures.get(&(task, told)).copied()
    }

    pub fn orders(&self) -> Orders {
        let held = self.held();
        let mut orders = Orders { strangers: held.strangers, ..Orders::default() };
        for attempts in held.orders.values() {
            orders.accepted += attempts.values().map(|times| u64::from(*times)).sum::<u64>();
            orders.repeated += attempts.values().map(|times| u64::from(times - 1)).sum::<u64>();
            orders.again += attempts.len() as u64 - 1;
        }
        orders
    }

    fn note(&self, seen: Seen) {
        match seen {
            Seen::CallbackLeaves { intent, told } => {
                let Ok(key) = intent.parse::<CallKey>() else { return };
                self.held().departures.entry((key.task, told)).or_insert_with(|| Clock.monotonic());
            }
            Seen::Accepted { intent } => match intent.parse::<CallKey>() {
                Ok(key) => {
                    let mut held = self.held();
                    *held.orders.entry((key.task, key.call)).or_default().entry(key.attempt).or_default() +=
                        1;
                }
                Err(_) => self.held().strangers += 1,
            },
            Seen::CallbackTaken { .. } => {}
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provider {
    /// # Errors
    /// When the simulator cannot be started, or does not take what the scenario tells it.
    pub async fn start(scenario: &Scenario) -> Result<Self, Failure> {
        let record = Record::default();
        let writing = record.clone();
        let observer: simulator::Observer = Arc::new(move |seen: Seen| writing.note(seen));
        let options = Options { observer: Some(observer), ..Options::default() };
        let listener = TcpListener::bind("127.0.0.1:0").map_err(cannot("a port for the simulator"))?;
        let simulator = simulator::start(listener, options).map_err(cannot("the simulator"))?;
        let http = reqwest::Client::builder().no_proxy().build().map_err(cannot("the http client"))?;
        let provider = Self { simulator, record, http };
        let behaviour = serde_json::to_value(&scenario.provider).map_err(cannot("[provider]"))?;
        provider.steer(&behaviour).await?;
        Ok(provider)
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.simulator.address())
    }

    /// These are away from now on; nobody else is.
    pub async fn down(&self, names: &[&str]) -> Result<(), Failure> {
        self.steer(&json!({ "down": names })).await
    }

    async fn steer(&self, change: &Value) -> Result<(), Failure> {
        let answer = self.http.post(self.url("control")).json(change).send().await;
        let answer = answer.map_err(cannot("the simulator"))?;
        match answer.status().is_success() {
            true => Ok(()),
            false => {
                let problem: Value = answer.json().await.unwrap_or_default();
                let detail = problem["detail"].as_str().unwrap_or_default();
                Err(Failure(format!("[provider] {detail}")))
            }
        }
    }

    pub async fn stats(&self) -> Value {
        match self.http.get(self.url("control/stats")).send().await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }

    pub async fn stop(self) {
        self.simulator.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_counted_by_call_and_attempt() {
        let record = Record::default();
        let task = "0198f000-0000-7000-8000-000000000001";
        for intent in
            [format!("{task}.0.1"), format!("{task}.0.1"), format!("{task}.0.2"), format!("{task}.1.1")]
        {
            record.note(Seen::Accepted { intent: &intent });
        }
        record.note(Seen::Accepted { intent: "somebody" });
        let orders = Orders { accepted: 4, repeated: 1, again: 1, strangers: 1 };
        assert_eq!(record.orders(), orders);
    }

    #[test]
    fn a_departure_is_the_first_of_its_kind() {
        let record = Record::default();
        let intent = "0198f000-0000-7000-8000-000000000001.0.1";
        let task = intent.split('.').next().and_then(|task| task.parse().ok()).expect("a task's id");
        record.note(Seen::CallbackLeaves { intent, told: Told::First });
        let first = record.departure(task, Told::First);
        record.note(Seen::CallbackLeaves { intent, told: Told::First });
        assert!(first.is_some() && record.departure(task, Told::First) == first);
        assert!(record.departure(task, Told::Complete).is_none());
    }
}
