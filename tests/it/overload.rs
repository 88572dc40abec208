//! Far more comes than can be served: it is refused early and cheaply, memory stays where it was, and a moment later
//! all is as before (`requirements` CB-2, RT-4, `durability.md` section 3).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use songflight::time::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::person::{Answer, answer, client, in_seconds, music, token};
use crate::harness::provider::Manner;
use crate::harness::{Cable, Person, Provider, Server, Setup, audit, eventually, simulator};

/// How much memory a wave may cost that is over.
const GROWTH_BYTES: u64 = 96 << 20;

/// The database hangs, so that nothing that is taken goes away by itself.
#[tokio::test]
async fn a_flood_of_orders_is_refused_at_once_where_the_journal_is_full_and_passes_without_a_trace() {
    const FLOOD: usize = 600;
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await;
    let cable = Cable::to(&setup.database).await;
    let setup = setup.variable("DATABASE_URL", &cable.url).set("credits.signup_grant", "10000");
    let setup = setup.set("journal.batch_max", "16").set("journal.queue_max", "16");
    let server = setup.start().await;
    let mira = server.person("mira");
    let first = mira.order(music("before the flood")).await;
    mira.until(&first, "ready").await;
    let before = memory(&server);
    cable.go_dead();
    let began = Clock.monotonic();
    let flood = (0..FLOOD).map(|n| {
        let mira = mira.clone();
        async move {
            let answer = mira.create(music(&format!("flood {n}"))).await;
            (answer, Clock.monotonic().duration_since(began))
        }
    });
    let answers = join_all(flood).await;
    for (answer, _) in &answers {
        assert_eq!(answer.problem(503), "unavailable");
        assert_eq!(answer.header("retry-after"), "2");
    }
    let at_once = answers.iter().filter(|(_, took)| *took < Duration::from_secs(6)).count();
    assert!(
        at_once >= FLOOD - 64,
        "{at_once} of {FLOOD} were refused at once; the rest waited for the database"
    );
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "{} MiB more", grown >> 20);
    cable.mend();
    is_as_before(&server, &mira).await;
    all_are_ready(&mira).await;
    assert_eq!(simulator.stats().await["duplicates_of_intent"], 0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn of_orders_at_once_those_beyond_the_room_are_refused_before_anything_is_done() {
    const ROOM: usize = 4;
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await;
    let cable = Cable::to(&setup.database).await;
    let setup = setup.variable("DATABASE_URL", &cable.url).set("http.creates_at_once", "4");
    let server = setup.set("credits.signup_grant", "10000").start().await;
    let mira = server.person("mira");
    cable.go_dead();
    let answered = AtomicUsize::new(0);
    let orders = (0..40).map(|n| {
        let (mira, answered) = (mira.clone(), &answered);
        async move {
            let answer = mira.create(music(&format!("flood {n}"))).await;
            // Whoever was taken in waits for the database; all the others do not.
            (answer, answered.fetch_add(1, Ordering::Relaxed))
        }
    });
    let answers = join_all(orders).await;
    for (answer, _) in answers.iter().filter(|(_, place)| *place < 40 - ROOM) {
        assert_eq!(answer.problem(503), "unavailable");
        assert_eq!(answer.header("retry-after"), "2");
    }
    let metrics =
        client().get(format!("{}/metrics", server.url())).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("songflight_creates_refused_total 36"), "{metrics}");
    cable.mend();
    is_as_before(&server, &mira).await;
    all_are_ready(&mira).await;
    audit(server.look().await, None).await;
}

/// Or far more would be let in than can then be brought on their way.
#[tokio::test]
async fn a_song_keeps_its_room_until_its_provider_has_it_but_not_for_as_long_as_that_hangs() {
    let mut provider = Provider::start().await;
    provider.behave(Manner::Hesitate);
    let setup = Setup::new(&provider.url).await.set("http.creates_at_once", "1");
    let server = setup.start().await;
    let mira = server.person("mira");
    let first = mira.order(music("the first")).await;
    let mut songs = vec![first];
    // On a machine that stands still for a second the provider has hung for too long already: then the next one shows it.
    let refused = loop {
        provider.order().await;
        let answer = mira.create(music(&format!("number {}", songs.len()))).await;
        match answer.status {
            202 if songs.len() < 5 => songs.push(answer.body["id"].as_str().unwrap().to_owned()),
            _ => break answer,
        }
    };
    assert_eq!(refused.problem(503), "unavailable");
    let second = eventually("the provider to have hung for too long", || async {
        let answer = mira.create(music("the second")).await;
        if answer.status == 202 { Ok(answer) } else { Err(answer.text) }
    })
    .await;
    provider.order().await;
    provider.speak();
    songs.push(second.body["id"].as_str().unwrap().to_owned());
    for song in &songs {
        mira.until(song, "generating_music").await;
    }
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn callbacks_beyond_what_fits_are_told_to_come_again_and_none_is_lost() {
    const CALLBACKS: usize = 200;
    let mut provider = Provider::start().await;
    let setup = Setup::new(&provider.url).await;
    let cable = Cable::to(&setup.database).await;
    let setup = setup.variable("DATABASE_URL", &cable.url).set("http.callbacks_at_once", "8");
    let server = setup.start().await;
    let mira = server.person("mira");
    let song = mira.order(music("called about")).await;
    let order = provider.order().await;
    mira.until(&song, "generating_music").await;
    cable.go_dead();
    let body = order.complete();
    let answers = join_all((0..CALLBACKS).map(|_| order.call_back(&body))).await;
    let with = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(with(429) + with(503), CALLBACKS);
    assert!(with(429) >= CALLBACKS / 2, "{} at once", with(429));
    let told = answers.iter().find(|answer| answer.status == 429).map(|answer| answer.header("retry-after"));
    assert_eq!(told, Some("1"));
    cable.mend();
    eventually("the callback to be taken", || async {
        let answer = order.call_back(&body).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    mira.until(&song, "ready").await;
    audit(server.look().await, None).await;
}

/// A WebSocket keeps a duplicate of its socket; whoever only asks does not.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_plain_connection_holds_one_open_file() {
    const CONNECTIONS: usize = 60;
    let simulator = simulator().await;
    let server = Setup::new(&simulator.provider()).await.start().await;
    let files = || std::fs::read_dir(format!("/proc/{}/fd", server.program.pid)).unwrap().count();
    let address = server.url().trim_start_matches("http://").to_owned();
    let before = files();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        connections.push(stream);
    }
    let more = files().saturating_sub(before);
    assert!((CONNECTIONS..CONNECTIONS * 3 / 2).contains(&more), "{more} files for {CONNECTIONS} connections");
}

/// One user's flood costs that user an answer, the others nothing.
#[tokio::test]
async fn a_users_flood_is_stopped_before_the_database_and_others_are_served_meanwhile() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await.set("plans.free.per_minute", "10");
    let server = setup.start().await;
    let (greedy, mira) = (server.person("greedy"), server.person("mira"));
    let flood = join_all((0..400).map(|n| {
        let greedy = greedy.clone();
        async move { greedy.create(music(&format!("greedy {n}"))).await.status }
    }));
    let meanwhile = async { mira.order(music("patient")).await };
    let (statuses, song) = tokio::join!(flood, meanwhile);
    assert!(statuses.iter().all(|status| matches!(status, 202 | 402 | 429)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 202).count() <= 10);
    mira.until(&song, "ready").await;
    let figures = answer(client().get(format!("{}/metrics", server.url()))).await;
    let stopped = figures.text.lines().find(|line| line.starts_with("songflight_floods_stopped_total"));
    assert!(stopped.is_some_and(|line| !line.ends_with(" 0")), "the dam held: {stopped:?}");
}

/// Of every route that changes anything, those to come included: each stops, and none before an app would have had all
/// that it may ask for in one go.
#[tokio::test]
async fn no_route_that_changes_anything_lets_a_flood_through() {
    const AT_ONCE: usize = 300;
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await.set("plans.free.per_minute", "30");
    let server = setup.start().await;
    let (greedy, mira) = (server.person("greedy"), server.person("mira"));
    let token = token(&json!({"sub": greedy.user, "exp": in_seconds(3600), "plan": "free"}));
    let (greedy, mut asked, mut routes) = (greedy.with(&token), 0, 0);
    let document = answer(client().get(format!("{}/openapi.json", server.url()))).await.expect(200);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let real = path.replace("{id}", &songflight::id::fresh().to_string()).replace("{n}", "1");
        for (method, operation) in operations.as_object().unwrap() {
            if method == "get" || operation["security"] == json!([]) {
                continue;
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let mut stopped = false;
            for _ in 0..=AT_ONCE + 100 {
                let answer = answer(greedy.request(method.clone(), &real).json(&json!({}))).await;
                if answer.status == 429 {
                    assert_eq!(answer.problem(429), "rate-limited");
                    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|wait| wait <= 60));
                    // Of creations, fewer may come.
                    stopped = routes > 0 || asked >= AT_ONCE || path.ends_with("/songs");
                    break;
                }
                asked += 1;
            }
            assert!(stopped, "{method} {path} after {asked}");
            routes += 1;
        }
    }
    assert!(routes >= 18 && asked >= AT_ONCE, "{routes} routes, asked {asked} times");
    greedy.get("/v1/songs").await.expect(200);
    mira.order(music("patient")).await;
}

/// Nothing is looked up and nothing written for who will be refused.
#[tokio::test]
async fn the_dam_is_asked_before_anything_is_read_or_written() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await.set("plans.free.per_minute", "1");
    let server = setup.start().await;
    let mira = server.person("mira");
    let mira = mira.with(&token(&json!({"sub": mira.user, "exp": in_seconds(3600), "plan": "free"})));
    let songs = json!([{"prompt": "a wedding", "variations": [{}]}]);
    let order = json!({"package": "wedding", "occasion_date": "2027-05-08", "songs": songs});
    let order = mira.post("/v1/orders", order).await.expect(202);
    let two = json!({"song_ids": [songflight::id::fresh(), songflight::id::fresh()]});
    for _ in 0..3 {
        let unknown = mira.post("/v1/songs/merge", two.clone()).await;
        assert_eq!(
            (unknown.problem(404), unknown.body["errors"].as_array().map(Vec::len)),
            ("not-found", Some(2))
        );
    }
    assert_eq!(mira.post("/v1/songs/merge", two).await.problem(429), "rate-limited");
    let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
    let change = json!({"occasion_date": "2027-05-09", "complete": true});
    assert_eq!(mira.patch(&path, change).await.problem(429), "rate-limited");
    assert_eq!(mira.get(&path).await.expect(200)["occasion_date"], "2027-05-08");
    mira.patch(&path, json!({"occasion_date": "2027-05-10"})).await.expect(200);
}

/// A socket that says far too much is told so and closed; the one beside it does not notice.
#[tokio::test]
async fn a_flood_of_frames_ends_that_socket_and_no_other() {
    let simulator = simulator().await;
    let server = Setup::new(&simulator.provider()).await.start().await;
    let (greedy, mira) = (server.person("greedy"), server.person("mira"));
    let (mut loud, mut quiet) = (greedy.socket().await, mira.socket().await);
    let before = memory(&server);
    let flood = async {
        for n in 0..5_000 {
            if !loud.try_say(json!({"t": "ping", "id": n})).await {
                return;
            }
        }
    };
    let song = async {
        let song = mira.order(music("heard by its owner")).await;
        quiet.event(&song, "ready").await;
    };
    tokio::join!(flood, song);
    assert_eq!(loud.closed_with().await.unwrap_or(4013), 4013);
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "{} MiB more", grown >> 20);
}

/// Within seconds an order is taken as fast as ever.
async fn is_as_before(server: &Server, mira: &Person) {
    eventually("orders to be taken at once again", || async {
        let began = Clock.monotonic();
        let answer: Answer = mira.create(music("after the flood")).await;
        let took = Clock.monotonic().duration_since(began);
        if answer.status == 202 && took < Duration::from_millis(500) {
            Ok(())
        } else {
            Err(format!("{} after {took:?} at {}", answer.status, server.url()))
        }
    })
    .await;
}

async fn all_are_ready(mira: &Person) {
    eventually("every song to be ready", || async {
        let counts = mira.get("/v1/songs").await.body["counts"].clone();
        if counts["generating"] == 0 { Ok(()) } else { Err(counts.to_string()) }
    })
    .await;
}

/// What the program occupies, in bytes.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.program.pid)).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
