//! The program ends, by a crash or by request, and starts again.

use serde_json::json;

use crate::harness::person::{lyrics_first, music};
use crate::harness::provider::Manner;
use crate::harness::{Provider, Setup, Socket, audit, eventually, simulator};

#[tokio::test]
async fn after_a_crash_every_song_goes_on_and_is_made_once() {
    let simulator = simulator().await;
    let latency = json!({"latency": {"lyrics_ms": [100, 1500], "music_ms": [200, 2500]}, "answer_delay_ms": 100,
                         "callback_retry_ms": [500, 1000, 2000, 4000]});
    simulator.steer(latency).await;
    let setup = Setup::new(&simulator.provider()).await;
    let setup = setup.set("tasks.poll.initial", "300ms").set("tasks.poll.max", "1s").set("tasks.grace", "2s");
    let setup = setup.set("tasks.call_timeout", "1s").set("cluster.heartbeat", "200ms");
    let server = setup.set("cluster.lease", "1s").set("credits.signup_grant", "100").start().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let chosen = mira.order(lyrics_first("chosen before the crash")).await;
    socket.event(&chosen, "lyrics_ready").await;
    let waiting = mira.order(lyrics_first("waits for its owner")).await;
    socket.event(&waiting, "lyrics_ready").await;
    let cancelled = mira.order(music("cancelled before the crash")).await;
    mira.tell(&cancelled, "cancel", json!({})).await.expect(200);
    let mut songs = vec![chosen.clone()];
    mira.tell(&chosen, "lyrics", json!({"variant_index": 0})).await.expect(200);
    for n in 0..12 {
        songs.push(mira.order(music(&format!("crash {n}"))).await);
    }
    let cursor = socket.cursor();
    let before = (mira.song(&waiting).await, mira.song(&cancelled).await);
    let server = server.crash_and_start().await;

    let mira = mira.at(server.url());
    for song in &songs {
        mira.until(song, "ready").await;
    }
    assert_eq!((mira.song(&waiting).await, mira.song(&cancelled).await), before);
    // Who comes back with a cursor from before gets what is missing, without a hole.
    let again = Socket::open(&mira, json!([{"ch": "me", "since": cursor}])).await;
    let mode = again.seen.iter().find(|frame| frame["t"] == "subd").unwrap();
    assert_eq!(mode["mode"], "resumed", "{mode}");
    socket.seen.extend(again.seen);
    let last = &songs[songs.len() - 1];
    let mut seqs: Vec<_> = socket.events(last).iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    seqs.dedup();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(simulator.stats().await["duplicates_of_intent"], 0);
    mira.tell(&waiting, "lyrics", json!({"variant_index": 0})).await.expect(200);
    mira.until(&waiting, "ready").await;
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_crash_between_the_order_and_its_answer_does_not_order_twice() {
    let mut provider = Provider::start().await;
    provider.behave(Manner::Hesitate);
    let setup = Setup::new(&provider.url).await.set("tasks.grace", "1h");
    let server = setup.set("cluster.heartbeat", "100ms").set("cluster.lease", "500ms").start().await;
    let mira = server.person("mira");
    let song = mira.order(music("a crash in between")).await;
    let order = provider.order().await;
    let server = server.crash_and_start().await;
    let mira = mira.at(server.url());
    // Until the dead one's lease has run out, the callback is to come again.
    eventually("the callback to be taken", || async {
        let answer = order.call_back(&order.complete()).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    mira.until(&song, "ready").await;
    assert_eq!(provider.more_orders(), 0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn told_to_stop_it_says_goodbye_and_loses_nothing() {
    let simulator = simulator().await;
    simulator
        .steer(json!({"latency": {"music_ms": [1500, 2000]}, "callback_retry_ms": [500, 1000, 2000]}))
        .await;
    let setup = Setup::new(&simulator.provider()).await.set("tasks.poll.initial", "300ms");
    let mut server = setup.start().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let mut songs = Vec::new();
    for n in 0..5 {
        songs.push(mira.order(music(&format!("handed over {n}"))).await);
    }
    server.program.signal("TERM");
    let bye = socket.until("a goodbye", |frame| frame["t"] == "bye").await;
    assert_eq!((&bye["code"], &bye["reason"]), (&json!(4001), &json!("deploy")));
    assert!(bye["after_ms"].as_u64().unwrap() <= 5000, "{bye}");
    assert_eq!(socket.closed_with().await, Some(4001));
    let end = server.program.ended().await;
    assert_eq!(end.code(), Some(0), "{}", server.program.said());

    // Given back, not run out: the next one takes the songs up at once.
    let left = "select count(*) from nodes where left_at is null or lease_until > now()";
    let row = server.look().await.query_one(left, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "the lease was given back");
    let server = setup.start().await;
    let mira = mira.at(server.url());
    for song in &songs {
        mira.until(song, "ready").await;
    }
    assert_eq!(simulator.stats().await["duplicates_of_intent"], 0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_second_node_takes_up_what_a_dead_one_left() {
    let simulator = simulator().await;
    simulator.steer(json!({"latency": {"music_ms": [1000, 1500]}})).await;
    let setup = Setup::new(&simulator.provider()).await.set("tasks.poll.initial", "300ms");
    let setup = setup.set("cluster.heartbeat", "200ms").set("cluster.lease", "1s");
    let first = setup.start().await;
    let second = setup.clone().set("http.bind", "127.0.0.1:0").start().await;
    let mira = first.person("mira");
    let song = mira.order(music("handed on")).await;
    mira.until(&song, "generating_music").await;
    drop(first);
    let mira = mira.at(second.url());
    mira.until(&song, "ready").await;
    assert_eq!(simulator.stats().await["duplicates_of_intent"], 0);
    audit(second.look().await, None).await;
}
