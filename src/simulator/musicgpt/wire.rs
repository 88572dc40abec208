//! The shapes in which MusicGPT tells about a task: one webhook for each asset, and polls by task or by
//! conversion, its word for a clip (recorded in `tests/fixtures/musicgpt`).

use std::cell::OnceCell;
use std::sync::Arc;

use actix_web::HttpResponse;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::order;
use crate::simulator::behaviour::FailureClass;
use crate::simulator::lyricist::{self, Words};
use crate::simulator::plan::{Event, Stage};
use crate::simulator::script::Script;
use crate::simulator::sound;
use crate::simulator::tasks::{Kind, Task};
use crate::time::Time;

/// What a conversion is said to cost, in US dollars.
const COST: f64 = 0.12;
const REFUSED: &str = "Prompt violates the content policy";

/// The answer to an order that was taken.
pub(super) fn accepted(task: &Task) -> Value {
    let mut answer = json!({
        "success": true,
        "message": "Message published to queue",
        "task_id": name(task),
        "eta": task.plan.ends_at().unwrap_or_default().as_secs(),
        "credit_estimate": 7.7,
    });
    if order::separates(&task.order) {
        answer["conversion_id"] = json!(conversion_id(task, 0));
    } else {
        // Two are named also where one was asked for.
        answer["conversion_id_1"] = json!(conversion_id(task, 0));
        answer["conversion_id_2"] = json!(conversion_id(task, 1));
    }
    answer
}

pub(super) fn lyrics(task: &Task) -> Value {
    let Words { mut text, .. } = lyricist::write(&task.order.prompt, &mut task.chance("text"));
    if let Some(note) = Script::read([&*task.order.prompt]).note() {
        text = format!("{text}\n\n{note}");
    }
    json!({"success": true, "task_id": name(task), "message": "ok", "lyrics": text, "credit_estimate": 0.5})
}

pub(super) fn lyrics_failure(class: FailureClass) -> HttpResponse {
    match class {
        FailureClass::Moderation => {
            HttpResponse::BadRequest().json(json!({"success": false, "error": REFUSED}))
        }
        _ => HttpResponse::Ok().json(json!({"success": false, "message": Fault::of(class).message})),
    }
}

/// The webhooks of an event, in their natural order: the cover, a clip, the other one, then the timed words of
/// both. Tracks come all at once.
pub(super) fn callbacks(task: &Task, event: Event) -> Vec<String> {
    // Lyrics are in their answer.
    if task.order.callback_url.is_empty() || task.order.kind == Kind::Lyrics {
        return Vec::new();
    }
    let first = first_done(task);
    let others = (0..order::clips(&task.order)).filter(|nth| *nth != first);
    let bodies = match event {
        Event::Failed(class) => vec![failed(task, class)],
        Event::Text | Event::First if order::separates(&task.order) => Vec::new(),
        Event::Complete if order::separates(&task.order) => vec![tracks_done(task)],
        Event::Text => vec![cover_done(task)],
        Event::First => vec![clip_done(task, first)],
        Event::Complete => {
            let clips = others.map(|nth| clip_done(task, nth));
            let sung = if task.order.instrumental { 0 } else { order::clips(&task.order) };
            clips.chain((0..sung).map(|nth| words_timed(task, nth))).collect()
        }
    };
    bodies.iter().map(Value::to_string).collect()
}

fn failed(task: &Task, class: FailureClass) -> Value {
    let fault = Fault::of(class);
    json!({
        "success": false,
        "task_id": name(task),
        "status": fault.status,
        "status_msg": fault.message,
        "conversion_type": order::conversion_type(&task.order),
    })
}

fn cover_done(task: &Task) -> Value {
    json!({
        "success": true,
        "subtype": "album_cover_generation",
        "task_id": name(task),
        "conversion_id_1": conversion_id(task, 0),
        "conversion_id_2": conversion_id(task, 1),
        "image_path": cover(task),
    })
}

fn clip_done(task: &Task, nth: usize) -> Value {
    let words = sung(task);
    json!({
        "success": true,
        "subtype": "music_ai",
        "task_id": name(task),
        "conversion_id": conversion_id(task, nth),
        "conversion_path": audio(task, nth),
        "conversion_path_wav": audio(task, nth),
        "conversion_duration": duration_s(task, nth),
        "title": words.title,
        "lyrics": words.text,
        "album_cover_path": cover(task),
    })
}

fn words_timed(task: &Task, nth: usize) -> Value {
    json!({
        "success": true,
        "subtype": "lyrics_timestamped",
        "task_id": name(task),
        "conversion_id": conversion_id(task, nth),
        "lyrics_timestamped": timed(&sung(task).text, duration_s(task, nth)),
    })
}

/// The addresses of the tracks are a JSON object inside a text.
fn tracks_done(task: &Task) -> Value {
    json!({
        "success": true,
        "task_id": name(task),
        "conversion_id": conversion_id(task, 0),
        "conversion_type": order::conversion_type(&task.order),
        "audio_url": tracks(task),
        "audio_url_wav": tracks(task),
        "conversion_cost": COST,
    })
}

/// A poll by task.
pub(super) fn status(task: &Task, stage: Stage) -> Value {
    if order::separates(&task.order) {
        return status_of_one(task, 0, stage);
    }
    let (status, message) = told(stage);
    let done = stage == Stage::Done;
    let words = OnceCell::new();
    let words = || words.get_or_init(|| sung(task));
    let mut told = json!({
        "task_id": name(task),
        "status": status,
        "message": message,
        "music_style": style(task),
        "album_cover_path": done.then(|| cover(task)),
        "album_cover_thumbnail": done.then(|| cover(task)),
        "createdAt": stamp(task.created),
        "updatedAt": stamp(updated(task, stage)),
    });
    for nth in 0..2 {
        let there = done && nth < order::clips(&task.order);
        let number = nth + 1;
        told[format!("conversion_id_{number}")] = json!(conversion_id(task, nth));
        told[format!("title_{number}")] = json!(there.then(|| &words().title));
        told[format!("conversion_path_{number}")] = json!(there.then(|| audio(task, nth)));
        told[format!("conversion_path_wav_{number}")] = json!(there.then(|| audio(task, nth)));
        told[format!("conversion_duration_{number}")] = json!(there.then(|| duration_s(task, nth)));
        told[format!("lyrics_{number}")] = json!(there.then(|| &words().text));
        told[format!("lyrics_timestamped_{number}")] =
            json!(there.then(|| timed(&words().text, duration_s(task, nth))));
    }
    told
}

/// A poll by conversion.
pub(super) fn status_of_one(task: &Task, nth: usize, stage: Stage) -> Value {
    let stage = match stage {
        Stage::First if nth == first_done(task) => Stage::Done,
        stage => stage,
    };
    let (status, message) = told(stage);
    let done = stage == Stage::Done;
    let words = done.then(|| sung(task));
    let file = || if order::separates(&task.order) { tracks(task) } else { audio(task, nth) };
    json!({
        "task_id": name(task),
        "conversion_id": conversion_id(task, nth),
        "status": status,
        "status_msg": message,
        "audio_url": done.then(file),
        "conversion_cost": COST,
        "title": words.as_ref().map(|words| &words.title),
        "lyrics": words.as_ref().map(|words| &words.text),
        "music_style": style(task),
        "createdAt": stamp(task.created),
        "updatedAt": stamp(updated(task, stage)),
    })
}

fn told(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::Pending => ("IN_QUEUE", "Conversion is in queue"),
        Stage::Text | Stage::First => ("PROCESSING", ""),
        Stage::Done => ("COMPLETED", "Conversion successful"),
        Stage::Failed(class) => {
            let fault = Fault::of(class);
            (fault.status, fault.message)
        }
    }
}

/// How a failure is told, in a webhook and in a poll. The words are guesses.
struct Fault {
    status: &'static str,
    message: &'static str,
}

impl Fault {
    fn of(class: FailureClass) -> Self {
        let (status, message) = match class {
            FailureClass::Moderation => ("ERROR", REFUSED),
            FailureClass::InvalidInput => ("ERROR", "Prompt too long"),
            _ => ("FAILED", "Generation failed"),
        };
        Self { status, message }
    }
}

fn name(task: &Task) -> String {
    task.id.hyphenated().to_string()
}

/// Follows from the task's id and leads back to it.
fn conversion_id(task: &Task, nth: usize) -> Uuid {
    beside(task.id, nth)
}

fn beside(id: Uuid, nth: usize) -> Uuid {
    Uuid::from_u128(id.as_u128() ^ (nth as u128 + 1))
}

/// The task of a conversion, and which of its conversions it is.
pub(super) fn task_of(id: &str, find: impl Fn(&str) -> Option<Arc<Task>>) -> Option<(Arc<Task>, usize)> {
    let id = Uuid::try_parse(id).ok()?;
    (0..2).find_map(|nth| Some((find(&beside(id, nth).to_string())?, nth)))
}

/// Which of the two clips is ready before the other: not always the first.
fn first_done(task: &Task) -> usize {
    let second = order::clips(&task.order) > 1 && task.chance("first done").hit(0.25);
    usize::from(second)
}

fn audio(task: &Task, nth: usize) -> String {
    format!("{}/musicgpt/files/{}.wav", task.origin, conversion_id(task, nth))
}

fn duration_s(task: &Task, nth: usize) -> f64 {
    sound::duration_s(conversion_id(task, nth))
}

fn cover(task: &Task) -> String {
    format!("{}/musicgpt/files/{}.png", task.origin, name(task))
}

fn tracks(task: &Task) -> String {
    let url = |stem: &str| format!("{}/musicgpt/files/{}.wav", task.origin, task.clip(stem));
    let tracks: Map<String, Value> =
        task.order.style.split(',').map(|stem| (stem.to_owned(), json!(url(stem)))).collect();
    Value::Object(tracks).to_string()
}

/// Without the wish that may stand under it.
fn style(task: &Task) -> &str {
    task.order.style.lines().next().unwrap_or_default()
}

/// What is sung, and under which title.
fn sung(task: &Task) -> Words {
    let order = &task.order;
    let written = lyricist::write(&order.prompt, &mut task.chance("sung"));
    let text = match (order.instrumental, order.custom) {
        (true, _) => String::from("[Instrumental]"),
        (false, true) => order.prompt.to_string(),
        (false, false) => written.text,
    };
    Words { title: if order.title.is_empty() { written.title } else { order.title.to_string() }, text }
}

/// Each line with its time in milliseconds, as a JSON list inside a text; a heading takes no time.
fn timed(words: &str, duration_s: f64) -> String {
    let lines: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
    let each = (duration_s * 1000.0 / lines.len().max(1) as f64) as u64;
    let line = |(index, text): (usize, &&str)| {
        let start = index as u64 * each;
        let end = if text.starts_with('[') { start } else { start + each };
        json!({"index": index, "text": text, "start": start, "end": end})
    };
    Value::Array(lines.iter().enumerate().map(line).collect()).to_string()
}

fn updated(task: &Task, stage: Stage) -> Time {
    let over = matches!(stage, Stage::Done | Stage::Failed(_));
    let after = task.plan.ends_at().filter(|_| over).unwrap_or_default();
    Time::from_millis(task.created.millis() + i64::try_from(after.as_millis()).unwrap_or_default())
}

/// To the second, as recorded.
fn stamp(time: Time) -> String {
    format!("{}Z", &time.rfc3339()[..19])
}
