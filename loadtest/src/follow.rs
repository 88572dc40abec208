//! What one watcher was told, held against the rules of `songs.v1` (`protocol.md` 1, 3, 4): every event of
//! every song once and in order, cursors that never go back, resumes without a hole. Pure.
//!
//! Stricter than a client needs to be: what a client would forgive is a fault here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A watcher of `me`, over as many connections as it takes.
#[derive(Debug, Default)]
pub struct Follower {
    /// To resume from.
    pub cursor: Option<String>,
    pub songs: BTreeMap<String, Song>,
    /// Broken rules, in words. Must stay empty.
    pub faults: Vec<String>,
    pub figures: Figures,
    /// What a resume that is coming in announced, and how much of that came.
    resuming: Option<(i64, i64)>,
}

#[derive(Debug, Default)]
pub struct Song {
    pub seq: i64,
    /// The song put together from what was told of it.
    pub fields: Map<String, Value>,
    /// The kinds of its events in their order; what came within a snapshot is not among them.
    pub kinds: Vec<String>,
    /// How many of its events are accounted for: told one by one, declared as merged, or within a snapshot. Equal
    /// to `seq` where nothing was left out.
    pub told: i64,
    /// Its newest event on this connection.
    here: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub events: u64,
    /// Came again after a resume, and were dropped: allowed where the cursor had been withheld.
    pub repeated: u64,
    /// Merged into later ones for a watcher that was too slow, and said so.
    pub skipped: u64,
    pub resumes: u64,
    pub snapshots: u64,
}

/// What a frame is to whoever holds the socket.
#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    /// A change that was not known yet.
    Event {
        song: String,
        kind: String,
    },
    /// To be answered with a pong.
    Ping,
    /// Caught up.
    Live,
    /// Songs as a whole, by id: a page of a snapshot.
    Songs(Vec<String>),
    /// The server closes, or refuses something.
    Refusal(String),
    Nothing,
}

impl Follower {
    /// A new connection begins; songs and cursor stay.
    pub fn connected(&mut self) {
        self.resuming = None;
        for song in self.songs.values_mut() {
            song.here = None;
        }
    }

    pub fn take(&mut self, mut frame: Value) -> Came {
        let came = match frame["t"].as_str().unwrap_or_default() {
            "subd" if frame["mode"] == "snapshot" => {
                self.figures.snapshots += 1;
                Came::Nothing
            }
            "subd" => {
                self.figures.resumes += 1;
                self.resuming = frame["n"].as_i64().map(|announced| (announced, 0));
                Came::Nothing
            }
            "snap" => self.page(&mut frame),
            "ev" => self.event(&mut frame),
            "live" => {
                match self.resuming.take() {
                    Some((announced, came)) if announced != came => {
                        self.faults.push(format!("a resume of {announced} events brought {came}"));
                    }
                    _ => {}
                }
                Came::Live
            }
            "ping" => Came::Ping,
            "bye" | "err" => Came::Refusal(frame.to_string()),
            _ => Came::Nothing,
        };
        if let Some(cursor) = frame["c"].as_str() {
            self.move_to(cursor);
        }
        came
    }

    /// What speaks against a song being told wholly, given the song as HTTP tells it.
    pub fn compare(&self, told_by_http: &Value) -> Result<(), String> {
        let id = told_by_http["id"].as_str().unwrap_or_default();
        let Some(song) = self.songs.get(id) else { return Err(format!("song {id} was never told of")) };
        if told_by_http["seq"] != song.seq {
            return Err(format!("song {id}: told up to {}, HTTP is at {}", song.seq, told_by_http["seq"]));
        }
        let differs = |name: &&String| told_by_http.get(*name) != song.fields.get(*name);
        let names = told_by_http.as_object().into_iter().flat_map(Map::keys);
        match names.filter(differs).map(String::as_str).collect::<Vec<_>>() {
            differing if differing.is_empty() => Ok(()),
            differing => Err(format!(
                "song {id}: HTTP tells other {}: {told_by_http}, not {}",
                differing.join(", "),
                Value::Object(song.fields.clone())
            )),
        }
    }

    fn page(&mut self, frame: &mut Value) -> Came {
        let mut named = Vec::new();
        let Value::Array(songs) = frame["songs"].take() else { return Came::Nothing };
        for song in songs {
            let Value::Object(fields) = song else { continue };
            let id = text(&fields["id"]);
            let seq = fields.get("seq").and_then(Value::as_i64).unwrap_or_default();
            named.push(id.clone());
            let song = self.songs.entry(id.clone()).or_default();
            if seq < song.seq {
                self.faults.push(format!("song {id}: a snapshot goes back from {} to {seq}", song.seq));
            }
            song.told += seq - song.seq;
            song.seq = seq;
            song.fields = fields;
            song.here = Some(seq);
        }
        Came::Songs(named)
    }

    fn event(&mut self, frame: &mut Value) -> Came {
        let (id, kind) = (text(&frame["song"]), text(&frame["kind"]));
        let number = |name: &str| frame[name].as_i64().unwrap_or_default();
        let (seq, prev, skipped) = (number("seq"), number("prev"), number("skipped"));
        self.figures.events += 1;
        self.figures.skipped += u64::try_from(skipped).unwrap_or_default();
        if let Some((_, came)) = &mut self.resuming {
            *came += 1 + skipped;
        }
        let song = self.songs.entry(id.clone()).or_default();
        let fault = match song.here {
            _ if seq != prev + 1 + skipped => Some("its numbers contradict each other"),
            Some(here) if seq <= here => Some("it came twice on one connection"),
            Some(here) if prev != here => Some("the one before it did not come"),
            None if prev > song.seq => Some("what lies before it did not come"),
            Some(_) | None => None,
        };
        if let Some(fault) = fault {
            let mine = song.seq;
            self.faults.push(format!("{fault}: {frame}; the song was at {mine}"));
        }
        song.here = Some(seq);
        if seq <= song.seq {
            self.figures.repeated += 1;
            return Came::Nothing;
        }
        // An event that closes a hole leaves it open here: that is the fault to be found.
        song.told += (1 + skipped).min(seq - song.seq);
        song.seq = seq;
        if let Value::Object(set) = frame["set"].take() {
            song.fields.extend(set);
        }
        song.fields.insert("seq".to_owned(), seq.into());
        song.kinds.push(kind.clone());
        Came::Event { song: id, kind }
    }

    fn move_to(&mut self, cursor: &str) {
        let read = |cursor: &str| {
            let (epoch, n) = cursor.split_once('.')?;
            Some((epoch.parse::<i64>().ok()?, n.parse::<i64>().ok()?))
        };
        match (self.cursor.as_deref().and_then(read), read(cursor)) {
            (Some(old), Some(new)) if new < old => {
                self.faults.push(format!("the cursor went back from {old:?} to {new:?}"));
            }
            (_, None) => self.faults.push(format!("{cursor} is no cursor")),
            _ => {}
        }
        self.cursor = Some(cursor.to_owned());
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(seq: i64, prev: i64, skipped: i64) -> Value {
        json!({"t": "ev", "song": "a", "seq": seq, "prev": prev, "skipped": skipped, "kind": "updated",
               "set": {"title": seq}, "c": format!("1.{seq}")})
    }

    fn after(frames: &[Value]) -> Follower {
        let mut follower = Follower::default();
        for frame in frames {
            follower.take(frame.clone());
        }
        follower
    }

    #[test]
    fn events_in_order_are_put_together() {
        let follower = after(&[event(1, 0, 0), event(2, 1, 0), event(5, 2, 2)]);
        assert_eq!(follower.faults, Vec::<String>::new());
        assert_eq!(follower.compare(&json!({"id": "a", "seq": 5, "title": 5})), Err("song a: HTTP tells other id: {\"id\":\"a\",\"seq\":5,\"title\":5}, not {\"seq\":5,\"title\":5}".into()));
        assert_eq!(follower.figures, Figures { events: 3, skipped: 2, ..Figures::default() });
        assert_eq!(follower.cursor.as_deref(), Some("1.5"));
    }

    #[test]
    fn holes_doubles_and_cursors_that_go_back_are_faults() {
        for frames in [
            &[event(1, 0, 0), event(3, 2, 0)][..],
            &[event(1, 0, 0), event(1, 0, 0)],
            &[event(2, 1, 0)],
            &[event(3, 0, 1)],
            &[json!({"t": "live", "c": "1.9"}), json!({"t": "live", "c": "1.8"})],
        ] {
            assert_eq!(after(frames).faults.len(), 1, "{frames:?}");
        }
    }

    #[test]
    fn a_resume_brings_as_many_events_as_it_announces() {
        let resumed = |n| json!({"t": "subd", "ch": "me", "mode": "resumed", "n": n});
        let live = json!({"t": "live", "c": "1.5"});
        let after = |n| after(&[event(1, 0, 0), event(2, 1, 0), resumed(n), event(5, 2, 2), live.clone()]);
        assert_eq!(after(3).faults, Vec::<String>::new());
        assert_eq!(after(3).songs["a"].told, 5);
        assert_eq!(after(4).faults.len(), 1);
    }

    #[test]
    fn after_a_resume_the_last_ones_may_come_again() {
        let mut follower = after(&[event(1, 0, 0), event(2, 1, 0)]);
        follower.connected();
        for frame in [event(1, 0, 0), event(2, 1, 0), event(3, 2, 0)] {
            let frame = json!({"t": "ev", "song": "a", "seq": frame["seq"], "prev": frame["prev"], "kind": "x", "set": {}});
            follower.take(frame);
        }
        assert_eq!(follower.faults, Vec::<String>::new());
        assert_eq!((follower.figures.repeated, follower.songs["a"].seq), (2, 3));
    }
}
