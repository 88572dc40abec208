//! Orders of which nobody knows whether they arrived, results that nobody told, and the end of patience.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::person::{lyrics_first, music};
use crate::harness::provider::{Manner, Order};
use crate::harness::{Person, Provider, Server, Setup, audit, eventually, simulator};

#[tokio::test]
async fn an_order_that_arrived_without_a_word_is_taken_on_when_it_calls_back() {
    let (server, mira, mut provider) = stage(&[]).await;
    provider.behave(Manner::HangUp);
    let song = mira.order(music("lost and found")).await;
    let order = provider.order().await;
    assert_eq!(order.call_back(&order.first()).await.status, 200);
    let found = mira.until(&song, "generating_music").await;
    assert_eq!(found["progress"]["music"]["provider_task_id"], order.task);
    assert_eq!(order.call_back(&order.complete()).await.status, 200);
    let done = mira.until(&song, "ready").await;
    assert_eq!(done["progress"]["music"]["retry_count"], 0);
    assert_eq!(provider.more_orders(), 0, "nothing is paid for twice");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn an_order_that_never_calls_back_is_given_once_more_and_no_more() {
    let (server, mira, mut provider) = stage(&[("tasks.grace", "400ms")]).await;
    provider.behave(Manner::HangUp);
    let song = mira.order(music("lost for good")).await;
    let first = provider.order().await;
    let second = provider.order().await;
    assert_ne!(first.key, second.key, "another attempt, and told as one");
    assert_eq!(first.key.rsplit_once('.').unwrap().0, second.key.rsplit_once('.').unwrap().0);
    let failed = mira.until(&song, "failed").await;
    assert_eq!((&failed["error"]["class"], &failed["refunded"]), (&json!("network"), &json!(1.0)));
    assert_eq!(provider.more_orders(), 0);
    // What comes after the end changes nothing.
    for order in [&first, &second] {
        assert_eq!(order.call_back(&order.complete()).await.status, 200);
    }
    assert_eq!(mira.song(&song).await, failed);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn the_second_order_is_as_good_as_the_first() {
    let (server, mira, mut provider) = stage(&[("tasks.grace", "300ms")]).await;
    provider.behave(Manner::HangUp);
    let song = mira.order(lyrics_first("lost at first")).await;
    provider.order().await;
    provider.behave(Manner::Accept);
    let second = provider.order().await;
    assert_eq!(second.call_back(&second.lyrics()).await.status, 200);
    let done = mira.until(&song, "lyrics_ready").await;
    assert_eq!((&done["cost"], &done["refunded"]), (&json!(0.1), &json!(0.0)));
    assert_eq!(provider.more_orders(), 0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_result_that_nobody_told_is_found_by_asking() {
    let (server, mira, mut provider) =
        stage(&[("tasks.poll.initial", "100ms"), ("tasks.poll.max", "200ms")]).await;
    let song = mira.order(music("found by asking")).await;
    let order = provider.order().await;
    provider.polled(3).await;
    provider.result(
        &order.task,
        json!({"taskId": order.task, "status": "FIRST_SUCCESS",
        "response": {"taskId": order.task, "sunoData": [poll_clip(&order.clip(1, true))]}}),
    );
    provider.polled(2).await;
    eventually("the first clip", || async {
        let song = mira.song(&song).await;
        if song["variants"][0]["audio_url"].is_string() { Ok(()) } else { Err(song.to_string()) }
    })
    .await;
    finished(&provider, &order);
    let done = mira.until(&song, "ready").await;
    assert_eq!(done["variants"][1]["clip_id"], format!("{}-2", order.task));
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_call_that_is_slow_to_be_asked_about_holds_no_other_up() {
    let polls = [("tasks.poll.initial", "100ms"), ("tasks.poll.max", "200ms"), ("tasks.call_timeout", "15s")];
    let (server, mira, mut provider) = stage(&polls).await;
    let song = mira.order(json!({"mode": "music", "prompt": "five at once", "variants": 5})).await;
    let orders = [provider.order().await, provider.order().await, provider.order().await];
    provider.keep_silent(&orders[0].task);
    for order in &orders[1..] {
        finished(&provider, order);
    }
    let others = eventually("the clips of the two others", || async {
        let song = mira.song(&song).await;
        let done = song["variants"].as_array().unwrap().iter().filter(|one| one["audio_url"].is_string());
        if done.count() == 4 { Ok(()) } else { Err(song.to_string()) }
    });
    // Half as long as the silent one is waited for.
    tokio::time::timeout(Duration::from_secs(8), others).await.expect("they waited for it");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn lost_callbacks_do_not_lose_songs() {
    let simulator = simulator().await;
    simulator.steer(json!({"loss": 0.5, "duplicate": 0.5, "reorder": true, "seed": 11})).await;
    let setup = Setup::new(&simulator.provider()).await;
    let server = setup.set("tasks.poll.initial", "200ms").set("tasks.poll.max", "500ms").start().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let mut songs = Vec::new();
    for n in 0..9 {
        songs.push(mira.order(music(&format!("sim:lose half {n}"))).await);
    }
    for song in &songs {
        if !socket.kinds(song).contains(&"ready") {
            socket.event(song, "ready").await;
        }
        assert_eq!(socket.overlay(song), mira.song(song).await);
    }
    assert_eq!(simulator.stats().await["duplicates_of_intent"], 0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn at_the_deadline_what_can_be_played_is_the_song() {
    let (server, mira, mut provider) = stage(&[("tasks.deadline", "2s")]).await;
    let song = mira.order(music("half of it")).await;
    let order = provider.order().await;
    order.call_back(&order.first()).await;
    let done = mira.until(&song, "ready").await;
    let variants = done["variants"].as_array().unwrap();
    assert_eq!(
        (&variants[0]["status"], &variants[1]["status"]),
        (&json!("complete"), &json!("failed")),
        "{done}"
    );
    assert_eq!(done["refunded"], 0.0);
    order.call_back(&order.complete()).await;
    assert_eq!(mira.song(&song).await, done);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn however_long_over_a_song_is_when_it_is_taken_up_it_is_asked_for_before_it_is_given_up() {
    let (server, mira, mut provider) =
        stage(&[("tasks.poll.initial", "30s"), ("tasks.poll.max", "30s")]).await;
    let song = mira.order(json!({"mode": "music", "prompt": "while nobody listened", "variants": 4})).await;
    for order in [provider.order().await, provider.order().await] {
        finished(&provider, &order);
    }
    mira.until(&song, "generating_music").await;
    let long_ago = "update tasks set run = jsonb_set(jsonb_set(run, '{calls,0,state,submitted,since}', past),
                                                     '{calls,1,state,submitted,since}', past)
                      from to_jsonb((extract(epoch from now() - interval '1 hour') * 1000)::bigint) past
                     where song_id = $1::text::uuid";
    let look = server.look().await;
    eventually("both to be taken", || async {
        let taken = "select from tasks where song_id = $1::text::uuid
                        and run #> '{calls,0,state,submitted}' is not null and run #> '{calls,1,state,submitted}' is not null";
        if look.query(taken, &[&song]).await.unwrap().is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    server.program.signal("KILL");
    assert_eq!(look.execute(long_ago, &[&song]).await.unwrap(), 1);
    let setup = server.setup.clone();
    drop(server);
    let server = setup.start().await;
    let done = mira.at(server.url()).until(&song, "ready").await;
    assert!(done["variants"].as_array().unwrap().iter().all(|one| one["audio_url"].is_string()), "{done}");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn at_the_deadline_the_answer_to_a_question_under_way_is_waited_for_whatever_else_happens() {
    let settings = [("tasks.poll.initial", "200ms"), ("tasks.deadline", "1s"), ("tasks.call_timeout", "15s")];
    let (server, mira, mut provider) = stage(&settings).await;
    let song = mira.order(music("asked in time")).await;
    let order = provider.order().await;
    provider.keep_silent(&order.task);
    finished(&provider, &order);
    provider.polled(1).await;
    // Its owner looks at it until the deadline is well over.
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..20 {
        looks.tick().await;
        mira.tell(&song, "view", json!({})).await.expect(200);
    }
    assert_eq!(mira.song(&song).await["status"], "generating_music");
    provider.speak();
    mira.until(&song, "ready").await;
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn at_the_deadline_a_song_without_anything_fails_and_is_refunded() {
    let (server, mira, mut provider) = stage(&[("tasks.deadline", "1s")]).await;
    let song = mira.order(music("none of it")).await;
    provider.order().await;
    let failed = mira.until(&song, "failed").await;
    assert_eq!((&failed["error"]["class"], &failed["refunded"]), (&json!("timeout"), &json!(1.0)));
    assert_eq!(provider.more_orders(), 0);
    assert_eq!(mira.credits().await, 10.0);
    audit(server.look().await, None).await;
}

/// A journal with room for one entry refuses most of what comes; what it took must still be made.
#[tokio::test]
async fn a_song_that_was_taken_is_made_however_full_the_journal() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await;
    let setup = setup.set("journal.batch_max", "1").set("journal.queue_max", "1");
    let server = setup.set("tasks.poll.initial", "200ms").set("credits.signup_grant", "1000").start().await;
    let mira = server.person("mira");
    let wishes: Vec<Value> = (0..60).map(|n| music(&format!("crowded {n}"))).collect();
    let answers = futures_util::future::join_all(wishes.into_iter().map(|wish| mira.create(wish))).await;
    let taken = answers.iter().filter(|answer| answer.status == 202).count();
    assert!(answers.iter().all(|answer| matches!(answer.status, 202 | 503)), "{answers:?}");
    assert!(taken > 0);
    eventually("all that were taken to be ready", || async {
        let counts = mira.get("/v1/songs").await.expect(200)["counts"].clone();
        if counts["to_play"] == taken { Ok(()) } else { Err(format!("{taken} taken, {counts}")) }
    })
    .await;
    audit(server.look().await, None).await;
}

/// From here on a poll for the order is told that both clips are there.
fn finished(provider: &Provider, order: &Order) {
    let clips = [poll_clip(&order.clip(1, true)), poll_clip(&order.clip(2, true))];
    provider.result(
        &order.task,
        json!({"taskId": order.task, "status": "SUCCESS",
        "response": {"taskId": order.task, "sunoData": clips}}),
    );
}

async fn stage(settings: &[(&str, &str)]) -> (Server, Person, Provider) {
    let provider = Provider::start().await;
    let setup = Setup::new(&provider.url).await.set("tasks.call_timeout", "500ms");
    let setup = settings.iter().fold(setup, |setup, (key, value)| setup.set(key, value));
    let server = setup.start().await;
    let mira = server.person("mira");
    (server, mira, provider)
}

/// As polls write a clip.
fn poll_clip(clip: &Value) -> Value {
    json!({"id": clip["id"], "audioUrl": clip["audio_url"], "streamAudioUrl": clip["stream_audio_url"],
           "imageUrl": clip["image_url"], "prompt": clip["prompt"], "title": clip["title"], "duration": clip["duration"]})
}
