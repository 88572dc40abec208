//! What operators see and do: dead letters, songs that are stuck, everything about one song (OPS-1, OPS-2, SONG-4).

use std::process::Output;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::person::{answer, client, in_seconds, music, token};
use crate::harness::program::command;
use crate::harness::server::Simulator;
use crate::harness::{Person, Provider, Server, Setup, audit, eventually, shared, simulator};

/// As an operator's alarm would see it.
#[tokio::test]
async fn a_rule_that_is_broken_shows_in_the_metrics() {
    let simulator = simulator().await;
    let server = Setup::new(&simulator.provider()).await.set("ops.audit_every", "1s").start().await;
    let mira = server.person("mira");
    let song = mira.order(music("counted")).await;
    mira.until(&song, "ready").await;
    let broken = async |many: &str| {
        eventually(&format!("{many} broken rules"), || async {
            let figures = answer(client().get(format!("{}/metrics", server.url()))).await.text;
            let told = figures.contains(&format!("\nsongflight_broken_rules {many}\n"));
            if told { Ok(()) } else { Err(figures) }
        })
        .await;
    };
    broken("0").await;
    let sql = "update profiles set credits = credits + $1 where user_id = $2";
    let look = server.look().await;
    look.execute(sql, &[&500_i64, &mira.user]).await.unwrap();
    broken("1").await;
    look.execute(sql, &[&-500_i64, &mira.user]).await.unwrap();
    broken("0").await;
}

#[tokio::test]
async fn a_song_that_failed_for_no_fault_of_its_owners_is_a_dead_letter_and_made_again_when_put_back() {
    let (server, simulator) = quick().await;
    let (mira, operator) = (server.person("mira"), operator(&server));
    simulator.steer(json!({"fail": {"class": "provider_error", "p": 1.0}})).await;
    let song = mira.order(music("a waltz")).await;
    mira.until(&song, "failed").await;
    let letter = letter_of(&operator, &song).await;
    assert_eq!(
        (&letter["kind"], &letter["user"], &letter["song_status"]),
        (&json!("song"), &json!(mira.user), &json!("failed"))
    );
    let path = format!("/admin/dead-letters/{}", letter["id"]);
    let whole = operator.get(&path).await.expect(200);
    assert_eq!(whole["context"]["wish"]["prompt"], "a waltz");
    assert_eq!(whole["context"]["failure"]["class"], "provider_error");
    assert_eq!(whole["context"]["run"]["calls"][0]["failures"].as_array().map(Vec::len), Some(3), "{whole}");
    assert!(!whole["callbacks"].as_array().expect("callbacks").is_empty(), "{whole}");
    assert_eq!(whole["song"]["id"], song.as_str());

    simulator.steer(json!({"fail": {"class": "provider_error", "p": 0.0}})).await;
    let done = operator.post(&format!("{path}/replay"), json!({})).await.expect(200);
    assert!(done["resolved_at"].is_string() && done["replays"] == 1, "{done}");
    mira.until(&song, "ready").await;
    assert_eq!(mira.credits().await, 9.0, "refunded, and reserved once more");
    assert_eq!(operator.post(&format!("{path}/replay"), json!({})).await.problem(409), "wrong-state");
    let retries = "select cardinality(retries) from songs where id = $1::text::uuid";
    let row = server.look().await.query_one(retries, &[&song]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 0, "its owner's retries are not used up");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn what_its_owner_must_change_or_has_retried_waits_for_no_operator() {
    let (server, simulator) = quick().await;
    let (mira, operator) = (server.person("mira"), operator(&server));
    simulator.steer(json!({"fail": {"class": "moderation", "p": 1.0}})).await;
    let refused = mira.order(music("somebody's name")).await;
    mira.until(&refused, "failed").await;
    simulator.steer(json!({"fail": {"class": "provider_error", "p": 1.0}})).await;
    let song = mira.order(music("a waltz")).await;
    mira.until(&song, "failed").await;
    assert_eq!(open(&operator, "").await.len(), 1, "moderation is the owner's matter");
    simulator.steer(json!({"fail": {"class": "provider_error", "p": 0.0}})).await;
    mira.tell(&song, "retry", json!({})).await.expect(200);
    mira.until(&song, "ready").await;
    assert_eq!(open(&operator, "").await, Vec::<Value>::new());
    let closed = operator.get("/admin/dead-letters?state=resolved").await.expect(200);
    assert_eq!(closed["dead_letters"][0]["notes"], "the song went on");
}

#[tokio::test]
async fn letters_come_in_pages_and_are_resolved_with_notes() {
    let (server, simulator) = quick().await;
    let (mira, operator) = (server.person("mira"), operator(&server));
    simulator.steer(json!({"fail": {"class": "provider_error", "p": 1.0}})).await;
    for n in 0..3 {
        let song = mira.order(music(&format!("number {n}"))).await;
        mira.until(&song, "failed").await;
    }
    let first = operator.get("/admin/dead-letters?limit=2&kind=song").await.expect(200);
    let cursor = first["next_cursor"].as_i64().expect("there are more");
    let second = operator.get(&format!("/admin/dead-letters?limit=2&cursor={cursor}")).await.expect(200);
    assert_eq!(
        (first["dead_letters"].as_array().unwrap().len(), second["dead_letters"].as_array().unwrap().len()),
        (2, 1)
    );
    assert_eq!(second["next_cursor"], Value::Null);
    assert_eq!(open(&operator, "?kind=step").await.len(), 0);
    assert_eq!(operator.get("/admin/dead-letters?kind=x").await.pointers(), ["/kind"]);

    let path = format!("/admin/dead-letters/{}", second["dead_letters"][0]["id"]);
    assert_eq!(operator.post(&format!("{path}/resolve"), json!({})).await.pointers(), ["/notes"]);
    let resolved = operator.post(&format!("{path}/resolve"), json!({"notes": "told them"})).await.expect(200);
    assert_eq!((&resolved["notes"], &resolved["resolved_by"]), (&json!("told them"), &json!(operator.user)));
    assert_eq!(open(&operator, "").await.len(), 2);
    for unknown in ["/admin/dead-letters/0", "/admin/dead-letters/x"] {
        assert_eq!(operator.get(unknown).await.problem(404), "not-found");
    }
}

#[tokio::test]
async fn operators_see_every_row_of_a_song_with_raw_callbacks_and_nobody_else_does() {
    let server = shared().await;
    let (mira, operator) = (server.person("mira"), operator(server));
    let song = mira.order(music("looked at")).await;
    mira.until(&song, "ready").await;
    let all = eventually("a callback to be kept", || async {
        let all = operator.get(&format!("/admin/songs/{song}")).await.expect(200);
        if all["callbacks"].as_array().is_some_and(|kept| !kept.is_empty()) {
            Ok(all)
        } else {
            Err(all.to_string())
        }
    })
    .await;
    assert_eq!((&all["song"]["user_id"], &all["view"]["id"]), (&json!(mira.user), &json!(song)));
    assert_eq!(all["tasks"][0]["kind"], "generate");
    assert!(all["events"].as_array().unwrap().len() >= 3, "{all}");
    assert!(all["callbacks"][0]["body"].as_str().unwrap().contains("callbackType"), "{all}");
    let nobody = format!("/admin/songs/{}", songflight::id::fresh());
    assert_eq!(operator.get(&nobody).await.problem(404), "not-found");
    for (method, path) in [
        (Method::GET, format!("/admin/songs/{song}")),
        (Method::GET, "/admin/dead-letters".to_owned()),
        (Method::GET, "/admin/dead-letters/1".to_owned()),
        (Method::POST, "/admin/dead-letters/1/replay".to_owned()),
        (Method::POST, "/admin/dead-letters/1/resolve".to_owned()),
        (Method::GET, "/admin/stuck".to_owned()),
    ] {
        assert_eq!(answer(mira.request(method, &path)).await.problem(403), "forbidden", "{path}");
    }
}

/// Its actor believes in a later deadline than what is stored: a fault that only the sweep can find.
#[tokio::test]
async fn a_song_that_should_have_moved_is_begun_anew_by_the_sweep_and_ends_with_a_refund() {
    let mut provider = Provider::start().await;
    let server = sweeping(&provider).await.start().await;
    let (mira, operator) = (server.person("mira"), operator(&server));
    let song = mira.order(music("stuck")).await;
    provider.order().await;
    mira.until(&song, "generating_music").await;
    let long_ago = "update tasks set run = jsonb_set(run, '{calls,0,state,submitted,since}', '1000'),
                                     created_at = created_at - interval '1 hour' where song_id = $1::text::uuid";
    assert_eq!(server.look().await.execute(long_ago, &[&song]).await.unwrap(), 1);
    let failed = mira.until(&song, "failed").await;
    assert_eq!((&failed["error"]["class"], &failed["refunded"]), (&json!("timeout"), &json!(1.0)));
    assert_eq!(operator.get("/admin/stuck").await.expect(200)["count"], 0);
    audit(server.look().await, None).await;
}

/// Each life of the program takes the song up and ends before it moves.
#[tokio::test]
async fn a_song_that_is_taken_up_again_and_again_is_given_up_until_an_operator_puts_it_back() {
    let mut provider = Provider::start().await;
    let setup = sweeping(&provider).await.set("ops.activations_max", "2");
    let mut server = setup.start().await;
    let mira = server.person("mira");
    let song = mira.order(music("a stone in the shoe")).await;
    let order = provider.order().await;
    mira.until(&song, "generating_music").await;
    let look = server.look().await;
    // What the process before had is the next one's own; what that leaves unmoved as well is under suspicion.
    for times in 0..=2_i16 {
        server = server.crash_and_start().await;
        eventually("the song to be taken up", || async {
            let taken: i16 = look.query_one("select activations from tasks", &[]).await.unwrap().get(0);
            if taken == times { Ok(()) } else { Err(format!("taken up {taken} times")) }
        })
        .await;
    }
    server = server.crash_and_start().await;
    let (mira, operator) = (mira.at(server.url()), operator(&server));
    let letter = letter_of(&operator, &song).await;
    assert_eq!(letter["kind"], "given_up");
    assert_eq!(mira.song(&song).await["status"], "generating_music");
    let stuck = "select owner from tasks t join nodes n on n.id = t.owner and n.epoch = t.epoch";
    assert!(look.query(stuck, &[]).await.unwrap().is_empty(), "nobody takes it up");

    let data = json!({"taskId": order.task, "status": "SUCCESS",
                      "response": {"sunoData": [order.clip(1, true), order.clip(2, true)]}});
    provider.result(&order.task, data);
    let replay = format!("/admin/dead-letters/{}/replay", letter["id"]);
    operator.post(&replay, json!({})).await.expect(200);
    mira.until(&song, "ready").await;
    assert_eq!(provider.more_orders(), 0);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn the_command_line_shows_letters_and_puts_them_back() {
    let (server, simulator) = quick().await;
    let mira = server.person("mira");
    simulator.steer(json!({"fail": {"class": "provider_error", "p": 1.0}})).await;
    let song = mira.order(music("a waltz")).await;
    mira.until(&song, "failed").await;
    let listed = said(&run(&server, &["dead-letters", "list"]).await);
    assert!(listed.contains(&song) && listed.contains("provider_error"), "{listed}");
    let id = listed.split_whitespace().next().expect("a number").to_owned();
    let shown = said(&run(&server, &["dead-letters", "show", &id]).await);
    assert!(shown.contains("\"a waltz\"") && shown.contains("callbackType"), "{shown}");
    simulator.steer(json!({"fail": {"class": "provider_error", "p": 0.0}})).await;
    let replayed = run(&server, &["dead-letters", "replay", &id, "--url", server.url()]).await;
    assert!(replayed.status.success(), "{}", said(&replayed));
    mira.until(&song, "ready").await;
    let again = run(&server, &["dead-letters", "replay", &id, "--url", server.url()]).await;
    assert!(!again.status.success() && said(&again).contains("resolved already"), "{}", said(&again));
    assert!(said(&run(&server, &["dead-letters", "list"]).await).contains("No dead letters"));
    assert!(run(&server, &["dead-letters", "resolve", &id, "--notes", "seen"]).await.status.success());
    assert!(!run(&server, &["dead-letters", "resolve", "999", "--notes", "seen"]).await.status.success());
    assert!(!run(&server, &["dead-letters", "list", "--kind", "x"]).await.status.success());
}

#[tokio::test]
async fn the_audit_names_what_breaks_a_rule() {
    let (server, _simulator) = quick().await;
    let mira = server.person("mira");
    let song = mira.order(music("to be audited")).await;
    mira.until(&song, "ready").await;
    let well = run(&server, &["doctor", "--audit"]).await;
    assert!(well.status.success() && said(&well).contains("rules hold for 1 songs"), "{}", said(&well));
    let look = server.look().await;
    look.batch_execute("delete from song_events where seq = 2; update profiles set credits = credits + 5")
        .await
        .unwrap();
    look.batch_execute(
        "delete from song_variants; insert into provider_refs values ('suno', 'x', gen_random_uuid(), 0, 0);
         insert into notifications (song_id, kind, user_id) values (gen_random_uuid(), 'ready', 'nobody');
         update tasks set price = price + 1",
    )
    .await
    .unwrap();
    let broken = run(&server, &["doctor", "--audit"]).await;
    assert_eq!(broken.status.code(), Some(1), "{}", said(&broken));
    let told = said(&broken);
    for rule in [
        "a balance is the sum of its entries",
        "of a task its price is reserved",
        "a song's events are numbered",
        "a user's events are numbered",
        "a song that is ready can be played",
        "belongs to a task of ours",
        "what belongs to a song or to a person has one",
    ] {
        assert!(told.contains(rule), "{rule}: {told}");
    }
    assert!(told.contains(&song) && told.contains(&mira.user), "{told}");
}

pub fn operator(server: &Server) -> Person {
    let nobody = server.person("operator");
    nobody.with(&token(&json!({"sub": nobody.user, "exp": in_seconds(3600), "role": "service"})))
}

async fn open(operator: &Person, query: &str) -> Vec<Value> {
    let listed = operator.get(&format!("/admin/dead-letters{query}")).await.expect(200);
    listed["dead_letters"].as_array().expect("letters").clone()
}

async fn letter_of(operator: &Person, song: &str) -> Value {
    eventually("a dead letter", || async {
        let open = open(operator, "").await;
        open.iter().find(|letter| letter["song_id"] == song).cloned().ok_or_else(|| format!("{open:?}"))
    })
    .await
}

/// A server of the test's own that tries again at once, with a simulator to be steered.
async fn quick() -> (Server, Simulator) {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await;
    let setup = setup.set("retry.provider_error.delays", r#"["20ms","20ms","20ms"]"#);
    (setup.set("tasks.poll.initial", "300ms").start().await, simulator)
}

async fn sweeping(provider: &Provider) -> Setup {
    let setup = Setup::new(&provider.url).await.set("ops.sweep_every", "200ms").set("ops.stuck_after", "1s");
    let setup = setup.set("cluster.heartbeat", "100ms").set("cluster.lease", "500ms");
    setup.set("tasks.poll.initial", "500ms").set("tasks.poll.max", "1s")
}

async fn run(server: &Server, arguments: &[&str]) -> Output {
    let mut command = command(&server.setup.home, arguments, server.setup.variables());
    tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
