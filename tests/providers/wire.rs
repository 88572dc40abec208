//! The far end of the wire: a small server that answers as told and remembers what it was asked.

use std::sync::{Arc, Mutex, mpsc};

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::Value;

/// What the server says to everybody.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// A running server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) url: String,
    reply: Arc<Mutex<Reply>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn start(reply: Reply) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let reply = Arc::new(Mutex::new(reply));
        let shared = (reply.clone(), asked.clone());
        let server = HttpServer::new(move || {
            App::new().app_data(web::Data::new(shared.clone())).default_service(web::to(answer))
        });
        let server =
            server.workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a port of this machine");
        let url = format!("http://{}", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        Self { url, reply, asked }
    }

    /// What it says from here on.
    pub(crate) fn say(&self, reply: Reply) {
        *self.reply.lock().expect("no handler panics") = reply;
    }

    /// Everything asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("no handler panics"))
    }
}

type Shared = (Arc<Mutex<Reply>>, Arc<Mutex<Vec<Asked>>>);

async fn answer(request: HttpRequest, body: web::Bytes, shared: web::Data<Shared>) -> HttpResponse {
    let text = |value: &actix_web::http::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let asked = Asked {
        line: format!("{} {}", request.method(), request.uri()),
        headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    shared.1.lock().expect("no handler panics").push(asked);
    let reply = shared.0.lock().expect("no handler panics").clone();
    let mut response = HttpResponse::build(StatusCode::from_u16(reply.status).expect("a status"));
    for (name, value) in reply.headers {
        response.insert_header((name, value));
    }
    response.body(reply.body)
}

/// A server on a thread of its own that says whatever it is told to, for tests that are no futures.
pub(crate) struct Script {
    pub(crate) url: String,
    says: Arc<Mutex<Reply>>,
}

impl Script {
    pub(crate) fn start() -> Self {
        let says = Arc::new(Mutex::new(Reply::new(200, "")));
        let (tell, told) = mpsc::channel();
        let shared = says.clone();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let server = HttpServer::new(move || {
                    App::new().app_data(web::Data::from(shared.clone())).default_service(web::to(say))
                });
                let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a port");
                tell.send(server.addrs()[0]).expect("somebody waits");
                server.run().await
            })
        });
        Self { url: format!("http://{}", told.recv().expect("a server")), says }
    }

    pub(crate) fn say(&self, status: u16, body: &[u8]) {
        *self.says.lock().expect("no handler panics") = Reply::new(status, body);
    }
}

async fn say(says: web::Data<Mutex<Reply>>) -> HttpResponse {
    let Reply { status, body, .. } = says.lock().expect("no handler panics").clone();
    HttpResponse::build(StatusCode::from_u16(status).expect("a status")).body(body)
}

/// Runs a future to its end on this thread, always in the same runtime: clients belong to theirs.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: actix_web::rt::Runtime = actix_web::rt::Runtime::new().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
