//! `songflight watch`: songs live in the terminal, over the same WebSocket that apps use. What a developer
//! keeps open beside the editor, and a small client of the protocol to read.
//!
//! `model` keeps the protocol's rules, `screen` draws; here is what connects them.

mod model;
mod screen;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use self::model::{Model, Next, Return, after_close, back_off};
use self::screen::Look;
use super::{Failure, WatchArgs};
use crate::app;
use crate::auth::{self, Auth, Role};
use crate::config::Config;
use crate::id::{SongId, fresh};
use crate::time::Clock;

/// A connection that says nothing for this long is dead: the server pings every 25 s.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// A connection that lasted this long was a good one: the next trouble starts the waits anew.
const GOOD_AFTER: Duration = Duration::from_secs(30);
const OPENING_MAX: Duration = Duration::from_secs(10);
/// Of a token made here; the next opening makes another.
const TOKEN_TTL: Duration = Duration::from_secs(3600);
/// Between two subscriptions that a hole made necessary.
const AGAIN_PAUSE: Duration = Duration::from_secs(2);
const TOASTS: usize = 5;

pub struct Options {
    /// `http://127.0.0.1:8080`, with or without a path before `/v1`.
    pub url: String,
    /// Asked for a token at every opening.
    pub token: Box<dyn Fn() -> String>,
    /// All songs of the user, if none.
    pub song: Option<SongId>,
    /// Frames as they come, a line each.
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("{0} is no address of a service: http://host:port or https://host")]
    Url(String),
    #[error("{0}")]
    Refused(String),
    /// Whoever reads our output has seen enough.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// The command: who follows what, from the arguments and this machine's configuration.
///
/// # Errors
/// See [`run`]; also when there is no token and no user to make one for.
pub fn command(config: &Config, args: WatchArgs) -> Result<(), Failure> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Not read by the arguments' parser: a variable would then stand against `--user` as `--token` does.
    let variable = || std::env::var("SONGFLIGHT_TOKEN").ok().filter(|token| !token.trim().is_empty());
    let token = args.token.or_else(|| variable().filter(|_| args.user.is_none()));
    let token: Box<dyn Fn() -> String> = match (token, args.user) {
        (Some(token), _) => Box::new(move || token.clone()),
        (None, Some(user)) => {
            let key = auth::own_key(&config.auth, config.local_dir())
                .map_err(|error| Failure::Failed(format!("the signing key cannot be had: {error}")))?;
            let auth = Auth::new(&config.auth, &key, reqwest::Client::new());
            Box::new(move || auth.issue(&user, None, Role::Authenticated, TOKEN_TTL, Clock.now()))
        }
        (None, None) => return Err(Failure::Failed("who follows? Give --user NAME or --token TOKEN".into())),
    };
    let url = args.url.unwrap_or_else(|| app::service_url(config));
    let options = Options { url, token, song: args.song_id, json: args.json };
    actix_web::rt::System::new().block_on(run(options)).map_err(|error| match error {
        WatchError::Output(error) => Failure::Output(error),
        other => Failure::Failed(other.to_string()),
    })
}

/// Follows until Ctrl-C.
///
/// # Errors
/// When it makes no sense to try again: a bad token or address, a closed output.
pub async fn run(options: Options) -> Result<(), WatchError> {
    let url = socket_url(&options.url)?;
    let mut watch = Watch::new(options);
    let ended = tokio::select! {
        ended = watch.follow(&url) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    watch.leave()?;
    ended
}

fn socket_url(url: &str) -> Result<String, WatchError> {
    let bad = || WatchError::Url(url.to_owned());
    let (scheme, rest) = url.trim().trim_end_matches('/').split_once("://").ok_or_else(bad)?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        _ => return Err(bad()),
    };
    if rest.is_empty() { Err(bad()) } else { Ok(format!("{scheme}://{rest}/v1/ws")) }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Watch {
    options: Options,
    channel: String,
    model: Model,
    toasts: Vec<String>,
    /// How the connection is, in words.
    state: String,
    look: Look,
    terminal: bool,
    /// Lines of the table that stand on the screen.
    drawn: usize,
    clock: Clock,
}

/// How a connection ended.
struct Ended {
    code: Option<u16>,
    after: Option<Duration>,
    why: String,
}

impl Watch {
    fn new(options: Options) -> Self {
        let terminal = io::stdout().is_terminal() && !options.json;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let (width, height) = super::terminal::size();
        let look = Look { width, height, colour: terminal && !plain };
        let channel = options.song.map_or_else(|| "me".to_owned(), |song| format!("song:{song}"));
        Self {
            options,
            channel,
            model: Model::default(),
            toasts: Vec::new(),
            state: String::new(),
            look,
            terminal,
            drawn: 0,
            clock: Clock,
        }
    }

    async fn follow(&mut self, url: &str) -> Result<(), WatchError> {
        let mut attempt = 0;
        loop {
            self.say(&format!("connecting to {url}"))?;
            let ended = match open(url).await {
                Ok(socket) => {
                    let opened = self.clock.monotonic();
                    let ended = self.talk(socket, url).await?;
                    if self.clock.monotonic() - opened >= GOOD_AFTER {
                        attempt = 0;
                    }
                    ended
                }
                Err(Opening::Never(why)) => return Err(WatchError::Refused(why)),
                Err(Opening::Later(why)) => Ended { code: None, after: None, why },
            };
            self.model.lost();
            let mut pause = back_off(attempt, chance());
            match after_close(ended.code) {
                Return::Never(why) => return Err(WatchError::Refused(format!("{url}: {why}"))),
                Return::Anew => self.model.cursor = None,
                // Once at once; if that fails too, with pauses.
                Return::AtOnce if attempt == 0 => pause = Duration::ZERO,
                Return::AtOnce | Return::BackOff => {}
            }
            attempt = attempt.saturating_add(1);
            let pause = ended.after.unwrap_or(pause);
            self.say(&format!("{}; again in {:.1} s", ended.why, pause.as_secs_f64()))?;
            tokio::time::sleep(pause).await;
        }
    }

    async fn talk(&mut self, mut socket: Socket, url: &str) -> Result<Ended, WatchError> {
        let hello = json!({"t": "hello", "id": 1, "token": (self.options.token)(),
            "client": concat!("songflight-watch/", env!("CARGO_PKG_VERSION")), "subs": [self.sub()]});
        let mut ended = Ended { code: None, after: None, why: "the connection was lost".to_owned() };
        if socket.send(Message::text(hello.to_string())).await.is_err() {
            return Ok(ended);
        }
        let mut heard = self.clock.monotonic();
        let mut again = None;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                _ = tick.tick() => {
                    let now = self.clock.monotonic();
                    if now - heard >= SILENCE_MAX {
                        ended.why = "the server fell silent".to_owned();
                        return Ok(ended);
                    }
                    if again.is_some_and(|at: Instant| now >= at) {
                        again = None;
                        self.subscribe_again(&mut socket).await;
                    }
                    self.draw()?;
                    continue;
                }
            };
            heard = self.clock.monotonic();
            match message {
                Some(Ok(Message::Text(text))) => {
                    for line in text.lines().filter(|line| !line.is_empty()) {
                        let Ok(frame) = serde_json::from_str::<Value>(line) else { continue };
                        let was_live = self.model.live;
                        let next = self.model.take(&frame);
                        self.show(line, &next, was_live, url)?;
                        match next {
                            Next::Pong => {
                                let _ = socket.send(Message::text(r#"{"t":"pong"}"#)).await;
                            }
                            Next::Fetch(song) => {
                                let sub = json!({"t": "sub", "id": 4, "ch": format!("song:{song}")});
                                // If it fails, the socket's end is the next thing to be read.
                                let _ = socket.send(Message::text(sub.to_string())).await;
                            }
                            Next::Again => {
                                again.get_or_insert(heard + AGAIN_PAUSE);
                            }
                            Next::Bye { after } => ended.after = after,
                            // A song that was asked for may be gone by now: that ends nothing.
                            Next::Error { channel, .. }
                                if channel.starts_with("song:") && channel != self.channel => {}
                            Next::Error { retry_after: Some(after), .. } => again = Some(heard + after),
                            Next::Error { code, message, .. } if code == "not_found" => {
                                return Err(WatchError::Refused(format!("{}: {message}", self.channel)));
                            }
                            Next::Nothing | Next::Show(_) | Next::Error { .. } => {}
                        }
                    }
                }
                Some(Ok(Message::Close(close))) => {
                    if let Some(close) = close {
                        ended.why = format!("closed: {} ({})", close.reason, u16::from(close.code));
                        ended.code = Some(close.code.into());
                    }
                }
                Some(Ok(_)) => {}
                // The last code counts: an error after a close frame is only the socket's end.
                Some(Err(_)) | None => return Ok(ended),
            }
        }
    }

    fn sub(&self) -> Value {
        let mut sub = json!({"ch": self.channel});
        if let Some(cursor) = &self.model.cursor {
            sub["since"] = json!(cursor);
        }
        sub
    }

    async fn subscribe_again(&mut self, socket: &mut Socket) {
        self.model.lost();
        self.model.cursor = None;
        let commands = format!(
            "{}\n{}",
            json!({"t": "unsub", "id": 2, "ch": self.channel}),
            json!({"t": "sub", "id": 3, "ch": self.channel})
        );
        // If it fails, the socket's end is the next thing to be read.
        let _ = socket.send(Message::text(commands)).await;
    }

    // --- what is seen ------------------------------------------------------------------------------

    fn show(&mut self, line: &str, next: &Next, was_live: bool, url: &str) -> io::Result<()> {
        if self.options.json {
            return writeln!(io::stdout().lock(), "{line}");
        }
        if self.model.live && !was_live {
            self.say(&format!("live on {url}"))?;
            if !self.terminal {
                for (id, song) in &self.model.songs {
                    writeln!(io::stdout().lock(), "{}", screen::line_of(id, song))?;
                }
            }
        }
        match next {
            Next::Show(happened) => {
                let text = screen::line(happened, self.model.songs.get(&happened.song));
                if happened.kind == "gone" {
                    self.model.forget(&happened.song);
                }
                if self.terminal {
                    self.toasts.push(text);
                    let extra = self.toasts.len().saturating_sub(TOASTS);
                    self.toasts.drain(..extra);
                } else {
                    writeln!(io::stdout().lock(), "{text}")?;
                }
            }
            // The close that follows says it, and what to do.
            Next::Error { code, .. } if code == "unauthorized" => {}
            Next::Error { code, message, .. } => self.say(&format!("{code}: {message}"))?,
            Next::Nothing | Next::Pong | Next::Again | Next::Fetch(_) | Next::Bye { .. } => {}
        }
        self.draw()
    }

    /// How the connection is: above the table, or beside the lines.
    fn say(&mut self, state: &str) -> io::Result<()> {
        state.clone_into(&mut self.state);
        if self.terminal {
            return self.draw();
        }
        super::terminal::note(super::terminal::Style::Dim, state);
        Ok(())
    }

    fn draw(&mut self) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let (width, height) = super::terminal::size();
        let resized = (self.look.width, self.look.height) != (width, height);
        (self.look.width, self.look.height) = (width, height);
        let now = self.clock.now().millis();
        let state = format!("songflight watch · {} · {}", self.channel, self.state);
        let lines = screen::table(&self.model, &self.toasts, &state, now, self.look);
        // No cursor, and no wrapping: a terminal narrower than we think must not count more lines than we.
        let mut text = String::from("\x1b[?25l\x1b[?7l");
        if resized {
            // The terminal may have broken our lines anew: from its top, all again.
            text += "\x1b[H";
        } else if self.drawn > 0 {
            text += &format!("\x1b[{}A\r", self.drawn);
        }
        // Each line is cleared behind its end, then what is below: without a flicker.
        for line in &lines {
            text += line;
            text += "\x1b[K\n";
        }
        text += "\x1b[J\x1b[?7h";
        self.drawn = lines.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Gives the terminal its cursor back.
    fn leave(&self) -> io::Result<()> {
        if self.terminal {
            let mut out = io::stdout().lock();
            out.write_all(b"\x1b[?25h")?;
            out.flush()?;
        }
        Ok(())
    }
}

enum Opening {
    Later(String),
    Never(String),
}

async fn open(url: &str) -> Result<Socket, Opening> {
    let mut request = url.into_client_request().map_err(|error| Opening::Never(error.to_string()))?;
    let protocol = tungstenite::http::HeaderValue::from_static(crate::realtime::PROTOCOL);
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let opened = tokio::time::timeout(OPENING_MAX, tokio_tungstenite::connect_async(request)).await;
    match opened {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(response))) => {
            let status = response.status();
            let why = format!("{url} answered {status}");
            if status.is_server_error() || status.as_u16() == 429 {
                Err(Opening::Later(why))
            } else {
                Err(Opening::Never(format!("{why}: is this the address of a songflight service?")))
            }
        }
        Ok(Err(error)) => Err(Opening::Later(format!("{url} cannot be reached: {error}"))),
        Err(_) => Err(Opening::Later(format!("{url} does not answer"))),
    }
}

/// A number in `0.0..1.0`, from the random bits of a fresh id.
fn chance() -> f64 {
    let bits = fresh().as_u64_pair().1 & ((1 << 52) - 1);
    bits as f64 / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_address_follows_from_the_services() {
        let url = |text: &str| socket_url(text).ok();
        assert_eq!(url("http://127.0.0.1:8080").as_deref(), Some("ws://127.0.0.1:8080/v1/ws"));
        assert_eq!(url("https://songs.example/api/").as_deref(), Some("wss://songs.example/api/v1/ws"));
        assert_eq!(url("127.0.0.1:8080"), None);
        assert_eq!(url("ftp://x"), None);
    }

    #[test]
    fn chances_stay_in_their_range() {
        assert!((0..1000).all(|_| (0.0..1.0).contains(&chance())));
    }
}
