//! What an owner may do with a song, what others may not, and what it costs.

use serde_json::{Value, json};

use crate::harness::person::{in_seconds, lyrics_first, music};
use crate::harness::server::Simulator;
use crate::harness::{Setup, Socket, audit, shared, simulator};

#[tokio::test]
async fn own_words_can_be_sung_in_place_of_the_written_ones() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(lyrics_first("my own words")).await;
    let written = mira.until(&song, "lyrics_ready").await["lyrics_variants"].as_array().unwrap().len();

    for (body, pointer) in [
        (json!({}), ""),
        (json!({"variant_index": 0, "text": "both"}), ""),
        (json!({"variant_index": 0, "title": "alone"}), "/title"),
        (json!({"variant_index": -1}), "/variant_index"),
        (json!({"text": "x".repeat(5001)}), "/text"),
        (json!({"text": 5}), "/text"),
        (json!({"text": " "}), "/text"),
        (json!({"words": "x"}), "/words"),
    ] {
        assert_eq!(mira.tell(&song, "lyrics", body.clone()).await.pointers(), [pointer], "{body}");
    }
    let wrong = mira.tell(&song, "lyrics", json!({"variant_index": 99})).await;
    assert_eq!(
        (wrong.problem(404), &wrong.body["errors"][0]["pointer"]),
        ("not-found", &json!("/variant_index"))
    );
    assert!(wrong.text.contains("must be one of 0"), "{}", wrong.text);
    let mine = json!({"text": "[Verse]\nmine <b>alone</b>", "title": "Mine"});
    let chosen = mira.tell(&song, "lyrics", mine).await.expect(200);
    assert_eq!((&chosen["lyrics"], &chosen["title"]), (&json!("[Verse]\nmine alone"), &json!("Mine")));
    let texts = chosen["lyrics_variants"].as_array().unwrap();
    let selected: Vec<_> = texts.iter().filter(|text| text["selected"] == true).collect();
    assert_eq!((texts.len(), selected.len()), (written + 1, 1));
    assert_eq!(selected[0]["variant_index"], written);

    // The choice is made once.
    let again = mira.tell(&song, "lyrics", json!({"variant_index": 0})).await;
    assert_eq!(again.problem(409), "wrong-state");
    assert!(again.body["status"].is_string(), "{}", again.text);
    mira.until(&song, "ready").await;
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn two_choices_at_once_are_one() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(lyrics_first("a hasty finger")).await;
    mira.until(&song, "lyrics_ready").await;
    let choose = |index| mira.tell(&song, "lyrics", json!({"variant_index": index}));
    let (one, other) = tokio::join!(choose(0), choose(1));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    mira.until(&song, "ready").await;
    assert_eq!(mira.credits().await, 8.9);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_choice_that_cannot_be_paid_leaves_the_song_as_it_was() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(lyrics_first("poor")).await;
    mira.until(&song, "lyrics_ready").await;
    for n in 0..9 {
        mira.order(music(&format!("spent {n}"))).await;
    }
    let before = mira.song(&song).await;
    let short = mira.tell(&song, "lyrics", json!({"variant_index": 0})).await;
    assert_eq!(short.problem(402), "insufficient-credits");
    assert_eq!((&short.body["required"], &short.body["available"]), (&json!(1.0), &json!(0.9)));
    assert_eq!(mira.song(&song).await, before);
    assert_eq!(before["status"], "lyrics_ready");
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_without_anybody_asking() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let song = mira.order(music("sim:fail=provider_error@2 a second wind")).await;
    socket.event(&song, "ready").await;
    let whole = mira.song(&song).await;
    assert_eq!(socket.overlay(&song), whole);
    assert_eq!(whole["progress"]["music"]["retry_count"], 2);
    assert_eq!(socket.kinds(&song).iter().filter(|kind| **kind == "retry_scheduled").count(), 2);
    assert_eq!((&whole["cost"], &whole["error"]), (&json!(1.0), &Value::Null));
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_failed_song_is_refunded_and_its_owner_may_ask_again_three_times_an_hour() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("sim:fail=provider_error a lost cause")).await;
    let failed = mira.until(&song, "failed").await;
    assert_eq!(failed["error"]["class"], "provider_error");
    assert_eq!((&failed["cost"], &failed["refunded"]), (&json!(1.0), &json!(1.0)));
    assert_eq!(failed["retry"], json!({"allowed": true, "left": 5, "next_allowed_at": null}));
    assert_eq!(mira.credits().await, 10.0);
    for left in [4, 3, 2] {
        let again = mira.tell(&song, "retry", json!({})).await.expect(200);
        assert_eq!((&again["error"], &again["retry"]["left"]), (&Value::Null, &json!(left)));
        mira.until(&song, "failed").await;
    }
    let later = mira.tell(&song, "retry", json!({})).await;
    assert_eq!(later.problem(429), "retry-limit");
    let wait = later.body["retry_after_s"].as_i64().unwrap();
    assert!((3500..=3600).contains(&wait), "{}", later.text);
    assert_eq!(later.header("retry-after"), wait.to_string());
    assert_eq!((later.header("x-ratelimit-limit"), later.header("x-ratelimit-remaining")), ("3", "0"));
    // When the last of the three is an hour old, not the first.
    let reset = later.header("x-ratelimit-reset").parse::<i64>().unwrap() - in_seconds(0);
    assert!((wait..=3601).contains(&reset), "{wait} and {reset}");
    let song = mira.song(&song).await;
    assert!(song["retry"]["next_allowed_at"].is_string(), "{song}");
    assert_eq!((&song["cost"], &song["refunded"]), (&json!(4.0), &json!(4.0)));
    assert_eq!(mira.credits().await, 10.0);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn after_five_retries_support_is_the_only_way() {
    let simulator = simulator().await;
    let setup = quick(&simulator).await.set("retry.manual.per_hour", "100");
    let server = setup.set("retry.provider_error.delays", "[]").start().await;
    let mira = server.person("mira");
    let song = mira.order(music("sim:fail=provider_error never")).await;
    for _ in 0..5 {
        mira.until(&song, "failed").await;
        mira.tell(&song, "retry", json!({})).await.expect(200);
    }
    let failed = mira.until(&song, "failed").await;
    assert_eq!(failed["retry"]["allowed"], false);
    let never = mira.tell(&song, "retry", json!({})).await;
    assert_eq!(never.problem(429), "retry-limit");
    assert!(never.body["detail"].as_str().unwrap().to_lowercase().contains("support"), "{}", never.text);
    assert_eq!((never.header("x-ratelimit-limit"), never.header("x-ratelimit-remaining")), ("5", "0"));
    // There is no time to tell.
    assert_eq!((never.header("retry-after"), never.header("x-ratelimit-reset")), ("", ""));
    assert!(never.body.get("retry_after_s").is_none(), "{}", never.text);
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_retry_makes_the_failed_part_again_and_keeps_the_rest() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(lyrics_first("kept words")).await;
    mira.until(&song, "lyrics_ready").await;
    let words = json!({"text": "[Verse]\nsim:fail=invalid_input@1 kept", "title": "Kept"});
    mira.tell(&song, "lyrics", words).await.expect(200);
    let failed = mira.until(&song, "failed").await;
    assert_eq!((&failed["cost"], &failed["refunded"]), (&json!(1.1), &json!(1.0)));
    let same = mira.tell(&song, "retry", json!({})).await;
    assert_eq!(same.problem(409), "wrong-state");
    mira.tell(&song, "retry", json!({"lyrics": "[Verse]\nother words"})).await.expect(200);
    let done = mira.until(&song, "ready").await;
    assert_eq!((&done["lyrics"], &done["title"]), (&json!("[Verse]\nother words"), &json!("Kept")));
    assert_eq!(mira.credits().await, 8.9);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn moderation_fails_at_once_and_wants_other_words() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let song = mira.order(music("sim:fail=moderation something bad")).await;
    let event = socket.event(&song, "failed").await;
    assert_eq!(event["set"]["error"]["class"], "moderation");
    assert!(!socket.kinds(&song).contains(&"retry_scheduled"));
    let failed = mira.song(&song).await;
    assert_eq!(
        (&failed["refunded"], &failed["error"]["retryable"]),
        (&json!(1.0), &json!(false)),
        "{failed}"
    );
    for same in [json!({}), json!({"prompt": "sim:fail=moderation something bad"})] {
        assert_eq!(mira.tell(&song, "retry", same).await.problem(409), "wrong-state");
    }
    // Beside words and tags Suno is sent no prompt: with another one the same would be refused again.
    let sung = json!({"mode": "music", "prompt": "a song", "lyrics": "sim:fail=moderation la", "style_tags": ["folk"],
                      "provider": "suno"});
    let sung = mira.order(sung).await;
    socket.event(&sung, "failed").await;
    assert_eq!(mira.tell(&sung, "retry", json!({"prompt": "nicer"})).await.problem(409), "wrong-state");
    mira.tell(&sung, "retry", json!({"lyrics": "la la"})).await.expect(200);
    socket.event(&sung, "ready").await;

    let other = mira.tell(&song, "retry", json!({"prompt": "something good"})).await.expect(200);
    assert_eq!(other["prompt"], "something good");
    socket.event(&song, "ready").await;
    assert_eq!(socket.overlay(&song), mira.song(&song).await);
    assert_eq!(mira.credits().await, 8.0);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_retry_that_cannot_be_paid_leaves_the_song_failed() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("sim:fail=invalid_input poor again")).await;
    mira.until(&song, "failed").await;
    for n in 0..10 {
        mira.order(music(&format!("spent {n}"))).await;
    }
    let before = mira.song(&song).await;
    let short = mira.tell(&song, "retry", json!({"prompt": "good"})).await;
    assert_eq!(short.problem(402), "insufficient-credits");
    assert_eq!(mira.song(&song).await, before);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_song_can_be_stopped_at_every_stage_and_what_was_not_delivered_comes_back() {
    let simulator = simulator().await;
    simulator.steer(json!({"latency": {"lyrics_ms": [600, 700], "music_ms": [900, 1200]}})).await;
    let server = quick(&simulator).await.start().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;

    // Before the provider has it, or while it writes the words, or waits for the choice, or makes music.
    let stopped = mira.order(lyrics_first("stopped at once")).await;
    let cancelled = mira.tell(&stopped, "cancel", json!({})).await.expect(200);
    assert_eq!((&cancelled["status"], &cancelled["refunded"]), (&json!("cancelled"), &json!(0.1)));
    let writing = mira.order(lyrics_first("stopped while writing")).await;
    socket.event(&writing, "phase_started").await;
    mira.tell(&writing, "cancel", json!({})).await.expect(200);
    let chosen = mira.order(lyrics_first("stopped at the choice")).await;
    socket.event(&chosen, "lyrics_ready").await;
    assert_eq!(
        mira.tell(&chosen, "cancel", json!({})).await.expect(200)["refunded"],
        0.0,
        "written and paid"
    );
    let making = mira.order(music("stopped while singing")).await;
    socket.event(&making, "phase_started").await;
    assert_eq!(mira.tell(&making, "cancel", json!({})).await.expect(200)["refunded"], 1.0);
    let half = mira.order(music("stopped after the first clip")).await;
    socket.event(&half, "clip_ready").await;
    mira.tell(&half, "cancel", json!({})).await.expect(200);

    // A song that outlives them all: the late callbacks of the others have come by then.
    let last = mira.order(music("sim:slow=2s the last")).await;
    socket.event(&last, "ready").await;
    for song in [&stopped, &writing, &chosen, &making, &half] {
        let whole = mira.song(song).await;
        assert_eq!(whole["status"], "cancelled");
        assert_eq!(socket.kinds(song).last(), Some(&"cancelled"), "late callbacks change nothing");
        assert_eq!(socket.overlay(song), whole);
        assert_eq!(mira.tell(song, "cancel", json!({})).await.expect(200), whole, "repeatable");
    }
    let over = mira.tell(&last, "cancel", json!({})).await;
    assert_eq!((over.problem(409), &over.body["status"]), ("wrong-state", &json!("ready")));
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_deleted_song_is_gone_for_everybody_and_stays_gone() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let song = mira.order(music("sim:slow=5s soon gone")).await;
    socket.event(&song, "phase_started").await;
    let path = format!("/v1/songs/{song}");
    assert_eq!(mira.delete(&path).await.status, 204);
    let gone = socket.event(&song, "gone").await;
    assert_eq!(gone.get("set"), None, "nothing is said of what is gone: {gone}");
    assert_eq!(mira.delete(&path).await.status, 204, "repeatable");
    assert_eq!(mira.get(&path).await.problem(404), "not-found");
    for route in ["lyrics", "retry", "cancel", "view"] {
        let body = if route == "lyrics" { json!({"variant_index": 0}) } else { json!({}) };
        assert_eq!(mira.tell(&song, route, body).await.problem(404), "not-found", "{route}");
    }
    let list = mira.get("/v1/songs").await.expect(200);
    assert_eq!((&list["songs"], &list["counts"]["generating"]), (&json!([]), &json!(0)));
    assert_eq!(mira.credits().await, 10.0);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn opening_a_song_makes_it_complete_and_a_favourite_can_be_picked() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut socket = mira.socket().await;
    let song = mira.order(music("opened")).await;
    socket.event(&song, "ready").await;
    let viewed = mira.tell(&song, "view", json!({})).await.expect(200);
    assert_eq!(viewed["status"], "complete");
    assert!(viewed["last_viewed_at"].is_string());
    let again = mira.tell(&song, "view", json!({})).await.expect(200);
    assert_eq!(again["status"], "complete");

    let variant = |n: &str| format!("/v1/songs/{song}/variants/{n}");
    let favourites = |song: &Value| -> Vec<bool> {
        song["variants"].as_array().unwrap().iter().map(|variant| variant["selected"] == true).collect()
    };
    let select = json!({"selected": true});
    let picked = mira.patch(&variant("1"), select.clone()).await.expect(200);
    assert_eq!(favourites(&picked), [true, false]);
    let picked = mira.patch(&variant("2"), select.clone()).await.expect(200);
    assert_eq!(favourites(&picked), [false, true]);
    let none = mira.patch(&variant("2"), json!({"selected": false})).await.expect(200);
    assert_eq!(favourites(&none), [false, false]);
    for wrong in ["3", "0", "-1", "x", "99999999999"] {
        assert_eq!(mira.patch(&variant(wrong), select.clone()).await.problem(404), "not-found", "{wrong}");
    }
    assert_eq!(mira.patch(&variant("1"), json!({})).await.pointers(), ["/selected"]);
    let whole = mira.song(&song).await;
    while socket.overlay(&song)["seq"] != whole["seq"] {
        socket.next("the last event").await.unwrap();
    }
    assert_eq!(socket.overlay(&song), whole);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn other_peoples_songs_do_not_exist() {
    let server = shared().await;
    let (mira, otto) = (server.person("mira"), server.person("otto"));
    let song = mira.order(lyrics_first("mine alone")).await;
    mira.until(&song, "lyrics_ready").await;
    let before = mira.song(&song).await;
    let nothing = songflight::id::fresh().to_string();
    for song in [&song, &nothing, &"x".to_owned()] {
        let path = format!("/v1/songs/{song}");
        let mut texts = Vec::new();
        for refused in [
            otto.get(&path).await,
            otto.delete(&path).await,
            otto.tell(song, "lyrics", json!({"variant_index": 0})).await,
            otto.tell(song, "lyrics", json!({"text": "x"})).await,
            otto.tell(song, "retry", json!({})).await,
            otto.tell(song, "retry", json!({"lyrics": "x"})).await,
            otto.tell(song, "cancel", json!({})).await,
            otto.tell(song, "view", json!({})).await,
            otto.patch(&format!("{path}/variants/1"), json!({"selected": true})).await,
        ] {
            assert_eq!(refused.problem(404), "not-found");
            texts.push(refused.text);
        }
        texts.dedup();
        assert_eq!(texts.len(), 1, "what is somebody else's is told like what is nothing: {texts:?}");
    }
    let socket = Socket::open(&otto, json!([{"ch": format!("song:{song}")}])).await;
    let refused = socket.seen.iter().find(|frame| frame["t"] == "err").unwrap();
    assert_eq!(refused["code"], "not_found");
    assert_eq!(otto.get("/v1/songs").await.expect(200)["songs"], json!([]));
    assert_eq!(mira.song(&song).await, before);
}

#[tokio::test]
async fn me_tells_what_is_left_and_what_is_under_way() {
    let server = shared().await;
    let mira = server.person("mira");
    let new = mira.get("/v1/me").await.expect(200);
    assert_eq!((&new["user"], &new["credits"]), (&json!(mira.user), &json!(10.0)));
    assert_eq!((&new["credits_used_today"], &new["in_flight"]), (&json!(0.0), &json!(0)));
    let song = mira.order(music("sim:slow=5s under way")).await;
    let busy = mira.get("/v1/me").await.expect(200);
    assert_eq!((&busy["credits"], &busy["in_flight"]), (&json!(9.0), &json!(1)));
    assert_eq!(busy["credits_used_today"], 1.0);
    mira.tell(&song, "cancel", json!({})).await.expect(200);
    let after = mira.get("/v1/me").await.expect(200);
    assert_eq!((&after["credits"], &after["in_flight"]), (&json!(10.0), &json!(0)));
    assert!(after["daily_reset_at"].as_str().unwrap().ends_with("T00:00:00.000Z"), "{after}");
}

#[tokio::test]
async fn a_share_link_shows_one_clip_and_nothing_else() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("shared")).await;
    let whole = mira.until(&song, "ready").await;
    let token = whole["variants"][1]["share_token"].as_str().unwrap();
    let mut socket = Socket::connect(&mira.url).await;
    socket.say(json!({"t": "hello", "id": 1, "subs": [{"ch": format!("share:{token}")}]})).await;
    socket.until("the shared clip to be live", |frame| frame["t"] == "live").await;
    let snap = socket.seen.iter().find(|frame| frame["t"] == "snap").unwrap();
    let shown = snap["songs"][0].as_object().unwrap();
    let mut fields: Vec<&str> = shown.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["id", "instrumental", "seq", "status", "title", "variants"]);
    assert_eq!(shown["variants"], json!([whole["variants"][1]]));
    mira.delete(&format!("/v1/songs/{song}")).await;
    socket.until("the clip to be withdrawn", |frame| frame["kind"] == "gone").await;
}

#[tokio::test]
async fn a_share_link_that_is_taken_back_shows_nothing_any_more_and_its_successor_does() {
    let server = shared().await;
    let (mira, bob) = (server.person("mira"), server.person("bob"));
    let song = mira.order(music("shared for a while")).await;
    let token = |song: &Value| song["variants"][0]["share_token"].as_str().unwrap().to_owned();
    let old = token(&mira.until(&song, "ready").await);
    let follow = async |token: &str| {
        let mut socket = Socket::connect(&mira.url).await;
        socket.say(json!({"t": "hello", "id": 1, "subs": [{"ch": format!("share:{token}")}]})).await;
        socket
    };
    let mut socket = follow(&old).await;
    socket.until("the shared clip to be live", |frame| frame["t"] == "live").await;
    let link = format!("/v1/songs/{song}/variants/1/share-token");
    bob.delete(&link).await.expect(404);
    mira.delete(&format!("/v1/songs/{song}/variants/9/share-token")).await.expect(404);
    let fresh = token(&mira.delete(&link).await.expect(200));
    assert_ne!(fresh, old);
    assert_eq!(token(&mira.song(&song).await), fresh);
    socket.until("the clip to be withdrawn", |frame| frame["kind"] == "gone").await;

    follow(&old).await.until("a refusal", |frame| frame["code"] == "not_found").await;
    follow(&fresh).await.until("the clip by its new link", |frame| frame["t"] == "live").await;
}

#[tokio::test]
async fn words_that_change_are_held_to_the_limits_of_the_model_that_gets_them() {
    let simulator = simulator().await;
    let server = quick(&simulator).await.set("providers.suno.model", "V4").start().await;
    let mira = server.person("mira");
    let (lyrics, title) = ("x".repeat(3001), "x".repeat(81));
    let wish = json!({"mode": "music", "lyrics": lyrics, "title": title, "provider": "suno"});
    assert_eq!(mira.create(wish).await.pointers(), ["/lyrics", "/title"]);

    let song = mira.order(lyrics_first("words to choose from")).await;
    mira.until(&song, "lyrics_ready").await;
    let own = mira.tell(&song, "lyrics", json!({"text": lyrics, "title": title})).await;
    assert_eq!(own.pointers(), ["/text", "/title"]);
    assert_eq!(mira.tell(&song, "lyrics", json!({"text": lyrics})).await.pointers(), ["/text"]);
    // Whoever wrote it, it is not sung.
    let sql = "update lyrics_variants set text = $2 where song_id = $1::text::uuid and variant_index = 0";
    assert_eq!(server.look().await.execute(sql, &[&song, &lyrics]).await.unwrap(), 1);
    let written = mira.tell(&song, "lyrics", json!({"variant_index": 0})).await;
    assert_eq!(written.pointers(), ["/variant_index"]);
    mira.tell(&song, "lyrics", json!({"variant_index": 1})).await.expect(200);
    mira.until(&song, "ready").await;

    let mut tagged = music("sim:fail=invalid_input a wish");
    tagged["style_tags"] = json!(["waltz"]);
    let song = mira.order(tagged).await;
    mira.until(&song, "failed").await;
    for chars in [494, 501] {
        let longer = mira.tell(&song, "retry", json!({"prompt": "x".repeat(chars)})).await;
        assert_eq!(longer.pointers(), ["/prompt"], "{chars}");
    }
    assert_eq!(mira.tell(&song, "retry", json!({"lyrics": lyrics})).await.pointers(), ["/lyrics"]);
    mira.tell(&song, "retry", json!({"prompt": "x".repeat(493)})).await.expect(200);
    mira.until(&song, "ready").await;
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn an_instrumental_gets_no_words_by_a_retry() {
    let server = shared().await;
    let mira = server.person("mira");
    let mut quiet = music("sim:fail=invalid_input a quiet one");
    quiet["instrumental"] = json!(true);
    let song = mira.order(quiet).await;
    mira.until(&song, "failed").await;
    assert_eq!(mira.tell(&song, "retry", json!({"lyrics": "la"})).await.pointers(), ["/lyrics"]);
}

async fn quick(simulator: &Simulator) -> Setup {
    Setup::new(&simulator.provider()).await.set("tasks.poll.initial", "300ms")
}
