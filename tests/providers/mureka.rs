//! Mureka's adapter against its recorded traffic.

use proptest::prelude::*;
use serde_json::{Value, json};
use songflight::id::{SongId, fresh};
use songflight::provider::failure::{Arrived, Class, Failure, ModerationReason};
use songflight::provider::http::{BODY_BYTES_MAX, Http, Timeouts};
use songflight::provider::mureka::{Mureka, MurekaSettings};
use songflight::provider::{
    Clip, Made, MusicOptions, News, Order, Provider, SourceClip, Stage, Stem, Submitted, TaskKind,
    VocalGender, Work, unsupported,
};

use crate::conformance::REPLY_TO;
use crate::fixtures::{self, Fixture};
use crate::suno::order;
use crate::wire::{Reply, Server};

pub(crate) fn adapter(base_url: &str) -> Mureka {
    let http = Http::new(base_url, Timeouts::default()).expect("clients for this machine");
    Mureka::new(MurekaSettings::new(base_url, "secret-key"), http)
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

/// The order whose answer a fixture is.
fn order_of(fixture: &Fixture) -> Order {
    match fixture.about("endpoint") {
        "POST /v1/lyrics/generate" => Order { prompt: Some("a harbour".into()), ..order(TaskKind::Lyrics) },
        "POST /v1/song/stem" => work(Work::Stems { of: clip() }),
        _ => wish("a calm folk song"),
    }
}

/// Endpoints that nothing is ordered at.
fn is_foreign(fixture: &Fixture) -> bool {
    ["response_lyrics_extend.json", "response_billing.json"].contains(&&*fixture.name)
}

async fn understood(fixture: &Fixture) -> Result<News, Failure> {
    let server = Server::start(Reply::new(fixture.http_status(), fixture.body.clone()));
    let (mureka, order) = (adapter(&server.url), order_of(fixture));
    if fixture.about("what") == "status" {
        let endpoint = fixture.about("endpoint");
        let (_, task) = endpoint.rsplit_once('/').expect("a poll names its task");
        let news = mureka.poll(&order, task).await;
        assert_eq!(server.asked()[0].line, endpoint);
        return news;
    }
    match mureka.submit(&order, REPLY_TO).await? {
        Submitted::Task(taken) => {
            assert_eq!(taken.task, "104729583616001");
            Ok(News::Working)
        }
        Submitted::Done(news) => Ok(news),
    }
}

/// In one word, what the index says should come of it.
fn expected(fixture: &Fixture) -> &str {
    match (fixture.about("error_class"), fixture.about("state")) {
        ("", "succeeded") => "complete",
        ("", "streaming") => "text",
        ("", "") if fixture.name == "response_lyrics.json" => "lyrics",
        ("", "") if fixture.name == "response_stem.json" => "made",
        ("", _) => "working",
        (class, _) => class,
    }
}

fn in_one_word(outcome: &Result<News, Failure>) -> &'static str {
    match outcome {
        Ok(News::Working) => "working",
        Ok(News::Clips(Stage::Text, _)) => "text",
        Ok(News::Clips(Stage::First, _)) => "first",
        Ok(News::Clips(Stage::Complete, _)) => "complete",
        Ok(News::Lyrics(_)) => "lyrics",
        Ok(News::Made(_)) => "made",
        Ok(News::Failed(failure)) | Err(failure) => failure.class.as_str(),
    }
}

#[actix_web::test]
async fn every_fixture_is_understood_as_its_index_says() {
    let fixtures = fixtures::all("mureka");
    let wanted =
        |fixture: &&Fixture| matches!(fixture.about("what"), "response" | "status") && !is_foreign(fixture);
    let (mut passed, mut wrong) = (0, Vec::new());
    for fixture in fixtures.iter().filter(wanted) {
        let outcome = understood(fixture).await;
        if let Err(failure) = &outcome {
            let maybe = fixture.http_status() >= 500;
            assert_eq!(failure.arrived == Arrived::Maybe, maybe, "{}", fixture.name);
            assert_eq!(failure.operator, matches!(fixture.http_status(), 401 | 403), "{}", fixture.name);
        }
        match (in_one_word(&outcome), expected(fixture)) {
            (is, should) if is == should => passed += 1,
            (is, should) => wrong.push(format!("{}: {is}, not {should}: {outcome:?}", fixture.name)),
        }
    }
    println!("provider  fixtures passed\nmureka    {passed} of {}", passed + wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(passed, 20, "the index has 20 answers to what is ordered and asked");
}

#[actix_web::test]
async fn a_finished_task_brings_its_songs_with_durations_and_words() {
    let Ok(News::Clips(Stage::Complete, clips)) =
        understood(&fixtures::one("mureka", "status_succeeded.json")).await
    else {
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
    let Ok(News::Lyrics(texts)) = understood(&fixtures::one("mureka", "response_lyrics.json")).await else {
        panic!("no lyrics")
    };
    assert_eq!(texts.len(), 1);
    assert_eq!(texts[0].title.as_deref(), Some("Harbour Lights"));
    assert!(texts[0].text.starts_with("[Verse]\nLanterns drift above the bay\n"));

    let archive = |name: &str, url: &str| Stem { name: name.into(), url: url.into() };
    let zip = "https://cdn.mureka.ai/cos-prod/open/stem/20260302/4411.zip";
    let made = |stems| Ok(News::Made(Made::Stems { stems }));
    let fixture = fixtures::one("mureka", "response_stem.json");
    assert_eq!(understood(&fixture).await, made(vec![archive("archive", zip)]));

    let body = json!({"zip_url": zip, "midi_zip_url": "https://cdn.mureka.ai/midi.zip"});
    let midi = archive("midi_archive", "https://cdn.mureka.ai/midi.zip");
    let outcome = submitted(work(Work::Stems { of: clip() }), &body.to_string()).await;
    assert_eq!(outcome, Ok(Submitted::Done(made(vec![archive("archive", zip), midi]).expect("made"))));
}

#[actix_web::test]
async fn orders_are_written_as_the_recorded_requests() {
    let server = Server::start(Reply::new(200, fixtures::one("mureka", "response_task_created.json").body));
    let mureka = adapter(&server.url);
    for (name, order) in recorded_orders() {
        // Texts and stems are not answered so; what was asked is all that counts here.
        let _ = mureka.submit(&order, REPLY_TO).await;
        let recorded = fixtures::one("mureka", name);
        let asked = server.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].line, recorded.about("endpoint"), "{name}");
        assert_eq!(asked[0].body, recorded.json(), "{name}");
        assert_eq!(asked[0].header("authorization"), "Bearer secret-key");
        assert_eq!(asked[0].header("content-type"), "application/json");
        assert_eq!(asked[0].header("idempotency-key"), order.key.to_string());
    }
}

/// Our orders that stand behind the recorded requests. What else is recorded is never asked for: uploaded references,
/// streams, and further words.
fn recorded_orders() -> Vec<(&'static str, Order)> {
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
        ("request_song.json", sung),
        ("request_instrumental.json", quiet),
        ("request_extend.json", extended()),
        ("request_stem.json", work(Work::Stems { of: clip() })),
        ("request_lyrics.json", Order { prompt: wish, ..order(TaskKind::Lyrics) }),
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
    assert!(refused(section(20_000, 22_999)).await.contains("at least 3000 ms"));
    assert!(refused(section(i64::MIN, i64::MAX)).await.contains("start or end"));
    for (start_ms, end_ms) in [(11_999, 30_000), (160_000, 172_951)] {
        assert!(refused(section(start_ms, end_ms)).await.contains("within 12000 ms"));
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
    assert!(refused(at(None, Some(7_999))).await.contains("not at 7999 ms"));
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
        assert_eq!(asked.header("authorization"), "Bearer secret-key");
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
    let failure =
        understood(&fixtures::one("mureka", "response_error_451_safety.json")).await.expect_err("refused");
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
    assert_eq!(fields(work(Work::Cover { of: clip() })), ["mode"]);
    let long = |model: &str| {
        let lyrics = Some("ä".repeat(4000));
        with(Order { lyrics, ..wish("x") }, |options| options.model = Some(model.into()))
    };
    assert!(fields(long("mureka-8")).is_empty());
    assert_eq!(fields(long("mureka-6")), ["lyrics"]);
    assert_eq!((able.music_calls(3), able.music_calls(5), able.lyrics_calls()), (1, 2, 2));
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
    assert!(!format!("{mureka:?}").contains("secret-key"));
}

/// What comes of a body through every door.
pub(crate) fn reads_without_panic(
    provider: &dyn Provider,
    server: &crate::wire::Script,
    orders: &[Order],
    body: &[u8],
) {
    crate::wire::block_on(async {
        for status in [200, 429] {
            server.say(status, body);
            for order in orders {
                let _ = provider.submit(order, REPLY_TO).await;
                let _ = provider.poll(order, "t").await;
            }
        }
    });
}

thread_local! {
    static MUREKA: (crate::wire::Script, Mureka) = {
        let server = crate::wire::Script::start();
        let mureka = adapter(&server.url);
        (server, mureka)
    };
}

fn all_read(body: &[u8]) {
    let lyrics = Order { prompt: Some("x".into()), ..order(TaskKind::Lyrics) };
    let orders = [wish("x"), lyrics, work(Work::Stems { of: clip() })];
    MUREKA.with(|(server, mureka)| reads_without_panic(mureka, server, &orders, body));
}

#[test]
fn a_body_at_the_limit_is_read_and_a_longer_one_refused() {
    let padded = |bytes: usize| {
        let mut body =
            br#"{"status":"succeeded","choices":[{"id":1,"url":"https://x.test/a.mp3"}]}"#.to_vec();
        body.resize(bytes, b' ');
        body
    };
    MUREKA.with(|(server, mureka)| {
        crate::wire::block_on(async {
            server.say(200, &padded(BODY_BYTES_MAX));
            assert!(matches!(mureka.poll(&wish("x"), "t").await, Ok(News::Clips(Stage::Complete, _))));
            server.say(200, &padded(BODY_BYTES_MAX + 1));
            let failure = mureka.poll(&wish("x"), "t").await.expect_err("too long");
            assert_eq!(failure.class, Class::ProviderError);
        });
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..2000)) {
        all_read(&body);
    }

    #[test]
    fn any_json_is_read_without_panic(body in crate::odd::json(&[
        "id", "status", "choices", "index", "url", "stream_url", "duration", "lyrics_sections", "lines", "text",
        "section_type", "failed_reason", "error", "message", "lyrics", "title", "zip_url", "midi_zip_url",
    ], &["succeeded", "failed", "streaming", "timeouted", "7", "https://x.test/a.mp3"])) {
        all_read(body.to_string().as_bytes());
    }

    #[test]
    fn damaged_fixtures_are_read_without_panic(body in crate::odd::damaged("mureka")) {
        all_read(&body);
    }
}
