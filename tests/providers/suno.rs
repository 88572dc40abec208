//! What only Suno's adapter does; what all do is in `conformance`.

mod further;
mod recorded;

use serde_json::{Value, json};
use songflight::id::{CallKey, SongId, TaskId, fresh};
use songflight::provider::failure::{Arrived, Class, ModerationReason};
use songflight::provider::gate::Gate;
use songflight::provider::http::{Http, Timeouts};
use songflight::provider::suno::{Dialect, Suno, SunoSettings};
use songflight::provider::{
    Capabilities, Member, MusicOptions, News, Order, Provider, Providers, SourceClip, Stage, TaskKind,
    VocalGender, Work, unsupported,
};

use crate::conformance::{KEY, REPLY_TO};
use crate::fixtures;
use crate::wire::{Reply, Server};
pub(crate) use recorded::SUBJECT;

pub(crate) fn adapter(base_url: &str, dialect: Dialect, timeouts: Timeouts) -> Suno {
    let settings = SunoSettings { dialect, ..SunoSettings::new(base_url, KEY) };
    Suno::new(settings, Http::new(base_url, timeouts).expect("clients for this machine"))
}

fn with_settings(settings: SunoSettings) -> Suno {
    let http = Http::new(&settings.base_url, Timeouts::default()).expect("clients for this machine");
    Suno::new(settings, http)
}

fn reader(dialect: Dialect) -> Suno {
    adapter("http://127.0.0.1:1", dialect, Timeouts::default())
}

pub(crate) fn order(kind: TaskKind) -> Order {
    let of = source();
    let work = match kind {
        TaskKind::Lyrics => Work::Lyrics,
        TaskKind::Generate => Work::Generate,
        TaskKind::Extend => Work::Extend { of, continue_at_ms: None },
        TaskKind::ReplaceSection => Work::ReplaceSection { of, start_ms: 45_500, end_ms: 62_250 },
        TaskKind::Merge => Work::Merge { of: vec![of.clone(), of] },
        TaskKind::Cover => Work::Cover { of },
        TaskKind::Stems => Work::Stems { of },
        TaskKind::Persona => Work::Persona {
            of,
            name: "Harbour voice".into(),
            description: "soft, close-miked alto over acoustic guitar".into(),
        },
        TaskKind::Video => Work::Video { of },
    };
    an_order(work)
}

/// The first of the clips of the recorded song.
fn source() -> SourceClip {
    SourceClip {
        song: SongId(fresh()),
        variant_number: 1,
        provider: "suno".into(),
        provider_task: Some("d1d3faff44524bb6979d8dcf6677e23a".into()),
        clip_id: Some("7195e3f9-59f7-5248-99f5-667ca6c39580".into()),
        audio_url: Some("https://files.example.com/demo.mp3".into()),
        duration_ms: Some(187_320),
        model: Some("V4_5".into()),
        title: Some("Harbour Lights".into()),
        lyrics: fixtures::one("suno", "request_replace_section.json").json()["fullLyrics"]
            .as_str()
            .map(String::from),
        style_tags: vec!["indie folk".into()],
        instrumental: false,
    }
}

fn an_order(work: Work) -> Order {
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

fn with(mut order: Order, change: impl FnOnce(&mut MusicOptions)) -> Order {
    change(&mut order.options);
    order
}

/// The body that is sent for an order.
async fn body_of(order: Order) -> Value {
    let server = Server::start(Reply::new(200, r#"{"code":200,"data":{"taskId":"t1","personaId":"p1"}}"#));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    suno.submit(&order, REPLY_TO).await.expect("a task id");
    server.asked().remove(0).body
}

#[actix_web::test]
async fn what_custom_mode_needs_is_filled_from_the_words() {
    let lyrics = Some("[Verse]\nLanterns drift above the bay,\nEvery wave".into());
    let body = body_of(Order { lyrics, ..order(TaskKind::Generate) }).await;
    assert_eq!(body["customMode"], true);
    assert_eq!(body["title"], "Lanterns drift above the bay");
    assert_eq!(body["style"], "pop");
    assert_eq!(body["model"], "V5");
}

#[actix_web::test]
async fn a_wish_is_never_sung_word_for_word() {
    let wish = Order {
        title: Some("Harbour".into()),
        prompt: Some("[Verse] a calm song".into()),
        ..order(TaskKind::Generate)
    };
    let wish = with(wish, |options| options.style_tags = vec!["folk".into(), "slow".into()]);
    let body = body_of(wish.clone()).await;
    let expected = json!({
        "customMode": false, "instrumental": false, "model": "V5", "callBackUrl": REPLY_TO,
        "prompt": "Verse a calm song, folk, slow"
    });
    assert_eq!(body, expected);

    let quiet = body_of(with(wish.clone(), |options| options.instrumental = true)).await;
    assert_eq!((&quiet["customMode"], &quiet["prompt"]), (&json!(true), &Value::Null));
    assert_eq!(quiet["style"], "folk, slow, [Verse] a calm song");

    let long = "word ".repeat(99);
    let body = body_of(Order {
        prompt: Some(long.clone()),
        ..with(wish, |options| options.style_tags = vec!["waltz".into()])
    })
    .await;
    assert_eq!(body["prompt"], long.trim(), "no room for the tags");
}

#[actix_web::test]
async fn long_prompts_for_lyrics_are_shortened_at_a_word() {
    let body = body_of(Order { prompt: Some("harbour ".repeat(60)), ..order(TaskKind::Lyrics) }).await;
    let prompt = body["prompt"].as_str().expect("a prompt");
    assert!(prompt.len() <= 200 && prompt.ends_with("harbour"), "{prompt}");
}

#[actix_web::test]
async fn a_file_that_is_lost_is_the_users_matter_only_where_they_named_one() {
    let told = r#"{"code":200,"data":{"status":"GENERATE_AUDIO_FAILED","errorCode":451,"errorMessage":"x"}}"#;
    let server = Server::start(Reply::new(200, told));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    let class = async |order: &Order| match suno.poll(order, "t1").await {
        Ok(News::Failed(failure)) => failure.class,
        other => panic!("{other:?}"),
    };
    let plain = Order { prompt: Some("a calm song".into()), ..order(TaskKind::Generate) };
    assert_eq!(class(&plain).await, Class::ProviderError);
    let url = Some(String::from("https://x.test/a.mp3"));
    let after = with(plain, |options| options.reference_audio_url.clone_from(&url));
    assert_eq!(class(&after).await, Class::InvalidInput);
    assert_eq!(class(&order(TaskKind::Cover)).await, Class::InvalidInput);
}

#[actix_web::test]
async fn a_reference_recording_is_covered() {
    let server = Server::start(Reply::new(200, r#"{"code":200,"data":{"taskId":"t1"}}"#));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    let url = Some(String::from("https://x.test/a.mp3"));
    let order = Order { lyrics: Some("la la".into()), ..order(TaskKind::Generate) };
    let order = with(order, |options| options.reference_audio_url.clone_from(&url));
    suno.submit(&order, REPLY_TO).await.expect("a task id");
    let asked = server.asked().remove(0);
    assert_eq!(asked.line, "POST /api/v1/generate/upload-cover");
    assert_eq!(asked.body["uploadUrl"].as_str(), url.as_deref());
}

#[actix_web::test]
async fn an_order_without_words_is_refused_before_anything_is_sent() {
    let server = Server::start(Reply::new(200, "{}"));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    for kind in [TaskKind::Lyrics, TaskKind::Generate] {
        let failure = suno.submit(&order(kind), REPLY_TO).await.expect_err("no words");
        assert_eq!((failure.class, failure.arrived), (Class::InvalidInput, Arrived::No));
    }
    assert!(server.asked().is_empty());
}

#[actix_web::test]
async fn polls_name_the_task_whatever_is_in_its_id() {
    let server = Server::start(Reply::new(200, fixtures::one("suno", "status_pending.json").body));
    let suno = adapter(&format!("{}/suno/", server.url), Dialect::Sunoapi, Timeouts::default());
    assert_eq!(suno.poll(&order(TaskKind::Generate), "a b&c=ä").await, Ok(News::Working));
    let asked = server.asked().remove(0);
    assert_eq!(asked.line, "GET /suno/api/v1/generate/record-info?taskId=a+b%26c%3D%C3%A4");
    assert_eq!(asked.header("authorization"), format!("Bearer {KEY}"));
}

fn news(kind: TaskKind, body: Value) -> News {
    let body = serde_json::to_vec(&body).expect("JSON");
    reader(Dialect::Sunoapi).read(kind, &body).expect("a callback").news
}

#[test]
fn the_whole_of_a_complete_callback_is_kept() {
    let body = fixtures::one("suno", "callback_complete.json").body;
    let callback = reader(Dialect::Sunoapi).read(TaskKind::Generate, &body).expect("a callback");
    assert_eq!(callback.provider_task.as_deref(), Some("d1d3faff44524bb6979d8dcf6677e23a"));
    let News::Clips(Stage::Complete, clips) = callback.news else { panic!("{:?}", callback.news) };
    assert_eq!(clips.len(), 2);
    let clip = &clips[0];
    let base = "https://musicfile.api.box/NzE5NWUzZjktNTlmNy01MjQ4LTk5ZjUtNjY3Y2E2YzM5NTgw";
    assert_eq!(clip.clip_id.as_deref(), Some("7195e3f9-59f7-5248-99f5-667ca6c39580"));
    assert_eq!(clip.title.as_deref(), Some("Harbour Lights"));
    assert_eq!(clip.duration_ms, Some(187_320));
    assert_eq!(clip.audio_url, Some(format!("{base}.mp3")));
    assert_eq!(clip.stream_url.as_deref(), Some(base));
    assert_eq!(clip.image_url, Some(format!("{base}.jpeg")));
    assert!(clip.lyrics.as_deref().is_some_and(|words| words.starts_with("[Verse]\nLanterns")));
}

#[test]
fn an_instrumental_has_no_lyrics() {
    let body = fixtures::one("suno", "callback_complete_instrumental.json").json();
    let News::Clips(_, clips) = news(TaskKind::Generate, body) else { panic!("no clips") };
    assert!(clips.iter().all(|clip| clip.lyrics.is_none() && clip.audio_url.is_some()));
}

#[test]
fn odd_wrappings_of_callbacks_are_understood() {
    let clip = json!({"audioId": "a-1", "audio_url": "https://x.test/a.mp3", "tags": ["a", "b"],
        "lyric": "la", "duration": "61.5"});
    for body in [
        json!({"code": "200", "callbackType": "COMPLETE", "taskId": "t", "data": [clip]}),
        json!({"callback_type": "complete", "task_id": "t", "data": clip}),
        json!({"code": 200, "data": {"callbackType": "Complete", "taskId": "t", "clips": [clip]}}),
        json!({"callbackType": "complete", "taskId": "t", "sunoData": [clip, clip]}),
        json!({"code": 200, "data": {"task_id": "t", "response": {"sunoData": [clip]}}}),
        json!({"code": 200, "data": {"taskId": "t", "status": "SUCCESS",
            "response": json!({"sunoData": [clip]}).to_string()}}),
        json!({"callbackType": "complete", "data": {"response": {"taskId": "t", "tracks": [clip]}}}),
        json!({"code": 200, "data": {"task_id": "t", "data": [clip]}}),
    ] {
        let bytes = serde_json::to_vec(&body).expect("JSON");
        let callback = reader(Dialect::Sunoapi).read(TaskKind::Generate, &bytes).expect("a callback");
        assert_eq!(callback.provider_task.as_deref(), Some("t"), "{body}");
        let News::Clips(Stage::Complete, clips) = callback.news else { panic!("{body}") };
        assert_eq!(clips.len(), 1, "{body}");
        assert_eq!(clips[0].duration_ms, Some(61_500), "{body}");
        assert_eq!(clips[0].lyrics.as_deref(), Some("la"), "{body}");
    }
}

#[test]
fn without_a_type_the_clips_tell_how_far_it_is() {
    let ready = json!({"id": "a", "audio_url": "https://x.test/a.mp3"});
    let waits = json!({"id": "b", "audio_url": "", "stream_audio_url": "https://x.test/b"});
    let broken = json!({"id": "c", "audio_url": "", "status": "error"});
    let stage = |clips: Value| match news(TaskKind::Generate, json!({"code": 200, "data": clips})) {
        News::Clips(stage, clips) => (stage, clips.iter().filter(|clip| clip.failed).count()),
        other => panic!("{other:?}"),
    };
    assert_eq!(stage(json!([waits])), (Stage::Text, 0));
    assert_eq!(stage(json!([ready, waits])), (Stage::First, 0));
    assert_eq!(stage(json!([ready])), (Stage::Complete, 0));
    assert_eq!(stage(json!([ready, broken])), (Stage::Complete, 1));
    assert_eq!(news(TaskKind::Generate, json!({"code": 200, "data": null})), News::Working);
}

#[test]
fn audio_is_another_name_of_first() {
    let body = json!({"code": 200, "data": {"callbackType": "audio", "data": [
        {"id": "a", "audio_url": "https://x.test/a.mp3"}, {"id": "b", "audio_url": "https://x.test/b.mp3"}]}});
    assert!(matches!(news(TaskKind::Generate, body), News::Clips(Stage::First, clips) if clips.len() == 2));
}

#[test]
fn a_callback_without_task_id_is_still_read() {
    let body = br#"{"code":200,"data":{"callbackType":"text","data":null}}"#;
    let callback = reader(Dialect::Sunoapi).read(TaskKind::Generate, body).expect("a callback");
    assert_eq!(callback.provider_task, None);
    assert_eq!(callback.news, News::Clips(Stage::Text, vec![]));
}

#[test]
fn failures_keep_the_providers_code_and_words_for_operators() {
    let News::Failed(failure) =
        news(TaskKind::Generate, fixtures::one("suno", "callback_error_400_moderation.json").json())
    else {
        panic!("not failed")
    };
    assert_eq!(failure.code.as_deref(), Some("400"));
    assert_eq!(failure.reason, Some(ModerationReason::ArtistReference));
    assert_eq!(failure.message, "Song Description contained artist name: the lantern men");
}

#[actix_web::test]
async fn refused_words_are_moderation_also_without_a_message() {
    let body = json!({"code": 200, "data": {"taskId": "t", "status": "SENSITIVE_WORD_ERROR"}});
    let server = Server::start(Reply::new(200, body.to_string()));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    let Ok(News::Failed(failure)) = suno.poll(&order(TaskKind::Generate), "t").await else {
        panic!("not failed")
    };
    assert_eq!(failure.class, Class::Moderation);
    assert_eq!(failure.code.as_deref(), Some("SENSITIVE_WORD_ERROR"));
}

#[test]
fn what_is_no_callback_is_malformed() {
    for body in ["", "null", "17", "\"text\"", "{}", "[]", "{\"hello\":1}", "<html>", "{\"code\":"] {
        assert!(reader(Dialect::Kie).read(TaskKind::Generate, body.as_bytes()).is_err(), "{body}");
    }
    let deep = "[".repeat(100_000);
    assert!(reader(Dialect::Kie).read(TaskKind::Lyrics, deep.as_bytes()).is_err());
}

#[test]
fn the_file_of_a_finished_clip_can_be_named_from_its_id() {
    let suno = reader(Dialect::Sunoapi);
    let id = "7195e3f9-59f7-5248-99f5-667ca6c39580";
    assert_eq!(suno.audio_from_clip_id(id), Some(format!("https://cdn1.suno.ai/{id}.mp3")));
    for id in ["", "../x", "a/b", "a b", "ä", &"a".repeat(65)] {
        assert_eq!(suno.audio_from_clip_id(id), None, "{id}");
    }
}

#[test]
fn what_suno_cannot_do_is_told_by_field() {
    let suno = reader(Dialect::Sunoapi);
    let able = suno.capabilities();
    let fields =
        |order: Order| unsupported(able, &order).into_iter().map(|refused| refused.field).collect::<Vec<_>>();
    let song = Order { prompt: Some("a".repeat(500)), ..order(TaskKind::Generate) };
    assert!(fields(song.clone()).is_empty());
    assert_eq!(fields(with(song.clone(), |options| options.model = Some("V9".into()))), ["model"]);
    assert_eq!(fields(Order { prompt: Some("a".repeat(501)), ..song.clone() }), ["prompt"]);
    assert!(fields(Order { prompt: Some("a".repeat(501)), ..order(TaskKind::Lyrics) }).is_empty());

    let title = |model: &str| {
        let titled = Order { title: Some("ä".repeat(90)), lyrics: Some("la".into()), ..song.clone() };
        with(titled, |options| options.model = Some(model.into()))
    };
    assert!(fields(title("V5")).is_empty());
    assert_eq!(fields(title("V4_5ALL")), ["title"]);
}

#[actix_web::test]
async fn an_order_without_a_model_is_checked_by_the_model_it_is_made_with() {
    let settings =
        SunoSettings { default_model: "V4".into(), ..SunoSettings::new("http://127.0.0.1:1", KEY) };
    let suno = with_settings(settings);
    let sung = Order { lyrics: Some("a".repeat(3001)), ..order(TaskKind::Generate) };
    let fields = |order: &Order| {
        let found = unsupported(suno.capabilities(), order);
        found.into_iter().map(|refused| refused.field).collect::<Vec<_>>()
    };
    assert_eq!(fields(&sung), ["lyrics"]);
    assert!(fields(&with(sung.clone(), |options| options.model = Some("V5".into()))).is_empty());
    assert!(refused(&sung).is_empty(), "the adapter's own default takes more");

    let server = Server::start(Reply::new(200, r#"{"code":200,"data":{"taskId":"t1"}}"#));
    let settings = SunoSettings { default_model: "V6".into(), ..SunoSettings::new(&server.url, KEY) };
    let newer = with_settings(settings);
    newer.submit(&sung, REPLY_TO).await.expect("a task id");
    assert_eq!(server.asked().remove(0).body["model"], newer.capabilities().default_model());
    let named = with(sung, |options| options.model = Some("V6".into()));
    assert!(unsupported(newer.capabilities(), &named).is_empty(), "by its name, too");
}

/// A wish with everything that only custom mode takes.
fn with_options(order: Order) -> Order {
    with(order, |options| {
        options.negative_tags = vec!["metal".into()];
        options.vocal_gender = Some(VocalGender::Female);
        options.style_weight = Some(0.4);
        options.weirdness = Some(0.5);
        options.audio_weight = Some(0.6);
        options.persona_id = Some("persona-1".into());
    })
}

fn refused(order: &Order) -> Vec<&'static str> {
    unsupported(reader(Dialect::Sunoapi).capabilities(), order)
        .into_iter()
        .map(|refused| refused.field)
        .collect()
}

#[test]
fn an_option_that_has_no_place_beside_a_wish_is_refused() {
    let wish = Order { prompt: Some("a calm song".into()), ..order(TaskKind::Generate) };
    let every = ["negative_tags", "vocal_gender", "style_weight", "weirdness", "audio_weight", "persona_id"];
    assert_eq!(refused(&with_options(wish.clone())), every);
    let covers = |options: &mut MusicOptions| options.reference_audio_url = Some("https://x.test/a".into());
    assert_eq!(refused(&with(with_options(wish.clone()), covers)), every);

    let sung = Order { lyrics: Some("la la".into()), ..wish.clone() };
    assert!(refused(&with_options(sung)).is_empty());
    assert!(refused(&with_options(order(TaskKind::Lyrics))).is_empty(), "they are for the music");
    let titled = Order { title: Some("Harbour".into()), ..wish };
    assert!(refused(&titled).is_empty(), "the song has its title, whatever is sent");
}

#[actix_web::test]
async fn the_options_of_an_instrumental_go_along_with_its_prompt() {
    let wish = Order { prompt: Some("a calm song ".repeat(20)), ..order(TaskKind::Generate) };
    let quiet = with(with_options(wish.clone()), |options| options.instrumental = true);
    assert!(refused(&quiet).is_empty());
    let body = body_of(quiet).await;
    let sent =
        ["customMode", "negativeTags", "styleWeight", "weirdnessConstraint", "audioWeight", "personaId"];
    let expected = [json!(true), json!("metal"), json!(0.4), json!(0.5), json!(0.6), json!("persona-1")];
    assert_eq!(sent.map(|field| body[field].clone()), expected);
    assert_eq!(body["style"], wish.prompt.as_deref().expect("a prompt").trim(), "all of it");
    assert_eq!(body["vocalGender"], Value::Null, "nobody sings");
}

#[actix_web::test]
async fn tags_that_have_no_room_beside_the_prompt_are_refused() {
    let wish = |chars: usize, tags: &str| {
        let wish = Order { prompt: Some("a".repeat(chars)), ..order(TaskKind::Generate) };
        with(wish, |options| options.style_tags = vec![tags.into()])
    };
    assert!(refused(&wish(493, "waltz")).is_empty());
    assert_eq!(refused(&wish(494, "waltz")), ["style_tags"]);
    assert_eq!(refused(&wish(501, "waltz")), ["prompt"], "told once");

    // An old model has little room for a style: the whole prompt goes where there is more, or it is refused.
    let old = |order: Order, change: fn(&mut MusicOptions)| {
        let titled = Order { title: Some("Harbour".into()), ..order };
        let quiet = with(titled, |options| {
            (options.instrumental, options.model) = (true, Some("V4".into()));
        });
        with(quiet, change)
    };
    let plain = old(wish(300, "waltz"), |_| ());
    assert!(refused(&plain).is_empty());
    let body = body_of(plain).await;
    assert_eq!((&body["customMode"], body["prompt"].as_str().map(str::len)), (&json!(false), Some(307)));
    assert_eq!(refused(&old(wish(300, "waltz"), |options| options.weirdness = Some(0.5))), ["prompt"]);
}

#[test]
fn providers_are_found_by_name() {
    let provider = std::sync::Arc::new(reader(Dialect::Sunoapi));
    let providers = Providers::new([Member::new(provider, Gate::new(None, None))]);
    assert_eq!(providers.names().collect::<Vec<_>>(), ["suno"]);
    assert!(providers.get("suno").is_some() && providers.gate("suno").is_some());
    assert!(providers.get("nobody").is_none());
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&providers);
}

#[tokio::test]
async fn a_song_for_anybody_goes_to_the_provider_that_has_room() {
    let member = || Member::new(std::sync::Arc::new(reader(Dialect::Sunoapi)), Gate::new(None, Some(1)));
    let (full, empty) = (member(), member());
    let _slot = full.gate.adopt_slot();
    let providers = Providers::new([full, empty]);
    let tasks = |cost: fn(&Capabilities) -> Option<u32>| -> Vec<usize> {
        providers.ranked(TaskKind::Generate, cost).iter().map(|member| member.gate.tasks()).collect()
    };
    assert_eq!(tasks(|able| Some(able.cost_usd_milli)), [0, 1]);
    assert!(tasks(|_| None).is_empty(), "nobody can do it");
    let (paused, busy) = (member(), member());
    paused.gate.pause(std::time::Duration::from_secs(600));
    let _other = busy.gate.adopt_slot();
    let providers = Providers::new([paused, busy]);
    let ranked = providers.ranked(TaskKind::Generate, |able| Some(able.cost_usd_milli));
    assert_eq!(ranked[0].gate.tasks(), 1, "not to who wants to be left alone");
}

#[test]
fn the_key_is_never_printed() {
    assert!(!format!("{:?}", reader(Dialect::Kie)).contains(KEY));
}
