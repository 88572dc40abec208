//! How a connection goes from HTTP to a WebSocket, byte by byte: what comes with the handshake, before it, instead of it.

use std::time::Duration;

use serde_json::json;
use songflight::realtime::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::World;

#[actix_web::test]
async fn what_a_client_sends_together_with_its_handshake_is_not_lost() {
    let world = World::start(Settings::default());
    let hello = frame(&json!({"t": "hello", "id": 1}).to_string());
    // Cut anywhere: all of it at once, half a frame, nothing.
    for together in [hello.len(), hello.len() / 2, 1, 0] {
        let mut wire = Wire::to(&world).await;
        wire.send(&[handshake("").as_bytes(), &hello[..together]].concat()).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 101 "));
        wire.send(&hello[together..]).await;
        assert!(wire.until("\"welcome\"").await, "{together} bytes");
    }
}

#[actix_web::test]
async fn a_socket_opened_after_plain_requests_on_the_same_connection_can_be_cut() {
    let world = World::start(Settings { stall: Duration::from_millis(700), ..Settings::default() });
    let song = world.create("alice");
    let mut wire = Wire::to(&world).await;
    for _ in 0..2 {
        wire.send(b"GET /nowhere HTTP/1.1\r\nhost: us\r\n\r\n").await;
        assert!(wire.head().await.starts_with("HTTP/1.1 404 "));
    }
    wire.open(r#"{"t": "hello", "token": "alice", "subs": [{"ch": "me"}]}"#).await;
    assert!(wire.until("\"live\"").await);
    world.fill(song).await;
    world.emptied().await;
    wire.rest().await.expect_err("the end comes as a reset");
}

#[actix_web::test]
async fn a_peer_that_goes_while_it_is_jammed_is_noticed_at_once() {
    let world = World::start(Settings::default());
    let song = world.create("alice");
    let mut wire = Wire::to(&world).await;
    wire.open(r#"{"t": "hello", "token": "alice", "subs": [{"ch": "me"}]}"#).await;
    assert!(wire.until("\"live\"").await);
    world.fill(song).await;
    assert_eq!(world.realtime.connections(), 1);
    drop(wire);
    let noticed = tokio::time::timeout(Settings::default().stall / 2, world.emptied());
    noticed.await.expect("long before it would have been cut");
}

#[actix_web::test]
async fn a_refused_handshake_is_answered_with_its_problem() {
    let allowed_origins = vec!["https://app.example".to_owned()].into();
    let world = World::start(Settings { allowed_origins, ..Settings::default() });
    let refused = async |handshake: String| {
        let mut wire = Wire::to(&world).await;
        wire.send(handshake.as_bytes()).await;
        wire.rest().await.expect("an answer, and the end")
    };
    let foreign = refused(handshake("origin: https://evil.example\r\n")).await;
    assert!(foreign.starts_with("HTTP/1.1 403 ") && foreign.contains("connection: close"), "{foreign}");
    assert!(foreign.contains("\"/problems/forbidden\""), "{foreign}");

    let other_version = refused(handshake("").replace("version: 13", "version: 6")).await;
    assert!(other_version.starts_with("HTTP/1.1 426 "), "{other_version}");
    for draft in ["7", "8"] {
        let refused = refused(handshake("").replace("version: 13", &format!("version: {draft}"))).await;
        assert!(
            refused.starts_with("HTTP/1.1 426 ") && refused.contains("sec-websocket-version: 13"),
            "{refused}"
        );
    }
    let short_key = handshake("").replace("dGhlIHNhbXBsZSBub25jZQ==", "YWJj");
    assert!(refused(short_key).await.starts_with("HTTP/1.1 400 "));
    let two_origins = "origin: https://app.example\r\norigin: https://evil.example\r\n";
    assert!(refused(handshake(two_origins)).await.starts_with("HTTP/1.1 403 "));
    let with_a_body = handshake("transfer-encoding: chunked\r\nconnection: close\r\n");
    let with_a_body = refused(with_a_body + "0\r\n\r\n").await;
    assert!(with_a_body.starts_with("HTTP/1.1 400 "), "{with_a_body}");

    world.realtime.close_all(4001, Duration::ZERO).await;
    let leaving = refused(handshake("")).await;
    assert!(
        leaving.starts_with("HTTP/1.1 503 ") && leaving.contains("\"/problems/unavailable\""),
        "{leaving}"
    );
    for told in ["content-type: application/problem+json", "retry-after: 2", "\"retry_after_s\":2"] {
        assert!(leaving.contains(told), "{told}: {leaving}");
    }
    assert_eq!(world.realtime.connections(), 0);
}

#[actix_web::test]
async fn an_upgrade_request_to_another_path_is_answered_as_plain_http() {
    let world = World::start(Settings::default());
    let nowhere = handshake("").replace("/v1/ws", "/nowhere");
    let head = nowhere.replacen("GET", "HEAD", 1);
    let old = nowhere.replace("HTTP/1.1", "HTTP/1.0");
    for (request, answer) in [(nowhere, "HTTP/1.1 404 "), (head, "HTTP/1.1 404 "), (old, "HTTP/1.0 404 ")] {
        let mut wire = Wire::to(&world).await;
        wire.send(request.as_bytes()).await;
        let whole = wire.rest().await.expect("an answer, and the end");
        assert!(whole.starts_with(answer), "{request}: {whole}");
    }
    // With a body, which may come later, and no longer than it was announced.
    let post = handshake("content-length: 11\r\n").replace("GET /v1/ws", "POST /said");
    for together in ["", "wor", "words, said", "words, said and more"] {
        let mut wire = Wire::to(&world).await;
        wire.send((post.clone() + together).as_bytes()).await;
        wire.send(&b"words, said"[together.len().min(11)..]).await;
        let whole = wire.rest().await.expect("an answer, and the end");
        assert!(whole.starts_with("HTTP/1.1 200 ") && whole.ends_with("\r\n\r\nwords, said"), "{whole}");
    }
    // An answer whose length is not known ends with the connection.
    let mut wire = Wire::to(&world).await;
    wire.send(handshake("").replace("/v1/ws", "/piecemeal").as_bytes()).await;
    let whole = wire.rest().await.expect("an answer, and the end");
    assert!(!whole.contains("chunked") && whole.ends_with("\r\n\r\npiece by piece"), "{whole}");
}

// --- a connection, as bytes ----------------------------------------------------------------------

struct Wire(TcpStream);

impl Wire {
    async fn to(world: &World) -> Self {
        Self(TcpStream::connect(("127.0.0.1", world.port)).await.expect("connected"))
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("sent");
    }

    /// Opens a WebSocket and says hello.
    async fn open(&mut self, hello: &str) {
        self.send(handshake("").as_bytes()).await;
        assert!(self.head().await.starts_with("HTTP/1.1 101 "));
        self.send(&frame(hello)).await;
    }

    /// An answer up to its body, which must be empty.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("a head"));
        }
        String::from_utf8(head).expect("text")
    }

    /// Whether these words come, among whatever else.
    async fn until(&mut self, words: &str) -> bool {
        let mut come = Vec::new();
        while !come.windows(words.len()).any(|window| window == words.as_bytes()) {
            match self.0.read_buf(&mut come).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return false,
            }
        }
        true
    }

    /// All that still comes.
    async fn rest(&mut self) -> std::io::Result<String> {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), self.0.read_to_end(&mut rest));
        end.await.expect("an end within ten seconds")?;
        Ok(String::from_utf8_lossy(&rest).into_owned())
    }
}

fn handshake(more: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nhost: us\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A client's text frame. A mask of nothing changes nothing.
fn frame(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).ok().filter(|len| *len < 126).expect("a short text");
    [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat()
}
