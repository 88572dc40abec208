//! A row that this version cannot read, as a newer one may have written it, takes nothing else with it.

use serde_json::{Value, json};

use crate::harness::person::music;
use crate::harness::{Provider, Setup, audit};
use crate::operators::operator;

#[tokio::test]
async fn one_song_that_does_not_read_hides_no_other_and_loses_nothing_of_what_is_told_of_it() {
    let mut provider = Provider::start().await;
    let setup = Setup::new(&provider.url).await.set("tasks.poll.initial", "10m").set("tasks.poll.max", "10m");
    let server = setup.start().await;
    let mira = server.person("mira");
    let unread = mira.order(music("does not read")).await;
    let order = provider.order().await;
    let other = mira.order(music("reads")).await;
    provider.order().await;
    // Only who loads it sees that it does not read.
    server.program.signal("KILL");
    let setup = server.setup.clone();
    drop(server);
    let look = setup.look().await;
    let wish = look.query_one("select wish from songs where id = $1::text::uuid", &[&unread]).await.unwrap();
    let wish: Value = wish.get(0);
    let rewrite = "update songs set wish = $2 where id = $1::text::uuid";
    look.execute(rewrite, &[&unread, &json!("what is this?")]).await.unwrap();
    let server = setup.start().await;

    let all = mira.get("/v1/songs").await.expect(200);
    assert_eq!((all["songs"].as_array().unwrap().len(), &all["songs"][0]["id"]), (1, &json!(other)));
    assert_eq!(all["counts"]["generating"], 2, "it is there");
    mira.get("/v1/personas").await.expect(200);
    let socket = mira.socket().await;
    let snap = socket.seen.iter().find(|frame| frame["t"] == "snap").unwrap();
    let shown: Vec<&Value> = snap["songs"].as_array().unwrap().iter().map(|song| &song["id"]).collect();
    assert_eq!(shown, [&json!(other)]);
    assert_eq!(mira.tell(&unread, "cancel", json!({})).await.problem(503), "unavailable");
    assert_eq!(order.call_back(&order.complete()).await.status, 503, "it is to come again");

    // Put aside as the sweeper does with what does not move: its letter is where somebody looks for the reason.
    let aside = "select put_aside('given_up', song_id, id, null, '{}', 'it does not move') from tasks
                  where song_id = $1::text::uuid";
    look.execute(aside, &[&unread]).await.unwrap();
    let operator = operator(&server);
    let letters = operator.get("/admin/dead-letters").await.expect(200);
    let letter = format!("/admin/dead-letters/{}", letters["dead_letters"][0]["id"]);
    let shown = operator.get(&letter).await.expect(200);
    assert!(shown["unreadable"].is_string() && shown["song"].is_null(), "{shown}");

    look.execute(rewrite, &[&unread, &wish]).await.unwrap();
    assert_eq!(operator.get(&letter).await.expect(200)["song"]["id"], unread);
    operator.post(&format!("{letter}/resolve"), json!({"notes": "it reads again"})).await.expect(200);
    assert_eq!(order.call_back(&order.complete()).await.status, 200);
    assert_eq!(mira.song(&unread).await["status"], "ready");
    audit(server.look().await, None).await;
}
