//! A client's session: hello, subscriptions, tokens, and the patience with what it says wrongly
//! (`protocol.md` 2, 3, 6, 7).
//!
//! Not here: the socket (`socket`), what a subscription brings (`hub`), time-outs (`reaper`).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use actix::fut::wrap_future;
use actix::{ActorFutureExt as _, AsyncContext as _};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tracing::warn;

use super::commands::{BadCommand, Command, Commands, Hello, Sub};
use super::connection::Connection;
use super::frames::{self, Channel, Mode, Refusal};
use super::hub::{Begun, Leave, Subscribe};
use super::outbox::LaneId;
use super::patience::{Admission, Enough, Patience, Said};
use super::socket::{self, Ctx, Handshake, Talk};
use super::{Identity, Inner, Realtime, TokenError};
use crate::api::problem::{Kind, Problem};
use crate::config::Origins;
use crate::id::UserId;

/// `GET /v1/ws` (RT-1).
///
/// # Errors
/// When the request is no proper WebSocket handshake; to be answered as it is.
pub async fn open(
    request: HttpRequest,
    realtime: web::Data<Realtime>,
) -> Result<HttpResponse, actix_web::Error> {
    let inner = Arc::clone(&realtime.inner);
    if !origin_allowed(&request, &inner.settings.allowed_origins) {
        return Ok(Problem::new(Kind::Forbidden, "Pages of this origin may not connect.").error_response());
    }
    if inner.is_leaving() {
        return Ok(Problem::leaving().error_response());
    }
    let handshake = Handshake::of(&request)?;
    let connection = inner.open(&handshake);
    let session = Session::new(Arc::clone(&inner), Arc::clone(&connection), bearer(&request));
    let registry = Arc::clone(&inner.registry);
    Ok(handshake.accept(registry, connection, inner.settings.frame_bytes_max, session))
}

/// Browsers always send an `Origin`; who sends none is not a browser, and no page can act through it.
fn origin_allowed(request: &HttpRequest, allowed: &Origins) -> bool {
    let mut origins = request.headers().get_all(header::ORIGIN);
    origins.all(|origin| origin.to_str().is_ok_and(|origin| allowed.allows(origin)))
}

/// The token from `Sec-WebSocket-Protocol: songs.v1, bearer.<base64url>`: browsers cannot set headers. One that is not
/// base64url is a bad token, not none.
fn bearer(request: &HttpRequest) -> Option<String> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let tokens = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let encoded = tokens.map(str::trim).find_map(|offer| offer.strip_prefix("bearer."))?;
    let token = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok();
    Some(token.and_then(|token| String::from_utf8(token).ok()).unwrap_or_default())
}

struct Session {
    inner: Arc<Inner>,
    connection: Arc<Connection>,
    bearer: Option<String>,
    greeted: bool,
    user: Option<UserId>,
    /// What a token is being checked for; what was said after it waits.
    asking: bool,
    /// The rest of a message that has not been heeded yet.
    rest: Commands,
    /// Subscriptions that wait for the one before them to begin.
    beginnings: VecDeque<Beginning>,
    /// One is beginning.
    begins: bool,
    patience: Patience,
}

/// A subscription whose lane is open and which has yet to begin.
struct Beginning {
    id: Option<u64>,
    lane: LaneId,
    channel: Channel,
    name: Arc<str>,
    since: Option<String>,
    user: Option<UserId>,
    said: Said,
}

impl Session {
    fn new(inner: Arc<Inner>, connection: Arc<Connection>, bearer: Option<String>) -> Self {
        let patience = Patience::new(inner.settings.commands_per_second, inner.clock.monotonic());
        let beginnings = VecDeque::new();
        Self {
            inner,
            connection,
            bearer,
            greeted: false,
            user: None,
            asking: false,
            rest: Commands::default(),
            beginnings,
            begins: false,
            patience,
        }
    }

    fn refuse(&mut self, id: Option<u64>, channel: Option<&str>, refusal: Refusal, message: &str) {
        self.connection.say(&frames::err(id, channel, refusal, message));
        let enough = self.patience.refused(refusal);
        self.judged(enough);
    }

    /// What the client has been told may have been too much of it.
    fn judged(&mut self, enough: Option<Enough>) {
        if let Some((code, reason, after_ms)) = enough {
            self.connection.close_after(code, reason, after_ms);
            // What waits to begin would be read for nobody.
            self.beginnings = VecDeque::new();
        }
    }

    fn command(&mut self, command: Command, ctx: &mut Ctx<Self>) {
        match command {
            Command::Hello(hello) if !self.greeted => return self.hello(hello, ctx),
            Command::Hello(Hello { id, .. }) => {
                return self.refuse(id, None, Refusal::BadRequest, "hello was said already");
            }
            Command::Ping { id } => self.connection.say(&frames::pong(id, self.inner.clock.now())),
            Command::Pong | Command::Unknown => return,
            Command::Sub { id, .. } | Command::Unsub { id, .. } | Command::Auth { id, .. }
                if !self.greeted =>
            {
                return self.refuse(id, None, Refusal::BadRequest, "say hello first");
            }
            Command::Sub { id, sub } => return self.subscribe(id, sub, ctx),
            Command::Unsub { id, ch } => self.unsubscribe(id, &ch),
            Command::Auth { id, token } => return self.auth(id, token, ctx),
        }
        self.patience.pleased();
    }

    fn hello(&mut self, hello: Hello, ctx: &mut Ctx<Self>) {
        self.greeted = true;
        self.connection.hello_came();
        // Taken in any case: it is not needed again, and tokens are long.
        let bearer = self.bearer.take();
        match hello.token.clone().or(bearer) {
            None => self.welcome(&hello, None),
            Some(token) => {
                let admitted = admit(Arc::clone(&self.inner), Arc::clone(&self.connection), token);
                // What comes meanwhile waits: it needs the answer.
                self.asking = true;
                ctx.wait(wrap_future(admitted).map(
                    move |identity, socket: &mut socket::Socket<Session>, ctx: &mut Ctx<Session>| {
                        socket.talk.hello_verified(&hello, identity, ctx);
                        socket.talk.go_on(ctx);
                    },
                ));
                return;
            }
        }
        self.subscribe_all(hello, ctx);
    }

    fn hello_verified(&mut self, hello: &Hello, identity: Result<Identity, Turned>, ctx: &mut Ctx<Self>) {
        match identity {
            Ok(identity) => {
                self.connection.token_ends(identity.expires);
                self.user = Some(identity.user.clone());
                self.welcome(hello, Some(&identity));
                let subs = hello.subs.iter().map(|sub| Sub { ch: sub.ch.clone(), since: sub.since.clone() });
                self.subscribe_all(Hello { id: hello.id, subs: subs.collect(), ..Hello::default() }, ctx);
            }
            Err(Turned::TooMany) => self.connection.close(4504, "too many connections"),
            Err(Turned::Token(error)) => {
                let (refusal, code, reason) = match error {
                    TokenError::Bad => (Refusal::Unauthorized, 4500, "bad token"),
                    TokenError::Expired => (Refusal::TokenExpired, 4009, "token expired"),
                    TokenError::Forbidden => (Refusal::Forbidden, 4503, "forbidden"),
                    TokenError::Unavailable => {
                        (Refusal::Unavailable { after_ms: 1000 }, 1013, "tokens cannot be checked now")
                    }
                };
                self.connection.say(&frames::err(hello.id, None, refusal, reason));
                let after_ms = (code == 1013).then_some(1000);
                self.connection.close_after(code, reason, after_ms);
            }
        }
    }

    fn welcome(&mut self, hello: &Hello, identity: Option<&Identity>) {
        let settings = &self.inner.settings;
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.connection.say(&frames::welcome(&frames::Welcome {
            id: hello.id,
            conn: &self.connection.name(&settings.node),
            now: self.inner.clock.now(),
            ping: millis(settings.ping),
            pong: millis(settings.pong),
            token_exp: identity.map(|identity| identity.expires.millis() / 1000),
            retry: frames::Retry { min: 500, max: 20_000 },
            limits: frames::ClientLimits {
                subs: settings.subs_max,
                frame: settings.frame_bytes_max,
                cmds: settings.commands_per_second,
            },
        }));
        self.patience.pleased();
    }

    /// All of a hello are one command, which cannot be the end by itself (`protocol.md` 7).
    fn subscribe_all(&mut self, hello: Hello, ctx: &mut Ctx<Self>) {
        self.patience.hello_begins();
        for sub in hello.subs {
            self.subscribe(hello.id, sub, ctx);
        }
        self.patience.hello_ends();
    }

    fn subscribe(&mut self, id: Option<u64>, sub: Sub, ctx: &mut Ctx<Self>) {
        let Ok(channel) = sub.ch.parse::<Channel>() else {
            let message = "channels are me, song:<id> and share:<token>";
            return self.refuse(id, Some(&sub.ch), Refusal::UnknownChannel, message);
        };
        // As we write it: the same channel in other letters is the same.
        let name: Arc<str> = channel.to_string().into();
        let anonymous = self.user.is_none();
        if anonymous && !matches!(channel, Channel::Share(_)) {
            return self.refuse(id, Some(&name), Refusal::Unauthorized, "this channel needs a token");
        }
        let mut outbox = self.connection.outbox();
        // What comes with `me` takes up no place; whether there is such a song, the hub finds out.
        let with_me = matches!(channel, Channel::Song(_)) && outbox.lane_of("me").is_some();
        let on = outbox.lane_of(&name).is_some();
        if !on && !with_me && outbox.lanes() >= self.inner.settings.subs_max {
            drop(outbox);
            return self.refuse(id, Some(&name), Refusal::LimitSubs, "too many subscriptions");
        }
        let lane = outbox.open_lane(&name);
        drop(outbox);
        if on {
            self.connection.say(&frames::subd(id, &name, Mode::Dup));
            self.patience.pleased();
        }
        if let Some(lane) = lane {
            let user = self.user.clone();
            let (said, Sub { since, .. }) = (self.patience.said(), sub);
            let beginning = Beginning { id, lane, channel, name: Arc::clone(&name), since, user, said };
            if self.beginnings.len() < 2 * self.inner.settings.subs_max {
                self.beginnings.push_back(beginning);
                self.begin_next(ctx);
            } else {
                self.connection.outbox().close_lane(lane);
                let refusal = Refusal::RateLimited { after_ms: 1000 };
                self.refuse(id, Some(&name), refusal, "too many subscriptions wait to begin");
            }
        }
    }

    /// Begins subscriptions one after the other, each when the pages of the one before are on their way: so a peer that
    /// does not read makes at most one snapshot wait for it. Between them nothing is kept.
    fn begin_next(&mut self, ctx: &mut Ctx<Self>) {
        if self.begins {
            return;
        }
        let Some(beginning) = self.beginnings.pop_front() else {
            self.beginnings = VecDeque::new();
            return;
        };
        self.begins = true;
        let said = beginning.said;
        let begin = begin_with_room(Arc::clone(&self.inner), Arc::clone(&self.connection), beginning);
        let go_on = move |begun, socket: &mut socket::Socket<Self>, ctx: &mut Ctx<Self>| {
            match begun {
                Ok(()) => socket.talk.patience.begun(said),
                Err(refusal) => {
                    let enough = socket.talk.patience.refused_late(refusal, said);
                    socket.talk.judged(enough);
                }
            }
            socket.talk.begins = false;
            socket.talk.begin_next(ctx);
        };
        ctx.spawn(wrap_future(begin).map(go_on));
    }

    fn unsubscribe(&mut self, id: Option<u64>, channel: &str) {
        let parsed = channel.parse::<Channel>().ok();
        let name = parsed.map_or_else(|| channel.to_owned(), |channel| channel.to_string());
        let lane = self.connection.outbox().lane_of(&name);
        if let Some(lane) = lane {
            self.connection.outbox().close_lane(lane);
            self.leave(Some(lane));
        }
        self.connection.say(&frames::unsubd(id, &name));
    }

    /// Watchers of share links are found by the hub's own sweep: whose they are is not known here.
    fn leave(&self, lane: Option<LaneId>) {
        if let Some(owner) = self.user.clone() {
            let connection = self.connection.id();
            let hub = self.inner.hub_of(&owner);
            // A full mailbox loses it; the sweep finds the lane gone.
            let _ = hub.try_send(Leave { connection, lane, owner });
        }
    }

    fn auth(&mut self, id: Option<u64>, token: String, ctx: &mut Ctx<Self>) {
        let (inner, connection) = (Arc::clone(&self.inner), Arc::clone(&self.connection));
        let anonymous = self.user.is_none();
        let verified = async move {
            match anonymous {
                true => admit(inner, connection, token).await,
                false => inner.verifier.verify(&token).await.map_err(Turned::Token),
            }
        };
        self.asking = true;
        ctx.wait(wrap_future(verified).map(
            move |identity, socket: &mut socket::Socket<Session>, ctx: &mut Ctx<Session>| {
                socket.talk.auth_verified(id, identity);
                socket.talk.go_on(ctx);
            },
        ));
    }

    fn auth_verified(&mut self, id: Option<u64>, identity: Result<Identity, Turned>) {
        let identity = match identity {
            Ok(identity) => identity,
            Err(Turned::TooMany) => return self.connection.close(4504, "too many connections"),
            Err(Turned::Token(TokenError::Forbidden)) => return self.connection.close(4503, "forbidden"),
            Err(Turned::Token(TokenError::Expired)) => {
                return self.refuse(id, None, Refusal::TokenExpired, "the token is expired");
            }
            Err(Turned::Token(TokenError::Bad)) => {
                return self.refuse(id, None, Refusal::Unauthorized, "the token is not valid");
            }
            Err(Turned::Token(TokenError::Unavailable)) => {
                let refusal = Refusal::Unavailable { after_ms: 1000 };
                return self.refuse(id, None, refusal, "tokens cannot be checked now");
            }
        };
        match &self.user {
            Some(user) if *user != identity.user => return self.connection.close(4500, "another user"),
            Some(_) => {}
            None => self.user = Some(identity.user),
        }
        self.connection.token_ends(identity.expires);
        self.connection.say(&frames::authd(id, identity.expires.millis() / 1000));
        self.patience.pleased();
    }
}

/// Why a connection is not its user's.
enum Turned {
    Token(TokenError),
    /// They have as many as they may.
    TooMany,
}

/// Checks a token and enters the connection as its user's.
async fn admit(inner: Arc<Inner>, connection: Arc<Connection>, token: String) -> Result<Identity, Turned> {
    let (registry, max) = (&inner.registry, inner.settings.connections_per_user);
    let revocations = registry.revocations();
    let identity = inner.verifier.verify(&token).await.map_err(Turned::Token)?;
    if !registry.claim(&identity.user, &connection, max) {
        return Err(Turned::TooMany);
    }
    // Signed out in this very moment: the check did not know it yet, and who closed the user's sockets did not find this one.
    if registry.revocations() != revocations {
        inner.verifier.verify(&token).await.map_err(Turned::Token)?;
    }
    Ok(identity)
}

impl Talk for Session {
    fn text(&mut self, text: String, ctx: &mut Ctx<Self>) {
        self.rest.say(text);
        self.go_on(ctx);
    }

    fn binary(&mut self, _: Vec<u8>, _: &mut Ctx<Self>) {
        self.connection.close(1003, "text only");
    }

    fn ended(&mut self) {
        self.leave(None);
    }
}

impl Session {
    /// Heeds what was said, one after the other, up to a token that has to be checked first.
    fn go_on(&mut self, ctx: &mut Ctx<Self>) {
        self.asking = false;
        while let Some(command) = if self.asking { None } else { self.rest.next() } {
            if matches!(command, Ok(Command::Pong)) {
                continue;
            }
            match self.patience.admit(self.inner.clock.monotonic()) {
                Admission::Granted => {}
                Admission::Refused { after_ms } => {
                    let id = match &command {
                        Err(BadCommand { id, .. }) => *id,
                        Ok(
                            Command::Hello(Hello { id, .. })
                            | Command::Sub { id, .. }
                            | Command::Unsub { id, .. }
                            | Command::Auth { id, .. }
                            | Command::Ping { id },
                        ) => *id,
                        Ok(Command::Pong | Command::Unknown) => None,
                    };
                    let refusal = Refusal::RateLimited { after_ms };
                    self.connection.say(&frames::err(id, None, refusal, "too many commands"));
                    continue;
                }
                Admission::Exhausted { after_ms } => {
                    self.rest = Commands::default();
                    return self.connection.close_after(4013, "too many commands", Some(after_ms));
                }
            }
            match command {
                Ok(command) => self.command(command, ctx),
                Err(BadCommand { id, message }) => self.refuse(id, None, Refusal::BadRequest, &message),
            }
        }
    }
}

/// Once the pages of an earlier one are on their way, and if it is still wanted.
async fn begin_with_room(inner: Arc<Inner>, connection: Arc<Connection>, beginning: Beginning) -> Begun {
    poll_fn(|cx| {
        let mut outbox = connection.outbox();
        if outbox.has_room() {
            return Poll::Ready(());
        }
        outbox.wake_for_room(cx.waker());
        Poll::Pending
    })
    .await;
    if connection.outbox().has_lane(beginning.lane) {
        begin(&inner, &connection, beginning).await
    } else {
        // Taken back before it began: who waits for its answer gets one.
        connection.say(&frames::unsubd(beginning.id, &beginning.name));
        Ok(())
    }
}

async fn begin(inner: &Inner, connection: &Arc<Connection>, beginning: Beginning) -> Begun {
    let Beginning { id, lane, channel, name, since, user, .. } = beginning;
    let refuse = |refusal, message| {
        connection.outbox().close_lane(lane);
        connection.say(&frames::err(id, Some(&name), refusal, message));
        Err(refusal)
    };
    let (owner, song) = match channel {
        Channel::Share(token) => match inner.feed.shared(token).await {
            Ok(Some((song, owner))) => (owner, Some(song)),
            Ok(None) => return refuse(Refusal::NotFound, "there is no such link"),
            Err(error) => {
                warn!(%error, "a share link could not be looked up");
                let refusal = Refusal::Unavailable { after_ms: 1000 };
                return refuse(refusal, "the database is away; subscribe again");
            }
        },
        Channel::Me | Channel::Song(_) => match user {
            Some(user) => (user, None),
            None => return refuse(Refusal::Unauthorized, "this channel needs a token"),
        },
    };
    let hub = inner.hub_of(&owner).clone();
    let connection = Arc::clone(connection);
    let subscribe =
        Subscribe { connection: Arc::clone(&connection), lane, id, channel, name, owner, song, since };
    hub.send(subscribe).await.unwrap_or_else(|_| {
        connection.close_after(1012, "restart", Some(1000));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn whoever_names_no_origin_is_no_page() {
        let allowed = Origins::from(vec!["https://app.example".to_owned()]);
        let from = |origin: &str| {
            let request = TestRequest::default().insert_header(("origin", origin)).to_http_request();
            origin_allowed(&request, &allowed)
        };
        assert!(from("https://app.example"));
        assert!(!from("https://evil"));
        assert!(origin_allowed(&TestRequest::default().to_http_request(), &Origins::default()));
    }

    #[test]
    fn a_token_may_come_as_a_subprotocol() {
        let request = |value: &str| {
            TestRequest::default().insert_header(("sec-websocket-protocol", value)).to_http_request()
        };
        let encoded = URL_SAFE_NO_PAD.encode("a.b.c");
        assert_eq!(bearer(&request(&format!("songs.v1, bearer.{encoded}"))).as_deref(), Some("a.b.c"));
        assert_eq!(bearer(&request("songs.v1")), None);
        assert_eq!(bearer(&request("songs.v1, bearer.%%%")).as_deref(), Some(""), "a bad token, not none");
    }
}
