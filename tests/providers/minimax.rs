//! MiniMax's adapter against its recorded traffic.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use songflight::provider::failure::{Arrived, Class, Failure};
use songflight::provider::http::{Http, Timeouts};
use songflight::provider::minimax::{Keep, Minimax, MinimaxSettings, OutputFormat};
use songflight::provider::{
    Clip, MusicOptions, News, Order, Provider, SourceClip, Stage, Submitted, TaskKind, Work, unsupported,
};

use crate::conformance::{KEY, REPLY_TO, Recorded, Subject};
use crate::fixtures;
use crate::mureka::{clip, work};
use crate::suno::order;
use crate::wire::{Reply, Server};

/// Where songs that came in an answer are said to be.
const KEPT: &str = "https://songs.example.com/assets/0.mp3";

pub(crate) fn adapter(base_url: &str) -> Minimax {
    asking_for(OutputFormat::Url, base_url, Arc::new(|_, _| Ok(KEPT.into())))
}

pub(crate) fn asking_for(output_format: OutputFormat, base_url: &str, keep: Keep) -> Minimax {
    let http = Http::new(base_url, Timeouts::default()).expect("clients for this machine");
    let keep_again = vec![Duration::from_millis(1); 2];
    let settings = MinimaxSettings { output_format, keep_again, ..MinimaxSettings::new(base_url, KEY, keep) };
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

pub(crate) const SUBJECT: Subject = Subject {
    name: "minimax",
    adapter: |url, fixture| {
        let format = if fixture.name == HEX { OutputFormat::Hex } else { OutputFormat::Url };
        Arc::new(asking_for(format, url, Arc::new(|_, _| Ok(KEPT.into()))))
    },
    order: |_| wish("a calm folk song"),
    expected: |fixture| match fixture.about("error_class") {
        // There is nothing to ask for later.
        "" if fixture.name == IN_PROGRESS => "provider_error",
        "" => "complete",
        class => class,
    },
    requests,
    foreign: &[
        ("request_stream", "streams are not asked for"),
        ("response_lyrics", "an uncertain endpoint, where nothing is ordered"),
    ],
    alarms: &["response_error_1004.json", "response_error_2049.json"],
    doubtful: &[IN_PROGRESS],
};

const HEX: &str = "request_song_hex.json";
const IN_PROGRESS: &str = "response_in_progress.json";

/// The only song that comes of an answer.
async fn understood(status: u16, body: Vec<u8>) -> Result<Clip, Failure> {
    let server = Server::start(Reply::new(status, body));
    match adapter(&server.url).submit(&wish("a calm folk song"), REPLY_TO).await? {
        Submitted::Done(News::Clips(Stage::Complete, mut clips)) if clips.len() == 1 => Ok(clips.remove(0)),
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn every_error_keeps_its_code() {
    for fixture in fixtures::all("minimax") {
        let code = fixture.json()["base_resp"]["status_code"].as_i64().unwrap_or_default();
        if code != 0 {
            let failure = understood(fixture.http_status(), fixture.body).await.expect_err(&fixture.name);
            assert_eq!(failure.code, Some(code.to_string()), "{}", fixture.name);
        }
    }
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
        let body = fixtures::one("minimax", name).body;
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
async fn a_song_that_is_paid_for_is_stored_once_the_disk_has_room_again() {
    let server = Server::start(Reply::new(200, fixtures::one("minimax", "response_success_hex.json").body));
    let tries = Arc::new(Mutex::new(0));
    let counting = tries.clone();
    let keep: Keep = Arc::new(move |_, _| {
        let mut tries = counting.lock().expect("no panics");
        *tries += 1;
        if *tries < 3 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(KEPT.into()) }
    });
    let made = asking_for(OutputFormat::Hex, &server.url, keep).submit(&wish("x"), REPLY_TO).await;
    assert!(matches!(made, Ok(Submitted::Done(_))), "{made:?}");
    assert_eq!((*tries.lock().expect("no panics"), server.asked().len()), (3, 1));
}

#[actix_web::test]
async fn a_gateways_time_out_leaves_open_whether_the_song_was_made() {
    let body = br#"{"base_resp":{"status_code":1001,"status_msg":"timeout"}}"#.to_vec();
    let failure = understood(504, body).await.expect_err("no song");
    assert_eq!((failure.class, failure.arrived), (Class::Timeout, Arrived::Maybe));
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

/// Our orders that stand behind the recorded requests. What is recorded without audio settings is heard in a lesser
/// quality, and what is recorded without a format comes as hex, which is then the default.
fn requests() -> Vec<Recorded> {
    let audio = |bitrate: u32| json!({"sample_rate": 44_100, "bitrate": bitrate, "format": "mp3"});
    let recorded = |(name, order)| {
        let with = match name {
            HEX => json!({"audio_setting": audio(128_000), "output_format": "hex"}),
            _ => json!({"audio_setting": audio(256_000)}),
        };
        Recorded { with, ..Recorded::exactly(name, order) }
    };
    orders().into_iter().map(recorded).collect()
}

fn orders() -> Vec<(&'static str, Order)> {
    let sung = |name: &str| {
        let recorded = fixtures::one("minimax", name).json();
        let text = |key: &str| recorded[key].as_str().map(String::from);
        let order = Order { lyrics: text("lyrics"), ..order(TaskKind::Generate) };
        with(order, |options| {
            options.style_tags = tags(&text("prompt").expect("a prompt"));
            options.model = text("model");
        })
    };
    let url = "request_song_url.json";
    let of = SourceClip { audio_url: Some("https://files.example.com/demo.mp3".into()), ..clip() };
    let quiet = with(wish("lo-fi piano with rain, slow"), |options| options.instrumental = true);
    let cover = Order { prompt: Some("synth pop version".into()), ..work(Work::Cover { of }) };
    vec![
        (url, sung(url)),
        (HEX, sung(HEX)),
        ("request_instrumental.json", quiet),
        ("request_lyrics_optimizer.json", wish("a calm folk song about a harbour at dusk")),
        ("request_cover.json", cover),
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
    let after = |options: &mut MusicOptions| {
        options.instrumental = true;
        options.reference_audio_url = Some("https://cdn.example.com/hum.mp3".into());
    };
    assert_eq!(fields(of_model(with(wish("x"), after), "music-2.5+")), ["instrumental"]);
    assert_eq!(fields(of_model(wish("x"), "music-2.0")), ["lyrics"]);
    assert!(fields(of_model(wish("x"), "music-2.5")).is_empty());
    assert_eq!(fields(Order { lyrics: Some("a".repeat(3501)), ..wish("x") }), ["lyrics"]);
    assert_eq!((able.music_calls(2), able.synchronous), (2, true));
}

#[test]
fn texts_that_do_not_fit_together_and_too_few_words_are_refused_by_their_field() {
    let able = songflight::provider::minimax::capabilities();
    let fields =
        |order: &Order| unsupported(able, order).into_iter().map(|refused| refused.field).collect::<Vec<_>>();
    let tagged = |order: Order| with(order, |options| options.style_tags = tags("folk, slow"));
    let wish = |chars: usize| wish(&"p".repeat(chars));
    let sung = |chars: usize| Order { lyrics: Some("la la la la".into()), ..wish(chars) };
    let cover = |chars: usize| Order { work: Work::Cover { of: clip() }, ..sung(chars) };
    for order in [wish(2000), sung(2000), tagged(wish(1988)), tagged(sung(1988)), tagged(cover(1988))] {
        assert!(fields(&order).is_empty());
    }
    assert_eq!(fields(&tagged(wish(1989))), ["style_tags"]);
    for order in [wish(2001), sung(2001), tagged(wish(2001)), tagged(sung(1989)), tagged(cover(1989))] {
        assert_eq!(fields(&order), ["prompt"]);
    }

    let words = |text: &str, model: &str| of_model(Order { lyrics: Some(text.into()), ..wish(1) }, model);
    assert_eq!(fields(&words("123456789", "music-2.0")), ["lyrics"]);
    assert!(fields(&words("1234567890", "music-2.0")).is_empty());
    assert!(fields(&words("1", "music-2.6")).is_empty());
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
    assert!(!format!("{minimax:?}").contains(KEY));
}

#[actix_web::test]
async fn nothing_that_is_cut_off_is_taken_for_a_song() {
    let whole = fixtures::one("minimax", "response_success_hex.json").body;
    let whole = whole.trim_ascii_end();
    let server = Server::start(Reply::new(200, ""));
    let minimax = adapter(&server.url);
    for end in 0..whole.len() {
        server.say(Reply::new(200, &whole[..end]));
        let failure = minimax.submit(&wish("x"), REPLY_TO).await.expect_err("half a song");
        assert_eq!((failure.class, failure.arrived), (Class::ProviderError, Arrived::Maybe), "{end}");
    }
}
