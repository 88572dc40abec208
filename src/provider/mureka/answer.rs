//! Understands what Mureka answers: accepted orders, finished texts and stems, tasks under way (`mureka.md`
//! sections 2 and 3).
//!
//! Pure. The HTTP status decides whether it is an error (`codes`).

use serde_json::Value;

use super::codes;
use crate::provider::failure::{Class, Failure};
use crate::provider::http::{Answer, Purpose, doubtful};
use crate::provider::json;
use crate::provider::{Clip, LyricsText, Made, News, Stage, Stem, Submitted, TaskKind};

/// `n` is at most 3; more than this is not a task's result.
const CHOICES_MAX: usize = 16;

/// What became of an order: a task to ask for, or at once the result.
pub(super) fn submitted(answer: &Answer, kind: TaskKind) -> Result<Submitted, Failure> {
    let body = body(answer, Purpose::Submit)?;
    let missing = |what| unreadable(answer, what, Purpose::Submit);
    match kind {
        TaskKind::Lyrics => {
            Ok(Submitted::Done(News::Lyrics(vec![written(&body).ok_or_else(|| missing("no lyrics"))?])))
        }
        TaskKind::Stems => {
            let stems = stems(&body).ok_or_else(|| missing("no stems"))?;
            Ok(Submitted::Done(News::Made(Made::Stems { stems })))
        }
        TaskKind::Generate
        | TaskKind::Extend
        | TaskKind::ReplaceSection
        | TaskKind::Merge
        | TaskKind::Cover
        | TaskKind::Persona
        | TaskKind::Video => {
            let task = json::id(&body, &["id"]).ok_or_else(|| missing("no task id"))?;
            Ok(Submitted::Task(task.into()))
        }
    }
}

/// What a poll tells about its task.
pub(super) fn polled(answer: &Answer) -> Result<News, Failure> {
    let body = body(answer, Purpose::Ask)?;
    let status = json::text(&body, &["status"])
        .ok_or_else(|| unreadable(answer, "no status", Purpose::Ask))?
        .to_lowercase();
    Ok(match status.as_str() {
        "succeeded" => News::Clips(Stage::Complete, clips(&body)),
        "streaming" => streaming(clips(&body)),
        "failed" | "timeouted" | "cancelled" => {
            News::Failed(codes::of_task(&status, json::text(&body, &["failed_reason"]).as_deref()))
        }
        // `preparing`, `queued`, `running`, `reviewing`, and whatever else is not an end.
        _ => News::Working,
    })
}

/// The object in an answer that is not an error.
fn body(answer: &Answer, purpose: Purpose) -> Result<Value, Failure> {
    if !answer.status.is_success() {
        return Err(codes::of_request(answer, purpose));
    }
    json::object(&answer.body).ok_or_else(|| unreadable(answer, "no JSON object", purpose))
}

/// A success that cannot be understood: an order may well have been taken.
fn unreadable(answer: &Answer, why: &str, purpose: Purpose) -> Failure {
    doubtful(Failure::new(Class::ProviderError, format!("{why} in {}", answer.excerpt())), purpose)
}

/// A text that came out empty is still an answer.
fn written(body: &Value) -> Option<LyricsText> {
    let text = body.get("lyrics").map(|_| json::text(body, &["lyrics"]).unwrap_or_default())?;
    Some(LyricsText { title: json::text(body, &["title"]), text })
}

/// All tracks in one file each for sound and, where it comes, for notes.
fn stems(body: &Value) -> Option<Vec<Stem>> {
    let archive = |name: &str, key| Some(Stem { name: name.into(), url: json::url(body, &[key])? });
    let mut stems = vec![archive("archive", "zip_url")?];
    stems.extend(archive("midi_archive", "midi_zip_url"));
    Some(stems)
}

/// What can be heard while the song is made; nothing is said of it before.
fn streaming(clips: Vec<Clip>) -> News {
    let heard = clips.iter().any(|clip| clip.stream_url.is_some());
    if heard { News::Clips(Stage::Text, clips) } else { News::Working }
}

/// The songs in their order, each once.
fn clips(body: &Value) -> Vec<Clip> {
    let Some(choices) = body.get("choices").and_then(Value::as_array) else { return Vec::new() };
    let mut choices: Vec<_> = choices.iter().filter(|choice| choice.is_object()).take(CHOICES_MAX).collect();
    // What has no index keeps its place behind those that have.
    let index = |choice: &&Value| json::number(choice, &["index"]).unwrap_or(f64::MAX);
    choices.sort_by(|one, other| index(one).total_cmp(&index(other)));
    let mut clips: Vec<Clip> = Vec::with_capacity(choices.len());
    for clip in choices.into_iter().map(clip) {
        if !clips.iter().any(|known| is_same(known, &clip)) {
            clips.push(clip);
        }
    }
    clips
}

/// Songs are told apart by their ids; without them (a stream has none) by all that is said of them.
fn is_same(one: &Clip, other: &Clip) -> bool {
    match (&one.clip_id, &other.clip_id) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// Neither title nor picture come from here. The largest file comes last.
fn clip(choice: &Value) -> Clip {
    Clip {
        clip_id: json::id(choice, &["id"]),
        lyrics: sung(choice),
        duration_ms: json::duration_ms(choice, &["duration"]),
        stream_url: json::url(choice, &["stream_url"]),
        audio_url: json::url(choice, &["url", "flac_url", "wav_url"]),
        ..Clip::default()
    }
}

/// The words with their sections, as they are written in orders.
fn sung(choice: &Value) -> Option<String> {
    let sections = choice.get("lyrics_sections")?.as_array()?;
    let texts: Vec<String> = sections.iter().filter_map(section).collect();
    json::clean(&texts.join("\n\n"))
}

fn section(section: &Value) -> Option<String> {
    let lines = section.get("lines").and_then(Value::as_array).into_iter().flatten();
    let lines: Vec<String> = lines.filter_map(|line| json::text(line, &["text"])).collect();
    let name = json::text(section, &["section_type"]).map(|name| format!("[{}]", capitalised(&name)));
    let words =
        name.into_iter().filter(|_| !lines.is_empty()).chain(lines.iter().cloned()).collect::<Vec<_>>();
    (!words.is_empty()).then(|| words.join("\n"))
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn songs_are_sorted_by_their_index_and_those_without_come_last() {
        let body = json!({"choices": [
            {"id": "c"}, {"index": "1", "id": "b"}, null, 7, {"index": 0, "id": 104_729_583_616_900_u64},
        ]});
        let ids: Vec<_> = clips(&body).into_iter().filter_map(|clip| clip.clip_id).collect();
        assert_eq!(ids, ["104729583616900", "b", "c"]);
        assert!(clips(&json!({"choices": {"id": "a"}})).is_empty());
    }

    #[test]
    fn sung_words_come_with_their_sections() {
        let choice = json!({"lyrics_sections": [
            {"section_type": "verse", "lines": [{"text": "one"}, {"text": " "}, {"words": []}, {"text": "two"}]},
            {"section_type": "outro", "lines": []},
            {"lines": [{"text": "three"}]},
            "chorus",
        ]});
        assert_eq!(sung(&choice).as_deref(), Some("[Verse]\none\ntwo\n\nthree"));
        assert_eq!(sung(&json!({"lyrics_sections": []})), None);
    }

    #[test]
    fn another_file_stands_in_where_the_small_one_is_missing() {
        let choice = json!({"url": "", "flac_url": "nowhere", "wav_url": "https://x.test/a.wav"});
        assert_eq!(clip(&choice).audio_url.as_deref(), Some("https://x.test/a.wav"));
    }
}
