//! What a subscription begins with: exactly the events it missed, or a snapshot and why (RT-2,
//! `protocol.md` 3). From the hub's memory when that reaches back far enough, else from the database.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::Settings;
use super::connection::Connection;
use super::frames::{self, Channel, Cursor, EventFrame, Mode, Why};
use super::hub::Subscribe;
use super::outbox::{self, Event, LaneId, prev};
use super::wire;
use crate::id::{ShareToken, SongId};
use crate::song::event::EventKind;
use crate::song::view::{self, shared};
use crate::store::feed::{Feed, Page, Snapshot};
use crate::store::{SongChanged, StoreError};

/// What a subscription begins with.
pub(super) struct Start {
    lane: outbox::Start,
    /// The owner's newest event at that moment.
    pub(super) u: i64,
    /// Why it is a snapshot, where it is one.
    why: Option<Why>,
}

impl Start {
    pub(super) const fn from(&self) -> Cursor {
        self.lane.from
    }

    /// Says something more right after the first frame, which answers the subscription.
    pub(super) fn tell(&mut self, frame: &str) {
        self.lane.frames.insert(1, (wire::text(frame), None));
    }

    /// False when the lane is gone.
    pub(super) fn put(self, connection: &Connection, lane: LaneId) -> bool {
        let begun = connection.outbox().start_lane(lane, self.lane);
        match self.why {
            _ if !begun => {}
            None => counter!("songflight_realtime_starts_total", "mode" => "resumed").increment(1),
            Some(why) => {
                counter!("songflight_realtime_starts_total", "mode" => "snapshot", "why" => why.as_str())
                    .increment(1);
            }
        }
        begun
    }
}

/// An event as the watchers of this channel get it.
pub(super) fn event(channel: &Channel, name: &str, change: &SongChanged, epoch: i64) -> Event {
    let SongChanged { song, seq, at, .. } = *change;
    let n = if *channel == Channel::Me { change.u } else { seq };
    let (kind, set) = match channel {
        Channel::Me | Channel::Song(_) => (change.kind, change.set.clone()),
        Channel::Share(token) => of_link(*token, change),
    };
    let prev = prev(kind, seq);
    let text = frames::event(&EventFrame {
        channel: name,
        cursor: Some(Cursor { epoch, n }),
        song,
        seq,
        prev,
        skipped: seq - 1 - prev,
        at,
        kind,
        set: set.clone(),
    });
    Event { n, song, seq, at, kind, set, frame: wire::text(&text) }
}

/// Who follows a link that was taken back hears that there is nothing any more, as of a song that is gone.
fn of_link(token: ShareToken, change: &SongChanged) -> (EventKind, Arc<RawValue>) {
    let set: Map<String, Value> = serde_json::from_str(change.set.get()).unwrap_or_default();
    // Events that bring nothing for this link go out all the same: their numbers must not be missed.
    match shared(&set, &token.to_string()).map(|set| to_raw_value(&set)) {
        Some(Ok(set)) => (change.kind, set.into()),
        Some(Err(_)) | None => (EventKind::Gone, view::nothing()),
    }
}

/// A resume out of the last events, which are without a hole up to `have`.
pub(super) fn from_memory(
    subscribe: &Subscribe,
    recent: &VecDeque<SongChanged>,
    epoch: i64,
    have: i64,
    settings: &Settings,
) -> Option<Start> {
    let since: Cursor = subscribe.since.as_ref()?.parse().ok()?;
    if since.epoch != epoch {
        return None;
    }
    let song = match subscribe.channel {
        Channel::Me => None,
        Channel::Song(song) => Some(song),
        // Whether the link still stands only the database knows.
        Channel::Share(_) => return None,
    };
    let number = |change: &SongChanged| if song.is_some() { change.seq } else { change.u };
    let mine: Vec<&SongChanged> =
        recent.iter().filter(|change| song.is_none_or(|song| change.song == song)).collect();
    let head = match (song, mine.last()) {
        (None, _) => have,
        (Some(_), Some(last)) => last.seq,
        // Nothing of it here; whether that is all there is only the database knows.
        (Some(_), None) => return None,
    };
    let missing: Vec<&SongChanged> = mine.into_iter().filter(|change| number(change) > since.n).collect();
    let complete = match missing.first() {
        Some(first) => number(first) == since.n + 1,
        None => since.n == head,
    };
    if !complete || missing.len() > settings.resume_events_max {
        return None;
    }
    resumed(subscribe, missing.into_iter(), Cursor { epoch, n: head }, have, settings)
}

/// The same out of the database. `None`: there is no such song for this user.
pub(super) async fn read(
    feed: &dyn Feed,
    subscribe: &Subscribe,
    settings: &Settings,
) -> Result<Option<Start>, StoreError> {
    let why = match subscribe.since.as_ref().map(|since| since.parse::<Cursor>()) {
        None => Why::New,
        Some(Err(())) => Why::Epoch,
        Some(Ok(since)) => {
            let Some(page) = missed(feed, subscribe, since, settings).await? else { return Ok(None) };
            match resume(subscribe, since, &page, settings) {
                Ok(start) => return Ok(Some(start)),
                Err(why) => why,
            }
        }
    };
    Ok(snapshot(feed, subscribe).await?.map(|snapshot| begin_anew(subscribe, snapshot, why)))
}

async fn missed(
    feed: &dyn Feed,
    subscribe: &Subscribe,
    since: Cursor,
    settings: &Settings,
) -> Result<Option<Page>, StoreError> {
    let limit = i64::try_from(settings.resume_events_max + 1).unwrap_or(i64::MAX);
    match (&subscribe.channel, subscribe.song) {
        (Channel::Me, _) => feed.of_user(&subscribe.owner, since.n, limit).await.map(Some),
        (Channel::Song(song), _) => feed.of_song(&subscribe.owner, *song, since.n, limit).await,
        // Asked once more, now that its watcher is there: it may just have been taken back.
        (Channel::Share(token), Some(song)) => match feed.shared(*token).await? {
            Some(_) => feed.of_song(&subscribe.owner, song, since.n, limit).await,
            None => Ok(None),
        },
        (Channel::Share(_), None) => Ok(None),
    }
}

fn resume(subscribe: &Subscribe, since: Cursor, page: &Page, settings: &Settings) -> Result<Start, Why> {
    if since.epoch != page.epoch {
        return Err(Why::Epoch);
    }
    // A cursor ahead of the log is from before a restore.
    let missing = usize::try_from(page.head - since.n).map_err(|_| Why::Restored)?;
    if missing > settings.resume_events_max {
        return Err(Why::TooMany);
    }
    let me = subscribe.channel == Channel::Me;
    let number = |change: &SongChanged| if me { change.u } else { change.seq };
    let dense = page.events.iter().zip(since.n + 1..).all(|(change, n)| number(change) == n);
    if page.events.len() != missing || !dense {
        return Err(Why::TooOld);
    }
    let from = Cursor { epoch: page.epoch, n: page.head };
    resumed(subscribe, page.events.iter(), from, page.u, settings).ok_or(Why::TooMany)
}

/// `None` when they are too many bytes, or one of them took the link back that is followed.
fn resumed<'a>(
    subscribe: &Subscribe,
    events: impl Iterator<Item = &'a SongChanged>,
    from: Cursor,
    u: i64,
    settings: &Settings,
) -> Option<Start> {
    let mut frames = vec![(Bytes::new(), None)];
    let mut told = HashMap::new();
    let mut bytes = 0;
    for change in events {
        let event = event(&subscribe.channel, &subscribe.name, change, from.epoch);
        bytes += event.frame.len();
        if bytes > settings.resume_bytes_max || event.kind != change.kind {
            return None;
        }
        told.insert(event.song, event.seq);
        frames.push((event.frame, Some(event.n)));
    }
    let n = frames.len() - 1;
    frames[0].0 = wire::text(&frames::subd(subscribe.id, &subscribe.name, Mode::Resumed(n)));
    frames.push((wire::text(&frames::live(&subscribe.name, from)), Some(from.n)));
    Some(Start { lane: outbox::Start { frames, from, told }, u, why: None })
}

async fn snapshot(feed: &dyn Feed, subscribe: &Subscribe) -> Result<Option<Snapshot>, StoreError> {
    match (&subscribe.channel, subscribe.song) {
        (Channel::Me, _) => feed.songs(&subscribe.owner).await.map(Some),
        (Channel::Song(song), _) => feed.song(&subscribe.owner, *song).await,
        (Channel::Share(token), Some(song)) => {
            let Some(snapshot) = feed.song(&subscribe.owner, song).await? else { return Ok(None) };
            let token = token.to_string();
            let songs: Option<_> = snapshot.songs.iter().map(|song| shared(song, &token)).collect();
            Ok(songs.map(|songs| Snapshot { songs, ..snapshot }))
        }
        (Channel::Share(_), None) => Ok(None),
    }
}

/// Shows a song that goes on with `me`, in the lane of that: what happens to the song next waits behind it. Its own lane is
/// over. False when `me` was left meanwhile.
pub(super) fn via_me(subscribe: &Subscribe, me: LaneId, snapshot: Snapshot) -> bool {
    let connection = &subscribe.connection;
    let told = snapshot.songs.iter().filter_map(seen).collect();
    let pages = frames::snap(&subscribe.name, snapshot.songs, None);
    let mut outbox = connection.outbox();
    if !outbox.has_lane(subscribe.lane) {
        drop(outbox);
        taken_back(subscribe);
        return true;
    }
    if !outbox.add_pages(me, pages.iter().map(|page| wire::text(page)).collect(), &told) {
        return false;
    }
    outbox.close_lane(subscribe.lane);
    // No page, so that it is not lost with them when `me` is left; said before anybody can take the first of them.
    let said = outbox.reply(wire::text(&frames::subd(subscribe.id, &subscribe.name, Mode::ViaMe)));
    drop(outbox);
    if !said {
        connection.cut("too slow");
    }
    true
}

/// Who waits for the answer to a subscription that was taken back before it began gets one.
pub(super) fn taken_back(subscribe: &Subscribe) {
    subscribe.connection.say(&frames::unsubd(subscribe.id, &subscribe.name));
}

fn begin_anew(subscribe: &Subscribe, snapshot: Snapshot, why: Why) -> Start {
    let from = Cursor { epoch: snapshot.epoch, n: snapshot.head };
    let name = &subscribe.name;
    let mut frames = vec![(wire::text(&frames::subd(subscribe.id, name, Mode::Snapshot(why))), None)];
    let told = snapshot.songs.iter().filter_map(seen).collect();
    let pages = frames::snap(name, snapshot.songs, Some(from));
    let last = pages.len() - 1;
    frames.extend(
        pages.iter().enumerate().map(|(at, page)| (wire::text(page), (at == last).then_some(from.n))),
    );
    frames.push((wire::text(&frames::live(name, from)), Some(from.n)));
    Start { lane: outbox::Start { frames, from, told }, u: snapshot.u, why: Some(why) }
}

/// Which song this is, and how new.
fn seen(song: &Map<String, Value>) -> Option<(SongId, i64)> {
    Some((song.get("id")?.as_str()?.parse().ok()?, song.get("seq")?.as_i64()?))
}
