//! What a follower knows: the songs, the cursor, and what it is to do next, by the rules of `songs.v1`
//! (`protocol.md` 1, 5, 8). Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

/// Songs asked for at once: half of the commands that a connection may give in a second (`protocol.md` 2).
const FETCHED_MAX: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) cursor: Option<String>,
    pub(super) songs: BTreeMap<String, Song>,
    /// Since when everything is up to date.
    pub(super) live: bool,
    /// The songs named by the pages of a snapshot that is coming in.
    snapshot: Option<Vec<String>>,
    /// Songs that were asked for because something happened to them, and the newest event heard of since.
    fetched: BTreeMap<String, i64>,
    /// Pings in a row whose head was not our cursor.
    strays: u32,
}

#[derive(Debug, Default)]
pub(super) struct Song {
    pub(super) seq: i64,
    pub(super) fields: Map<String, Value>,
    /// Of the newest event, milliseconds since 1970.
    pub(super) changed_at: i64,
}

/// Something to be shown.
#[derive(Debug, PartialEq)]
pub(super) struct Happened {
    pub(super) song: String,
    pub(super) kind: String,
    pub(super) at: i64,
    pub(super) skipped: i64,
    pub(super) set: Map<String, Value>,
}

/// What a frame asks of the follower.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    Nothing,
    Show(Happened),
    Pong,
    /// Something is missing: the subscription is to be made anew.
    Again,
    /// A change of a song that the snapshot was without: it is to be shown whole.
    Fetch(String),
    /// The server will close, and says how to come back.
    Bye {
        after: Option<Duration>,
    },
    Error {
        /// What it is about.
        channel: String,
        code: String,
        message: String,
        retry_after: Option<Duration>,
    },
}

impl Model {
    pub(super) fn take(&mut self, frame: &Value) -> Next {
        let next = match frame["t"].as_str().unwrap_or_default() {
            // A song that goes on with `me` is only shown.
            "subd" if frame["via"].is_string() || frame["dup"] == true => Next::Nothing,
            "subd" => {
                self.live = false;
                self.snapshot = (frame["mode"] == "snapshot").then(Vec::new);
                Next::Nothing
            }
            "snap" => self.page(frame),
            "live" => {
                self.live = true;
                Next::Nothing
            }
            "ev" => self.event(frame),
            "ping" => self.ping(frame),
            "bye" => Next::Bye { after: millis(&frame["after_ms"]) },
            "err" => self.error(frame),
            _ => Next::Nothing,
        };
        // What has a hole before it must not move the cursor.
        if next != Next::Again
            && let Some(cursor) = frame["c"].as_str()
        {
            self.cursor = Some(cursor.to_owned());
        }
        next
    }

    /// The connection is gone; songs and cursor stay.
    pub(super) fn lost(&mut self) {
        self.live = false;
        self.snapshot = None;
        self.fetched.clear();
        self.strays = 0;
    }

    fn page(&mut self, frame: &Value) -> Next {
        let mut stale = false;
        for song in frame["songs"].as_array().into_iter().flatten() {
            let Some(fields) = song.as_object() else { continue };
            let id = text(&song["id"]);
            let changed_at = instant(&song["updated_at"]).unwrap_or(0);
            let seq = song["seq"].as_i64().unwrap_or(0);
            // Read before what was heard of since: there is more.
            stale |= self.fetched.remove(&id).is_some_and(|heard| heard > seq);
            if let Some(ids) = &mut self.snapshot {
                ids.push(id.clone());
            }
            self.songs.insert(id, Song { seq, fields: fields.clone(), changed_at });
        }
        if frame["more"] != true
            && let Some(ids) = self.snapshot.take()
        {
            // What the snapshot does not name is not there, or not of interest any more.
            self.songs.retain(|id, _| ids.contains(id));
        }
        if stale { Next::Again } else { Next::Nothing }
    }

    fn event(&mut self, frame: &Value) -> Next {
        let id = text(&frame["song"]);
        let (seq, prev) = (frame["seq"].as_i64().unwrap_or(0), frame["prev"].as_i64().unwrap_or(0));
        let mine = self.songs.get(&id).map_or(0, |song| song.seq);
        if seq <= mine {
            return Next::Nothing;
        }
        let kind = text(&frame["kind"]);
        if prev > mine && mine > 0 {
            return Next::Again;
        }
        if prev > 0 && mine == 0 {
            return self.unknown(id, &kind, seq);
        }
        let at = frame["at"].as_i64().unwrap_or(0);
        let set = frame["set"].as_object().cloned().unwrap_or_default();
        let song = self.songs.entry(id.clone()).or_default();
        song.seq = seq;
        song.changed_at = at;
        song.fields.extend(set.clone());
        let happened = Happened { song: id, kind, at, skipped: frame["skipped"].as_i64().unwrap_or(0), set };
        Next::Show(happened)
    }

    /// Something happened to a song that the snapshot was without.
    fn unknown(&mut self, id: String, kind: &str, seq: i64) -> Next {
        if kind == "gone" {
            return Next::Nothing;
        }
        if let Some(heard) = self.fetched.get_mut(&id) {
            *heard = seq;
            return Next::Nothing;
        }
        // So many have changed lately that the next snapshot has them.
        if self.fetched.len() >= FETCHED_MAX {
            return Next::Again;
        }
        self.fetched.insert(id.clone(), seq);
        Next::Fetch(id)
    }

    fn error(&mut self, frame: &Value) -> Next {
        let channel = text(&frame["ch"]);
        if let Some(song) = channel.strip_prefix("song:") {
            // What happens to it next asks for it again.
            self.fetched.remove(song);
        }
        Next::Error {
            channel,
            code: text(&frame["code"]),
            message: text(&frame["message"]),
            retry_after: millis(&frame["after_ms"]),
        }
    }

    /// Forgets a song that is gone, once that has been shown.
    pub(super) fn forget(&mut self, id: &str) {
        self.songs.remove(id);
    }

    fn ping(&mut self, frame: &Value) -> Next {
        let head = frame["heads"].as_object().and_then(|heads| heads.values().next()).and_then(Value::as_str);
        if self.live && head.is_some() && head != self.cursor.as_deref() {
            self.strays += 1;
        } else {
            self.strays = 0;
        }
        if self.strays >= 2 {
            self.strays = 0;
            return Next::Again;
        }
        Next::Pong
    }
}

/// How to go on after a close (`protocol.md` 8).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Return {
    AtOnce,
    /// At once, but from the beginning.
    Anew,
    BackOff,
    Never(&'static str),
}

pub(super) const fn after_close(code: Option<u16>) -> Return {
    match code {
        Some(1000) => Return::Never("the server closed the connection"),
        Some(1002 | 1003 | 1007 | 1009) => Return::Never("we broke the protocol: a bug, please report it"),
        Some(4008 | 4009 | 4012) => Return::AtOnce,
        Some(4014) => Return::Anew,
        Some(4500) => Return::Never(
            "the token is not valid there: is it the service that you mean? --url names another, and `songflight token \
                 --user NAME`, run in a service's folder, makes a token for it",
        ),
        Some(4503) => Return::Never("the token's owner was signed out or may not connect"),
        Some(4504) => Return::Never("too many connections of this user are open"),
        Some(4505 | 4509) => Return::Never("the server had enough of our commands"),
        Some(4501..=4999) => Return::Never("the server refused the connection"),
        _ => Return::BackOff,
    }
}

/// Full jitter: anything up to 500 ms, 1 s, 2 s … 20 s. `chance` is in `0.0..1.0`.
pub(super) fn back_off(attempt: u32, chance: f64) -> Duration {
    let most = Duration::from_millis(500).saturating_mul(1 << attempt.min(6)).min(Duration::from_secs(20));
    most.mul_f64(chance)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn millis(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_millis)
}

/// Milliseconds since 1970 of a time as the API writes it.
pub(super) fn instant(value: &Value) -> Option<i64> {
    value.as_str()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn live() -> Model {
        let mut model = Model::default();
        model.take(&json!({"t": "subd", "ch": "me", "mode": "snapshot", "why": "new"}));
        model.take(
            &json!({"t": "snap", "ch": "me", "songs": [{"id": "a", "seq": 3, "title": "Us"}], "more": true}),
        );
        model.take(&json!({"t": "snap", "ch": "me", "songs": [{"id": "b", "seq": 1}], "c": "7.9"}));
        model.take(&json!({"t": "live", "ch": "me", "c": "7.9"}));
        model
    }

    fn ev(seq: i64, prev: i64) -> Value {
        json!({"t": "ev", "ch": "me", "c": "7.10", "song": "a", "seq": seq, "prev": prev, "at": 5,
               "kind": "updated", "set": {"title": "You"}})
    }

    #[test]
    fn events_are_applied_once_and_a_hole_asks_for_everything_again() {
        let mut model = live();
        assert_eq!(model.songs.len(), 2);
        assert_eq!(model.take(&ev(3, 2)), Next::Nothing);
        assert_eq!(model.take(&ev(7, 5)), Next::Again);
        assert_eq!(model.cursor.as_deref(), Some("7.10"), "the one that was known moved it");
        assert!(matches!(model.take(&ev(6, 3)), Next::Show(happened) if happened.kind == "updated"));
        assert_eq!(model.songs["a"].fields["title"], "You");
        assert_eq!(model.songs["a"].seq, 6);
    }

    #[test]
    fn a_change_of_a_song_that_was_not_shown_has_it_shown_and_nothing_else_again() {
        let mut model = live();
        let change =
            json!({"t": "ev", "ch": "me", "c": "7.10", "song": "old", "seq": 9, "prev": 8, "set": {}});
        assert_eq!(model.take(&change), Next::Fetch("old".to_owned()));
        let next =
            json!({"t": "ev", "ch": "me", "c": "7.10", "song": "old", "seq": 10, "prev": 9, "set": {}});
        assert_eq!(model.take(&next), Next::Nothing, "it comes as it is then");
        model.take(&json!({"t": "subd", "id": 4, "ch": "song:old", "via": "me"}));
        model.take(&json!({"t": "snap", "ch": "song:old", "songs": [{"id": "old", "seq": 10}]}));
        model.take(&json!({"t": "subd", "id": 4, "ch": "song:old", "dup": true}));
        assert!(model.live);
        assert_eq!((model.songs.len(), model.songs["old"].seq), (3, 10));
        assert_eq!(model.cursor.as_deref(), Some("7.10"));
    }

    #[test]
    fn that_an_unknown_song_is_gone_is_no_news_and_many_unknown_ones_are_asked_for_at_once() {
        let mut model = live();
        let event = |song: &str, kind: &str| json!({"t": "ev", "ch": "me", "c": "7.10", "song": song, "seq": 9, "prev": 8, "kind": kind, "set": {}});
        assert_eq!(model.take(&event("old", "gone")), Next::Nothing);
        let asked: Vec<_> = (0..12).map(|n| model.take(&event(&format!("old {n}"), "complete"))).collect();
        assert!(asked[..10].iter().all(|next| matches!(next, Next::Fetch(_))));
        assert_eq!(asked[10..], [Next::Again, Next::Again]);
        model.take(&json!({"t": "err", "ch": "song:old 3", "code": "unavailable", "after_ms": 1000}));
        assert!(matches!(model.take(&event("old 3", "ready")), Next::Fetch(_)), "not read the first time");
        let page = |song: &str| json!({"t": "snap", "ch": format!("song:{song}"), "songs": [{"id": song, "seq": 8}]});
        assert_eq!(model.take(&page("old 4")), Next::Again, "read before what was heard of");
    }

    #[test]
    fn a_snapshot_replaces_what_was_known() {
        let mut model = live();
        model.take(&json!({"t": "subd", "ch": "me", "mode": "snapshot", "why": "epoch"}));
        model.take(&json!({"t": "snap", "ch": "me", "songs": [{"id": "b", "seq": 4}], "c": "8.1"}));
        assert_eq!(model.songs.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(model.cursor.as_deref(), Some("8.1"));
    }

    #[test]
    fn a_head_that_is_twice_not_ours_is_a_dead_subscription() {
        let mut model = live();
        let ping = |head: &str| json!({"t": "ping", "heads": {"me": head}});
        assert_eq!(model.take(&ping("7.9")), Next::Pong);
        assert_eq!(model.take(&ping("7.11")), Next::Pong);
        assert_eq!(model.take(&ping("7.9")), Next::Pong);
        assert_eq!(model.take(&ping("7.11")), Next::Pong);
        assert_eq!(model.take(&ping("7.12")), Next::Again);
    }

    #[test]
    fn codes_say_how_to_come_back() {
        assert_eq!(after_close(Some(4008)), Return::AtOnce);
        assert_eq!(after_close(Some(4014)), Return::Anew);
        assert_eq!(after_close(None), Return::BackOff);
        assert_eq!(after_close(Some(1012)), Return::BackOff);
        assert!(matches!(after_close(Some(4500)), Return::Never(_)));
        assert!(matches!(after_close(Some(4777)), Return::Never(_)));
        assert_eq!(back_off(0, 1.0), Duration::from_millis(500));
        assert_eq!(back_off(60, 1.0), Duration::from_secs(20));
        assert_eq!(back_off(3, 0.0), Duration::ZERO);
    }
}
