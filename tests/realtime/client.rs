//! A client over a real socket, and what one knows that follows the rules of the protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::world::World;

pub(crate) struct Client(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(crate) async fn hello(&mut self, token: Option<&str>, subs: &[Value]) {
        self.command(json!({"t": "hello", "id": 1, "token": token, "subs": subs})).await;
    }

    pub(crate) async fn command(&mut self, command: Value) {
        self.command_lines(&[command]).await;
    }

    pub(crate) async fn command_lines(&mut self, commands: &[Value]) {
        let lines: Vec<String> = commands.iter().map(Value::to_string).collect();
        self.0.send(Message::text(lines.join("\n"))).await.expect("sent");
    }

    pub(crate) async fn any(&mut self) -> Value {
        let wait = tokio::time::timeout(Duration::from_secs(10), self.0.next());
        match wait.await.expect("a frame within ten seconds") {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("instead of a frame: {other:?}"),
        }
    }

    /// The next frame of this kind.
    pub(crate) async fn next(&mut self, t: &str) -> Value {
        loop {
            let frame = self.any().await;
            if frame["t"] == t {
                return frame;
            }
        }
    }

    pub(crate) async fn until_live(&mut self) {
        self.next("live").await;
    }

    /// The code it is closed with, whatever comes before.
    pub(crate) async fn closed(&mut self) -> u16 {
        let end = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(close)))) => return close.code.into(),
                    Some(Ok(_)) => {}
                    other => panic!("instead of a close frame: {other:?}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), end).await.expect("closed within ten seconds")
    }
}

pub(crate) trait Now: Future + Sized {
    fn now(self) -> Option<Self::Output> {
        futures_util::FutureExt::now_or_never(self)
    }
}

impl<F: Future> Now for F {}

/// A client's state, kept by the rules of the protocol.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) cursor: Option<String>,
    pub(crate) songs: BTreeMap<String, (i64, Map<String, Value>)>,
}

impl Model {
    pub(crate) fn take(&mut self, frame: &Value) {
        match frame["t"].as_str() {
            Some("snap") => {
                for song in frame["songs"].as_array().expect("songs") {
                    let mut fields = song.as_object().expect("a song").clone();
                    fields.remove("id");
                    let seq = fields.remove("seq").and_then(|seq| seq.as_i64()).expect("seq");
                    self.songs.insert(song["id"].as_str().expect("id").to_owned(), (seq, fields));
                }
            }
            Some("ev") => {
                let (mine, fields) =
                    self.songs.entry(frame["song"].as_str().expect("song").into()).or_default();
                let (seq, prev) =
                    (frame["seq"].as_i64().expect("seq"), frame["prev"].as_i64().expect("prev"));
                if seq > *mine {
                    assert!(prev <= *mine, "a hole: {prev} after {mine}");
                    fields.extend(frame["set"].as_object().expect("set").clone());
                    *mine = seq;
                }
            }
            _ => {}
        }
        if let Some(cursor) = frame["c"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
    }

    pub(crate) fn has(&self, world: &World) -> bool {
        let done = self.songs.values().any(|(_, fields)| fields.get("last") == Some(&json!(true)));
        done && self.cursor == Some(format!("7.{}", world.u("alice")))
    }
}
