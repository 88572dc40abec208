//! MiniMax's adapter against its recorded traffic.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use songflight::provider::failure::{Arrived, Class, Failure};
use songflight::provider::http::{Http, Timeouts};
use songflight::provider::minimax::{Keep, Minimax, MinimaxSettings, OutputFormat};
use songflight::provider::{
    Clip, MusicOptions, News, Order, Provider, SourceClip, Stage, Submitted, TaskKind, Work, unsupported,
};

use crate::conformance::REPLY_TO;
use crate::fixtures::{self, Fixture};
use crate::mureka::{clip, reads_without_panic, work};
use crate::suno::order;
use crate::wire::{Reply, Script, Server, block_on};

/// Where songs that came in an answer are said to be.
const KEPT: &str = "https://songs.example.com/assets/0.mp3";

pub(crate) fn adapter(base_url: &str) -> Minimax {
    asking_for(OutputFormat::Url, base_url, Arc::new(|_, _| Ok(KEPT.into())))
}

pub(crate) fn asking_for(output_format: OutputFormat, base_url: &str, keep: Keep) -> Minimax {
    let http = Http::new(base_url, Timeouts::default()).expect("clients for this machine");
    let settings = MinimaxSettings { output_format, ..MinimaxSettings::new(base_url, "secret-key", keep) };
    Minimax::new(settings, http)
}

fn with(mut order: Order, change: impl FnOnce(&mut MusicOptions)) -> Order {
    change(&mut order.options);
    order
}

fn tags(text: &str) -> Vec<String> {
    text.split(", ").map(String::from).collect()
}

fn wish(text: &str) -> Order {
    Order { prompt: Some(text.into()), ..order(TaskKind::Generate) }
}

fn of_model(order: Order, model: &str) -> Order {
    with(order, |options| options.model = Some(model.into()))
}

/// What travels for a fixture: a stream is a list of events in its file.
fn travelling(fixture: &Fixture) -> Vec<u8> {
    match fixture.json() {
        Value::Array(events) => {
            events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into_bytes()
        }
        _ => fixture.body.clone(),
    }
}

/// The only song that comes of an answer.
async fn understood(status: u16, body: Vec<u8>) -> Result<Clip, Failure> {
    let server = Server::start(Reply::new(status, body));
    match adapter(&server.url).submit(&wish("a calm folk song"), REPLY_TO).await? {
        Submitted::Done(News::Clips(Stage::Complete, mut clips)) if clips.len() == 1 => Ok(clips.remove(0)),
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn every_fixture_is_understood_as_its_index_says() {
    let fixtures = fixtures::all("minimax");
    let (mut passed, mut wrong) = (0, Vec::new());
    // The lyrics' endpoint is uncertain, and nothing is ordered there.
    let wanted =
        |fixture: &&Fixture| fixture.about("what") == "response" && fixture.name != "response_lyrics.json";
    for fixture in fixtures.iter().filter(wanted) {
        let outcome = understood(fixture.http_status(), travelling(fixture)).await;
        let (expected, arrived) = match (fixture.about("error_class"), &*fixture.name) {
            // There is nothing to ask for later, so it may have been paid for in vain.
            ("", "response_in_progress.json") => ("provider_error", Arrived::Maybe),
            ("", _) => ("complete", Arrived::No),
            (class, _) => (class, Arrived::No),
        };
        let (is, told) = match &outcome {
            Ok(_) => ("complete", Arrived::No),
            Err(failure) => (failure.class.as_str(), failure.arrived),
        };
        match is == expected && told == arrived {
            true => passed += 1,
            false => wrong.push(format!("{}: {is}, not {expected}: {outcome:?}", fixture.name)),
        }
        if let (Err(failure), Some(code)) = (&outcome, fixture.json()["base_resp"]["status_code"].as_i64()) {
            let told = if code == 0 { None } else { Some(code.to_string()) };
            assert_eq!(failure.code, told, "{}", fixture.name);
            assert_eq!(failure.operator, matches!(code, 1004 | 2049), "{}", fixture.name);
        }
    }
    println!("provider  fixtures passed\nminimax   {passed} of {}", passed + wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(passed, 18, "the index has 18 answers to what is ordered");
}

#[actix_web::test]
async fn a_song_comes_as_a_url_or_is_kept_for_one() {
    let song = |id: &str, url: &str| Clip {
        clip_id: Some(id.into()),
        duration_ms: Some(25_364),
        audio_url: Some(url.into()),
        ..Clip::default()
    };
    let recorded = fixtures::one("minimax", "response_success_url.json");
    let url = recorded.json()["data"]["audio"].as_str().expect("a url").to_owned();
    assert_eq!(understood(200, recorded.body).await, Ok(song("04ede0ab069fb1ba8be5156a24b1e082", &url)));

    for (name, id) in
        [("response_success_hex.json", "04ede0ab069fb1ba8be5156a24b1e081"), ("stream_chunks.json", "t1")]
    {
        let body = travelling(&fixtures::one("minimax", name));
        let server = Server::start(Reply::new(200, body));
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keeping = kept.clone();
        let keep: Keep = Arc::new(move |file: Bytes, media_type: &str| {
            keeping.lock().expect("no panics").push((file, media_type.to_owned()));
            Ok(KEPT.into())
        });
        let minimax = asking_for(OutputFormat::Hex, &server.url, keep);
        let submitted = minimax.submit(&wish("x"), REPLY_TO).await;
        assert_eq!(submitted, Ok(Submitted::Done(News::Clips(Stage::Complete, vec![song(id, KEPT)]))));
        let file = [b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64".as_slice(), &[0; 16]].concat();
        assert_eq!(
            *kept.lock().expect("no panics"),
            [(Bytes::from(file), "audio/mpeg".to_owned())],
            "{name}"
        );
    }
}

#[actix_web::test]
async fn a_song_that_cannot_be_stored_is_a_failure_of_storage() {
    let server = Server::start(Reply::new(200, fixtures::one("minimax", "response_success_hex.json").body));
    let keep: Keep = Arc::new(|_, _| Err(io::ErrorKind::StorageFull.into()));
    let failure = asking_for(OutputFormat::Hex, &server.url, keep)
        .submit(&wish("x"), REPLY_TO)
        .await
        .expect_err("a full disk");
    assert_eq!((failure.class, failure.arrived), (Class::Storage, Arrived::No));
}

#[actix_web::test]
async fn a_song_of_many_mebibytes_is_taken_and_one_beyond_the_limit_is_not() {
    let answer = |bytes: usize| {
        let mut body = br#"{"base_resp":{"status_code":0},"data":{"audio":""#.to_vec();
        body.extend(std::iter::repeat_n(b'a', bytes));
        body.extend(br#"","status":2}}"#);
        body
    };
    let song = understood(200, answer(24 << 20)).await.expect("a song of 12 MiB");
    assert_eq!(song.audio_url.as_deref(), Some(KEPT));
    let failure = understood(200, answer(64 << 20)).await.expect_err("too long");
    assert_eq!((failure.class, failure.arrived), (Class::ProviderError, Arrived::Maybe));
}

#[actix_web::test]
async fn orders_are_written_as_the_recorded_requests() {
    let server = Server::start(Reply::new(200, fixtures::one("minimax", "response_success_url.json").body));
    for (name, order) in recorded_orders() {
        let output = if name.contains("hex") { OutputFormat::Hex } else { OutputFormat::Url };
        let minimax = asking_for(output, &server.url, Arc::new(|_, _| Ok(KEPT.into())));
        minimax.submit(&order, REPLY_TO).await.expect(name);
        let fixture = fixtures::one("minimax", name);
        let asked = server.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].line, fixture.about("endpoint"));
        let mut recorded = fixture.json();
        // What is recorded without them is heard in a lesser quality, or comes as hex, which is then the default.
        let bitrate = if output == OutputFormat::Hex { 128_000 } else { 256_000 };
        recorded["audio_setting"] = json!({"sample_rate": 44_100, "bitrate": bitrate, "format": "mp3"});
        if output == OutputFormat::Hex {
            recorded["output_format"] = json!("hex");
        }
        assert_eq!(asked[0].body, recorded, "{name}");
        assert_eq!(asked[0].header("authorization"), "Bearer secret-key");
        assert_eq!(asked[0].header("idempotency-key"), order.key.to_string());
    }
}

/// Our orders that stand behind the recorded requests; streams are never asked for.
fn recorded_orders() -> Vec<(&'static str, Order)> {
    let sung = |name: &str| {
        let recorded = fixtures::one("minimax", name).json();
        let text = |key: &str| recorded[key].as_str().map(String::from);
        let order = Order { lyrics: text("lyrics"), ..order(TaskKind::Generate) };
        with(order, |options| {
            options.style_tags = tags(&text("prompt").expect("a prompt"));
            options.model = text("model");
        })
    };
    let (url, hex) = ("request_song_url.json", "request_song_hex.json");
    let of = SourceClip { audio_url: Some("https://files.example.com/demo.mp3".into()), ..clip() };
    vec![
        (url, sung(url)),
        (hex, sung(hex)),
        (
            "request_instrumental.json",
            with(wish("lo-fi piano with rain, slow"), |options| options.instrumental = true),
        ),
        ("request_lyrics_optimizer.json", wish("a calm folk song about a harbour at dusk")),
        (
            "request_cover.json",
            Order { prompt: Some("synth pop version".into()), ..work(Work::Cover { of }) },
        ),
    ]
}

/// The body that is sent for an order.
async fn sent(order: Order) -> Value {
    let server = Server::start(Reply::new(200, r#"{"data":{"audio":"https://x.test/a.mp3","status":2}}"#));
    adapter(&server.url).submit(&order, REPLY_TO).await.expect("a song");
    server.asked().remove(0).body
}

/// What is wrong with an order that nothing is sent for.
async fn refused(order: Order) -> String {
    let server = Server::start(Reply::new(200, "{}"));
    let failure = adapter(&server.url).submit(&order, REPLY_TO).await.expect_err("a refusal");
    assert_eq!((failure.class, failure.arrived), (Class::InvalidInput, Arrived::No));
    assert!(server.asked().is_empty(), "nothing is sent");
    failure.message
}

#[actix_web::test]
async fn tags_and_wish_share_the_prompt() {
    let order = with(wish("about rain"), |options| options.style_tags = tags("folk, slow"));
    assert_eq!(sent(order.clone()).await["prompt"], "about rain, folk, slow");
    let sung = Order { lyrics: Some("la la la la".into()), ..order.clone() };
    assert_eq!(sent(sung).await["prompt"], "folk, slow, about rain");
    assert_eq!(sent(Order { prompt: Some("a".repeat(2000)), ..order }).await["prompt"], "a".repeat(2000));
    let bare = Order { lyrics: Some("la la la la".into()), ..order_without_words() };
    assert_eq!(sent(bare).await["prompt"], "pop");
}

fn order_without_words() -> Order {
    order(TaskKind::Generate)
}

#[actix_web::test]
async fn the_model_for_covers_follows_from_the_order() {
    let reference = |order: Order| {
        with(order, |options| options.reference_audio_url = Some("https://x.test/a.mp3".into()))
    };
    let body = sent(reference(wish("synth pop"))).await;
    assert_eq!((&body["model"], &body["audio_url"]), (&json!("music-cover"), &json!("https://x.test/a.mp3")));
    assert_eq!(body["lyrics_optimizer"], Value::Null);
    let free = of_model(work(Work::Cover { of: clip() }), "music-2.6-free");
    assert_eq!(sent(free).await["model"], "music-cover-free");
    assert!(
        refused(work(Work::Cover { of: SourceClip { audio_url: None, ..clip() } }))
            .await
            .contains("no audio")
    );
    let quiet = with(reference(wish("x")), |options| options.instrumental = true);
    assert!(refused(quiet).await.contains("vocals"));
}

#[actix_web::test]
async fn what_a_model_cannot_do_is_refused_before_anything_is_sent() {
    let quiet = |model: &str| of_model(with(wish("x"), |options| options.instrumental = true), model);
    assert!(refused(quiet("music-2.5")).await.contains("no instrumentals"));
    assert!(refused(of_model(wish("x"), "music-2.0")).await.contains("words that it is given"));
    let few = Order { lyrics: Some("la la".into()), ..of_model(wish("x"), "music-2.0") };
    assert!(refused(few).await.contains("at least 10 characters"));
    assert!(refused(order_without_words()).await.contains("neither prompt"));
    let lyrics = Order { prompt: Some("x".into()), ..order(TaskKind::Lyrics) };
    assert!(refused(lyrics).await.contains("does not make lyrics"));
    assert!(refused(work(Work::Stems { of: clip() })).await.contains("does not make stems"));

    let able = songflight::provider::minimax::capabilities();
    let fields =
        |order: Order| unsupported(able, &order).into_iter().map(|refused| refused.field).collect::<Vec<_>>();
    assert_eq!(fields(quiet("music-2.5")), ["instrumental"]);
    assert!(fields(quiet("music-2.5+")).is_empty());
    assert_eq!(fields(of_model(wish("x"), "music-2.0")), ["lyrics"]);
    assert!(fields(of_model(wish("x"), "music-2.5")).is_empty());
    assert_eq!(fields(Order { lyrics: Some("a".repeat(3501)), ..wish("x") }), ["lyrics"]);
    assert_eq!((able.music_calls(2), able.synchronous), (2, true));
}

#[actix_web::test]
async fn errors_in_front_of_minimax_are_its_faults() {
    for (status, class, arrived, operator) in [
        (302, Class::ProviderError, Arrived::No, true),
        (401, Class::ProviderError, Arrived::No, true),
        (404, Class::ProviderError, Arrived::No, true),
        (413, Class::ProviderError, Arrived::No, false),
        (429, Class::RateLimited, Arrived::No, false),
        (500, Class::ProviderError, Arrived::Maybe, false),
        (504, Class::ProviderError, Arrived::Maybe, false),
    ] {
        for body in ["<html>no</html>", "", "{}", r#"{"data":{"audio":"4944"}}"#] {
            let failure = understood(status, body.into()).await.expect_err("a failure");
            let told = (failure.class, failure.arrived, failure.operator);
            assert_eq!(told, (class, arrived, operator), "{status} {body}");
            assert_eq!(failure.code, Some(status.to_string()));
        }
    }
    let own = |status| understood(status, fixtures::one("minimax", "response_error_1024.json").body);
    assert_eq!(own(200).await.map_err(|failure| failure.arrived), Err(Arrived::No));
    assert_eq!(own(500).await.map_err(|failure| failure.arrived), Err(Arrived::Maybe));
    let refused = understood(500, fixtures::one("minimax", "response_error_1026.json").body).await;
    assert_eq!(
        refused.map_err(|failure| (failure.class, failure.arrived)),
        Err((Class::Moderation, Arrived::No))
    );
}

#[actix_web::test]
async fn there_is_nothing_to_ask_for_and_nobody_calls_back() {
    let server = Server::start(Reply::new(200, "{}"));
    let minimax = adapter(&server.url);
    let failure = minimax.poll(&wish("x"), "t").await.expect_err("no tasks");
    assert_eq!((failure.class, failure.arrived), (Class::ProviderError, Arrived::No));
    assert!(failure.message.contains("no tasks") && server.asked().is_empty());
    for fixture in fixtures::all("minimax") {
        for kind in TaskKind::ALL {
            minimax.read(kind, &fixture.body).expect_err("no callback");
        }
    }
    assert_eq!(minimax.audio_from_clip_id("04ede0ab069fb1ba8be5156a24b1e082"), None);
    assert!(!format!("{minimax:?}").contains("secret-key"));
}

thread_local! {
    static MINIMAX: (Script, Minimax) = {
        let server = Script::start();
        let minimax = adapter(&server.url);
        (server, minimax)
    };
}

fn all_read(body: &[u8]) {
    MINIMAX.with(|(server, minimax)| reads_without_panic(minimax, server, &[wish("x")], body));
}

#[test]
fn nothing_that_is_cut_off_is_taken_for_a_song() {
    let whole = fixtures::one("minimax", "response_success_hex.json").body;
    let whole = whole.trim_ascii_end();
    MINIMAX.with(|(server, minimax)| {
        block_on(async {
            for end in 0..whole.len() {
                server.say(200, &whole[..end]);
                let failure = minimax.submit(&wish("x"), REPLY_TO).await.expect_err("half a song");
                assert_eq!((failure.class, failure.arrived), (Class::ProviderError, Arrived::Maybe), "{end}");
            }
        });
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..2000)) {
        all_read(&body);
    }

    #[test]
    fn any_json_is_read_without_panic(body in crate::odd::json(&[
        "data", "audio", "audio_url", "status", "base_resp", "status_code", "status_msg", "extra_info",
        "music_duration", "trace_id", "task_id",
    ], &["0", "1", "2", "1002", "49443304", "4944330", "https://x.test/a.mp3"])) {
        all_read(body.to_string().as_bytes());
        all_read(format!("data: {body}\n\ndata:{body}").as_bytes());
    }

    #[test]
    fn damaged_fixtures_are_read_without_panic(body in crate::odd::damaged("minimax")) {
        all_read(&body);
    }
}
