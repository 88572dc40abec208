//! Share links: what their followers see of a song, and how they are told that it is over.

use std::sync::Arc;

use serde_json::{Value, json};
use songflight::id::{ShareToken, SongId};
use songflight::realtime::Settings;

use crate::client::Client;
use crate::world::{Held, World};

/// A song of this user's, with a link to it.
fn shared_song(world: &World, owner: &str) -> (SongId, ShareToken) {
    let us = world.create(owner);
    let link = ShareToken(songflight::id::fresh());
    world.change(us, json!({"variants": [{"share_token": link}]}));
    world.log().links.insert(link.to_string(), us);
    (us, link)
}

/// Somebody opens a link; what it begins with is held while it is read.
async fn opening(world: &World, link: ShareToken) -> (Client, Arc<Held>) {
    let looked_up = world.hold();
    let mut guest = world.connect().await;
    guest.hello(None, &[]).await;
    guest.next("welcome").await;
    guest.command(json!({"t": "sub", "id": 2, "ch": format!("share:{link}"), "since": "7.1"})).await;
    looked_up.begun.notified().await;
    // The next reading is the hub's, which has the watcher by then.
    let watched = world.hold();
    looked_up.let_go();
    watched.begun.notified().await;
    (guest, watched)
}

#[actix_web::test]
async fn other_peoples_songs_are_not_found_and_a_link_shows_one_variant() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    let link = ShareToken(songflight::id::fresh());
    let variants = json!([{"share_token": link, "n": 1}, {"share_token": "another", "n": 2}]);
    world.change(us, json!({"prompt": "secret", "status": "ready", "variants": variants}));
    world.log().links.insert(link.to_string(), us);
    let mut client = world.client("bob", &[&format!("song:{us}")]).await;
    client.next("welcome").await;
    assert_eq!(client.next("err").await["code"], "not_found");

    let mut guest = world.connect().await;
    let share = format!("share:{link}");
    guest.hello(None, &[json!({"ch": share}), json!({"ch": "me"})]).await;
    guest.next("welcome").await;
    assert_eq!(guest.next("err").await["code"], "unauthorized");
    let snap = guest.next("snap").await;
    assert!(!snap.to_string().contains("secret") && !snap.to_string().contains("another"), "{snap}");
    world.change(us, json!({"prompt": "more secrets"}));
    world.change(us, json!({"title": "Us"}));
    assert_eq!(guest.next("ev").await["set"], json!({}));
    let ev = guest.next("ev").await;
    assert_eq!((&ev["set"], &ev["c"]), (&json!({"title": "Us"}), &json!("7.4")));
}

#[actix_web::test]
async fn a_share_link_that_is_taken_back_says_so_and_then_nothing_more() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    let link = ShareToken(songflight::id::fresh());
    let shows = |link: &str| json!({"title": "Us", "variants": [{"share_token": link}]});
    world.change(us, shows(&link.to_string()));
    world.log().links.insert(link.to_string(), us);
    let share = json!({"ch": format!("share:{link}")});
    let mut guest = world.connect().await;
    guest.hello(None, std::slice::from_ref(&share)).await;
    guest.until_live().await;
    world.change(us, shows("another"));
    world.change(us, json!({"title": "Only ours"}));
    let gone = guest.next("ev").await;
    assert_eq!((&gone["kind"], &gone["set"], &gone["c"]), (&json!("gone"), &Value::Null, &json!("7.3")));
    guest.command(json!({"t": "ping", "id": 2})).await;
    assert_eq!(guest.any().await["t"], "pong");

    // Who looked it up a moment before it was taken back, with a cursor and without.
    for since in [Value::Null, json!("7.2"), json!("7.4")] {
        world.log().links.insert(link.to_string(), us);
        let held = world.hold();
        let mut late = world.connect().await;
        late.hello(None, &[json!({"ch": share["ch"], "since": since})]).await;
        held.begun.notified().await;
        world.log().links.clear();
        world.log().held = None;
        held.let_go();
        late.next("welcome").await;
        let answer = late.any().await;
        assert_eq!((&answer["t"], &answer["code"]), (&json!("err"), &json!("not_found")), "{since}");
    }
}

#[actix_web::test]
async fn who_looks_a_link_up_in_the_moment_its_song_is_claimed_is_told_to_subscribe_again() {
    for since in [Value::Null, json!("7.1")] {
        let world = World::start(Settings::default());
        let (us, link) = shared_song(&world, "guest");
        let held = world.hold();
        let mut late = world.connect().await;
        late.hello(None, &[json!({"ch": format!("share:{link}"), "since": since})]).await;
        held.begun.notified().await;
        world.remove(us, Some("alice"));
        world.log().held = None;
        held.let_go();
        let err = late.next("err").await;
        assert_eq!((&err["code"], &err["retry"]), (&json!("unavailable"), &json!("after")), "{since}: {err}");
        late.command(json!({"t": "sub", "id": 2, "ch": format!("share:{link}")})).await;
        late.until_live().await;
    }
}

#[actix_web::test]
async fn who_follows_a_link_is_told_whether_its_song_is_gone_or_went_to_another_owner() {
    for (to, t) in [(Some("alice"), "err"), (None, "ev")] {
        let world = World::start(Settings::default());
        let (us, link) = shared_song(&world, "guest");
        let share = json!({"ch": format!("share:{link}")});
        let mut client = world.connect().await;
        client.hello(None, std::slice::from_ref(&share)).await;
        client.until_live().await;
        world.remove(us, to);
        let told = client.any().await;
        assert_eq!(told["t"], t, "{told}");
        match to {
            Some(_) => assert_eq!((&told["ch"], &told["retry"]), (&share["ch"], &json!("after"))),
            None => assert_eq!(told["kind"], "gone"),
        }
        client.command(json!({"t": "sub", "id": 2, "ch": share["ch"]})).await;
        match to {
            Some(_) => client.until_live().await,
            None => assert_eq!(client.next("err").await["code"], "not_found"),
        }
    }
}

#[actix_web::test]
async fn a_link_that_is_taken_back_while_its_song_is_read_is_answered() {
    let world = World::start(Settings::default());
    let (us, link) = shared_song(&world, "alice");
    let mut alice = world.client("alice", &["me"]).await;
    alice.until_live().await;
    let (mut guest, watched) = opening(&world, link).await;
    world.log().links.clear();
    world.change(us, json!({"variants": [{"share_token": "another"}]}));
    alice.next("ev").await;
    world.log().held = None;
    watched.let_go();
    let answer = guest.any().await;
    assert_eq!((&answer["id"], &answer["code"]), (&json!(2), &json!("not_found")), "{answer}");
}

#[actix_web::test]
async fn who_leaves_a_link_while_it_is_read_hears_of_the_subscription_as_well() {
    let world = World::start(Settings::default());
    let (_, link) = shared_song(&world, "alice");
    let share = format!("share:{link}");
    let (mut guest, watched) = opening(&world, link).await;
    world.log().links.clear();
    guest.command(json!({"t": "unsub", "id": 3, "ch": share})).await;
    assert_eq!(guest.next("unsubd").await["id"], 3);
    world.log().held = None;
    watched.let_go();
    assert_eq!(guest.next("unsubd").await["id"], 2);
}
