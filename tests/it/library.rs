//! The library: groups, order, search, pages, and reading one song without reading it again.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::person::{answer, lyrics_first, music};
use crate::harness::{Person, audit, shared};

#[tokio::test]
async fn a_song_that_did_not_change_is_not_sent_again() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("read twice")).await;
    mira.until(&song, "ready").await;
    let path = format!("/v1/songs/{song}");
    let first = mira.get(&path).await;
    let tag = first.header("etag").to_owned();
    assert_eq!(tag, format!("\"{}\"", first.body["seq"]));
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let again = answer(mira.request(Method::GET, &path).header("If-None-Match", known)).await;
        assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", tag.as_str()));
    }
    mira.tell(&song, "view", json!({})).await.expect(200);
    let changed = answer(mira.request(Method::GET, &path).header("If-None-Match", &tag)).await;
    assert_ne!(changed.header("etag"), tag);
    changed.expect(200);
}

#[tokio::test]
async fn what_waits_for_its_owner_comes_first_and_is_counted() {
    let server = shared().await;
    let mira = server.person("mira");
    let failed = mira.order(music("sim:fail=invalid_input x")).await;
    let cancelled = mira.order(lyrics_first("sim:slow=9s x")).await;
    mira.tell(&cancelled, "cancel", json!({})).await.expect(200);
    let complete = mira.order(music("complete")).await;
    let older = mira.order(music("to play, the older")).await;
    let newer = mira.order(music("to play, the newer")).await;
    let review = mira.order(lyrics_first("to review")).await;
    let generating = mira.order(music("sim:slow=20s under way")).await;
    mira.until(&failed, "failed").await;
    mira.until(&complete, "ready").await;
    mira.tell(&complete, "view", json!({})).await.expect(200);
    mira.until(&older, "ready").await;
    mira.until(&newer, "ready").await;
    mira.until(&review, "lyrics_ready").await;

    let all = mira.get("/v1/songs").await.expect(200);
    let smart = [&review, &newer, &older, &generating, &complete, &failed, &cancelled].map(String::clone);
    assert_eq!(ids(&all), smart);
    let counts = json!({"generating": 1, "to_review": 1, "to_play": 2, "complete": 1, "failed": 1});
    assert_eq!((&all["counts"], &all["badge"]), (&counts, &json!(3)));
    assert_eq!(all["next_cursor"], Value::Null);
    let newest = mira.get("/v1/songs?sort=newest").await.expect(200);
    let by_age = [&generating, &review, &newer, &older, &complete, &cancelled, &failed].map(String::clone);
    assert_eq!(ids(&newest), by_age);
    for (group, songs) in [
        ("generating", vec![&generating]),
        ("to_review", vec![&review]),
        ("to_play", vec![&newer, &older]),
        ("complete", vec![&complete]),
        ("failed", vec![&failed]),
    ] {
        let found = mira.get(&format!("/v1/songs?group={group}")).await.expect(200);
        assert_eq!(ids(&found).iter().collect::<Vec<_>>(), songs, "{group}");
        assert_eq!(found["counts"], counts, "whatever is shown, all are counted");
    }
    mira.tell(&generating, "cancel", json!({})).await.expect(200);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_search_takes_signs_as_signs() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut songs = Vec::new();
    for title in ["100% love", "100 loves", "a_b", "aXb", "back\\slash", "Übermut"] {
        songs.push(mira.order(json!({"mode": "music", "prompt": "x", "title": title})).await);
    }
    for (q, found) in [
        ("%", vec![0]),
        ("_", vec![2]),
        ("\\", vec![4]),
        ("LOVE", vec![1, 0]),
        ("Über", vec![5]),
        ("nothing like it", vec![]),
        ("' or 1=1 --", vec![]),
    ] {
        let q = reqwest::Url::parse_with_params("http://x/v1/songs?sort=newest", [("q", q)]).unwrap();
        let path = format!("{}?{}", q.path(), q.query().unwrap());
        let wanted: Vec<String> = found.into_iter().map(|n: usize| songs[n].clone()).collect();
        assert_eq!(ids(&mira.get(&path).await.expect(200)), wanted, "{q}");
    }
}

#[tokio::test]
async fn pages_neither_lose_nor_repeat_songs_while_others_come_and_change() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut still = BTreeSet::new();
    for n in 0..12 {
        let song = mira.order(lyrics_first(&format!("page {n}"))).await;
        mira.until(&song, "lyrics_ready").await;
        still.insert(song);
    }
    for sort in ["smart", "newest"] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = mira.get(&format!("/v1/songs?sort={sort}&limit=5{cursor}")).await.expect(200);
            seen.extend(ids(&page));
            // A new song while somebody leafs through.
            mira.order(lyrics_first(&format!("sim:slow=9s meanwhile {sort} {}", seen.len()))).await;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let found: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!(found.len(), seen.len(), "{sort}: none twice");
        assert!(found.is_superset(&still), "{sort}: none lost");
    }
}

#[tokio::test]
async fn songs_that_were_opened_are_paged_by_when() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut songs = Vec::new();
    for n in 0..6 {
        let song = mira.order(music(&format!("opened {n}"))).await;
        mira.until(&song, "ready").await;
        songs.push(song);
    }
    for n in [3, 0, 5, 1] {
        mira.tell(&songs[n], "view", json!({})).await.expect(200);
    }
    let mut opened = Vec::new();
    for n in [3, 0, 5, 1] {
        opened.push((
            mira.song(&songs[n]).await["last_viewed_at"].as_str().unwrap().to_owned(),
            songs[n].clone(),
        ));
    }
    assert!(opened.is_sorted_by_key(|(at, _)| at), "{opened:?}");
    // Two may well be opened in the same millisecond; then the newer song comes first.
    opened.sort();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = mira.get(&format!("/v1/songs?limit=1{cursor}")).await.expect(200);
        seen.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let opened = opened.iter().rev().map(|(_, song)| song);
    let wanted: Vec<&String> = [&songs[4], &songs[2]].into_iter().chain(opened).collect();
    assert_eq!(seen.iter().collect::<Vec<_>>(), wanted, "unopened first, then the last opened");
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused() {
    let server = shared().await;
    let mira = server.person("mira");
    for n in 0..2 {
        mira.order(lyrics_first(&format!("{n}"))).await;
    }
    let newest = mira.get("/v1/songs?sort=newest&limit=1").await.expect(200);
    let cursor = newest["next_cursor"].as_str().unwrap();
    for (query, pointer) in [
        ("limit=0", "/limit"),
        ("limit=101", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=x", "/limit"),
        ("limit=1&limit=2", "/limit"),
        ("group=mine", "/group"),
        ("sort=oldest", "/sort"),
        ("cursor=garbage", "/cursor"),
        ("cursor=cy4", "/cursor"),
        (&format!("cursor={cursor}"), "/cursor"),
        ("page=2", "/page"),
        (&format!("q={}", "x".repeat(101)), "/q"),
    ] {
        assert_eq!(mira.get(&format!("/v1/songs?{query}")).await.pointers(), [pointer], "{query}");
    }
    mira.get("/v1/songs?limit=100&group=all&sort=smart&q=").await.expect(200);
    mira.get(&format!("/v1/songs?sort=newest&cursor={cursor}")).await.expect(200);
}

#[tokio::test]
async fn a_new_user_has_an_empty_library() {
    let server = shared().await;
    let mira: Person = server.person("mira");
    let list = mira.get("/v1/songs").await;
    let cursor = list.header("songs-cursor").to_owned();
    let list = list.expect(200);
    assert_eq!((&list["songs"], &list["badge"], &list["next_cursor"]), (&json!([]), &json!(0), &Value::Null));
    // A cursor from before the first song is as good as any.
    let song = mira.order(music("the first")).await;
    let mut socket = crate::harness::Socket::open(&mira, json!([{"ch": "me", "since": cursor}])).await;
    if !socket.kinds(&song).contains(&"ready") {
        socket.event(&song, "ready").await;
    }
    assert_eq!(socket.overlay(&song), mira.song(&song).await);
}

fn ids(list: &Value) -> Vec<String> {
    list["songs"].as_array().unwrap().iter().map(crate::harness::person::id).collect()
}
