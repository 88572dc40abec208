//! What is made of clips that exist: what is asked for, what comes back, and what is refused (PROV-2); and who
//! signs for it (CB-1).

use serde_json::{Value, json};
use songflight::provider::failure::{Arrived, Class};
use songflight::provider::http::Timeouts;
use songflight::provider::suno::{Dialect, Suno, SunoSettings};
use songflight::provider::{
    BadSignature, Made, News, Order, Provider, SourceClip, Stem, Submitted, TaskKind, Work, unsupported,
};
use songflight::time::Time;

use super::{adapter, an_order, body_of, order, reader, source, with, with_settings};
use crate::conformance::{KEY, REPLY_TO};
use crate::fixtures;
use crate::wire::{Reply, Server};

fn elsewhere() -> SourceClip {
    SourceClip { provider: "mureka".into(), ..source() }
}

#[actix_web::test]
async fn an_extension_that_names_nothing_new_is_as_its_source() {
    let same = Order { title: source().title, ..order(TaskKind::Extend) };
    let same = with(same, |options| {
        options.style_tags = source().style_tags;
        options.model = Some("V5".into());
    });
    let body = body_of(same.clone()).await;
    let inherited = json!({
        "defaultParamFlag": false, "audioId": source().clip_id, "model": "V4_5", "callBackUrl": REPLY_TO,
    });
    assert_eq!(body, inherited, "with the model of its source, which the gateway wants");

    let body = body_of(Order { prompt: Some("end softly".into()), ..same }).await;
    assert_eq!(body["defaultParamFlag"], true);
    assert_eq!((&body["prompt"], &body["style"]), (&json!("end softly"), &json!("indie folk")));
    assert_eq!(body["continueAt"], 187.31, "from its end");
}

#[actix_web::test]
async fn the_words_of_an_extension_are_as_long_as_the_model_of_its_source_allows() {
    let older = SourceClip { model: Some("V4".into()), ..source() };
    let extend = |chars: usize| {
        let work = Work::Extend { of: older.clone(), continue_at_ms: Some(9_000) };
        Order { lyrics: Some("la".repeat(chars / 2)), ..an_order(work) }
    };
    let fields = |order: &Order| -> Vec<_> {
        let found = unsupported(reader(Dialect::Sunoapi).capabilities(), order);
        found.into_iter().map(|refused| refused.field).collect()
    };
    assert_eq!(fields(&extend(3_000)), Vec::<&str>::new());
    assert_eq!(fields(&extend(3_002)), ["lyrics"]);
    assert_eq!(body_of(extend(3_000)).await["model"], "V4");
}

#[actix_web::test]
async fn a_clip_from_elsewhere_is_uploaded_to_be_extended() {
    let wish = Order {
        prompt: Some("end softly".into()),
        ..an_order(Work::Extend { of: elsewhere(), continue_at_ms: None })
    };
    let body = body_of(wish).await;
    let expected = json!({
        "defaultParamFlag": false, "uploadUrl": source().audio_url, "instrumental": false, "model": "V5",
        "prompt": "end softly", "continueAt": 187.31, "callBackUrl": REPLY_TO,
    });
    assert_eq!(body, expected, "a wish is not sung word for word");

    let silent = SourceClip { instrumental: true, lyrics: None, ..elsewhere() };
    let body = body_of(an_order(Work::Extend { of: silent, continue_at_ms: Some(9_000) })).await;
    assert_eq!((&body["defaultParamFlag"], &body["instrumental"]), (&json!(true), &json!(true)));
    assert_eq!((&body["prompt"], &body["title"]), (&Value::Null, &json!("Harbour Lights")));
}

#[actix_web::test]
async fn a_section_of_a_clip_from_elsewhere_is_uploaded_with_a_model() {
    let work = Work::ReplaceSection { of: elsewhere(), start_ms: 10_000, end_ms: 20_000 };
    let body = body_of(Order { lyrics: Some("la la".into()), ..an_order(work) }).await;
    assert_eq!((&body["uploadUrl"], &body["model"]), (&json!(source().audio_url), &json!("V5")));
    assert_eq!((&body["taskId"], &body["audioId"]), (&Value::Null, &Value::Null));
    assert_eq!((&body["infillStartS"], &body["infillEndS"]), (&json!(10), &json!(20)));
}

#[actix_web::test]
async fn a_cover_keeps_the_words_and_takes_the_new_style() {
    let cover = with(order(TaskKind::Cover), |options| options.style_tags = vec!["punk".into()]);
    let body = body_of(cover).await;
    assert_eq!(body["uploadUrl"], json!(source().audio_url));
    assert_eq!((&body["style"], &body["prompt"]), (&json!("punk"), &json!(source().lyrics)));
    assert_eq!((&body["title"], &body["customMode"]), (&json!("Harbour Lights"), &json!(true)));

    let wish = Order { prompt: Some("as a waltz".into()), ..order(TaskKind::Cover) };
    assert_eq!(body_of(wish).await["style"], "as a waltz", "a wish goes before the style it had");
}

#[actix_web::test]
async fn a_persona_of_a_short_clip_is_made_from_all_of_it() {
    let persona = |duration_ms| {
        let of = SourceClip { duration_ms, ..source() };
        an_order(Work::Persona { of, name: "Mira".into(), description: " ".into() })
    };
    let body = body_of(persona(Some(17_900))).await;
    assert_eq!((&body["vocalEnd"], &body["description"]), (&json!(17), &json!("Mira")));
    assert_eq!(body["callBackUrl"], Value::Null);
    assert_eq!(body_of(persona(None)).await["vocalEnd"], Value::Null);
}

#[actix_web::test]
async fn a_persona_is_there_at_once() {
    let server = Server::start(Reply::new(200, fixtures::one("suno", "response_persona.json").body));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    let made = Made::Persona {
        persona_id: "persona_5d1f8e".into(),
        name: Some("Harbour voice".into()),
        description: Some("soft, close-miked alto over acoustic guitar".into()),
    };
    let submitted = suno.submit(&order(TaskKind::Persona), REPLY_TO).await;
    assert_eq!(submitted, Ok(Submitted::Done(News::Made(made))));

    server.say(Reply::new(200, r#"{"code":200,"msg":"success","data":{}}"#));
    let failure = suno.submit(&order(TaskKind::Persona), REPLY_TO).await.expect_err("no id");
    assert_eq!((failure.class, failure.arrived), (Class::ProviderError, Arrived::Maybe));
}

fn read(kind: TaskKind, name: &str) -> News {
    let body = fixtures::one("suno", name).body;
    reader(Dialect::Sunoapi).read(kind, &body).expect("a callback").news
}

fn names(news: News) -> Vec<String> {
    let News::Made(Made::Stems { stems }) = news else { panic!("no stems: {news:?}") };
    stems.into_iter().map(|stem| stem.name).collect()
}

#[actix_web::test]
async fn stems_are_named_alike_in_callbacks_and_polls() {
    let told = read(TaskKind::Stems, "callback_stems_two.json");
    let server = Server::start(Reply::new(200, fixtures::one("suno", "status_stems_two.json").body));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    assert_eq!(suno.poll(&order(TaskKind::Stems), "t").await, Ok(told.clone()));
    let stem = |name: &str, url: &str| Stem {
        name: name.into(),
        url: format!("https://file.aiquickdraw.com/s/{url}.mp3"),
    };
    let stems = vec![
        stem("vocals", "9375fd90-d2c4-5bbf-a97a-d46dec6fbee3_Vocals"),
        stem("instrumental", "6b5674e7-b544-520e-8724-dd4739e41009_Instrumental"),
    ];
    assert_eq!(told, News::Made(Made::Stems { stems }));
    let all = names(read(TaskKind::Stems, "callback_stems_twelve.json"));
    assert_eq!(all.len(), 12);
    assert!(all.contains(&"backing_vocals".to_owned()) && !all.contains(&"origin".to_owned()), "{all:?}");
}

#[actix_web::test]
async fn a_video_is_its_url() {
    let video_url = "https://tempfile.aiquickdraw.com/v/ed2d5e07-31e0-53d7-8950-726cb23f9b43.mp4".to_owned();
    let made = News::Made(Made::Video { video_url });
    assert_eq!(read(TaskKind::Video, "callback_mp4.json"), made);
    let server = Server::start(Reply::new(200, fixtures::one("suno", "status_mp4.json").body));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    assert_eq!(suno.poll(&order(TaskKind::Video), "t").await, Ok(made));
}

#[actix_web::test]
async fn an_end_without_a_result_is_a_failure_and_not_awaited_any_longer() {
    let body =
        r#"{"code":200,"data":{"taskId":"t","successFlag":"SUCCESS","response":{"vocalUrl":"no url"}}}"#;
    let server = Server::start(Reply::new(200, body));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    for kind in [TaskKind::Stems, TaskKind::Video] {
        let Ok(News::Failed(failure)) = suno.poll(&order(kind), "t").await else { panic!("not failed") };
        assert_eq!(failure.class, Class::ProviderError);
    }
    // A callback that says less than it could is no end.
    let body = br#"{"code":200,"data":{"task_id":"t","video_url":""}}"#;
    let callback = suno.read(TaskKind::Video, body).expect("a callback");
    assert_eq!(callback.news, News::Working);
}

/// The fields at fault, before anything is charged; and the order is not sent either.
async fn refused(work: Work) -> Vec<&'static str> {
    let order = Order { lyrics: Some("la".into()), ..an_order(work) };
    let found = unsupported(reader(Dialect::Sunoapi).capabilities(), &order);
    let server = Server::start(Reply::new(200, "{}"));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    let failure = suno.submit(&order, REPLY_TO).await.expect_err("nothing is answered");
    assert_eq!(server.asked().is_empty(), !found.is_empty(), "{found:?}");
    assert_eq!(failure.class == Class::InvalidInput, !found.is_empty(), "{failure:?}");
    found.into_iter().map(|refused| refused.field).collect()
}

#[actix_web::test]
async fn what_cannot_be_made_of_a_clip_is_told_by_field() {
    let section = |of, start_ms, end_ms| Work::ReplaceSection { of, start_ms, end_ms };
    let extend = |of, at| Work::Extend { of, continue_at_ms: Some(at) };
    let lost = SourceClip { clip_id: None, audio_url: None, ..source() };
    let without_ids = SourceClip { provider_task: None, ..source() };
    let unheard = SourceClip { audio_url: Some(" ".into()), ..elsewhere() };
    let short = SourceClip { duration_ms: Some(9_000), ..source() };
    let persona = |of| Work::Persona { of, name: "x".into(), description: "y".into() };
    for (work, fields) in [
        (section(source(), 0, 6_000), &[] as &[&str]),
        (section(source(), 0, 5_999), &["end_s"]),
        (section(source(), 0, 60_001), &["end_s"]),
        (section(source(), -1, 9_000), &["start_s"]),
        (section(source(), 180_000, 190_000), &["end_s"]),
        (section(short.clone(), 0, 6_000), &["end_s"]),
        (section(lost.clone(), 0, 9_000), &["variant_number"]),
        (extend(source(), 0), &["continue_at_s"]),
        (extend(source(), 187_320), &["continue_at_s"]),
        (extend(without_ids.clone(), 9_000), &[]),
        (extend(unheard.clone(), 9_000), &["variant_number"]),
        (Work::Cover { of: lost.clone() }, &["variant_number"]),
        (Work::Cover { of: elsewhere() }, &[]),
        (Work::Stems { of: elsewhere() }, &["variant_number"]),
        (Work::Stems { of: without_ids }, &["variant_number"]),
        (Work::Video { of: elsewhere() }, &["variant_number"]),
        (persona(elsewhere()), &["variant_number"]),
        (persona(short), &["variant_number"]),
        (Work::Merge { of: vec![source(), source()] }, &["provider"]),
    ] {
        assert_eq!(refused(work.clone()).await, fields, "{work:?}");
    }
    let wordless = order(TaskKind::ReplaceSection);
    let found = unsupported(reader(Dialect::Sunoapi).capabilities(), &wordless);
    assert_eq!(found.iter().map(|refused| refused.field).collect::<Vec<_>>(), ["lyrics"]);
}

fn signed(dialect: Dialect, secret: Option<&str>) -> Suno {
    let webhook_secret = secret.map(Into::into);
    with_settings(SunoSettings { dialect, webhook_secret, ..SunoSettings::new("http://127.0.0.1:1", KEY) })
}

fn verified(suno: &Suno, headers: &Value, body: &[u8], seconds: i64) -> Result<(), BadSignature> {
    let header = |name: &str| {
        let mut headers = headers.as_object().expect("headers").iter();
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name))?.1.as_str().map(String::from)
    };
    suno.verify(&header, body, Time::from_millis(seconds * 1000))
}

#[test]
fn each_dialect_is_verified_in_its_own_way_where_a_secret_is_configured() {
    let vector = fixtures::one("suno", "signature_vector_kie.json").json();
    let body = fixtures::one("suno", "callback_complete.json").body;
    let (key, headers) = (vector["webhook_hmac_key"].as_str(), &vector["headers"]);
    let at = 1_772_446_600;
    assert_eq!(verified(&signed(Dialect::Kie, key), headers, &body, at), Ok(()));
    assert!(verified(&signed(Dialect::Kie, key), headers, &body, at + 301).is_err());
    assert!(verified(&signed(Dialect::Kie, key), headers, b"no JSON", at).is_err());
    assert!(verified(&signed(Dialect::Kie, key), &json!({}), &body, at).is_err());
    assert!(verified(&signed(Dialect::Sunoapi, key), headers, &body, at).is_err());

    let vector = fixtures::one("suno", "gw_aimusicapi_webhook_signed.json").json();
    let (key, headers) = (vector["secret"].as_str(), &vector["headers"]);
    let body = vector["raw_body"].as_str().expect("a body").as_bytes();
    assert_eq!(verified(&signed(Dialect::Sunoapi, key), headers, body, at), Ok(()));
    assert!(verified(&signed(Dialect::Sunoapi, key), headers, b"{}", at).is_err());
    assert!(verified(&signed(Dialect::Kie, key), headers, body, at).is_err());

    for dialect in [Dialect::Kie, Dialect::Sunoapi] {
        assert_eq!(verified(&signed(dialect, None), &json!({}), b"anything", at), Ok(()));
    }
}
