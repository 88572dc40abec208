//! Understands what MusicGPT says: answers to submissions, polls and webhooks (`musicgpt.md` sections 2
//! to 4).
//!
//! Pure. A webhook is about one asset and has mostly no status, so what is in it tells what it means.

use serde_json::Value;

use super::codes::{gave_up, refused};
use super::fields;
use crate::provider::failure::{Class, Failure};
use crate::provider::http::{Answer, Purpose, doubtful};
use crate::provider::{
    Accepted, Callback, Clip, LyricsText, Made, Makes, Malformed, News, Order, Stage, Submitted, TaskKind,
    Work,
};

const TASK: &[&str] = &["task_id", "conversion_task_id"];
const WORDS: &[&str] = &["status_msg", "error", "message", "detail"];
/// Assets beside the clips: when one of these fails, the song has not.
const EXTRAS: &[&str] = &["album_cover_generation", "lyrics_timestamped"];

/// How a record says that its conversion, or its task, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Working,
    Completed,
    Failed,
    /// It does not say: what is there tells.
    Untold,
}

/// What came of an order.
pub(super) fn submitted(answer: &Answer, order: &Order) -> Result<Submitted, Failure> {
    let body = accepted(answer, Purpose::Submit)?;
    if has_failed(&body) {
        return Err(gave_up(&words(&body, &body), None));
    }
    if order.kind() == TaskKind::Lyrics {
        if body.get("lyrics").is_none() {
            return Err(unreadable(answer, "no lyrics", Purpose::Submit));
        }
        // Also an empty one: it was paid for, and whoever counts texts leaves it out (SONG-5).
        let text = fields::text(&body, &["lyrics"]).unwrap_or_default();
        return Ok(Submitted::Done(News::Lyrics(vec![LyricsText { title: None, text }])));
    }
    let task = fields::id(&body, TASK).ok_or_else(|| unreadable(answer, "no task id", Purpose::Submit))?;
    let mut clip_ids = match order.kind().makes() {
        Makes::Music => fields::conversion_ids(&body),
        Makes::Lyrics | Makes::Addition => Vec::new(),
    };
    // Two are always named, also where one was asked for.
    if matches!(order.work, Work::ReplaceSection { .. }) {
        clip_ids.truncate(usize::from(order.variants.max(1)));
    }
    Ok(Submitted::Task(Accepted { task, clip_ids }))
}

/// What a poll tells about its task.
pub(super) fn polled(answer: &Answer, kind: TaskKind) -> Result<News, Failure> {
    // For some seconds after its submission a task is not found.
    if answer.status.as_u16() == 404 && said(answer).to_lowercase().contains("not found") {
        return Ok(News::Working);
    }
    let body = accepted(answer, Purpose::Ask)?;
    let records = fields::records(&body);
    if records.is_empty() && has_failed(&body) {
        // The question failed, which says nothing about the task.
        return Err(gave_up(&words(&body, &body), None));
    }
    Ok(news(&body, &records, kind))
}

/// What a webhook's body tells.
pub(super) fn called_back(body: &[u8], kind: TaskKind) -> Result<Callback, Malformed> {
    let body = json(body).ok_or_else(|| Malformed("the body is neither a JSON object nor a list".into()))?;
    let records = fields::records(&body);
    let inner = records.iter().find_map(|record| fields::id(record, TASK));
    let provider_task = inner.or_else(|| fields::id(&body, TASK));
    if records.is_empty() && provider_task.is_none() {
        return Err(Malformed("neither a task nor a conversion".into()));
    }
    Ok(Callback { provider_task, news: news(&body, &records, kind) })
}

fn accepted(answer: &Answer, purpose: Purpose) -> Result<Value, Failure> {
    if !answer.status.is_success() {
        return Err(refused(answer, &said(answer), purpose));
    }
    json(&answer.body).ok_or_else(|| unreadable(answer, "no JSON object", purpose))
}

/// A success that cannot be understood: an order may well have been taken.
fn unreadable(answer: &Answer, why: &str, purpose: Purpose) -> Failure {
    doubtful(Failure::new(Class::ProviderError, format!("{why} in {}", answer.excerpt())), purpose)
}

fn json(body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body).ok().filter(|value: &Value| value.is_object() || value.is_array())
}

/// The words of an error's body; all of it where it is no JSON.
fn said(answer: &Answer) -> String {
    let words = json(&answer.body).map(|body| words(&body, &body)).unwrap_or_default();
    if words.is_empty() { answer.excerpt() } else { words }
}

/// The first words there are, in the record or around it. `detail` is sometimes a list of objects with `msg`.
fn words(record: &Value, body: &Value) -> String {
    let nested = |value: &Value| {
        WORDS.iter().find_map(|key| match value.get(key)? {
            Value::Array(list) => list.iter().find_map(|item| fields::text(item, &["msg", "message"])),
            object @ Value::Object(_) => fields::text(object, &["message", "msg"]),
            _ => None,
        })
    };
    let of = |value| fields::text(value, WORDS).or_else(|| nested(value));
    of(record).or_else(|| of(body)).unwrap_or_default()
}

/// `success: false`, also as text.
fn has_failed(value: &Value) -> bool {
    match value.get("success") {
        Some(Value::Bool(success)) => !success,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("false"),
        _ => false,
    }
}

fn status(record: &Value, body: &Value) -> Option<String> {
    let word = |value| fields::text(value, &["status"]);
    word(record).or_else(|| word(body)).map(|word| word.to_uppercase())
}

fn progress(record: &Value, body: &Value) -> Progress {
    match status(record, body).as_deref() {
        Some("ERROR" | "FAILED") => Progress::Failed,
        _ if has_failed(record) || has_failed(body) => Progress::Failed,
        Some("COMPLETED") => Progress::Completed,
        Some(_) => Progress::Working,
        None => Progress::Untold,
    }
}

fn failure(record: &Value, body: &Value) -> News {
    News::Failed(gave_up(&words(record, body), status(record, body)))
}

fn news(body: &Value, records: &[&Value], kind: TaskKind) -> News {
    let subtype = records.iter().find_map(|record| fields::text(record, &["subtype"])).unwrap_or_default();
    if EXTRAS.contains(&subtype.as_str()) && records.iter().any(|of| progress(of, body) == Progress::Failed) {
        return News::Working;
    }
    match (kind.makes(), records) {
        (_, []) if has_failed(body) => failure(body, body),
        (_, []) => News::Working,
        (Makes::Lyrics, [record, ..]) => lyrics(record, body),
        (Makes::Addition, [record, ..]) => stems(record, body),
        (Makes::Music, [record, ..]) if fields::is_task(record) => whole_task(record, body),
        (Makes::Music, [record]) => one_of_two(record, body),
        (Makes::Music, records) => several(records, body),
    }
}

fn lyrics(record: &Value, body: &Value) -> News {
    let text = fields::text(record, &["lyrics"]);
    match (progress(record, body), text) {
        (Progress::Failed, _) => failure(record, body),
        (_, Some(text)) => News::Lyrics(vec![LyricsText { title: None, text }]),
        (Progress::Completed, None) => News::Lyrics(Vec::new()),
        (Progress::Working | Progress::Untold, None) => News::Working,
    }
}

fn stems(record: &Value, body: &Value) -> News {
    let stems = fields::stems(record);
    match progress(record, body) {
        Progress::Failed => failure(record, body),
        _ if stems.is_empty() => News::Working,
        Progress::Working | Progress::Completed | Progress::Untold => News::Made(Made::Stems { stems }),
    }
}

/// A task with its conversions, as a poll by task shows it; the cover comes in this form as well. What is there
/// is used; a task that is done before any of its paths is there is waited for, because ordering it again would be
/// paid for again.
fn whole_task(record: &Value, body: &Value) -> News {
    let progress = progress(record, body);
    let over = matches!(progress, Progress::Completed | Progress::Failed);
    let mut clips = fields::conversions(record);
    let ready = clips.iter().filter(|clip| clip.audio_url.is_some()).count();
    for clip in &mut clips {
        clip.finished = over || clip.audio_url.is_some();
        clip.failed = progress == Progress::Failed && clip.audio_url.is_none();
    }
    let stage = match (ready, progress) {
        (0, Progress::Failed) => return failure(record, body),
        (0, Progress::Working | Progress::Completed | Progress::Untold) => {
            clips.iter_mut().for_each(|clip| clip.finished = false);
            return early(clips);
        }
        (_, Progress::Completed | Progress::Failed) => Stage::Complete,
        (_, Progress::Working | Progress::Untold) => Stage::First,
    };
    News::Clips(stage, clips)
}

/// What can be shown of clips before there is a file: cover or stream.
fn early(clips: Vec<Clip>) -> News {
    let shown =
        |clip: &Clip| clip.clip_id.is_some() && (clip.image_url.is_some() || clip.stream_url.is_some());
    if clips.iter().any(shown) { News::Clips(Stage::Text, clips) } else { News::Working }
}

/// One conversion alone. It does not tell of the other one, so it never ends the task.
fn one_of_two(record: &Value, body: &Value) -> News {
    let clip = fields::conversion(record);
    let failed = progress(record, body) == Progress::Failed;
    match (&clip.clip_id, &clip.audio_url) {
        (None, _) if failed => failure(record, body),
        (Some(_), _) if failed => News::Clips(Stage::First, vec![Clip { failed, finished: true, ..clip }]),
        (_, Some(_)) => News::Clips(Stage::First, vec![Clip { finished: true, ..clip }]),
        (_, None) => early(vec![clip]),
    }
}

/// A list of conversions, which a poll was seen to show.
fn several(records: &[&Value], body: &Value) -> News {
    let clips: Vec<Clip> = records
        .iter()
        .filter_map(|record| match one_of_two(record, body) {
            News::Clips(_, clips) => clips.into_iter().next(),
            News::Working | News::Lyrics(_) | News::Made(_) | News::Failed(_) => None,
        })
        .collect();
    let ended = clips.len() == records.len() && clips.iter().all(|clip| clip.finished);
    if ended && clips.iter().all(|clip| clip.failed) {
        return failure(records[0], body);
    }
    match clips.iter().any(|clip| clip.finished) {
        _ if ended => News::Clips(Stage::Complete, clips),
        true => News::Clips(Stage::First, clips),
        false => early(clips),
    }
}
