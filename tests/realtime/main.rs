//! The realtime protocol over real sockets, with a database of this test's own making: what clients see
//! when events are lost on the way, the database is away, peers are slow or say the wrong thing.

mod beginnings;
mod client;
mod closings;
mod handshakes;
mod links;
mod world;

use std::time::Duration;

use serde_json::{Value, json};
use songflight::cli::watch;
use songflight::id::SongId;
use songflight::realtime::Settings;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use client::{Client, Model};
use world::World;

#[actix_web::test]
async fn a_subscription_is_a_snapshot_and_then_every_change_in_order() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    let mut client = world.client("alice", &["me"]).await;
    assert_eq!(client.next("welcome").await["limits"]["subs"], 100);
    let subd = client.next("subd").await;
    assert_eq!((&subd["mode"], &subd["why"]), (&json!("snapshot"), &json!("new")));
    let snap = client.next("snap").await;
    assert_eq!(snap["songs"][0]["id"], json!(us));
    assert_eq!(snap["c"], "7.1");
    assert_eq!(client.next("live").await["c"], "7.1");
    for n in 2..30 {
        world.change(us, json!({"n": n}));
    }
    for n in 2..30 {
        let ev = client.next("ev").await;
        assert_eq!((&ev["seq"], &ev["prev"], &ev["set"]), (&json!(n), &json!(n - 1), &json!({"n": n})));
        assert_eq!(ev["c"], format!("7.{n}"));
    }
}

#[actix_web::test]
async fn who_comes_back_gets_exactly_what_was_missed() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    let other = world.create("alice");
    let since = |cursor: &str| json!({"ch": "me", "since": cursor});
    // The first is answered out of the database, the later ones out of the hub's memory.
    for round in 0..3 {
        let cursor = format!("7.{}", world.u("alice"));
        world.change(us, json!({"round": round}));
        world.change(other, json!({"round": round}));
        let mut client = world.connect().await;
        client.hello(Some("alice"), &[since(&cursor)]).await;
        client.next("welcome").await;
        let subd = client.next("subd").await;
        assert_eq!((&subd["mode"], &subd["n"]), (&json!("resumed"), &json!(2)));
        assert_eq!(client.next("ev").await["song"], json!(us));
        assert_eq!(client.next("ev").await["song"], json!(other));
        assert_eq!(client.next("live").await["c"], format!("7.{}", world.u("alice")));
    }
    for (cursor, why) in [("8.1", "epoch"), ("nonsense", "epoch"), ("7.999", "restored")] {
        let mut client = world.connect().await;
        client.hello(Some("alice"), &[since(cursor)]).await;
        client.next("welcome").await;
        assert_eq!(client.next("subd").await["why"], why, "{cursor}");
    }
    for n in 0..301 {
        world.change(us, json!({"n": n}));
    }
    let mut client = world.connect().await;
    client.hello(Some("alice"), &[since("7.2")]).await;
    client.next("welcome").await;
    assert_eq!(client.next("subd").await["why"], "too_many");
    world.log().forget_before(100);
    client.command(json!({"t": "sub", "id": 5, "ch": format!("song:{us}"), "since": "7.1"})).await;
    assert_eq!(client.next("subd").await["via"], "me");
    let mut client = world.connect().await;
    client.hello(Some("alice"), &[json!({"ch": format!("song:{us}"), "since": "7.90"})]).await;
    client.next("welcome").await;
    assert_eq!(client.next("subd").await["why"], "too_old");
}

#[actix_web::test]
async fn events_lost_on_the_way_are_read_when_the_next_one_comes_and_by_the_head_check() {
    let world = World::start(Settings { head_check: Duration::from_millis(400), ..Settings::default() });
    let us = world.create("alice");
    let mut client = world.client("alice", &["me"]).await;
    client.until_live().await;
    world.change_unheard(us, json!({"n": 2}));
    world.change_unheard(us, json!({"n": 3}));
    world.change(us, json!({"n": 4}));
    for n in 2..5 {
        assert_eq!(client.next("ev").await["seq"], n);
    }
    world.change_unheard(us, json!({"n": 5}));
    assert_eq!(client.next("ev").await["seq"], 5);
    world.log().epoch = 8;
    assert_eq!(client.closed().await, 4014);
}

/// The log forgets, so that only memory can still bring what is resumed.
#[actix_web::test]
async fn of_a_users_last_events_so_many_bytes_are_kept_in_memory() {
    for (recent_bytes, far) in [(1_000, "snapshot"), (Settings::default().recent_bytes, "resumed")] {
        let world = World::start(Settings { recent_bytes, ..Settings::default() });
        let song = world.create("alice");
        let mut watcher = world.client("alice", &["me"]).await;
        watcher.until_live().await;
        for n in 2..=11 {
            world.change(song, json!({"n": n, "long": "x".repeat(300)}));
            watcher.next("ev").await;
        }
        let events = world.log().events.len();
        world.log().forget_before(events);
        for (since, mode) in [("7.10", "resumed"), ("7.3", far)] {
            let mut client = world.connect().await;
            client.hello(Some("alice"), &[json!({"ch": "me", "since": since})]).await;
            assert_eq!(client.next("subd").await["mode"], mode, "{since} of {recent_bytes} bytes");
        }
    }
}

#[actix_web::test]
async fn clients_that_come_and_go_while_everything_changes_end_with_the_truth() {
    let world = World::start(Settings {
        recent_events: 20,
        connections_per_user: 20,
        hub_mailbox: 4,
        ..Settings::default()
    });
    let songs: Vec<SongId> = (0..5).map(|_| world.create("alice")).collect();
    world.log().delay = Duration::from_millis(3);
    let clients = (0..8).map(|n| {
        let world = world.clone();
        async move {
            let mut model = Model::default();
            for round in 0..6_usize {
                let mut client = world.connect().await;
                let mut sub = json!({"ch": "me"});
                if let Some(cursor) = &model.cursor {
                    sub["since"] = json!(cursor);
                }
                client.hello(Some("alice"), &[sub]).await;
                for _ in 0..(7 * (n + round) % 60) {
                    let frame = client.any().await;
                    model.take(&frame);
                }
                drop(client);
            }
            let mut client = world.connect().await;
            client.hello(Some("alice"), &[json!({"ch": "me", "since": model.cursor})]).await;
            while !model.has(&world) {
                let frame = client.any().await;
                model.take(&frame);
            }
            model
        }
    });
    let writer = async {
        for n in 0..600_usize {
            let song = songs[n * 7 % songs.len()];
            // Some are heard of, some not, some twice.
            let set = json!({"n": n});
            if n % 5 == 0 {
                world.change_unheard(song, set)
            } else {
                world.change(song, set)
            }
            if n % 3 == 0 {
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        }
        world.change(songs[0], json!({"last": true}));
    };
    let (models, ()) = tokio::join!(futures_util::future::join_all(clients), writer);
    for model in models {
        assert_eq!(model.songs, world.truth());
    }
}

#[actix_web::test]
async fn one_subscription_per_channel_however_often_it_is_asked_for() {
    let world = World::start(Settings { subs_max: 3, ..Settings::default() });
    let us = world.create("alice");
    let mut client = world.client("alice", &["me"]).await;
    client.until_live().await;
    client.command(json!({"t": "sub", "id": 2, "ch": "me"})).await;
    assert_eq!(client.next("subd").await["dup"], true);
    client.command(json!({"t": "unsub", "id": 3, "ch": "me"})).await;
    assert_eq!(client.next("unsubd").await["ch"], "me");
    for _ in 0..2 {
        client.command(json!({"t": "sub", "id": 4, "ch": format!("song:{us}")})).await;
    }
    client.until_live().await;
    world.change(us, json!({"n": 2}));
    let ev = client.next("ev").await;
    assert_eq!((&ev["ch"], &ev["c"]), (&json!(format!("song:{us}")), &json!("7.2")));
    let more: Vec<SongId> = (0..3).map(|_| world.create("alice")).collect();
    for (n, song) in more.iter().enumerate() {
        client.command(json!({"t": "sub", "id": n, "ch": format!("song:{song}")})).await;
    }
    assert_eq!(client.next("err").await["code"], "limit_subs");
}

#[actix_web::test]
async fn who_follows_all_songs_gets_the_events_of_one_that_was_followed_before_once() {
    let world = World::start(Settings::default());
    let (us, other) = (world.create("alice"), world.create("alice"));
    let mut client = world.client("alice", &[&format!("song:{us}")]).await;
    client.until_live().await;
    // From memory as well as out of the database.
    for (n, since) in [(2, Value::Null), (5, json!("7.4"))] {
        world.change(us, json!({"n": n}));
        assert_eq!(client.next("ev").await["ch"], format!("song:{us}"));
        client.command(json!({"t": "sub", "id": 2, "ch": "me", "since": since})).await;
        assert_eq!(client.next("subd").await["ch"], "me");
        let by_me = client.next("subd").await;
        assert_eq!((&by_me["ch"], &by_me["via"]), (&json!(format!("song:{us}")), &json!("me")));
        assert_eq!(client.next("live").await["ch"], "me");
        world.change(us, json!({"n": n + 1}));
        world.change(other, json!({"n": n + 1}));
        for song in [us, other] {
            let ev = client.next("ev").await;
            assert_eq!((&ev["ch"], &ev["song"]), (&json!("me"), &json!(song)), "{ev}");
        }
        client.command(json!({"t": "unsub", "id": 3, "ch": "me"})).await;
        client.command(json!({"t": "sub", "id": 4, "ch": format!("song:{us}")})).await;
        client.until_live().await;
    }
}

#[actix_web::test]
async fn as_long_as_all_songs_cannot_be_followed_the_one_still_is() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    let mut client = world.client("alice", &[&format!("song:{us}")]).await;
    client.until_live().await;
    world.log().away = true;
    client.command(json!({"t": "sub", "id": 2, "ch": "me"})).await;
    assert_eq!(client.next("err").await["ch"], "me");
    world.log().away = false;
    world.change(us, json!({"n": 2}));
    assert_eq!(client.next("ev").await["ch"], format!("song:{us}"));
}

#[actix_web::test]
async fn who_follows_all_songs_is_told_of_a_song_that_is_none_of_them() {
    let world = World::start(Settings { subs_max: 2, ..Settings::default() });
    let (us, theirs, nobodys) = (world.create("alice"), world.create("bob"), SongId(songflight::id::fresh()));
    let songs = [us, theirs, nobodys, us].map(|song| format!("song:{song}"));
    let mut channels = vec!["me"];
    channels.extend(songs.iter().map(String::as_str));
    let mut client = world.client("alice", &channels).await;
    client.until_live().await;
    // Errors go before pages.
    let mut told = Vec::new();
    while told.len() < 3 {
        let answer = client.any().await;
        if answer["t"] != "snap" {
            told.push(json!([answer["ch"], answer["via"], answer["code"]]));
        }
    }
    told.sort_by_key(Value::to_string);
    let mut expected = [
        json!([songs[0], "me", null]),
        json!([songs[1], null, "not_found"]),
        json!([songs[2], null, "not_found"]),
    ];
    expected.sort_by_key(Value::to_string);
    assert_eq!(told, expected);
    world.log().away = true;
    client.command(json!({"t": "sub", "id": 5, "ch": songs[2]})).await;
    assert_eq!(client.next("err").await["code"], "unavailable");
    world.log().away = false;
    // From memory as well.
    world.change(us, json!({"n": 2}));
    assert_eq!(client.next("ev").await["ch"], "me");
    client.command(json!({"t": "sub", "id": 6, "ch": songs[0]})).await;
    let answer = client.next("subd").await;
    assert_eq!((&answer["id"], &answer["via"]), (&json!(6), &json!("me")));
}

#[actix_web::test]
async fn a_database_that_is_away_is_said_and_a_later_subscription_works() {
    let world = World::start(Settings::default());
    world.create("alice");
    world.log().away = true;
    let mut client = world.client("alice", &["me"]).await;
    client.next("welcome").await;
    let err = client.next("err").await;
    assert_eq!(
        (&err["code"], &err["ch"], &err["retry"]),
        (&json!("unavailable"), &json!("me"), &json!("after"))
    );
    world.log().away = false;
    client.command(json!({"t": "sub", "id": 2, "ch": "me"})).await;
    client.until_live().await;
}

#[actix_web::test]
async fn a_token_may_come_with_the_handshake_and_foreign_pages_are_refused() {
    let world = World::start(Settings {
        allowed_origins: vec!["https://app.example".to_owned()].into(),
        ..Settings::default()
    });
    let mut request = world.url().into_client_request().expect("url");
    let offers = "songs.v1, bearer.YWxpY2U".parse().expect("header");
    request.headers_mut().insert("sec-websocket-protocol", offers);
    request.headers_mut().insert("origin", "https://app.example".parse().expect("header"));
    let (socket, response) = tokio_tungstenite::connect_async(request).await.expect("connected");
    assert_eq!(response.headers()["sec-websocket-protocol"], "songs.v1");
    let mut client = Client(socket);
    client.hello(None, &[json!({"ch": "me"})]).await;
    client.until_live().await;

    let mut request = world.url().into_client_request().expect("url");
    request.headers_mut().insert("origin", "https://evil.example".parse().expect("header"));
    let refused = tokio_tungstenite::connect_async(request).await.expect_err("refused");
    assert!(matches!(refused, tungstenite::Error::Http(response) if response.status() == 403));
}

#[actix_web::test]
async fn what_stands_behind_a_token_in_one_message_waits_for_its_check() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    let song = format!("song:{us}");
    let hello = json!({"t": "hello", "id": 1, "token": "alice"});
    let sub = |id: u64, ch: &str| json!({"t": "sub", "id": id, "ch": ch});
    let mut client = world.connect().await;
    client.command_lines(&[hello, sub(2, "me")]).await;
    assert_eq!(client.any().await["t"], "welcome");
    assert_eq!(client.any().await["mode"], "snapshot");
    let mut later = world.connect().await;
    let auth = json!({"t": "auth", "id": 2, "token": "alice"});
    later.command_lines(&[json!({"t": "hello", "id": 1}), auth, sub(3, &song)]).await;
    assert_eq!(later.any().await["t"], "welcome");
    assert_eq!(later.any().await["t"], "authd");
    assert_eq!(later.any().await["id"], 3);
}

#[actix_web::test]
async fn a_hello_with_channels_that_nobody_knows_is_one_command() {
    let world = World::start(Settings::default());
    world.create("alice");
    let mut client = world.connect().await;
    let mut subs: Vec<Value> = (0..30).map(|n| json!({"ch": format!("album:{n}")})).collect();
    subs.push(json!({"ch": "me", "since": 5}));
    client.hello(Some("alice"), &subs).await;
    assert_eq!(client.next("err").await["code"], "unknown_channel");
    assert_eq!(client.next("subd").await["why"], "epoch");
    client.until_live().await;

    // Told so, and not cut off as if it were slow: it would come back with the same at once.
    for token in [Some("alice"), None] {
        let mut client = world.connect().await;
        let subs: Vec<Value> =
            (0..1100).map(|_| json!({"ch": format!("song:{}", SongId(songflight::id::fresh()))})).collect();
        client.hello(token, &subs).await;
        assert_eq!(client.closed().await, 4505);
    }
}

#[actix_web::test]
async fn a_subscription_that_is_taken_back_at_once_is_answered_all_the_same() {
    let world = World::start(Settings::default());
    world.create("alice");
    let mut client = world.client("alice", &[]).await;
    client.next("welcome").await;
    let command = |t: &str, id: u64| json!({"t": t, "id": id, "ch": "me"});
    client.command_lines(&[command("sub", 2), command("unsub", 3), command("sub", 4)]).await;
    let mut answered = Vec::new();
    while answered.len() < 3 {
        let frame = client.any().await;
        answered.extend(frame["id"].as_u64());
    }
    answered.sort_unstable();
    assert_eq!(answered, [2, 3, 4]);
}

#[actix_web::test]
async fn a_song_that_comes_with_all_of_them_is_shown_as_it_is() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    let mut client = world.client("alice", &["me"]).await;
    client.until_live().await;
    world.change(us, json!({"title": "Us"}));
    client.next("ev").await;
    client.command(json!({"t": "sub", "id": 2, "ch": format!("song:{us}")})).await;
    assert_eq!(client.next("subd").await["via"], "me");
    let snap = client.next("snap").await;
    assert_eq!((&snap["songs"][0]["title"], &snap["songs"][0]["seq"]), (&json!("Us"), &json!(2)));
    world.change(us, json!({"title": "Us two"}));
    assert_eq!(client.next("ev").await["ch"], "me");
}

#[actix_web::test]
async fn a_song_that_is_gone_is_no_longer_subscribed() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    let channel = format!("song:{us}");
    let mut client = world.client("alice", &[&channel]).await;
    client.until_live().await;
    world.remove(us, None);
    assert_eq!(client.next("ev").await["kind"], "gone");
    client.command(json!({"t": "sub", "id": 2, "ch": channel})).await;
    assert_eq!(client.next("err").await["code"], "not_found");
}

#[actix_web::test]
async fn a_follower_says_clearly_why_it_cannot_follow() {
    let world = World::start(Settings::default());
    let follow = |token: &'static str, song| {
        let options = watch::Options {
            url: format!("http://127.0.0.1:{}", world.port),
            token: Box::new(|| token.to_owned()),
            song,
            json: false,
        };
        async { watch::run(options).await.expect_err("an end").to_string() }
    };
    assert!(follow("bad", None).await.contains("the token is not valid"));
    let nowhere = Some(SongId(songflight::id::fresh()));
    assert!(follow("alice", nowhere).await.contains("there is no such song"));
}
