//! A server over a log of its own, which can be slow, away, forgetful and held.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpRequest, HttpResponse, web};
use async_trait::async_trait;
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value, json};
use songflight::id::{ShareToken, SongId, UserId};
use songflight::realtime::socket::{Ctx, Handshake, Talk};
use songflight::realtime::{Deps, Identity, Realtime, Settings, TokenError, Verifier, handover, session};
use songflight::song::event::EventKind;
use songflight::store::feed::{Feed, Head, Page, Snapshot};
use songflight::store::{SongChanged, StoreError};
use songflight::time::{Clock, Time};
use tokio::sync::{Notify, Semaphore};

use crate::client::Client;

/// A server, and the log that it reads.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) realtime: Realtime,
    pub(crate) port: u16,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) epoch: i64,
    pub(crate) u: BTreeMap<String, i64>,
    pub(crate) songs: BTreeMap<String, (String, i64, Map<String, Value>)>,
    pub(crate) events: Vec<SongChanged>,
    pub(crate) links: BTreeMap<String, SongId>,
    pub(crate) away: bool,
    pub(crate) stumbles: bool,
    pub(crate) delay: Duration,
    pub(crate) held: Option<Arc<Held>>,
}

/// Readings that are done and not yet answered, until they are let go.
pub(crate) struct Held {
    pub(crate) begun: Notify,
    go: Semaphore,
}

impl Held {
    pub(crate) fn let_go(&self) {
        self.go.close();
    }
}

impl Log {
    pub(crate) fn forget_before(&mut self, n: usize) {
        self.events.drain(..n);
    }
}

impl World {
    pub(crate) fn start(settings: Settings) -> Self {
        let log = Arc::new(Mutex::new(Log { epoch: 7, ..Log::default() }));
        let door = Arc::new(Door::default());
        let deps = Deps { feed: Arc::new(Shelf(Arc::clone(&log))), verifier: door.clone(), clock: Clock };
        let arbiters = [actix::Arbiter::new().handle(), actix::Arbiter::new().handle()];
        let realtime = Realtime::start(settings, deps, &arbiters);
        assert!(door.1.set(realtime.clone()).is_ok());
        let data = web::Data::new(realtime.clone());
        let app = move || {
            let piecemeal = || async {
                let pieces = ["piece ", "by ", "piece"].map(|piece| Ok::<_, actix_web::Error>(piece.into()));
                HttpResponse::Ok().streaming(futures_util::stream::iter(pieces))
            };
            App::new()
                .app_data(data.clone())
                .route("/v1/ws", web::get().to(session::open))
                .route("/v1/late", web::get().to(late))
                .route("/said", web::post().to(|said: String| async { said }))
                .route("/piecemeal", web::get().to(piecemeal))
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let connections = move || handover::connections(app.clone(), std::future::pending);
        let server = Server::build().workers(2).disable_signals().listen("realtime", listener, connections);
        actix_web::rt::spawn(server.expect("a listener").run());
        Self { log, realtime, port }
    }

    pub(crate) fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().expect("the log")
    }

    /// From now on readings see what is there and are not answered.
    pub(crate) fn hold(&self) -> Arc<Held> {
        let held = Arc::new(Held { begun: Notify::new(), go: Semaphore::new(0) });
        self.log().held = Some(Arc::clone(&held));
        held
    }

    pub(crate) fn create(&self, user: &str) -> SongId {
        let song = SongId(songflight::id::fresh());
        self.log().songs.insert(song.to_string(), (user.to_owned(), 0, Map::new()));
        self.change(song, json!({"status": "pending"}));
        song
    }

    pub(crate) fn change(&self, song: SongId, set: Value) {
        let change = self.commit(song, set);
        self.realtime.changed(change);
    }

    /// It is gone from its user, to another one or altogether.
    pub(crate) fn remove(&self, song: SongId, to: Option<&str>) {
        let gone = SongChanged { kind: EventKind::Gone, ..self.commit(song, json!({})) };
        let removed = self.log().songs.remove(&song.to_string());
        if let (Some((_, seq, fields)), Some(owner)) = (removed, to) {
            self.log().songs.insert(song.to_string(), (owner.to_owned(), seq, fields));
        }
        self.realtime.changed(gone);
    }

    /// Committed, but nobody is told.
    pub(crate) fn change_unheard(&self, song: SongId, set: Value) {
        self.commit(song, set);
    }

    pub(crate) fn commit(&self, song: SongId, set: Value) -> SongChanged {
        let mut log = self.log();
        let Value::Object(set) = set else { panic!("a set is an object") };
        let (user, seq, fields) = log.songs.get_mut(&song.to_string()).expect("the song");
        *seq += 1;
        fields.extend(set.clone());
        let (user, seq) = (user.clone(), *seq);
        let u = log.u.entry(user.clone()).or_default();
        *u += 1;
        let change = SongChanged {
            user: UserId::trusted(&user),
            song,
            seq,
            u: *u,
            at: Time::from_millis(*u),
            kind: if seq == 1 { EventKind::Created } else { EventKind::Updated },
            set: serde_json::value::to_raw_value(&set).expect("JSON").into(),
        };
        log.events.push(change.clone());
        change
    }

    pub(crate) fn u(&self, user: &str) -> i64 {
        self.log().u[user]
    }

    pub(crate) fn truth(&self) -> BTreeMap<String, (i64, Map<String, Value>)> {
        self.log().songs.iter().map(|(id, (_, seq, fields))| (id.clone(), (*seq, fields.clone()))).collect()
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/v1/ws", self.port)
    }

    pub(crate) async fn connect(&self) -> Client {
        Client(tokio_tungstenite::connect_async(self.url()).await.expect("connected").0)
    }

    pub(crate) async fn client(&self, token: &str, channels: &[&str]) -> Client {
        let mut client = self.connect().await;
        let subs: Vec<Value> = channels.iter().map(|ch| json!({"ch": ch})).collect();
        client.hello(Some(token), &subs).await;
        client
    }

    /// Changes a song so often that whoever does not read is jammed.
    pub(crate) async fn fill(&self, song: SongId) {
        for n in 0..3000 {
            self.change(song, json!({"text": "x".repeat(2000), "n": n}));
            if n % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    pub(crate) async fn emptied(&self) {
        while self.realtime.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A socket that is opened although this program leaves, as by a worker that looked for that a moment before.
async fn late(request: HttpRequest, realtime: web::Data<Realtime>) -> actix_web::Result<HttpResponse> {
    let handshake = Handshake::of(&request)?;
    let (connection, registry) = realtime.bare_connection(&handshake);
    Ok(handshake.accept(registry, connection, Settings::default().frame_bytes_max, Mute))
}

/// Has nothing to say.
struct Mute;

impl Talk for Mute {
    fn text(&mut self, _: String, _: &mut Ctx<Self>) {}
    fn binary(&mut self, _: Vec<u8>, _: &mut Ctx<Self>) {}
}

/// The feed out of the log.
pub(crate) struct Shelf(Arc<Mutex<Log>>);

impl Shelf {
    /// Everything a reading sees is of one moment; its answer takes a while.
    pub(crate) async fn read<T>(&self, read: impl FnOnce(&Log) -> T) -> Result<T, StoreError> {
        let stumbles = self.0.lock().expect("the log").stumbles;
        assert!(!stumbles, "a fault that this test plants");
        let (answer, delay, held) = {
            let log = self.0.lock().expect("the log");
            if log.away {
                return Err(StoreError::Unavailable("away".to_owned()));
            }
            (read(&log), log.delay, log.held.clone())
        };
        if let Some(held) = held {
            held.begun.notify_one();
            let _ = held.go.acquire().await;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(answer)
    }
}

pub(crate) fn head(log: &Log, user: &UserId) -> i64 {
    log.u.get(user.as_str()).copied().unwrap_or(0)
}

pub(crate) fn seen(id: &str, seq: i64, fields: &Map<String, Value>) -> Map<String, Value> {
    let mut song = fields.clone();
    song.extend([("id".to_owned(), json!(id)), ("seq".to_owned(), json!(seq))]);
    song
}

#[async_trait]
impl Feed for Shelf {
    async fn heads(&self, users: &[UserId]) -> Result<HashMap<UserId, Head>, StoreError> {
        self.read(|log| {
            let head = |user: &UserId| (user.clone(), Head { epoch: log.epoch, u: head(log, user) });
            users.iter().map(head).collect()
        })
        .await
    }

    async fn of_user(&self, user: &UserId, u: i64, limit: i64) -> Result<Page, StoreError> {
        let events = |event: &&SongChanged| event.user == *user && event.u > u;
        let limit = usize::try_from(limit).unwrap_or(0);
        self.read(|log| Page {
            epoch: log.epoch,
            u: head(log, user),
            head: head(log, user),
            events: log.events.iter().filter(events).take(limit).cloned().collect(),
        })
        .await
    }

    async fn of_song(
        &self,
        user: &UserId,
        song: SongId,
        seq: i64,
        limit: i64,
    ) -> Result<Option<Page>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(0);
        self.read(|log| {
            let (_, newest, _) =
                log.songs.get(&song.to_string()).filter(|(owner, ..)| owner == user.as_str())?;
            let events = log.events.iter().filter(|event| event.song == song && event.seq > seq);
            let events = events.take(limit).cloned().collect();
            Some(Page { epoch: log.epoch, u: head(log, user), head: *newest, events })
        })
        .await
    }

    async fn songs(&self, user: &UserId) -> Result<Snapshot, StoreError> {
        self.read(|log| {
            let own = log.songs.iter().filter(|(_, (owner, ..))| owner == user.as_str());
            let songs = own.map(|(id, (_, seq, fields))| seen(id, *seq, fields)).collect();
            Snapshot { epoch: log.epoch, u: head(log, user), head: head(log, user), songs }
        })
        .await
    }

    async fn song(&self, user: &UserId, song: SongId) -> Result<Option<Snapshot>, StoreError> {
        let id = song.to_string();
        self.read(|log| {
            let (_, seq, fields) = log.songs.get(&id).filter(|(owner, ..)| owner == user.as_str())?;
            let songs = vec![seen(&id, *seq, fields)];
            Some(Snapshot { epoch: log.epoch, u: head(log, user), head: *seq, songs })
        })
        .await
    }

    async fn shared(&self, token: ShareToken) -> Result<Option<(SongId, UserId)>, StoreError> {
        self.read(|log| {
            let song = *log.links.get(&token.to_string())?;
            Some((song, UserId::trusted(&log.songs.get(&song.to_string())?.0)))
        })
        .await
    }
}

/// Tokens are users' names, but for some. It keeps whether somebody has signed out, and where.
#[derive(Default)]
struct Door(AtomicBool, OnceLock<Realtime>);

impl Verifier for Door {
    fn verify<'a>(&'a self, token: &'a str) -> LocalBoxFuture<'a, Result<Identity, TokenError>> {
        let identity = match token {
            "bad" => Err(TokenError::Bad),
            "expired" => Err(TokenError::Expired),
            "banned" => Err(TokenError::Forbidden),
            "away" => Err(TokenError::Unavailable),
            // Signed out while the token is being checked, which does not know it yet.
            "leaving" if !self.0.swap(true, Ordering::SeqCst) => {
                let user = UserId::trusted(token);
                self.1.get().expect("it runs").revoke(&user);
                Ok(Identity { user, expires: Clock.now() + Duration::from_secs(3600) })
            }
            "leaving" => Err(TokenError::Forbidden),
            user => {
                Ok(Identity { user: UserId::trusted(user), expires: Clock.now() + Duration::from_secs(3600) })
            }
        };
        Box::pin(std::future::ready(identity))
    }
}
