//! What the database refused, or a provider failed at for good, is put back to work by an operator (OPS-1).
//!
//! Failed songs and given-up ones are in `operators`.

use reqwest::Method;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::harness::person::{answer, lyrics_first, music};
use crate::harness::{Person, Provider, Setup, audit, eventually, simulator};
use crate::operators::operator;

#[tokio::test]
async fn a_step_that_was_refused_is_made_with_its_callback_when_put_back() {
    let mut provider = Provider::start().await;
    let server = slowly_polling(&provider).await.start().await;
    let (mira, operator, look) = (server.person("mira"), operator(&server), server.look().await);
    let song = mira.order(music("a waltz")).await;
    let order = provider.order().await;
    mira.until(&song, "generating_music").await;
    refuse(&look, "song_variants", "new.status = 'complete'").await;
    let complete = order.complete();
    assert_eq!(order.call_back(&complete).await.status, 503, "the provider is to send it again");
    let letter = letter(&operator, "step").await;
    assert_eq!(
        (&letter["song_id"], &letter["user"], &letter["song_status"]),
        (&json!(song), &json!(mira.user), &json!("generating_music"))
    );
    assert!(letter["error"].as_str().unwrap().contains("not while this is tested"), "{letter}");
    let replay = format!("/admin/dead-letters/{}/replay", letter["id"]);
    assert_eq!(operator.post(&replay, json!({})).await.problem(503), "unavailable", "refused again");
    assert_eq!(self::letter(&operator, "step").await["times"], 2, "the same again is the same letter");
    assert_eq!(inbox(&look).await, Vec::<(String, String)>::new(), "what was refused left nothing");

    allow(&look, "song_variants").await;
    let done = operator.post(&replay, json!({})).await.expect(200);
    assert_eq!((&done["done"], &done["replays"]), (&json!("the callback was heard again"), &json!(1)));
    assert_eq!(mira.song(&song).await["status"], "ready", "at once, not after a poll");
    assert_eq!(inbox(&look).await, [("applied".to_owned(), complete.to_string())], "it is kept raw");
    assert_eq!(operator.post(&replay, json!({})).await.problem(409), "wrong-state");
    assert_eq!((mira.credits().await, provider.more_orders()), (9.0, 0));
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_song_whose_order_was_refused_keeps_nobody_from_their_turn() {
    let mut provider = Provider::start().await;
    let server = slowly_polling(&provider).await.set("providers.suno.max_concurrent", "1").start().await;
    let (mira, noah) = (server.person("mira"), server.person("noah"));
    let (operator, look) = (operator(&server), server.look().await);
    refuse(&look, "tasks", "new.run::text like '%intent%'").await;
    mira.order(music("a waltz")).await;
    letter(&operator, "step").await;
    allow(&look, "tasks").await;
    let song = noah.order(music("another")).await;
    let order = provider.order().await;
    order.call_back(&order.complete()).await.expect(200);
    noah.until(&song, "ready").await;
}

#[tokio::test]
async fn a_step_that_time_or_a_poll_led_to_is_decided_anew_when_put_back() {
    let mut provider = Provider::start().await;
    let server = Setup::new(&provider.url).await.set("tasks.poll.initial", "200ms").start().await;
    let (mira, operator, look) = (server.person("mira"), operator(&server), server.look().await);
    let song = mira.order(music("a waltz")).await;
    let order = provider.order().await;
    mira.until(&song, "generating_music").await;
    refuse(&look, "song_variants", "new.status = 'complete'").await;
    let clips = json!([order.clip(1, true), order.clip(2, true)]);
    let data = json!({"taskId": order.task, "status": "SUCCESS", "response": {"sunoData": clips}});
    provider.result(&order.task, data);
    let letter = letter(&operator, "step").await;
    allow(&look, "song_variants").await;
    let replay = format!("/admin/dead-letters/{}/replay", letter["id"]);
    let done = operator.post(&replay, json!({})).await.expect(200);
    assert_eq!(done["done"], "the song looked again at what is to be done");
    // By itself it would have tried again after five minutes.
    mira.until(&song, "ready").await;
    assert_eq!((mira.credits().await, provider.more_orders()), (9.0, 0));
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn callbacks_that_could_not_be_kept_are_kept_when_put_back() {
    let mut provider = Provider::start().await;
    let server = slowly_polling(&provider).await.start().await;
    let (mira, operator, look) = (server.person("mira"), operator(&server), server.look().await);
    let song = mira.order(music("a waltz")).await;
    let order = provider.order().await;
    mira.until(&song, "generating_music").await;
    let complete = order.complete();
    order.call_back(&complete).await.expect(200);
    mira.until(&song, "ready").await;
    let outcomes = [
        (order.first().to_string(), "nothing new", "the callback was heard again and brought nothing new"),
        ("{".to_owned(), "malformed", "the callback was kept: it cannot be read"),
    ];
    let mut all = vec![("applied".to_owned(), complete.to_string())];
    for (body, outcome, done) in outcomes {
        refuse(&look, "callback_inbox", "true").await;
        assert_eq!(order.call_back_with(body.clone()).await.status, 503, "the provider is to send it again");
        let letter = letter(&operator, "callback").await;
        assert_eq!((&letter["task_id"], &letter["song_id"]), (&json!(task(&look).await), &Value::Null));
        let replay = format!("/admin/dead-letters/{}/replay", letter["id"]);
        assert_eq!(operator.post(&replay, json!({})).await.problem(503), "unavailable", "refused again");
        allow(&look, "callback_inbox").await;
        assert_eq!(operator.post(&replay, json!({})).await.expect(200)["done"], done);
        all.push((outcome.to_owned(), body));
        assert_eq!(inbox(&look).await, all);
    }
    assert_eq!(mira.song(&song).await["status"], "ready");
    assert_eq!(letters(&operator).await, Vec::<Value>::new());
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn what_failed_beside_a_song_is_made_again_when_put_back_and_paid_for_once() {
    let simulator = simulator().await;
    let server = quick(&simulator.provider()).await.set("credits.signup_grant", "1.6").start().await;
    let (mira, operator) = (server.person("mira"), operator(&server));
    let song = mira.order(music("a waltz")).await;
    mira.until(&song, "ready").await;
    let fail = async |p: f64| simulator.steer(json!({"fail": {"class": "provider_error", "p": p}})).await;
    fail(1.0).await;
    mira.tell(&song, "stems", json!({"variant_number": 2})).await.expect(202);
    let failed = letter(&operator, "addition").await;
    assert_eq!(
        (&failed["song_id"], &failed["user"], &failed["song_status"]),
        (&json!(song), &json!(mira.user), &json!("ready"))
    );
    assert_eq!(mira.credits().await, 0.6, "it was given back");
    let path = format!("/admin/dead-letters/{}", failed["id"]);
    let whole = operator.get(&path).await.expect(200);
    assert_eq!(whole["context"]["work"]["of"]["variant_number"], 2, "{whole}");
    assert_eq!(whole["context"]["failure"]["class"], "provider_error");

    // While its owner has spent what it costs on something else.
    fail(0.0).await;
    for words in ["one", "two"] {
        let lyrics = mira.order(lyrics_first(words)).await;
        mira.until(&lyrics, "lyrics_ready").await;
    }
    let replay = format!("{path}/replay");
    let short = operator.post(&replay, json!({})).await;
    assert_eq!((short.problem(402), &short.body["required"]), ("insufficient-credits", &json!(0.5)));
    assert_eq!(letter(&operator, "addition").await["replays"], 0, "the letter stays open");
    let grant = json!({"amount": 0.5, "note": "our fault"});
    let path = format!("/admin/users/{}/credits", mira.user);
    let given = operator.request(Method::POST, &path).header("Idempotency-Key", "one").json(&grant);
    answer(given).await.expect(201);

    let done = operator.post(&replay, json!({})).await.expect(200);
    assert_eq!((&done["done"], &done["replays"]), (&json!("the task is made again"), &json!(1)));
    let stems = eventually("the stems", || async {
        let shown = mira.song(&song).await;
        let made =
            shown["tasks"].as_array().unwrap().iter().find(|task| task["status"] == "complete").cloned();
        made.ok_or(shown.to_string())
    })
    .await;
    assert_eq!((&stems["kind"], &stems["variant_number"]), (&json!("stems"), &json!(2)));
    assert_eq!(mira.credits().await, 0.4);
    assert_eq!(operator.post(&replay, json!({})).await.problem(409), "wrong-state");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn what_failed_beside_a_song_and_its_owner_asked_for_again_waits_for_no_operator() {
    let simulator = simulator().await;
    let server = quick(&simulator.provider()).await.start().await;
    let (mira, operator) = (server.person("mira"), operator(&server));
    let song = mira.order(music("a waltz")).await;
    mira.until(&song, "ready").await;
    let fail = async |p: f64| simulator.steer(json!({"fail": {"class": "provider_error", "p": p}})).await;
    fail(1.0).await;
    mira.tell(&song, "stems", json!({"variant_number": 1})).await.expect(202);
    letter(&operator, "addition").await;
    fail(0.0).await;
    // Of another variant, and of another kind: not the same.
    mira.tell(&song, "stems", json!({"variant_number": 2})).await.expect(202);
    mira.tell(&song, "video", json!({"variant_number": 1})).await.expect(202);
    assert_eq!(letters(&operator).await.len(), 1);
    mira.tell(&song, "stems", json!({"variant_number": 1})).await.expect(202);
    assert_eq!(letters(&operator).await, Vec::<Value>::new());
    let closed = operator.get("/admin/dead-letters?state=resolved").await.expect(200);
    assert_eq!(closed["dead_letters"][0]["notes"], "it was asked for again");
}

/// The database refuses such rows from here on.
async fn refuse(look: &Client, table: &str, when: &str) {
    let sql = format!(
        "create or replace function refuse() returns trigger language plpgsql as
            'begin raise exception ''not while this is tested''; end';
         create trigger refuse before insert or update on {table} for each row when ({when}) execute function refuse()"
    );
    look.batch_execute(&sql).await.expect("a trigger");
}

async fn allow(look: &Client, table: &str) {
    look.batch_execute(&format!("drop trigger refuse on {table}")).await.expect("no trigger");
}

/// Raw callbacks and what came of them, in the order they were kept.
async fn inbox(look: &Client) -> Vec<(String, String)> {
    let sql = "select outcome, convert_from(body, 'UTF8') from callback_inbox order by at";
    look.query(sql, &[]).await.expect("callbacks").iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn task(look: &Client) -> String {
    look.query_one("select id::text from tasks", &[]).await.expect("one task").get(0)
}

async fn letters(operator: &Person) -> Vec<Value> {
    let listed = operator.get("/admin/dead-letters").await.expect(200);
    listed["dead_letters"].as_array().expect("letters").clone()
}

/// The open letter of this kind.
async fn letter(operator: &Person, kind: &str) -> Value {
    eventually(&format!("a letter of kind {kind}"), || async {
        let letters = letters(operator).await;
        letters.iter().find(|letter| letter["kind"] == kind).cloned().ok_or_else(|| format!("{letters:?}"))
    })
    .await
}

/// Only callbacks tell it anything.
async fn slowly_polling(provider: &Provider) -> Setup {
    Setup::new(&provider.url).await.set("tasks.poll.initial", "30s")
}

async fn quick(provider: &str) -> Setup {
    let setup = Setup::new(provider).await.set("tasks.poll.initial", "300ms");
    setup.set("retry.provider_error.delays", r#"["20ms","20ms","20ms"]"#)
}
