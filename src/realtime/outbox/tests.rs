use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const LIMITS: Limits = Limits { frames_max: 4, bytes_max: 2_000, slots_bytes_max: 100_000 };
const SONGS: usize = 4;

fn song(n: usize) -> SongId {
    SongId(uuid::Uuid::from_u128(n as u128 + 1))
}

/// The truth: songs that change, and the log of it.
#[derive(Default)]
struct Log {
    u: i64,
    songs: BTreeMap<SongId, (i64, Map<String, Value>)>,
    events: Vec<Event>,
}

impl Log {
    fn change(&mut self, which: usize, field: &str, large: bool) -> Event {
        let id = song(which);
        self.u += 1;
        let (seq, fields) = self.songs.entry(id).or_default();
        *seq += 1;
        let value = if large { json!("x".repeat(700)) } else { json!(self.u) };
        let set = Map::from_iter([(field.to_owned(), value)]);
        fields.extend(set.clone());
        let set: Arc<RawValue> = serde_json::value::to_raw_value(&set).unwrap().into();
        let event = frames::EventFrame {
            channel: "me",
            cursor: Some(Cursor { epoch: 1, n: self.u }),
            song: id,
            seq: *seq,
            prev: *seq - 1,
            skipped: 0,
            at: Time::from_millis(self.u),
            kind: EventKind::Updated,
            set: Arc::clone(&set),
        };
        let frame = wire::text(&frames::event(&event));
        let event =
            Event { n: self.u, song: id, seq: *seq, at: event.at, kind: EventKind::Updated, set, frame };
        self.events.push(event.clone());
        event
    }

    fn snapshot(&self) -> Start {
        let pages = self.pages(Some(self.cursor())).into_iter();
        Start {
            frames: pages.map(|page| (page, Some(self.u))).collect(),
            from: self.cursor(),
            told: self.told(),
        }
    }

    fn told(&self) -> HashMap<SongId, i64> {
        self.songs.iter().map(|(song, (seq, _))| (*song, *seq)).collect()
    }

    /// Exactly the events after this one.
    fn replay(&self, since: i64) -> Start {
        let missed = || self.events.iter().filter(|event| event.n > since);
        Start {
            frames: missed().map(|event| (event.frame.clone(), Some(event.n))).collect(),
            from: self.cursor(),
            told: missed().map(|event| (event.song, event.seq)).collect(),
        }
    }

    fn pages(&self, cursor: Option<Cursor>) -> Vec<Bytes> {
        let songs = self.songs.iter().map(|(id, (seq, fields))| {
            let mut song = fields.clone();
            song.extend([("id".to_owned(), json!(id)), ("seq".to_owned(), json!(seq))]);
            song
        });
        frames::snap("me", songs.collect(), cursor).iter().map(|page| wire::text(page)).collect()
    }

    const fn cursor(&self) -> Cursor {
        Cursor { epoch: 1, n: self.u }
    }
}

fn parsed(frame: &Bytes) -> Value {
    let start = match frame[1] {
        ..126 => 2,
        126 => 4,
        127.. => 10,
    };
    serde_json::from_slice(&frame[start..]).unwrap()
}

/// A client that keeps to the rules of the protocol and checks that the server does.
#[derive(Default, Clone)]
struct Client {
    cursor: i64,
    songs: BTreeMap<SongId, (i64, Map<String, Value>)>,
}

impl Client {
    fn take(&mut self, frame: &Bytes, log: &Log) {
        let frame = parsed(frame);
        match frame["t"].as_str() {
            Some("snap") => {
                for snapped in frame["songs"].as_array().unwrap() {
                    let mut fields = snapped.as_object().unwrap().clone();
                    fields.remove("id");
                    let seq = fields.remove("seq").and_then(|seq| seq.as_i64()).unwrap();
                    let id = snapped["id"].as_str().unwrap().parse().unwrap();
                    let mine = self.songs.get(&id).map_or(0, |(seq, _)| *seq);
                    assert!(seq >= mine, "shown at {seq}, which is older than {mine}");
                    self.songs.insert(id, (seq, fields));
                }
            }
            Some("ev") => self.event(&frame),
            Some("ping") => {
                if let Some(head) = frame["heads"]["me"].as_str() {
                    assert_eq!(head.parse::<Cursor>().unwrap().n, self.cursor, "heads are what was sent");
                }
            }
            other => panic!("unexpected {other:?}"),
        }
        if let Some(cursor) = frame["c"].as_str() {
            self.cursor = cursor.parse::<Cursor>().unwrap().n;
            self.has_all_up_to_the_cursor(log);
        }
    }

    fn event(&mut self, frame: &Value) {
        let id = frame["song"].as_str().unwrap().parse().unwrap();
        let (mine, fields) = self.songs.entry(id).or_default();
        let (seq, prev) = (frame["seq"].as_i64().unwrap(), frame["prev"].as_i64().unwrap());
        if seq <= *mine {
            return;
        }
        assert!(prev <= *mine, "a false gap: {prev} after {mine}");
        assert_eq!(frame["skipped"].as_i64().unwrap_or(0), seq - prev - 1);
        fields.extend(frame["set"].as_object().unwrap().clone());
        *mine = seq;
    }

    fn has_all_up_to_the_cursor(&self, log: &Log) {
        for event in log.events.iter().filter(|event| event.n <= self.cursor) {
            let mine = self.songs.get(&event.song).map_or(0, |(seq, _)| *seq);
            assert!(mine >= event.seq, "cursor {} is ahead of song at {mine}", self.cursor);
        }
    }
}

#[derive(Clone, Debug)]
enum Move {
    Change {
        song: usize,
        field: u8,
        large: bool,
    },
    Take,
    Ping,
    /// The snapshot that was being read is as of now, and comes.
    Start,
    /// Songs are shown beside the events.
    Show,
    /// The connection breaks; the client comes back with its cursor.
    Reconnect,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let change = (0..SONGS, 0_u8..3, proptest::bool::weighted(0.2))
        .prop_map(|(song, field, large)| Move::Change { song, field, large });
    prop::collection::vec(
        prop_oneof![6 => change, 5 => Just(Move::Take), 1 => Just(Move::Ping), 1 => Just(Move::Start),
                    1 => Just(Move::Show), 1 => Just(Move::Reconnect)],
        0..150,
    )
}

proptest! {
    #[test]
    fn a_client_that_keeps_the_rules_ends_with_the_truth_however_slow_it_reads(moves in moves()) {
        let mut log = Log::default();
        let mut client = Client::default();
        let mut outbox = Outbox::new(LIMITS);
        let mut lane = outbox.open_lane("me").unwrap();
        let mut started = false;
        for step in moves.into_iter().chain([Move::Start]) {
            match step {
                Move::Change { song, field, large } => {
                    let event = log.change(song, ["a", "b", "c"][usize::from(field)], large);
                    let pushed = outbox.push(lane, &event);
                    prop_assert!(matches!(pushed, Pushed::Queued | Pushed::Conflated));
                    prop_assert!(outbox.queue.len() <= LIMITS.frames_max);
                    prop_assert!(outbox.slots.len() <= SONGS);
                }
                Move::Take => if let Some(frame) = outbox.take() { client.take(&frame, &log) },
                Move::Ping => outbox.ping(Time::from_millis(1)),
                Move::Start if started => {}
                Move::Start => {
                    started = true;
                    prop_assert!(outbox.start_lane(lane, log.snapshot()));
                }
                Move::Show | Move::Reconnect if !started => {}
                Move::Show => prop_assert!(outbox.add_pages(lane, log.pages(None), &log.told())),
                Move::Reconnect => {
                    outbox = Outbox::new(LIMITS);
                    lane = outbox.open_lane("me").unwrap();
                    prop_assert!(outbox.start_lane(lane, log.replay(client.cursor)));
                }
            }
        }
        while let Some(frame) = outbox.take() {
            client.take(&frame, &log);
        }
        prop_assert!(!outbox.waiting());
        prop_assert_eq!(outbox.slots_bytes, 0);
        prop_assert_eq!(outbox.queue_bytes, 0);
        prop_assert_eq!(client.songs, log.songs);
        prop_assert_eq!(client.cursor, log.u);
    }
}

#[test]
fn what_waits_in_a_lane_that_is_off_is_still_written_and_nothing_more() {
    let mut log = Log::default();
    let mut outbox = Outbox::new(LIMITS);
    let lane = outbox.open_lane("me").unwrap();
    outbox.start_lane(lane, log.replay(0));
    for _ in 0..2 * LIMITS.frames_max {
        outbox.push(lane, &log.change(0, "a", false));
    }
    let told = log.songs.clone();
    assert!(outbox.retire_lane(lane) && !outbox.retire_lane(lane));
    assert_eq!((outbox.lane_of("me"), outbox.has_lane(lane), outbox.lanes()), (None, false, 0));
    assert_eq!(outbox.push(lane, &log.change(0, "b", false)), Pushed::Gone);
    let mut client = Client::default();
    while let Some(frame) = outbox.take() {
        client.take(&frame, &log);
    }
    assert_eq!(client.songs, told);
    assert!(outbox.lanes.is_empty() && !outbox.waiting());
    assert_ne!(outbox.open_lane("me"), Some(lane));
}

#[test]
fn events_up_to_the_snapshot_are_dropped_and_newer_ones_follow_it() {
    let mut log = Log::default();
    let mut outbox = Outbox::new(LIMITS);
    let lane = outbox.open_lane("me").unwrap();
    let early = log.change(0, "a", false);
    outbox.push(lane, &early);
    let snapshot = log.snapshot();
    outbox.push(lane, &log.change(0, "b", false));
    assert!(outbox.take().is_none(), "nothing before the snapshot");
    outbox.start_lane(lane, snapshot);
    assert_eq!(outbox.push(lane, &early), Pushed::Known);
    let frames: Vec<Bytes> = std::iter::from_fn(|| outbox.take()).collect();
    let mut client = Client::default();
    frames.iter().for_each(|frame| client.take(frame, &log));
    assert_eq!(client.songs, log.songs);
    // Both events waited as one, of which the snapshot had the first.
    let last = parsed(frames.last().unwrap());
    assert_eq!((&last["seq"], &last["prev"], last.get("skipped")), (&json!(2), &json!(1), None), "{last}");
}

#[test]
fn what_happens_after_a_song_is_shown_comes_after_it() {
    let mut log = Log::default();
    let mut outbox = Outbox::new(LIMITS);
    let lane = outbox.open_lane("me").unwrap();
    outbox.start_lane(lane, log.replay(0));
    outbox.push(lane, &log.change(0, "a", false));
    assert!(outbox.add_pages(lane, log.pages(None), &log.told()));
    outbox.push(lane, &log.change(0, "b", false));
    let mut client = Client::default();
    let seqs = std::iter::from_fn(|| {
        client.take(&outbox.take()?, &log);
        Some(client.songs[&song(0)].0)
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn what_waits_when_a_song_is_shown_follows_on_what_is_shown() {
    let mut log = Log::default();
    let mut outbox = Outbox::new(LIMITS);
    let lane = outbox.open_lane("me").unwrap();
    outbox.start_lane(lane, log.replay(0));
    for _ in 0..LIMITS.frames_max + 2 {
        outbox.push(lane, &log.change(0, "a", false));
    }
    let shown = log.told()[&song(0)];
    assert!(outbox.add_pages(lane, log.pages(None), &log.told()));
    outbox.push(lane, &log.change(0, "b", false));
    let last = parsed(&std::iter::from_fn(|| outbox.take()).last().unwrap());
    assert_eq!(
        (&last["seq"], &last["prev"], last.get("skipped")),
        (&json!(shown + 1), &json!(shown), None),
        "{last}"
    );
}

#[test]
fn a_channel_that_is_left_takes_all_that_waits_with_it() {
    let mut log = Log::default();
    let mut outbox = Outbox::new(LIMITS);
    let lane = outbox.open_lane("me").unwrap();
    outbox.start_lane(lane, log.snapshot());
    for _ in 0..20 {
        outbox.push(lane, &log.change(0, "a", true));
    }
    assert!(outbox.open_lane("me").is_none());
    assert!(outbox.close_lane(lane));
    assert!(outbox.take().is_none());
    assert_eq!((outbox.queue_bytes, outbox.slots_bytes), (0, 0));
    assert_eq!(outbox.push(lane, &log.change(0, "a", true)), Pushed::Gone);
    assert!(outbox.open_lane("me").is_some_and(|again| again != lane));
}

#[test]
fn too_much_for_the_slots_is_too_slow() {
    let mut log = Log::default();
    let mut outbox = Outbox::new(Limits { slots_bytes_max: 1_500, ..LIMITS });
    let lane = outbox.open_lane("me").unwrap();
    let pushed: Vec<_> = (0..4).map(|n| outbox.push(lane, &log.change(n, "a", true))).collect();
    assert_eq!(pushed.last(), Some(&Pushed::TooSlow));
}

#[test]
fn a_closing_says_bye_first_and_nothing_comes_after_it() {
    let mut log = Log::default();
    let mut outbox = Outbox::new(LIMITS);
    let lane = outbox.open_lane("me").unwrap();
    outbox.start_lane(lane, log.replay(0));
    outbox.push(lane, &log.change(0, "a", false));
    outbox.reply(wire::text("{}"));
    let close = |code| Closing { code: Some(code), reason: "deploy".into(), after_ms: Some(5), asked: false };
    outbox.close(close(4001));
    outbox.close(close(4009));
    assert_eq!(outbox.take(), Some(wire::text("{}")));
    let last = outbox.take().unwrap();
    let bye = wire::text(&frames::bye(4001, "deploy", Some(5)));
    assert_eq!(last, [bye, wire::close(Some(4001), "deploy")].concat());
    assert!(outbox.close_taken() && outbox.take().is_none() && !outbox.waiting());
}
