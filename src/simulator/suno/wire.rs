//! The shapes in which the gateway tells about a task: snake_case in callbacks, camelCase in polls
//! (recorded in `tests/fixtures/suno`).

use std::cell::OnceCell;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::additions;
use crate::simulator::behaviour::FailureClass;
use crate::simulator::lyricist::{self, Words};
use crate::simulator::plan::{Event, Stage};
use crate::simulator::script::Script;
use crate::simulator::sound;
use crate::simulator::tasks::{Kind, Order, Task};
use crate::time::Time;

pub(super) fn envelope(code: u16, message: &str, data: Value) -> Value {
    json!({"code": code, "msg": message, "data": data})
}

/// The body of a callback.
pub(super) fn callback(task: &Task, event: Event) -> String {
    if is_addition(task) {
        return additions::callback(task, event);
    }
    let (code, message, name) = match event {
        Event::Text => (200, "Text generation completed.", "text"),
        Event::First => (200, "First track generated successfully.", "first"),
        Event::Complete => (200, "All generated successfully.", "complete"),
        Event::Failed(class) => {
            let fault = Fault::of(task.order.kind, class);
            (fault.code, fault.message, "error")
        }
    };
    let data = match (event, task.order.kind) {
        (Event::Failed(_), _) => Value::Null,
        (_, Kind::Lyrics) => texts(task),
        (event, _) => told_clips(task, event),
    };
    let id_name = if task.order.kind == Kind::Lyrics { "taskId" } else { "task_id" };
    envelope(code, message, json!({"callbackType": name, id_name: task.name(), "data": data})).to_string()
}

/// The `data` of a poll's answer.
pub(super) fn status(task: &Task, stage: Stage) -> Value {
    if is_addition(task) {
        return additions::status(task, stage);
    }
    let fault = match stage {
        Stage::Failed(class) => Some(Fault::of(task.order.kind, class)),
        Stage::Pending | Stage::Text | Stage::First | Stage::Done => None,
    };
    let mut data = json!({
        "taskId": task.name(),
        "param": param(task),
        "response": response(task, stage),
        "status": status_name(task, stage),
        "type": "LYRICS",
        "errorCode": fault.map(|fault| fault.code),
        "errorMessage": fault.map(|fault| fault.message),
    });
    if task.order.kind != Kind::Lyrics {
        data["type"] = json!(model_name(task));
        data["parentMusicId"] = json!("");
        data["operationType"] = json!("generate");
        data["createTime"] = json!(task.created.millis());
    }
    data
}

/// Stems and videos have shapes of their own.
fn is_addition(task: &Task) -> bool {
    matches!(task.order.kind, Kind::Stems | Kind::Video)
}

pub(super) fn status_name(task: &Task, stage: Stage) -> &'static str {
    match stage {
        Stage::Pending => "PENDING",
        Stage::Text => "TEXT_SUCCESS",
        Stage::First => "FIRST_SUCCESS",
        Stage::Done if task.callback_refused.load(Relaxed) => "CALLBACK_EXCEPTION",
        Stage::Done => "SUCCESS",
        Stage::Failed(class) => Fault::of(task.order.kind, class).status,
    }
}

fn response(task: &Task, stage: Stage) -> Value {
    let done = match stage {
        Stage::Pending | Stage::Failed(_) => return Value::Null,
        Stage::Text => [false, false],
        Stage::First => first_done(task),
        Stage::Done => [true, true],
    };
    match task.order.kind {
        Kind::Lyrics => json!({"taskId": task.name(), "data": texts(task)}),
        _ => {
            let clips = clips(task)
                .zip(done)
                .map(|(clip, done)| json!(clip.polled(if done { Seen::Whole } else { Seen::Stream })));
            json!({"taskId": task.name(), "sunoData": clips.collect::<Vec<_>>()})
        }
    }
}

/// The order once more, as a text (recorded so; no client needs it).
fn param(task: &Task) -> String {
    let order = &task.order;
    let mut param = json!({"prompt": &*order.prompt});
    if order.kind != Kind::Lyrics {
        param["customMode"] = json!(order.custom);
        param["instrumental"] = json!(order.instrumental);
        param["model"] = json!(&*order.model);
        param["callBackUrl"] = json!(&*order.callback_url);
        for (name, text) in [("style", &order.style), ("title", &order.title)] {
            if !text.is_empty() {
                param[name] = json!(&**text);
            }
        }
    }
    param.to_string()
}

/// How a failure is told, in a callback and in a poll.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) code: u16,
    pub(super) message: &'static str,
    status: &'static str,
}

impl Fault {
    pub(super) fn of(kind: Kind, class: FailureClass) -> Self {
        let (code, message, status) = match (class, kind) {
            (FailureClass::Moderation, _) => {
                (400, "Song Description contained artist name: the lantern men", "SENSITIVE_WORD_ERROR")
            }
            (FailureClass::InvalidInput, _) => (400, "Tags too long.", "CREATE_TASK_FAILED"),
            (_, Kind::Lyrics) => {
                (500, "Unable to generate lyrics from song description", "GENERATE_LYRICS_FAILED")
            }
            (_, Kind::Video) => (500, "Internal Error", "GENERATE_MP4_FAILED"),
            (_, Kind::Music | Kind::Section | Kind::Stems | Kind::Persona) => {
                (500, "Internal Error, Please try again later.", "GENERATE_AUDIO_FAILED")
            }
        };
        Self { code, message, status }
    }
}

fn texts(task: &Task) -> Value {
    let note = Script::read([&*task.order.prompt]).note();
    let texts = ["first text", "second text"].map(|salt| {
        let Words { title, mut text } = lyricist::write(&task.order.prompt, &mut task.chance(salt));
        if let Some(note) = &note {
            text = format!("{text}\n\n{note}");
        }
        json!({"text": text, "title": title, "status": "complete", "errorMessage": ""})
    });
    json!(texts)
}

/// How much of a clip can be had.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Seen {
    Words,
    Stream,
    Whole,
}

/// The clips as a callback tells them. Recorded `text` callbacks differ in how much they say, `first`
/// ones in whether the unfinished clip is in it: so they do here.
fn told_clips(task: &Task, event: Event) -> Value {
    let way = task.chance("way of telling").within(0, 3);
    let seen = match event {
        Event::Text if way == 0 => return json!([]),
        Event::Text if way == 1 => [Some(Seen::Words); 2],
        Event::Text => [Some(Seen::Stream); 2],
        Event::First => first_done(task)
            .map(|done| if done { Some(Seen::Whole) } else { (way < 2).then_some(Seen::Stream) }),
        Event::Complete | Event::Failed(_) => [Some(Seen::Whole); 2],
    };
    let clips = clips(task).zip(seen).filter_map(|(clip, seen)| Some(json!(clip.called_back(seen?))));
    json!(clips.collect::<Vec<_>>())
}

/// Which of the two clips is ready before the other: not always the first in the list.
fn first_done(task: &Task) -> [bool; 2] {
    let first = task.chance("first done").hit(0.75);
    [first, !first]
}

/// One of the two takes that come of a music task.
struct Clip<'a> {
    id: Uuid,
    origin: &'a str,
    words: String,
    model: String,
    title: String,
    tags: &'a str,
    created: Time,
}

fn clips(task: &Task) -> impl Iterator<Item = Clip<'_>> {
    let words = sung(task);
    let count = if task.order.kind == Kind::Section { 1 } else { 2 };
    ["first clip", "second clip"].into_iter().take(count).map(move |salt| Clip {
        id: task.clip(salt),
        origin: &task.origin,
        words: words.text.clone(),
        model: model_name(task),
        title: words.title.clone(),
        tags: if task.order.style.is_empty() { "acoustic, warm, melodic" } else { &task.order.style },
        created: task.created,
    })
}

/// What is sung, and under which title.
fn sung(task: &Task) -> Words {
    let order = &task.order;
    // Written only where it is wanted: load tests order words and title themselves.
    let written = OnceCell::new();
    let written = || written.get_or_init(|| lyricist::write(&order.prompt, &mut task.chance("sung")));
    let text = match order {
        Order { instrumental: true, .. } => String::from("[Instrumental]"),
        Order { custom: true, prompt, .. } => prompt.to_string(),
        Order { .. } => written().text.clone(),
    };
    let title = if order.title.is_empty() { written().title.clone() } else { order.title.to_string() };
    Words { title, text }
}

/// `chirp-v4-5` for `V4_5`.
fn model_name(task: &Task) -> String {
    format!("chirp-{}", task.order.model.to_lowercase().replace('_', "-"))
}

/// The same clip in two spellings.
macro_rules! clip_shape {
    ($(#[$doc:meta])* $name:ident, $case:literal, $created:ty) => {
        $(#[$doc])*
        #[derive(Serialize)]
        #[serde(rename_all = $case)]
        struct $name<'a> {
            id: Uuid,
            audio_url: String,
            source_audio_url: String,
            stream_audio_url: String,
            source_stream_audio_url: String,
            image_url: String,
            source_image_url: String,
            prompt: &'a str,
            model_name: &'a str,
            title: &'a str,
            tags: &'a str,
            #[serde(rename = "createTime")]
            created: $created,
            duration: Option<f64>,
        }

        impl<'a> $name<'a> {
            fn new(clip: &'a Clip<'_>, seen: Seen, created: $created) -> Self {
                let url = |from: Seen, path: &str, end: &str| {
                    let there = seen >= from;
                    there.then(|| format!("{}/suno/{path}/{}{end}", clip.origin, clip.id)).unwrap_or_default()
                };
                Self {
                    id: clip.id,
                    audio_url: url(Seen::Whole, "files", ".wav"),
                    source_audio_url: url(Seen::Whole, "cdn", ".wav"),
                    stream_audio_url: url(Seen::Stream, "files", ""),
                    source_stream_audio_url: url(Seen::Stream, "files", ""),
                    image_url: url(Seen::Stream, "files", ".png"),
                    source_image_url: url(Seen::Stream, "cdn", ".png"),
                    prompt: &clip.words,
                    model_name: &clip.model,
                    title: &clip.title,
                    tags: clip.tags,
                    created,
                    duration: (seen == Seen::Whole).then(|| sound::duration_s(clip.id)),
                }
            }
        }
    };
}

clip_shape!(
    /// In a callback; the time is a text.
    CalledBack, "snake_case", String
);
clip_shape!(
    /// In a poll's answer; the time is in milliseconds.
    Polled, "camelCase", i64
);

impl Clip<'_> {
    fn called_back(&self, seen: Seen) -> CalledBack<'_> {
        let stamp = self.created.rfc3339();
        CalledBack::new(self, seen, stamp[..19].replace('T', " "))
    }

    fn polled(&self, seen: Seen) -> Polled<'_> {
        Polled::new(self, seen, self.created.millis())
    }
}
