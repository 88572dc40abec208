//! One suite for all adapters: every recorded body is understood as its index says, every recorded request
//! is written as it stands there, and no file of the fixtures is left out unseen (PROV-1, PROV-8, CB-3).
//!
//! Not here: what only one provider does (`suno.rs` …), what comes of anything else that may arrive (`harm.rs`), and
//! how connections break (`transport.rs`).

use serde_json::Value;
use songflight::provider::failure::{Arrived, Failure};
use songflight::provider::{News, Order, SharedProvider, Stage, Submitted};

use crate::fixtures::{self, Fixture};
use crate::wire::{Reply, Server};

/// The key that every adapter here comes with.
pub(crate) const KEY: &str = "a-key-that-nobody-may-read";
pub(crate) const REPLY_TO: &str = "https://app.example.com/cb/8f1c0f0d4e6b4a6c9d3e";

/// All adapters. A new one is one line here, and a module with its functions.
pub(crate) const SUBJECTS: &[Subject] =
    &[crate::suno::SUBJECT, crate::musicgpt::SUBJECT, crate::mureka::SUBJECT, crate::minimax::SUBJECT];

/// An adapter under trial.
pub(crate) struct Subject {
    /// Its folder of fixtures.
    pub(crate) name: &'static str,
    /// The adapter for a gateway at this url that speaks as the fixture does.
    pub(crate) adapter: fn(&str, &Fixture) -> SharedProvider,
    /// The order that a response, status or callback belongs to.
    pub(crate) order: fn(&Fixture) -> Order,
    /// In one word (see [`in_one_word`]), what the index says should come of it.
    pub(crate) expected: fn(&Fixture) -> &str,
    /// The orders that stand behind recorded requests.
    pub(crate) requests: fn() -> Vec<Recorded>,
    /// Parts of the names of bodies and requests that it does not speak, and why not.
    pub(crate) foreign: &'static [(&'static str, &'static str)],
    /// Refusals that an operator must hear of: our account or our configuration is at fault.
    pub(crate) alarms: &'static [&'static str],
    /// Answers after which the song may be made all the same, beside HTTP 5xx.
    pub(crate) doubtful: &'static [&'static str],
}

/// Our order behind a recorded request.
pub(crate) struct Recorded {
    pub(crate) name: &'static str,
    pub(crate) order: Order,
    /// Fields of the recorded body that no order of ours asks for.
    pub(crate) without: &'static [&'static str],
    /// Fields of ours that the recorded body does not have, or has otherwise.
    pub(crate) with: Value,
}

impl Recorded {
    /// A request that is written as it was recorded, field by field.
    pub(crate) fn exactly(name: &'static str, order: Order) -> Self {
        Self { name, order, without: &[], with: Value::Null }
    }

    fn body(&self, fixture: &Fixture) -> Value {
        let mut recorded = fixture.json();
        let fields = recorded.as_object_mut().expect("requests are objects");
        fields.retain(|field, _| !self.without.contains(&field.as_str()));
        let ours = self.with.as_object().into_iter().flatten();
        fields.extend(ours.map(|(field, value)| (field.clone(), value.clone())));
        recorded
    }
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
pub(crate) fn task(fixture: &Fixture) -> &str {
    fixture.about("endpoint").rsplit(['=', '/']).next().unwrap_or_default()
}

/// What comes of a fixture's body, or of another in its place, through the door it belongs to.
pub(crate) async fn understood(
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

impl Subject {
    /// Why it does not speak a body or a request; `None` where it does.
    fn foreign(&self, fixture: &Fixture) -> Option<&'static str> {
        self.foreign.iter().find(|(part, _)| fixture.name.contains(part)).map(|(_, why)| *why)
    }

    /// The bodies that it speaks, with their orders.
    pub(crate) fn spoken(&self) -> Vec<(Fixture, Order)> {
        let all = fixtures::all(self.name).into_iter();
        let spoken = all.filter(|fixture| is_body(fixture) && self.foreign(fixture).is_none());
        let with_order = |fixture| {
            let order = (self.order)(&fixture);
            (fixture, order)
        };
        spoken.map(with_order).collect()
    }
}

#[actix_web::test]
async fn every_body_is_understood_as_its_index_says() {
    let mut wrong = Vec::new();
    for subject in SUBJECTS {
        for (fixture, order) in subject.spoken() {
            let server = Server::start(Reply::new(fixture.http_status(), fixture.body.clone()));
            let adapter = (subject.adapter)(&server.url, &fixture);
            let outcome = understood(&fixture, &order, &adapter, &fixture.body).await;
            let outcome = outcome.unwrap_or_else(|| panic!("{} is no callback", fixture.name));
            let (is, should) = (in_one_word(&outcome), (subject.expected)(&fixture));
            if is != should {
                wrong.push(format!("{}: {is}, not {should}: {outcome:?}", fixture.name));
            }
            if let Err(failure) = &outcome {
                follows_up(subject, &fixture, failure);
            }
            if fixture.about("what") == "status" {
                assert_eq!(server.asked()[0].line, fixture.about("endpoint"), "{}", fixture.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the class does not say: whether an operator is called, and whether the order may have been taken.
fn follows_up(subject: &Subject, fixture: &Fixture, failure: &Failure) {
    let name = fixture.name.as_str();
    assert_eq!(failure.operator, subject.alarms.contains(&name), "{name} calls an operator");
    let doubtful = fixture.http_status() >= 500 || subject.doubtful.contains(&name);
    let arrived = if doubtful { Arrived::Maybe } else { Arrived::No };
    assert_eq!(failure.arrived, arrived, "{name}");
    assert!(!failure.message.contains(KEY) && !failure.message.contains(REPLY_TO), "{name}");
}

#[actix_web::test]
async fn orders_are_written_as_the_recorded_requests() {
    for subject in SUBJECTS {
        for recorded in (subject.requests)() {
            let Recorded { name, order, .. } = &recorded;
            let fixture = fixtures::one(subject.name, name);
            let server = Server::start(Reply::new(200, "{}"));
            // What is answered is another matter.
            let _ = (subject.adapter)(&server.url, &fixture).submit(order, REPLY_TO).await;
            let asked = server.asked();
            assert_eq!(asked.len(), 1, "{name}");
            assert_eq!(asked[0].line, fixture.about("endpoint"), "{name}");
            assert_eq!(asked[0].body, recorded.body(&fixture), "{name}");
            assert_eq!(asked[0].header("authorization"), authorization(&fixture), "{name}");
            assert_eq!(asked[0].header("content-type"), "application/json", "{name}");
            assert_eq!(asked[0].header("idempotency-key"), order.key.to_string(), "{name}");
        }
    }
}

#[actix_web::test]
async fn a_key_that_is_told_back_is_not_kept() {
    for subject in SUBJECTS {
        let (fixture, order) = subject.spoken().remove(0);
        let complaint = serde_json::json!({
            "code": 401, "msg": format!("no such key: {KEY}"), "message": KEY, "detail": KEY,
            "error": {"message": KEY}, "base_resp": {"status_code": 1004, "status_msg": KEY},
        });
        for (status, body) in [(200, complaint.to_string()), (401, complaint.to_string()), (401, KEY.into())]
        {
            let server = Server::start(Reply::new(status, body));
            let adapter = (subject.adapter)(&server.url, &fixture);
            let failure = adapter.submit(&order, REPLY_TO).await.expect_err("a complaint");
            assert!(!failure.message.contains(KEY), "{}: {failure:?}", subject.name);
            assert!(failure.message.contains("****"), "{}: {failure:?}", subject.name);
        }
    }
}

/// As the index has it, with our key for the `<key…>` in it.
fn authorization(fixture: &Fixture) -> String {
    let header = fixture.header("Authorization");
    header.split('<').next().unwrap_or_default().to_owned() + KEY
}

/// What is done with a file.
#[derive(Clone, Copy, PartialEq)]
enum Account {
    Read,
    Written,
    /// A message that is not spoken, and why not.
    Foreign(&'static str),
    /// No message: a vector, a table, a list of files. Other tests read those.
    Other,
}

fn account(subject: &Subject, fixture: &Fixture, requests: &[Recorded]) -> Account {
    let request = fixture.about("what") == "request";
    let written = requests.iter().any(|recorded| recorded.name == fixture.name);
    match subject.foreign(fixture) {
        _ if !request && !is_body(fixture) => Account::Other,
        Some(why) => {
            assert!(!written, "{} is foreign and ordered", fixture.name);
            Account::Foreign(why)
        }
        None if request => {
            assert!(written, "nothing is ordered as {}, and nothing says why", fixture.name);
            Account::Written
        }
        None => Account::Read,
    }
}

#[test]
fn every_fixture_is_accounted_for() {
    let (mut files, mut reasons) = (0, Vec::new());
    println!("\nfixtures     read  requests  foreign  other    all");
    for subject in SUBJECTS {
        let (all, requests) = (fixtures::all(subject.name), (subject.requests)());
        let accounts: Vec<Account> = all.iter().map(|file| account(subject, file, &requests)).collect();
        let count = |account: Account| accounts.iter().filter(|is| **is == account).count();
        let (read, written, other) = (count(Account::Read), count(Account::Written), count(Account::Other));
        let foreign = all.len() - read - written - other;
        println!("{:10} {read:6} {written:9} {foreign:8} {other:6} {:6}", subject.name, all.len());
        for (file, account) in all.iter().zip(&accounts) {
            match account {
                Account::Foreign(why) => reasons.push(format!("{}/{}: {why}", subject.name, file.name)),
                Account::Other => {
                    reasons.push(format!("{}/{}: {}", subject.name, file.name, file.about("what")));
                }
                Account::Read | Account::Written => {}
            }
        }
        for (part, _) in subject.foreign {
            assert!(all.iter().any(|file| file.name.contains(part)), "{}: no file is {part}", subject.name);
        }
        files += all.len();
    }
    println!("all {files:47}\n\nforeign and other\n  {}\n", reasons.join("\n  "));
    assert_eq!(files, 187, "so many files were recorded");
}
