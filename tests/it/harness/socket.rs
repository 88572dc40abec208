//! A WebSocket client that shares no code with the server (`protocol.md`), and checks what any client may
//! rely on.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{PATIENCE, Person};

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    unread: VecDeque<Value>,
    /// Everything that came, pings left out.
    pub seen: Vec<Value>,
    /// The code of the close frame, once one came.
    pub closed: Option<u16>,
}

impl Socket {
    /// Connects, says hello with these subscriptions, and waits until all of them are live.
    pub async fn open(person: &Person, subs: Value) -> Self {
        let mut socket = Self::connect(&person.url).await;
        let wanted = subs.as_array().map_or(0, Vec::len);
        socket.say(json!({"t": "hello", "id": 1, "token": person.token, "subs": subs})).await;
        for _ in 0..wanted {
            socket.until("a subscription to be live", |frame| frame["t"] == "live" || resumed(frame)).await;
        }
        socket
    }

    pub async fn connect(url: &str) -> Self {
        let url = format!("{}/v1/ws", url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a url");
        request.headers_mut().insert("Sec-WebSocket-Protocol", "songs.v1".parse().expect("a header"));
        let (stream, _) = connect_async(request).await.expect("the socket opens");
        Self { stream, unread: VecDeque::new(), seen: Vec::new(), closed: None }
    }

    pub async fn say(&mut self, frame: Value) {
        self.stream.send(Message::text(frame.to_string())).await.expect("the frame goes out");
    }

    /// Whether it still could be said.
    pub async fn try_say(&mut self, frame: Value) -> bool {
        self.stream.send(Message::text(frame.to_string())).await.is_ok()
    }

    /// The next frame that is no ping; `None` once it is closed.
    pub async fn next(&mut self, what: &str) -> Option<Value> {
        loop {
            if let Some(frame) = self.unread.pop_front() {
                if frame["t"] == "ping" {
                    self.say(json!({"t": "pong"})).await;
                    continue;
                }
                self.seen.push(frame.clone());
                return Some(frame);
            }
            let came = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            let message = match came {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(_)) | None) => return None,
                Err(_) => panic!("waited {} s for {what}; came: {}", PATIENCE.as_secs(), self.told()),
            };
            match message {
                Message::Text(text) => {
                    let frames = text.split('\n').filter(|line| !line.is_empty());
                    self.unread
                        .extend(frames.map(|line| serde_json::from_str(line).expect("a frame is JSON")));
                }
                Message::Close(frame) => {
                    self.closed = frame.map(|frame| frame.code.into());
                    return None;
                }
                _ => {}
            }
        }
    }

    /// Reads on to the first frame that fits.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        while let Some(frame) = self.next(what).await {
            if fits(&frame) {
                return frame;
            }
        }
        panic!("waited for {what}, and the socket closed with {:?}; came: {}", self.closed, self.told());
    }

    /// Reads on to an event of this song and kind.
    pub async fn event(&mut self, song: &str, kind: &str) -> Value {
        self.until(&format!("`{kind}` of {song}"), |frame| {
            frame["t"] == "ev" && frame["song"] == song && frame["kind"] == kind
        })
        .await
    }

    /// Reads on to the end; answers the code it was closed with.
    pub async fn closed_with(&mut self) -> Option<u16> {
        while self.next("the socket to close").await.is_some() {}
        self.closed
    }

    pub fn events(&self, song: &str) -> Vec<&Value> {
        self.seen.iter().filter(|frame| frame["t"] == "ev" && frame["song"] == song).collect()
    }

    /// The kinds of a song's events, in the order they came.
    pub fn kinds(&self, song: &str) -> Vec<&str> {
        self.events(song).iter().filter_map(|event| event["kind"].as_str()).collect()
    }

    /// The song put together from its events alone. Checks that they are dense and name each other.
    #[track_caller]
    pub fn overlay(&self, song: &str) -> Value {
        let mut whole = Map::new();
        for (before, event) in self.events(song).iter().enumerate() {
            assert_eq!(event["seq"], before as u64 + 1, "no hole and no double: {event}");
            assert_eq!(event["prev"], before as u64, "{event}");
            assert!(event["at"].is_i64(), "{event}");
            whole.extend(event["set"].as_object().expect("a set").clone());
            whole.insert("seq".into(), event["seq"].clone());
        }
        Value::Object(whole)
    }

    /// The cursor it would resume from.
    pub fn cursor(&self) -> String {
        let cursor = self.seen.iter().rev().find_map(|frame| frame["c"].as_str());
        cursor.expect("a cursor came").to_owned()
    }

    fn told(&self) -> String {
        self.seen.iter().map(|frame| format!("\n  {frame}")).collect()
    }
}

fn resumed(frame: &Value) -> bool {
    frame["t"] == "err"
}
