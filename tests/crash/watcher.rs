//! A watcher that comes back after every loss, with its cursor (RT-2).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::follow::{Came, Follower};

pub async fn watch(url: String, token: String, follower: Rc<RefCell<Follower>>) {
    loop {
        // However it ended: at once again.
        let _ = follow(&url, &token, &follower).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn follow(
    url: &str,
    token: &str,
    follower: &RefCell<Follower>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let url = format!("{}/v1/ws", url.replacen("http", "ws", 1));
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", "songs.v1".parse()?);
    let (mut socket, _) = connect_async(request).await?;
    let since = follower.borrow().cursor.clone();
    let sub = since.map_or(json!({"ch": "me"}), |since| json!({"ch": "me", "since": since}));
    follower.borrow_mut().connected();
    socket
        .send(Message::text(json!({"t": "hello", "id": 1, "token": token, "subs": [sub]}).to_string()))
        .await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            let frame: Value = serde_json::from_str(line).expect("a frame is JSON");
            let came = follower.borrow_mut().take(frame);
            if came == Came::Ping {
                socket.send(Message::text(r#"{"t":"pong"}"#)).await?;
            }
        }
    }
    Ok(())
}
