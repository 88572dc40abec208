//! HTTP (`api.md`): a file for each resource. Handlers ask and answer; what is allowed and what it means is
//! decided below them.
//!
//! `shape` says what bodies may hold, `problem` what errors look like, `who` who asks, `openapi` what all of
//! it looks like to a machine and to a reader.

pub mod access;
pub mod admin;
pub mod batch;
pub mod creation;
pub mod dead_letters;
pub mod flood;
pub mod further;
pub mod guests;
pub mod health;
pub mod history;
pub mod me;
pub mod openapi;
pub mod orders;
pub mod problem;
pub mod shape;
pub mod songs;
pub mod start_page;
pub mod who;
pub mod wishes;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::auth::Auth;
use crate::credit::Credits;
use crate::id::SongId;
use crate::song::actor::World;
use crate::song::directory::Directories;
use crate::song::parts::TaskKind;
use creation::Creation;
use problem::{Kind, Problem};
use shape::{Body, Shape};

/// What handlers share.
pub struct Api {
    pub auth: Arc<Auth>,
    pub world: Arc<World>,
    pub directories: Directories,
    pub prices: BTreeMap<&'static str, Credits>,
    pub creation: Creation,
    pub guests: guests::Guests,
    /// From when on a song that should have moved is listed as stuck.
    pub stuck_after: std::time::Duration,
    pub metrics: Option<PrometheusHandle>,
    /// The call to try that `/` shows to this machine, with a token; `None` in production.
    pub hint: Option<String>,
}

/// Largest body but for batches (`api.md`, 413).
pub const BODY_BYTES_MAX: usize = 256 * 1024;

impl Api {
    pub fn clock(&self) -> crate::time::Clock {
        self.world.clock
    }

    pub fn price(&self, kind: TaskKind) -> Credits {
        self.prices.get(kind.as_str()).copied().unwrap_or_default()
    }
}

/// All routes but the WebSocket's and the providers'.
pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
        // Before the songs: `batch` and `merge` are no song's ids.
        .configure(batch::routes)
        .configure(further::routes)
        .configure(songs::routes)
        .configure(history::routes)
        .configure(guests::routes)
        .configure(orders::routes)
        .configure(admin::routes)
        .configure(access::routes)
        .configure(dead_letters::routes)
        .configure(me::routes)
        .configure(health::routes)
        .configure(openapi::routes)
        .configure(start_page::routes)
        .default_service(web::route().to(nothing_here));
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    Problem::new(Kind::NotFound, format!("Nothing is at {}. See /docs.", request.path())).error_response()
}

/// A path whose other methods are answered with 405 instead of as if nothing were there.
fn resource(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::route().to(|request: HttpRequest| async move {
        let detail = format!("{} is not for {}. See /docs.", request.path(), request.method());
        let mut response = Problem::new(Kind::MethodNotAllowed, detail).error_response();
        let allowed = methods_of(&request.match_pattern().unwrap_or_default());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        response
    }))
}

/// The methods of a path (RFC 9110 section 10.2.1). What is only read is in no list of operations.
fn methods_of(path: &str) -> &'static str {
    static KNOWN: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(|| {
        let mut known: BTreeMap<&'static str, String> = BTreeMap::new();
        for operation in openapi::operations() {
            let method = operation.method.to_uppercase();
            let methods = known.entry(operation.path).or_default();
            *methods += if methods.is_empty() { "" } else { ", " };
            *methods += if method == "GET" { "GET, HEAD" } else { &method };
        }
        known
    });
    KNOWN.get(path).map_or("GET, HEAD", String::as_str)
}

/// Reads a body by its shape, with every error at once.
fn body(shape: Shape, bytes: &[u8]) -> Result<Body, Problem> {
    shape::read(shape, bytes).map_err(Problem::invalid)
}

/// The largest body of a resource that takes larger ones than others.
#[derive(Clone, Copy)]
struct BodyMax(usize);

/// A body as bytes, or 413 as a problem.
struct Raw(web::Bytes);

impl actix_web::FromRequest for Raw {
    type Error = Problem;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut actix_web::dev::Payload) -> Self::Future {
        let bytes = web::Bytes::from_request(request, payload);
        let most = request.app_data::<BodyMax>().map_or(BODY_BYTES_MAX, |most| most.0);
        Box::pin(async move {
            bytes.await.map(Raw).map_err(|error| {
                if error.as_response_error().status_code() == actix_web::http::StatusCode::PAYLOAD_TOO_LARGE {
                    Problem::new(Kind::TooLarge, format!("At most {most} bytes."))
                } else {
                    Problem::invalid_at("", "the body could not be read")
                }
            })
        })
    }
}

/// A song's id in a path; what is no id is nobody's song.
fn song_id(path: &str) -> Result<SongId, Problem> {
    path.parse().map_err(|_| Problem::not_found())
}

/// What stands in the OpenAPI document and in `/docs` for one route.
pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub summary: &'static str,
    pub doc: &'static str,
    pub body: Option<Shape>,
    pub query: Shape,
    /// Status, meaning.
    pub answers: &'static [(u16, &'static str)],
    /// The schema of the good answer's body, by its name in the document.
    pub returns: Option<&'static str>,
    /// Whether the header `Idempotency-Key` counts.
    pub keyed: Keyed,
    pub public: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyed {
    No,
    Optional,
    Required,
}

impl Operation {
    pub const BASE: Operation = Operation {
        method: "get",
        path: "",
        summary: "",
        doc: "",
        body: None,
        query: &[],
        answers: &[],
        returns: None,
        keyed: Keyed::No,
        public: false,
    };
}
