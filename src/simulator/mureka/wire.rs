//! The shapes in which Mureka tells about a task (recorded in `tests/fixtures/mureka`).

use std::borrow::Cow;

use serde_json::{Value, json};
use uuid::Uuid;

use super::order;
use crate::simulator::behaviour::FailureClass;
use crate::simulator::lyricist::{self, Words};
use crate::simulator::plan::Stage;
use crate::simulator::script::Script;
use crate::simulator::sound;
use crate::simulator::tasks::Task;

/// How the result of an order that is answered at once is told.
pub(super) type Told = fn(&Task) -> Value;

/// How long urls live, in seconds.
const LINKS_LIVE_S: i64 = 30 * 24 * 3600;

/// An error as it is answered.
pub(super) struct Fault {
    pub(super) status: u16,
    pub(super) message: Cow<'static, str>,
}

impl Fault {
    pub(super) const INVALID: Self = Self::new(400, "Invalid request parameters: prompt");
    pub(super) const NO_KEY: Self = Self::new(401, "Invalid Authentication");
    pub(super) const NOT_FOUND: Self = Self::new(404, "Not Found");
    pub(super) const TOO_FAST: Self = Self::new(429, "Rate Limit Exceeded");
    pub(super) const NO_MONEY: Self = Self::new(429, "Quota Exceeded");
    pub(super) const UNSAFE: Self = Self::new(451, "Content did not pass the safety review");
    pub(super) const BROKEN: Self = Self::new(500, "The server had an error while processing your request");

    const fn new(status: u16, message: &'static str) -> Self {
        Self { status, message: Cow::Borrowed(message) }
    }

    /// What an order that is answered at once fails with.
    pub(super) fn of(class: FailureClass) -> Self {
        match class {
            FailureClass::Moderation => Self::UNSAFE,
            FailureClass::InvalidInput => Self::INVALID,
            FailureClass::RateLimited => Self::TOO_FAST,
            FailureClass::InsufficientProviderCredits => Self::NO_MONEY,
            FailureClass::ProviderError | FailureClass::Timeout | FailureClass::Network => Self::BROKEN,
        }
    }
}

pub(super) fn error(fault: &Fault) -> Value {
    json!({"error": {"message": fault.message}, "trace_id": "5e1f0a7c2d"})
}

/// Ids are long numbers, written as text.
fn id_of(id: Uuid) -> String {
    id.as_u128().to_string()
}

/// The task that is meant by an id, as the world names it.
pub(super) fn task_id(id: &str) -> Option<String> {
    id.parse().ok().map(|id| Uuid::from_u128(id).to_string())
}

/// The answer to an order that is asked for later.
pub(super) fn accepted(task: &Task) -> Value {
    let mut told = about(task, "preparing");
    told["trace_id"] = json!("5e1f0a7c2d");
    told
}

/// A poll's answer.
pub(super) fn status(task: &Task, stage: Stage) -> Value {
    let mut told = about(
        task,
        match stage {
            Stage::Pending => "queued",
            Stage::Text | Stage::First => "running",
            Stage::Done => "succeeded",
            Stage::Failed(_) => "failed",
        },
    );
    if let (Stage::Done | Stage::Failed(_), Some(end)) = (stage, task.plan.ends_at()) {
        told["finished_at"] = json!((task.created + end).millis() / 1000);
    }
    match stage {
        Stage::Done => {
            told["watermarked"] = json!(false);
            told["choices"] = (0..order::songs(&task.order)).map(|index| choice(task, index)).collect();
        }
        Stage::Failed(class) => told["failed_reason"] = json!(reason(class)),
        Stage::Pending | Stage::Text | Stage::First => {}
    }
    told
}

fn about(task: &Task, status: &str) -> Value {
    json!({
        "id": id_of(task.id),
        "created_at": task.created.millis() / 1000,
        "model": &*task.order.model,
        "status": status,
    })
}

fn reason(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Moderation => "Content did not pass the safety review",
        FailureClass::InvalidInput => "Invalid request parameters: lyrics",
        FailureClass::ProviderError
        | FailureClass::InsufficientProviderCredits
        | FailureClass::RateLimited
        | FailureClass::Timeout
        | FailureClass::Network => "generation failed",
    }
}

/// One of the songs. All three files are the same sound.
fn choice(task: &Task, index: usize) -> Value {
    let clip = task.clip(&format!("song {index}"));
    let url = format!("{}/mureka/files/{clip}.wav", task.origin);
    let duration_ms = (sound::duration_s(clip) * 1000.0).round() as i64;
    let mut choice = json!({
        "index": index,
        "id": id_of(clip),
        "url": url,
        "flac_url": url,
        "wav_url": url,
        "duration": duration_ms,
    });
    if !task.order.instrumental {
        choice["lyrics_sections"] = sections(&sung(task), duration_ms);
    }
    choice
}

fn sung(task: &Task) -> String {
    match task.order.custom {
        true => task.order.prompt.to_string(),
        false => lyricist::write(&task.order.prompt, &mut task.chance("sung")).text,
    }
}

/// The words, spread evenly over the song.
fn sections(words: &str, duration_ms: i64) -> Value {
    let told = || words.lines().map(str::trim).filter(|line| !line.is_empty());
    let count = told().filter(|line| heading(line).is_none()).count() as i64;
    let mut lines = 0;
    let mut sections: Vec<Value> = Vec::new();
    for line in told() {
        let heading = heading(line);
        let start = duration_ms * lines / count.max(1);
        if heading.is_some() || sections.is_empty() {
            let kind = heading.unwrap_or("verse").split(' ').next().unwrap_or_default().to_lowercase();
            sections.push(json!({"section_type": kind, "start": start, "end": start, "lines": []}));
        }
        if let (None, Some(section)) = (heading, sections.last_mut()) {
            lines += 1;
            let end = duration_ms * lines / count.max(1);
            section["end"] = json!(end);
            if let Some(list) = section["lines"].as_array_mut() {
                list.push(json!({"start": start, "end": end, "text": line}));
            }
        }
    }
    json!(sections)
}

/// `Verse 1` of `[Verse 1]`.
fn heading(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']')
}

/// One text. Words for the simulator go on to the music that is made of it.
pub(super) fn lyrics(task: &Task) -> Value {
    let Words { title, mut text } = lyricist::write(&task.order.prompt, &mut task.chance("lyrics"));
    if let Some(note) = Script::read([&*task.order.prompt]).note() {
        text = format!("{text}\n\n{note}");
    }
    json!({"title": title, "lyrics": text})
}

/// What follows on a text: another chorus.
pub(super) fn more_lyrics(task: &Task) -> Value {
    let text = lyricist::write(&task.order.prompt, &mut task.chance("more lyrics")).text;
    let last = text.rfind("[Bridge]").map_or(&*text, |at| &text[at..]);
    json!({"lyrics": last})
}

pub(super) fn stems(task: &Task) -> Value {
    json!({
        "zip_url": format!("{}/mureka/stems/{}.zip", task.origin, task.clip("stems")),
        "expires_at": task.created.millis() / 1000 + LINKS_LIVE_S,
    })
}

/// An account that never runs dry.
pub(super) fn billing() -> Value {
    json!({
        "account_id": 104_729_000_001_i64,
        "balance": 24_850,
        "total_recharge": 30_000,
        "total_spending": 5_150,
        "concurrent_request_limit": 5,
    })
}
