//! The database goes away and comes back: nothing that was acknowledged is lost, and nobody is told
//! otherwise meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::person::{lyrics_first, music};
use crate::harness::server::Simulator;
use crate::harness::{Cable, Person, Server, Setup, Socket, audit, eventually, simulator, within};

#[tokio::test]
async fn songs_survive_a_database_that_breaks_off() {
    let stage = Stage::new().await;
    let mira = stage.server.person("mira");
    let mut socket = mira.socket().await;
    let mut songs = Vec::new();
    for n in 0..6 {
        songs.push(mira.order(music(&format!("survivor {n}"))).await);
    }
    songs.push(mira.order(lyrics_first("survivor with words")).await);
    stage.cable.cut();

    for refused in [mira.get("/v1/songs").await, mira.get("/v1/me").await, mira.create(music("no")).await] {
        assert_eq!(refused.problem(503), "unavailable");
        assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
        assert!(refused.body["retry_after_s"].is_number(), "{}", refused.text);
    }
    assert_eq!(mira.get("/readyz").await.status, 503);
    assert_eq!(mira.get("/healthz").await.status, 200);
    socket.say(json!({"t": "sub", "id": 5, "ch": format!("song:{}", songflight::id::fresh())})).await;
    socket.say(json!({"t": "ping", "id": 6})).await;
    socket.until("the socket to answer", |frame| frame["t"] == "pong" && frame["id"] == 6).await;
    // As long as it takes for somebody who waits to be told.
    let told = mira.tell(&songs[6], "cancel", json!({})).await;
    assert_eq!(told.problem(503), "unavailable");
    stage.cable.mend();

    eventually("the server to be ready", || async {
        let ready = mira.get("/readyz").await;
        if ready.status == 200 { Ok(()) } else { Err(ready.text) }
    })
    .await;
    stage.all_end(&mira, &mut socket, &songs).await;
}

#[tokio::test]
async fn a_database_that_hangs_is_as_one_that_is_gone() {
    let stage = Stage::new().await;
    let mira = stage.server.person("mira");
    let mut socket = mira.socket().await;
    let songs = [mira.order(music("hanging one")).await, mira.order(lyrics_first("hanging two")).await];
    stage.cable.go_dead();
    let song = format!("/v1/songs/{}", songs[0]);
    let create = async {
        let key = mira.create_with_key("hanging", music("hanging three")).await;
        assert_eq!(key.problem(503), "unavailable");
    };
    let reads = async {
        let paths = ["/v1/songs", "/v1/me", song.as_str()];
        for refused in futures_util::future::join_all(paths.map(|path| mira.get(path))).await {
            assert_eq!(refused.problem(503), "unavailable");
        }
    };
    tokio::join!(create, reads);
    stage.cable.mend();
    // The same key asks again: one song, whatever became of the first.
    let third = eventually("the third song to be taken", || async {
        let answer = mira.create_with_key("hanging", music("hanging three")).await;
        if matches!(answer.status, 200 | 202) { Ok(answer) } else { Err(answer.text) }
    })
    .await;
    let third = crate::harness::person::id(&third.body);
    let songs = [songs[0].clone(), songs[1].clone(), third];
    stage.all_end(&mira, &mut socket, &songs).await;
}

/// Not a word comes from a host that vanished, also not that its connections are gone.
#[tokio::test]
async fn a_database_that_vanishes_is_found_again_where_another_one_takes_its_place() {
    let stage = Stage::new().await;
    let mira = stage.server.person("mira");
    let mut socket = mira.socket().await;
    let mut songs = vec![mira.order(music("vanishing one")).await];
    // Readers have used most connections that there are.
    futures_util::future::join_all((0..12).map(|_| mira.get("/v1/songs"))).await;
    stage.cable.go_dead();
    let (read, ready) = tokio::join!(mira.get("/v1/songs"), mira.get("/readyz"));
    assert_eq!((read.problem(503), ready.status), ("unavailable", 503));
    stage.cable.lay_another();

    for path in ["/readyz", "/v1/songs", "/v1/me"] {
        eventually(path, || async {
            let answer = mira.get(path).await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }
    let order = async || mira.create_with_key("vanishing", music("vanishing two")).await;
    let taken = eventually("a song to be taken", || async {
        let answer = order().await;
        if matches!(answer.status, 200 | 202) { Ok(answer) } else { Err(answer.text) }
    });
    songs.push(crate::harness::person::id(&taken.await.body));
    stage.all_end(&mira, &mut socket, &songs).await;
}

#[tokio::test]
async fn many_short_cuts_neither_lose_nor_double_a_song() {
    let stage = Stage::new().await;
    let mira = stage.server.person("mira");
    let mut taken = Vec::new();
    let ordering = async {
        for n in 0..60 {
            let answer = mira.create(music(&format!("cut {n}"))).await;
            match answer.status {
                202 => taken.push(crate::harness::person::id(&answer.body)),
                503 => {}
                other => panic!("{other}: {}", answer.text),
            }
        }
    };
    let cutting = async {
        for n in 0..12 {
            tokio::time::sleep(Duration::from_millis(23 + 7 * n)).await;
            stage.cable.cut();
            tokio::time::sleep(Duration::from_millis(5)).await;
            stage.cable.mend();
        }
    };
    tokio::join!(within("the orders", ordering), cutting);
    assert!(!taken.is_empty());
    // Also those of which their owner was told that nobody knows.
    eventually("every song to be ready", || async {
        let counts = mira.get("/v1/songs").await.body["counts"].clone();
        let done = counts["generating"] == 0 && counts["to_play"].as_u64() >= Some(taken.len() as u64);
        if done { Ok(()) } else { Err(format!("{} taken, {counts}", taken.len())) }
    })
    .await;
    assert_eq!(stage.simulator.stats().await["duplicates_of_intent"], 0);
    audit(stage.server.look().await, None).await;
}

struct Stage {
    simulator: Simulator,
    cable: Cable,
    server: Server,
}

impl Stage {
    async fn new() -> Self {
        let simulator = simulator().await;
        simulator
            .steer(json!({"latency": {"lyrics_ms": [200, 400], "music_ms": [300, 600]},
                          "callback_retry_ms": [200, 500, 1000, 2000]}))
            .await;
        let setup = Setup::new(&simulator.provider()).await;
        let cable = Cable::to(&setup.database).await;
        let setup = setup.variable("DATABASE_URL", &cable.url).set("credits.signup_grant", "1000");
        let setup =
            setup.set("tasks.poll.initial", "300ms").set("tasks.poll.max", "1s").set("tasks.grace", "1s");
        // Nobody answers pings while a test waits for something else.
        let setup = setup.set("realtime.pong", "10m").set("tasks.call_timeout", "1s");
        Self { simulator, cable, server: setup.start().await }
    }

    /// Every song comes to its end, and is told of without a hole on the socket that stayed open.
    async fn all_end(&self, mira: &Person, socket: &mut Socket, songs: &[String]) {
        for song in songs {
            let whole: Value = eventually("the song to end", || async {
                let song = mira.get(&format!("/v1/songs/{song}")).await;
                let ended =
                    matches!(song.body["status"].as_str(), Some("ready" | "lyrics_ready" | "cancelled"));
                if ended { Ok(song.body) } else { Err(song.text) }
            })
            .await;
            while socket.events(song).last().is_none_or(|event| event["seq"].as_u64() < whole["seq"].as_u64())
            {
                socket.next("the rest of the song's events").await.expect("the socket stays open");
            }
            assert_eq!(socket.overlay(song), whole);
        }
        assert_eq!(self.simulator.stats().await["duplicates_of_intent"], 0);
        audit(self.server.look().await, None).await;
    }
}
