//! Reads clips and texts out of whatever shape a gateway wraps them in (CB-3; `suno.md` section 5,
//! "Odd shapes a parser must accept").
//!
//! Everything outside is optional here: what cannot be used is `None`, never an error.

use reqwest::Url;
use serde_json::Value;

use crate::provider::json::{clean, url};
pub(super) use crate::provider::json::{id, is_id, number, text};
use crate::provider::{Clip, LyricsText, Stem};

/// Generate gives two clips; more than this is not a task's result.
const ITEMS_MAX: usize = 16;
/// The deepest known nesting is `data.response.sunoData`.
const DEPTH_MAX: u8 = 5;
/// No song is longer than a day.
const DURATION_S_MAX: f64 = 86_400.0;

const LISTS: &[&str] = &[
    "sunoData",
    "suno_data",
    "clips",
    "tracks",
    "lyricsData",
    "lyrics_data",
    "data",
    "response",
    "items",
    "result",
];
const CLIP_ID: &[&str] = &["id", "audioId", "audio_id", "clip_id", "clipId"];
const AUDIO: &[&str] = &["audio_url", "audioUrl", "source_audio_url", "sourceAudioUrl"];
const STREAM: &[&str] =
    &["stream_audio_url", "streamAudioUrl", "source_stream_audio_url", "sourceStreamAudioUrl"];
const IMAGE: &[&str] =
    &["image_url", "imageUrl", "image_large_url", "imageLargeUrl", "source_image_url", "sourceImageUrl"];
const VIDEO: &[&str] = &["video_url", "videoUrl"];
const SUNG: &[&str] = &["prompt", "lyric", "lyrics", "text"];
const WRITTEN: &[&str] = &["text", "lyrics", "lyric"];
const STATUS: &[&str] = &["status", "state"];

/// A separated clip's tracks, and what we call them.
const STEMS: [(&str, &str); 13] = [
    ("vocal", "vocals"),
    ("instrumental", "instrumental"),
    ("backing_vocals", "backing_vocals"),
    ("drums", "drums"),
    ("bass", "bass"),
    ("guitar", "guitar"),
    ("keyboard", "keyboard"),
    ("percussion", "percussion"),
    ("strings", "strings"),
    ("synth", "synth"),
    ("fx", "fx"),
    ("brass", "brass"),
    ("woodwinds", "woodwinds"),
];
/// Where the results of additions are.
const RESULTS: &[&str] = &["data", "response", "vocal_removal_info", "vocalRemovalInfo"];

/// The tracks below `value`; `None` where there is none.
pub(super) fn stems(value: &Value) -> Option<Vec<Stem>> {
    nearest(value, DEPTH_MAX, &|object| {
        let found = STEMS.iter().filter_map(|(wire, ours)| {
            let url = url(object, &[&format!("{wire}_url"), &format!("{}Url", camel_case(wire))])?;
            Some(Stem { name: (*ours).to_owned(), url })
        });
        Some(found.collect::<Vec<_>>()).filter(|stems| !stems.is_empty())
    })
}

/// The url of a video below `value`.
pub(super) fn video(value: &Value) -> Option<String> {
    nearest(value, DEPTH_MAX, &|object| url(object, VIDEO))
}

/// What `read` finds in the outermost object that has it.
fn nearest<T>(value: &Value, depth: u8, read: &dyn Fn(&Value) -> Option<T>) -> Option<T> {
    let below =
        || RESULTS.iter().filter_map(|key| value.get(key)).find_map(|it| nearest(it, depth - 1, read));
    read(value).or_else(|| if depth > 0 { below() } else { None })
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(word.len().min(1));
        name + &initial.to_uppercase() + rest
    })
}

/// The clips below `value`, each once, in the order of their first mention.
pub(super) fn clips(value: &Value) -> Vec<Clip> {
    let mut clips: Vec<Clip> = Vec::new();
    for clip in items(value, is_clip, DEPTH_MAX).into_iter().map(clip) {
        let known = clips.iter().position(|known| match &clip.clip_id {
            Some(id) => known.clip_id.as_ref() == Some(id),
            None => *known == clip,
        });
        match known {
            Some(at) => merge(&mut clips[at], clip),
            None if clips.len() < ITEMS_MAX => clips.push(clip),
            None => {}
        }
    }
    clips
}

/// The lyrics below `value`. One that failed keeps its place with an empty text.
pub(super) fn lyrics(value: &Value) -> Vec<LyricsText> {
    items(value, is_lyrics, DEPTH_MAX).into_iter().take(ITEMS_MAX).map(lyrics_text).collect()
}

/// The nearest list (or single object in place of one) with something of the wanted kind in it.
fn items(value: &Value, wanted: fn(&Value) -> bool, depth: u8) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().filter(|item| wanted(item)).collect(),
        Value::Object(object) if depth > 0 => {
            let nested = LISTS
                .iter()
                .filter_map(|key| object.get(*key))
                .map(|inner| items(inner, wanted, depth - 1))
                .find(|found| !found.is_empty());
            nested.unwrap_or_else(|| if wanted(value) { vec![value] } else { Vec::new() })
        }
        _ => Vec::new(),
    }
}

/// An `id` alone is not enough: events and tasks have one too.
fn is_clip(value: &Value) -> bool {
    let Value::Object(object) = value else { return false };
    let has = |keys: &[&str]| keys.iter().any(|key| object.contains_key(*key));
    let described = has(SUNG) || has(IMAGE) || has(STATUS) || has(&["title", "duration"]);
    has(AUDIO) || has(STREAM) || (has(CLIP_ID) && described)
}

fn is_lyrics(value: &Value) -> bool {
    match value {
        Value::Object(object) => WRITTEN.iter().any(|key| object.contains_key(*key)),
        Value::String(_) => true,
        _ => false,
    }
}

fn clip(value: &Value) -> Clip {
    let audio = url(value, AUDIO);
    let live = audio.as_deref().is_some_and(is_live_stream);
    let (stream, audio) = if live { (audio, None) } else { (None, audio) };
    Clip {
        clip_id: id(value, CLIP_ID),
        title: text(value, &["title"]),
        lyrics: text(value, SUNG).filter(|words| !is_instrumental_mark(words)),
        duration_ms: duration_ms(value),
        stream_url: url(value, STREAM).or(stream),
        audio_url: audio,
        image_url: url(value, IMAGE),
        video_url: url(value, VIDEO),
        fallback_url: None,
        finished: false,
        failed: has_failed(value),
    }
}

fn lyrics_text(value: &Value) -> LyricsText {
    let text = match value {
        Value::String(text) => clean(text),
        _ if has_failed(value) => None,
        _ => text(value, WRITTEN),
    };
    LyricsText { title: self::text(value, &["title"]), text: text.unwrap_or_default() }
}

/// The later mention fills what the earlier left open.
fn merge(known: &mut Clip, other: Clip) {
    let fill = |ours: &mut Option<String>, theirs| *ours = ours.take().or(theirs);
    fill(&mut known.title, other.title);
    fill(&mut known.lyrics, other.lyrics);
    fill(&mut known.stream_url, other.stream_url);
    fill(&mut known.audio_url, other.audio_url);
    fill(&mut known.image_url, other.image_url);
    fill(&mut known.video_url, other.video_url);
    known.duration_ms = known.duration_ms.or(other.duration_ms);
    known.failed &= other.failed;
}

fn has_failed(value: &Value) -> bool {
    let status = text(value, STATUS).unwrap_or_default().to_lowercase();
    matches!(status.as_str(), "error" | "failed" | "failure" | "fail")
}

fn is_instrumental_mark(words: &str) -> bool {
    words.trim_matches(['[', ']', ' ']).eq_ignore_ascii_case("instrumental")
}

/// `audiopipe` plays while the song is being made; as a file it would be cut off (`suno.md` section 7).
fn is_live_stream(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.host_str() == Some("audiopipe.suno.ai"))
}

/// Seconds on the wire, as a number or as text.
fn duration_ms(value: &Value) -> Option<i64> {
    let seconds = number(value, &["duration"])?;
    let usable = seconds > 0.0 && seconds <= DURATION_S_MAX;
    usable.then(|| (seconds * 1000.0).round() as i64)
}

/// Replaces JSON that was sent as text (`"response": "{\"sunoData\":…}"`) by what it says.
pub(super) fn unwrap_texts(value: &mut Value) {
    for key in ["data", "response"] {
        if let Some(inner) = value.get_mut(key) {
            if let Some(object) = inner.as_str().and_then(object_in_text) {
                *inner = object;
            }
            unwrap_texts_below(inner);
        }
    }
}

fn unwrap_texts_below(value: &mut Value) {
    if let Some(response) = value.get_mut("response")
        && let Some(object) = response.as_str().and_then(object_in_text)
    {
        *response = object;
    }
}

fn object_in_text(text: &str) -> Option<Value> {
    let plausible = text.trim_start().starts_with(['{', '[']);
    plausible.then(|| serde_json::from_str(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn clips_are_found_in_every_known_wrapping() {
        let clip = json!({"id": "a-1", "audio_url": "https://x.test/a.mp3"});
        for body in [
            json!({"data": {"data": [clip]}}),
            json!({"data": [clip]}),
            json!({"data": clip}),
            json!({"data": {"data": clip}}),
            json!({"clips": [clip]}),
            json!({"data": {"clips": [clip]}}),
            json!({"sunoData": [clip]}),
            json!({"response": {"sunoData": [clip]}}),
            json!({"data": {"response": {"sunoData": [clip]}}}),
            json!({"data": {"response": {"data": [clip]}}}),
            json!({"data": {"response": {"tracks": [clip]}}}),
            clip.clone(),
            json!([clip]),
        ] {
            let found = clips(&body);
            assert_eq!(found.len(), 1, "{body}");
            assert_eq!(found[0].clip_id.as_deref(), Some("a-1"), "{body}");
        }
    }

    #[test]
    fn results_of_other_tasks_are_no_clips() {
        for body in [
            json!({"data": {"task_id": "t", "vocal_removal_info": {"vocal_url": "https://x.test/v.mp3"}}}),
            json!({"data": {"task_id": "t", "audioWavUrl": "https://x.test/v.wav"}}),
            json!({"data": {"taskId": "t", "images": ["https://x.test/i.png"]}}),
            json!({"data": {"id": "event"}}),
        ] {
            assert_eq!(clips(&body), [], "{body}");
        }
    }

    #[test]
    fn a_clip_that_comes_twice_is_one_clip_with_all_that_was_said() {
        let body = json!({"data": [
            {"id": "a", "audio_url": "", "title": "T", "status": "error"},
            {"id": "b", "audio_url": ""},
            {"audioId": "a", "audioUrl": "https://x.test/a.mp3", "duration": "61.5"},
        ]});
        let found = clips(&body);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].title.as_deref(), Some("T"));
        assert_eq!(found[0].audio_url.as_deref(), Some("https://x.test/a.mp3"));
        assert_eq!(found[0].duration_ms, Some(61_500));
        assert!(!found[0].failed);
    }

    #[test]
    fn unusable_fields_are_left_out() {
        let body = json!({
            "id": "a b", "audio_url": "ftp://x.test/a", "stream_audio_url": "not a url", "image_url": "",
            "image_large_url": "http://127.0.0.1:9090/i.png", "title": " \u{0}", "prompt": "[Instrumental]",
            "tags": ["one", "two"], "duration": -3
        });
        let image_url = Some("http://127.0.0.1:9090/i.png".into());
        assert_eq!(clips(&body), [Clip { image_url, ..Clip::default() }]);
        for duration in [json!("NaN"), json!(1e300), json!(0), json!("inf"), json!([3]), json!("x")] {
            assert_eq!(duration_ms(&json!({"duration": duration})), None, "{duration}");
        }
    }

    #[test]
    fn a_live_stream_is_never_taken_for_the_file() {
        let live = "https://audiopipe.suno.ai/?item_id=a";
        let found = clips(&json!([{"id": "a", "audio_url": live}]));
        assert_eq!((found[0].stream_url.as_deref(), found[0].audio_url.as_deref()), (Some(live), None));
    }

    #[test]
    fn sung_words_are_read_under_any_of_their_names() {
        for key in ["prompt", "lyric", "lyrics", "text"] {
            let found = clips(&json!([{"id": "a", "title": "t", key: "la la"}]));
            assert_eq!(found[0].lyrics.as_deref(), Some("la la"), "{key}");
        }
    }

    #[test]
    fn lyrics_that_failed_keep_their_place_without_text() {
        let body = json!({"data": {"data": [
            {"text": "la", "title": "A", "status": "complete"},
            {"text": "half", "title": "", "status": "failed"},
        ]}});
        let expected = [
            LyricsText { title: Some("A".into()), text: "la".into() },
            LyricsText { title: None, text: String::new() },
        ];
        assert_eq!(lyrics(&body), expected);
    }

    #[test]
    fn a_response_sent_as_text_is_read() {
        let mut body = json!({"data": {"response": "{\"sunoData\":[{\"id\":\"a\",\"title\":\"t\"}]}"}});
        unwrap_texts(&mut body);
        assert_eq!(clips(&body).len(), 1);
    }
}
