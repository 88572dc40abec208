//! One of the people of a scenario: orders songs as an app would, takes the first words at sight, and knows
//! of each song what their sockets told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use songflight::chance;
use songflight::id::TaskId;
use songflight::simulator::Told;
use songflight::time::Clock;
use tokio::sync::{Notify, watch};

use super::figures::Seen;
use super::provider::Record;
use super::scenario::{Kind, Manner, Scenario};
use super::socket::Watcher;

/// What all people of a run share.
pub struct World {
    pub scenario: Scenario,
    pub url: String,
    pub http: Client,
    pub seen: RefCell<Seen>,
    /// The simulator's side, where it is ours.
    pub record: Option<Record>,
    /// Something was answered, or ended.
    pub progress: Notify,
    pub signals: watch::Sender<Signals>,
    faults: RefCell<Vec<String>>,
    faults_more: Cell<usize>,
}

/// What is told to all sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    pub storms: u32,
    /// It is over: everybody reads what there is.
    pub calm: bool,
}

pub struct Person {
    pub number: usize,
    pub token: String,
    pub manner: Manner,
    pub world: Rc<World>,
    pub songs: RefCell<HashMap<String, Known>>,
    pub watchers: Vec<Rc<Watcher>>,
    /// Orders that were turned away: their kind, and in which words.
    pub refused: RefCell<Vec<(usize, String)>>,
}

/// What is known of a song.
#[derive(Debug, Default)]
pub struct Known {
    /// When it was ordered, and of which kind it is; absent until its answer came.
    pub ordered: Option<(Instant, usize)>,
    pub ended: Option<Instant>,
    clip: bool,
    chosen: bool,
}

const FAULTS_KEPT: usize = 1_000;
/// How often somebody without a socket asks.
const ASKS_EVERY: Duration = Duration::from_secs(2);
const CHOICE_TRIES: u32 = 120;

impl World {
    pub fn new(scenario: Scenario, url: String, http: Client, record: Option<Record>) -> Self {
        Self {
            scenario,
            url,
            http,
            seen: RefCell::default(),
            record,
            progress: Notify::new(),
            signals: watch::Sender::default(),
            faults: RefCell::default(),
            faults_more: Cell::default(),
        }
    }

    pub fn fault(&self, fault: String) {
        let mut faults = self.faults.borrow_mut();
        match faults.len() < FAULTS_KEPT {
            true => faults.push(fault),
            false => self.faults_more.set(self.faults_more.get() + 1),
        }
    }

    /// The faults so far, and how many there were besides.
    pub fn faults(&self) -> (Vec<String>, usize) {
        (self.faults.take(), self.faults_more.get())
    }
}

/// Whether a song in this status is over.
pub fn is_over(status: &str) -> bool {
    matches!(status, "ready" | "complete" | "failed" | "cancelled")
}

/// How the answer to an order is taken.
enum Answer {
    Song(String),
    /// Perhaps another time.
    NotNow(String),
    Never(String),
}

impl Person {
    /// A number in `0.0..1.0` of this person's own.
    pub fn draw(&self, purpose: u64) -> f64 {
        chance::of_number(self.number as u64, purpose)
    }

    pub fn request(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(&self.token)
    }

    /// Orders a song, as often as the scenario wants to be sure of it.
    pub async fn order(self: Rc<Self>, number: usize) {
        let world = self.world.clone();
        let kind = world.scenario.kind(number);
        world.seen.borrow_mut().sent += 1;
        let started = Clock.monotonic();
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match self.order_once(number, &world.scenario.songs[kind]).await {
                Answer::NotNow(_) if tries < world.scenario.load.tries => {
                    let wait =
                        (200 << tries.min(4)) as f64 * (0.5 + self.draw(number as u64 + u64::from(tries)));
                    tokio::time::sleep(Duration::from_millis(wait as u64)).await;
                }
                answer => break answer,
            }
        };
        let took = Clock.monotonic().duration_since(started);
        match answer {
            Answer::Song(id) => {
                {
                    let mut seen = world.seen.borrow_mut();
                    seen.created += 1;
                    match number < world.scenario.load.songs {
                        true => seen.creates.add(took),
                        false => seen.creates_afterwards.add(took),
                    }
                }
                self.songs.borrow_mut().entry(id.clone()).or_default().ordered = Some((started, kind));
                self.count_if_over(&id);
            }
            Answer::NotNow(why) | Answer::Never(why) => {
                let mut seen = world.seen.borrow_mut();
                seen.refused += 1;
                seen.refusals.add(took);
                self.refused.borrow_mut().push((kind, why));
            }
        }
        world.seen.borrow_mut().answered += 1;
        world.progress.notify_one();
    }

    async fn order_once(&self, number: usize, kind: &Kind) -> Answer {
        let wish = json!({
            "mode": kind.mode.as_str(), "provider": kind.provider,
            "prompt": format!("song {number} about the sea"), "style_tags": ["waltz", "piano"],
        });
        let request = self.request(self.world.http.post(format!("{}/v1/songs", self.world.url)));
        let request = request.header("Idempotency-Key", format!("load-{number}")).json(&wish);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_timeout() => return Answer::NotNow("no answer in time".to_owned()),
            Err(_) => return Answer::NotNow("no connection".to_owned()),
        };
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap_or_default();
        let problem =
            body["type"].as_str().and_then(|kind| kind.rsplit(['/', ':']).next()).unwrap_or_default();
        match (status, body["id"].as_str()) {
            (200 | 202, Some(id)) => Answer::Song(id.to_owned()),
            // The answer broke off.
            (200 | 202, None) => Answer::NotNow("half an answer".to_owned()),
            // 408: it came to read the order too late.
            (408 | 429 | 500.., _) => {
                if !self.world.scenario.load.refusals_allowed && self.world.scenario.load.tries == 1 {
                    self.world.fault(format!("order {number} was refused: {status} {body}"));
                }
                Answer::NotNow(format!("{status} {problem}"))
            }
            _ => {
                self.world.fault(format!("order {number} was refused: {status} {body}"));
                Answer::Never(format!("{status} {problem}"))
            }
        }
    }

    /// Something new was told of a song, by whichever way; `heard` is the moment.
    pub fn learn(self: &Rc<Self>, id: &str, status: &str, heard: Instant) {
        let choose = {
            let mut songs = self.songs.borrow_mut();
            let known = songs.entry(id.to_owned()).or_default();
            if is_over(status) && known.ended.is_none() {
                known.ended = Some(heard);
                drop(songs);
                return self.count(id, status);
            }
            status == "lyrics_ready" && !std::mem::replace(&mut known.chosen, true)
        };
        if choose {
            actix_web::rt::spawn(self.clone().choose(id.to_owned()));
        }
    }

    /// The lead socket told of a first clip.
    pub fn saw_clip(&self, id: &str) {
        let mut songs = self.songs.borrow_mut();
        let known = songs.entry(id.to_owned()).or_default();
        if !std::mem::replace(&mut known.clip, true) {
            self.world.seen.borrow_mut().with_clip += 1;
        }
    }

    /// How long an event of this kind was under way from the provider, if a callback brought it.
    pub fn under_way(
        &self,
        fields: &serde_json::Map<String, Value>,
        kind: &str,
        heard: Instant,
    ) -> Option<Duration> {
        let (phase, told) = match kind {
            "lyrics_ready" => ("lyrics", Told::Complete),
            "clip_ready" => ("music", Told::First),
            "ready" => ("music", Told::Complete),
            _ => return None,
        };
        let task: TaskId = fields.get("progress")?[phase]["task_id"].as_str()?.parse().ok()?;
        let record = self.world.record.as_ref()?;
        let mut left = record.departure(task, told)?;
        // There each clip has a callback of its own, and the song is ready when all of them came.
        if kind == "ready" && fields.get("provider").is_some_and(|provider| provider == "musicgpt") {
            left = left.max(record.departure(task, Told::First)?);
        }
        heard.checked_duration_since(left)
    }

    fn count_if_over(&self, id: &str) {
        let over = self.songs.borrow().get(id).is_some_and(|known| known.ended.is_some());
        let status = over.then(|| self.told_status(id)).flatten();
        if let Some(status) = status {
            self.count(id, &status);
        }
    }

    fn told_status(&self, id: &str) -> Option<String> {
        let lead = self.watchers.first()?.follower.borrow();
        Some(lead.songs.get(id)?.fields.get("status")?.as_str()?.to_owned())
    }

    /// Counts a song that was ordered and is over.
    fn count(&self, id: &str, status: &str) {
        let songs = self.songs.borrow();
        let Some((ordered, ended)) = songs.get(id).and_then(|known| Some((known.ordered?.0, known.ended?)))
        else {
            return;
        };
        let mut seen = self.world.seen.borrow_mut();
        *seen.ended.entry(status.to_owned()).or_default() += 1;
        seen.last_end = seen.last_end.max(Some(ended));
        if is_over(status) && status != "failed" && status != "cancelled" {
            seen.whole.add(ended.saturating_duration_since(ordered));
        }
        self.world.progress.notify_one();
    }

    async fn choose(self: Rc<Self>, id: String) {
        let mut last = String::new();
        for _ in 0..CHOICE_TRIES {
            let request = self.world.http.post(format!("{}/v1/songs/{id}/lyrics", self.world.url));
            match self.request(request).json(&json!({"variant_index": 0})).send().await {
                Ok(answer) if answer.status().is_success() || answer.status().as_u16() == 409 => return,
                Ok(answer) => last = answer.status().to_string(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.world.fault(format!("song {id}: no words could be chosen: {last}"));
    }

    /// In place of a socket: asks for every song that is not over.
    pub async fn ask(self: Rc<Self>) {
        loop {
            tokio::time::sleep(ASKS_EVERY).await;
            let open: Vec<String> = {
                let songs = self.songs.borrow();
                songs.iter().filter(|(_, known)| known.ended.is_none()).map(|(id, _)| id.clone()).collect()
            };
            for id in open {
                // A server that is away for a moment is asked again anyway.
                let Ok(song) = self.read(&id).await else { continue };
                let status = song["status"].as_str().unwrap_or_default();
                self.learn(&id, status, Clock.monotonic());
            }
        }
    }

    /// The song as HTTP tells it.
    pub async fn read(&self, id: &str) -> Result<Value, String> {
        let request = self.request(self.world.http.get(format!("{}/v1/songs/{id}", self.world.url)));
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let song: Value = answer.json().await.map_err(|error| error.to_string())?;
        match status.is_success() {
            true => Ok(song),
            false => Err(format!("song {id} cannot be read: {status} {song}")),
        }
    }
}
