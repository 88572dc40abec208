//! What must hold in every world, looked at whenever something is committed, called or shown, and once more at the end
//! (`durability.md` section 7). It sees the truth: what was committed, and what providers really took on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use songflight::credit::Credits;
use songflight::id::{CallKey, SongId, TaskId};
use songflight::song::event::EventKind;
use songflight::song::phase::{self, CallState, Phase, Rules, Song, Status, call_key};
use songflight::song::view;
use songflight::store::SongChanged;
use songflight::store::journal::NodeKey;
use songflight::store::row::{NewSong, StepRow};
use songflight::time::Time;
use uuid::Uuid;

use super::plan::{GRACE, SKEW_MILLIS, rules};
use super::rows::read;
use super::tables::Tables;

pub struct Law {
    rules: Rules,
    broken: Option<String>,
    /// Each change of money of each user, summed up.
    sums: BTreeMap<String, i64>,
    tasks: BTreeMap<TaskId, Books>,
    songs: BTreeMap<SongId, Shown>,
    calls: BTreeMap<CallKey, Call>,
    /// The newest of a user's events that each run of a node told its watchers.
    newest_told: BTreeMap<(Uuid, i64, String), i64>,
    pub commits: u64,
}

/// What was reserved for a task, and what of it was given back once it was settled.
struct Books {
    song: SongId,
    reserved: i64,
    settled: Option<i64>,
}

/// A song as its watchers know it.
struct Shown {
    /// Of each event, from 1: the view after it, and the user's number of it.
    events: Vec<(Map<String, Value>, i64)>,
    /// As a client has it that laid every `set` over the created song.
    client: Map<String, Value>,
}

/// One call of a provider, in one attempt.
#[derive(Clone, Debug)]
struct Call {
    provider: &'static str,
    /// Intents that were committed, and those that were taken back because nothing was sent.
    recorded: u32,
    not_after: Time,
    /// The run of a node that recorded it last.
    by: NodeKey,
    began: Option<Time>,
    taken: bool,
    /// The provider said that it is over, or that it never was.
    over: bool,
}

impl Law {
    pub fn new() -> Self {
        Self {
            rules: rules(),
            broken: None,
            sums: BTreeMap::new(),
            tasks: BTreeMap::new(),
            songs: BTreeMap::new(),
            calls: BTreeMap::new(),
            newest_told: BTreeMap::new(),
            commits: 0,
        }
    }

    /// The first law that was broken.
    pub fn broken(&self) -> Option<&String> {
        self.broken.as_ref()
    }

    pub fn hold(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(words());
        }
    }

    // --- money ---

    pub fn granted(&mut self, user: &str, amount: Credits) {
        *self.sums.entry(user.to_owned()).or_default() += amount.thousandths();
    }

    pub fn reserved(&mut self, song: SongId, user: &str, task: TaskId, amount: Credits) {
        let reserved = amount.thousandths();
        *self.sums.entry(user.to_owned()).or_default() -= reserved;
        let twice = self.tasks.insert(task, Books { song, reserved, settled: None }).is_some();
        self.hold(!twice, || format!("song {song}: task {task} was reserved for twice"));
    }

    pub fn is_reserved(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    pub fn settled(&mut self, song: SongId, user: &str, task: TaskId, reason: &str, amount: i64) {
        *self.sums.entry(user.to_owned()).or_default() += amount;
        let Some(books) = self.tasks.get_mut(&task) else {
            return self
                .hold(false, || format!("song {song}: task {task} was settled and never reserved for"));
        };
        let (before, reserved) = (books.settled.replace(amount), books.reserved);
        self.hold(before.is_none(), || format!("song {song}: task {task} was settled twice"));
        let fits = if reason == "release" { amount == reserved } else { (0..reserved).contains(&amount) };
        self.hold(fits, || format!("song {song}: {reason} of {amount} where {reserved} were reserved"));
    }

    // --- commits ---

    pub fn written_by_owner(&mut self, song: SongId, owned: bool) {
        self.hold(owned, || format!("song {song} was written by a node that does not own it"));
    }

    pub fn pushed(&mut self, song: SongId, push: &str, before: bool) {
        self.hold(!before, || format!("song {song}: {push} is pushed twice"));
    }

    pub fn created(&mut self, new: &NewSong, stored: &Song, u: i64) {
        self.commits += 1;
        let song = stored.id;
        if stored.head.price != Credits::ZERO {
            self.reserved(song, stored.user.as_str(), stored.head.task, stored.head.price);
        }
        self.hold(*stored == new.song, || format!("song {song} is stored otherwise than it was created"));
        let view = view::view(stored, &self.rules);
        self.songs.insert(song, Shown { events: vec![(view.clone(), u)], client: view });
    }

    pub fn stepped(&mut self, before: &Song, after: &Song, row: &StepRow, u: Option<i64>, node: NodeKey) {
        self.commits += 1;
        let song = after.id;
        let (from, to) = (before.status(), after.status());
        self.hold(legal(from, to), || format!("song {song} went from {from:?} to {to:?}"));
        let deleted = |song: &Song| song.phase == Phase::Deleted;
        self.hold(!deleted(before) || deleted(after), || format!("song {song} came back from the dead"));
        let dense = after.seq == before.seq + i64::from(row.event.is_some());
        self.hold(dense, || format!("song {song}: event {} after {}", after.seq, before.seq));
        self.shows(after, row, u);
        self.balances(after);
        self.intents(before, after, node);
    }

    /// Whoever overlays what is told knows what is stored.
    fn shows(&mut self, after: &Song, row: &StepRow, u: Option<i64>) {
        let song = after.id;
        let view = view::view(after, &self.rules);
        let shown = self.songs.get_mut(&song).expect("it was created");
        let same = match (&row.event, u) {
            // Of what is gone nothing is said, and watchers forget it.
            (Some((EventKind::Gone, set)), Some(u)) => {
                shown.client.clone_from(&view);
                shown.events.push((view.clone(), u));
                set.get() == "{}"
            }
            (Some((_, set)), Some(u)) => {
                shown.client.extend(read::<Map<String, Value>>(set));
                shown.client.insert("seq".to_owned(), after.seq.into());
                shown.events.push((view.clone(), u));
                shown.client == view
            }
            _ => shown.client == view,
        };
        let differs = || {
            let differs = |(field, value): &(&String, &Value)| view.get(*field) != Some(*value);
            let fields: Vec<_> =
                shown.client.iter().filter(differs).map(|(field, _)| field.clone()).collect();
            format!("song {song}: watchers know other {fields:?} than are stored")
        };
        let words = if same { String::new() } else { differs() };
        self.hold(same, || words);
    }

    /// What is at work is reserved for, what has ended is settled, and the sums are the song's.
    fn balances(&mut self, after: &Song) {
        let song = after.id;
        let mine: Vec<(TaskId, i64, Option<i64>)> = self
            .tasks
            .iter()
            .filter(|(_, books)| books.song == song)
            .map(|(task, books)| (*task, books.reserved, books.settled))
            .collect();
        for (task, _, settled) in &mine {
            let at_work = after.run_of(*task).is_some();
            let fits = settled.is_none() == at_work;
            self.hold(fits, || format!("song {song}: task {task} runs: {at_work}, settled: {settled:?}"));
        }
        let cost: i64 = mine.iter().map(|(_, reserved, _)| reserved).sum();
        let back: i64 = mine.iter().filter_map(|(_, _, settled)| *settled).sum();
        let fits = (cost, back) == (after.cost.thousandths(), after.refunded.thousandths());
        self.hold(fits, || {
            format!(
                "song {song} says {} and {} back, the books {cost} and {back}",
                after.cost, after.refunded
            )
        });
    }

    fn intents(&mut self, before: &Song, after: &Song, node: NodeKey) {
        for (task, run) in after.runs() {
            for (index, call) in run.calls.iter().enumerate() {
                let key = call_key(task, index, call);
                let CallState::Intent { not_after, .. } = call.state else { continue };
                let known = before.run_of(task).and_then(|run| run.calls.get(index));
                let known =
                    known.is_some_and(|known| known.attempt == call.attempt && known.state == call.state);
                if !known {
                    let call = self.calls.entry(key).or_insert(Call {
                        provider: "",
                        recorded: 0,
                        not_after,
                        by: node,
                        began: None,
                        taken: false,
                        over: false,
                    });
                    (call.recorded, call.not_after, call.by) = (call.recorded + 1, not_after, node);
                }
            }
        }
    }

    // --- calls ---

    /// A call leaves: its intent is recorded, it is in time, the lease still holds, and nothing that it would double is
    /// under way.
    pub fn call_begins(
        &mut self,
        key: CallKey,
        provider: &'static str,
        tables: &Tables,
        node: NodeKey,
        (wall, now): (Time, Time),
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return self.hold(false, || format!("{key} was called and never recorded"));
        };
        let (before, not_after) = (call.began.replace(now), call.not_after);
        call.provider = provider;
        self.hold(before.is_none(), || format!("{key} was called twice"));
        self.hold(wall < not_after, || format!("{key} was called {:?} too late", wall.since(not_after)));
        let lease =
            tables.nodes.get(&node.id).is_some_and(|row| row.epoch == node.epoch && row.lease_until >= now);
        self.hold(lease, || format!("{key} was called without the lease"));
        self.alone(key, provider, tables, now);
    }

    fn alone(&mut self, key: CallKey, provider: &str, tables: &Tables, now: Time) {
        let same = |other: &CallKey| other.task == key.task && other.call == key.call && *other != key;
        let others: Vec<(CallKey, Call)> = self
            .calls
            .iter()
            .filter(|(other, call)| same(other) && call.provider == provider)
            .map(|(other, call)| (*other, call.clone()))
            .collect();
        let mut unnamed = 0;
        for (other, call) in others {
            let Some(began) = call.began.filter(|_| !call.over) else { continue };
            self.hold(other.attempt < key.attempt, || format!("{key} was called after {other}"));
            let waited = now.since(began) + Duration::from_millis(SKEW_MILLIS);
            self.hold(waited >= GRACE, || {
                format!("{key} was called {waited:?} after {other}, which may live")
            });
            unnamed += u32::from(!tables.is_named(other));
        }
        self.hold(unnamed <= 1, || format!("{key} was called beside {unnamed} others that may live"));
    }

    /// A node that has waited for its calls leaves none behind of which it recorded the intent and not the answer: the
    /// next owner would have to wait until it is settled by itself. (Where a commit's outcome got lost, nobody can tell.)
    pub fn leaves(&mut self, node: NodeKey, tables: &Tables) {
        if !tables.owns(node) {
            return;
        }
        let songs = tables.songs.values().filter(|row| row.head().is_of(node));
        let mut intents = songs.flat_map(|row| {
            row.song.runs().flat_map(|(task, run)| {
                let recorded = |call: &phase::Call| matches!(call.state, CallState::Intent { .. });
                let calls = run.calls.iter().enumerate();
                calls
                    .filter(move |(_, call)| recorded(call))
                    .map(move |(index, call)| call_key(task, index, call))
            })
        });
        let left = intents.find(|key| self.calls.get(key).is_some_and(|call| call.by == node));
        self.hold(left.is_none(), || {
            format!("{left:?} was recorded by {} which left without an answer", node.id)
        });
    }

    /// A provider took an order on.
    pub fn taken(&mut self, key: CallKey) {
        let twice = self.calls.get_mut(&key).is_some_and(|call| std::mem::replace(&mut call.taken, true));
        self.hold(!twice, || format!("{key} was ordered twice"));
    }

    /// The provider said that nothing more comes of it.
    pub fn over(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(&key) {
            call.over = true;
        }
    }

    // --- what is shown ---

    pub fn number_of(&self, song: SongId, seq: i64) -> i64 {
        let place = usize::try_from(seq - 1).expect("from 1");
        self.songs[&song].events[place].1
    }

    /// A client was answered with this: it is committed, and so no crash takes it back.
    pub fn answered(&mut self, answer: &Song) {
        let (song, seq, view) = (answer.id, answer.seq, view::view(answer, &self.rules));
        let event = usize::try_from(seq - 1).ok().and_then(|place| self.songs.get(&song)?.events.get(place));
        let same = event.is_some_and(|(committed, _)| *committed == view);
        self.hold(same, || format!("song {song}: an answer shows seq {seq} as it was never committed"));
    }

    /// A node told its watchers of this: it is committed, and comes in the order of the commits.
    pub fn told(&mut self, node: NodeKey, change: &SongChanged) {
        let user = change.user.as_str().to_owned();
        let before = self.newest_told.insert((node.id, node.epoch, user), change.u).unwrap_or(0);
        self.hold(change.u > before, || format!("{} is told of {} after {before}", change.user, change.u));
        let (song, seq) = (change.song, change.seq);
        let event = usize::try_from(seq - 1).ok().and_then(|place| self.songs.get(&song)?.events.get(place));
        let u = event.map(|(_, u)| *u);
        self.hold(u == Some(change.u), || {
            format!("song {song}: event {seq} is told as {} and stored as {u:?}", change.u)
        });
    }

    // --- the end ---

    /// Nobody makes trouble any more, and nothing is under way.
    pub fn end(&mut self, tables: &Tables, now: Time) {
        for (id, row) in &tables.nodes {
            let runs = row.left.is_some() || row.lease_until >= now;
            self.hold(runs, || format!("node {id} is gone, and nobody has noticed"));
        }
        for (user, credits) in tables.balances() {
            let sum = self.sums.get(user).copied().unwrap_or_default();
            self.hold(credits == sum && credits >= 0, || {
                format!("{user} has {credits}, the entries say {sum}")
            });
        }
        for (task, books) in &self.tasks {
            if books.settled.is_none() && self.broken.is_none() {
                self.broken = Some(format!("song {}: task {task} was never settled", books.song));
            }
        }
        for (id, row) in &tables.songs {
            let rests = match row.song.phase {
                Phase::Lyrics(_) | Phase::Music(_) => false,
                Phase::LyricsReady
                | Phase::Ready
                | Phase::Complete
                | Phase::Failed(_)
                | Phase::Cancelled
                | Phase::Deleted => !row.has_running_task(),
            };
            self.hold(rests, || format!("song {id} did not come to its end: {:?}", row.song.phase));
            for (task, _) in row.paid_tasks() {
                let paid = self.tasks.contains_key(&task);
                self.hold(paid, || format!("song {id}: task {task} was never paid for"));
            }
        }
        let called = self.calls.iter().find(|(_, call)| call.began.is_some() && call.recorded == 0);
        let called = called.map(|(key, _)| *key);
        self.hold(called.is_none(), || format!("{called:?} was called and not recorded"));
        self.hold(tables.put_aside == 0, || "a row was put aside".to_owned());
    }

    /// Calls that were made, and orders that were taken.
    pub fn figures(&self) -> (u64, u64) {
        let count = |which: fn(&Call) -> bool| self.calls.values().filter(|call| which(call)).count() as u64;
        (count(|call| call.began.is_some()), count(|call| call.taken))
    }
}

fn legal(from: Status, to: Status) -> bool {
    use Status::{
        Cancelled, Complete, Failed, GeneratingLyrics, GeneratingMusic, LyricsReady, Pending, Ready,
    };
    from == to
        || match from {
            Pending => to != Complete,
            GeneratingLyrics => matches!(to, LyricsReady | Failed | Cancelled),
            LyricsReady => matches!(to, GeneratingMusic | Cancelled),
            GeneratingMusic => matches!(to, Ready | Failed | Cancelled | Complete),
            Ready => to == Complete,
            Failed => matches!(to, GeneratingLyrics | GeneratingMusic | Cancelled | Complete),
            Complete | Cancelled => matches!(to, Complete | Cancelled),
        }
}
