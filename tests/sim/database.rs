//! The simulated database, as nodes reach it: every question takes its time, some are never answered, and a commit is
//! made, or not made, or made and nobody hears of it, maybe long after whoever asked has given up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use songflight::credit::plan::{Plan, Standing};
use songflight::id::{SongId, UserId};
use songflight::store::StoreError;
use songflight::store::births::Birth;
use songflight::store::database::Database;
use songflight::store::journal::{Committed, Entry, FENCED, NodeKey, Session, Sessions, Verdict, Waiting};
use songflight::store::nodes::Taken;
use songflight::store::row::StepRow;
use songflight::store::songs::Loaded;
use songflight::time::Time;
use tokio::sync::oneshot;
use tokio::time::sleep;
use uuid::Uuid;

use super::rows::read;
use super::sim::{Life, Sim, State};
use super::tables::{Creation, Reservation};

/// One node's way to the database.
#[derive(Clone)]
pub struct Way {
    pub sim: Sim,
    pub life: Arc<Life>,
}

/// How often in a thousand a program dies over a question, and over a commit.
const ASKING: u64 = 1;
const WRITING: u64 = 12;

/// What becomes of a commit.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Made,
    /// The connection broke before it arrived.
    Lost,
    /// It was made, and its answer got lost.
    Unheard,
    /// The connection broke at once, and it is made after this long all the same.
    Late(Duration),
}

impl Way {
    fn away(&self) -> bool {
        self.life.is_cut_off()
            || self.sim.lock().outage_until.is_some_and(|until| until > tokio::time::Instant::now())
    }

    fn unavailable() -> StoreError {
        StoreError::Unavailable("the simulated database is away".to_owned())
    }

    /// Asks something, which happens at one moment; the answer may get lost.
    async fn ask<T>(&self, question: impl FnOnce(&mut State, Time) -> T) -> Result<T, StoreError> {
        self.life.moment(&self.sim, ASKING).await;
        let (there, back, deaf) = self.sim.with(|state, _| {
            let deaf = state.faults.deaf && state.dice.percent(4);
            (state.dice.millis(0, 4), state.dice.millis(1, 4), deaf)
        });
        sleep(there).await;
        self.life.or_never().await;
        if self.away() {
            return Err(Self::unavailable());
        }
        let answer = self.sim.with(question);
        sleep(back).await;
        self.life.moment(&self.sim, ASKING).await;
        if deaf || self.away() { Err(Self::unavailable()) } else { Ok(answer) }
    }
}

#[async_trait(?Send)]
impl Database for Way {
    async fn enter(&self, _: Uuid, _: &str, lease: Duration) -> Result<NodeKey, StoreError> {
        self.ask(|state, now| {
            let id = state.dice.uuid();
            state.tables.enter(id, now + lease)
        })
        .await
    }

    async fn succeed(&self, former: Uuid, _: &str, lease: Duration) -> Result<Option<NodeKey>, StoreError> {
        self.ask(|state, now| state.tables.succeed(former, now + lease)).await
    }

    async fn heartbeat(&self, node: NodeKey, lease: Duration) -> Result<bool, StoreError> {
        self.ask(|state, now| state.tables.heartbeat(node, now + lease)).await
    }

    async fn leave(&self, node: NodeKey) -> Result<(), StoreError> {
        self.ask(|state, now| state.tables.leave(node, now)).await
    }

    async fn fence_the_dead(&self, node: NodeKey) -> Result<u64, StoreError> {
        self.ask(|state, now| state.tables.fence_the_dead(node, now)).await
    }

    async fn inherited(&self, node: NodeKey, from: Option<SongId>, _: i64) -> Result<Taken, StoreError> {
        self.ask(|state, _| state.tables.inherited(node, from)).await
    }

    async fn resumed(&self, node: NodeKey) -> Result<(), StoreError> {
        self.ask(|state, _| state.tables.resumed(node)).await
    }

    async fn take_over(
        &self,
        node: NodeKey,
        from: Option<SongId>,
        limit: i64,
        _: i16,
    ) -> Result<Taken, StoreError> {
        self.ask(|state, _| state.tables.take_over(node, from, limit)).await
    }

    async fn running(&self, node: NodeKey) -> Result<Vec<SongId>, StoreError> {
        self.ask(|state, _| state.tables.running(node)).await
    }

    async fn claim(&self, node: NodeKey, song: SongId) -> Result<bool, StoreError> {
        self.ask(|state, now| state.tables.claim(node, song, now)).await
    }

    async fn load(&self, songs: &[SongId]) -> Result<Loaded, StoreError> {
        let stored = self.ask(|state, _| songs.iter().filter_map(|song| state.tables.load(*song)).collect());
        Ok(Loaded { stored: stored.await?, unreadable: Vec::new() })
    }

    async fn is_own(&self, song: SongId, user: &UserId) -> Result<bool, StoreError> {
        self.ask(|state, _| state.tables.is_own(song, user)).await
    }
}

#[async_trait]
impl Sessions for Way {
    async fn open(&self) -> Result<Box<dyn Session>, StoreError> {
        sleep(Duration::from_millis(3)).await;
        self.life.or_never().await;
        if self.away() { Err(Self::unavailable()) } else { Ok(Box::new(self.clone())) }
    }
}

#[async_trait]
impl Session for Way {
    fn is_closed(&self) -> bool {
        false
    }

    async fn write(&self, batch: &[Waiting], node: NodeKey) -> Result<Vec<Verdict>, StoreError> {
        self.life.moment(&self.sim, WRITING).await;
        if self.away() {
            return Err(Self::unavailable());
        }
        let entries: Vec<Entry> = batch.iter().map(|waiting| copy(&waiting.entry)).collect();
        let (takes, fate) = self.sim.with(|state, _| fate(state));
        let (answer, heard) = oneshot::channel();
        // What has left this machine goes on without it.
        tokio::spawn(carry_out(self.sim.clone(), entries, node, takes, fate, answer));
        let written = heard.await;
        self.life.moment(&self.sim, WRITING).await;
        written.unwrap_or_else(|_| Err(StoreError::Unknown("the connection broke".to_owned())))
    }

    async fn read_back(
        &self,
        steps: &[(usize, &StepRow)],
        node: NodeKey,
    ) -> Result<Vec<(usize, Verdict)>, StoreError> {
        self.life.moment(&self.sim, WRITING).await;
        sleep(Duration::from_millis(1)).await;
        self.life.or_never().await;
        if self.away() {
            return Err(Self::unavailable());
        }
        Ok(self.sim.with(|state, now| {
            let found = steps.iter().filter(|(_, row)| state.tables.stands(row, node));
            let law = &state.law;
            let verdict = |(at, row): &(usize, &StepRow)| {
                let told = row.event.as_ref().map(|_| (law.number_of(row.song, row.seq), now));
                (*at, Verdict::new(Committed::Moved, told))
            };
            found.map(verdict).collect()
        }))
    }

    async fn put_aside(&self, _: &Entry, _: &str) -> Result<(), StoreError> {
        self.sim.lock().tables.put_aside += 1;
        Ok(())
    }
}

fn copy(entry: &Entry) -> Entry {
    match entry {
        Entry::Create(new) => Entry::Create(new.clone()),
        Entry::Step(row, inbox) => Entry::Step(row.clone(), inbox.clone()),
        Entry::Callback(inbox) => Entry::Callback(inbox.clone()),
        Entry::Claim(claim) => Entry::Claim(claim.clone()),
    }
}

fn fate(state: &mut State) -> (Duration, Fate) {
    let (faults, dice) = (state.faults, &mut state.dice);
    let takes = match faults.slow && dice.percent(5) {
        true => dice.millis(500, 25_000),
        false => dice.millis(1, 8),
    };
    let fate = match dice.below(100) {
        0..3 if faults.unknown => Fate::Lost,
        3..7 if faults.unknown => Fate::Unheard,
        7..10 if faults.unknown => Fate::Late(dice.millis(1, 20_000)),
        _ => Fate::Made,
    };
    (takes, fate)
}

/// The database's side of a commit.
async fn carry_out(
    sim: Sim,
    entries: Vec<Entry>,
    node: NodeKey,
    takes: Duration,
    fate: Fate,
    answer: oneshot::Sender<Result<Vec<Verdict>, StoreError>>,
) {
    sleep(takes / 2).await;
    let away = sim.lock().outage_until.is_some_and(|until| until > tokio::time::Instant::now());
    let fate = match fate {
        Fate::Made if away => sim.dice(|dice| dice.pick(&[Fate::Lost, Fate::Unheard])),
        Fate::Made | Fate::Lost | Fate::Unheard | Fate::Late(_) => fate,
    };
    let answer = match fate {
        Fate::Lost => return,
        Fate::Late(by) => {
            drop(answer);
            sleep(by).await;
            None
        }
        Fate::Unheard => {
            drop(answer);
            None
        }
        Fate::Made => Some(answer),
    };
    let written = sim.with(|state, now| transaction(state, &entries, node, now));
    sim.note(|| {
        let which = entries.iter().map(name).collect::<Vec<_>>().join(", ");
        format!("{fate:?} for {}: {which}: {}", short(node.id), outcome(&written))
    });
    sleep(takes / 2).await;
    if let Some(answer) = answer {
        drop(answer.send(written));
    }
}

fn short(id: Uuid) -> String {
    id.to_string()[..4].to_owned()
}

fn name(entry: &Entry) -> String {
    match entry {
        Entry::Create(new) => format!("new song {} of {}", short(new.song.id.0), new.song.user),
        Entry::Step(row, inbox) => {
            let kind = row.event.as_ref().map_or("silent", |(kind, _)| kind.as_str());
            let by = if inbox.is_some() { " by a callback" } else { "" };
            let run: Option<Value> = row.run.as_deref().map(read);
            let calls = run.iter().flat_map(|run| run["calls"].as_array()).flatten();
            let calls: String = calls.map(|call| format!(" {}#{}", call["state"], call["attempt"])).collect();
            format!("song {} version {} {kind}{by}{calls}", short(row.song.0), row.version)
        }
        Entry::Callback(inbox) => format!("a callback, {}", inbox.outcome),
        Entry::Claim(claim) => format!("song {} claimed", short(claim.song.0)),
    }
}

fn outcome(written: &Result<Vec<Verdict>, StoreError>) -> String {
    match written {
        Ok(verdicts) => verdicts.iter().map(|one| format!("{:?} ", one.committed)).collect(),
        Err(error) => error.to_string(),
    }
}

/// Limits are not what is tried here: everybody may always create.
fn born(birth: Birth, now: Time) -> Committed {
    let standing =
        Standing { plan: Plan::Free, left: 1, next_at: now, full_at: now, used_today: 0, previews_today: 0 };
    Committed::Birth { birth, standing }
}

/// All of a batch at one moment, in the order of the journal's statements.
fn transaction(
    state: &mut State,
    entries: &[Entry],
    node: NodeKey,
    now: Time,
) -> Result<Vec<Verdict>, StoreError> {
    let State { tables, law, .. } = state;
    let mut verdicts: Vec<Verdict> = entries.iter().map(|_| Verdict::new(Committed::Stale, None)).collect();
    let (mut creates, mut steps, mut went) = (0_u32, 0_u32, 0_u32);
    for (entry, verdict) in entries.iter().zip(&mut verdicts) {
        if let Entry::Create(new) = entry {
            creates += 1;
            let creation = tables.create(new, node, law);
            went += u32::from(!matches!(creation, Creation::Fenced));
            *verdict = match creation {
                Creation::Fenced => return Err(StoreError::Refused(FENCED.to_owned())),
                Creation::Created(u) => {
                    Verdict::new(born(Birth::Created { song: new.song.id }, now), Some((u, now)))
                }
                Creation::Replay(song) => silent(born(Birth::Replay { song }, now)),
                Creation::Mismatch => silent(born(Birth::KeyMismatch, now)),
                Creation::Gone => silent(born(Birth::KeyGone, now)),
                Creation::Short(available) => {
                    let required = new.song.head.price;
                    silent(born(Birth::Short { required, available }, now))
                }
            };
        }
    }
    for (entry, verdict) in entries.iter().zip(&mut verdicts) {
        if let Entry::Step(row, _) = entry
            && let Some(reserve) = &row.reserve
            && let Reservation::Short(available) = tables.reserve(row, node, law)
        {
            *verdict = silent(Committed::Short { required: reserve.amount, available });
        }
    }
    for (entry, verdict) in entries.iter().zip(&mut verdicts) {
        match entry {
            Entry::Step(row, _) => {
                steps += 1;
                if let Some(u) = tables.step(row, node, law) {
                    went += 1;
                    *verdict = Verdict::new(Committed::Moved, u.map(|u| (u, now)));
                }
            }
            Entry::Callback(_) => *verdict = silent(Committed::Kept),
            // Nobody in here is a guest.
            Entry::Create(_) | Entry::Claim(_) => {}
        }
    }
    tables.inbox += entries.iter().map(|entry| u64::from(!matches!(entry, Entry::Create(_)))).sum::<u64>();
    state.mark(u64::from(went) << 32 | u64::from(creates + steps), now);
    if creates + steps > 0 && went == 0 && !state.tables.owns(node) {
        return Err(StoreError::Refused(FENCED.to_owned()));
    }
    Ok(verdicts)
}

fn silent(committed: Committed) -> Verdict {
    Verdict::new(committed, None)
}
