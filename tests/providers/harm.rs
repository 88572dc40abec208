//! Whatever comes instead of what was recorded does no harm to any adapter: parts that are missing, changed, doubled
//! or cut off, bodies of others, bodies that are no JSON or too long (PROV-8, CB-3).

use proptest::prelude::*;
use serde_json::Value;
use songflight::provider::failure::Failure;
use songflight::provider::http::BODY_BYTES_MAX;
use songflight::provider::{Clip, News, Order, SharedProvider, TaskKind};

use crate::conformance::{REPLY_TO, SUBJECTS, Subject, task, understood};
use crate::fixtures::{self, Fixture};
use crate::wire::{Reply, Script, Server, block_on};
use crate::{mutations, odd};

fn read_as_each_kind(adapter: &SharedProvider, body: &[u8]) {
    for kind in TaskKind::ALL {
        let _ = adapter.read(kind, body);
    }
}

/// Also those of other providers, of kinds that are not made, and tables that are no bodies at all.
#[test]
fn no_callback_does_harm_whatever_was_cut_off_or_changed() {
    let everybodys: Vec<Fixture> = SUBJECTS.iter().flat_map(|subject| fixtures::all(subject.name)).collect();
    for subject in SUBJECTS {
        for fixture in &everybodys {
            let adapter = (subject.adapter)("http://127.0.0.1:1", fixture);
            read_as_each_kind(&adapter, &fixture.body);
        }
        for fixture in fixtures::all(subject.name) {
            let adapter = (subject.adapter)("http://127.0.0.1:1", &fixture);
            for body in mutations::of(&fixture.json()) {
                read_as_each_kind(&adapter, &fixture.written(&body));
            }
            let kind = (subject.order)(&fixture).kind();
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
            subject.spoken().iter().filter(|(fixture, _)| fixture.about("what") != "callback")
        {
            let server = Server::start(Reply::new(200, ""));
            let adapter = (subject.adapter)(&server.url, fixture);
            let changed = mutations::of(&fixture.json()).into_iter().map(|body| fixture.written(&body));
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
        for (fixture, order) in subject.spoken() {
            let server = Server::start(Reply::new(200, ""));
            let adapter = (subject.adapter)(&server.url, &fixture);
            let mut outcomes = Vec::new();
            let original = fixture.json();
            for body in
                [original.clone(), mutations::with_unknown_fields(&original), mutations::doubled(&original)]
            {
                let body = fixture.written(&body);
                server.say(Reply::new(fixture.http_status(), body.clone()));
                outcomes.push(understood(&fixture, &order, &adapter, &body).await.map(plain));
            }
            assert_eq!(outcomes[0], outcomes[1], "{} {}: an unknown field", subject.name, fixture.name);
            if let [Some(Ok(News::Clips(stage, once))), _, Some(Ok(News::Clips(later, twice)))] =
                &outcomes[..]
            {
                let heard = |clips: &[Clip]| clips.iter().cloned().map(unsung).collect::<Vec<_>>();
                let same = stage == later && heard(once) == heard(twice);
                assert!(same, "{} {}: {once:?}, and doubled {twice:?}", subject.name, fixture.name);
            }
        }
    }
}

/// Lines that are there twice are sung twice.
fn unsung(clip: Clip) -> Clip {
    Clip { lyrics: None, ..clip }
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
        let (fixture, _) = subject.spoken().remove(0);
        let adapter = (subject.adapter)(&server.url, &fixture);
        for body in &bodies {
            read_as_each_kind(&adapter, body);
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
    for (fixture, order) in subject.spoken() {
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
            subject.spoken().iter().filter(|(fixture, _)| fixture.about("what") == "callback")
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

/// An adapter, the server that it asks, and an order of each kind that it makes.
struct Stage {
    server: Script,
    adapter: SharedProvider,
    orders: Vec<Order>,
}

thread_local! {
    /// Making clients takes longer than asking them.
    static STAGES: Vec<Stage> = SUBJECTS.iter().map(stage).collect();
}

fn stage(subject: &Subject) -> Stage {
    let server = Script::start();
    let (fixtures, orders): (Vec<_>, Vec<_>) = one_of_each_kind(subject).into_iter().unzip();
    Stage { adapter: (subject.adapter)(&server.url, &fixtures[0]), server, orders }
}

/// Through every door of the adapter.
fn read_everywhere(Stage { server, adapter, orders }: &Stage, body: &[u8]) {
    read_as_each_kind(adapter, body);
    block_on(async {
        for status in [200, 429] {
            server.say(status, body);
            for order in orders {
                let _ = adapter.submit(order, REPLY_TO).await;
                let _ = adapter.poll(order, "t").await;
            }
        }
    });
}

/// For one of the subjects: any bytes, any JSON in its own words, a recorded body that was damaged.
fn anything() -> impl Strategy<Value = (usize, Vec<u8>)> {
    (0..SUBJECTS.len()).prop_flat_map(|which| {
        let name = SUBJECTS[which].name;
        let bytes = prop::collection::vec(any::<u8>(), 0..2000);
        let body = prop_oneof![1 => bytes, 3 => odd::json(name), 2 => odd::damaged(name)];
        body.prop_map(move |body| (which, body))
    })
}

proptest! {
    #[test]
    fn anything_is_read_without_panic((which, body) in anything()) {
        STAGES.with(|stages| read_everywhere(&stages[which], &body));
    }
}
