//! A song from the wish to the sound, as its owner sees it over HTTP and on the socket.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::person::{client, id, lyrics_first, music};
use crate::harness::{Caller, Person, Server, Setup, audit, eventually, shared, simulator};

#[tokio::test]
async fn a_song_goes_from_a_prompt_to_music_in_sight_of_its_owner() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let song = mira.order(json!({"mode": "music", "title": "Harbour", "prompt": "a calm harbour"})).await;
    socket.event(&song, "ready").await;

    let kinds = socket.kinds(&song);
    assert_eq!(kinds[..2], ["created", "phase_started"], "{kinds:?}");
    assert!(kinds.contains(&"clip_ready"), "the first clip is shown before the end: {kinds:?}");
    let whole = mira.song(&song).await;
    assert_eq!(socket.overlay(&song), whole, "events put together are the song");
    assert_eq!((&whole["status"], &whole["title"]), (&json!("ready"), &json!("Harbour")));
    assert_eq!((&whole["cost"], &whole["refunded"]), (&json!(1.0), &json!(0.0)));
    assert!(whole["progress"]["music"]["provider_task_id"].is_string(), "{whole}");
    assert!(whole["progress"]["music"]["completed_at"].is_string(), "{whole}");
    assert_eq!(whole["progress"]["lyrics"], Value::Null);
    assert_eq!(mira.credits().await, 9.0);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn lyrics_are_written_then_picked_then_sung() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let song = mira.order(lyrics_first("lanterns over the bay")).await;
    socket.event(&song, "lyrics_ready").await;

    let waiting = mira.song(&song).await;
    assert_eq!(waiting["status"], "lyrics_ready");
    assert_eq!(socket.overlay(&song), waiting);
    let texts = waiting["lyrics_variants"].as_array().unwrap();
    assert!(texts.len() >= 2 && texts.iter().all(|text| text["selected"] == false), "{waiting}");
    assert_eq!(waiting["cost"], 0.1);

    mira.tell(&song, "lyrics", json!({"variant_index": 1})).await.expect(200);
    socket.event(&song, "ready").await;
    let whole = mira.song(&song).await;
    assert_eq!(socket.overlay(&song), whole);
    assert_eq!(whole["lyrics"], texts[1]["text"]);
    assert_eq!(whole["title"], texts[1]["title"]);
    assert_eq!(whole["cost"], 1.1);
    let kinds = socket.kinds(&song);
    let order: Vec<_> = kinds.iter().filter(|kind| **kind != "clip_ready" && **kind != "updated").collect();
    let expected = ["created", "phase_started", "lyrics_ready", "lyrics_chosen", "phase_started", "ready"];
    assert_eq!(order, expected.iter().collect::<Vec<_>>(), "{kinds:?}");
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn the_clips_can_be_heard_and_their_covers_seen() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("rain on tin")).await;
    let whole = mira.until(&song, "ready").await;
    let variants = whole["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 2);
    for variant in variants {
        assert_eq!(variant["status"], "complete");
        assert!(variant["duration_ms"].as_i64().unwrap() > 0);
        let (sound, kind) = fetched(&variant["audio_url"]).await;
        assert_eq!((&sound[..4], &sound[8..12], &kind[..]), (&b"RIFF"[..], &b"WAVE"[..], "audio/wav"));
        let (picture, kind) = fetched(&variant["image_url"]).await;
        assert_eq!((&picture[..8], &kind[..]), (&b"\x89PNG\r\n\x1a\n"[..], "image/png"));
    }
    assert_ne!(variants[0]["share_token"], variants[1]["share_token"]);
}

#[tokio::test]
async fn own_lyrics_and_instrumentals_go_straight_to_music() {
    let server = shared().await;
    let mira = server.person("mira");
    let words = "[Verse]\nwe walk along the pier";
    let sung = mira.order(json!({"mode": "music", "lyrics": words, "style_tags": ["folk"]})).await;
    let played =
        mira.order(json!({"mode": "music", "prompt": "dawn", "title": "Dawn", "instrumental": true})).await;
    assert_eq!(mira.until(&sung, "ready").await["lyrics"], words);
    let played = mira.until(&played, "ready").await;
    assert_eq!((&played["instrumental"], &played["title"]), (&json!(true), &json!("Dawn")));
    audit(server.look().await, Some(&mira.user)).await;
}

/// The song is read at every event: the same at the same `seq`, whoever asks and whenever.
#[tokio::test]
async fn what_is_read_is_at_every_moment_what_the_events_said() {
    let simulator = simulator().await;
    simulator.steer(json!({"latency": {"music_ms": [300, 400]}, "answer_delay_ms": 200})).await;
    let server = Setup::new(&simulator.provider()).await.start().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let song = mira.order(music("steps in the snow")).await;
    while !socket.kinds(&song).contains(&"ready") {
        let read = mira.song(&song).await;
        while socket.events(&song).last().is_none_or(|event| event["seq"].as_i64() < read["seq"].as_i64()) {
            socket.next("an event").await.expect("the socket stays");
        }
        if socket.overlay(&song)["seq"] == read["seq"] {
            assert_eq!(socket.overlay(&song), read);
        }
    }
    the_end(&server, &mira, &song).await;
}

#[tokio::test]
async fn a_socket_takes_up_where_a_listing_ended() {
    let server = shared().await;
    let mira = server.person("mira");
    let before = mira.order(music("before")).await;
    mira.until(&before, "ready").await;
    let listing = mira.get("/v1/songs").await;
    let cursor = listing.header("songs-cursor").to_owned();
    let after = id(&mira.create(music("after")).await.expect(202));
    mira.until(&after, "ready").await;

    let mut socket = crate::harness::Socket::open(&mira, json!([{"ch": "me", "since": cursor}])).await;
    let resumed = socket.seen.iter().find(|frame| frame["t"] == "subd").unwrap();
    assert_eq!(resumed["mode"], "resumed", "{resumed}");
    if !socket.kinds(&after).contains(&"ready") {
        socket.event(&after, "ready").await;
    }
    assert!(socket.events(&before).is_empty(), "what the listing showed does not come again");
    assert_eq!(socket.overlay(&after), mira.song(&after).await);
    assert!(socket.seen.iter().all(|frame| frame["t"] != "snap"));
}

#[tokio::test]
async fn a_socket_that_broke_gets_what_it_missed_once() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let song = mira.order(lyrics_first("a broken line")).await;
    socket.event(&song, "created").await;
    let cursor = socket.cursor();
    let seen = socket.events(&song).len();
    drop(socket);
    mira.until(&song, "lyrics_ready").await;

    let again = crate::harness::Socket::open(&mira, json!([{"ch": "me", "since": cursor}])).await;
    let missed: Vec<_> = again.events(&song).iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    let expected: Vec<_> = (seen as u64 + 1..=mira.song(&song).await["seq"].as_u64().unwrap()).collect();
    assert_eq!(missed, expected);
}

/// A lost connection must not lose the song: whoever hangs up once the server has heard the wish has asked. Meanwhile the
/// first of them is being written, and the others wait for the journal.
#[tokio::test]
async fn a_wish_of_somebody_who_hangs_up_at_once_is_fulfilled_all_the_same() {
    const WISHES: usize = 8;
    let simulator = simulator().await;
    let server = Setup::new(&simulator.provider()).await.start().await;
    let mira = server.person("mira");
    let held = server.setup.hold("tasks").await;
    let mut callers = Vec::new();
    for number in 0..WISHES {
        let wish = music(&format!("gone {number}"));
        callers.push(Caller::ask(&mira, Method::POST, "/v1/songs", &format!("{number}"), &wish).await);
    }
    server.setup.creation_waits().await;
    join_all(callers.into_iter().map(|caller| caller.hang_up(&server))).await;
    drop(held);
    let list = eventually("all songs to be ready", || async {
        let list = mira.get("/v1/songs").await.expect(200);
        if list["counts"]["to_play"] == WISHES { Ok(list) } else { Err(list["counts"].to_string()) }
    })
    .await;
    let made = list["songs"].as_array().unwrap().iter().map(|song| song["prompt"].as_str().unwrap());
    let wanted: BTreeSet<_> = (0..WISHES).map(|number| format!("gone {number}")).collect();
    assert_eq!(made.map(str::to_owned).collect::<BTreeSet<_>>(), wanted);
    audit(server.look().await, Some(&mira.user)).await;
}

async fn the_end(server: &Server, person: &Person, song: &str) {
    person.until(song, "ready").await;
    audit(server.look().await, None).await;
}

async fn fetched(url: &Value) -> (Vec<u8>, String) {
    let answer = client().get(url.as_str().unwrap()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.bytes().await.unwrap().to_vec(), kind)
}
