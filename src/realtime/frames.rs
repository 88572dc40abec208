//! What the server says in the protocol `songs.v1`, and what channels and cursors are (`protocol.md` 2-8). Pure:
//! values in, texts out; `wire` puts them into WebSocket frames. What clients say is in `commands`.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::id::{ShareToken, SongId};
use crate::song::event::EventKind;
use crate::time::Time;

/// The longest text of a server's frame.
pub const FRAME_BYTES_MAX: usize = 65_536;
/// Kept free in a frame for what stands around a song or a `set`.
const ENVELOPE_BYTES: usize = 1024;
/// Of a channel's name that is none of ours, so much is said back.
const CHANNEL_CHARS_MAX: usize = 64;

/// Where a client is in a channel. Opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub epoch: i64,
    pub n: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

impl FromStr for Cursor {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, n) = text.split_once('.').ok_or(())?;
        let number = |digits: &str| match digits.parse::<i64>() {
            Ok(number) if number >= 0 => Ok(number),
            _ => Err(()),
        };
        Ok(Self { epoch: number(epoch)?, n: number(n)? })
    }
}

/// What can be watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// All songs of the user.
    Me,
    Song(SongId),
    /// One variant, for whoever holds its link (RT-6).
    Share(ShareToken),
}

impl FromStr for Channel {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "me" => Ok(Channel::Me),
            Some(("song", id)) => id.parse().map(Channel::Song).map_err(drop),
            Some(("share", token)) => token.parse().map(Channel::Share).map_err(drop),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Channel::Me => f.write_str("me"),
            Channel::Song(id) => write!(f, "song:{id}"),
            Channel::Share(token) => write!(f, "share:{token}"),
        }
    }
}

#[derive(Serialize)]
pub struct Welcome<'a> {
    pub id: Option<u64>,
    pub conn: &'a str,
    pub now: Time,
    /// Milliseconds, as are `pong` and those of `retry`.
    pub ping: u64,
    pub pong: u64,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_exp: Option<i64>,
    pub retry: Retry,
    pub limits: ClientLimits,
}

#[derive(Serialize)]
pub struct Retry {
    pub min: u64,
    pub max: u64,
}

#[derive(Serialize)]
pub struct ClientLimits {
    pub subs: usize,
    pub frame: usize,
    pub cmds: u32,
}

pub fn welcome(welcome: &Welcome<'_>) -> String {
    #[derive(Serialize)]
    struct Tagged<'a> {
        t: &'static str,
        #[serde(flatten)]
        welcome: &'a Welcome<'a>,
    }
    json(&Tagged { t: "welcome", welcome })
}

/// How a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With exactly the missing events, this many.
    Resumed(usize),
    Snapshot(Why),
    /// It is on already.
    Dup,
    /// Another channel brings it already.
    ViaMe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    New,
    TooOld,
    TooMany,
    Epoch,
    Restored,
}

impl Why {
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::New => "new",
            Why::TooOld => "too_old",
            Why::TooMany => "too_many",
            Why::Epoch => "epoch",
            Why::Restored => "restored",
        }
    }
}

pub fn subd(id: Option<u64>, channel: &str, mode: Mode) -> String {
    let mut text = opened("subd", id, Some(channel));
    match mode {
        Mode::Resumed(n) => push(&mut text, format_args!(r#","mode":"resumed","n":{n}}}"#)),
        Mode::Snapshot(why) => {
            push(&mut text, format_args!(r#","mode":"snapshot","why":"{}"}}"#, why.as_str()));
        }
        Mode::Dup => text.push_str(r#","dup":true}"#),
        Mode::ViaMe => text.push_str(r#","via":"me"}"#),
    }
    text
}

pub fn unsubd(id: Option<u64>, channel: &str) -> String {
    opened("unsubd", id, Some(channel)) + "}"
}

/// The pages of a snapshot, each a frame; the last carries the cursor.
pub fn snap(channel: &str, songs: Vec<Map<String, Value>>, cursor: Option<Cursor>) -> Vec<String> {
    let room = FRAME_BYTES_MAX - ENVELOPE_BYTES;
    let mut pages = vec![String::new()];
    for song in songs {
        let song = fitting(song, room);
        let page = pages.last_mut().filter(|page| page.is_empty() || page.len() + 1 + song.len() <= room);
        match page {
            Some(page) if page.is_empty() => *page = song,
            Some(page) => {
                page.push(',');
                page.push_str(&song);
            }
            None => pages.push(song),
        }
    }
    let last = pages.len() - 1;
    let framed = |(at, songs): (usize, String)| {
        let mut text = opened("snap", None, Some(channel));
        push(&mut text, format_args!(r#","songs":[{songs}]"#));
        match cursor {
            _ if at < last => text.push_str(r#","more":true}"#),
            Some(cursor) => push(&mut text, format_args!(r#","c":"{cursor}"}}"#)),
            None => text.push('}'),
        }
        text
    };
    pages.into_iter().enumerate().map(framed).collect()
}

/// A song as JSON that fits: without its largest fields if need be, which are named instead.
fn fitting(mut song: Map<String, Value>, room: usize) -> String {
    let mut text = json(&song);
    let mut omitted: Vec<Value> = Vec::new();
    while text.len() > room {
        let largest = song
            .iter()
            .filter(|(field, _)| !matches!(field.as_str(), "id" | "seq" | "status" | "omitted"))
            .max_by_key(|(_, value)| json(value).len())
            .map(|(field, _)| field.clone());
        let Some(field) = largest else { break };
        song.remove(&field);
        omitted.push(field.into());
        song.insert("omitted".to_owned(), omitted.clone().into());
        text = json(&song);
    }
    text
}

pub fn live(channel: &str, cursor: Cursor) -> String {
    let mut text = opened("live", None, Some(channel));
    push(&mut text, format_args!(r#","c":"{cursor}"}}"#));
    text
}

pub struct EventFrame<'a> {
    pub channel: &'a str,
    pub cursor: Option<Cursor>,
    pub song: SongId,
    pub seq: i64,
    pub prev: i64,
    pub skipped: i64,
    pub at: Time,
    pub kind: EventKind,
    /// A JSON object.
    pub set: Arc<RawValue>,
}

pub fn event(event: &EventFrame<'_>) -> String {
    let mut text = String::with_capacity(event.set.get().len() + 256);
    text.push_str(r#"{"t":"ev","ch":""#);
    // Channels are `me` or a word and a UUID: nothing in them needs an escape.
    text.push_str(event.channel);
    text.push('"');
    if let Some(cursor) = event.cursor {
        push(&mut text, format_args!(r#","c":"{cursor}""#));
    }
    let EventFrame { song, seq, prev, .. } = event;
    push(&mut text, format_args!(r#","song":"{song}","seq":{seq},"prev":{prev}"#));
    if event.skipped > 0 {
        push(&mut text, format_args!(r#","skipped":{}"#, event.skipped));
    }
    push(&mut text, format_args!(r#","at":{},"kind":"{}""#, event.at.millis(), event.kind.as_str()));
    let set = event.set.get();
    if event.kind == EventKind::Gone {
        text.push('}');
    } else if set.len() <= FRAME_BYTES_MAX - ENVELOPE_BYTES {
        push(&mut text, format_args!(r#","set":{set}}}"#));
    } else {
        push_fitting_set(&mut text, set);
    }
    text
}

fn push_fitting_set(text: &mut String, set: &str) {
    let mut set: Map<String, Value> = serde_json::from_str(set).unwrap_or_default();
    let mut fitted: Map<String, Value> =
        serde_json::from_str(&fitting(std::mem::take(&mut set), FRAME_BYTES_MAX - ENVELOPE_BYTES))
            .unwrap_or_default();
    let omitted = fitted.remove("omitted").unwrap_or(Value::Array(Vec::new()));
    push(text, format_args!(r#","set":{},"omitted":{omitted}}}"#, json(&fitted)));
}

pub fn ping<'a>(now: Time, heads: impl Iterator<Item = (&'a str, Cursor)>) -> String {
    let mut text = format!(r#"{{"t":"ping","now":{},"heads":{{"#, now.millis());
    for (at, (channel, cursor)) in heads.enumerate() {
        let comma = if at == 0 { "" } else { "," };
        push(&mut text, format_args!(r#"{comma}"{channel}":"{cursor}""#));
    }
    text.push_str("}}");
    text
}

pub fn pong(id: Option<u64>, now: Time) -> String {
    let mut text = opened("pong", id, None);
    push(&mut text, format_args!(r#","now":{}}}"#, now.millis()));
    text
}

pub fn authd(id: Option<u64>, token_exp: i64) -> String {
    let mut text = opened("authd", id, None);
    push(&mut text, format_args!(r#","token_exp":{token_exp}}}"#));
    text
}

pub fn auth_soon() -> String {
    r#"{"t":"auth_soon"}"#.to_owned()
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    BadRequest,
    UnknownChannel,
    NotFound,
    Unauthorized,
    TokenExpired,
    Forbidden,
    LimitSubs,
    RateLimited { after_ms: u64 },
    Unavailable { after_ms: u64 },
}

impl Refusal {
    pub const fn code(self) -> &'static str {
        match self {
            Refusal::BadRequest => "bad_request",
            Refusal::UnknownChannel => "unknown_channel",
            Refusal::NotFound => "not_found",
            Refusal::Unauthorized => "unauthorized",
            Refusal::TokenExpired => "token_expired",
            Refusal::Forbidden => "forbidden",
            Refusal::LimitSubs => "limit_subs",
            Refusal::RateLimited { .. } => "rate_limited",
            Refusal::Unavailable { .. } => "unavailable",
        }
    }

    const fn retry(self) -> &'static str {
        match self {
            Refusal::TokenExpired | Refusal::Unauthorized => "refresh",
            Refusal::RateLimited { .. } | Refusal::Unavailable { .. } => "after",
            Refusal::BadRequest
            | Refusal::UnknownChannel
            | Refusal::NotFound
            | Refusal::Forbidden
            | Refusal::LimitSubs => "never",
        }
    }
}

pub fn err(id: Option<u64>, channel: Option<&str>, refusal: Refusal, message: &str) -> String {
    let mut text = opened("err", id, channel);
    push(&mut text, format_args!(r#","code":"{}","retry":"{}""#, refusal.code(), refusal.retry()));
    if let Refusal::RateLimited { after_ms } | Refusal::Unavailable { after_ms } = refusal {
        push(&mut text, format_args!(r#","after_ms":{after_ms}"#));
    }
    push(&mut text, format_args!(r#","message":{}}}"#, json(&message)));
    text
}

/// The last word before a close code of 4000 and more (`protocol.md` 8).
pub fn bye(code: u16, reason: &str, after_ms: Option<u64>) -> String {
    let retry = match (code, after_ms) {
        (4009, _) => "refresh",
        (4500.., _) => "never",
        (_, Some(_)) => "after",
        (_, None) => "now",
    };
    let mut text = format!(r#"{{"t":"bye","code":{code},"reason":{},"retry":"{retry}""#, json(&reason));
    if let Some(after_ms) = after_ms {
        push(&mut text, format_args!(r#","after_ms":{after_ms}"#));
    }
    text.push('}');
    text
}

/// A channel that somebody made up, so that an answer stays small; ours are shorter.
fn cut(channel: &str) -> &str {
    channel.char_indices().nth(CHANNEL_CHARS_MAX).map_or(channel, |(end, _)| &channel[..end])
}

fn opened(t: &str, id: Option<u64>, channel: Option<&str>) -> String {
    let mut text = format!(r#"{{"t":"{t}""#);
    if let Some(id) = id {
        push(&mut text, format_args!(r#","id":{id}"#));
    }
    if let Some(channel) = channel {
        push(&mut text, format_args!(r#","ch":{}"#, json(cut(channel))));
    }
    text
}

pub(super) fn push(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes all that is written to it");
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("plain values with text keys are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    fn song(n: u128) -> SongId {
        SongId(uuid::Uuid::from_u128(n))
    }

    fn raw(value: &Value) -> Arc<RawValue> {
        serde_json::value::to_raw_value(value).unwrap().into()
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn cursors_and_channels_read_back_what_they_wrote_and_refuse_the_rest() {
        let cursor = Cursor { epoch: 7, n: 18_442 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "7", "7.", ".7", "a.1", "-1.2", "7.1.2"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
        for channel in [Channel::Me, Channel::Song(song(5)), Channel::Share(ShareToken(song(6).0))] {
            assert_eq!(channel.to_string().parse(), Ok(channel));
        }
        for bad in ["", "you", "me:1", "song:", "song:x", "room:1"] {
            assert!(bad.parse::<Channel>().is_err(), "{bad}");
        }
    }

    #[test]
    fn frames_are_as_the_protocol_shows_them() {
        let cursor = Cursor { epoch: 7, n: 18_446 };
        let event = event(&EventFrame {
            channel: "me",
            cursor: Some(cursor),
            song: song(1),
            seq: 13,
            prev: 12,
            skipped: 0,
            at: Time::from_millis(1_766_286_001_456),
            kind: EventKind::PhaseStarted,
            set: raw(&value!({"status": "generating_music"})),
        });
        assert_eq!(
            parsed(&event),
            value!({"t": "ev", "ch": "me", "c": "7.18446", "song": song(1), "seq": 13, "prev": 12,
                "at": 1_766_286_001_456_i64, "kind": "phase_started", "set": {"status": "generating_music"}})
        );
        assert_eq!(
            parsed(&subd(Some(1), "me", Mode::Resumed(3))),
            value!({"t": "subd", "id": 1, "ch": "me", "mode": "resumed", "n": 3})
        );
        assert_eq!(
            parsed(&subd(None, "me", Mode::Snapshot(Why::TooOld))),
            value!({"t": "subd", "ch": "me", "mode": "snapshot", "why": "too_old"})
        );
        assert_eq!(parsed(&live("me", cursor)), value!({"t": "live", "ch": "me", "c": "7.18446"}));
        assert_eq!(
            parsed(&ping(Time::from_millis(5), [("me", cursor)].into_iter())),
            value!({"t": "ping", "now": 5, "heads": {"me": "7.18446"}})
        );
        assert_eq!(
            parsed(&bye(4001, "deploy", Some(3170))),
            value!({"t": "bye", "code": 4001, "reason": "deploy", "retry": "after", "after_ms": 3170})
        );
        assert_eq!(
            parsed(&err(Some(2), None, Refusal::RateLimited { after_ms: 12 }, "slow \"down\"")),
            value!({"t": "err", "id": 2, "code": "rate_limited", "retry": "after", "after_ms": 12, "message": "slow \"down\""})
        );
    }

    #[test]
    fn of_a_channel_that_somebody_made_up_little_is_said_back() {
        let long = "é".repeat(30_000);
        let said = [err(Some(1), Some(&long), Refusal::UnknownChannel, "no"), unsubd(Some(1), &long)];
        for text in said {
            assert!(text.len() < 256, "{text}");
            assert_eq!(parsed(&text)["ch"], "é".repeat(64));
        }
        let ours = Channel::Share(ShareToken(song(u128::MAX).0)).to_string();
        assert_eq!(parsed(&unsubd(None, &ours))["ch"], ours, "what is ours stands whole");
    }

    #[test]
    fn a_snapshot_comes_in_pages_that_fit_and_the_last_has_the_cursor() {
        let songs: Vec<_> = (0..40)
            .map(|n| {
                Map::from_iter([
                    ("id".to_owned(), value!(n)),
                    ("lyrics".to_owned(), value!("x".repeat(5000))),
                ])
            })
            .collect();
        let pages = snap("me", songs, Some(Cursor { epoch: 1, n: 2 }));
        assert!(pages.len() > 1);
        assert!(pages.iter().all(|page| page.len() <= FRAME_BYTES_MAX));
        let read: Vec<Value> = pages.iter().map(|page| parsed(page)).collect();
        let (last, before) = read.split_last().unwrap();
        assert_eq!(last["c"], "1.2");
        assert!(before.iter().all(|page| page["more"] == true && page.get("c").is_none()));
        let ids: Vec<_> =
            read.iter().flat_map(|page| page["songs"].as_array().unwrap()).map(|s| s["id"].clone()).collect();
        assert_eq!(ids, (0..40).map(|n| value!(n)).collect::<Vec<_>>());
        let none = snap("me", Vec::new(), Some(Cursor { epoch: 1, n: 0 }));
        assert_eq!(parsed(&none[0]), value!({"t": "snap", "ch": "me", "songs": [], "c": "1.0"}));
    }

    #[test]
    fn what_does_not_fit_a_frame_goes_without_its_largest_fields_and_names_them() {
        let large = "x".repeat(FRAME_BYTES_MAX);
        let text = event(&EventFrame {
            channel: "me",
            cursor: None,
            song: song(1),
            seq: 2,
            prev: 1,
            skipped: 0,
            at: Time::from_millis(1),
            kind: EventKind::Updated,
            set: raw(&value!({"lyrics": large, "title": "Us"})),
        });
        assert!(text.len() <= FRAME_BYTES_MAX);
        assert_eq!(parsed(&text)["set"], value!({"title": "Us"}));
        assert_eq!(parsed(&text)["omitted"], value!(["lyrics"]));

        let song = Map::from_iter([("id".to_owned(), value!(1)), ("metadata".to_owned(), value!(large))]);
        let page = parsed(&snap("me", vec![song], Some(Cursor { epoch: 1, n: 2 }))[0]);
        assert_eq!(page["songs"][0], value!({"id": 1, "omitted": ["metadata"]}));
    }
}
