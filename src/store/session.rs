//! A [`Session`] of the journal on Postgres: a batch in one transaction and one round trip, each kind of entry by a few
//! statements for all of them.
//!
//! Not here: what is written when, and what becomes of an unknown outcome (`journal`); what a step's columns are (`row`).

use async_trait::async_trait;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::StoreError;
use super::births::{self, Birth, Births};
use super::claims::{self, Claim};
use super::journal::{Committed, Entry, FENCED, NodeKey, Session, Sessions, Verdict, Waiting};
use super::moves::{self, Moves, Moving, NotMoved};
use super::row::{InboxRow, NewSong, StepRow};
use super::server::Server;
use crate::credit::Credits;
use crate::time::Time;

/// A statement is planned once: each time would cost more than most batches. A plan that was made while the tables were
/// empty is kept as they grow (durability.md section 2), so it must reach them by their keys alone; the statements are
/// written to leave no other choice.
///
/// A transaction that waits for its client holds the node's row, so that nobody could take its songs over: if the program
/// stands still in that moment, or its machine is gone, the connection is given up before a lease of the usual 6 s ends.
const PLANNING: &str = "
set idle_in_transaction_session_timeout = '4s';
set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_mergejoin = off;
set enable_hashjoin = off; set jit = off";

const RESERVE: &str = "
with fence as materialized (select 1 from nodes where id = $1 and epoch = $2 for key share)
select b.ord, r.*
  from (select * from unnest($3::text[], $4::uuid[], $5::uuid[], $6::bigint[], $7::uuid[], $8::text[], $9::bigint[],
            $10::bigint[]) as b (user_id, song, head, version, task, kind, amount, ord)
         order by user_id, ord) b
 cross join fence
 cross join lateral reserve_credits($1, $2, b.user_id, b.song, b.head, b.version, b.task, b.kind, b.amount) r";

// What the step says of the head alone is not enough: of a song that rests, two steps may differ only in what watchers
// are told, or in a task beside it.
const READ_BACK: &str = "
select b.ord, e.u, (extract(epoch from e.at) * 1000)::bigint as at
  from unnest($1::uuid[], $2::bigint[], $3::bigint[], $6::jsonb[], $7::jsonb[], $8::text[], $9::json[], $10::jsonb[])
       with ordinality as b (head, version, seq, run, progress, kind, set, additions, ord)
  join tasks t on t.id = b.head and t.version = b.version + 1 and t.owner = $4 and t.epoch = $5
   and t.seq = b.seq and t.run is not distinct from b.run and t.progress = b.progress
  left join song_events e on e.song_id = t.song_id and e.seq = b.seq
 where (b.kind is null or (e.kind = b.kind and e.set::text = b.set::text))
   and not exists (
        select 1 from jsonb_to_recordset(b.additions) as a(id uuid, run jsonb, addition jsonb)
          left join tasks o on o.id = a.id
         where o.run is distinct from a.run or o.addition is distinct from a.addition)";

/// A connection with its statements prepared.
struct PostgresSession {
    client: Client,
    births: Births,
    reserve: Statement,
    claim: Statement,
    moves: Moves,
}

#[async_trait]
impl Sessions for Server {
    async fn open(&self) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(PostgresSession::open(self).await?))
    }
}

impl PostgresSession {
    async fn open(server: &Server) -> Result<Self, StoreError> {
        let client = super::connect(server, "songflight journal").await?;
        client.batch_execute(PLANNING).await?;
        let prepare = async |sql| client.prepare(sql).await.map_err(StoreError::from);
        let (births, reserve, claim) =
            tokio::try_join!(Births::prepare(&client), prepare(RESERVE), prepare(claims::CLAIM))?;
        Ok(Self { client, births, reserve, claim, moves: Moves::default() })
    }

    async fn reserve(&self, steps: &[(usize, &StepRow)], node: NodeKey) -> Result<Vec<Row>, StoreError> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let users: Vec<&str> = steps.iter().map(|(_, row)| row.user.as_str()).collect();
        let songs: Vec<Uuid> = steps.iter().map(|(_, row)| row.song.0).collect();
        let heads: Vec<Uuid> = steps.iter().map(|(_, row)| row.head.0).collect();
        let versions: Vec<i64> = steps.iter().map(|(_, row)| row.version).collect();
        let reserves = steps.iter().filter_map(|(_, row)| row.reserve.as_ref());
        let tasks: Vec<Uuid> = reserves.clone().map(|reserve| reserve.task.0).collect();
        let kinds: Vec<&str> = reserves.clone().map(|reserve| reserve.kind).collect();
        let amounts: Vec<i64> = reserves.map(|reserve| reserve.amount.thousandths()).collect();
        let places: Vec<i64> = steps.iter().map(|(at, _)| i64::try_from(*at).unwrap_or(i64::MAX)).collect();
        Ok(self
            .client
            .query(
                &self.reserve,
                &[
                    &node.id,
                    &node.epoch,
                    &users,
                    &songs,
                    &heads,
                    &versions,
                    &tasks,
                    &kinds,
                    &amounts,
                    &places,
                ],
            )
            .await?)
    }

    async fn owns(&self, node: NodeKey) -> Result<bool, StoreError> {
        let sql = "select 1 from nodes where id = $1 and epoch = $2";
        Ok(self.client.query_opt(sql, &[&node.id, &node.epoch]).await?.is_some())
    }
}

/// A batch by what is to be done with each, with their places in it.
struct Parts<'a> {
    creates: Vec<(usize, &'a NewSong)>,
    claims: Vec<(usize, &'a Claim)>,
    steps: Vec<(usize, &'a StepRow)>,
    inbox: Vec<&'a InboxRow>,
}

impl<'a> Parts<'a> {
    fn of(batch: &'a [Waiting]) -> Self {
        let mut parts =
            Self { creates: Vec::new(), claims: Vec::new(), steps: Vec::new(), inbox: Vec::new() };
        for (at, waiting) in batch.iter().enumerate() {
            match &waiting.entry {
                Entry::Create(new) => parts.creates.push((at, &**new)),
                Entry::Claim(claim) => parts.claims.push((at, &**claim)),
                Entry::Step(row, callback) => {
                    parts.steps.push((at, &**row));
                    parts.inbox.extend(callback);
                }
                Entry::Callback(row) => parts.inbox.push(row),
            }
        }
        parts
    }

    /// Whether it is a single statement, and so a transaction by itself.
    fn is_one(&self) -> bool {
        let moving = !self.steps.is_empty() || !self.inbox.is_empty();
        let others = [!self.claims.is_empty(), self.reserves(), moving];
        self.creates.is_empty() && others.iter().filter(|needed| **needed).count() == 1
    }

    /// Whether a step reserves money, which has a statement of its own.
    fn reserves(&self) -> bool {
        self.steps.iter().any(|(_, row)| row.reserve.is_some())
    }
}

fn rows<'a>(steps: &[(usize, &'a StepRow)]) -> Vec<&'a StepRow> {
    steps.iter().map(|(_, row)| *row).collect()
}

/// What the database answered to a batch, with the places that it is about.
struct Written {
    created: Vec<(usize, Row)>,
    claimed: Vec<Row>,
    reserved: Vec<Row>,
    moved: Vec<(usize, Option<(i64, Time)>)>,
}

impl PostgresSession {
    async fn transaction(
        &self,
        batch: &[Waiting],
        parts: &Parts<'_>,
        node: NodeKey,
    ) -> Result<Vec<Verdict>, NotMoved> {
        let written = match self.send(parts, node).await {
            Ok(written) => written,
            Err(error) => {
                // The transaction is aborted; its `commit`, if it was sent, was a rollback. Leave the session clean.
                if !parts.is_one() && !self.client.is_closed() {
                    self.client.batch_execute("rollback").await.map_err(StoreError::from)?;
                }
                return Err(error);
            }
        };
        let unanswered = (!parts.creates.is_empty() && written.created.is_empty())
            || (!parts.claims.is_empty() && written.claimed.is_empty())
            || (parts.reserves() && written.reserved.is_empty());
        if unanswered {
            let error = if self.owns(node).await? {
                StoreError::Unavailable(
                    "the database answers to nothing, and nothing is in its way".to_owned(),
                )
            } else {
                StoreError::Refused(FENCED.to_owned())
            };
            return Err(error.into());
        }
        self.births.remember(&parts.creates);
        Ok(verdicts(batch, parts, &written))
    }

    /// All in one go, but for where a step reserves money: what cannot be paid for does not move.
    async fn send(&self, parts: &Parts<'_>, node: NodeKey) -> Result<Written, NotMoved> {
        let one = parts.is_one();
        let reserving: Vec<(usize, &StepRow)> =
            parts.steps.iter().filter(|(_, row)| row.reserve.is_some()).copied().collect();
        // `join` polls in this order, and the client writes requests in the order they are polled.
        let first = async {
            tokio::join!(
                biased;
                async { if one { Ok(()) } else { self.client.batch_execute("begin").await } },
                self.births.create(&self.client, &parts.creates, node),
                claims::claim(&self.client, &self.claim, &parts.claims, node),
                self.reserve(&reserving, node)
            )
        };
        let mut steps = parts.steps.clone();
        let (first, (moved, committed)) = if reserving.is_empty() {
            let moving = Moving::new(node, rows(&steps), &parts.inbox);
            // Before the transaction: where it is new this waits for an answer.
            let statement = self.moves.statement(&self.client, &moving).await?;
            tokio::join!(biased; first, self.finish(statement.as_ref(), &moving, one))
        } else {
            let first = first.await;
            let paid = |at| {
                let reserved = first.3.iter().flatten();
                reserved
                    .filter(|row| row.get::<_, &str>("outcome") == "reserved")
                    .any(|row| place(row, 0) == at)
            };
            steps.retain(|(at, row)| row.reserve.is_none() || paid(*at));
            let moving = Moving::new(node, rows(&steps), &parts.inbox);
            let statement = self.moves.statement(&self.client, &moving).await?;
            (first, self.finish(statement.as_ref(), &moving, one).await)
        };
        // Of several errors the first one says why.
        let (began, created, claimed, reserved) = first;
        began.map_err(StoreError::from)?;
        let (created, claimed, reserved, moved) = (created?, claimed?, reserved?, moved?);
        committed.map_err(|error| StoreError::Unknown(error.to_string()))?;
        let moved = steps.iter().map(|(at, _)| *at).zip(moved).collect();
        Ok(Written { created, claimed, reserved, moved })
    }

    /// Moves steps on, and ends the transaction.
    async fn finish(
        &self,
        statement: Option<&Statement>,
        moving: &Moving<'_>,
        one: bool,
    ) -> (Result<Vec<Option<(i64, Time)>>, NotMoved>, Result<(), tokio_postgres::Error>) {
        tokio::join!(
            biased;
            moves::write(&self.client, statement, moving),
            async { if one { Ok(()) } else { self.client.batch_execute("commit").await } }
        )
    }
}

#[async_trait]
impl Session for PostgresSession {
    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// All statements are sent without waiting for one another's answers: one round trip, and one more where money is
    /// reserved. Where some steps cannot move nothing is written, and then all but those.
    async fn write(&self, batch: &[Waiting], node: NodeKey) -> Result<Vec<Verdict>, StoreError> {
        let mut parts = Parts::of(batch);
        let mut puzzled = false;
        loop {
            match self.transaction(batch, &parts, node).await {
                Ok(verdicts) => return Ok(verdicts),
                Err(NotMoved::Error(error)) => return Err(error),
                Err(NotMoved::Stale) => {}
            }
            if !self.owns(node).await? {
                return Err(StoreError::Refused(FENCED.to_owned()));
            }
            let steps = rows(&parts.steps);
            let claimed = parts.claims.iter().map(|(_, claim)| claim.head);
            let stale = moves::stale(&self.client, &steps, claimed, node).await?;
            // Once it may have been in that very moment. Then one entry of them is wrong, and the others go on without it.
            if stale.is_empty() && std::mem::replace(&mut puzzled, true) {
                return Err(StoreError::Refused(
                    "a step moves nothing, and nothing is in its way".to_owned(),
                ));
            }
            let mut place = 0..;
            parts.steps.retain(|_| place.next().is_none_or(|place| !stale.contains(&place)));
        }
    }

    async fn read_back(
        &self,
        steps: &[(usize, &StepRow)],
        node: NodeKey,
    ) -> Result<Vec<(usize, Verdict)>, StoreError> {
        let heads: Vec<Uuid> = steps.iter().map(|(_, row)| row.head.0).collect();
        let versions: Vec<i64> = steps.iter().map(|(_, row)| row.version).collect();
        let seqs: Vec<i64> = steps.iter().map(|(_, row)| row.seq).collect();
        let runs: Vec<_> = steps.iter().map(|(_, row)| row.run.as_ref().map(Json)).collect();
        let progress: Vec<_> = steps.iter().map(|(_, row)| Json(&row.progress)).collect();
        let kinds: Vec<_> = steps.iter().map(|(_, row)| row.event_kind()).collect();
        let sets: Vec<_> =
            steps.iter().map(|(_, row)| row.event.as_ref().map(|(_, set)| Json(set))).collect();
        let additions: Vec<_> = steps.iter().map(|(_, row)| row.additions.as_ref().map(Json)).collect();
        let found = self
            .client
            .query(
                READ_BACK,
                &[
                    &heads,
                    &versions,
                    &seqs,
                    &node.id,
                    &node.epoch,
                    &runs,
                    &progress,
                    &kinds,
                    &sets,
                    &additions,
                ],
            )
            .await?;
        let verdict = |found: &Row| {
            let (at, row) = steps.get(place(found, 1))?;
            let told = told(found).filter(|_| row.event.is_some());
            Some((*at, Verdict::new(Committed::Moved, told)))
        };
        Ok(found.iter().filter_map(verdict).collect())
    }

    async fn put_aside(&self, entry: &Entry, error: &str) -> Result<(), StoreError> {
        super::letters::put_entry_aside(&self.client, entry, error).await
    }
}

fn told(row: &Row) -> Option<(i64, Time)> {
    let u: Option<i64> = row.get("u");
    let at: Option<i64> = row.get("at");
    u.zip(at.map(Time::from_millis))
}

/// Puts the answers of the statements to the entries they are about.
fn verdicts(batch: &[Waiting], parts: &Parts<'_>, written: &Written) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = batch
        .iter()
        .map(|waiting| match &waiting.entry {
            Entry::Callback(_) => Verdict::new(Committed::Kept, None),
            Entry::Create(_) | Entry::Claim(_) | Entry::Step(..) => Verdict::new(Committed::Stale, None),
        })
        .collect();
    for (at, row) in &written.created {
        if let Entry::Create(new) = &batch[*at].entry {
            verdicts[*at] = creation(row, new);
        }
    }
    for (at, told) in &written.moved {
        verdicts[*at] = Verdict::new(Committed::Moved, *told);
    }
    for row in &written.reserved {
        let Some(verdict) = verdicts.get_mut(place(row, 0)) else { continue };
        if row.get::<_, &str>("outcome") == "short"
            && let Entry::Step(step, _) = &batch[place(row, 0)].entry
        {
            verdict.committed = Committed::Short {
                required: step.reserve.as_ref().map_or(Credits::ZERO, |reserve| reserve.amount),
                available: Credits::from_thousandths(row.get("available")),
            };
        }
    }
    for row in written.claimed.iter().filter(|row| row.get("moved")) {
        let Some((at, _)) = parts.claims.get(place(row, 1)) else { continue };
        verdicts[*at] = Verdict { committed: Committed::Moved, told: told(row), gone: row.get("u_gone") };
    }
    verdicts
}

fn creation(row: &Row, new: &NewSong) -> Verdict {
    let (birth, standing) = births::read(row, new);
    let told = matches!(birth, Birth::Created { .. }).then(|| told(row)).flatten();
    Verdict::new(Committed::Birth { birth, standing }, told)
}

fn place(row: &Row, from: i64) -> usize {
    usize::try_from(row.get::<_, i64>("ord") - from).unwrap_or(usize::MAX)
}
