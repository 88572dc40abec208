//! Plans as clients meet them (CRED-3, CRED-6, PROV-13); their very edges are in `tests/journal/limits.rs`.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::harness::person::{Answer, Person, answer, client, id, in_seconds, music, token};
use crate::harness::{Provider, Server, Setup, audit, shared, within};

/// A server with the limits that everybody gets, and a provider that never comes to an end.
async fn strict() -> &'static Server {
    static STRICT: OnceCell<(Server, Provider)> = OnceCell::const_new();
    let start = || async {
        let provider = Provider::start().await;
        let setup = Setup::new(&provider.url).await;
        let setup = setup.set("plans.free.per_minute", "3").set("plans.free.per_day", "10");
        (setup.set("plans.free.concurrent", "1").start().await, provider)
    };
    &STRICT.get_or_init(start).await.0
}

fn on_plan(person: &Person, plan: &str) -> Person {
    person.with(&token(&json!({"sub": person.user, "exp": in_seconds(3600), "plan": plan})))
}

/// Limit, remaining, and seconds until it is reset.
#[track_caller]
fn told(answer: &Answer) -> (i64, i64, i64) {
    let number = |name: &str| -> i64 { answer.header(name).parse().expect("a number") };
    let reset = number("x-ratelimit-reset") - in_seconds(0);
    (number("x-ratelimit-limit"), number("x-ratelimit-remaining"), reset)
}

#[tokio::test]
async fn the_fourth_song_of_a_minute_is_429_and_every_answer_says_what_is_left() {
    let mira = strict().await.person("mira");
    for left in [2, 1, 0] {
        let taken = mira.create(music(&format!("song {left}"))).await;
        assert_eq!(taken.status, 202, "{}", taken.text);
        let (limit, remaining, reset) = told(&taken);
        assert_eq!((limit, remaining), (3, left));
        assert!((0..=61).contains(&reset), "{reset}");
    }
    let fourth = mira.create_with_key("later", music("one too many")).await;
    assert_eq!(fourth.problem(429), "rate-limited");
    assert_eq!(told(&fourth).1, 0);
    let wait = fourth.body["retry_after_s"].as_i64().expect("seconds");
    assert_eq!(fourth.header("retry-after"), wait.to_string());
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(mira.get("/v1/songs").await.expect(200)["songs"].as_array().unwrap().len(), 3);
    // With a better plan the next one comes sooner; what is spent of the minute stays spent.
    let sooner = on_plan(&mira, "pro").create(music("another")).await;
    assert_eq!((sooner.problem(429), told(&sooner).0), ("rate-limited", 10));
    assert!(
        sooner.body["retry_after_s"].as_i64().is_some_and(|wait| (1..=6).contains(&wait)),
        "{}",
        sooner.text
    );
}

#[tokio::test]
async fn the_account_tells_the_limits_of_the_tokens_plan() {
    let mira = strict().await.person("mira");
    let pro = on_plan(&mira, "pro");
    for n in 0..4 {
        pro.create_with_key(&format!("{n}"), music("the same with other keys")).await.expect(202);
    }
    let account = pro.get("/v1/me").await.expect(200);
    assert_eq!(account["limits"], json!({"per_minute": 10, "per_day": 100, "concurrent": 3}));
    assert_eq!((&account["in_flight"], &account["songs_today"]), (&json!(4), &json!(4)));
    let account = mira.get("/v1/me").await.expect(200);
    assert_eq!(account["limits"], json!({"per_minute": 3, "per_day": 10, "concurrent": 1}));
    assert!(account["daily_reset_at"].as_str().is_some_and(|at| at.ends_with("T00:00:00.000Z")), "{account}");
}

#[tokio::test]
async fn a_replay_and_an_empty_purse_are_told_what_is_left_too() {
    let mira = strict().await.person("mira");
    mira.create_with_key("one", music("again")).await.expect(202);
    let again = mira.create_with_key("one", music("again")).await;
    assert_eq!((again.status, told(&again).1), (200, 2));
    let other = mira.create_with_key("one", music("other")).await;
    assert_eq!((other.problem(422), told(&other).1), ("idempotency-mismatch", 2));
    let rich = shared().await.person("rich");
    for n in 0..10 {
        rich.order(music(&format!("song {n}"))).await;
    }
    let short = rich.create(music("one too many")).await;
    assert_eq!((short.problem(402), told(&short).0), ("insufficient-credits", 60_000));
}

#[tokio::test]
async fn pressing_twice_makes_one_song_and_costs_once() {
    let server = strict().await;
    let mira = server.person("mira");
    let pressed = join_all((0..5).map(|_| mira.create(music("pressed")))).await;
    let mut ids: Vec<String> = pressed.iter().map(|answer| id(&answer.body)).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(pressed.iter().filter(|answer| answer.status == 202).count(), 1);
    assert_eq!(pressed.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count(), 4);
    assert_eq!(mira.credits().await, 9.0);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_hundred_identical_requests_at_the_same_instant_are_one_song() {
    let server = shared().await;
    let mira = server.person("mira");
    let answers = join_all((0..100).map(|_| mira.create_with_key("hundred", music("a hundred")))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 202).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 99);
    assert!(answers.iter().all(|answer| answer.body["id"] == answers[0].body["id"]));
    assert_eq!(mira.credits().await, 9.0);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn over_the_plans_songs_at_once_a_song_is_refused_or_waits_as_was_asked() {
    let mira = strict().await.person("mira");
    let refuse = |prompt: &str| json!({"mode": "music", "prompt": prompt, "on_busy": "refuse"});
    mira.create(refuse("first")).await.expect(202);
    let second = mira.create(refuse("second")).await;
    assert_eq!(second.problem(429), "too-many-at-once");
    assert!(second.body["retry_after_s"].as_i64().is_some_and(|wait| wait > 0));
    assert_eq!(told(&second).1, 2, "it was not counted");
    mira.create(music("second")).await.expect(202);
}

#[tokio::test]
async fn a_flood_is_stopped_before_the_database() {
    let mira = strict().await.person("mira");
    let free = on_plan(&mira, "free");
    let answers = join_all((0..40).map(|n| free.create(json!({"mode": "music", "n": n})))).await;
    let stopped: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(
        (24..=28).contains(&stopped.len()),
        "four times the plan's minute came through: {}",
        stopped.len()
    );
    assert_eq!(stopped[0].problem(429), "rate-limited");
    assert!(stopped[0].body["retry_after_s"].as_i64().is_some_and(|wait| (1..=20).contains(&wait)));
    assert_eq!((told(stopped[0]).0, told(stopped[0]).1), (3, 0));
    // All of it is there again after its minute, not when the next one may pass.
    assert!(told(stopped[0]).2 >= 50, "{:?}", told(stopped[0]));
}

#[tokio::test]
async fn a_preview_charges_nothing_wants_one_variant_and_there_are_three_a_day() {
    let server = shared().await;
    let mira = server.person("mira");
    let preview = |n: u32| json!({"mode": "music", "prompt": format!("preview {n}"), "preview": true});
    for n in 0..3 {
        let song = mira.create(preview(n)).await;
        assert_eq!(told(&song).1, 2 - i64::from(n));
        let song = id(&song.expect(202));
        let made = mira.until(&song, "ready").await;
        assert_eq!((&made["cost"], &made["preview"]), (&json!(0.0), &json!(true)));
        assert!(made["variants"][0]["audio_url"].is_string());
    }
    assert_eq!(mira.create(preview(3)).await.problem(429), "daily-limit");
    let two = json!({"mode": "music", "prompt": "x", "preview": true, "variants": 2});
    assert_eq!(mira.create(two).await.pointers(), ["/variants"]);
    let account = mira.get("/v1/me").await.expect(200);
    assert_eq!((&account["credits"], &account["previews_left"]), (&json!(10.0), &json!(0)));
    mira.order(music("a real one")).await;
    // What they cost us is known all the same (CRED-6).
    let sql =
        "select count(*), sum(cost_usd_milli)::bigint from provider_costs where user_id = $1 and preview";
    let row = server.look().await.query_one(sql, &[&mira.user]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 3);
    assert!(row.get::<_, i64>(1) > 0);
    let wanted = "select count(*) from songs where user_id = $1 and wish ->> 'variants' = '1'";
    assert_eq!(server.look().await.query_one(wanted, &[&mira.user]).await.unwrap().get::<_, i64>(0), 3);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_batch_is_so_many_songs_each_with_its_own_result() {
    let server = shared().await;
    let mira = server.person("mira");
    let long = "x".repeat(3001);
    let mut songs: Vec<Value> = (0..12).map(|n| music(&format!("song {n}"))).collect();
    songs.insert(1, json!({"mode": "music"}));
    songs.insert(2, music(&long));
    // The same twice is meant twice.
    songs[4] = songs[3].clone();
    let batch = mira.post("/v1/songs/batch", json!({"songs": songs})).await;
    assert!(batch.header("x-ratelimit-remaining").parse::<i64>().is_ok());
    let results = batch.expect(207)["results"].clone();
    let statuses: Vec<i64> =
        results.as_array().unwrap().iter().filter_map(|one| one["status"].as_i64()).collect();
    assert_eq!(statuses, [202, 400, 400, 202, 202, 202, 202, 202, 202, 202, 202, 202, 402, 402]);
    assert_eq!(results[1]["problem"]["errors"][0]["pointer"], "/prompt");
    assert_eq!(results[12]["problem"]["available"], 0.0);
    for at in [0, 3, 4] {
        assert_eq!(results[at]["song"]["prompt"], songs[at]["prompt"]);
        mira.until(&id(&results[at]["song"]), "ready").await;
    }
    assert_ne!(results[3]["song"]["id"], results[4]["song"]["id"]);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_batch_that_comes_again_is_the_same_songs() {
    let mira = shared().await.person("mira");
    let songs = json!({"songs": [music("one"), music("two"), music("one")]});
    let send = async |key: Option<&str>| {
        let request = mira.request(Method::POST, "/v1/songs/batch").json(&songs);
        let request = match key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        };
        answer(request).await.expect(207)["results"].clone()
    };
    let ids = |results: &Value| -> Vec<String> {
        results.as_array().unwrap().iter().map(|one| id(&one["song"])).collect()
    };
    let (first, second) = (send(Some("batch")).await, send(Some("batch")).await);
    assert_eq!(ids(&first), ids(&second));
    assert!(second.as_array().unwrap().iter().all(|one| one["status"] == 200));
    assert_eq!(mira.credits().await, 7.0);
    // Without a key the same is the same while it is under way.
    let strict = strict().await.person("otto");
    let otto = on_plan(&strict, "pro");
    let twice =
        join_all([otto.post("/v1/songs/batch", songs.clone()), otto.post("/v1/songs/batch", songs.clone())])
            .await;
    assert_eq!(ids(&twice[0].body["results"]), ids(&twice[1].body["results"]));
    assert_eq!(otto.credits().await, 7.0);
}

#[tokio::test]
async fn a_batch_has_1_to_20_songs_and_a_limit_of_its_own() {
    let mira = shared().await.person("mira");
    let many: Vec<Value> = (0..21).map(|n| music(&format!("{n}"))).collect();
    for songs in [json!([]), json!(many), json!("x"), json!(null)] {
        assert_eq!(mira.post("/v1/songs/batch", json!({"songs": songs})).await.pointers(), ["/songs"]);
    }
    let request = mira.request(Method::POST, "/v1/songs/batch").body(vec![b' '; 300 * 1024]);
    assert_eq!(answer(request).await.problem(400), "invalid-input", "more than one song may have");
    // Refused before the body is sent: whoever sends it all might not hear it.
    let mut socket = TcpStream::connect(mira.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/songs/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 2097153\r\n\r\n",
        mira.token
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut refused = vec![0; 4096];
    let read = within("an answer", socket.read(&mut refused)).await.unwrap();
    let refused = String::from_utf8_lossy(&refused[..read]).into_owned();
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
}

#[tokio::test]
async fn a_guest_works_without_an_account_and_under_stricter_limits() {
    let server = strict().await;
    let knock = || answer(client().post(format!("{}/v1/guests", server.url())));
    let welcome = knock().await.expect(201);
    let user = welcome["user"].as_str().unwrap();
    assert!(user.starts_with("guest:"), "{user}");
    assert!(welcome["expires_at"].is_string());
    let mut guest = server.person("nobody").with(welcome["token"].as_str().unwrap());
    guest.user = user.to_owned();
    let account = guest.get("/v1/me").await.expect(200);
    assert_eq!((&account["plan"], &account["credits"]), (&json!("guest"), &json!(1.1)));
    assert_eq!(account["limits"], json!({"per_minute": 2, "per_day": 3, "concurrent": 1}));
    let song = guest.create(music("a song by nobody")).await;
    assert_eq!(told(&song), (2, 1, told(&song).2));
    song.expect(202);
    assert_eq!(guest.create(music("another")).await.problem(402), "insufficient-credits");
    let plan = "select plan from profiles where user_id = $1";
    assert_eq!(server.look().await.query_one(plan, &[&guest.user]).await.unwrap().get::<_, &str>(0), "guest");
    audit(server.look().await, Some(&guest.user)).await;

    let mut came = 1;
    let refused = loop {
        let next = knock().await;
        if next.status != 201 || came > 20 {
            break next;
        }
        came += 1;
    };
    assert_eq!((came, refused.problem(429)), (10, "rate-limited"), "ten from one address in an hour");
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|wait| wait <= 360));
    let (limit, left, reset) = told(&refused);
    assert_eq!((limit, left), (10, 0));
    assert!((3500..=3601).contains(&reset), "all ten again after about an hour: {reset}");
}
