//! What providers post: only they may, all of it is kept, and neither order nor repetition matters.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::person::{answer, client, lyrics_first, music};
use crate::harness::provider::Manner;
use crate::harness::{Cable, Person, Provider, Server, Setup, Socket, audit, eventually, simulator};

#[tokio::test]
async fn only_the_url_that_was_given_out_is_a_callback_url() {
    let (server, mira, mut provider) = stage().await;
    mira.order(music("secret")).await;
    let order = provider.order().await;
    let (rest, token) = order.callback.rsplit_once('/').unwrap();
    let mut other = token.to_owned();
    other.replace_range(..1, if token.starts_with('A') { "B" } else { "A" });
    let (base, key) = rest.rsplit_once('/').unwrap();
    let (task, _) = key.split_once('.').unwrap();
    for url in [
        format!("{rest}/{other}"),
        format!("{rest}/x"),
        format!("{rest}/{token}A"),
        format!("{base}/{task}.0.1/{token}"),
        format!("{base}/{}.0.0/{token}", songflight::id::fresh()),
        format!("{base}/x/{token}"),
        order.callback.replace("/suno/", "/nobody/"),
    ] {
        let refused = answer(client().post(&url).json(&order.complete())).await;
        assert_eq!(refused.problem(401), "unauthorized", "{url}");
    }
    assert_eq!(inbox(&server).await, []);
    assert_eq!(mira.get("/v1/songs").await.expect(200)["counts"]["generating"], 1);
}

#[tokio::test]
async fn where_the_provider_signs_nothing_unsigned_is_taken() {
    let mut provider = Provider::start().await;
    let setup = Setup::new(&provider.url).await;
    let setup =
        setup.set("providers.suno.dialect", "kie").set("providers.suno.webhook_secret", "shared secret");
    // One that signs nothing.
    let server = setup.set("providers.musicgpt.base_url", &provider.url).start().await;
    let mira = server.person("mira");
    let song = mira.order(json!({"mode": "music", "prompt": "signed", "provider": "suno"})).await;
    let order = provider.order().await;
    let now = songflight::time::Clock.now().millis() / 1000;
    let (right, late) = (now.to_string(), (now - 301).to_string());
    let by = |secret: &str, time: &str| {
        let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        hmac.update(format!("{}.{time}", order.task).as_bytes());
        STANDARD.encode(hmac.finalize().into_bytes())
    };
    let post = |signature: String, time: &str| {
        let request = client().post(&order.callback).json(&order.complete());
        answer(request.header("X-Webhook-Signature", signature).header("X-Webhook-Timestamp", time))
    };
    assert_eq!(order.call_back(&order.complete()).await.problem(401), "unauthorized");
    let as_another = order.callback.replace("/suno/", "/musicgpt/");
    assert_eq!(answer(client().post(as_another).json(&order.complete())).await.problem(401), "unauthorized");
    for (signature, time) in [
        (by("another", &right), &right),
        (by("shared secret", &late), &late),
        (by("shared secret", &right), &late),
    ] {
        assert_eq!(post(signature, time).await.problem(401), "unauthorized");
    }
    assert_eq!(inbox(&server).await, []);
    assert_eq!(mira.get("/v1/songs").await.expect(200)["counts"]["generating"], 1);
    assert_eq!(post(by("shared secret", &right), &right).await.status, 200);
    assert_eq!(mira.song(&song).await["status"], "ready");
}

#[tokio::test]
async fn a_signature_for_another_task_is_none_for_this_one() {
    let mut provider = Provider::start().await;
    let setup = Setup::new(&provider.url).await;
    let setup = setup.set("providers.suno.dialect", "kie").set("providers.suno.webhook_secret", "secret");
    let server = setup.start().await;
    let mira = server.person("mira");
    let song = mira.order(music("signed for itself")).await;
    let order = provider.order().await;
    mira.until(&song, "generating_music").await;
    let time = (songflight::time::Clock.now().millis() / 1000).to_string();
    let post = |task: &str| {
        let mut hmac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
        hmac.update(format!("{task}.{time}").as_bytes());
        let signature = STANDARD.encode(hmac.finalize().into_bytes());
        let mut body = order.complete();
        body["data"]["task_id"] = json!(task);
        let request = client().post(&order.callback).json(&body);
        answer(request.header("X-Webhook-Signature", signature).header("X-Webhook-Timestamp", &time))
    };
    assert_eq!(post("e".repeat(32).as_str()).await.problem(401), "unauthorized");
    assert_eq!(inbox(&server).await, []);
    assert_eq!(mira.song(&song).await["status"], "generating_music");
    assert_eq!(post(&order.task).await.status, 200);
    assert_eq!(mira.song(&song).await["status"], "ready");
}

#[tokio::test]
async fn signed_callbacks_alone_bring_a_song_to_its_end_in_both_dialects() {
    for dialect in ["kie", "sunoapi"] {
        let simulator = simulator().await;
        simulator.steer(json!({"webhook_secret": "shared secret", "dialect": dialect})).await;
        let setup = Setup::new(&simulator.provider()).await;
        let setup = setup.set("providers.suno.dialect", dialect).set("tasks.poll.initial", "10m");
        let setup = setup.set("tasks.poll.max", "10m").set("providers.suno.webhook_secret", "shared secret");
        let server = setup.start().await;
        let mira = server.person("mira");
        let song = mira.order(music("signed")).await;
        mira.until(&song, "ready").await;
        assert_eq!(simulator.stats().await["polls"], 0);
    }
}

#[tokio::test]
async fn a_file_that_the_provider_could_not_fetch_is_the_owners_matter_only_where_they_named_one() {
    let (_server, mira, mut provider) = stage().await;
    let mut wish = music("of nothing but words");
    let song = mira.order(wish.clone()).await;
    let order = provider.order().await;
    let lost = |task: &str| {
        json!({"code": 451, "msg": "Failed to download the file",
               "data": {"callbackType": "error", "task_id": task, "data": null}})
    };
    assert_eq!(order.call_back(&lost(&order.task)).await.status, 200);
    let waits = mira.song(&song).await;
    let error = &waits["progress"]["music"]["error"];
    assert_eq!(
        (&error["class"], &waits["waiting_for"]),
        (&json!("provider_error"), &json!("retry")),
        "{waits}"
    );

    wish["reference_audio_url"] = json!("https://example.com/hum.mp3");
    let song = mira.order(wish).await;
    let order = provider.order().await;
    assert_eq!(order.call_back(&lost(&order.task)).await.status, 200);
    let failed = mira.song(&song).await;
    assert_eq!((&failed["status"], &failed["error"]["class"]), (&json!("failed"), &json!("invalid_input")));
}

#[tokio::test]
async fn the_raw_callback_is_kept_before_it_is_answered() {
    let (server, mira, mut provider) = stage().await;
    let song = mira.order(music("kept")).await;
    let order = provider.order().await;
    let raw = format!(" {}\n ", order.complete());
    assert_eq!(order.call_back_with(raw.clone()).await.status, 200);
    assert_eq!(inbox(&server).await, [(raw.clone(), "applied".to_owned())]);
    assert_eq!(mira.song(&song).await["status"], "ready");

    // What is no message is kept as well, and answered 200 so that it does not come again.
    assert_eq!(order.call_back_with("not a message").await.status, 200);
    assert_eq!(order.call_back_with(vec![0xff, 0x00, 0xfe]).await.status, 200);
    assert_eq!(order.call_back_with("").await.status, 200);
    let kept = inbox(&server).await;
    assert_eq!(kept.iter().filter(|(_, outcome)| outcome == "malformed").count(), 3, "{kept:?}");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_callback_for_an_unknown_task_is_kept_and_answered_202() {
    let (server, mira, mut provider) = stage().await;
    mira.order(music("forgotten")).await;
    let order = provider.order().await;
    // As after a restore from a backup: the server that gave out the url has no such song.
    let look = server.look().await;
    let server = server.crash_and_start().await;
    look.batch_execute("truncate songs cascade").await.unwrap();
    assert_eq!(order.call_back(&order.complete()).await.status, 202);
    assert_eq!(inbox(&server).await.len(), 1);
}

#[tokio::test]
async fn repeated_and_late_callbacks_change_nothing() {
    let (server, mira, mut provider) = stage().await;
    let mut socket = mira.socket().await;
    let song = mira.order(music("again and again")).await;
    let order = provider.order().await;
    socket.event(&song, "phase_started").await;
    for body in [order.text(), order.text(), order.first(), order.first(), order.text(), order.complete()] {
        assert_eq!(order.call_back(&body).await.status, 200);
    }
    socket.event(&song, "ready").await;
    let whole = mira.song(&song).await;
    for body in [
        order.complete(),
        order.first(),
        order.text(),
        order.failed(500, "too late"),
        order.told("complete", json!([order.clip(3, true)])),
    ] {
        assert_eq!(order.call_back(&body).await.status, 200);
    }
    assert_eq!(mira.song(&song).await, whole);
    assert_eq!(socket.overlay(&song), whole);
    assert_eq!(socket.kinds(&song).iter().filter(|kind| **kind == "ready").count(), 1);
    let variants = whole["variants"].as_array().unwrap();
    assert_eq!(variants[0]["clip_id"], format!("{}-1", order.task));
    assert_eq!(variants[1]["clip_id"], format!("{}-2", order.task));
    assert_eq!(provider.more_orders(), 0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn all_of_them_at_once_are_one_end() {
    let (server, mira, mut provider) = stage().await;
    let song = mira.order(music("all at once")).await;
    let order = provider.order().await;
    let bodies =
        [order.complete(), order.first(), order.text(), order.complete(), order.first(), order.text()];
    let answers = futures_util::future::join_all(bodies.iter().map(|body| order.call_back(body))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    mira.until(&song, "ready").await;
    assert_eq!(mira.credits().await, 9.0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn the_end_may_come_before_the_order_is_confirmed() {
    let (server, mira, mut provider) = stage().await;
    provider.behave(Manner::Hesitate);
    let mut socket = mira.socket().await;
    let song = mira.order(music("quicker than its answer")).await;
    let order = provider.order().await;
    assert_eq!(order.call_back(&order.complete()).await.status, 200);
    socket.event(&song, "ready").await;
    provider.speak();
    let order_known = || async {
        let rows = server.look().await.query("select provider_task from provider_refs", &[]).await.unwrap();
        if rows.len() == 1 { Ok(rows[0].get::<_, String>(0)) } else { Err(format!("{} names", rows.len())) }
    };
    assert_eq!(eventually("the provider's name for the order", order_known).await, order.task);
    let whole = mira.song(&song).await;
    assert_eq!(whole["status"], "ready");
    while socket.overlay(&song)["seq"] != whole["seq"] {
        socket.next("the last event").await.unwrap();
    }
    assert_eq!(socket.overlay(&song), whole);
    assert_eq!(provider.more_orders(), 0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_failure_is_told_and_refunded_in_the_providers_place() {
    let (server, mira, mut provider) = stage().await;
    let song = mira.order(music("bad words")).await;
    let order = provider.order().await;
    let message = "Your lyrics contain copyrighted material";
    assert_eq!(order.call_back(&order.failed(400, message)).await.status, 200);
    let failed = mira.until(&song, "failed").await;
    assert_eq!((&failed["error"]["class"], &failed["refunded"]), (&json!("moderation"), &json!(1.0)));
    assert_eq!(mira.credits().await, 10.0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn fewer_than_two_texts_are_a_failure_that_says_so() {
    let (server, mira, mut provider) = stage().await;
    let song = mira.order(lyrics_first("one text alone")).await;
    let order = provider.order().await;
    let mut body = order.lyrics();
    body["data"]["data"][1]["text"] = json!("  ");
    assert_eq!(order.call_back(&body).await.status, 200);
    let failed = mira.until(&song, "failed").await;
    assert_eq!(failed["refunded"], 0.1);
    assert!(failed["error"]["message"].as_str().unwrap().len() > 10, "{failed}");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_callback_beyond_a_mebibyte_is_too_large() {
    let (server, mira, mut provider) = stage().await;
    let song = mira.order(music("very large")).await;
    let order = provider.order().await;
    assert_eq!(order.call_back_with(vec![b' '; 1024 * 1024 + 1]).await.status, 413);
    assert_eq!(inbox(&server).await, []);
    let mut body = order.complete();
    body["padding"] = json!("x".repeat(1024 * 1024 - 8192));
    assert_eq!(order.call_back(&body).await.status, 200);
    assert_eq!(mira.song(&song).await["status"], "ready");
}

#[tokio::test]
async fn callback_urls_take_posts_alone() {
    let (_server, mira, mut provider) = stage().await;
    mira.order(music("asked")).await;
    let order = provider.order().await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let refused = answer(client().request(method.clone(), &order.callback)).await;
        assert!(matches!(refused.status, 404 | 405), "{method}: {}", refused.text);
    }
}

#[tokio::test]
async fn while_the_database_is_away_callbacks_are_to_come_again() {
    let mut provider = Provider::start().await;
    let setup = Setup::new(&provider.url).await;
    let cable = Cable::to(&setup.database).await;
    let server = setup.variable("DATABASE_URL", &cable.url).start().await;
    let mira = server.person("mira");
    let song = mira.order(music("a cut cable")).await;
    let order = provider.order().await;
    mira.until(&song, "generating_music").await;
    cable.cut();
    let refused = order.call_back(&order.complete()).await;
    assert_eq!(refused.status, 503);
    assert!(!refused.header("retry-after").is_empty());
    cable.mend();
    eventually("the callback to be taken", || async {
        let taken = order.call_back(&order.complete()).await;
        if taken.status == 200 { Ok(()) } else { Err(taken.status.to_string()) }
    })
    .await;
    mira.until(&song, "ready").await;
    assert_eq!(inbox(&server).await.len(), 1);
    audit(server.look().await, None).await;
}

async fn stage() -> (Server, Person, Provider) {
    let provider = Provider::start().await;
    let server = Setup::new(&provider.url).await.start().await;
    let mira = server.person("mira");
    (server, mira, provider)
}

/// The kept callbacks and what came of them.
async fn inbox(server: &Server) -> Vec<(String, String)> {
    let rows = server.look().await.query("select body, outcome from callback_inbox order by at", &[]).await;
    let text = |row: &tokio_postgres::Row| String::from_utf8_lossy(row.get::<_, &[u8]>(0)).into_owned();
    rows.unwrap().iter().map(|row| (text(row), row.get(1))).collect()
}

#[tokio::test]
async fn the_first_clip_is_shown_at_once() {
    let (server, mira, mut provider) = stage().await;
    let mut socket: Socket = mira.socket().await;
    let song = mira.order(music("the first clip")).await;
    let order = provider.order().await;
    socket.event(&song, "phase_started").await;
    let waiting: Vec<Value> = mira.song(&song).await["variants"].as_array().unwrap().clone();
    assert_eq!(waiting.len(), 2, "places are kept from the submission on");
    order.call_back(&order.first()).await;
    let event = socket.event(&song, "clip_ready").await;
    assert_eq!(event["set"]["variants"][0]["status"], "complete", "{event}");
    let part = mira.song(&song).await;
    assert_eq!(part["status"], "generating_music");
    assert_eq!(part["variants"][0]["share_token"], waiting[0]["share_token"]);
    // Cancelled with one clip of two delivered: half of it comes back.
    let cancelled = mira.tell(&song, "cancel", json!({})).await.expect(200);
    assert_eq!(cancelled["refunded"], 0.5);
    order.call_back(&order.complete()).await;
    assert_eq!(mira.song(&song).await, cancelled);
    audit(server.look().await, None).await;
}
