//! Understands what MiniMax answers (`minimax.md` section 2).
//!
//! Pure. HTTP 200 does not mean success: `base_resp.status_code` decides. The song stands in the answer as a url or
//! as hexadecimal text, whichever was asked for; in a stream its pieces are several events.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{codes, hex};
use crate::provider::failure::{Class, Failure};
use crate::provider::http::{Answer, Purpose, doubtful};
use crate::provider::json;

/// A stream of more pieces than this is not one song's.
const EVENTS_MAX: usize = 100_000;

/// A finished song.
#[derive(Debug, PartialEq)]
pub(super) struct Song {
    /// MiniMax gives its songs no ids; that of the call is as good.
    pub(super) id: Option<String>,
    pub(super) duration_ms: Option<i64>,
    pub(super) audio: Audio,
}

#[derive(Debug, PartialEq)]
pub(super) enum Audio {
    Url(String),
    File(Bytes),
}

/// One answer, or one event of a stream. What may be long is not copied.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    base_resp: Option<&'a RawValue>,
    #[serde(borrow)]
    extra_info: Option<&'a RawValue>,
    #[serde(borrow)]
    trace_id: Option<&'a RawValue>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    audio_url: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
    #[serde(borrow)]
    audio_url: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

/// What the events said so far.
#[derive(Default)]
struct Heard {
    id: Option<String>,
    duration_ms: Option<i64>,
    url: Option<String>,
    pieces: Vec<Range<usize>>,
    unfinished: bool,
}

/// The song in an answer.
pub(super) fn song(answer: Answer) -> Result<Song, Failure> {
    let mut heard = Heard::default();
    let mut events = 0;
    for event in events_of(&answer.body) {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(event) else {
            return Err(unreadable(&answer, "no JSON object"));
        };
        if let Some(failure) = failure(&event, &answer) {
            return Err(failure);
        }
        heard.add(&event, &answer.body);
        events += 1;
    }
    if !answer.status.is_success() {
        return Err(codes::bare(&answer));
    }
    match heard {
        _ if events == 0 => Err(unreadable(&answer, "no JSON object")),
        // An answer that is none leaves nothing to ask for later.
        Heard { unfinished: true, .. } => Err(unreadable(&answer, "a song that is not finished")),
        Heard { id, duration_ms, url: Some(url), .. } => Ok(Song { id, duration_ms, audio: Audio::Url(url) }),
        Heard { pieces, .. } if pieces.is_empty() => Err(unreadable(&answer, "no song")),
        Heard { id, duration_ms, pieces, .. } => {
            Ok(Song { id, duration_ms, audio: Audio::File(hex::decode(answer.body, &pieces)) })
        }
    }
}

/// The JSON texts in a body: itself, or what stands behind each `data:` of a stream.
fn events_of(body: &[u8]) -> Vec<&[u8]> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    if !body.starts_with(b"data:") {
        return vec![body];
    }
    let lines = body.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    lines.map(<[u8]>::trim_ascii).filter(|event| *event != b"[DONE]").take(EVENTS_MAX).collect()
}

/// What an event says of a failure. Without a code the status of the whole answer tells.
fn failure(event: &Event<'_>, answer: &Answer) -> Option<Failure> {
    let told = event.base_resp.and_then(read)?;
    let code = json::number(&told, &["status_code"]).map(|code| code as i64).filter(|code| *code != 0)?;
    let message = json::text(&told, &["status_msg"]).unwrap_or_default();
    let failure = codes::classify(code, &message, answer.retry_after);
    // One that breaks may have made the song before; one that refuses has not.
    let broken = matches!(failure.class, Class::ProviderError | Class::Timeout) && !failure.operator;
    let broke = answer.status.is_server_error() && broken;
    Some(if broke { doubtful(failure, Purpose::Submit) } else { failure })
}

impl Heard {
    fn add(&mut self, event: &Event<'_>, body: &[u8]) {
        let id = |raw: Option<&RawValue>| json::id(&value_of(raw), &["value"]);
        self.id = self.id.take().or_else(|| id(event.trace_id)).or_else(|| id(event.task_id));
        if let Some(about) = event.extra_info.and_then(read) {
            self.duration_ms = json::duration_ms(&about, &["music_duration"]).or(self.duration_ms);
        }
        // Where it is not an object there is nothing in it for us.
        let data: Data<'_> =
            event.data.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        self.unfinished = json::number(&value_of(data.status), &["value"]) == Some(1.0);
        if let Some(piece) = data.audio.and_then(|raw| hex_in(raw, body)) {
            self.pieces.push(piece);
        } else {
            let url = |raw| json::url(&value_of(raw), &["value"]);
            self.url = self
                .url
                .take()
                .or_else(|| url(data.audio))
                .or_else(|| url(data.audio_url))
                .or_else(|| url(event.audio_url));
        }
    }
}

/// Where in the body the hexadecimal text of this value stands, if it is one.
fn hex_in(raw: &RawValue, body: &[u8]) -> Option<Range<usize>> {
    let text = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    // The value was borrowed from the body, so the difference of their addresses is its place there.
    let start = (text.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let place = start..start + text.len();
    (body.get(place.clone()) == Some(text.as_bytes()) && hex::is_hex(text.as_bytes())).then_some(place)
}

fn read(raw: &RawValue) -> Option<Value> {
    serde_json::from_str(raw.get()).ok()
}

/// A value under a key, as the readers of `json` want it.
fn value_of(raw: Option<&RawValue>) -> Value {
    serde_json::json!({ "value": raw.and_then(read) })
}

/// A success that cannot be understood: a song may have been made, and paid for.
fn unreadable(answer: &Answer, why: &str) -> Failure {
    if !answer.status.is_success() {
        return codes::bare(answer);
    }
    doubtful(Failure::new(Class::ProviderError, format!("{why} in {}", answer.excerpt())), Purpose::Submit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::StatusCode;
    use serde_json::json;

    fn told(body: impl Into<Vec<u8>>) -> Result<Song, Failure> {
        song(Answer { status: StatusCode::OK, retry_after: None, body: body.into() })
    }

    #[test]
    fn a_url_is_read_wherever_resellers_put_it() {
        let url = "https://x.test/a.mp3?Expires=1&Signature=a%2Bb";
        for body in [
            json!({"data": {"audio": url, "status": 2}, "base_resp": {"status_code": 0}}),
            json!({"data": {"audio": null, "audio_url": url}, "base_resp": {"status_code": "0"}}),
            json!({"audio_url": url, "task_id": "t"}),
            json!({"data": null, "audio_url": url, "more": [1]}),
        ] {
            let song = told(body.to_string()).expect("a song");
            assert_eq!(song.audio, Audio::Url(url.into()), "{body}");
        }
        let escaped = r#"{"data":{"audio":"https:\/\/x.test\/a.mp3?a=1\u0026b=2"}}"#;
        assert_eq!(told(escaped).expect("a song").audio, Audio::Url("https://x.test/a.mp3?a=1&b=2".into()));
    }

    #[test]
    fn a_song_in_the_answer_is_decoded() {
        let body = json!({"trace_id": 7, "data": {"audio": "49443304fF", "status": "2"},
            "extra_info": {"music_duration": "25364"}});
        let expected = Song {
            id: Some("7".into()),
            duration_ms: Some(25_364),
            audio: Audio::File(Bytes::from_static(b"ID3\x04\xff")),
        };
        assert_eq!(told(body.to_string()), Ok(expected));
    }

    #[test]
    fn what_holds_no_song_may_have_been_paid_for() {
        for body in [
            "",
            "null",
            "[]",
            "<html>",
            "{}",
            r#"{"data":{"audio":"","status":2},"base_resp":{"status_code":0}}"#,
            r#"{"data":{"audio":"494","status":2}}"#,
            r#"{"data":{"audio":"4944","status":1}}"#,
            r#"{"data":{"audio":["4944"]}}"#,
            r#"{"data":"49443304"}"#,
            "data: {\"data\":{\"audio\":\"4944\",\"status\":1}}\n\n",
            "data:",
        ] {
            let failure = told(body).expect_err(body);
            assert_eq!(failure.class, Class::ProviderError, "{body}");
            assert_eq!(failure.arrived, crate::provider::failure::Arrived::Maybe, "{body}");
        }
    }

    #[test]
    fn the_code_counts_also_beside_a_song() {
        let body =
            json!({"data": {"audio": "4944"}, "base_resp": {"status_code": "1027", "status_msg": null}});
        assert_eq!(told(body.to_string()).map_err(|failure| failure.class), Err(Class::Moderation));
    }
}
