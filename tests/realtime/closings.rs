//! When the server closes a connection, and with which code: tokens, mistakes, silence, a stop.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use songflight::id::{ShareToken, SongId, UserId};
use songflight::realtime::Settings;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::client::{Client, Now as _};
use crate::world::World;

#[actix_web::test]
async fn tokens_are_checked_refreshed_and_run_out() {
    let world = World::start(Settings { connections_per_user: 2, ..Settings::default() });
    for (token, code) in [("bad", 4500), ("expired", 4009), ("banned", 4503), ("away", 1013)] {
        let mut client = world.connect().await;
        client.hello(Some(token), &[]).await;
        assert_eq!(client.closed().await, code, "{token}");
    }
    let mut one = world.client("alice", &[]).await;
    one.next("welcome").await;
    one.command(json!({"t": "auth", "id": 9, "token": "alice"})).await;
    assert_eq!(one.next("authd").await["id"], 9);
    let mut two = world.client("alice", &[]).await;
    two.next("welcome").await;
    assert_eq!(world.client("alice", &[]).await.closed().await, 4504);
    two.command(json!({"t": "auth", "id": 9, "token": "bob"})).await;
    assert_eq!(two.closed().await, 4500);
    world.realtime.revoke(&UserId::trusted("alice"));
    assert_eq!(one.closed().await, 4503);
    assert_eq!(world.client("leaving", &["me"]).await.closed().await, 4503);
}

#[actix_web::test]
async fn who_tries_tokens_in_a_row_is_closed_and_one_that_cannot_be_checked_is_no_mistake() {
    let world = World::start(Settings { commands_per_second: 100, ..Settings::default() });
    let auth = |id: u64, token: &str| json!({"t": "auth", "id": id, "token": token});
    let mut client = world.connect().await;
    client.hello(None, &[]).await;
    for (id, token) in (2..).zip(["bad", "bad", "away", "alice"].repeat(4)) {
        client.command(auth(id, token)).await;
        let t = if token == "alice" { "authd" } else { "err" };
        assert_eq!(client.next(t).await["id"], id);
    }
    for id in 20..30 {
        client.command(auth(id, "bad")).await;
    }
    assert_eq!(client.closed().await, 4509);
}

#[actix_web::test]
async fn who_asks_for_songs_that_are_not_there_in_a_row_is_closed_and_all_of_a_hello_are_one_command() {
    let world = World::start(Settings { commands_per_second: 100, ..Settings::default() });
    let us = world.create("alice");
    let nowhere = || format!("song:{}", SongId(songflight::id::fresh()));
    let hello: Vec<String> = (0..20).map(|_| nowhere()).collect();
    let mut client = world.client("alice", &hello.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for _ in &hello {
        assert_eq!(client.next("err").await["code"], "not_found");
    }
    let sub = |id: u64, ch: &str| json!({"t": "sub", "id": id, "ch": ch});
    let links = || format!("share:{}", ShareToken(songflight::id::fresh()));
    // One that begins forgives those before it.
    for id in 2..11 {
        client.command(sub(id, &nowhere())).await;
        assert_eq!(client.next("err").await["id"], id);
    }
    client.command(sub(11, &format!("song:{us}"))).await;
    client.until_live().await;
    for id in 12..22 {
        client.command(sub(id, &if id % 2 == 0 { nowhere() } else { links() })).await;
        assert_eq!(client.next("err").await["id"], id);
    }
    assert_eq!(client.closed().await, 4509);
}

#[actix_web::test]
async fn a_good_command_between_them_forgives_songs_that_turn_out_not_to_be_there_later() {
    let world = World::start(Settings { commands_per_second: 100, ..Settings::default() });
    let mut client = world.client("alice", &[]).await;
    client.next("welcome").await;
    let nowhere =
        |id: u64| json!({"t": "sub", "id": id, "ch": format!("song:{}", SongId(songflight::id::fresh()))});
    let five = |from: u64| (from..from + 5).map(nowhere);
    let said: Vec<_> = five(2).chain([json!({"t": "ping", "id": 7})]).chain(five(8)).collect();
    client.command_lines(&said).await;
    for _ in 0..10 {
        assert_eq!(client.next("err").await["code"], "not_found");
    }
    client.command(json!({"t": "ping", "id": 99})).await;
    while client.next("pong").await["id"] != 99 {}
}

#[actix_web::test]
async fn a_hello_of_which_far_too_many_songs_are_not_there_is_closed() {
    let world = World::start(Settings::default());
    let nowhere = (0..150).map(|_| format!("song:{}", SongId(songflight::id::fresh())));
    let subs: Vec<String> = std::iter::once("me".to_owned()).chain(nowhere).collect();
    let mut client = world.client("alice", &subs.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(client.closed().await, 4505);
}

#[actix_web::test]
async fn whoever_says_the_wrong_thing_is_closed_with_the_code_for_it() {
    let settings = Settings { hello_timeout: Duration::from_millis(300), ..Settings::default() };
    let world = World::start(settings);
    assert_eq!(world.connect().await.closed().await, 4502);

    let mut client = world.client("alice", &[]).await;
    client.0.send(Message::binary(vec![1])).await.expect("sent");
    assert_eq!(client.closed().await, 1003);

    let mut client = world.client("alice", &[]).await;
    client.0.send(Message::text("x".repeat(65_537))).await.expect("sent");
    assert_eq!(client.closed().await, 1009);

    let mut client = world.client("alice", &[]).await;
    for n in 0..10 {
        client.command(json!({"t": "sub", "id": n})).await;
    }
    client.next("welcome").await;
    assert_eq!(client.next("err").await["code"], "bad_request");
    assert_eq!(client.closed().await, 4509);

    let mut client = world.client("alice", &[]).await;
    client.command_lines(&vec![json!({"t": "ping"}); 60]).await;
    client.next("welcome").await;
    assert_eq!(client.next("err").await["code"], "rate_limited");
    assert_eq!(client.closed().await, 4013);

    let mut client = world.client("alice", &[]).await;
    client.next("welcome").await;
    client.0.close(None).await.expect("closed");
    while client.0.next().await.is_some() {}
    world.emptied().await;
}

#[actix_web::test]
async fn pings_carry_the_heads_and_who_does_not_answer_is_closed() {
    let settings = Settings {
        ping: Duration::from_millis(300),
        pong: Duration::from_millis(300),
        ..Settings::default()
    };
    let world = World::start(settings);
    let us = world.create("alice");
    let mut client = world.client("alice", &["me"]).await;
    client.until_live().await;
    world.change(us, json!({"n": 2}));
    assert_eq!(client.next("ping").await["heads"], json!({"me": "7.2"}));
    client.command(json!({"t": "pong"})).await;
    client.next("ping").await;
    assert_eq!(client.closed().await, 4012);
}

#[actix_web::test]
async fn a_peer_that_does_not_read_is_cut_and_costs_nothing_more() {
    let settings = Settings { stall: Duration::from_millis(700), ..Settings::default() };
    let world = World::start(settings);
    let us = world.create("alice");
    let mut client = world.client("alice", &["me"]).await;
    client.until_live().await;
    let mut reader = world.client("alice", &["me"]).await;
    reader.until_live().await;
    for n in 0..3000 {
        world.change(us, json!({"text": "x".repeat(2000), "n": n}));
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while reader.0.next().now().is_some() {}
    }
    while world.realtime.connections() > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        while reader.0.next().now().is_some() {}
    }
    let broken = async {
        loop {
            match client.0.next().await {
                Some(Ok(Message::Close(_))) | None => return false,
                Some(Err(_)) => return true,
                Some(Ok(_)) => {}
            }
        }
    };
    assert!(broken.await, "the end comes as a reset, without a close frame");
}

#[actix_web::test]
async fn a_shutdown_says_bye_and_spreads_the_returns() {
    let world = World::start(Settings::default());
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = world.client("alice", &["me"]).await;
        client.until_live().await;
        clients.push(client);
    }
    let mut after = Vec::new();
    let closing = world.realtime.close_all(4001, Duration::from_secs(30));
    let reading = async {
        for client in &mut clients {
            let bye = client.next("bye").await;
            assert_eq!((&bye["code"], &bye["retry"]), (&json!(4001), &json!("after")));
            after.push(bye["after_ms"].as_u64().expect("after_ms"));
            assert_eq!(client.closed().await, 4001);
        }
    };
    tokio::join!(closing, reading);
    after.sort_unstable();
    after.dedup();
    assert_eq!(after.len(), 5, "{after:?}");
    assert_eq!(world.realtime.connections(), 0);
    let refused = tokio_tungstenite::connect_async(world.url()).await.expect_err("refused");
    assert!(matches!(refused, tungstenite::Error::Http(response) if response.status() == 503));
}

#[actix_web::test]
async fn a_socket_that_is_opened_while_all_are_closed_is_closed_as_well() {
    let world = World::start(Settings::default());
    world.realtime.close_all(4001, Duration::from_secs(30)).await;
    let late = tokio_tungstenite::connect_async(world.url().replace("/v1/ws", "/v1/late")).await;
    let mut late = Client(late.expect("connected").0);
    let bye = late.next("bye").await;
    assert_eq!((&bye["code"], &bye["retry"]), (&json!(4001), &json!("after")));
    assert_eq!(late.closed().await, 4001);
}

#[actix_web::test]
async fn a_hub_that_stumbles_is_noticed_and_its_watchers_are_sent_to_the_next_start() {
    let world = World::start(Settings::default());
    world.create("alice");
    world.client("alice", &["me"]).await.until_live().await;
    assert!(!world.realtime.has_fallen());
    world.log().stumbles = true;
    assert_eq!(world.client("alice", &["me"]).await.closed().await, 1012);
    assert!(world.realtime.has_fallen());
}
