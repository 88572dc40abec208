//! Money as its owner sees it, and as operators change and check it (CRED-2).

use std::process::Output;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::person::{Answer, Person, answer, in_seconds, music, token};
use crate::harness::program::command;
use crate::harness::{Server, Setup, audit, eventually, shared, simulator};

fn operator(server: &Server) -> Person {
    let nobody = server.person("operator");
    nobody.with(&token(&json!({"sub": nobody.user, "exp": in_seconds(3600), "role": "service"})))
}

async fn grant(operator: &Person, user: &str, key: &str, body: Value) -> Answer {
    let request = operator.request(Method::POST, &format!("/admin/users/{user}/credits"));
    answer(request.header("Idempotency-Key", key).json(&body)).await
}

#[tokio::test]
async fn every_movement_is_an_entry_and_the_pages_join() {
    let server = shared().await;
    let mira = server.person("mira");
    for n in 0..3 {
        let song = mira.order(music(&format!("song {n}"))).await;
        mira.until(&song, "ready").await;
    }
    let failed = mira.order(music("bad sim:fail=moderation")).await;
    mira.until(&failed, "failed").await;
    let all = mira.get("/v1/me/credits?limit=100").await;
    assert_eq!(all.header("next-cursor"), "");
    let all = all.expect(200).as_array().unwrap().clone();
    assert_eq!(all.len(), 9);
    assert_eq!(
        (&all[8]["reason"], &all[8]["amount"], &all[8]["balance"]),
        (&json!("grant"), &json!(10.0), &json!(10.0))
    );
    assert_eq!(
        (&all[0]["reason"], &all[0]["amount"], &all[0]["balance"]),
        (&json!("release"), &json!(1.0), &json!(7.0))
    );
    assert_eq!(all[0]["song_id"], json!(failed));
    let (mut joined, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = mira.get(&format!("/v1/me/credits?limit=4{cursor}")).await;
        cursor = format!("&cursor={}", page.header("next-cursor"));
        joined.extend(page.body.as_array().unwrap().clone());
        if page.header("next-cursor").is_empty() {
            break;
        }
    }
    assert_eq!(joined, all);
    assert_eq!(mira.get("/v1/me/credits?cursor=x").await.pointers(), ["/cursor"]);
    assert_eq!(server.person("otto").get("/v1/me/credits").await.expect(200), json!([]));
}

#[tokio::test]
async fn an_operator_gives_once_for_each_key_and_never_takes_more_than_there_is() {
    let server = shared().await;
    let (mira, operator) = (server.person("mira"), operator(server));
    let give = json!({"amount": 2.5, "note": "for the trouble"});
    let given = join_all((0..10).map(|_| grant(&operator, &mira.user, "one", give.clone()))).await;
    assert_eq!(given.iter().filter(|answer| answer.status == 201).count(), 1);
    assert_eq!(given.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count(), 9);
    assert_eq!(mira.credits().await, 12.5);
    let other = grant(&operator, &mira.user, "one", json!({"amount": 3})).await;
    assert_eq!(other.problem(422), "idempotency-mismatch");
    let much = grant(&operator, &mira.user, "two", json!({"amount": -12.501})).await;
    assert_eq!(much.problem(402), "insufficient-credits");
    assert_eq!((&much.body["required"], &much.body["available"]), (&json!(12.501), &json!(12.5)));
    grant(&operator, &mira.user, "two", json!({"amount": -12.5})).await.expect(201);
    assert_eq!(mira.credits().await, 0.0);
    for (amount, pointer) in [(json!(0.0001), "/amount"), (json!("5"), "/amount"), (json!(null), "/amount")] {
        assert_eq!(grant(&operator, &mira.user, "x", json!({"amount": amount})).await.pointers(), [pointer]);
    }
    let keyless = operator.post(&format!("/admin/users/{}/credits", mira.user), json!({"amount": 1})).await;
    assert_eq!(keyless.problem(400), "invalid-input");
    let entries = operator.get(&format!("/admin/users/{}/credits", mira.user)).await.expect(200);
    assert_eq!(
        (&entries[1]["note"], &entries[1]["granted_by"]),
        (&json!("for the trouble"), &json!(operator.user))
    );
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn an_operator_sets_a_plan_and_it_counts_from_the_next_song_on() {
    let server = shared().await;
    let (mira, operator) = (server.person("mira"), operator(server));
    let path = format!("/admin/users/{}", mira.user);
    assert_eq!(operator.get(&path).await.problem(404), "not-found");
    let account = operator.patch(&path, json!({"plan": "premium"})).await.expect(200);
    assert_eq!((&account["plan"], &account["credits"]), (&json!("premium"), &json!(10.0)));
    assert_eq!(mira.create(music("a song")).await.header("x-ratelimit-limit"), "30");
    assert_eq!(mira.get("/v1/me").await.expect(200)["limits"]["per_day"], Value::Null);
    assert_eq!(operator.patch(&path, json!({"plan": "guest"})).await.pointers(), ["/plan"]);
    assert!(operator.get(&path).await.expect(200)["provider_cost_usd"]["all"].is_number());
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn who_is_signed_out_everywhere_needs_a_token_from_afterwards() {
    let server = shared().await;
    let (mira, operator) = (server.person("mira"), operator(server));
    let mut socket = mira.socket().await;
    let path = format!("/admin/users/{}/sign-out", mira.user);
    let answer = operator.post(&path, json!({})).await.expect(200);
    assert_eq!((&answer["user"], &answer["banned"]), (&json!(mira.user), &json!(false)));
    assert_eq!(socket.closed_with().await, Some(4503));
    assert_eq!(mira.get("/v1/me").await.problem(401), "unauthorized");
    let without = mira.with(&token(&json!({"sub": mira.user, "exp": in_seconds(60)})));
    assert_eq!(without.get("/v1/me").await.problem(401), "unauthorized", "nobody knows when it was issued");
    eventually("a token that counts again", || async {
        let fresh = token(&json!({"sub": mira.user, "iat": in_seconds(0), "exp": in_seconds(60)}));
        let answer = mira.with(&fresh).get("/v1/me").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
}

#[tokio::test]
async fn who_is_banned_stays_out_on_every_node_and_over_a_restart() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await;
    let node = || Setup::on(setup.database.clone(), &simulator.provider());
    let (server, other) = (node().start().await, node().start().await);
    let mira = server.person("mira");
    let mut socket = mira.at(other.url()).socket().await;
    let path = format!("/admin/users/{}/ban", mira.user);
    let operator = operator(&server);
    assert_eq!(answer(operator.request(Method::PUT, &path)).await.expect(200)["banned"], true);
    assert_eq!(socket.closed_with().await, Some(4503), "the other node heard of it");
    let later = token(&json!({"sub": mira.user, "iat": in_seconds(30), "exp": in_seconds(60)}));
    for node in [&server, &other] {
        let mira = mira.at(node.url()).with(&later);
        assert_eq!(mira.get("/v1/me").await.problem(403), "forbidden");
        assert_eq!(mira.create(music("a song")).await.problem(403), "forbidden");
    }
    let third = node().start().await;
    assert_eq!(mira.at(third.url()).with(&later).get("/v1/me").await.problem(403), "forbidden");
    assert_eq!(operator.delete(&path).await.expect(200)["banned"], false);
    assert_eq!(mira.get("/v1/me").await.problem(401), "unauthorized", "what was issued before stays refused");
    mira.with(&later).get("/v1/me").await.expect(200);
}

#[tokio::test]
async fn who_was_never_banned_stays_signed_in_when_the_ban_is_lifted() {
    let server = shared().await;
    let (mira, operator) = (server.person("mira"), operator(server));
    let lifted = operator.delete(&format!("/admin/users/{}/ban", mira.user)).await.expect(200);
    assert_eq!((&lifted["banned"], &lifted["tokens_after"]), (&json!(false), &json!(null)));
    mira.get("/v1/me").await.expect(200);
}

#[tokio::test]
async fn what_was_paid_yesterday_and_comes_back_today_was_not_spent_today() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("bad sim:fail=moderation")).await;
    mira.until(&song, "failed").await;
    let spent = async || mira.get("/v1/me").await.expect(200)["credits_used_today"].clone();
    assert_eq!(spent().await, json!(0.0));
    mira.order(music("good")).await;
    assert_eq!(spent().await, json!(1.0));
    let yesterday = "update credit_entries set at = at - interval '1 day' where user_id = $1 and id <= (
                         select max(id) from credit_entries where user_id = $1 and reason = 'reserve' and song_id = $2)";
    let failed = uuid::Uuid::parse_str(&song).expect("an id");
    server.look().await.execute(yesterday, &[&mira.user, &failed]).await.unwrap();
    assert_eq!(spent().await, json!(1.0), "what came back is yesterday's, what was spent is today's");
}

#[tokio::test]
async fn what_is_for_operators_is_for_nobody_else() {
    let server = shared().await;
    let mira = server.person("mira");
    let paths = [
        (Method::GET, format!("/admin/users/{}", mira.user)),
        (Method::PATCH, format!("/admin/users/{}", mira.user)),
        (Method::GET, format!("/admin/users/{}/credits", mira.user)),
        (Method::POST, format!("/admin/users/{}/credits", mira.user)),
        (Method::GET, "/admin/ledger/check".to_owned()),
        (Method::POST, format!("/admin/users/{}/sign-out", mira.user)),
        (Method::PUT, format!("/admin/users/{}/ban", mira.user)),
        (Method::DELETE, format!("/admin/users/{}/ban", mira.user)),
    ];
    for (method, path) in paths {
        assert_eq!(answer(mira.request(method.clone(), &path)).await.problem(403), "forbidden", "{path}");
        assert_eq!(
            answer(mira.with("x").request(method, &path)).await.problem(401),
            "unauthorized",
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_books_are_checked_and_what_is_wrong_is_named() {
    let server = crate::harness::Setup::new("http://127.0.0.1:9").await.start().await;
    let (mira, operator) = (server.person("mira"), operator(&server));
    mira.order(music("under way")).await;
    let books = operator.get("/admin/ledger/check").await.expect(200);
    assert_eq!(
        (&books["right"], &books["open_reservations"], &books["tasks_in_flight"]),
        (&json!(true), &json!(1), &json!(1))
    );
    let look = server.look().await;
    look.execute("update profiles set credits = credits + 1", &[]).await.unwrap();
    look.execute("delete from credit_entries where reason = 'reserve'", &[]).await.unwrap();
    let books = operator.get("/admin/ledger/check").await.expect(200);
    assert_eq!(books["right"], json!(false));
    assert_eq!(books["unbalanced"]["users"], json!([mira.user]));
    assert_eq!(books["adrift"]["count"], 1);
}

#[tokio::test]
async fn the_command_line_does_the_same_beside_the_running_service() {
    let server = shared().await;
    let mira = server.person("mira");
    let run = |arguments: &[&str]| {
        let mut command = command(&server.setup.home, arguments, server.setup.variables());
        async { tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.unwrap() }
    };
    let said = |output: &Output| {
        String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
    };
    let user = mira.user.as_str();
    let unknown = run(&["credits", "show", "--user", user]).await;
    assert!(!unknown.status.success() && said(&unknown).contains("there is no user"), "{}", said(&unknown));
    for again in [false, true] {
        let given =
            run(&["credits", "grant", "--user", user, "--amount", "2.5", "--note", "thanks", "--key", "k"])
                .await;
        assert!(given.status.success(), "{}", said(&given));
        assert_ne!(said(&given).contains("the account is new"), again, "{}", said(&given));
    }
    assert_eq!(mira.credits().await, 12.5);
    let taken = run(&["credits", "grant", "--user", user, "--amount", "-20"]).await;
    assert!(!taken.status.success() && said(&taken).contains("only 12.5"), "{}", said(&taken));
    let set = run(&["plan", "set", "--user", user, "--plan", "pro"]).await;
    assert!(set.status.success(), "{}", said(&set));
    let shown = said(&run(&["credits", "show", "--user", user]).await);
    assert!(shown.contains("12.5 credits, plan pro") && shown.contains("thanks"), "{shown}");
    let checked = run(&["credits", "check"]).await;
    assert!(checked.status.success() && said(&checked).contains("\"right\": true"), "{}", said(&checked));
}
