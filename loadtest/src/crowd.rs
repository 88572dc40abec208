//! The people of a scenario: each with a token, a WebSocket that follows all of their songs, and a request
//! for each song they order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use reqwest::Client;
use serde_json::{Value, json};
use songflight::id::TaskId;
use songflight::time::Clock;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::figures::Seen;
use super::follow::{Came, Follower};
use super::scenario::{Mode, Scenario};
use super::stage::{Departures, Stage};
use super::{Failure, cannot};

pub struct Crowd {
    pub seen: Rc<RefCell<Seen>>,
    people: Vec<Rc<Person>>,
    songs: usize,
    mode: Mode,
    progress: Rc<Notify>,
}

struct Person {
    url: String,
    token: String,
    http: Client,
    follower: RefCell<Follower>,
    /// When each song was ordered, by id; and when its answer came after its events, also by id.
    ordered: RefCell<HashMap<String, Instant>>,
    ready: RefCell<HashMap<String, Instant>>,
    departures: Departures,
    seen: Rc<RefCell<Seen>>,
    progress: Rc<Notify>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Sockets that are opened, and songs that are read, side by side.
const SIDE_BY_SIDE: usize = 64;

impl Crowd {
    /// Everybody is connected and watching.
    pub async fn gather(stage: &Stage, scenario: &Scenario) -> Result<Self, Failure> {
        let seen: Rc<RefCell<Seen>> = Rc::default();
        let progress: Rc<Notify> = Rc::default();
        let http = Client::builder()
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .build()
            .map_err(cannot("the http client"))?;
        let person = |number: usize| {
            Rc::new(Person {
                url: stage.url.clone(),
                token: stage.token(&format!("load-{}-{number}", std::process::id())),
                http: http.clone(),
                follower: RefCell::default(),
                ordered: RefCell::default(),
                ready: RefCell::default(),
                departures: stage.departures.clone(),
                seen: seen.clone(),
                progress: progress.clone(),
            })
        };
        let people: Vec<_> = (0..scenario.users()).map(person).collect();
        let mut arriving = futures_util::stream::iter(people.clone())
            .map(|person| async move { person.arrive().await })
            .buffer_unordered(SIDE_BY_SIDE);
        while let Some(arrived) = arriving.next().await {
            arrived?;
        }
        drop(arriving);
        Ok(Self { seen, people, songs: scenario.songs, mode: scenario.mode, progress })
    }

    /// Orders all songs at once, and waits until each has ended.
    pub async fn go(&self) {
        self.seen.borrow_mut().began = Some(Clock.monotonic());
        let mut orders: FuturesUnordered<_> = (0..self.songs)
            .map(|number| {
                let person = self.people[number % self.people.len()].clone();
                async move { person.order(self.mode, number).await }
            })
            .collect();
        while orders.next().await.is_some() {}
        while {
            let seen = self.seen.borrow();
            seen.ready + seen.lost < self.songs
        } {
            self.progress.notified().await;
        }
    }

    /// What was wrong with what the people saw.
    pub async fn check(&self, stage: &Stage) -> Vec<String> {
        let mut faults = Vec::new();
        for person in &self.people {
            faults.append(&mut person.follower.borrow_mut().faults);
        }
        let songs = self.people.iter().flat_map(|person| {
            let ids: Vec<String> = person.ordered.borrow().keys().cloned().collect();
            ids.into_iter().map(|id| (person.clone(), id))
        });
        let compared: Vec<_> = futures_util::stream::iter(songs)
            .map(|(person, id)| {
                let url = format!("{}/v1/songs/{id}", stage.url);
                async move { person.compare(&url, &id).await }
            })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        faults.extend(compared.into_iter().filter_map(Result::err));
        faults
    }
}

impl Person {
    async fn arrive(self: Rc<Self>) -> Result<(), Failure> {
        let wrong = || cannot("a socket could not be opened (is the limit of open files too low?)");
        let url = format!("{}/v1/ws", self.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().map_err(cannot("the url"))?;
        let protocol = "songs.v1".parse().map_err(cannot("the protocol"))?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (socket, _) = connect_async(request).await.map_err(wrong())?;
        self.follower.borrow_mut().connected();
        let (mut say, mut hear) = socket.split();
        let hello = json!({"t": "hello", "id": 1, "token": self.token, "subs": [{"ch": "me"}]});
        say.send(Message::text(hello.to_string())).await.map_err(wrong())?;
        loop {
            match self.hear(&mut say, &mut hear).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => return Err(Failure(format!("a socket ended at once: {error}"))),
            }
        }
        actix_web::rt::spawn(async move {
            let why = loop {
                if let Err(error) = self.hear(&mut say, &mut hear).await {
                    break error;
                }
            };
            self.follower.borrow_mut().faults.push(format!("a socket was lost: {why}"));
        });
        Ok(())
    }

    /// Takes one message; whether it said that all is up to date.
    async fn hear(
        &self,
        say: &mut SplitSink<Socket, Message>,
        hear: &mut SplitStream<Socket>,
    ) -> Result<bool, String> {
        let message = hear.next().await.ok_or("it closed")?.map_err(|error| error.to_string())?;
        let now = Clock.monotonic();
        let Message::Text(text) = message else { return Ok(false) };
        let mut live = false;
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            let frame: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
            let came = self.follower.borrow_mut().take(&frame);
            match came {
                Came::Event { song, kind } => self.happened(song, &kind, now),
                Came::Ping => {
                    say.send(Message::text(r#"{"t":"pong"}"#)).await.map_err(|error| error.to_string())?;
                }
                Came::Live => live = true,
                Came::Refusal(why) => return Err(why),
                Came::Nothing => {}
            }
        }
        Ok(live)
    }

    fn happened(&self, song: String, kind: &str, now: Instant) {
        let phase = match kind {
            "lyrics_ready" => "lyrics",
            "clip_ready" | "updated" | "ready" => "music",
            "failed" | "cancelled" => {
                self.seen.borrow_mut().lost += 1;
                return self.progress.notify_one();
            }
            _ => return,
        };
        let left = self.task(&song, phase).and_then(|task| self.departures.take(task));
        {
            let mut seen = self.seen.borrow_mut();
            seen.callbacks_add(left, now);
            match kind {
                "clip_ready" => seen.with_clip += 1,
                "ready" => {
                    seen.ready += 1;
                    seen.ended = Some(now);
                }
                _ => {}
            }
        }
        match kind {
            "ready" => {
                let ordered = self.ordered.borrow().get(&song).copied();
                match ordered {
                    Some(at) => self.seen.borrow_mut().whole.add(now.duration_since(at)),
                    // Its answer is still on its way.
                    None => drop(self.ready.borrow_mut().insert(song, now)),
                }
                self.progress.notify_one();
            }
            "lyrics_ready" => {
                let request = self.http.post(format!("{}/v1/songs/{song}/lyrics", self.url));
                let choice = request.bearer_auth(&self.token).json(&json!({"variant_index": 0})).send();
                actix_web::rt::spawn(choice);
            }
            _ => {}
        }
    }

    /// The newest task of a phase, as the events told it.
    fn task(&self, song: &str, phase: &str) -> Option<TaskId> {
        let follower = self.follower.borrow();
        follower.songs.get(song)?.fields.get("progress")?[phase]["task_id"].as_str()?.parse().ok()
    }

    async fn order(&self, mode: Mode, number: usize) {
        let wish = json!({"mode": mode.as_str(), "prompt": format!("song {number} about the sea"),
                          "style_tags": ["waltz", "piano"]});
        let started = Clock.monotonic();
        let request = self.http.post(format!("{}/v1/songs", self.url)).bearer_auth(&self.token);
        let request = request.header("Idempotency-Key", format!("load-{number}")).json(&wish);
        let answer = async {
            let response = request.send().await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body: Value = response.json().await.map_err(|error| error.to_string())?;
            match (status, body["id"].as_str()) {
                (202, Some(id)) => Ok(id.to_owned()),
                _ => Err(format!("a song was refused: {status} {body}")),
            }
        };
        let answer = answer.await;
        let mut seen = self.seen.borrow_mut();
        match answer {
            Ok(id) => {
                seen.created += 1;
                seen.creates.add(Clock.monotonic().duration_since(started));
                if let Some(ready) = self.ready.borrow_mut().remove(&id) {
                    seen.whole.add(ready.duration_since(started));
                }
                self.ordered.borrow_mut().insert(id, started);
            }
            Err(fault) => {
                seen.lost += 1;
                self.follower.borrow_mut().faults.push(fault);
            }
        }
        self.progress.notify_one();
    }

    /// Whether the events made the same song of it that HTTP tells, and all of them came.
    async fn compare(&self, url: &str, id: &str) -> Result<(), String> {
        let answer =
            self.http.get(url).bearer_auth(&self.token).send().await.map_err(|error| error.to_string())?;
        let song: Value = answer.json().await.map_err(|error| error.to_string())?;
        let follower = self.follower.borrow();
        follower.compare(&song)?;
        let told = follower.songs.get(id).map_or(0, |song| song.kinds.len());
        let skipped = usize::try_from(follower.figures.skipped).unwrap_or(usize::MAX);
        if song["status"] != "ready" || song["seq"].as_u64() > Some((told + skipped) as u64) {
            return Err(format!("song {id} is {}; {told} of {} events came", song["status"], song["seq"]));
        }
        Ok(())
    }
}
