//! The program ends, by a crash or by request, and starts again.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::person::{client, id, lyrics_first, music};
use crate::harness::program::folder;
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
async fn songs_of_a_provider_that_is_configured_no_more_are_given_back_and_hold_nothing_up() {
    let mut provider = Provider::start().await;
    let simulator = simulator().await;
    let setup =
        Setup::new(&provider.url).await.set("cluster.heartbeat", "100ms").set("cluster.lease", "500ms");
    let setup = setup.set("providers.mureka.base_url", &simulator.provider().replace("/suno", "/mureka"));
    let setup = setup.set("tasks.poll.initial", "100ms").set("tasks.deadline", "4s");
    let server = setup.start().await;
    let mira = server.person("mira");
    let at_suno = |mut wish: Value| {
        wish["provider"] = json!("suno");
        wish
    };
    let written = mira.order(at_suno(lyrics_first("words are there"))).await;
    let order = provider.order().await;
    assert_eq!(order.call_back(&order.lyrics()).await.status, 200);
    mira.until(&written, "lyrics_ready").await;
    let taken = mira.order(at_suno(music("taken before"))).await;
    provider.order().await;
    mira.until(&taken, "generating_music").await;

    drop(server);
    let server = setup.set("providers.suno.enabled", "false").start().await;
    let mira = mira.at(server.url());
    // Who has it is not asked any more; what it was to make next, nobody makes.
    mira.tell(&written, "lyrics", json!({"variant_index": 0})).await.expect(200);
    for (song, refunded) in [(&written, 1.0), (&taken, 1.0)] {
        let failed = mira.until(song, "failed").await;
        assert_eq!(failed["refunded"], json!(refunded), "{failed}");
    }
    let song = mira.order(music("by who is there")).await;
    assert_eq!(mira.until(&song, "ready").await["provider"], "mureka");
    assert_eq!(provider.more_orders(), 0);
    audit(server.look().await, Some(&mira.user)).await;
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

/// The folder's lock tells that the former process is gone; from another folder nobody can know.
#[tokio::test]
async fn started_anew_in_its_folder_it_need_not_wait_for_the_lease_of_the_one_that_was_killed() {
    let simulator = simulator().await;
    simulator
        .steer(json!({"latency": {"music_ms": [500, 1000]}, "callback_retry_ms": [200, 500, 1000]}))
        .await;
    let setup = Setup::new(&simulator.provider()).await.set("tasks.poll.initial", "300ms");
    let setup = setup.set("cluster.heartbeat", "200ms").set("cluster.lease", "10m");
    let mut server = setup.start().await;
    let mira = server.person("mira");
    let song = mira.order(music("nobody waits")).await;
    mira.until(&song, "generating_music").await;
    server.program.signal("KILL");
    server.program.ended().await;
    let mut elsewhere = setup.clone();
    elsewhere.home = folder();
    let other = elsewhere.set("http.bind", "127.0.0.1:0").start().await;
    let gone = "select count(*) from nodes where left_at is not null";
    let look = other.look().await;
    assert_eq!(
        look.query_one(gone, &[]).await.unwrap().get::<_, i64>(0),
        0,
        "it may live, for all they know"
    );
    drop(server);
    let server = setup.start().await;
    mira.at(server.url()).until(&song, "ready").await;
    let nodes = look.query("select epoch, left_at is null from nodes order by epoch", &[]).await.unwrap();
    let nodes: Vec<(i64, bool)> = nodes.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(nodes, [(1, true), (2, true)], "it goes on as the node it was");
    assert_eq!(simulator.stats().await["duplicates_of_intent"], 0);
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

/// A call under way holds the end up, so that what happens meanwhile can be seen.
#[tokio::test]
async fn while_it_leaves_it_answers_reads_takes_nothing_new_and_waits_for_what_is_under_way() {
    let mut provider = Provider::start().await;
    provider.behave(Manner::Hesitate);
    let setup = Setup::new(&provider.url).await;
    let mut server = setup.start().await;
    let mira = server.person("mira");
    let song = mira.order(music("under way")).await;
    let order = provider.order().await;
    assert_eq!(mira.get("/readyz").await.status, 200);
    server.program.signal("TERM");
    eventually("it to say that it leaves", || async {
        let ready = mira.get("/readyz").await;
        if ready.status == 503 { Ok(ready) } else { Err(ready.text) }
    })
    .await;
    assert_eq!(mira.get("/readyz").await.body["status"], "draining");
    assert_eq!(mira.get("/healthz").await.status, 200);
    assert_eq!(mira.song(&song).await["id"], json!(song));
    let cancel = mira.tell(&song, "cancel", json!({})).await;
    for refused in [mira.create(music("too late")).await, cancel, order.call_back(&order.complete()).await] {
        assert_eq!(refused.problem(503), "unavailable");
        assert_eq!(refused.header("retry-after"), "2");
    }
    provider.speak();
    let end = server.program.ended().await;
    assert_eq!(end.code(), Some(0), "{}", server.program.said());
    let known = "select count(*) from provider_refs where provider_task = $1";
    let row = server.look().await.query_one(known, &[&order.task]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1, "the answer that was waited for is durable");

    let server = setup.start().await;
    order.call_back(&order.complete()).await.expect(200);
    mira.at(server.url()).until(&song, "ready").await;
    assert_eq!(provider.more_orders(), 0);
    audit(server.look().await, None).await;
}

/// MiniMax answers with the song itself, after a minute or two: far longer than any other call lasts.
#[tokio::test]
async fn told_to_stop_it_waits_for_calls_as_long_as_their_provider_takes() {
    let simulator = simulator().await;
    simulator.steer(json!({"latency": {"music_ms": [4000, 4000]}})).await;
    let setup = Setup::new(&simulator.provider()).await.set("ops.stop_within", "30s");
    let minimax = simulator.provider().replace("/suno", "/minimax");
    let setup = setup.set("providers.minimax.base_url", &minimax).set("tasks.call_timeout", "1s");
    let mut server = setup.start().await;
    let mira = server.person("mira");
    let wish = json!({"mode": "music", "prompt": "rain", "provider": "minimax", "variants": 1});
    let song = mira.order(wish).await;
    mira.until(&song, "generating_music").await;
    server.program.signal("TERM");
    assert_eq!(server.program.ended().await.code(), Some(0), "{}", server.program.said());
    let row = server.look().await.query_one("select status::text from songs", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "ready");
    assert_eq!(simulator.stats().await["accepted"], 1);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn told_twice_to_stop_it_does_not_wait() {
    let mut provider = Provider::start().await;
    provider.behave(Manner::Hesitate);
    let mut server = Setup::new(&provider.url)
        .await
        .set("tasks.call_timeout", "10m")
        .set("ops.stop_within", "10m")
        .start()
        .await;
    let mira = server.person("mira");
    mira.order(music("for ever")).await;
    provider.order().await;
    server.program.signal("TERM");
    eventually("it to leave", || async {
        let ready = mira.get("/readyz").await;
        if ready.body["status"] == "draining" { Ok(()) } else { Err(ready.text) }
    })
    .await;
    server.program.signal("INT");
    assert_eq!(server.program.ended().await.code(), Some(0));
    assert!(server.program.said().contains("stopped at once"), "{}", server.program.said());
}

/// Orders placed with one key until they are answered, by many at once.
#[tokio::test]
async fn restarts_under_load_lose_no_request_that_was_accepted() {
    const PEOPLE: usize = 12;
    const ORDERS: usize = 25;
    let simulator = simulator().await;
    simulator
        .steer(json!({"latency": {"music_ms": [200, 900]}, "answer_delay_ms": 20, "callback_retry_ms": [200, 500, 1000]}))
        .await;
    let setup = Setup::new(&simulator.provider()).await.set("credits.signup_grant", "1000");
    let setup = setup.set("tasks.poll.initial", "300ms").set("tasks.poll.max", "1s").set("tasks.grace", "2s");
    let setup = setup.set("realtime.stall", "1s");
    let mut server = setup.start().await;
    let (accepted, mira) = (RefCell::new(Vec::new()), server.person("mira"));
    let ordering = futures_util::future::join_all((0..PEOPLE).map(|person| {
        let (mira, accepted) = (&mira, &accepted);
        async move {
            for n in 0..ORDERS {
                let key = format!("{person}-{n}");
                let song = until_accepted(&mira.url, &mira.token, &key).await;
                accepted.borrow_mut().push((key, song));
            }
        }
    }));
    let restarting = async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.program.signal("TERM");
            assert_eq!(server.program.ended().await.code(), Some(0), "{}", server.program.said());
            server = setup.start().await;
        }
    };
    tokio::join!(ordering, restarting);

    let look = server.look().await;
    let rows = look.query("select idempotency_key, id::text from songs order by 1", &[]).await.unwrap();
    let stored: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut accepted = accepted.into_inner();
    accepted.sort();
    assert_eq!(accepted.len(), PEOPLE * ORDERS);
    assert_eq!(stored, accepted, "what was accepted is what there is");
    eventually("every song to be ready", || async {
        let left =
            "select s.id, t.run from songs s join tasks t on t.song_id = s.id where s.status <> 'ready'";
        let left = look.query(left, &[]).await.unwrap();
        let told = left.first().map(|row| (row.get::<_, Uuid>(0), row.get::<_, Option<Value>>(1)));
        told.map_or(Ok(()), |first| Err(format!("{} are not, {first:?} for one", left.len())))
    })
    .await;
    assert_eq!(simulator.stats().await["duplicates_of_intent"], 0);
    audit(server.look().await, None).await;
}

async fn until_accepted(url: &str, token: &str, key: &str) -> String {
    loop {
        let order =
            client().post(format!("{url}/v1/songs")).bearer_auth(token).header("Idempotency-Key", key);
        let answer = order.json(&music(&format!("order {key}"))).send().await;
        if let Ok(answer) = answer {
            match answer.status().as_u16() {
                // Its body may be cut off with the connection: then the same is asked again.
                200 | 202 => {
                    if let Ok(song) = answer.json().await {
                        return id(&song);
                    }
                }
                503 => {}
                other => panic!("{other}: {}", answer.text().await.unwrap_or_default()),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
