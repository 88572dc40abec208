//! Work on finished songs: children, and what is added to a song (PROV-2, SONG-10).

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::person::{answer, id, music};
use crate::harness::{Person, Setup, audit, eventually, shared, simulator};

async fn a_finished_song(person: &Person) -> String {
    let song = person
        .order(json!({"mode": "music", "title": "Harbour", "prompt": "a harbour", "style_tags": ["folk"]}))
        .await;
    person.until(&song, "ready").await;
    song
}

/// The further task of this kind, once it has ended.
async fn added(person: &Person, song: &str, kind: &str) -> Value {
    eventually(&format!("{kind} of {song}"), || async {
        let song = person.song(song).await;
        let task = song["tasks"].as_array().unwrap().iter().find(|task| task["kind"] == kind).cloned();
        match task {
            Some(task) if matches!(task["status"].as_str(), Some("complete" | "failed")) => Ok(task),
            _ => Err(song.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn a_song_is_extended_replaced_in_part_and_covered_as_children_of_their_own() {
    let server = shared().await;
    let mira = server.person("mira");
    let parent = a_finished_song(&mira).await;
    let wishes = [
        ("extend", json!({"prompt": "and the boats come home", "continue_at_s": 5}), 0.5),
        ("replace-section", json!({"start_s": 3.0, "end_s": 9.0, "lyrics": "la la"}), 0.5),
        ("cover", json!({"style_tags": ["jazz"]}), 1.0),
    ];
    for (what, wish, cost) in wishes {
        let child = mira.tell(&parent, what, wish).await.expect(202);
        assert_eq!(child["parent_ids"], json!([parent]), "{what}");
        assert_eq!(
            (child["status"].as_str(), child["cost"].as_f64()),
            (Some("pending"), Some(cost)),
            "{what}"
        );
        assert_eq!(child["title"], "Harbour");
        let child = mira.until(&id(&child), "ready").await;
        assert!(child["variants"][0]["audio_url"].is_string(), "{what}: {child}");
    }
    assert_eq!(mira.credits().await, 10.0 - 1.0 - 2.0);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_key_makes_one_child_however_often_it_is_sent() {
    let server = shared().await;
    let mira = server.person("mira");
    let parent = a_finished_song(&mira).await;
    let ask = |body: Value| {
        mira.request(Method::POST, &format!("/v1/songs/{parent}/extend"))
            .header("Idempotency-Key", "one")
            .json(&body)
    };
    let first = answer(ask(json!({"prompt": "more"}))).await.expect(202);
    let again = answer(ask(json!({"prompt": "more"}))).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.expect(200)["id"], first["id"]);
    assert_eq!(answer(ask(json!({"prompt": "less"}))).await.problem(422), "idempotency-mismatch");
    // Whatever became of its parent (CRED-5).
    mira.request(Method::DELETE, &format!("/v1/songs/{parent}")).send().await.expect("an answer");
    let again = answer(ask(json!({"prompt": "more"}))).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.expect(200)["id"], first["id"]);
    assert_eq!(answer(ask(json!({"prompt": "less"}))).await.problem(404), "not-found");
}

#[tokio::test]
async fn stems_and_a_video_are_made_beside_the_song_once() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = a_finished_song(&mira).await;
    let mut socket = mira.socket().await;
    let asked = mira.tell(&song, "stems", json!({"variant_number": 2})).await.expect(202);
    assert_eq!((asked["status"].as_str(), asked["cost"].as_f64()), (Some("ready"), Some(1.5)));
    let again = mira.tell(&song, "stems", json!({"variant_number": 2})).await.expect(202);
    assert_eq!(again["tasks"].as_array().unwrap().len(), 1, "the same again is the same");
    socket.until("its stems", |frame| frame["kind"] == "task_completed").await;
    let stems = added(&mira, &song, "stems").await;
    assert_eq!(stems["status"], "complete");
    assert!(stems["result"]["stems"][0]["url"].is_string(), "{stems}");

    mira.tell(&song, "video", json!({})).await.expect(202);
    let video = added(&mira, &song, "video").await;
    let shown = mira.song(&song).await;
    assert_eq!(shown["variants"][0]["video_url"], video["result"]["video_url"]);
    assert_eq!((shown["status"].as_str(), mira.credits().await), (Some("ready"), 8.5));
    audit(server.look().await, Some(&mira.user)).await;
}

/// Polls would find it as well, a while later.
#[tokio::test]
async fn what_is_made_beside_a_song_is_known_by_its_callback() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await;
    let other = simulator.provider().replace("/suno", "/musicgpt");
    let setup = setup.set("providers.musicgpt.base_url", &other).set("providers.musicgpt.api_key", "test");
    let server = setup.set("tasks.poll.initial", "10m").set("tasks.poll.max", "10m").start().await;
    let mira = server.person("mira");
    for (kind, wish) in
        [("stems", json!({})), ("video", json!({})), ("stems", json!({"provider": "musicgpt"}))]
    {
        let song = mira.order(json!({"mode": "music", "prompt": "a harbour", "provider": "suno"})).await;
        mira.until(&song, "ready").await;
        mira.tell(&song, kind, wish).await.expect(202);
        let made = added(&mira, &song, kind).await;
        assert_eq!(made["status"], "complete", "{made}");
    }
    assert_eq!(simulator.stats().await["polls"], 0);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_persona_is_made_of_a_song_and_found_again() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = a_finished_song(&mira).await;
    let wish = json!({"song_id": song, "name": "Ada", "description": "calm, close to the microphone"});
    let persona = mira.post("/v1/personas", wish).await.expect(201);
    assert!(persona["persona_id"].is_string(), "{persona}");
    assert_eq!(persona["name"], "Ada");
    // By its name it is there already, whatever is said of it now.
    let wish = json!({"song_id": song, "name": "Ada", "description": "loud"});
    let again = mira.post("/v1/personas", wish).await.expect(201);
    assert_eq!(again["persona_id"], persona["persona_id"]);
    let all = mira.get("/v1/personas").await.expect(200);
    assert_eq!(all["personas"][0]["persona_id"], persona["persona_id"]);
    assert_eq!(server.person("noah").get("/v1/personas").await.expect(200)["personas"], json!([]));
}

#[tokio::test]
async fn an_addition_that_fails_is_refunded_and_leaves_the_song_alone() {
    let provider = simulator().await;
    let server = Setup::new(&provider.provider()).await.start().await;
    let mira = server.person("mira");
    let song = a_finished_song(&mira).await;
    provider.steer(json!({"fail": {"class": "insufficient_provider_credits", "p": 1.0}})).await;
    mira.tell(&song, "stems", json!({})).await.expect(202);
    let stems = added(&mira, &song, "stems").await;
    assert_eq!(stems["status"], "failed");
    assert_eq!((mira.song(&song).await["status"].as_str(), mira.credits().await), (Some("ready"), 9.0));
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn what_cannot_be_done_is_said_before_anything_is_charged() {
    let server = shared().await;
    let (mira, noah) = (server.person("mira"), server.person("noah"));
    let song = a_finished_song(&mira).await;
    let other = a_finished_song(&mira).await;
    let before = mira.credits().await;
    let merged = mira.post("/v1/songs/merge", json!({"song_ids": [song, other]})).await;
    assert_eq!(merged.problem(422), "unsupported-by-provider");
    assert_eq!(mira.post("/v1/songs/merge", json!({"song_ids": [song]})).await.pointers(), ["/song_ids"]);
    let reversed = mira.tell(&song, "replace-section", json!({"start_s": 9, "end_s": 3})).await;
    assert_eq!(reversed.pointers(), ["/end_s"]);
    let beyond = mira.tell(&song, "extend", json!({"continue_at_s": 3500})).await;
    assert_eq!(beyond.pointers(), ["/continue_at_s"]);
    let missing = mira.tell(&song, "stems", json!({"variant_number": 5})).await;
    assert_eq!(missing.pointers(), ["/variant_number"]);
    for what in ["extend", "cover", "stems", "video"] {
        assert_eq!(noah.tell(&song, what, json!({})).await.problem(404), "not-found", "{what}");
    }
    let unfinished = mira.order(music("sim:slow=5s")).await;
    assert_eq!(mira.tell(&unfinished, "stems", json!({})).await.problem(409), "wrong-state");
    mira.tell(&unfinished, "cancel", json!({})).await.expect(200);
    assert_eq!(mira.credits().await, before);
}

#[tokio::test]
async fn a_songs_history_tells_every_change_in_order() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = a_finished_song(&mira).await;
    let path = format!("/v1/songs/{song}/events");
    let all = mira.get(&path).await.expect(200);
    let events = all["events"].as_array().unwrap();
    let numbers: Vec<i64> = events.iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
    assert_eq!(
        (events[0]["kind"].as_str(), events.last().unwrap()["kind"].as_str()),
        (Some("created"), Some("ready"))
    );
    let page = mira.get(&format!("{path}?after=1&limit=1")).await.expect(200);
    assert_eq!((page["events"][0]["seq"].as_i64(), page["next_after"].as_i64()), (Some(2), Some(2)));
    assert_eq!(server.person("noah").get(&path).await.problem(404), "not-found");
}
