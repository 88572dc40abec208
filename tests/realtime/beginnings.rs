//! How subscriptions begin while something happens: readings that are slow or come too late for what was told meanwhile.

use std::sync::Arc;

use serde_json::json;
use songflight::id::SongId;
use songflight::realtime::Settings;

use crate::client::{Client, Model};
use crate::world::{Held, World};

#[actix_web::test]
async fn what_happens_while_a_snapshot_is_read_follows_it() {
    let world = World::start(Settings::default());
    let us = world.create("alice");
    world.client("alice", &["me"]).await.until_live().await;
    let held = world.hold();
    let mut client = world.client("alice", &["me"]).await;
    held.begun.notified().await;
    world.change(us, json!({"n": 2}));
    world.change(us, json!({"n": 3}));
    held.let_go();
    assert_eq!(client.next("snap").await["c"], "7.1");
    assert_eq!(client.next("live").await["c"], "7.1");
    let ev = client.next("ev").await;
    let merged = (&json!(3), &json!(1), &json!(1), &json!("7.3"));
    assert_eq!((&ev["seq"], &ev["prev"], &ev["skipped"], &ev["c"]), merged);
}

#[actix_web::test]
async fn a_slow_first_reading_misses_nothing_that_a_later_quick_one_has_seen() {
    let world = World::start(Settings::default());
    let (us, other) = (world.create("alice"), world.create("alice"));
    let held = world.hold();
    let mut slow = world.client("alice", &["me"]).await;
    held.begun.notified().await;
    world.change(us, json!({"n": 2}));
    world.log().held = None;
    let mut quick = world.client("alice", &["me"]).await;
    assert_eq!(quick.next("live").await["c"], "7.3");
    // The slow one collects this while its reading is from before the one that it lacks.
    world.change(other, json!({"last": true}));
    quick.next("ev").await;
    held.let_go();
    let mut model = Model::default();
    while !model.has(&world) {
        model.take(&slow.any().await);
    }
    assert_eq!(model.songs, world.truth());
}

/// Who follows all of their songs, of which this is one.
async fn follower(world: &World) -> (SongId, Client) {
    let us = world.create("alice");
    let mut client = world.client("alice", &["me"]).await;
    client.until_live().await;
    (us, client)
}

/// They open the song as well; its reading is held.
async fn open(world: &World, client: &mut Client, us: SongId) -> Arc<Held> {
    let held = world.hold();
    client.command(json!({"t": "sub", "id": 2, "ch": format!("song:{us}")})).await;
    held.begun.notified().await;
    world.log().held = None;
    held
}

/// They follow all of their songs no more before it has been read.
async fn leave_all(client: &mut Client, held: &Held) {
    client.command(json!({"t": "unsub", "id": 3, "ch": "me"})).await;
    client.next("unsubd").await;
    held.let_go();
}

#[actix_web::test]
async fn a_song_that_comes_with_all_of_them_is_never_shown_older_than_it_was_told() {
    let world = World::start(Settings::default());
    let (us, mut client) = follower(&world).await;
    let held = open(&world, &mut client, us).await;
    world.change(us, json!({"n": 2}));
    assert_eq!(client.next("ev").await["seq"], 2);
    held.let_go();
    assert_eq!(client.next("subd").await["via"], "me");
    assert_eq!(client.next("snap").await["songs"][0]["seq"], 2);
    world.change(us, json!({"n": 3}));
    let ev = client.next("ev").await;
    assert_eq!((&ev["seq"], &ev["prev"]), (&json!(3), &json!(2)));
}

#[actix_web::test]
async fn a_song_is_followed_by_itself_when_all_of_them_are_left_while_it_is_read() {
    let world = World::start(Settings::default());
    let (us, mut client) = follower(&world).await;
    let held = open(&world, &mut client, us).await;
    leave_all(&mut client, &held).await;
    assert_eq!(client.next("subd").await["mode"], "snapshot");
    client.until_live().await;
    world.change(us, json!({"n": 2}));
    assert_eq!(client.next("ev").await["ch"], format!("song:{us}"));
}

#[actix_web::test]
async fn who_left_all_of_them_while_a_song_of_another_log_was_read_is_closed_as_well() {
    let world = World::start(Settings::default());
    let (us, mut client) = follower(&world).await;
    world.log().epoch = 8;
    let held = open(&world, &mut client, us).await;
    leave_all(&mut client, &held).await;
    assert_eq!(client.closed().await, 4014);
}
