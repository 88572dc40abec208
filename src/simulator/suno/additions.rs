//! How the gateway tells of what is made beside a song: stems and videos. No `callbackType`, and a poll has
//! its state in `successFlag` (recorded in `tests/fixtures/suno`).

use serde_json::{Map, Value, json};

use super::wire::{Fault, envelope, status_name};
use crate::simulator::plan::{Event, Stage};
use crate::simulator::tasks::{Kind, Task};

/// The `type` of an order for stems that wants all there are.
pub(super) const TWELVE: &str = "split_stem";

const VOCALS_AND_REST: [&str; 2] = ["instrumental", "vocal"];
const ALL: [&str; 12] = [
    "vocal",
    "backing_vocals",
    "drums",
    "bass",
    "guitar",
    "keyboard",
    "percussion",
    "strings",
    "synth",
    "fx",
    "brass",
    "woodwinds",
];

/// The body of a callback.
pub(super) fn callback(task: &Task, event: Event) -> String {
    let stems = task.order.kind == Kind::Stems;
    let (result, done, failed) = match stems {
        true => ("vocal_removal_info", "vocal Removal generated successfully.", "Vocal separation failed"),
        false => ("video_url", "MP4 generated successfully.", "Music video generation failed"),
    };
    let (code, message, value) = match event {
        Event::Failed(_) => (400, failed, Value::Null),
        _ if stems => (200, done, told_stems(task)),
        _ => (200, done, json!(video_url(task))),
    };
    envelope(code, message, json!({"task_id": task.name(), result: value})).to_string()
}

/// The `data` of a poll's answer.
pub(super) fn status(task: &Task, stage: Stage) -> Value {
    let fault = match stage {
        Stage::Failed(class) => Some(Fault::of(task.order.kind, class)),
        Stage::Pending | Stage::Text | Stage::First | Stage::Done => None,
    };
    let response = match (stage, task.order.kind) {
        (Stage::Done, Kind::Stems) => polled_stems(task),
        (Stage::Done, _) => json!({"videoUrl": video_url(task)}),
        _ => Value::Null,
    };
    let lasted = task.plan.ends_at().filter(|_| stage == Stage::Done);
    let completed = lasted.map(|lasted| (task.created + lasted).millis());
    json!({
        "taskId": task.name(),
        "musicId": &*task.order.prompt,
        "callbackUrl": &*task.order.callback_url,
        "musicIndex": 0,
        "completeTime": completed,
        "response": response,
        "successFlag": status_name(task, stage),
        "createTime": task.created.millis(),
        "errorCode": fault.map(|fault| fault.code),
        "errorMessage": fault.map(|fault| fault.message),
    })
}

fn told_stems(task: &Task) -> Value {
    let named = stems(task).iter().map(|stem| (format!("{stem}_url"), json!(stem_url(task, stem))));
    let mut told: Map<String, Value> = named.collect();
    told.insert("origin_url".to_owned(), json!(""));
    Value::Object(told)
}

/// All names, those that were not made with null.
fn polled_stems(task: &Task) -> Value {
    let made = stems(task);
    let names = ALL.into_iter().chain(["instrumental", "origin"]);
    let named = names.map(|stem| {
        let url = made.contains(&stem).then(|| stem_url(task, stem));
        (camel_case(&format!("{stem}_url")), json!(url))
    });
    Value::Object(named.collect())
}

fn stems(task: &Task) -> &'static [&'static str] {
    if &*task.order.model == TWELVE { &ALL } else { &VOCALS_AND_REST }
}

fn stem_url(task: &Task, stem: &str) -> String {
    format!("{}/suno/files/{}.wav", task.origin, task.clip(stem))
}

fn video_url(task: &Task) -> String {
    format!("{}/suno/files/{}.mp4", task.origin, task.clip("video"))
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(word.len().min(1));
        name + &initial.to_uppercase() + rest
    })
}
