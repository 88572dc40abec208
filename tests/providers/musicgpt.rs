//! MusicGPT's adapter against its recorded traffic.

use serde_json::{Value, json};
use songflight::id::{CallKey, SongId, TaskId, fresh};
use songflight::provider::failure::{Arrived, Class, Failure};
use songflight::provider::http::{Http, Timeouts};
use songflight::provider::musicgpt::{MusicGpt, MusicGptSettings};
use songflight::provider::{
    Clip, LyricsText, Made, Makes, MusicOptions, News, Order, Provider, SourceClip, Stage, Stem, Submitted,
    TaskKind, VocalGender, Work, unsupported,
};

use crate::conformance::{KEY, REPLY_TO, Recorded, Subject, understood};
use crate::fixtures::{self, Fixture};
use crate::wire::{Reply, Server};

const TASK: &str = "298714d2-14e4-515a-b531-bd11cc7805ae";
const FIRST: &str = "f1aa6fc4-64f6-5e04-b4c0-965abf3e5daa";
const SECOND: &str = "3712d5b0-fccd-5172-a5cf-6d1bd0b300ab";

pub(crate) fn adapter(base_url: &str) -> MusicGpt {
    let http = Http::new(base_url, Timeouts::default()).expect("clients for this machine");
    MusicGpt::new(MusicGptSettings::new(base_url, KEY), http)
}

/// Our order behind the recorded request.
fn a_sung_song() -> Order {
    let recorded = fixtures::one("musicgpt", "request_music_v2.json").json();
    let text = |key: &str| recorded[key].as_str().map(String::from);
    let options = MusicOptions {
        style_tags: vec!["indie folk".into()],
        vocal_gender: Some(VocalGender::Female),
        model: text("model"),
        ..MusicOptions::default()
    };
    Order { title: text("title"), prompt: text("prompt"), lyrics: text("lyrics"), options, ..a_song() }
}

pub(crate) const SUBJECT: Subject = Subject {
    name: "musicgpt",
    adapter: |url, _| std::sync::Arc::new(adapter(&format!("{url}/api/public"))),
    order: |fixture| {
        let lyrics = fixture.about("endpoint").ends_with("prompt_to_lyrics");
        Order { work: if lyrics { Work::Lyrics } else { Work::Generate }, ..a_song() }
    },
    expected,
    requests: || vec![Recorded::exactly("request_music_v2.json", a_sung_song())],
    foreign: &[
        ("request_music_v1", "songs are ordered by version 2"),
        ("request_music_instrumental", "songs are ordered by version 2"),
        ("status_single_conversion", "asked for by the id of a clip; tasks are asked for by their own"),
    ],
    alarms: &["response_error_401.json", "response_error_404_conversion.json"],
    doubtful: &[],
};

fn reader() -> MusicGpt {
    adapter("http://127.0.0.1:1")
}

pub(crate) fn order(work: Work) -> Order {
    Order {
        key: CallKey { task: TaskId(fresh()), call: 0, attempt: 0 },
        work,
        title: None,
        prompt: None,
        lyrics: None,
        options: MusicOptions::default(),
        variants: 2,
    }
}

pub(crate) fn a_song() -> Order {
    Order { prompt: Some("calm folk song".into()), ..order(Work::Generate) }
}

pub(crate) fn source(audio_url: &str) -> SourceClip {
    SourceClip {
        song: SongId(fresh()),
        variant_number: 1,
        provider: "musicgpt".into(),
        provider_task: Some(TASK.into()),
        clip_id: Some(FIRST.into()),
        audio_url: Some(audio_url.into()),
        duration_ms: Some(142_600),
        model: Some("v7".into()),
        title: Some("Harbour Lights".into()),
        lyrics: Some("[Verse]\nLanterns".into()),
        style_tags: vec!["folk".into()],
        instrumental: false,
    }
}

/// An order of every kind that is made.
pub(crate) fn of_every_kind(audio_url: &str) -> Vec<Order> {
    let of = || source(audio_url);
    let works = [
        Work::Lyrics,
        Work::Generate,
        Work::Extend { of: of(), continue_at_ms: Some(35_000) },
        Work::ReplaceSection { of: of(), start_ms: 12_500, end_ms: 20_000 },
        Work::Cover { of: of() },
        Work::Stems { of: of() },
    ];
    works.into_iter().map(|work| Order { work, ..a_song() }).collect()
}

fn news(kind: TaskKind, body: Value) -> News {
    reader().read(kind, body.to_string().as_bytes()).expect("a webhook").news
}

fn recorded(name: &str) -> News {
    news(TaskKind::Generate, fixtures::one("musicgpt", name).json())
}

// --- what is recorded -------------------------------------------------------------------------

/// In one word, what should come of a fixture. The index says it for errors; what else is meant by one asset
/// alone is our reading of `musicgpt.md` section 4.
fn expected(fixture: &Fixture) -> &str {
    match (fixture.name.as_str(), fixture.about("state"), fixture.about("error_class")) {
        ("webhook_album_cover.json", ..) => "text",
        ("webhook_music_ai_1.json" | "webhook_music_ai_2.json", ..) => "first",
        // One clip alone, as its manual has it; or one alone that failed, while the other may live.
        ("webhook_documented_shape.json" | "webhook_failed.json", ..) => "first",
        ("webhook_lyrics_timestamped_1.json", ..) => "working",
        ("response_prompt_to_lyrics.json", ..) | (_, "COMPLETED", _) => "complete",
        (_, _, "") => "working",
        (.., class) => class,
    }
}

/// What a song has heard so far: its clips, and whether its call would have ended.
#[derive(Default)]
struct Heard {
    clips: Vec<Clip>,
    complete: bool,
}

impl Heard {
    fn hear(&mut self, news: News) {
        let News::Clips(stage, clips) = news else { return };
        self.complete |= stage == Stage::Complete;
        for clip in clips {
            match self.clips.iter_mut().find(|known| known.clip_id == clip.clip_id) {
                Some(known) if clip.finished || clip.audio_url.is_some() => *known = clip,
                Some(_) => {}
                None => self.clips.push(clip),
            }
        }
    }

    fn ended(&self) -> bool {
        self.complete || (self.clips.len() == 2 && self.clips.iter().all(|clip| clip.finished))
    }
}

async fn told(fixture: &Fixture) -> News {
    let server = Server::start(Reply::new(200, fixture.body.clone()));
    let musicgpt = (SUBJECT.adapter)(&server.url, fixture);
    let outcome = understood(fixture, &a_song(), &musicgpt, &fixture.body).await;
    outcome.expect("a body for songs").expect("no error")
}

#[actix_web::test]
async fn the_recorded_sequences_end_with_both_clips_told() {
    let sequences = fixtures::one("musicgpt", "sequences.json").json();
    for (name, files) in sequences.as_object().expect("an object of lists") {
        let mut heard = Heard::default();
        for (nth, file) in files.as_array().expect("a list").iter().enumerate() {
            let fixture = fixtures::one("musicgpt", file.as_str().expect("a name"));
            assert!(!heard.ended(), "{name}: over before {}", fixture.name);
            assert_eq!(nth == 0, fixture.about("what") == "response", "{name}");
            heard.hear(told(&fixture).await);
        }
        assert!(heard.ended(), "{name}: {:?}", heard.clips);
        let playable = heard.clips.iter().filter(|clip| clip.audio_url.is_some()).count();
        assert_eq!(playable, if name == "half failed" { 1 } else { 2 }, "{name}");
    }
}

#[actix_web::test]
async fn an_accepted_order_tells_its_clips() {
    let server = Server::start(Reply::new(200, fixtures::one("musicgpt", "response_accepted.json").body));
    let submitted = adapter(&server.url).submit(&a_sung_song(), REPLY_TO).await.expect("a task");
    let Submitted::Task(taken) = submitted else { panic!("{submitted:?}") };
    assert_eq!((taken.task.as_str(), taken.clip_ids), (TASK, vec![FIRST.into(), SECOND.into()]));
}

/// What was recorded of version 1 is meant by the same fields.
#[actix_web::test]
async fn an_instrumental_is_ordered_with_its_switch() {
    let server = Server::start(Reply::new(200, fixtures::one("musicgpt", "response_accepted.json").body));
    let recorded = fixtures::one("musicgpt", "request_music_instrumental.json").json();
    let options =
        MusicOptions { style_tags: vec!["lo-fi".into()], instrumental: true, ..MusicOptions::default() };
    let quiet = Order { prompt: recorded["prompt"].as_str().map(String::from), options, ..a_song() };
    adapter(&server.url).submit(&quiet, REPLY_TO).await.expect("a task");
    let body = server.asked().remove(0).body;
    for (key, value) in recorded.as_object().expect("an object") {
        assert_eq!(&body[key], value, "{key}");
    }
    assert_eq!((&body["model"], &body["lyrics_timestamps"]), (&json!("v7"), &json!(false)));
}

// --- orders -----------------------------------------------------------------------------------

#[actix_web::test]
async fn lyrics_are_asked_for_once_and_answered_at_once() {
    let server =
        Server::start(Reply::new(200, fixtures::one("musicgpt", "response_prompt_to_lyrics.json").body));
    let order = Order { prompt: Some("harbour & rain ".repeat(40)), ..order(Work::Lyrics) };
    let submitted = adapter(&server.url).submit(&order, REPLY_TO).await.expect("a text");
    let Submitted::Done(News::Lyrics(texts)) = submitted else { panic!("{submitted:?}") };
    assert!(texts.len() == 1 && texts[0].text.starts_with("[Verse]\nSalt and starlight"));
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    let query = asked[0].line.strip_prefix("GET /v1/prompt_to_lyrics?prompt=").expect("a GET");
    assert!(query.starts_with("harbour+%26+rain+harbour") && query.ends_with("+%26"), "{query}");
    let prompt = query.replace("%26", "&");
    assert!((265..=280).contains(&prompt.len()), "shortened at a word: {}", prompt.len());
}

#[actix_web::test]
async fn lyrics_that_broke_off_may_have_been_paid_for() {
    let failed = async |reply: Reply| {
        let server = Server::start(reply);
        let order = Order { work: Work::Lyrics, ..a_song() };
        let failure = adapter(&server.url).submit(&order, REPLY_TO).await.expect_err("a failure");
        assert_eq!(server.asked().len(), 1, "nothing is sent twice");
        (failure.class, failure.arrived)
    };
    assert_eq!(failed(Reply::new(502, "<html>")).await, (Class::ProviderError, Arrived::Maybe));
    assert_eq!(failed(Reply::new(200, "<html>")).await, (Class::ProviderError, Arrived::Maybe));
    assert_eq!(failed(Reply::new(200, r#"{"success":true}"#)).await, (Class::ProviderError, Arrived::Maybe));
    let refused = Reply::new(200, r#"{"success":false,"message":"try again later"}"#);
    assert_eq!(failed(refused).await, (Class::ProviderError, Arrived::No));
}

#[actix_web::test]
async fn work_on_a_clip_is_ordered_with_a_form() {
    let server = Server::start(Reply::new(200, fixtures::one("musicgpt", "response_accepted.json").body));
    let musicgpt = adapter(&server.url);
    let mut lines = Vec::new();
    for order in of_every_kind("https://x.test/a.mp3") {
        if matches!(order.work, Work::Lyrics) {
            continue;
        }
        let Ok(Submitted::Task(taken)) = musicgpt.submit(&order, REPLY_TO).await else { panic!("no task") };
        let clips = if order.kind().makes() == Makes::Music { 2 } else { 0 };
        assert_eq!(taken.clip_ids.len(), clips, "{:?}", order.kind());
        let asked = server.asked().remove(0);
        let form = asked.header("content-type").starts_with("multipart/form-data; boundary=");
        assert_eq!(form, order.kind() != TaskKind::Generate);
        lines.push(asked.line);
    }
    let paths = ["/v2/MusicAI", "/v1/extend", "/v1/inpaint", "/v1/Remix", "/v1/Extraction"];
    assert_eq!(lines, paths.map(|path| format!("POST {path}")));
}

#[actix_web::test]
async fn of_a_section_only_as_many_clips_are_awaited_as_were_ordered() {
    let server = Server::start(Reply::new(200, fixtures::one("musicgpt", "response_accepted.json").body));
    let of = source("https://x.test/a.mp3");
    let work = Work::ReplaceSection { of, start_ms: 0, end_ms: 9_000 };
    let order = Order { variants: 1, ..order(work) };
    let Ok(Submitted::Task(taken)) = adapter(&server.url).submit(&order, REPLY_TO).await else { panic!() };
    assert_eq!(taken.clip_ids, [FIRST]);
}

#[actix_web::test]
async fn what_cannot_be_ordered_is_refused_before_anything_is_sent() {
    let server = Server::start(Reply::new(200, "{}"));
    let nowhere = || SourceClip { audio_url: None, ..source("") };
    let endless = || SourceClip { duration_ms: None, ..source("https://x.test/a.mp3") };
    let long = Some("la ".repeat(1_001));
    for order in [
        order(Work::Lyrics),
        order(Work::Generate),
        order(Work::Cover { of: nowhere() }),
        order(Work::Stems { of: nowhere() }),
        order(Work::Extend { of: endless(), continue_at_ms: None }),
        Order { lyrics: long.clone(), ..order(Work::Extend { of: endless(), continue_at_ms: Some(1) }) },
        Order { lyrics: long, ..order(Work::Cover { of: endless() }) },
        order(Work::Video { of: endless() }),
        order(Work::Merge { of: vec![endless()] }),
    ] {
        let failure = adapter(&server.url).submit(&order, REPLY_TO).await.expect_err("not possible");
        assert_eq!((failure.class, failure.arrived), (Class::InvalidInput, Arrived::No), "{:?}", order.work);
    }
    assert!(server.asked().is_empty());
}

#[test]
fn what_musicgpt_cannot_do_is_told_by_field() {
    let musicgpt = reader();
    let able = musicgpt.capabilities();
    assert_eq!((able.music_calls(4), able.lyrics_calls(), able.variants), (2, 2, 2));
    let fields =
        |order: &Order| unsupported(able, order).iter().map(|refused| refused.field).collect::<Vec<_>>();
    for order in of_every_kind("https://x.test/a.mp3") {
        assert!(fields(&order).is_empty(), "{:?}", order.kind());
    }
    let asked = MusicOptions {
        negative_tags: vec!["drums".into()],
        vocal_gender: Some(VocalGender::Male),
        weirdness: Some(0.5),
        reference_audio_url: Some("https://x.test/a.mp3".into()),
        persona_id: Some("p".into()),
        model: Some("v5".into()),
        ..MusicOptions::default()
    };
    let refused = fields(&Order { options: asked, ..a_song() });
    assert_eq!(refused, ["negative_tags", "reference_audio_url", "persona_id", "weirdness", "model"]);
    assert_eq!(fields(&Order { prompt: Some("a".repeat(1001)), ..a_song() }), ["prompt"]);
    assert_eq!(fields(&Order { lyrics: Some("a".repeat(5001)), ..a_song() }), ["lyrics"]);
    assert_eq!(
        fields(&order(Work::Persona { of: source(""), name: "n".into(), description: "d".into() })),
        ["provider"]
    );
    let endless = SourceClip { duration_ms: None, ..source("https://x.test/a.mp3") };
    assert_eq!(fields(&order(Work::Extend { of: endless, continue_at_ms: None })), ["continue_at_s"]);
}

#[test]
fn a_prompt_that_would_be_cut_is_refused() {
    let fields = |order: &Order| {
        unsupported(reader().capabilities(), order).iter().map(|refused| refused.field).collect::<Vec<_>>()
    };
    let long = |order: Order, chars: usize| Order { prompt: Some("p".repeat(chars)), ..order };
    let sung = Order { lyrics: Some("la".into()), ..a_song() };
    assert!(fields(&long(sung.clone(), 1000)).is_empty());
    assert_eq!(fields(&long(sung, 1001)), ["prompt"]);

    // What is asked of a clip is one text, without the style that it has anyway.
    let of = SourceClip { style_tags: vec!["folk".into()], ..source("https://x.test/a.mp3") };
    let cover = |tag: &str, chars| {
        let mut cover = long(order(Work::Cover { of: of.clone() }), chars);
        cover.options.style_tags = vec![tag.into()];
        cover
    };
    assert!(fields(&cover("folk", 280)).is_empty() && fields(&cover("punk", 274)).is_empty());
    assert_eq!(
        (fields(&cover("folk", 281)), fields(&cover("punk", 275))),
        (vec!["prompt"], vec!["style_tags"])
    );
}

#[test]
fn the_key_is_never_printed_and_no_file_is_named_from_an_id() {
    assert!(!format!("{:?}", reader()).contains(KEY));
    assert_eq!(reader().audio_from_clip_id(FIRST), None);
}

// --- polls ------------------------------------------------------------------------------------

#[actix_web::test]
async fn a_task_that_is_not_found_yet_is_no_failure() {
    let server =
        Server::start(Reply::new(404, fixtures::one("musicgpt", "response_error_404_conversion.json").body));
    assert_eq!(adapter(&server.url).poll(&a_song(), TASK).await, Ok(News::Working));
    // Another 404 says that the address is wrong.
    let server = Server::start(Reply::new(404, "<html>nothing here</html>"));
    let failure = adapter(&server.url).poll(&a_song(), TASK).await.expect_err("a wrong address");
    assert!(failure.operator && failure.class == Class::ProviderError);
}

#[actix_web::test]
async fn polls_ask_by_the_kind_of_their_order() {
    let server = Server::start(Reply::new(200, fixtures::one("musicgpt", "status_in_queue.json").body));
    let mut kinds = Vec::new();
    for order in of_every_kind("https://x.test/a.mp3") {
        assert_eq!(
            adapter(&format!("{}/musicgpt/", server.url)).poll(&order, "a b&c").await,
            Ok(News::Working)
        );
        let line = server.asked().remove(0).line;
        let kind = line.strip_prefix("GET /musicgpt/v1/byId?conversionType=").expect("a poll");
        kinds.push(kind.strip_suffix("&task_id=a+b%26c").expect("the task").to_owned());
    }
    assert_eq!(kinds, ["LYRICS_GENERATOR", "MUSIC_AI", "EXTEND", "INPAINT", "REMIX", "STEMS_SEPARATION"]);
}

async fn polled(body: Value) -> Result<News, Failure> {
    let server = Server::start(Reply::new(200, body.to_string()));
    adapter(&server.url).poll(&a_song(), TASK).await
}

#[actix_web::test]
async fn of_a_completed_task_what_is_there_is_used() {
    let mut body = fixtures::one("musicgpt", "status_completed.json").json();
    body["conversion"]["conversion_path_2"] = json!("");
    body["conversion"]["conversion_path_wav_2"] = Value::Null;
    let Ok(News::Clips(Stage::Complete, clips)) = polled(body.clone()).await else { panic!("not complete") };
    let playable: Vec<bool> = clips.iter().map(|clip| clip.audio_url.is_some()).collect();
    assert_eq!(playable, [true, false]);
    assert_eq!((clips[0].duration_ms, clips[0].title.as_deref()), (Some(142_600), Some("Harbour Lights")));
    assert!(clips[0].lyrics.as_deref().is_some_and(|words| words.starts_with("[Verse]\nLanterns")));

    // Nothing is there yet: it was paid for, so it is waited for.
    body["conversion"]["conversion_path_1"] = json!("");
    body["conversion"]["conversion_path_wav_1"] = Value::Null;
    assert!(matches!(polled(body).await, Ok(News::Clips(Stage::Text, clips)) if !clips[0].finished));
}

#[actix_web::test]
async fn an_answer_about_one_clip_tells_of_that_one() {
    let news = polled(fixtures::one("musicgpt", "status_single_conversion.json").json()).await;
    let Ok(News::Clips(Stage::First, clips)) = news else { panic!("{news:?}") };
    assert!(matches!(&clips[..], [Clip { finished: true, failed: false, audio_url: Some(_), .. }]));
}

#[actix_web::test]
async fn what_was_made_before_a_task_failed_is_kept() {
    let mut body = fixtures::one("musicgpt", "status_failed.json").json();
    body["conversion"]["conversion_path_1"] = json!("https://x.test/a.mp3");
    let Ok(News::Clips(Stage::Complete, clips)) = polled(body).await else { panic!("not complete") };
    assert_eq!(clips.iter().map(|clip| clip.failed).collect::<Vec<_>>(), [false, true]);
}

#[actix_web::test]
async fn conversions_in_a_list_are_one_task() {
    let one =
        |id: &str, status: &str, url: &str| json!({"conversion_id": id, "status": status, "audio_url": url});
    let list = |both: [Value; 2]| polled(json!({"success": true, "data": {"conversion": both}}));
    let (a, b) = ("https://x.test/a.mp3", "https://x.test/b.mp3");
    let done = list([one("1", "COMPLETED", a), one("2", "COMPLETED", b)]).await;
    assert!(matches!(done, Ok(News::Clips(Stage::Complete, clips)) if clips.len() == 2));
    let half = list([one("1", "COMPLETED", a), one("2", "PROCESSING", "")]).await;
    assert!(matches!(half, Ok(News::Clips(Stage::First, clips)) if clips.len() == 1));
    let lost = list([one("1", "FAILED", ""), one("2", "ERROR", "")]).await;
    assert!(matches!(lost, Ok(News::Failed(failure)) if failure.code.as_deref() == Some("FAILED")));
    assert_eq!(list([one("1", "IN_QUEUE", ""), one("2", "IN_QUEUE", "")]).await, Ok(News::Working));
}

// --- webhooks ---------------------------------------------------------------------------------

#[test]
fn a_clip_is_told_with_all_that_belongs_to_it() {
    let body = fixtures::one("musicgpt", "webhook_music_ai_1.json").body;
    let callback = reader().read(TaskKind::Generate, &body).expect("a webhook");
    assert_eq!(callback.provider_task.as_deref(), Some(TASK));
    let News::Clips(Stage::First, clips) = callback.news else { panic!("{:?}", callback.news) };
    let [clip] = &clips[..] else { panic!("{clips:?}") };
    assert_eq!(clip.clip_id.as_deref(), Some(FIRST));
    assert_eq!((clip.title.as_deref(), clip.duration_ms), (Some("Harbour Lights"), Some(142_600)));
    assert!(clip.audio_url.as_deref().is_some_and(|url| url.ends_with(&format!("{FIRST}.mp3"))));
    assert!(clip.image_url.is_some() && clip.finished && !clip.failed);
    assert!(clip.lyrics.as_deref().is_some_and(|words| words.starts_with("[Verse]\nLanterns")));
}

#[test]
fn a_cover_is_the_cover_of_both_clips_and_ends_neither() {
    let News::Clips(Stage::Text, clips) = recorded("webhook_album_cover.json") else { panic!("no cover") };
    let ids: Vec<_> = clips.iter().filter_map(|clip| clip.clip_id.as_deref()).collect();
    assert_eq!(ids, [FIRST, SECOND]);
    assert!(clips.iter().all(|clip| clip.image_url.is_some() && !clip.finished && clip.audio_url.is_none()));
    for key in ["image_url", "album_art"] {
        let body = json!({"conversion_task_id": "t", "conversion_id_1": "a", key: "https://x.test/i.png"});
        let callback = reader().read(TaskKind::Generate, body.to_string().as_bytes()).expect("a webhook");
        assert_eq!(callback.provider_task.as_deref(), Some("t"), "{key}");
        assert!(matches!(callback.news, News::Clips(Stage::Text, clips) if clips.len() == 1), "{key}");
    }
}

#[test]
fn a_song_does_not_fail_with_its_cover_or_its_timed_words() {
    for name in ["webhook_album_cover.json", "webhook_lyrics_timestamped_1.json"] {
        let mut body = fixtures::one("musicgpt", name).json();
        body["success"] = json!(false);
        assert_eq!(news(TaskKind::Generate, body), News::Working, "{name}");
    }
}

#[test]
fn a_failure_of_one_conversion_leaves_the_other_alive() {
    let News::Clips(Stage::First, clips) = recorded("webhook_failed.json") else { panic!("not one clip") };
    let failed = Clip { clip_id: Some(SECOND.into()), failed: true, finished: true, ..Clip::default() };
    assert_eq!(clips, [failed]);
    let whole = json!({"success": false, "task_id": "t", "error": "Prompt violates the content policy"});
    let News::Failed(failure) = news(TaskKind::Generate, whole) else { panic!("not failed") };
    assert_eq!(failure.class, Class::Moderation);
    assert_eq!(failure.message, "Prompt violates the content policy");
    let by_status = json!({"task_id": "t", "status": "error", "message": "worker lost"});
    assert!(matches!(news(TaskKind::Generate, by_status),
        News::Failed(failure) if failure.code.as_deref() == Some("ERROR") && failure.message == "worker lost"));
}

#[test]
fn the_manuals_form_is_known_by_its_file_when_it_names_no_conversion() {
    let mut body = fixtures::one("musicgpt", "webhook_documented_shape.json").json();
    body.as_object_mut().expect("an object").remove("conversion_id");
    let News::Clips(Stage::First, clips) = news(TaskKind::Generate, body) else { panic!("not one clip") };
    assert!(clips[0].clip_id.as_deref() == Some(FIRST) && clips[0].finished);
}

#[test]
fn a_webhook_with_the_whole_conversion_completes_the_task() {
    let whole = fixtures::one("musicgpt", "status_completed.json").json();
    let body = json!({"task_id": TASK, "status": "COMPLETED", "conversion": whole["conversion"]});
    assert!(matches!(news(TaskKind::Generate, body),
        News::Clips(Stage::Complete, clips) if clips.len() == 2 && clips.iter().all(|clip| clip.finished)));
}

#[test]
fn a_stream_can_be_shown_and_ends_nothing() {
    for key in ["streaming_url", "stream_url"] {
        let body = json!({"success": true, "task_id": "t", "conversion_id": "a", key: "https://x.test/s"});
        let News::Clips(Stage::Text, clips) = news(TaskKind::Generate, body) else { panic!("{key}") };
        assert!(clips[0].stream_url.is_some() && clips[0].audio_url.is_none() && !clips[0].finished);
    }
    let nobodys = json!({"success": true, "task_id": "t", "streaming_url": "https://x.test/s"});
    assert_eq!(news(TaskKind::Generate, nobodys), News::Working);
}

#[test]
fn tracks_are_told_in_a_text_that_holds_an_object() {
    let tracks = json!({"vocals": "https://x.test/v.mp3", "keys": "https://x.test/k.mp3"}).to_string();
    let body = json!({"success": true, "task_id": "t", "conversion_id": "c", "audio_url": tracks});
    let stem = |name: &str, url: &str| Stem { name: name.into(), url: url.into() };
    let News::Made(Made::Stems { mut stems }) = news(TaskKind::Stems, body) else { panic!("no stems") };
    stems.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(stems, [stem("keyboard", "https://x.test/k.mp3"), stem("vocals", "https://x.test/v.mp3")]);
    let failed = json!({"success": false, "task_id": "t", "conversion_id": "c", "message": "no"});
    assert!(matches!(news(TaskKind::Stems, failed), News::Failed(_)));
}

#[test]
fn lyrics_are_read_wherever_they_are_asked_for() {
    let body = fixtures::one("musicgpt", "response_prompt_to_lyrics.json").json();
    let News::Lyrics(texts) = news(TaskKind::Lyrics, body) else { panic!("no lyrics") };
    assert!(matches!(&texts[..], [LyricsText { title: None, text }] if text.starts_with("[Verse]")));
}

#[test]
fn an_instrumental_has_no_lyrics() {
    let mut body = fixtures::one("musicgpt", "webhook_music_ai_1.json").json();
    body["lyrics"] = json!("[Instrumental]");
    assert!(matches!(news(TaskKind::Generate, body), News::Clips(_, clips) if clips[0].lyrics.is_none()));
}

// --- odd input --------------------------------------------------------------------------------

#[test]
fn what_is_no_webhook_is_malformed() {
    for body in ["", "null", "17", "\"text\"", "{}", "[]", "{\"hello\":1}", "<html>", "{\"task_id\":"] {
        assert!(reader().read(TaskKind::Generate, body.as_bytes()).is_err(), "{body}");
    }
    assert!(reader().read(TaskKind::Generate, "[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn odd_values_are_left_out_and_the_rest_is_read() {
    let body = json!({
        "success": "true", "subtype": "music_ai", "task_id": 17, "conversion_id": "a", "conversion_path": null,
        "audio_url": "https://x.test/a.mp3", "conversion_duration": "61.5", "title": ["x"], "lyrics": null,
        "album_cover_path": 3, "tomorrow": {"new": [1, 2]}
    });
    let callback = reader().read(TaskKind::Generate, body.to_string().as_bytes()).expect("a webhook");
    assert_eq!(callback.provider_task.as_deref(), Some("17"));
    let expected = Clip {
        clip_id: Some("a".into()),
        audio_url: Some("https://x.test/a.mp3".into()),
        duration_ms: Some(61_500),
        finished: true,
        ..Clip::default()
    };
    assert_eq!(callback.news, News::Clips(Stage::First, vec![expected]));
}
