//! Mureka's adapter against its recorded traffic.

use serde_json::{Value, json};
use songflight::id::{SongId, fresh};
use songflight::provider::failure::{Arrived, Class, Failure, ModerationReason};
use songflight::provider::http::{BODY_BYTES_MAX, Http, Timeouts};
use songflight::provider::mureka::{Mureka, MurekaSettings};
use songflight::provider::{
    Clip, Made, MusicOptions, News, Order, Provider, SourceClip, Stage, Stem, Submitted, TaskKind,
    VocalGender, Work, unsupported,
};

use crate::conformance::{KEY, REPLY_TO, Recorded, Subject, understood};
use crate::fixtures::{self, Fixture};
use crate::suno::order;
use crate::wire::{Reply, Server};

pub(crate) fn adapter(base_url: &str) -> Mureka {
    let http = Http::new(base_url, Timeouts::default()).expect("clients for this machine");
    Mureka::new(MurekaSettings::new(base_url, KEY), http)
}

/// A clip that Mureka made.
pub(crate) fn clip() -> SourceClip {
    SourceClip {
        song: SongId(fresh()),
        variant_number: 2,
        provider: "mureka".into(),
        provider_task: Some("104729583616001".into()),
        clip_id: Some("104729583616901".into()),
        audio_url: Some("https://files.example.com/song.mp3".into()),
        duration_ms: Some(184_950),
        model: Some("mureka-8".into()),
        title: Some("Harbour Lights".into()),
        lyrics: None,
        style_tags: Vec::new(),
        instrumental: false,
    }
}

pub(crate) fn work(work: Work) -> Order {
    Order { work, ..order(TaskKind::Generate) }
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

fn extended() -> Order {
    let lyrics = Some("[Bridge]\nOne more bell across the water".into());
    Order { lyrics, ..work(Work::Extend { of: clip(), continue_at_ms: Some(120_500) }) }
}

pub(crate) const SUBJECT: Subject = Subject {
    name: "mureka",
    adapter: |url, _| std::sync::Arc::new(adapter(url)),
    order: order_behind,
    expected,
    requests,
    foreign: &[
        ("request_song_reference", "references would have to be uploaded first"),
        ("request_song_streaming", "streams are not asked for"),
        ("lyrics_extend", "words are not extended"),
        ("response_billing", "the account is not asked for"),
    ],
    alarms: &["response_error_401.json", "response_error_403_region.json"],
    doubtful: &[],
};

fn order_behind(fixture: &Fixture) -> Order {
    match fixture.about("endpoint") {
        "POST /v1/lyrics/generate" => Order { prompt: Some("a harbour".into()), ..order(TaskKind::Lyrics) },
        "POST /v1/song/stem" => work(Work::Stems { of: clip() }),
        _ => wish("a calm folk song"),
    }
}

fn expected(fixture: &Fixture) -> &str {
    match (fixture.about("error_class"), fixture.about("state"), fixture.name.as_str()) {
        ("", "succeeded", _) | ("", _, "response_lyrics.json" | "response_stem.json") => "complete",
        ("", "streaming", _) => "text",
        ("", ..) => "working",
        (class, ..) => class,
    }
}

/// What comes of a recorded answer.
async fn answered(name: &str) -> Result<News, Failure> {
    let fixture = fixtures::one("mureka", name);
    let server = Server::start(Reply::new(fixture.http_status(), fixture.body.clone()));
    let mureka = (SUBJECT.adapter)(&server.url, &fixture);
    let outcome = understood(&fixture, &order_behind(&fixture), &mureka, &fixture.body).await;
    outcome.expect("Mureka has no callbacks that could be misread")
}

#[actix_web::test]
async fn a_finished_task_brings_its_songs_with_durations_and_words() {
    let Ok(News::Clips(Stage::Complete, clips)) = answered("status_succeeded.json").await else {
        panic!("not complete")
    };
    let url =
        |index: u8| format!("https://cdn.mureka.ai/cos-prod/open/song/20260302/104729583616001-{index}.mp3");
    let clip = |index: u8, duration_ms| Clip {
        clip_id: Some(format!("10472958361690{index}")),
        lyrics: Some("[Verse]\nLanterns drift above the bay".into()),
        duration_ms: Some(duration_ms),
        audio_url: Some(url(index)),
        ..Clip::default()
    };
    assert_eq!(clips, [clip(0, 178_200), clip(1, 184_950)]);
}

#[actix_web::test]
async fn texts_and_stems_come_with_the_answer() {
    let Ok(News::Lyrics(texts)) = answered("response_lyrics.json").await else { panic!("no lyrics") };
    assert_eq!(texts.len(), 1);
    assert_eq!(texts[0].title.as_deref(), Some("Harbour Lights"));
    assert!(texts[0].text.starts_with("[Verse]\nLanterns drift above the bay\n"));

    let archive = |name: &str, url: &str| Stem { name: name.into(), url: url.into() };
    let zip = "https://cdn.mureka.ai/cos-prod/open/stem/20260302/4411.zip";
    let made = |stems| Ok(News::Made(Made::Stems { stems }));
    assert_eq!(answered("response_stem.json").await, made(vec![archive("archive", zip)]));

    let body = json!({"zip_url": zip, "midi_zip_url": "https://cdn.mureka.ai/midi.zip"});
    let midi = archive("midi_archive", "https://cdn.mureka.ai/midi.zip");
    let outcome = submitted(work(Work::Stems { of: clip() }), &body.to_string()).await;
    assert_eq!(outcome, Ok(Submitted::Done(made(vec![archive("archive", zip), midi]).expect("made"))));
}

/// Our orders that stand behind the recorded requests.
fn requests() -> Vec<Recorded> {
    let model = Some(String::from("mureka-8"));
    let song = fixtures::one("mureka", "request_song.json").json();
    let sung = Order { lyrics: song["lyrics"].as_str().map(String::from), ..order(TaskKind::Generate) };
    let sung = with(sung, |options| {
        options.style_tags = tags("indie folk, warm, acoustic guitar");
        options.vocal_gender = Some(VocalGender::Female);
        options.model.clone_from(&model);
    });
    let quiet = with(order(TaskKind::Generate), |options| {
        options.style_tags = tags("lo-fi piano, rain");
        options.instrumental = true;
        options.model.clone_from(&model);
    });
    let wish = Some("a song about a harbour at night".into());
    vec![
        Recorded::exactly("request_song.json", sung),
        Recorded::exactly("request_instrumental.json", quiet),
        Recorded::exactly("request_extend.json", extended()),
        Recorded::exactly("request_stem.json", work(Work::Stems { of: clip() })),
        Recorded::exactly("request_lyrics.json", Order { prompt: wish, ..order(TaskKind::Lyrics) }),
    ]
}

async fn submitted(order: Order, reply: &str) -> Result<Submitted, Failure> {
    let server = Server::start(Reply::new(200, reply));
    adapter(&server.url).submit(&order, REPLY_TO).await
}

/// The line and the body that are sent for an order.
async fn sent(order: Order) -> (String, Value) {
    let server = Server::start(Reply::new(200, r#"{"id":7}"#));
    let taken = adapter(&server.url).submit(&order, REPLY_TO).await;
    assert_eq!(taken, Ok(Submitted::Task(String::from("7").into())), "a number is an id, too");
    let asked = server.asked().remove(0);
    (asked.line, asked.body)
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
async fn without_words_mureka_writes_them_from_the_prompt() {
    let order = with(wish("a calm song about rain"), |options| {
        options.style_tags = tags("folk, slow");
        options.vocal_gender = Some(VocalGender::Male);
    });
    let (line, body) = sent(Order { variants: 9, ..order }).await;
    assert_eq!(line, "POST /v1/song/easy-generate");
    let prompt = "a calm song about rain, folk, slow, male vocals";
    assert_eq!(body, json!({"prompt": prompt, "model": "auto", "n": 3}));
}

#[actix_web::test]
async fn a_song_with_words_is_described_by_tags_and_prompt() {
    let order = Order { lyrics: Some("la la".into()), variants: 1, ..wish("about rain") };
    let (line, body) = sent(with(order.clone(), |options| options.style_tags = tags("folk"))).await;
    assert_eq!(line, "POST /v1/song/generate");
    assert_eq!(body, json!({"lyrics": "la la", "prompt": "folk, about rain", "model": "auto", "n": 1}));
    let (_, body) = sent(Order { prompt: None, ..order }).await;
    assert_eq!(body, json!({"lyrics": "la la", "model": "auto", "n": 1}));
}

#[actix_web::test]
async fn a_section_is_replaced_in_mureka_s_own_song() {
    let section = |start_ms, end_ms| work(Work::ReplaceSection { of: clip(), start_ms, end_ms });
    let (line, body) = sent(Order { lyrics: Some("new words".into()), ..section(20_000, 30_000) }).await;
    assert_eq!(line, "POST /v1/song/region-edit");
    let expected = json!({"song_id": "104729583616901", "lyrics": "new words", "edit_start": 20_000, "edit_end": 30_000});
    assert_eq!(body, expected);
    assert!(refused(section(20_000, 22_999)).await.contains("at least 3 s"));
    assert!(refused(section(i64::MIN, i64::MAX)).await.contains("start or end"));
    for (start_ms, end_ms) in [(11_999, 30_000), (160_000, 172_951)] {
        assert!(refused(section(start_ms, end_ms)).await.contains("within 12 s"));
    }
}

#[actix_web::test]
async fn a_song_is_extended_where_it_ends_unless_a_place_is_named() {
    let at = |duration_ms, continue_at_ms| Order {
        work: Work::Extend { of: SourceClip { duration_ms, ..clip() }, continue_at_ms },
        ..extended()
    };
    assert_eq!(sent(at(Some(184_950), None)).await.1["extend_at"], 184_950);
    assert_eq!(sent(at(Some(500_000), None)).await.1["extend_at"], 420_000);
    assert_eq!(sent(at(Some(500_000), Some(8_000))).await.1["extend_at"], 8_000);
    assert_eq!(sent(at(None, None)).await.1["extend_at"], Value::Null);
    assert!(refused(at(None, Some(7_999))).await.contains("not at 7.999 s"));
    assert!(refused(Order { lyrics: Some(" ".into()), ..at(None, None) }).await.contains("words to sing"));
}

#[actix_web::test]
async fn clips_of_others_are_refused_but_for_their_stems() {
    let of = SourceClip { provider: "suno".into(), ..clip() };
    let section = Work::ReplaceSection { of: of.clone(), start_ms: 20_000, end_ms: 30_000 };
    let extend = Order { work: Work::Extend { of: of.clone(), continue_at_ms: None }, ..extended() };
    for order in [work(section), extend] {
        assert!(refused(order).await.contains("made by suno"));
    }
    let nameless = SourceClip { clip_id: None, ..clip() };
    let order = Order { work: Work::Extend { of: nameless, continue_at_ms: None }, ..extended() };
    assert!(refused(order).await.contains("id at Mureka is not known"));

    let stems =
        submitted(work(Work::Stems { of: of.clone() }), r#"{"zip_url":"https://x.test/a.zip"}"#).await;
    assert!(matches!(stems, Ok(Submitted::Done(News::Made(_)))), "{stems:?}");
    assert!(
        refused(work(Work::Stems { of: SourceClip { audio_url: None, ..of } })).await.contains("no audio")
    );
}

#[actix_web::test]
async fn an_order_without_words_or_of_another_kind_is_refused_before_anything_is_sent() {
    let quiet = with(order(TaskKind::Generate), |options| options.instrumental = true);
    for order in [order(TaskKind::Lyrics), order(TaskKind::Generate), quiet] {
        assert!(refused(order).await.contains("neither prompt"));
    }
    let of = clip();
    let persona = Work::Persona { of: of.clone(), name: "Ann".into(), description: "warm".into() };
    for kind in [
        Work::Cover { of: of.clone() },
        Work::Video { of: of.clone() },
        Work::Merge { of: vec![of] },
        persona,
    ] {
        assert!(refused(work(kind)).await.contains("does not make"));
    }
}

#[actix_web::test]
async fn polls_ask_where_the_task_is_whatever_is_in_its_id() {
    let server = Server::start(Reply::new(200, fixtures::one("mureka", "status_queued.json").body));
    let mureka = adapter(&format!("{}/mureka/", server.url));
    let quiet = with(wish("x"), |options| options.instrumental = true);
    for (order, line) in [
        (wish("x"), "GET /mureka/v1/song/query/a%20b%2F..%3Fc"),
        (quiet, "GET /mureka/v1/instrumental/query/a%20b%2F..%3Fc"),
        (with(extended(), |options| options.instrumental = true), "GET /mureka/v1/song/query/a%20b%2F..%3Fc"),
    ] {
        assert_eq!(mureka.poll(&order, "a b/..?c").await, Ok(News::Working));
        let asked = server.asked().remove(0);
        assert_eq!(asked.line, line);
        assert_eq!(asked.header("authorization"), format!("Bearer {KEY}"));
    }
}

#[actix_web::test]
async fn a_success_that_cannot_be_read_may_have_been_taken() {
    for reply in [
        "",
        "[]",
        "<html>ok</html>",
        "{\"id\":",
        "{}",
        r#"{"id":null}"#,
        r#"{"id":{"a":1}}"#,
        r#"{"lyrics":[]}"#,
    ] {
        for order in [wish("x"), work(Work::Stems { of: clip() })] {
            let failure = submitted(order, reply).await.expect_err(reply);
            assert_eq!((failure.class, failure.arrived), (Class::ProviderError, Arrived::Maybe), "{reply}");
        }
    }
    // A text that came out empty is one; that none came at all is a fault.
    let lyrics = || Order { prompt: Some("x".into()), ..order(TaskKind::Lyrics) };
    assert!(
        matches!(submitted(lyrics(), r#"{"lyrics":null}"#).await, Ok(Submitted::Done(News::Lyrics(texts))) if texts[0].text.is_empty())
    );
    submitted(lyrics(), r#"{"title":"x"}"#).await.expect_err("no lyrics");
}

#[actix_web::test]
async fn errors_without_mureka_s_own_words_are_understood_by_their_status() {
    for (status, class, arrived, operator) in [
        (302, Class::ProviderError, Arrived::No, true),
        (402, Class::InsufficientProviderCredits, Arrived::No, false),
        (404, Class::ProviderError, Arrived::No, true),
        (408, Class::Network, Arrived::No, false),
        (413, Class::InvalidInput, Arrived::No, false),
        (429, Class::RateLimited, Arrived::No, false),
        (451, Class::Moderation, Arrived::No, false),
        (502, Class::ProviderError, Arrived::Maybe, false),
        (504, Class::ProviderError, Arrived::Maybe, false),
    ] {
        let server = Server::start(Reply::new(status, "<html>no</html>").header("Retry-After", "17"));
        let failure = adapter(&server.url).submit(&wish("x"), REPLY_TO).await.expect_err("a failure");
        assert_eq!(
            (failure.class, failure.arrived, failure.operator),
            (class, arrived, operator),
            "{status}"
        );
        assert_eq!(failure.code, Some(status.to_string()));
        assert_eq!(failure.retry_after, Some(std::time::Duration::from_secs(17)));
    }
}

#[actix_web::test]
async fn a_refusal_for_safety_keeps_its_reason() {
    let failure = answered("response_error_451_safety.json").await.expect_err("refused");
    assert_eq!(failure.reason, Some(ModerationReason::Flagged));
    assert_eq!(failure.message, "Content did not pass the safety review");
}

#[test]
fn what_mureka_cannot_do_is_told_by_field() {
    let able = songflight::provider::mureka::capabilities();
    let fields =
        |order: Order| unsupported(able, &order).into_iter().map(|refused| refused.field).collect::<Vec<_>>();
    let quiet = |model: &str| {
        with(wish("x"), |options| {
            options.instrumental = true;
            options.model = Some(model.into());
        })
    };
    assert!(fields(quiet("mureka-9")).is_empty());
    assert_eq!(fields(quiet("mureka-o2")), ["instrumental"]);
    assert_eq!(fields(with(wish("x"), |options| options.negative_tags = tags("metal"))), ["negative_tags"]);
    assert_eq!(fields(work(Work::Cover { of: clip() })), ["provider"]);
    let long = |model: &str| {
        let lyrics = Some("ä".repeat(4000));
        with(Order { lyrics, ..wish("x") }, |options| options.model = Some(model.into()))
    };
    assert!(fields(long("mureka-8")).is_empty());
    assert_eq!(fields(long("mureka-6")), ["lyrics"]);
    assert_eq!((able.music_calls(3), able.music_calls(5), able.lyrics_calls()), (1, 2, 2));
}

#[test]
fn texts_that_do_not_fit_together_are_refused_by_the_field_that_has_no_room() {
    let fields = |order: &Order| {
        let found = unsupported(songflight::provider::mureka::capabilities(), order);
        found.into_iter().map(|refused| refused.field).collect::<Vec<_>>()
    };
    let tagged = |order: Order| with(order, |options| options.style_tags = tags("folk, slow"));
    let sung = |chars: usize| Order { lyrics: Some("la la".into()), ..wish(&"p".repeat(chars)) };
    let quiet = |chars: usize| with(wish(&"p".repeat(chars)), |options| options.instrumental = true);
    for order in [sung(1024), tagged(sung(1012)), quiet(1024), tagged(quiet(1012))] {
        assert!(fields(&order).is_empty());
    }
    for order in [sung(1025), tagged(sung(1013)), quiet(1025), tagged(quiet(1013))] {
        assert_eq!(fields(&order), ["prompt"]);
    }
    let told = unsupported(songflight::provider::mureka::capabilities(), &tagged(sung(1020)));
    assert_eq!(told[0].why, "with the style tags 1032 characters; mureka takes 1024");

    // Mureka writes the words: there is more room, which a voice shares.
    let voiced = |order: Order| with(order, |options| options.vocal_gender = Some(VocalGender::Female));
    let wish = |chars: usize| wish(&"p".repeat(chars));
    for order in [wish(2000), tagged(wish(1988)), voiced(wish(1985)), voiced(tagged(wish(1973)))] {
        assert!(fields(&order).is_empty());
    }
    for order in [tagged(wish(1989)), voiced(tagged(wish(1974)))] {
        assert_eq!(fields(&order), ["style_tags"]);
    }
    for order in [wish(2001), tagged(wish(2001)), voiced(wish(1986))] {
        assert_eq!(fields(&order), ["prompt"], "told once");
    }
}

#[test]
fn what_is_wrong_with_work_on_a_clip_is_told_by_the_field_that_says_it() {
    let fields = |order: Order| {
        let found = unsupported(songflight::provider::mureka::capabilities(), &order);
        found.into_iter().map(|refused| refused.field).collect::<Vec<_>>()
    };
    let nameless = || SourceClip { clip_id: None, ..clip() };
    let extend = |of, continue_at_ms| Order { work: Work::Extend { of, continue_at_ms }, ..extended() };
    assert!(fields(extend(clip(), Some(8_000))).is_empty());
    assert_eq!(fields(extend(clip(), Some(7_999))), ["continue_at_s"]);
    assert_eq!(fields(Order { lyrics: None, ..extend(clip(), None) }), ["lyrics"]);
    assert_eq!(fields(extend(nameless(), None)), ["variant_number"]);

    let section = |of, start_ms, end_ms| fields(work(Work::ReplaceSection { of, start_ms, end_ms }));
    assert!(section(clip(), 20_000, 30_000).is_empty());
    assert_eq!(section(clip(), 20_000, 22_999), ["end_s"]);
    assert_eq!(section(clip(), 11_999, 20_000), ["start_s"]);
    assert_eq!(section(clip(), 160_000, 184_950), ["end_s"]);
    assert_eq!(section(nameless(), 20_000, 30_000), ["variant_number"]);
}

#[test]
fn nothing_is_a_callback_and_nothing_follows_from_a_clips_id() {
    let mureka = adapter("http://127.0.0.1:1");
    for fixture in fixtures::all("mureka") {
        for kind in TaskKind::ALL {
            mureka.read(kind, &fixture.body).expect_err("no callback");
        }
    }
    assert_eq!(mureka.audio_from_clip_id("104729583616900"), None);
    assert!(!format!("{mureka:?}").contains(KEY));
}

#[actix_web::test]
async fn a_body_at_the_limit_is_read_and_a_longer_one_refused() {
    let polled = async |bytes: usize| {
        let mut body =
            br#"{"status":"succeeded","choices":[{"id":1,"url":"https://x.test/a.mp3"}]}"#.to_vec();
        body.resize(bytes, b' ');
        let server = Server::start(Reply::new(200, body));
        adapter(&server.url).poll(&wish("x"), "t").await
    };
    assert!(matches!(polled(BODY_BYTES_MAX).await, Ok(News::Clips(Stage::Complete, _))));
    let failure = polled(BODY_BYTES_MAX + 1).await.expect_err("too long");
    assert_eq!(failure.class, Class::ProviderError);
}
