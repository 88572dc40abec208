//! Asking for a song: what is taken, what is refused and how, and that asking twice costs once.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::person::{answer, id, in_seconds, lyrics_first, music, token};
use crate::harness::{audit, shared};

#[tokio::test]
async fn a_wish_is_taken_with_the_place_where_the_song_is() {
    let server = shared().await;
    let mira = server.person("mira");
    let taken = mira.create(music("a waltz")).await;
    let place = taken.header("location").to_owned();
    assert_eq!(place, format!("/v1/songs/{}", id(&taken.body)));
    assert_eq!(taken.header("etag"), "\"1\"");
    assert!(!taken.header("x-request-id").is_empty());
    let song = taken.expect(202);
    assert_eq!((&song["status"], &song["seq"]), (&json!("pending"), &json!(1)));
    assert_eq!(mira.get(&place).await.expect(200)["id"], song["id"]);
}

#[tokio::test]
async fn everything_that_was_asked_for_comes_back_unchanged() {
    let server = shared().await;
    let mira = server.person("mira");
    let metadata = json!({"conversation": "ü💿", "nested": {"list": [1, 2.5, null, true, {"a": []}]}, "": "",
                          "text": "<b>not ours to clean</b> \\u0000 \"", "big": 9_007_199_254_740_991_i64});
    let wish = json!({"mode": "music", "title": "Für Elise – 月光 🎹", "prompt": "ein Lied über Übermut, e\u{301}",
        "lyrics": "La la,\nla – é", "style_tags": ["waltz", "piano"], "provider": "suno", "model": "V5", "negative_tags": ["metal"],
        "vocal_gender": "f", "style_weight": 0.5, "weirdness": 1.0, "audio_weight": 0.0, "variants": 1,
        "on_busy": "wait", "metadata": metadata});
    let song = mira.create(wish.clone()).await.expect(202);
    for field in ["mode", "title", "prompt", "lyrics", "style_tags", "provider", "model", "metadata"] {
        assert_eq!(song[field], wish[field], "{field}");
        assert_eq!(mira.song(&id(&song)).await[field], wish[field], "{field}");
    }
    let done = mira.until(&id(&song), "ready").await;
    assert_eq!(done["metadata"], metadata);
    assert!(!done["variants"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_song_for_which_no_model_was_named_shows_the_one_that_it_is_made_with() {
    let server = shared().await;
    let mira = server.person("mira");
    let wish = json!({"mode": "music", "prompt": "whatever you have", "provider": "suno"});
    let song = mira.create_with_key("any-model", wish.clone()).await.expect(202);
    assert_eq!(song["model"], "V5");
    assert_eq!(mira.song(&id(&song)).await["model"], "V5");
    // What was asked for is the same as before.
    let again = mira.create_with_key("any-model", wish.clone()).await.expect(200);
    assert_eq!(again["id"], song["id"]);
    let mut named = wish;
    named["model"] = json!("V5");
    let other = mira.create_with_key("any-model", named).await;
    assert_eq!(other.problem(422), "idempotency-mismatch");
}

#[tokio::test]
async fn asking_again_with_the_same_key_gives_the_same_song_and_costs_nothing() {
    let server = shared().await;
    let mira = server.person("mira");
    let first = mira.create_with_key("one", music("again")).await;
    assert_eq!(first.header("idempotent-replayed"), "");
    let song = id(&first.expect(202));
    mira.until(&song, "ready").await;

    // The same content in another order and spacing.
    let request = mira.request(Method::POST, "/v1/songs").header("Idempotency-Key", "one");
    let same = answer(request.body(r#"{ "prompt" : " again", "title":null, "mode":"music"}"#)).await;
    assert_eq!(same.header("idempotent-replayed"), "true");
    assert_eq!(same.header("location"), format!("/v1/songs/{song}"));
    let same = same.expect(200);
    assert_eq!((&same["id"], &same["status"]), (&json!(song), &json!("ready")), "as it is at this time");
    assert_eq!(mira.credits().await, 9.0);

    let other = mira.create_with_key("one", music("something else")).await;
    assert_eq!(other.problem(422), "idempotency-mismatch");
    // Keys are each user's own.
    let other = server.person("otto").create_with_key("one", music("something else")).await;
    assert_ne!(id(&other.expect(202)), song);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn fifty_identical_requests_at_once_are_one_song_and_one_charge() {
    let server = shared().await;
    let mira = server.person("mira");
    let answers = join_all((0..50).map(|_| mira.create_with_key("at-once", music("fifty")))).await;
    let taken = answers.iter().filter(|answer| answer.status == 202).count();
    let replayed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((taken, replayed), (1, 49));
    assert!(answers.iter().all(|answer| answer.body["id"] == answers[0].body["id"]));
    assert_eq!(mira.credits().await, 9.0);
    assert_eq!(mira.get("/v1/songs").await.expect(200)["songs"].as_array().unwrap().len(), 1);
    mira.until(&id(&answers[0].body), "ready").await;
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn the_key_of_a_deleted_song_stays_used() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = id(&mira.create_with_key("gone", music("gone")).await.expect(202));
    assert_eq!(mira.delete(&format!("/v1/songs/{song}")).await.status, 204);
    assert_eq!(mira.create_with_key("gone", music("gone")).await.problem(404), "not-found");
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn a_refused_attempt_leaves_no_key() {
    let server = shared().await;
    let mira = server.person("mira");
    assert_eq!(mira.create_with_key("later", json!({"mode": "music"})).await.status, 400);
    mira.create_with_key("later", music("good")).await.expect(202);
}

#[tokio::test]
async fn keys_that_are_none_are_refused() {
    let server = shared().await;
    let mira = server.person("mira");
    for key in ["", " ", "a b", "ä", &"x".repeat(256)] {
        let request = mira.request(Method::POST, "/v1/songs").json(&music("x"));
        let request = request.header("Idempotency-Key", key.as_bytes());
        assert_eq!(answer(request).await.problem(400), "invalid-input", "{key:?}");
    }
    let twice = mira.request(Method::POST, "/v1/songs").json(&music("x"));
    let twice = twice.header("Idempotency-Key", "a").header("Idempotency-Key", "b");
    assert_eq!(answer(twice).await.problem(400), "invalid-input");
    mira.create_with_key(&"x".repeat(255), music("x")).await.expect(202);
}

#[tokio::test]
async fn every_limit_is_told_with_a_pointer_and_all_at_once() {
    let server = shared().await;
    let mira = server.person("mira");
    let tags: Vec<String> = (0..21).map(|n| format!("tag {n}")).collect();
    let wrong = mira
        .create(json!({"mode": "song", "title": "x".repeat(101), "prompt": "x".repeat(3001),
            "lyrics": "x".repeat(5001), "style_tags": tags, "negative_tags": ["ok", "x".repeat(101)],
            "instrumental": "yes", "provider": "nobody", "model": 5, "vocal_gender": "x", "style_weight": 1.01,
            "weirdness": -0.1, "audio_weight": "0.5", "reference_audio_url": "ftp://x/y", "persona_id": ["x"],
            "variants": 6, "preview": 1, "on_busy": "maybe", "metadata": [1], "colour": "red"}))
        .await;
    let pointers = [
        "/audio_weight",
        "/colour",
        "/instrumental",
        "/lyrics",
        "/metadata",
        "/mode",
        "/model",
        "/negative_tags/1",
        "/on_busy",
        "/persona_id",
        "/preview",
        "/prompt",
        "/provider",
        "/reference_audio_url",
        "/style_tags",
        "/style_weight",
        "/title",
        "/variants",
        "/vocal_gender",
        "/weirdness",
    ];
    assert_eq!(wrong.pointers(), pointers);
    assert!(mira.get("/v1/songs").await.expect(200)["songs"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_just_within_the_limits_is_taken() {
    let server = shared().await;
    let mira = server.person("mira");
    mira.create(json!({"mode": "lyrics_first", "prompt": "ü".repeat(3000), "title": "月".repeat(100),
                       "metadata": {"x": "y".repeat(16 * 1024 - 8)}}))
        .await
        .expect(202);
    mira.create(json!({"mode": "music", "lyrics": "ü".repeat(5000), "style_weight": 0, "weirdness": 1}))
        .await
        .expect(202);
    let large =
        mira.create(json!({"mode": "music", "prompt": "x", "metadata": {"x": "y".repeat(16 * 1024)}})).await;
    assert_eq!(large.pointers(), ["/metadata"]);
}

#[tokio::test]
async fn wishes_that_contradict_themselves_are_refused() {
    let server = shared().await;
    let mira = server.person("mira");
    for (wish, pointers) in [
        (json!({"prompt": "x"}), vec!["/mode"]),
        (json!({"mode": "music"}), vec!["/prompt"]),
        (json!({"mode": "music", "prompt": " \u{0} <b></b> "}), vec!["/prompt"]),
        (json!({"mode": "lyrics_first", "lyrics": "la"}), vec!["/lyrics", "/prompt"]),
        (json!({"mode": "lyrics_first", "prompt": "x", "instrumental": true}), vec!["/instrumental"]),
        (json!({"mode": "music", "prompt": "x", "instrumental": true, "lyrics": "la"}), vec!["/lyrics"]),
        (json!({"mode": "music", "prompt": "x", "metadata": {"a": "\u{0}"}}), vec!["/metadata"]),
    ] {
        assert_eq!(mira.create(wish.clone()).await.pointers(), pointers, "{wish}");
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_refused_as_a_whole() {
    let server = shared().await;
    let mira = server.person("mira");
    let deep = format!(
        "{{\"mode\":\"music\",\"prompt\":\"x\",\"metadata\":{}{}}}",
        "{\"a\":".repeat(5000),
        "}".repeat(5000)
    );
    for body in
        ["", "{", "[]", "null", "\"text\"", "{\"mode\":\"music\"} x", "{\"prompt\":\"\\ud800\"}", &deep]
    {
        let refused = answer(mira.request(Method::POST, "/v1/songs").body(body.to_owned())).await;
        assert_eq!(refused.problem(400), "invalid-input", "{}", &body[..body.len().min(50)]);
    }
    let bytes = mira.request(Method::POST, "/v1/songs").body(vec![b'{', b'"', 0xff, 0xfe, b'"', b'}']);
    assert_eq!(answer(bytes).await.problem(400), "invalid-input");
}

#[tokio::test]
async fn more_than_256_kib_are_too_large() {
    let server = shared().await;
    let mira = server.person("mira");
    let large = mira.request(Method::POST, "/v1/songs").body(vec![b' '; 256 * 1024 + 1]);
    assert_eq!(answer(large).await.problem(413), "too-large");
    let chunks = futures_util::stream::iter((0..9).map(|_| Ok::<_, std::io::Error>(vec![b' '; 32 * 1024])));
    let endless = mira.request(Method::POST, "/v1/songs").body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(answer(endless).await.problem(413), "too-large");
    let just = mira.request(Method::POST, "/v1/songs").body(vec![b' '; 256 * 1024]);
    assert_eq!(answer(just).await.problem(400), "invalid-input");
}

#[tokio::test]
async fn nobody_gets_in_without_a_valid_token() {
    let server = shared().await;
    let mira = server.person("mira");
    let expired = token(&json!({"sub": mira.user, "exp": in_seconds(-3600)}));
    let nobody = token(&json!({"exp": in_seconds(3600)}));
    let nameless = token(&json!({"sub": "", "exp": in_seconds(3600)}));
    let long = token(&json!({"sub": "x".repeat(129), "exp": in_seconds(3600)}));
    let endless = token(&json!({"sub": mira.user}));
    let parts: Vec<&str> = mira.token.split('.').collect();
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    for wrong in ["", "garbage", &expired, &nobody, &nameless, &long, &endless, &unsigned] {
        let refused = mira.with(wrong).get("/v1/songs").await;
        assert_eq!(refused.problem(401), "unauthorized", "{wrong}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    let without = reqwest::Client::get(&crate::harness::person::client(), format!("{}/v1/me", mira.url));
    assert_eq!(answer(without).await.problem(401), "unauthorized");
    let wide = token(&json!({"sub": "ü".repeat(128), "exp": in_seconds(3600)}));
    mira.with(&wide).get("/v1/me").await.expect(200);
}

#[tokio::test]
async fn whoever_cannot_pay_is_told_what_it_costs() {
    let server = shared().await;
    let mira = server.person("mira");
    for n in 0..10 {
        mira.order(music(&format!("song {n}"))).await;
    }
    let short = mira.create_with_key("short", music("one too many")).await;
    assert_eq!(short.problem(402), "insufficient-credits");
    assert_eq!((&short.body["required"], &short.body["available"]), (&json!(1.0), &json!(0.0)));
    let short = mira.create(lyrics_first("also too much")).await;
    assert_eq!((&short.body["required"], &short.body["available"]), (&json!(0.1), &json!(0.0)));
    mira.create(json!({"mode": "music", "prompt": "x", "preview": true})).await.expect(202);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn what_a_provider_cannot_do_is_said_before_anything_is_charged() {
    let server = shared().await;
    let mira = server.person("mira");
    let unknown =
        mira.create(json!({"mode": "music", "prompt": "x", "provider": "suno", "model": "V99"})).await;
    assert_eq!(unknown.problem(422), "unsupported-by-provider");
    let absent = mira.create(json!({"mode": "music", "prompt": "x", "provider": "mureka"})).await;
    assert_eq!(absent.pointers(), ["/provider"]);
    let long = mira.create(json!({"mode": "music", "prompt": "x".repeat(501), "provider": "suno"})).await;
    assert_eq!(long.pointers(), ["/prompt"], "its own limit is less than ours");
    assert_eq!(mira.credits().await, 10.0);
}

#[tokio::test]
async fn markup_and_control_characters_do_not_get_in() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira
        .create(json!({"mode": "music", "title": "I <3 <script>alert(1)</script>you", "prompt": "a\u{0}b\u{7}c\r\nd",
                       "style_tags": ["<b>jazz</b>", "  ", "so\u{0}ul"]}))
        .await
        .expect(202);
    assert_eq!(song["title"], "I <3 alert(1)you");
    assert_eq!(song["prompt"], "abc\nd");
    assert_eq!(song["style_tags"], json!(["jazz", "soul"]));
    mira.until(&id(&song), "ready").await;
}

#[tokio::test]
async fn nothing_internal_is_in_a_problem() {
    let server = shared().await;
    let mira = server.person("mira");
    let nul = mira.request(Method::GET, "/v1/songs?q=%00&cursor=%00");
    let odd = mira.request(Method::POST, "/v1/songs").header("Content-Type", "text/xml").body("<x/>");
    for refused in [answer(nul).await, answer(odd).await, mira.get("/v1/songs/%00").await] {
        for word in ["postgres", "sql", "panic", "src/", "select"] {
            assert!(!refused.text.to_lowercase().contains(word), "{}", refused.text);
        }
        assert!((400..500).contains(&refused.status) || refused.status == 200, "{}", refused.text);
        assert_ne!(refused.body, Value::Null);
    }
}
