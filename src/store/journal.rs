//! The writer of songs: **group commit**. It takes all steps that wait, writes them in one
//! transaction, and answers each; while one commit is on its way, the next batch fills. No timer.
//!
//! After a commit it tells the watchers, in the order of the commits. It keeps nothing: whoever waits
//! for an answer that never comes (the database is away too long) looks again and decides again.
//! `Journal` and `Writer` are the protocol: queue, batches, unknown outcomes. A [`Session`] carries a batch to the
//! database, which is Postgres, or what a simulation has in its place (`tests/sim`).
//! Not here: what a step is (`song::step`), which columns it touches (`store::row`), SQL (`store::session`).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::births::Birth;
use super::claims::Claim;
use super::lanes::{Lanes, Stay};
use super::row::{InboxRow, NewSong, StepRow};
use super::server::Server;
use super::{SongChanged, StoreError};
use crate::credit::Credits;
use crate::credit::plan::Standing;
use crate::song::event::EventKind;
use crate::song::view;
use crate::time::{Clock, Time};

/// Something to be made durable.
pub enum Entry {
    Create(Box<NewSong>),
    /// A step, and the callback that caused it, if one did.
    Step(Box<StepRow>, Option<InboxRow>),
    /// A callback that changed nothing: kept all the same (CB-2).
    Callback(InboxRow),
    /// A step that moves a guest's song to an account (CRED-7).
    Claim(Box<Claim>),
}

/// Kinds and ids alone: what people wrote, links to what they share and what providers post have no place in a log (OPS-5).
impl fmt::Debug for Entry {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(new) => write!(to, "the creation of song {}", new.song.id),
            Self::Step(row, None) => write!(to, "a step of song {}", row.song),
            Self::Step(row, Some(_)) => write!(to, "a step of song {} with its callback", row.song),
            Self::Callback(row) => write!(to, "a callback about task {}", row.task),
            Self::Claim(claim) => write!(to, "a claim of song {}", claim.song),
        }
    }
}

/// What became of an [`Entry`]; durable when this is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    Moved,
    /// What became of a creation, and where its user stands with it.
    Birth {
        birth: Birth,
        standing: Standing,
    },
    /// Nothing was written: the user cannot pay for it.
    Short {
        required: Credits,
        available: Credits,
    },
    /// Nothing was written: the song moved on since the step was decided, or is not ours. Load it again.
    Stale,
    Kept,
}

/// Why nothing is known to be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The queue is full; nothing was accepted.
    #[error("too much is waiting to be written")]
    Busy,
    /// Postgres did not answer in time. The entry may have been written: load and decide again.
    #[error("the database is away")]
    Away,
    /// Another node took this node's songs.
    #[error("this node lost its songs")]
    Fenced,
    /// The row does not go in; it stands in `failed_jobs`.
    #[error("the database refused: {0}")]
    Refused(String),
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Writers, each with its own connection. The first does it alone as long as it keeps up (`lanes`).
    pub lanes: usize,
    /// Entries that the first writer may have before the others help.
    pub help_at: usize,
    /// Most entries in one transaction.
    pub batch_max: usize,
    /// Most entries waiting, of which each writer has its share; beyond it creations and wishes are refused before anything
    /// is accepted, and what happened to a song already stands in line.
    pub queue_max: usize,
    /// How long one transaction may take before the connection is given up.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lanes: 2, help_at: 256, batch_max: 1024, queue_max: 4096, patience: PATIENCE }
    }
}

/// This node, as its commits name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeKey {
    pub id: Uuid,
    /// One more with every process that goes on as this node, so that nothing is written any more by those before.
    pub epoch: i64,
    /// That of the process before, from which on what runs is this one's.
    pub inherits: Option<i64>,
}

impl NodeKey {
    /// Whether this process may write a song; `nodes::OWNS` says the same in SQL.
    pub fn owns(self, owner: Owner) -> bool {
        let inherited = self.inherits.is_some_and(|from| owner.epoch >= from && owner.epoch < self.epoch);
        owner.node == self.id && (owner.epoch == self.epoch || inherited && owner.activations == 0)
    }
}

/// Whose a song is, as the row of its head's task says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub node: Uuid,
    /// The node's, when it took the song up or moved it last.
    pub epoch: i64,
    /// How often it was taken up since it moved last.
    pub activations: i16,
}

/// A writer at work.
pub type Lane = Pin<Box<dyn Future<Output = ()> + Send>>;

type Waiter = oneshot::Sender<Result<Committed, CommitError>>;

/// An entry, and whoever waits for what becomes of it.
pub struct Waiting {
    pub entry: Entry,
    answer: Waiter,
    stay: Stay,
}

/// Opens connections for the writers.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// # Errors
    /// [`StoreError::Unavailable`] when none can be had.
    async fn open(&self) -> Result<Box<dyn Session>, StoreError>;
}

/// One writer's connection.
#[async_trait]
pub trait Session: Send + Sync {
    /// Whether it broke: another is to be opened.
    fn is_closed(&self) -> bool;

    /// Writes a batch in one transaction, and says of each entry what became of it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when nothing was written ([`FENCED`]: as nothing may be any more), else nobody knows.
    async fn write(&self, batch: &[Waiting], node: NodeKey) -> Result<Vec<Verdict>, StoreError>;

    /// After an attempt of unknown outcome: which of these steps, with their places in the batch, stand there one
    /// version further, under our epoch and with the very same content. They were our own earlier attempt.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] without an answer.
    async fn read_back(
        &self,
        steps: &[(usize, &StepRow)],
        node: NodeKey,
    ) -> Result<Vec<(usize, Verdict)>, StoreError>;

    /// Keeps an entry that does not go in, for an operator to look at (OPS-1).
    ///
    /// # Errors
    /// [`StoreError`] as for any statement.
    async fn put_aside(&self, entry: &Entry, error: &str) -> Result<(), StoreError>;
}

/// Where steps are handed in. Cheap to clone; from any thread.
#[derive(Clone)]
pub struct Journal {
    lanes: Arc<Lanes<Waiting>>,
    node: NodeKey,
    in_doubt: Arc<AtomicBool>,
    closed: watch::Sender<bool>,
}

/// How long a transaction may take before its connection is given up: longer than a large batch ever takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whoever waits for a commit is told after this long that nobody knows: soon enough for a provider that
/// waits for its callback's answer (15 s), and longer than a database takes to start again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl Journal {
    /// The handle, and the writers to be spawned, which end when it is closed or all handles are gone. `changed` is told
    /// of every public change, in commit order for each user; it must not block.
    pub fn new(
        server: impl Into<Server>,
        node: NodeKey,
        settings: &Settings,
        changed: impl Fn(SongChanged) + Clone + Send + 'static,
    ) -> (Self, Vec<Lane>) {
        Self::over(Arc::new(server.into()), node, settings, changed)
    }

    /// The same over sessions of any kind.
    pub fn over(
        sessions: Arc<dyn Sessions>,
        node: NodeKey,
        settings: &Settings,
        changed: impl Fn(SongChanged) + Clone + Send + 'static,
    ) -> (Self, Vec<Lane>) {
        let in_doubt = Arc::new(AtomicBool::new(false));
        let closed = watch::Sender::new(false);
        let many = settings.lanes.max(1);
        let share = (settings.queue_max / many).max(1);
        let lanes = (0..many).map(|lane| {
            let (queue, waiting) = mpsc::channel(share);
            let writer = Writer {
                lane: lane.to_string(),
                sessions: sessions.clone(),
                node,
                settings: settings.clone(),
                changed: Box::new(changed.clone()),
                session: None,
                away: false,
                in_doubt: in_doubt.clone(),
                clock: Clock,
            };
            (queue, Box::pin(writer.run(waiting, closed.subscribe())) as Lane)
        });
        let (queues, writers): (Vec<_>, Vec<_>) = lanes.unzip();
        let lanes = Arc::new(Lanes::new(queues, settings.help_at.min(share)));
        (Self { lanes, node, in_doubt, closed }, writers)
    }

    pub fn node(&self) -> NodeKey {
        self.node
    }

    /// Makes an entry durable.
    ///
    /// # Errors
    /// See [`CommitError`]: only after [`CommitError::Busy`] and [`CommitError::Refused`] is it certain
    /// that nothing was written.
    pub async fn commit(&self, entry: Entry) -> Result<Committed, CommitError> {
        let (lane, stay) = self.lane(&entry);
        let place = lane.try_reserve().map_err(|_| CommitError::Busy)?;
        hand_in(place, entry, stay).await
    }

    /// The same for what happened to a song already and must not be lost: where the queue is full it stands in line
    /// before it, ahead of all that is only asked for.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub async fn commit_in_line(&self, entry: Entry) -> Result<Committed, CommitError> {
        let (lane, stay) = self.lane(&entry);
        match tokio::time::timeout(ANSWER_WITHIN, lane.reserve()).await {
            Ok(Ok(place)) => hand_in(place, entry, stay).await,
            Ok(Err(_)) | Err(_) => Err(CommitError::Busy),
        }
    }

    /// Whether nothing waits to be written, is being written, or is to be tried again.
    pub fn is_idle(&self) -> bool {
        self.lanes.is_idle()
    }

    /// Has the writers end, once what waits is written, and give up their connections. What comes later is refused.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether, since last asked, something was written or may have been of which nobody heard: a song
    /// may run that nobody looks after.
    pub fn take_doubt(&self) -> bool {
        self.in_doubt.swap(false, Ordering::AcqRel)
    }

    /// What [`Journal::take_doubt`] took could not be looked into.
    pub fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Release);
    }
}

impl Journal {
    fn lane(&self, entry: &Entry) -> (&mpsc::Sender<Waiting>, Stay) {
        match entry {
            Entry::Create(new) => self.lanes.of(&new.song.user),
            Entry::Step(row, _) => self.lanes.of(&row.user),
            Entry::Claim(claim) => self.lanes.of(&claim.account),
            Entry::Callback(row) => self.lanes.of(row.task),
        }
    }
}

async fn hand_in(
    place: mpsc::Permit<'_, Waiting>,
    entry: Entry,
    stay: Stay,
) -> Result<Committed, CommitError> {
    let (answer, heard) = oneshot::channel();
    place.send(Waiting { entry, answer, stay });
    match tokio::time::timeout(ANSWER_WITHIN, heard).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(CommitError::Away),
    }
}

struct Writer {
    /// Its number, for metrics.
    lane: String,
    sessions: Arc<dyn Sessions>,
    node: NodeKey,
    settings: Settings,
    changed: Box<dyn Fn(SongChanged) + Send>,
    session: Option<Box<dyn Session>>,
    /// The last batch was given up: try the next ones once, not with all the patience.
    away: bool,
    in_doubt: Arc<AtomicBool>,
    clock: Clock,
}

/// Postgres away: again after these, then everybody who waits is told (`design.md` section 2).
const RETRIES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// What the database said of one entry, before it is known to whom.
pub struct Verdict {
    pub committed: Committed,
    /// The number of the user's event and when it was committed, if watchers are to be told.
    pub told: Option<(i64, Time)>,
    /// The guest's event before, where the song changed hands.
    pub gone: Option<i64>,
}

impl Verdict {
    pub const fn new(committed: Committed, told: Option<(i64, Time)>) -> Self {
        Self { committed, told, gone: None }
    }
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>, mut closed: watch::Receiver<bool>) {
        let mut batch = Vec::with_capacity(self.settings.batch_max);
        loop {
            let many = tokio::select! {
                biased;
                many = waiting.recv_many(&mut batch, self.settings.batch_max) => many,
                // Also when the last handle goes: then nothing comes any more.
                _ = closed.wait_for(|closed| *closed) => 0,
            };
            if many == 0 {
                return;
            }
            gauge!("songflight_journal_queue", "lane" => self.lane.clone()).set(count(waiting.len()));
            histogram!("songflight_journal_batch").record(count(batch.len()));
            let persisted = AssertUnwindSafe(self.persist(std::mem::take(&mut batch))).catch_unwind().await;
            if persisted.is_err() {
                self.start_afresh();
            }
        }
    }

    /// After a panic, which is a fault in this program: who waited for the batch is told that nobody knows, which is so,
    /// and all that comes later is written. Nothing but the session can have been left half done.
    fn start_afresh(&mut self) {
        self.session = None;
        self.in_doubt.store(true, Ordering::Release);
        tracing::error!("the journal's writer stumbled over a batch and starts afresh; please report this");
    }

    /// Brings a batch to an end: written, refused, or given up.
    async fn persist(&mut self, mut batch: Vec<Waiting>) {
        // Whoever gave up was told that nothing is known to be written, and decided again since.
        batch.retain(|waiting| !waiting.answer.is_closed());
        if batch.is_empty() {
            return;
        }
        let tries = if self.away { &RETRIES[..1] } else { &RETRIES[..] };
        let mut again = false;
        for delay in tries.iter().copied().map(Some).chain([None]) {
            let started = self.clock.monotonic();
            match self.attempt(&batch, again).await {
                Ok(verdicts) => {
                    self.away = false;
                    histogram!("songflight_journal_commit_seconds")
                        .record(self.clock.since(started).as_secs_f64());
                    return self.answer(batch, verdicts);
                }
                Err(StoreError::Refused(error)) if error == FENCED => {
                    tracing::error!(node.id = %self.node.id, "another node took this node's songs");
                    return refuse(batch, &CommitError::Fenced);
                }
                Err(StoreError::Refused(error)) => return Box::pin(self.bisect(batch, error)).await,
                Err(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_))) => {
                    self.session = None;
                    again = true;
                    counter!("songflight_journal_outages_total").increment(1);
                    tracing::warn!(%error, entries = batch.len(), "a commit did not go through");
                }
            }
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
        }
        self.away = true;
        self.in_doubt.store(true, Ordering::Release);
        refuse(batch, &CommitError::Away);
    }

    /// One row spoils its whole batch: halves it until the row stands alone, and puts that aside (OPS-1).
    async fn bisect(&mut self, mut batch: Vec<Waiting>, error: String) {
        if batch.len() > 1 {
            let other = batch.split_off(batch.len() / 2);
            self.persist(batch).await;
            return self.persist(other).await;
        }
        for Waiting { entry, answer, stay: _stay } in batch {
            tracing::error!(%error, ?entry, "a row was refused and put aside");
            counter!("songflight_journal_refused_total").increment(1);
            let put_aside = tokio::time::timeout(self.settings.patience, self.put_aside(&entry, &error));
            let aside =
                put_aside.await.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".into())));
            if let Err(error) = aside {
                tracing::error!(%error, ?entry, "and could not even be put aside");
            }
            drop(answer.send(Err(CommitError::Refused(error.clone()))));
        }
    }

    async fn put_aside(&mut self, entry: &Entry, error: &str) -> Result<(), StoreError> {
        self.session().await?.put_aside(entry, error).await
    }

    fn answer(&self, batch: Vec<Waiting>, verdicts: Vec<Verdict>) {
        let mut told: Vec<SongChanged> = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        for (Waiting { entry, answer, stay }, verdict) in batch.into_iter().zip(verdicts) {
            if let Some((u, at)) = verdict.told {
                told.extend(verdict.gone.and_then(|u| gone(&entry, u, at)));
                told.extend(change(entry, u, at));
            }
            answers.push((answer, verdict.committed, stay));
        }
        // Creates were numbered before steps, whatever their order in the batch.
        told.sort_by_key(|change| change.u);
        counter!("songflight_events_total").increment(u64::try_from(told.len()).unwrap_or(0));
        for change in told {
            (self.changed)(change);
        }
        for (answer, committed, _stay) in answers {
            if answer.send(Ok(committed)).is_err() {
                // Whoever asked has stopped waiting.
                self.in_doubt.store(true, Ordering::Release);
            }
        }
    }

    async fn session(&mut self) -> Result<&dyn Session, StoreError> {
        if self.session.as_ref().is_some_and(|session| session.is_closed()) {
            self.session = None;
        }
        if self.session.is_none() {
            let open = tokio::time::timeout(self.settings.patience, self.sessions.open());
            let session = open.await.map_err(|_| StoreError::Unavailable("no connection in time".into()))?;
            self.session = Some(session?);
        }
        self.session.as_deref().ok_or_else(|| StoreError::Unavailable("no connection".into()))
    }

    /// Writes the batch in one transaction. `again` after an attempt of unknown outcome: then what is found
    /// one version further under our own epoch was us.
    async fn attempt(&mut self, batch: &[Waiting], again: bool) -> Result<Vec<Verdict>, StoreError> {
        let patience = self.settings.patience;
        let node = self.node;
        let session = self.session().await?;
        let write = async {
            let mut verdicts = session.write(batch, node).await?;
            let stale = stale_steps(batch, &verdicts);
            if again && !stale.is_empty() {
                for (at, verdict) in session.read_back(&stale, node).await? {
                    verdicts[at] = verdict;
                }
            }
            Ok(verdicts)
        };
        tokio::time::timeout(patience, write)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unknown("no answer in time".into())))
    }
}

/// The steps that found another version than theirs, with their places in the batch.
fn stale_steps<'a>(batch: &'a [Waiting], verdicts: &[Verdict]) -> Vec<(usize, &'a StepRow)> {
    let step = |(at, waiting): (usize, &'a Waiting)| match &waiting.entry {
        Entry::Step(row, _) if verdicts[at].committed == Committed::Stale => Some((at, &**row)),
        // Creations and claims know their own again.
        Entry::Create(_) | Entry::Claim(_) | Entry::Step(..) | Entry::Callback(_) => None,
    };
    batch.iter().enumerate().filter_map(step).collect()
}

/// What a [`Session`] refuses a node with whose songs another one has taken.
pub const FENCED: &str = "fenced";

fn change(entry: Entry, u: i64, at: Time) -> Option<SongChanged> {
    let (user, song, seq, kind, set) = match entry {
        Entry::Create(new) => (new.song.user, new.song.id, 1, EventKind::Created, new.set),
        Entry::Step(row, _) => {
            let (kind, set) = row.event?;
            (row.user, row.song, row.seq, kind, set)
        }
        Entry::Claim(claim) => (claim.account, claim.song, claim.seq, EventKind::Created, claim.set),
        Entry::Callback(_) => return None,
    };
    Some(SongChanged { user, song, seq, u, at, kind, set })
}

/// What a guest is told whose song is an account's from here on.
fn gone(entry: &Entry, u: i64, at: Time) -> Option<SongChanged> {
    let Entry::Claim(claim) = entry else { return None };
    let (user, seq) = (claim.guest.clone(), claim.seq - 1);
    let (kind, set) = (EventKind::Gone, view::nothing());
    Some(SongChanged { user, song: claim.song, seq, u, at, kind, set })
}

fn refuse(batch: Vec<Waiting>, error: &CommitError) {
    for waiting in batch {
        drop(waiting.answer.send(Err(error.clone())));
    }
}

fn count(n: usize) -> f64 {
    n as f64
}
