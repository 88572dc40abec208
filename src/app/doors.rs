//! What is reached from outside: the HTTP server with all its routes, and what every request goes through.
//!
//! Not here: what a route does (`api`, `callback`, `asset`, `realtime`).

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use actix_cors::Cors;
use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpMessage, web};
use tracing_actix_web::{RequestId, RootSpanBuilder, TracingLogger};

use super::{StartError, cores, descriptors, leaving};
use crate::api::{self, Api};
use crate::asset::{self, Assets};
use crate::callback::{self, Callbacks};
use crate::config::{Config, Loaded};
use crate::realtime::{Realtime, handover, session};

/// Connections that may wait to be accepted; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Where nobody chose a port, so many more are tried.
const PORTS_TRIED: u16 = 100;

/// The address to serve at. Where nobody chose a port and it is taken, the next free one.
pub(super) fn listen(loaded: &Loaded) -> Result<TcpListener, StartError> {
    let wanted = &loaded.config.http.bind;
    let taken = |error: std::io::Error| {
        let hint = match (error.kind(), loaded.sources.get("http.bind")) {
            (ErrorKind::AddrInUse, Some(source)) if loaded.is_chosen("http.bind") => format!(
                ".\nAnother program listens there. Stop it, or choose another port (this one is from {source}); where none is \
                 chosen, the next free one is taken"
            ),
            (ErrorKind::AddrInUse, _) => format!(", and so are the {PORTS_TRIED} ports after it"),
            _ => String::new(),
        };
        StartError(format!("http.bind {wanted}: {error}{hint}"))
    };
    let address: SocketAddr = wanted.parse().map_err(|_| {
        StartError(format!("http.bind {wanted} must be an address and a port, such as 127.0.0.1:8080"))
    })?;
    // The standard library's 128 connections that wait to be accepted are few for many who come at once: the kernel
    // drops the others, and they try again after a second.
    let bind = |address: SocketAddr| {
        let listener = TcpListener::bind(address)?;
        socket2::SockRef::from(&listener).listen(BACKLOG).map(|()| listener)
    };
    match bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse && !loaded.is_chosen("http.bind") => {
            let others =
                (address.port().saturating_add(1)..=address.port().saturating_add(PORTS_TRIED)).map(|port| {
                    let mut other = address;
                    other.set_port(port);
                    other
                });
            others.map(bind).find_map(Result::ok).ok_or(error).map_err(taken)
        }
        Err(error) => Err(taken(error)),
    }
}

/// Begins to serve at this address.
///
/// # Errors
/// The address cannot be listened at any more.
pub(super) fn serve(
    config: &Config,
    listener: TcpListener,
    api: web::Data<Api>,
    callbacks: web::Data<Callbacks>,
    assets: Assets,
    realtime: &Realtime,
) -> std::io::Result<Server> {
    let realtime = web::Data::new(realtime.clone());
    let assets = web::Data::new(assets);
    let origins = config.http.origins();
    let app = move || {
        let allowed = origins.clone();
        let cors = Cors::default()
            .allowed_origin_fn(move |origin, _| origin.to_str().is_ok_and(|origin| allowed.allows(origin)))
            .allowed_methods(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
            .allow_any_header()
            .expose_headers([
                "ETag",
                "Location",
                "Retry-After",
                "Next-Cursor",
                "X-RateLimit-Limit",
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
                "Songs-Cursor",
                "Idempotent-Replayed",
                "X-Request-Id",
            ])
            .max_age(3600);
        App::new()
            .app_data(api.clone())
            .app_data(callbacks.clone())
            .app_data(realtime.clone())
            .app_data(assets.clone())
            .wrap(from_fn(head_like_get))
            .wrap(from_fn(leaving::only_reads))
            .wrap(cors)
            .wrap(from_fn(with_request_id))
            .wrap(TracingLogger::<Spans>::new())
            .route("/v1/ws", web::get().to(session::open))
            .configure(callback::routes)
            .configure(asset::routes)
            .configure(api::routes)
    };
    let workers = config.http.workers.map_or_else(cores, std::num::NonZeroUsize::get);
    let files = descriptors::raise();
    let connections = descriptors::for_connections(files);
    tracing::debug!(files, connections, "open files allowed, and connections that are accepted at a time");
    let server = Server::build()
        .disable_signals()
        .shutdown_timeout(5)
        .workers(workers)
        // Each worker counts its own; they are given them in turn.
        .max_concurrent_connections((connections / workers).max(1));
    let stopping = server.graceful_shutdown_signal();
    let leaving = move || {
        let stopping = stopping.clone();
        async move { stopping.notified().await }
    };
    let connections = move || handover::connections(app.clone(), leaving.clone());
    Ok(server.listen("songflight", listener, connections)?.run())
}

/// What log lines of a request carry. The route, never the path: callback urls hold their secret there.
struct Spans;

impl RootSpanBuilder for Spans {
    fn on_request_start(request: &ServiceRequest) -> tracing::Span {
        let id = request.extensions().get::<RequestId>().map(ToString::to_string);
        let route = request.match_pattern();
        tracing::info_span!(
            "request",
            method = %request.method(),
            route = route.as_deref().unwrap_or("none"),
            request_id = id.as_deref().unwrap_or(""),
            user.id = tracing::field::Empty,
        )
    }

    fn on_request_end<B: MessageBody>(_: tracing::Span, _: &Result<ServiceResponse<B>, actix_web::Error>) {}
}

/// What can be read can be asked after: the same answer, of which the server leaves out the body (RFC 9110, 9.3.2).
async fn head_like_get(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    next.call(request).await
}

/// Every answer names its request, as the logs do.
async fn with_request_id(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = request.extensions().get::<RequestId>().copied();
    let mut response = next.call(request).await?;
    if let Some(value) = id.and_then(|id| HeaderValue::from_str(&id.to_string()).ok()) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
    }
    Ok(response)
}
