//! Songs of providers that call nobody back: found by polls, or answered in one long call.

use serde_json::json;

use crate::harness::person::{answer, client, lyrics_first};
use crate::harness::{Server, Setup, audit, simulator};

/// A server that knows the simulated Mureka and MiniMax, which sends its songs in hex.
async fn started(provider: &str) -> Server {
    let other = |name: &str| provider.replace("/suno", &format!("/{name}"));
    let setup = Setup::new(provider).await;
    setup
        .set("providers.mureka.base_url", &other("mureka"))
        .set("providers.minimax.base_url", &other("minimax"))
        .set("providers.minimax.output_format", "hex")
        .set("tasks.poll.initial", "100ms")
        .start()
        .await
}

#[tokio::test]
async fn a_song_that_came_inside_an_answer_is_heard_from_us() {
    let simulator = simulator().await;
    let server = started(&simulator.provider()).await;
    let mira = server.person("mira");
    let wish = json!({"mode": "music", "prompt": "rain on tin", "provider": "minimax"});
    let song = mira.until(&mira.order(wish).await, "ready").await;
    assert_eq!(song["variants"].as_array().unwrap().len(), 2, "one call for each");
    for variant in song["variants"].as_array().unwrap() {
        let url = variant["audio_url"].as_str().unwrap();
        assert!(url.starts_with(&format!("{}/assets/", server.url())), "{url}");
        let part = client().get(url).header("range", "bytes=0-3").send().await.unwrap();
        assert_eq!(
            (part.status().as_u16(), part.headers()["content-type"].to_str().unwrap()),
            (206, "audio/wav")
        );
        assert_eq!(part.bytes().await.unwrap(), "RIFF");
    }
    let guessed = format!("{}/assets/{}.mp3", server.url(), "0".repeat(32));
    answer(client().get(guessed)).await.expect(404);
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused_and_goes_where_there_is_room() {
    let simulator = simulator().await;
    let server = started(&simulator.provider()).await;
    let mira = server.person("mira");
    let wish = |provider: &str, chars: usize| {
        json!({"mode": "music", "prompt": "x".repeat(chars), "lyrics": "la la la la", "style_tags": ["folk"],
               "provider": provider})
    };
    assert_eq!(mira.create(wish("mureka", 1020)).await.pointers(), ["/prompt"]);
    assert_eq!(mira.create(wish("minimax", 1995)).await.pointers(), ["/prompt"]);
    let few = json!({"mode": "music", "lyrics": "la", "provider": "minimax", "model": "music-2.0"});
    assert_eq!(mira.create(few).await.pointers(), ["/lyrics"]);
    assert_eq!(mira.credits().await, 10.0, "nothing was charged");
    let taken = mira.create(wish("auto", 1020)).await.expect(202);
    assert_ne!(taken["provider"], "mureka");

    // The prompt of a song whose lyrics are written is for these: beside them it goes along as far as it fits.
    let long = json!({"mode": "lyrics_first", "prompt": "harbour ".repeat(200), "provider": "mureka"});
    let song = mira.order(long).await;
    mira.until(&song, "lyrics_ready").await;
    mira.tell(&song, "lyrics", json!({"variant_index": 0})).await.expect(200);
    mira.until(&song, "ready").await;

    // Words that come by a retry have less room for the rest than there was without them.
    let fails = json!({"mode": "music", "prompt": format!("sim:fail=invalid_input {}", "x".repeat(1100)),
                       "provider": "mureka"});
    let song = mira.order(fails).await;
    mira.until(&song, "failed").await;
    assert_eq!(mira.tell(&song, "retry", json!({"lyrics": "la"})).await.pointers(), ["/lyrics"]);
    let tagged = json!({"lyrics": "la", "prompt": "x".repeat(1025)});
    assert_eq!(mira.tell(&song, "retry", tagged).await.pointers(), ["/prompt"]);
    mira.tell(&song, "retry", json!({"lyrics": "la", "prompt": "short"})).await.expect(200);
    mira.until(&song, "ready").await;
}

#[tokio::test]
async fn what_a_provider_answered_at_once_cost_something_though_it_named_no_task() {
    let simulator = simulator().await;
    let server = started(&simulator.provider()).await;
    let mira = server.person("mira");
    let preview = json!({"mode": "music", "prompt": "rain", "provider": "minimax", "preview": true});
    mira.until(&mira.order(preview).await, "ready").await;
    let song = json!({"mode": "music", "prompt": "rain on tin", "provider": "minimax"});
    mira.until(&mira.order(song).await, "ready").await;
    let lyrics = json!({"mode": "lyrics_first", "prompt": "lanterns", "provider": "mureka"});
    mira.until(&mira.order(lyrics).await, "lyrics_ready").await;
    let sql =
        "select provider, preview, count(*), count(distinct task_id), min(cost_usd_milli) from provider_costs
                where user_id = $1 group by provider, preview order by provider, preview";
    let rows = server.look().await.query(sql, &[&mira.user]).await.unwrap();
    let costs: Vec<(&str, bool, i64, i64)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    assert_eq!(costs, [("minimax", false, 2, 1), ("minimax", true, 1, 1), ("mureka", false, 2, 1)]);
    assert!(rows.iter().all(|row| row.get::<_, i32>(4) > 0), "{rows:?}");
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn lyrics_and_songs_of_a_provider_that_calls_nobody_back_are_found() {
    let simulator = simulator().await;
    let server = started(&simulator.provider()).await;
    let mira = server.person("mira");
    let mut wish = lyrics_first("lanterns over the bay");
    wish["provider"] = json!("mureka");
    wish["variants"] = json!(3);
    let id = mira.order(wish).await;
    let song = mira.until(&id, "lyrics_ready").await;
    assert_eq!(song["lyrics_variants"].as_array().unwrap().len(), 2, "one call for each text");
    mira.tell(&id, "lyrics", json!({"variant_index": 1})).await.expect(200);
    let song = mira.until(&id, "ready").await;
    assert_eq!(song["lyrics"], song["lyrics_variants"][1]["text"]);
    assert_eq!(song["variants"].as_array().unwrap().len(), 3);
    audit(server.look().await, Some(&mira.user)).await;
}
