//! The WebSocket itself: the handshake, an actor for what comes in, a stream for what goes out. The one
//! file that knows `actix-web-actors` (its maintainers call it deprecated).
//!
//! Everything to the client goes through the connection's outbox, merged into the stream that is written: an
//! event wakes no actor and is no message. What comes in is read by `wire`, not by the actor's own
//! codec. Not here: how the connection came to be ours (`handover`), what the messages mean (`session`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix::{Actor, ActorContext as _, AsyncContext as _, StreamHandler};
use actix_web::error::ErrorBadRequest;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, HttpResponseBuilder};
use actix_web_actors::ws::{self, HandshakeError, WebsocketContext};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use metrics::counter;

use super::connection::{Connection, Registry};
use super::handover::{Handed, Outgoing};
use super::line::Line;
use super::wire::{self, Incoming, Reader};

/// What a connection's messages mean. Lives in the socket's actor.
pub trait Talk: Sized + Unpin + 'static {
    fn text(&mut self, text: String, ctx: &mut Ctx<Self>);
    fn binary(&mut self, bytes: Vec<u8>, ctx: &mut Ctx<Self>);
    /// The socket is gone.
    fn ended(&mut self) {}
}

pub type Ctx<T> = WebsocketContext<Socket<T>>;

pub struct Socket<T> {
    connection: Arc<Connection>,
    pub talk: T,
}

/// Small frames are handed over together, up to this many bytes: fewer turns of the actor.
const CHUNK_BYTES: usize = 16_384;

/// A proper handshake, and the connection it came on.
pub struct Handshake {
    answer: HttpResponseBuilder,
    handed: Handed,
}

impl Handshake {
    /// # Errors
    /// When the request is none; to be answered as it is.
    pub fn of(request: &HttpRequest) -> Result<Self, actix_web::Error> {
        let answer = ws::handshake_with_protocols(request, &[super::PROTOCOL])?;
        // The library takes drafts of long ago and any key (RFC 6455 section 4.2.1).
        let header = |name| request.headers().get(name).map_or(&[][..], HeaderValue::as_bytes);
        if header(header::SEC_WEBSOCKET_VERSION) != b"13" {
            return Err(HandshakeError::UnsupportedVersion.into());
        }
        if STANDARD.decode(header(header::SEC_WEBSOCKET_KEY)).map_or(0, |key| key.len()) != 16 {
            return Err(HandshakeError::BadWebsocketKey.into());
        }
        let handed = request.extensions_mut().remove();
        let handed = handed.ok_or_else(|| ErrorBadRequest("a WebSocket's handshake has no body"))?;
        Ok(Self { answer, handed })
    }

    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.handed.line)
    }

    /// Opens a WebSocket whose messages `talk` understands.
    pub fn accept<T: Talk>(
        self,
        registry: Arc<Registry>,
        connection: Arc<Connection>,
        message_bytes_max: usize,
        talk: T,
    ) -> HttpResponse {
        let Self { mut answer, handed: Handed { line, arrived } } = self;
        let reader = Reader::new(message_bytes_max);
        let messages = Messages { line, reader, chunk: arrived, ended: false };
        let socket = Socket { connection: Arc::clone(&connection), talk };
        let actor = WebsocketContext::with_factory(futures_util::stream::pending(), |ctx: &mut Ctx<T>| {
            ctx.add_stream(messages);
            socket
        });
        let out = Out { actor: Some(Box::pin(actor)), connection, registry };
        let mut answer = answer.insert_header((header::CACHE_CONTROL, "no-store")).finish();
        answer.extensions_mut().insert(Outgoing(Box::pin(out)));
        answer
    }
}

impl<T: Talk> Actor for Socket<T> {
    type Context = WebsocketContext<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.talk.ended();
    }
}

/// The library's own reader; it is given nothing to read.
impl<T: Talk> StreamHandler<Result<ws::Message, ws::ProtocolError>> for Socket<T> {
    fn handle(&mut self, _: Result<ws::Message, ws::ProtocolError>, _: &mut Self::Context) {}
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl<T: Talk> StreamHandler<Incoming> for Socket<T> {
    fn handle(&mut self, incoming: Incoming, ctx: &mut Self::Context) {
        self.connection.heard();
        let closing = self.connection.outbox().closing().is_some();
        match incoming {
            Incoming::Close(code) => self.connection.peer_closed(code),
            Incoming::Broken(violation) => {
                self.connection.close(violation.code(), violation.reason());
                self.connection.stop_listening();
            }
            // After our close frame only theirs is of interest.
            Incoming::Text(_) | Incoming::Binary(_) | Incoming::Ping(_) | Incoming::Pong if closing => {}
            Incoming::Text(text) => self.talk.text(text, ctx),
            Incoming::Binary(bytes) => self.talk.binary(bytes, ctx),
            Incoming::Ping(payload) => self.connection.send(wire::pong(&payload)),
            Incoming::Pong => {}
        }
    }

    /// The peer has gone, with or without a close frame.
    fn finished(&mut self, ctx: &mut Self::Context) {
        self.connection.stop_listening();
        if self.connection.outbox().closing().is_none() {
            counter!("songflight_realtime_closed_total", "code" => "1006").increment(1);
            ctx.stop();
        }
    }
}

/// What comes on the line, as messages.
struct Messages {
    line: Arc<Line>,
    reader: Reader,
    chunk: Bytes,
    ended: bool,
}

impl Stream for Messages {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let this = &mut *self;
        loop {
            if let Some(incoming) = this.reader.read(&mut this.chunk) {
                return Poll::Ready(Some(incoming));
            }
            // Even nothing of a piece would keep the whole piece.
            this.chunk = Bytes::new();
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(this.line.poll_read(cx)) {
                Ok(chunk) if !chunk.is_empty() => this.chunk = chunk,
                Ok(_) | Err(_) => this.ended = true,
            }
        }
    }
}

/// What is written: the outbox, and with it the actor, which is driven by being polled here.
struct Out<S> {
    actor: Option<Pin<Box<S>>>,
    connection: Arc<Connection>,
    registry: Arc<Registry>,
}

impl<S: Stream<Item = Result<Bytes, actix_web::Error>>> Stream for Out<S> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = &mut *self;
        while let Some(actor) = &mut this.actor {
            match actor.as_mut().poll_next(cx) {
                // The actor writes nothing itself.
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => this.actor = None,
                Poll::Pending => break,
            }
        }
        let mut outbox = this.connection.outbox();
        if let Some(first) = outbox.take() {
            let mut frames = 1;
            let mut chunk = first;
            if chunk.len() < CHUNK_BYTES && outbox.waiting() {
                let mut several = BytesMut::from(&chunk[..]);
                while several.len() < CHUNK_BYTES
                    && let Some(next) = outbox.take()
                {
                    several.extend_from_slice(&next);
                    frames += 1;
                }
                chunk = several.freeze();
            }
            counter!("songflight_realtime_frames_total").increment(frames);
            return Poll::Ready(Some(chunk));
        }
        let over = outbox.close_taken() && this.connection.has_peer_closed();
        if over || this.actor.is_none() {
            return Poll::Ready(None);
        }
        outbox.wake_me(cx.waker());
        Poll::Pending
    }
}

impl<S> Drop for Out<S> {
    fn drop(&mut self) {
        self.registry.end(&self.connection);
    }
}
