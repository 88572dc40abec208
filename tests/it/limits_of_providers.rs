//! Whose turn it is, who is asked, and what an owner sees meanwhile: queues, outages, and the choice of a provider
//! (PROV-11, PROV-12, PROV-14, CRED-3).

use serde_json::{Value, json};

use crate::harness::person::{in_seconds, music, token};
use crate::harness::{Person, Setup, audit, simulator};

fn at(provider: &str, name: &str) -> String {
    provider.replace("/suno", &format!("/{name}"))
}

/// A breaker that opens at the first failure and looks again soon.
fn impatient(setup: Setup, name: &str) -> Setup {
    setup
        .set(&format!("providers.{name}.breaker.failures"), "1")
        .set(&format!("providers.{name}.breaker.open_for"), "1s")
        // A bare 503 to a submission leaves open whether it arrived.
        .set("tasks.grace", "500ms")
        .set("retry.provider_error.delays", r#"["50ms","50ms","50ms"]"#)
}

async fn kinds(person: &Person, song: &str) -> Vec<String> {
    let history = person.get(&format!("/v1/songs/{song}/events")).await.expect(200);
    let kind = |event: &Value| event["kind"].as_str().unwrap().to_owned();
    history["events"].as_array().unwrap().iter().map(kind).collect()
}

#[tokio::test]
async fn a_song_that_was_left_to_us_is_made_elsewhere_while_its_provider_is_down() {
    let simulator = simulator().await;
    let provider = simulator.provider();
    let setup = impatient(impatient(Setup::new(&provider).await, "suno"), "mureka")
        .set("providers.mureka.base_url", &at(&provider, "mureka"))
        .set("tasks.poll.initial", "100ms");
    let server = setup.start().await;
    let mira = server.person("mira");
    // Whoever is best by price and time is the first; then it fails, and the other takes over.
    let first = mira.order(music("a first one, to see who makes it")).await;
    let maker = mira.until(&first, "ready").await["provider"].as_str().unwrap().to_owned();
    let other = if maker == "suno" { "mureka" } else { "suno" };
    simulator.steer(json!({"down": [maker]})).await;
    let song = mira.order(music("a harbour in the fog")).await;
    let song = mira.until(&song, "ready").await;
    assert_eq!(song["provider"], other);
    let id = song["id"].as_str().unwrap();
    let passed = &song["progress"]["music"]["passed_over"];
    assert_eq!(passed[0]["provider"], maker, "{song}");
    assert!(kinds(&mira, id).await.contains(&"provider_changed".to_owned()));
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_song_that_was_left_to_us_stays_where_it_is_while_all_are_down() {
    let simulator = simulator().await;
    let provider = simulator.provider();
    let setup = impatient(impatient(Setup::new(&provider).await, "suno"), "mureka")
        .set("providers.mureka.base_url", &at(&provider, "mureka"))
        .set("providers.suno.breaker.open_for", "5s")
        .set("providers.mureka.breaker.open_for", "5s")
        .set("tasks.poll.initial", "100ms");
    let server = setup.start().await;
    let mira = server.person("mira");
    let wish =
        |prompt: &str, provider: &str| json!({"mode": "music", "prompt": prompt, "provider": provider});
    simulator.steer(json!({"down": ["suno", "mureka"]})).await;
    // Both are found out by songs of their own.
    for (person, name) in [("noah", "suno"), ("otto", "mureka")] {
        let person = server.person(person);
        let mut socket = person.socket().await;
        for n in 0..2 {
            person.order(wish(&format!("a bell in the fog {n}"), name)).await;
        }
        socket.until("the outage", |frame| frame["set"]["waiting_for"] == "provider_down").await;
    }
    let mut socket = mira.socket().await;
    let song = mira.order(music("a lamp in the fog")).await;
    let first = mira.song(&song).await["provider"].as_str().unwrap().to_owned();
    socket.until("the reason", |frame| frame["set"]["waiting_for"] == "provider_down").await;
    assert_eq!(mira.song(&song).await["provider"], json!(first), "nobody else would take it");
    let other = if first == "suno" { "mureka" } else { "suno" };
    simulator.steer(json!({"down": [first]})).await;
    let made = mira.until(&song, "ready").await;
    assert_eq!(made["provider"], other, "{made}");
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_song_for_a_provider_that_is_down_says_so_and_is_made_when_it_is_back() {
    let simulator = simulator().await;
    // It looks again only after the outage was told and is over: who is the second one to find it down has failed.
    let setup = impatient(Setup::new(&simulator.provider()).await, "suno");
    let server = setup.set("providers.suno.breaker.open_for", "4s").start().await;
    let (mira, noah) = (server.person("mira"), server.person("noah"));
    simulator.steer(json!({"down": ["suno"]})).await;
    let wish = |prompt: &str| json!({"mode": "music", "prompt": prompt, "provider": "suno"});
    let first = mira.order(wish("a bell in the fog")).await;
    let mut socket = noah.socket().await;
    let second = noah.order(wish("a lamp in the fog")).await;
    let waits = socket.until("the reason", |frame| frame["set"]["waiting_for"] == "provider_down").await;
    assert_eq!(waits["set"].get("status"), None, "still pending");
    simulator.steer(json!({"down": false})).await;
    for (person, song) in [(&mira, &first), (&noah, &second)] {
        let song = person.until(song, "ready").await;
        assert_eq!((song["provider"].as_str(), &song["waiting_for"]), (Some("suno"), &Value::Null));
    }
    audit(server.look().await, None).await;
}

/// The breaker stays open far longer than the song has.
#[tokio::test]
async fn what_holds_polls_back_neither_loses_a_finished_song_nor_moves_its_deadline() {
    let simulator = simulator().await;
    simulator.steer(json!({"callbacks": false})).await;
    let setup = impatient(Setup::new(&simulator.provider()).await, "suno")
        .set("providers.suno.breaker.open_for", "5m")
        .set("tasks.deadline", "6s")
        .set("tasks.poll.initial", "1s");
    let server = setup.start().await;
    let (mira, noah) = (server.person("mira"), server.person("noah"));
    let wish = |prompt: &str| json!({"mode": "music", "prompt": prompt, "provider": "suno"});
    let finished = mira.order(wish("sim:slow=3s done in time")).await;
    let endless = mira.order(wish("sim:slow=5m never done")).await;
    for song in [&finished, &endless] {
        mira.until(song, "generating_music").await;
    }
    simulator.steer(json!({"down": ["suno"]})).await;
    let mut socket = noah.socket().await;
    noah.order(wish("a lamp in the fog")).await;
    socket.until("the outage", |frame| frame["set"]["waiting_for"] == "provider_down").await;
    simulator.steer(json!({"down": false})).await;
    mira.until(&finished, "ready").await;
    let late = mira.until(&endless, "failed").await;
    assert_eq!(late["error"]["class"], "timeout", "{late}");
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_users_songs_are_made_as_many_at_once_as_the_plan_says_the_oldest_first() {
    let simulator = simulator().await;
    let server = Setup::new(&simulator.provider()).await.set("plans.free.concurrent", "1").start().await;
    let mira = server.person("mira");
    let first = mira.order(music("sim:slow=3s one")).await;
    mira.until(&first, "generating_music").await;
    let mut socket = mira.socket().await;
    let second = mira.order(music("two")).await;
    let third = mira.order(music("three")).await;
    let waits = |song: &str, place: u32| {
        let song = song.to_owned();
        move |frame: &Value| {
            frame["song"] == song
                && frame["set"]["waiting_for"] == "concurrency"
                && frame["set"]["queue_position"] == place
        }
    };
    socket.until("the second to wait", waits(&second, 1)).await;
    socket.until("the third to wait", waits(&third, 2)).await;
    let refused = mira.create(json!({"mode": "music", "prompt": "four", "on_busy": "refuse"})).await;
    assert_eq!(refused.problem(429), "too-many-at-once");
    mira.until(&third, "ready").await;
    let order = |song: Value| song["progress"]["music"]["started_at"].as_str().unwrap().to_owned();
    let (one, two, three) = (mira.song(&first).await, mira.song(&second).await, mira.song(&third).await);
    let ended = one["progress"]["music"]["completed_at"].as_str().unwrap().to_owned();
    assert!(ended <= order(two.clone()) && order(two) < order(three), "one after the other");
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn premium_is_served_before_free_when_a_provider_is_full() {
    let simulator = simulator().await;
    let server =
        Setup::new(&simulator.provider()).await.set("providers.suno.max_concurrent", "1").start().await;
    let (mira, noah) = (server.person("mira"), server.person("noah"));
    let premium = token(&json!({"sub": noah.user, "plan": "premium", "exp": in_seconds(3600)}));
    let noah = noah.with(&premium);
    let running = mira.order(music("sim:slow=3s the one at work")).await;
    mira.until(&running, "generating_music").await;
    let mut socket = mira.socket().await;
    let free = mira.order(music("free")).await;
    socket.until("the free one to wait", |frame| frame["set"]["waiting_for"] == "provider_limit").await;
    let premium = noah.order(music("premium")).await;
    let premium = noah.until(&premium, "ready").await;
    let free = mira.until(&free, "ready").await;
    let started = |song: &Value| song["progress"]["music"]["started_at"].as_str().unwrap().to_owned();
    assert!(started(&premium) < started(&free), "{premium} {free}");
}

#[tokio::test]
async fn each_clip_of_a_musicgpt_song_comes_by_a_webhook_of_its_own() {
    let simulator = simulator().await;
    let provider = simulator.provider();
    let setup = Setup::new(&provider).await.set("providers.musicgpt.base_url", &at(&provider, "musicgpt"));
    let server = setup.set("tasks.poll.initial", "10m").set("tasks.poll.max", "10m").start().await;
    let mira = server.person("mira");
    let wish = json!({"mode": "music", "prompt": "rain on a tin roof", "provider": "musicgpt"});
    let song = mira.order(wish).await;
    let song = mira.until(&song, "ready").await;
    let playable = song["variants"].as_array().unwrap().iter().filter(|v| v["audio_url"].is_string());
    assert_eq!(playable.count(), 2);
    assert!(kinds(&mira, song["id"].as_str().unwrap()).await.contains(&"clip_ready".to_owned()));
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn how_long_a_song_will_take_is_told_from_its_start() {
    let simulator = simulator().await;
    let server = Setup::new(&simulator.provider()).await.start().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    mira.order(music("sim:slow=2s a slow air")).await;
    let started = socket.until("its start", |frame| frame["kind"] == "phase_started").await;
    assert!(started["set"]["eta_ms"].as_u64().is_some_and(|eta| eta > 0), "{started}");
    let ready = socket.until("its end", |frame| frame["kind"] == "ready").await;
    assert_eq!(ready["set"]["eta_ms"], Value::Null);
}
