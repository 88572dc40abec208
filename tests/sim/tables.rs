//! The tables of a simulated database, and what the journal's statements do to them (`store::moves`, `store::births`,
//! `reserve_credits`, `store::nodes`), each at one moment. When that is, and who hears of it, is for `database`.

use std::collections::BTreeMap;

use songflight::credit::Credits;
use songflight::id::{CallKey, SongId, TaskId, UserId};
use songflight::store::journal::NodeKey;
use songflight::store::nodes::{Taken, TakenHead};
use songflight::store::row::{NewSong, StepRow};
use songflight::store::songs::Stored;
use songflight::time::Time;
use uuid::Uuid;

use super::law::Law;
use super::rows::{FurtherTask, SongRow, TaskRow, read};

#[derive(Default)]
pub struct Tables {
    pub nodes: BTreeMap<Uuid, NodeRow>,
    pub people: BTreeMap<String, Person>,
    pub songs: BTreeMap<SongId, SongRow>,
    pub song_of_task: BTreeMap<TaskId, SongId>,
    pub refs: BTreeMap<(String, String), CallKey>,
    pub inbox: u64,
    pub put_aside: u64,
    /// A planted mistake: whoever asks may write.
    pub no_fence: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct NodeRow {
    pub epoch: i64,
    pub inherits: Option<i64>,
    pub resumed: bool,
    pub lease_until: Time,
    pub left: Option<Left>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Well,
    Fenced,
}

#[derive(Default)]
pub struct Person {
    pub credits: i64,
    pub u: i64,
}

/// What becomes of a creation.
pub enum Creation {
    Fenced,
    Created(i64),
    Replay(SongId),
    Mismatch,
    Gone,
    Short(Credits),
}

pub enum Reservation {
    Reserved,
    Short(Credits),
    Stale,
}

impl Tables {
    // --- nodes ---

    pub fn owns(&self, node: NodeKey) -> bool {
        self.no_fence || self.nodes.get(&node.id).is_some_and(|row| row.epoch == node.epoch)
    }

    pub fn enter(&mut self, id: Uuid, lease_until: Time) -> NodeKey {
        self.nodes.insert(id, NodeRow { epoch: 1, inherits: None, resumed: true, lease_until, left: None });
        NodeKey { id, epoch: 1, inherits: None }
    }

    pub fn succeed(&mut self, former: Uuid, lease_until: Time) -> Option<NodeKey> {
        let row = self.nodes.get_mut(&former).filter(|row| row.left != Some(Left::Fenced))?;
        let inherits = match row.resumed {
            true => Some(row.epoch - i64::from(row.left.is_some())),
            false => row.inherits,
        };
        *row = NodeRow { epoch: row.epoch + 1, inherits, resumed: false, lease_until, left: None };
        Some(NodeKey { id: former, epoch: row.epoch, inherits })
    }

    pub fn heartbeat(&mut self, node: NodeKey, lease_until: Time) -> bool {
        let row = self.nodes.get_mut(&node.id).filter(|row| row.epoch == node.epoch);
        row.map(|row| row.lease_until = lease_until).is_some()
    }

    pub fn leave(&mut self, node: NodeKey, now: Time) {
        if let Some(row) = self.nodes.get_mut(&node.id).filter(|row| row.epoch == node.epoch) {
            *row = NodeRow { epoch: row.epoch + 1, lease_until: now, left: Some(Left::Well), ..*row };
        }
    }

    pub fn fence_the_dead(&mut self, node: NodeKey, now: Time) -> u64 {
        let dead = |(id, row): &(&Uuid, &mut NodeRow)| {
            row.lease_until < now && row.left.is_none() && **id != node.id
        };
        self.nodes
            .iter_mut()
            .filter(dead)
            .map(|(_, row)| (row.epoch, row.left) = (row.epoch + 1, Some(Left::Fenced)))
            .count() as u64
    }

    /// Whether a node lives that has what was given out under that key.
    fn is_current(&self, owner: NodeKey) -> bool {
        let has =
            |row: &NodeRow| owner.epoch == row.epoch || row.inherits.is_some_and(|from| owner.epoch >= from);
        self.nodes.get(&owner.id).is_some_and(|row| has(row) && row.left.is_none())
    }

    pub fn resumed(&mut self, node: NodeKey) {
        if let Some(row) = self.nodes.get_mut(&node.id).filter(|row| row.epoch == node.epoch) {
            row.resumed = true;
        }
    }

    pub fn inherited(&self, node: NodeKey, from: Option<SongId>) -> Taken {
        let mut taken = Taken::default();
        let inherited =
            |task: &&TaskRow| task.run.is_some() && task.is_of(node) && task.owner.epoch != node.epoch;
        for (id, song) in self.songs.iter().filter(|(id, _)| Some(**id) >= from) {
            let running: Vec<&TaskRow> = song.tasks.iter().filter(inherited).collect();
            if !running.is_empty() {
                add(&mut taken, *id, song, running.iter().any(|task| task.id != song.head().id));
            }
        }
        taken
    }

    pub fn take_over(&mut self, node: NodeKey, from: Option<SongId>, limit: i64) -> Taken {
        let mut taken = Taken::default();
        let mut tasks = 0;
        if !self.owns(node) {
            return taken;
        }
        for id in self.songs.keys().copied().filter(|id| Some(*id) >= from).collect::<Vec<_>>() {
            let orphans: Vec<usize> = self.songs[&id]
                .tasks
                .iter()
                .enumerate()
                .filter(|(_, task)| task.run.is_some() && !self.is_current(task.owner))
                // What runs beside a head goes where the head is.
                .filter(|(_, task)| {
                    let head = self.songs[&id].head();
                    task.id == head.id || head.owner.id == node.id || !self.is_current(head.owner)
                })
                .map(|(at, _)| at)
                .collect();
            if orphans.is_empty() {
                continue;
            }
            if tasks >= limit {
                break;
            }
            let song = self.songs.get_mut(&id).expect("its key was found");
            tasks += i64::try_from(orphans.len()).expect("few");
            taken.next = Some(id);
            let beside = orphans.iter().any(|at| song.tasks[*at].id != song.head().id);
            orphans.into_iter().for_each(|at| song.tasks[at].owner = node);
            add(&mut taken, id, song, beside);
        }
        taken.next = taken.next.filter(|_| tasks >= limit);
        taken
    }

    pub fn running(&self, node: NodeKey) -> Vec<SongId> {
        let mine = |row: &SongRow| row.tasks.iter().any(|task| task.run.is_some() && task.is_of(node));
        self.songs.iter().filter(|(_, row)| mine(row)).map(|(id, _)| *id).collect()
    }

    pub fn claim(&mut self, node: NodeKey, song: SongId, now: Time) -> bool {
        let Some(head) = self.songs.get(&song).map(SongRow::head) else { return false };
        let owner = head.owner;
        let lives = |row: &NodeRow| row.left.is_none() && row.lease_until >= now;
        let theirs =
            owner.id != node.id && self.is_current(owner) && self.nodes.get(&owner.id).is_some_and(lives);
        if theirs || !self.owns(node) {
            return false;
        }
        let head = head.id;
        let row = self.songs.get_mut(&song).expect("it was found");
        let mut claimed = false;
        for task in row.tasks.iter_mut().filter(|task| task.run.is_some() || task.id == head) {
            task.owner = node;
            claimed = true;
        }
        claimed
    }

    pub fn load(&self, song: SongId) -> Option<Stored> {
        let row = self.songs.get(&song)?;
        let head = row.head();
        let owner = Some(head.owner());
        Some(Stored { song: row.song.clone(), version: head.version, owner })
    }

    pub fn is_own(&self, song: SongId, user: &UserId) -> bool {
        self.songs.get(&song).is_some_and(|row| row.user == *user && row.library.deleted.is_none())
    }

    // --- the journal's statements ---

    pub fn create(&mut self, new: &NewSong, node: NodeKey, law: &mut Law) -> Creation {
        if !self.owns(node) {
            return Creation::Fenced;
        }
        let user = new.song.user.as_str().to_owned();
        let person = self.people.entry(user.clone()).or_insert_with(|| {
            law.granted(&user, new.terms.grant);
            Person { credits: new.terms.grant.thousandths(), u: 0 }
        });
        if self.songs.contains_key(&new.song.id) {
            return Creation::Created(law.number_of(new.song.id, 1));
        }
        let earlier = |(_, row): &(&SongId, &SongRow)| {
            row.user == new.song.user && row.key.is_some() && row.key == new.idempotency_key
        };
        if let Some((id, row)) = self.songs.iter().find(earlier) {
            return match (row.hash == new.content_hash, row.library.deleted) {
                (false, _) => Creation::Mismatch,
                (true, Some(_)) => Creation::Gone,
                (true, None) => Creation::Replay(*id),
            };
        }
        let price = new.song.head.price;
        if person.credits < price.thousandths() {
            return Creation::Short(Credits::from_thousandths(person.credits));
        }
        person.credits -= price.thousandths();
        person.u += 1;
        let u = person.u;
        let row = SongRow::new(new, node);
        law.created(new, &row.song, u);
        self.song_of_task.insert(new.song.head.task, new.song.id);
        self.songs.insert(new.song.id, row);
        Creation::Created(u)
    }

    pub fn reserve(&mut self, row: &StepRow, node: NodeKey, law: &mut Law) -> Reservation {
        let Some(reserve) = row.reserve.as_ref().filter(|_| self.owns(node)) else {
            return Reservation::Stale;
        };
        if !self.may_move(row, node) {
            return Reservation::Stale;
        }
        let person = self.people.get_mut(row.user.as_str()).expect("who has a song has an account");
        if person.credits < reserve.amount.thousandths() {
            return Reservation::Short(Credits::from_thousandths(person.credits));
        }
        person.credits -= reserve.amount.thousandths();
        law.reserved(row.song, row.user.as_str(), reserve.task, reserve.amount);
        Reservation::Reserved
    }

    fn may_move(&self, row: &StepRow, node: NodeKey) -> bool {
        let Some(song) = self.songs.get(&row.song) else { return false };
        let task = song.tasks.iter().find(|task| task.id == row.head);
        task.is_some_and(|task| task.version == row.version && (self.no_fence || task.owner.id == node.id))
    }

    /// One row of the journal's statement: the number of its event, if it moved.
    pub fn step(&mut self, row: &StepRow, node: NodeKey, law: &mut Law) -> Option<Option<i64>> {
        let paid = row.reserve.as_ref().is_none_or(|reserve| law.is_reserved(reserve.task));
        if !self.owns(node) || !paid || !self.may_move(row, node) {
            return None;
        }
        let owned = self.songs.get(&row.song).is_some_and(|song| song.head().is_of(node));
        law.written_by_owner(row.song, owned && self.is_current(node));
        let song = self.songs.get_mut(&row.song).expect("it may move");
        let before = song.song.clone();
        song.write(row, node);
        self.song_of_task.extend(song.tasks.iter().map(|task| (task.id, row.song)));
        let person = self.people.get_mut(row.user.as_str()).expect("who has a song has an account");
        for settle in &row.settle {
            let amount = settle.amount.thousandths();
            person.credits += amount;
            law.settled(row.song, row.user.as_str(), settle.task, settle.reason, amount);
        }
        let u = row.event.as_ref().map(|_| {
            person.u += 1;
            person.u
        });
        if let Some(push) = row.notify {
            law.pushed(row.song, push, song.pushes.iter().any(|known| known == push));
            song.pushes.push(push.to_owned());
        }
        song.song = song.read();
        let after = &song.song;
        law.stepped(&before, after, row, u, node);
        for named in &row.refs {
            if let Some(name) = &named.provider_task {
                self.refs.entry((named.provider.clone(), name.clone())).or_insert(named.call);
            }
        }
        Some(u)
    }

    /// Whether this very step stands there, one version further (`READ_BACK`).
    pub fn stands(&self, row: &StepRow, node: NodeKey) -> bool {
        let Some(song) = self.songs.get(&row.song) else { return false };
        let told = row
            .event
            .as_ref()
            .is_none_or(|(kind, set)| song.events.get(&row.seq) == Some(&(*kind, read(set))));
        let beside = row.additions.iter().flat_map(|rows| read::<Vec<FurtherTask>>(rows)).all(|one| {
            let stands = |task: &TaskRow| task.run == one.run && task.addition == one.addition;
            song.tasks.iter().any(|task| task.id == one.id && stands(task))
        });
        let head = song.tasks.iter().any(|task| {
            task.id == row.head
                && task.version == row.version + 1
                && task.owner == node
                && task.seq == row.seq
                && task.run == row.run.as_deref().map(read)
                && task.progress == read::<serde_json::Value>(&row.progress)
        });
        told && beside && head
    }

    pub fn balances(&self) -> impl Iterator<Item = (&str, i64)> {
        self.people.iter().map(|(user, person)| (user.as_str(), person.credits))
    }

    pub fn is_named(&self, key: CallKey) -> bool {
        self.refs.values().any(|named| *named == key)
    }
}

fn add(taken: &mut Taken, id: SongId, song: &SongRow, beside: bool) {
    match song.song.phase.run().filter(|_| !beside) {
        Some(run) => taken.heads.push(TakenHead {
            song: id,
            user: song.song.user.clone(),
            task: song.song.head.task,
            provider: song.song.head.provider.clone(),
            run: run.clone(),
        }),
        None => drop(taken.others.insert(id)),
    }
}
