//! One watching client: applies the rules of `songs.v1` and remembers what breaks them.

use std::collections::HashMap;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::Failed;

/// What a follower tells at once.
pub enum Saw {
    Ended { song: String, status: String, at: Instant },
    Broken(String),
}

pub struct Follower {
    stop: oneshot::Sender<oneshot::Sender<Memory>>,
}

/// What the client knows: each song's fields, the newest `seq` of each, and every rule that was broken.
#[derive(Default)]
struct Memory {
    songs: HashMap<String, Map<String, Value>>,
    seqs: HashMap<String, i64>,
    wrong: Vec<String>,
}

const ENDED: [&str; 4] = ["ready", "complete", "failed", "cancelled"];

impl Follower {
    /// Connects, says hello and follows all of the user's songs.
    pub async fn connect(
        address: &str,
        token: &str,
        saw: mpsc::UnboundedSender<Saw>,
    ) -> Result<Self, Failed> {
        let mut request = format!("ws://{address}/v1/ws").into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", "songs.v1".parse()?);
        let (mut socket, _) = connect_async(request).await?;
        let hello = json!({"t": "hello", "id": 1, "token": token, "subs": [{"ch": "me"}]});
        socket.send(Message::text(hello.to_string())).await?;
        let (live, is_live) = oneshot::channel();
        let (stop, mut stopped) = oneshot::channel::<oneshot::Sender<Memory>>();
        actix_web::rt::spawn(async move {
            let (mut memory, mut live) = (Memory::default(), Some(live));
            let answer = loop {
                let message = tokio::select! {
                    message = socket.next() => message,
                    answer = &mut stopped => break answer.ok(),
                };
                match message {
                    Some(Ok(Message::Text(text))) => {
                        for line in text.lines() {
                            let frame: Value = serde_json::from_str(line).unwrap_or_default();
                            match frame["t"].as_str() {
                                Some("live") => drop(live.take().map(|live| live.send(()))),
                                Some("ping") => drop(socket.send(Message::text(r#"{"t":"pong"}"#)).await),
                                Some("ev") => memory.event(&frame, &saw),
                                _ => {}
                            }
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        drop(saw.send(Saw::Broken(format!("a socket was closed: {frame:?}"))));
                        break None;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        drop(saw.send(Saw::Broken(format!("a socket broke: {error}"))));
                        break None;
                    }
                    None => break None,
                }
            };
            if let Some(answer) = answer {
                drop(answer.send(memory));
            }
        });
        is_live.await.map_err(|_| "a subscription never went live")?;
        Ok(Self { stop })
    }

    /// What was wrong, and where the client's songs differ from what HTTP says.
    pub async fn check(self, address: &str, token: &str) -> Result<Vec<String>, Failed> {
        let (answer, memory) = oneshot::channel();
        let _ = self.stop.send(answer);
        let mut memory = memory.await.map_err(|_| "a follower is gone")?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        for (id, fields) in &memory.songs {
            let url = format!("http://{address}/v1/songs/{id}");
            let stored: Map<String, Value> = client.get(url).bearer_auth(token).send().await?.json().await?;
            let differing: Vec<&String> = stored
                .iter()
                .filter(|(field, value)| *field != "seq" && fields.get(*field) != Some(*value))
                .map(|(field, _)| field)
                .collect();
            if !differing.is_empty() {
                memory.wrong.push(format!("song {id} differs from HTTP in {differing:?}"));
            }
        }
        Ok(memory.wrong)
    }
}

impl Memory {
    fn event(&mut self, event: &Value, saw: &mpsc::UnboundedSender<Saw>) {
        let song = event["song"].as_str().unwrap_or_default().to_owned();
        let (seq, prev) = (event["seq"].as_i64().unwrap_or(-1), event["prev"].as_i64().unwrap_or(-1));
        let have = self.seqs.get(&song).copied().unwrap_or(0);
        if prev != have || seq <= have {
            self.wrong.push(format!("song {song}: event {seq} after {prev} came while at {have}"));
        }
        self.seqs.insert(song.clone(), seq);
        let fields = self.songs.entry(song.clone()).or_default();
        for (field, value) in event["set"].as_object().into_iter().flatten() {
            fields.insert(field.clone(), value.clone());
        }
        let status = event["set"]["status"].as_str().unwrap_or_default();
        if ENDED.contains(&status) {
            let status = status.to_owned();
            drop(saw.send(Saw::Ended { song, status, at: Instant::now() }));
        }
    }
}
