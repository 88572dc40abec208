//! The connections of the HTTP server, of which each may become a WebSocket. Then HTTP's part in it ends with the answer
//! to the handshake: its dispatcher and buffers go, which would be most of what an idle socket costs, and a [`Pump`] is
//! all that remains.
//!
//! Every request that asks for a WebSocket is handed over before anybody knows whether it gets one, and goes through the
//! very same routes and middlewares as all others. Whatever else comes of it is the last answer on its connection (nobody
//! watches it meanwhile, and `Expect: 100-continue` is not answered: such requests are no use but to try what happens).
//!
//! Not here: the routes (`app::doors`); the handshake, and what goes through a socket (`socket`).

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_codec::{Encoder as _, Framed, FramedParts};
use actix_http::body::{BoxBody, MessageBody};
use actix_http::error::{DispatchError, PayloadError};
use actix_http::h1::{Codec, Message};
use actix_http::{ConnectionType, HttpMessage as _, HttpService, Payload, Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::dev::AppConfig;
use actix_web::http::{Method, header};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream::{self, LocalBoxStream, Stream};
use tokio::net::TcpStream;

use super::line::{self, Line};

/// What a request carries that may become a WebSocket.
pub struct Handed {
    pub(super) line: Arc<Line>,
    /// What came together with the handshake.
    pub(super) arrived: Bytes,
}

/// What an answer carries that made a WebSocket of its connection: all that is to be written, until it ends.
pub(super) struct Outgoing(pub(super) LocalBoxStream<'static, Bytes>);

/// For `ServerBuilder::listen`: serves this application on every connection. Once `leaving` is over, connections on which
/// nothing is asked are closed, and the others with their next answer; WebSockets are closed by `Realtime::close_all`.
pub fn connections<A, S, B, L, F>(
    app: impl Fn() -> A,
    leaving: L,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    A: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, InitError = ()> + 'static,
    S::Error: Into<Response<BoxBody>> + 'static,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
    L: Fn() -> F + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    fn_factory(move || {
        // Its own address would be needed for urls only, which are configured.
        let app = app().into_factory().new_service(AppConfig::default());
        let leaving = leaving.clone();
        async move {
            let app = Rc::new(app.await?);
            // Handing over and leaving HTTP behind is one turn of one task, so one place will do for all of a thread.
            let place = Rc::new(Cell::new(None));
            let (handing, taking) = (Rc::clone(&app), Rc::clone(&place));
            let hand_over = move |(request, framed)| {
                let (app, place) = (Rc::clone(&handing), Rc::clone(&taking));
                async move {
                    place.set(take_over(&*app, request, framed).await);
                    Ok::<_, Infallible>(())
                }
            };
            let http = HttpService::build()
                .graceful_shutdown_signal(leaving)
                // Who has been answered is not waited for: what it may still send is of no interest.
                .client_disconnect_timeout(Duration::ZERO)
                .upgrade(fn_service(hand_over))
                .h1(fn_factory(move || ready(Ok::<_, ()>(Rc::clone(&app)))))
                .new_service(())
                .await?;
            let http = Rc::new(http);
            Ok(fn_service(move |stream: TcpStream| {
                line::settle(&stream);
                let peer = stream.peer_addr().ok();
                let http = Box::pin(http.call((stream, peer)));
                let place = Rc::clone(&place);
                Box::pin(async move {
                    http.await?;
                    if let Some(pump) = place.take() {
                        pump.await;
                    }
                    Ok(())
                })
            }))
        }
    })
}

/// Has the request answered, and takes its connection away from HTTP.
async fn take_over<S, B>(app: &S, mut request: Request, framed: Framed<TcpStream, Codec>) -> Option<Pump>
where
    S: Service<Request>,
    S::Error: Into<Response<BoxBody>>,
    S::Response: Into<Response<B>>,
    B: MessageBody + 'static,
{
    let FramedParts { io, mut codec, read_buf, write_buf: mut head, .. } = framed.into_parts();
    let line = Arc::new(Line::new(io));
    let arrived = Bytes::copy_from_slice(&read_buf);
    drop(read_buf);
    if request.method() == Method::GET {
        request.extensions_mut().insert(Handed { line: Arc::clone(&line), arrived });
    } else {
        *request.payload() = body_of(&request, Arc::clone(&line), arrived);
    }
    let answer = match app.call(request).await {
        Ok(answer) => answer.into().map_into_boxed_body(),
        Err(error) => error.into(),
    };
    let (mut answer, body) = answer.into_parts();
    let socket = answer.extensions_mut().remove::<Outgoing>();
    if socket.is_none() {
        answer.head_mut().set_connection_type(ConnectionType::Close);
        // HTTP's encoder marks no pieces on such a connection; its end is the body's.
        answer.head_mut().no_chunking(true);
    }
    codec.encode(Message::Item((answer, body.size())), &mut head).ok()?;
    let out =
        socket.map_or_else(|| Box::pin(encoded(codec, body, Arc::clone(&line))) as _, |Outgoing(out)| out);
    Some(Pump { line, rest: head.freeze(), out })
}

/// The body of a request that can open no WebSocket: as long as it says, since what comes is not HTTP's to read any more.
fn body_of(request: &Request, line: Arc<Line>, mut arrived: Bytes) -> Payload {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok());
    let mut left: usize = announced.and_then(|len| len.trim().parse().ok()).unwrap_or(0);
    let pieces = stream::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        let mut piece = std::mem::take(&mut arrived);
        if piece.is_empty() {
            piece = ready!(line.poll_read(cx))?;
        }
        if piece.is_empty() {
            left = 0;
            return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
        }
        piece.truncate(left);
        left -= piece.len();
        Poll::Ready(Some(Ok(piece)))
    });
    Payload::Stream { payload: Box::pin(pieces) }
}

/// The body of an answer, as HTTP writes it. Of one that fails the end would look like its own, so the line is cut.
fn encoded(mut codec: Codec, mut body: BoxBody, line: Arc<Line>) -> impl Stream<Item = Bytes> {
    stream::poll_fn(move |cx| {
        let chunk = match ready!(Pin::new(&mut body).poll_next(cx)) {
            Some(Ok(chunk)) => chunk,
            Some(Err(_)) => {
                line.cut();
                return Poll::Ready(None);
            }
            None => return Poll::Ready(None),
        };
        let mut bytes = BytesMut::new();
        Poll::Ready(codec.encode(Message::Chunk(Some(chunk)), &mut bytes).ok().map(|()| bytes.freeze()))
    })
}

/// What remains of a connection: it writes what there is to be written, and ends with it or with the peer. What is to come
/// next is not asked for as long as the peer does not take what there is.
struct Pump {
    line: Arc<Line>,
    rest: Bytes,
    out: LocalBoxStream<'static, Bytes>,
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            while !this.rest.is_empty() {
                match ready!(this.line.poll_write(cx, &this.rest)) {
                    Ok(len @ 1..) => this.rest.advance(len),
                    Ok(0) | Err(_) => return Poll::Ready(()),
                }
            }
            // Even nothing of a piece would keep the whole piece.
            this.rest = Bytes::new();
            match ready!(this.out.as_mut().poll_next(cx)) {
                Some(bytes) => this.rest = bytes,
                None => return Poll::Ready(()),
            }
        }
    }
}
