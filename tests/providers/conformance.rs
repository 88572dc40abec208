//! One suite for all adapters: every recorded body is understood as its index says, every recorded request
//! is written as it stands there, and whatever else comes does no harm (PROV-1, PROV-8, CB-3).
//!
//! Not here: what only one provider does (`suno.rs` …), and how connections break (`transport.rs`).

use serde_json::Value;
use songflight::provider::failure::Failure;
use songflight::provider::http::BODY_BYTES_MAX;
use songflight::provider::{News, Order, SharedProvider, Stage, Submitted, TaskKind};

use crate::fixtures::{self, Fixture};
use crate::mutations;
use crate::wire::{Reply, Server};

/// The key that every adapter here comes with.
pub(crate) const KEY: &str = "secret-key";
pub(crate) const REPLY_TO: &str = "https://app.example.com/cb/8f1c0f0d4e6b4a6c9d3e";

/// All adapters. A new one is one line here, and a module with its functions.
const SUBJECTS: &[Subject] = &[crate::suno::SUBJECT, crate::musicgpt::SUBJECT];

/// An adapter under trial.
pub(crate) struct Subject {
    /// Its folder of fixtures.
    pub(crate) name: &'static str,
    /// The adapter for a gateway at this url that speaks as the fixture does.
    pub(crate) adapter: fn(&str, &Fixture) -> SharedProvider,
    /// The order that a response, status or callback belongs to; `None` for what this adapter does not speak.
    pub(crate) order: fn(&Fixture) -> Option<Order>,
    /// In one word (see [`in_one_word`]), what the index says should come of it.
    pub(crate) expected: fn(&Fixture) -> &str,
    /// The orders that stand behind recorded requests.
    pub(crate) requests: fn() -> Vec<Recorded>,
    /// How many recorded bodies it speaks, so that none falls out unseen.
    pub(crate) read: usize,
}

/// Our order behind a recorded request.
pub(crate) struct Recorded {
    pub(crate) name: &'static str,
    pub(crate) order: Order,
    /// Fields of the recorded body that no order of ours asks for.
    pub(crate) without: &'static [&'static str],
}

/// In one word, what came of a body.
pub(crate) fn in_one_word(outcome: &Result<News, Failure>) -> &'static str {
    match outcome {
        Ok(News::Working) => "working",
        Ok(News::Clips(Stage::Text, _)) => "text",
        Ok(News::Clips(Stage::First, _)) => "first",
        Ok(News::Clips(Stage::Complete, clips)) if clips.is_empty() => "complete without clips",
        Ok(News::Lyrics(texts)) if texts.iter().all(|text| text.text.is_empty()) => "no lyrics",
        Ok(News::Clips(Stage::Complete, _) | News::Lyrics(_) | News::Made(_)) => "complete",
        Ok(News::Failed(failure)) | Err(failure) => failure.class.as_str(),
    }
}

/// What is asked by, at the end of a poll's address.
fn task(fixture: &Fixture) -> &str {
    fixture.about("endpoint").rsplit(['=', '/']).next().unwrap_or_default()
}

/// What comes of a fixture's body, or of another in its place, through the door it belongs to.
async fn understood(
    fixture: &Fixture,
    order: &Order,
    adapter: &SharedProvider,
    body: &[u8],
) -> Option<Result<News, Failure>> {
    match fixture.about("what") {
        "callback" => adapter.read(order.kind(), body).ok().map(|callback| Ok(callback.news)),
        "status" => Some(adapter.poll(order, task(fixture)).await),
        _ => Some(adapter.submit(order, REPLY_TO).await.map(|submitted| match submitted {
            Submitted::Task(taken) => {
                assert!(!taken.task.is_empty(), "{}", fixture.name);
                News::Working
            }
            Submitted::Done(news) => news,
        })),
    }
}

fn is_body(fixture: &Fixture) -> bool {
    matches!(fixture.about("what"), "response" | "callback" | "status")
}

/// The bodies that a subject speaks, with their orders.
fn spoken(subject: &Subject) -> Vec<(Fixture, Order)> {
    let bodies = fixtures::all(subject.name).into_iter().filter(is_body);
    bodies.filter_map(|fixture| (subject.order)(&fixture).map(|order| (fixture, order))).collect()
}

#[actix_web::test]
async fn every_body_is_understood_as_its_index_says() {
    let mut wrong = Vec::new();
    for subject in SUBJECTS {
        for (fixture, order) in spoken(subject) {
            let server = Server::start(Reply::new(fixture.http_status(), fixture.body.clone()));
            let adapter = (subject.adapter)(&server.url, &fixture);
            let outcome = understood(&fixture, &order, &adapter, &fixture.body).await;
            let outcome = outcome.unwrap_or_else(|| panic!("{} is no callback", fixture.name));
            let (is, should) = (in_one_word(&outcome), (subject.expected)(&fixture));
            if is != should {
                wrong.push(format!("{}: {is}, not {should}: {outcome:?}", fixture.name));
            }
            if fixture.about("what") == "status" {
                assert_eq!(server.asked()[0].line, fixture.about("endpoint"), "{}", fixture.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[actix_web::test]
async fn orders_are_written_as_the_recorded_requests() {
    for subject in SUBJECTS {
        for Recorded { name, order, without } in (subject.requests)() {
            let fixture = fixtures::one(subject.name, name);
            let server = Server::start(Reply::new(200, "{}"));
            // What is answered is another matter.
            let _ = (subject.adapter)(&server.url, &fixture).submit(&order, REPLY_TO).await;
            let asked = server.asked();
            assert_eq!(asked.len(), 1, "{name}");
            assert_eq!(asked[0].line, fixture.about("endpoint"), "{name}");
            let mut recorded = fixture.json();
            let fields = recorded.as_object_mut().expect("requests are objects");
            fields.retain(|field, _| !without.contains(&field.as_str()));
            assert_eq!(asked[0].body, recorded, "{name}");
            assert_eq!(asked[0].header("authorization"), authorization(&fixture), "{name}");
            assert_eq!(asked[0].header("content-type"), "application/json", "{name}");
            assert_eq!(asked[0].header("idempotency-key"), order.key.to_string(), "{name}");
        }
    }
}

/// As the index has it, with our key for the `<key…>` in it.
fn authorization(fixture: &Fixture) -> String {
    let header = fixture.header("Authorization");
    header.split('<').next().unwrap_or_default().to_owned() + KEY
}

#[test]
fn every_fixture_is_accounted_for() {
    for subject in SUBJECTS {
        let all = fixtures::all(subject.name);
        let is = |what: &str| all.iter().filter(|fixture| fixture.about("what") == what).count();
        let (read, requests) = (spoken(subject).len(), (subject.requests)().len());
        let bodies = all.iter().filter(|fixture| is_body(fixture)).count();
        let foreign = bodies - read + is("request") - requests;
        let other = all.len() - bodies - is("request");
        println!(
            "{}: read/classified {read}, requests {requests}, foreign {foreign}, other {other}, total {}",
            subject.name,
            all.len()
        );
        assert_eq!(read, subject.read, "{} speaks these", subject.name);
    }
}

/// Also those of other gateways, of kinds that are not made, and tables that are no bodies at all.
#[test]
fn no_callback_does_harm_whatever_was_cut_off_or_changed() {
    for subject in SUBJECTS {
        for fixture in fixtures::all(subject.name) {
            let adapter = (subject.adapter)("http://127.0.0.1:1", &fixture);
            for kind in TaskKind::ALL {
                let _ = adapter.read(kind, &fixture.body);
                for body in mutations::of(&fixture.json()) {
                    let _ = adapter.read(kind, body.to_string().as_bytes());
                }
            }
            let kind = (subject.order)(&fixture).map_or(TaskKind::Generate, |order| order.kind());
            for end in 0..fixture.body.len() {
                let _ = adapter.read(kind, &fixture.body[..end]);
            }
        }
    }
}

#[actix_web::test]
async fn no_answer_does_harm_whatever_was_cut_off_or_changed() {
    for subject in SUBJECTS {
        for (fixture, order) in
            spoken(subject).iter().filter(|(fixture, _)| fixture.about("what") != "callback")
        {
            let server = Server::start(Reply::new(200, ""));
            let adapter = (subject.adapter)(&server.url, fixture);
            let changed =
                mutations::of(&fixture.json()).into_iter().map(|body| body.to_string().into_bytes());
            let ends = (0..fixture.body.len()).step_by(fixture.body.len() / 12 + 1);
            let cut = ends.map(|end| fixture.body[..end].to_vec());
            for body in changed.chain(cut) {
                server.say(Reply::new(fixture.http_status(), body.clone()));
                let _ = understood(fixture, order, &adapter, &body).await;
            }
        }
    }
}

#[actix_web::test]
async fn fields_that_nobody_knows_and_clips_that_come_twice_change_nothing() {
    for subject in SUBJECTS {
        for (fixture, order) in spoken(subject) {
            let server = Server::start(Reply::new(200, ""));
            let adapter = (subject.adapter)(&server.url, &fixture);
            let mut outcomes = Vec::new();
            let original = fixture.json();
            for body in
                [original.clone(), mutations::with_unknown_fields(&original), mutations::doubled(&original)]
            {
                let body = body.to_string().into_bytes();
                server.say(Reply::new(fixture.http_status(), body.clone()));
                outcomes.push(understood(&fixture, &order, &adapter, &body).await.map(plain));
            }
            assert_eq!(outcomes[0], outcomes[1], "{} {}: an unknown field", subject.name, fixture.name);
            if matches!(&outcomes[0], Some(Ok(News::Clips(..)))) {
                assert_eq!(outcomes[0], outcomes[2], "{} {}: clips twice", subject.name, fixture.name);
            }
        }
    }
}

/// A failure's message may quote the body.
fn plain(outcome: Result<News, Failure>) -> Result<News, Failure> {
    outcome.map_err(|failure| Failure { message: String::new(), ..failure })
}

#[actix_web::test]
async fn what_is_no_json_and_what_is_too_long_does_no_harm() {
    let mut bodies: Vec<Vec<u8>> =
        ["", "null", "17", "\"text\"", "[]", "<html>", "\u{feff}{}"].map(Into::into).into();
    bodies.push(vec![0xff; 100]);
    bodies.push("[".repeat(BODY_BYTES_MAX).into());
    bodies.push(format!("[{}0]", "0,".repeat(BODY_BYTES_MAX / 2 - 2)).into());
    bodies.push(format!("{{\"data\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX - 11)).into());
    for subject in SUBJECTS {
        let server = Server::start(Reply::new(200, ""));
        let (fixture, _) = spoken(subject).remove(0);
        let adapter = (subject.adapter)(&server.url, &fixture);
        for body in &bodies {
            for kind in TaskKind::ALL {
                let _ = adapter.read(kind, body);
            }
            server.say(Reply::new(200, body.clone()));
            for (fixture, order) in one_of_each_kind(subject) {
                let _ = adapter.poll(&order, task(&fixture)).await;
                let _ = adapter.submit(&order, REPLY_TO).await;
            }
        }
    }
}

fn one_of_each_kind(subject: &Subject) -> Vec<(Fixture, Order)> {
    let mut each: Vec<(Fixture, Order)> = Vec::new();
    for (fixture, order) in spoken(subject) {
        if each.iter().all(|(_, other)| other.kind() != order.kind()) {
            each.push((fixture, order));
        }
    }
    each
}

#[test]
fn padding_up_to_the_limit_is_read() {
    for subject in SUBJECTS {
        for (fixture, order) in
            spoken(subject).iter().filter(|(fixture, _)| fixture.about("what") == "callback")
        {
            let adapter = (subject.adapter)("http://127.0.0.1:1", fixture);
            let mut body = fixture.body.clone();
            body.resize(BODY_BYTES_MAX, b' ');
            let (padded, plain) =
                (adapter.read(order.kind(), &body), adapter.read(order.kind(), &fixture.body));
            assert_eq!(padded, plain, "{}", fixture.name);
        }
    }
}

#[test]
fn mutations_reach_every_leaf() {
    let body: Value = serde_json::json!({"a": {"id": "x", "n": [1, {"b": null}]}});
    let changed = mutations::of(&body);
    assert!(changed.contains(&serde_json::json!({"a": {"n": [1, {"b": null}]}})), "an id is missing");
    assert!(
        changed.contains(&serde_json::json!({"a": {"id": "x", "n": ["1", {"b": null}]}})),
        "a number as text"
    );
    assert!(changed.contains(&serde_json::json!({"a": null})), "nothing is there");
}
