//! A tiny provider at Suno's place that does as it is told: it shows each order it gets, with the real
//! callback url in it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use songflight::id;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::person::{Answer, answer, client};
use super::within;

/// What it does with an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// Takes it and says so.
    Accept,
    /// Takes it and hangs up without a word: nobody knows what became of it.
    HangUp,
    /// Takes it and says so once told to [`Provider::speak`].
    Hesitate,
}

pub struct Provider {
    pub url: String,
    orders: mpsc::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Mutex<Manner>,
    speaking: watch::Sender<bool>,
    /// What polls answer, by task; others are told to wait.
    results: Mutex<HashMap<String, Value>>,
    polls: watch::Sender<u32>,
    /// Tasks whose polls wait until told to speak.
    silent: Mutex<HashSet<String>>,
    tell: mpsc::UnboundedSender<Order>,
}

/// An order as it came.
#[derive(Clone, Debug)]
pub struct Order {
    /// The header `Idempotency-Key`.
    pub key: String,
    pub callback: String,
    /// What the order is called here.
    pub task: String,
    /// What was sent.
    pub body: Value,
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (tell, orders) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Accept),
            speaking: watch::channel(false).0,
            results: Mutex::default(),
            polls: watch::channel(0).0,
            silent: Mutex::default(),
            tell,
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                tokio::spawn(async move { drop(serve(stream, &shared).await) });
            }
        });
        Self { url, orders, shared }
    }

    pub fn behave(&self, manner: Manner) {
        *held(&self.shared.manner) = manner;
    }

    pub fn speak(&self) {
        self.shared.speaking.send_replace(true);
    }

    /// A poll for this task is not answered before [`Provider::speak`].
    pub fn keep_silent(&self, task: &str) {
        held(&self.shared.silent).insert(task.to_owned());
    }

    /// What a poll for this task answers from here on.
    pub fn result(&self, task: &str, data: Value) {
        held(&self.shared.results).insert(task.to_owned(), data);
    }

    /// The next order.
    pub async fn order(&mut self) -> Order {
        within("an order at the provider", self.orders.recv()).await.expect("the provider runs")
    }

    /// Orders that came and were not looked at.
    pub fn more_orders(&mut self) -> usize {
        std::iter::from_fn(|| self.orders.try_recv().ok()).count()
    }

    /// Waits for this many further polls.
    pub async fn polled(&self, times: u32) {
        let mut polls = self.shared.polls.subscribe();
        let wanted = *polls.borrow() + times;
        within("polls", polls.wait_for(|polls| *polls >= wanted)).await.expect("the provider runs");
    }
}

impl Order {
    pub async fn call_back(&self, body: &Value) -> Answer {
        self.call_back_with(body.to_string()).await
    }

    pub async fn call_back_with(&self, body: impl Into<reqwest::Body>) -> Answer {
        answer(client().post(&self.callback).header("Content-Type", "application/json").body(body)).await
    }

    /// Both clips are there: the end.
    pub fn complete(&self) -> Value {
        self.told("complete", json!([self.clip(1, true), self.clip(2, true)]))
    }

    /// The first clip is there.
    pub fn first(&self) -> Value {
        self.told("first", json!([self.clip(1, true)]))
    }

    /// The words are there, no clip yet.
    pub fn text(&self) -> Value {
        self.told("text", json!([self.clip(1, false), self.clip(2, false)]))
    }

    pub fn failed(&self, code: u16, message: &str) -> Value {
        json!({"code": code, "msg": message, "data": {"callbackType": "error", "task_id": self.task, "data": null}})
    }

    pub fn lyrics(&self) -> Value {
        let text = |n| {
            json!({"text": format!("[Verse]\nwords {n}"), "title": format!("Title {n}"),
                              "status": "complete", "errorMessage": ""})
        };
        json!({"code": 200, "msg": "ok",
               "data": {"callbackType": "complete", "taskId": self.task, "data": [text(1), text(2)]}})
    }

    pub fn told(&self, kind: &str, clips: Value) -> Value {
        json!({"code": 200, "msg": "ok", "data": {"callbackType": kind, "task_id": self.task, "data": clips}})
    }

    pub fn clip(&self, number: u8, done: bool) -> Value {
        let id = format!("{}-{number}", self.task);
        let url = |end: &str| if done { format!("http://127.0.0.1:9/{id}{end}") } else { String::new() };
        json!({"id": id, "audio_url": url(".mp3"), "stream_audio_url": url(""), "image_url": url(".jpeg"),
               "prompt": "[Verse]\nla", "title": "A song", "tags": "pop", "duration": done.then_some(120.5)})
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (head, body) = read(&mut stream).await?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (route, query) = path.split_once('?').unwrap_or((&path, ""));
    if route.ends_with("/record-info") {
        let task = query.split('&').find_map(|pair| pair.strip_prefix("taskId=")).unwrap_or_default();
        let pending = json!({"taskId": task, "status": "PENDING"});
        let data = held(&shared.results).get(task).cloned().unwrap_or(pending);
        shared.polls.send_modify(|polls| *polls += 1);
        let silent = held(&shared.silent).contains(task);
        if silent {
            drop(shared.speaking.subscribe().wait_for(|speaking| *speaking).await);
        }
        return reply(&mut stream, &json!({"code": 200, "msg": "success", "data": data})).await;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let header = |name: &str| {
        let line =
            head.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let task = id::fresh().simple().to_string();
    let order = Order {
        key: header("idempotency-key"),
        callback: body["callBackUrl"].as_str().unwrap_or_default().to_owned(),
        task: task.clone(),
        body,
    };
    let manner = *held(&shared.manner);
    drop(shared.tell.send(order));
    match manner {
        Manner::HangUp => return Ok(()),
        Manner::Hesitate => drop(shared.speaking.subscribe().wait_for(|speaking| *speaking).await),
        Manner::Accept => {}
    }
    reply(&mut stream, &json!({"code": 200, "msg": "success", "data": {"taskId": task}})).await
}

async fn read(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
            });
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Ok((head, bytes.split_off(end + 4)));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn reply(stream: &mut TcpStream, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
