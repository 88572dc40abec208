//! A socket that follows all songs of a person, in one of the manners sockets have in the wild, and comes back
//! with its cursor whenever it was lost. What it is told is checked by `follow`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use songflight::time::Clock;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::follow::{Came, Follower};
use super::person::{Person, Signals};
use super::scenario::Manner;

pub struct Watcher {
    pub follower: RefCell<Follower>,
    /// The first of its person's: it decides what its person knows.
    lead: bool,
    connections: Cell<u64>,
    live: Cell<bool>,
}

type Say = SplitSink<WebSocketStream<TcpStream>, Message>;
type Hear = SplitStream<WebSocketStream<TcpStream>>;

/// How a connection ended.
enum End {
    Lost(String),
    /// On purpose; so long it stays away.
    Left(Duration),
}

/// A small window, so that what is not read is soon felt at the other end.
const SMALL_WINDOW_BYTES: u32 = 4 << 10;
const SLOW_PAUSE: Duration = Duration::from_millis(100);
/// Longer than the server waits for a sign of life: a ping and its pong.
const JAMMED_FOR: Duration = Duration::from_secs(45);
/// A steady socket that could not be opened so often in a row is a fault.
const OPENINGS_MAX: u32 = 20;

impl Watcher {
    pub fn new(lead: bool) -> Self {
        Self { follower: RefCell::default(), lead, connections: Cell::new(0), live: Cell::new(false) }
    }

    /// Follows for ever; `arrived` is called when it is up to date for the first time.
    pub async fn keep(self: Rc<Self>, person: Rc<Person>, arrived: impl FnOnce()) {
        let mut arrived = Some(arrived);
        let mut failed = 0;
        let mut wish = Clock.monotonic();
        loop {
            let signals = person.world.signals.subscribe();
            let end = match self.open(&person).await {
                Ok((say, hear)) => {
                    failed = 0;
                    self.hold(&person, signals, say, hear, wish, &mut arrived).await
                }
                Err(why) => {
                    failed += 1;
                    if failed == OPENINGS_MAX && !person.world.scenario.is_rough() {
                        person.world.fault(format!("a socket could not be opened: {why}"));
                    }
                    End::Lost(format!("not opened: {why}"))
                }
            };
            if self.live.replace(false) {
                person.world.seen.borrow_mut().live -= 1;
            }
            let again = match end {
                End::Left(away) => {
                    tokio::time::sleep(away).await;
                    Clock.monotonic()
                }
                End::Lost(why) => {
                    self.lost(&person, why);
                    let now = Clock.monotonic();
                    let wait = 100.0 + 400.0 * person.draw(self.connections.get() + u64::from(failed));
                    tokio::time::sleep(Duration::from_millis(wait as u64)).await;
                    now
                }
            };
            if failed == 0 {
                wish = again;
            }
        }
    }

    fn lost(&self, person: &Person, why: String) {
        let world = &person.world;
        let forgiven = world.scenario.is_rough()
            || matches!(person.manner, Manner::Slow | Manner::Jammed | Manner::Mobile);
        if !forgiven && self.connections.get() > 0 {
            world.fault(format!("a {} socket was lost: {why}", person.manner.as_str()));
        }
        let how = format!("{}: {}", person.manner.as_str(), why.chars().take(90).collect::<String>());
        *world.seen.borrow_mut().cuts.entry(how).or_default() += 1;
    }

    async fn open(&self, person: &Person) -> Result<(Say, Hear), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let url = format!("{}/v1/ws", person.world.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().map_err(|error| text(&error))?;
        let protocol = "songs.v1".parse().map_err(|error| text(&error))?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let place = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let mut addresses = lookup_host(place).await.map_err(|error| text(&error))?;
        let address = addresses.next().ok_or("its address is not known")?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|error| text(&error))?;
        if matches!(person.manner, Manner::Slow | Manner::Jammed) {
            socket.set_recv_buffer_size(SMALL_WINDOW_BYTES).map_err(|error| text(&error))?;
        }
        let stream = socket.connect(address).await.map_err(|error| text(&error))?;
        let (socket, _) = client_async(request, stream).await.map_err(|error| text(&error))?;
        let (mut say, hear) = socket.split();
        let since = self.follower.borrow().cursor.clone();
        self.follower.borrow_mut().connected();
        let sub = since.map_or(json!({"ch": "me"}), |since| json!({"ch": "me", "since": since}));
        let hello = json!({"t": "hello", "id": 1, "token": person.token, "subs": [sub]});
        say.send(Message::text(hello.to_string())).await.map_err(|error| text(&error))?;
        Ok((say, hear))
    }

    async fn hold(
        &self,
        person: &Rc<Person>,
        mut signals: watch::Receiver<Signals>,
        mut say: Say,
        mut hear: Hear,
        wish: Instant,
        arrived: &mut Option<impl FnOnce()>,
    ) -> End {
        let number = self.connections.replace(self.connections.get() + 1);
        person.world.seen.borrow_mut().connections += 1;
        let mut calm = signals.borrow().calm;
        let mut stays = stays(person, number);
        let left = Clock.monotonic();
        loop {
            let leaves = async {
                match stays {
                    // Not before it has seen how things are.
                    Some(stays) if self.live.get() && !calm => {
                        tokio::time::sleep(stays.saturating_sub(Clock.monotonic().duration_since(left)))
                            .await;
                    }
                    _ => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = hear.next() => message,
                changed = signals.changed() => {
                    let now = *signals.borrow();
                    if changed.is_err() || now.calm {
                        calm = true;
                        continue;
                    }
                    return End::Left(Duration::ZERO);
                }
                () = leaves => {
                    stays = None;
                    match leave(person, number, &mut signals).await {
                        Some(end) => return end,
                        None => continue,
                    }
                }
            };
            let heard = Clock.monotonic();
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map_or_else(String::new, |frame| {
                        format!("{} {}", u16::from(frame.code), frame.reason)
                    });
                    return End::Lost(format!("closed {why}"));
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => return End::Lost(error.to_string()),
                None => return End::Lost("it ended".to_owned()),
            };
            match self.take(person, &text, heard, &mut say).await {
                Ok(false) => {}
                Ok(true) => {
                    if !self.live.replace(true) {
                        let mut seen = person.world.seen.borrow_mut();
                        seen.live += 1;
                        if number > 0 {
                            seen.returns.add(heard.saturating_duration_since(wish));
                        }
                    }
                    if let Some(arrived) = arrived.take() {
                        arrived();
                    }
                }
                Err(why) => return End::Lost(why),
            }
            if person.manner == Manner::Slow && !calm {
                tokio::time::sleep(SLOW_PAUSE).await;
            }
        }
    }

    /// Takes one message; whether it said that all is up to date.
    async fn take(
        &self,
        person: &Rc<Person>,
        text: &str,
        heard: Instant,
        say: &mut Say,
    ) -> Result<bool, String> {
        let mut live = false;
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            let frame: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
            let came = self.follower.borrow_mut().take(frame);
            match came {
                Came::Event { song, kind } => self.happened(person, &song, &kind, heard),
                Came::Songs(songs) => songs.iter().for_each(|song| self.told(person, song, heard)),
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

    fn happened(&self, person: &Rc<Person>, song: &str, kind: &str, heard: Instant) {
        let (took, provider) = {
            let follower = self.follower.borrow();
            let fields = follower.songs.get(song).map(|song| &song.fields);
            let provider = fields.and_then(|fields| fields.get("provider")?.as_str()).unwrap_or_default();
            (fields.and_then(|fields| person.under_way(fields, kind, heard)), provider.to_owned())
        };
        {
            let mut seen = person.world.seen.borrow_mut();
            seen.events += 1;
            if let Some(took) = took {
                match person.manner {
                    Manner::Steady => seen.callback(took, || format!("{kind} of song {song} by {provider}")),
                    _ => seen.callbacks_rough.add(took),
                }
            }
        }
        if self.lead && kind == "clip_ready" {
            person.saw_clip(song);
        }
        self.told(person, song, heard);
    }

    fn told(&self, person: &Rc<Person>, song: &str, heard: Instant) {
        if !self.lead {
            return;
        }
        let status = {
            let follower = self.follower.borrow();
            let status = follower.songs.get(song).and_then(|song| song.fields.get("status")?.as_str());
            status.map(str::to_owned)
        };
        if let Some(status) = status {
            person.learn(song, &status, heard);
        }
    }
}

/// After how long a connection is left, where its manner is to leave.
fn stays(person: &Person, connection: u64) -> Option<Duration> {
    let draw = person.draw(connection ^ 0x5eed);
    let seconds = match person.manner {
        Manner::Flapping => 1.0 + 4.0 * draw,
        Manner::Jammed => 2.0 + 3.0 * draw,
        Manner::Mobile => 3.0 + 5.0 * draw,
        Manner::Steady | Manner::Slow | Manner::None => return None,
    };
    Some(Duration::from_secs_f64(seconds))
}

/// The moment has come; `None` where it goes on reading after all.
async fn leave(person: &Person, connection: u64, signals: &mut watch::Receiver<Signals>) -> Option<End> {
    let draw = person.draw(connection ^ 0xaaa);
    let calm = async {
        // An error says that the run is over, which is as calm as can be.
        let _ = signals.wait_for(|signals| signals.calm).await;
    };
    match person.manner {
        Manner::Flapping => Some(End::Left(Duration::from_secs_f64(draw))),
        Manner::Mobile => {
            let silent = Duration::from_secs_f64(3.0 + 12.0 * draw);
            tokio::select! {
                () = tokio::time::sleep(silent) => {}
                () = calm => {}
            }
            Some(End::Left(Duration::ZERO))
        }
        Manner::Jammed => {
            tokio::select! {
                () = tokio::time::sleep(JAMMED_FOR) => {}
                () = calm => {}
            }
            None
        }
        Manner::Steady | Manner::Slow | Manner::None => None,
    }
}
