//! What steps write to `tasks`: each song's head, which carries its version, further tasks, tasks beside the head, and
//! which of our calls a provider's task belongs to.

use std::collections::HashSet;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::{NotMoved, StoreError};
use crate::store::journal::NodeKey;
use crate::store::row::StepRow;
use crate::store::timestamp;

/// Moves each song only if this node still owns it and it is still at the version that the step was decided on, and
/// fails unless all of them move (`migrations/V16`).
///
/// Whose they must be stands in `b` beside what they must be at: said of `tasks` alone, it makes a table of which nothing
/// is known yet look as if it held one such row, worth to be read whole for each song.
macro_rules! heads {
    ($over:literal) => {
        concat!(
            // A take-over of this node's songs waits here for the commit that is under way, and stops every later one.
            "with fence as materialized (select 1 from nodes where id = $1 and epoch = $2 for key share),
                  b as materialized (
                    select b.*, $1::uuid as owner, $2::bigint as epoch
                      from unnest($4::uuid[], $5::bigint[], $6::bigint[], $7::jsonb[], $8::jsonb[], $9::timestamptz[],
                                  $10::boolean[], $11::text[])
                        as b (head, version, seq, run, progress, at, seen, provider)),
                  m as (
                    update tasks t
                       set version = t.version + 1, seq = b.seq, epoch = b.epoch, run = b.run, progress = b.progress,
                           activations = 0, provider = coalesce(b.provider, t.provider),
                           updated_at = case when b.seen then b.at else t.updated_at end",
            $over,
            "     from b, fence
                 where t.id = b.head and t.version = b.version and t.owner = b.owner
                returning 1)
             select all_moved(count(*), $3) from m"
        )
    };
}

const ON: &str = heads!("");
const OVER: &str = heads!(", ended_at = case when b.run is null then coalesce(t.ended_at, b.at) end ");

const STALE: &str = "
select b.place - 1
  from unnest($2::uuid[], $3::bigint[]) with ordinality as b (head, version, place)
 where not exists (select from tasks t where t.id = b.head and t.version = b.version and t.owner = $1)";

const FURTHER: &str = "
insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, version, seq, run, progress, created_at,
                   updated_at)
select t.id, b.song_id, t.number, t.kind, t.provider, t.price, $1, $2, b.version + 1, b.seq, t.run, t.progress, b.at, b.at
  from unnest($3::uuid[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::json[])
    as b (song_id, version, seq, at, task)
 cross join lateral json_to_record(b.task) as t(
       id uuid, number smallint, kind text, provider text, price bigint, run jsonb, progress jsonb)";

/// New ones, and those that moved on. The head's version speaks for them.
const BESIDE: &str = "
insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, run, progress, beside, addition, created_at,
                   updated_at, ended_at)
select a.id, b.song_id, a.number, a.kind, a.provider, a.price, $1, $2, a.run, a.progress, true, a.addition,
       b.at, b.at, case when a.run is null then b.at end
  from unnest($3::uuid[], $4::timestamptz[], $5::json[]) as b (song_id, at, additions)
 cross join lateral json_to_recordset(b.additions) as a(
       id uuid, number smallint, kind text, provider text, price bigint, run jsonb, progress jsonb, addition jsonb)
on conflict (id) do update
   set run = excluded.run, progress = excluded.progress, addition = excluded.addition, activations = 0,
       updated_at = excluded.updated_at, ended_at = coalesce(tasks.ended_at, excluded.ended_at)";

/// Whoever came first keeps the name.
const REFS: &str = "
insert into provider_refs (provider, provider_task, task_id, call, attempt)
select * from unnest($1::text[], $2::text[], $3::uuid[], $4::smallint[], $5::smallint[])
on conflict do nothing";

/// What `all_moved` says where not all of them did.
const NOT_ALL: &str = "SF001";

pub(super) struct Tasks {
    on: Statement,
    over: Statement,
    further: Statement,
    beside: Statement,
    refs: Statement,
}

impl Tasks {
    pub(super) async fn prepare(client: &Client) -> Result<Self, StoreError> {
        let (on, over, further, beside, refs) = tokio::try_join!(
            client.prepare(ON),
            client.prepare(OVER),
            client.prepare(FURTHER),
            client.prepare(BESIDE),
            client.prepare(REFS)
        )?;
        Ok(Self { on, over, further, beside, refs })
    }

    pub(super) async fn heads(
        &self,
        client: &Client,
        steps: &[&StepRow],
        node: NodeKey,
    ) -> Result<(), NotMoved> {
        if steps.is_empty() {
            return Ok(());
        }
        // That a task may end has Postgres look for what is to be done then.
        let statement = if steps.iter().any(|row| row.run.is_none()) { &self.over } else { &self.on };
        let rows = || steps.iter();
        let many = i64::try_from(steps.len()).unwrap_or(i64::MAX);
        let heads: Vec<Uuid> = rows().map(|row| row.head.0).collect();
        let versions: Vec<i64> = rows().map(|row| row.version).collect();
        let seqs: Vec<i64> = rows().map(|row| row.seq).collect();
        let runs: Vec<_> = rows().map(|row| row.run.as_ref().map(Json)).collect();
        let progress: Vec<_> = rows().map(|row| Json(&row.progress)).collect();
        let times: Vec<_> = rows().map(|row| timestamp(row.at.millis())).collect();
        // A step that nobody sees does not change when its song was changed, as watchers know it.
        let seen: Vec<bool> = rows().map(|row| row.event.is_some()).collect();
        let providers: Vec<_> = rows().map(|row| row.provider.as_deref()).collect();
        let moved = client
            .execute(
                statement,
                &[
                    &node.id, &node.epoch, &many, &heads, &versions, &seqs, &runs, &progress, &times, &seen,
                    &providers,
                ],
            )
            .await;
        match moved {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(&SqlState::from_code(NOT_ALL)) => Err(NotMoved::Stale),
            Err(error) => Err(StoreError::from(error).into()),
        }
    }

    pub(super) async fn further(
        &self,
        client: &Client,
        steps: &[&StepRow],
        node: NodeKey,
    ) -> Result<(), StoreError> {
        let (further, beside, refs) = tokio::join!(
            biased;
            self.replace(client, steps, node),
            self.beside(client, steps, node),
            self.refs(client, steps)
        );
        further.and(beside).and(refs)
    }

    /// Tasks that take the place of their song's head.
    async fn replace(&self, client: &Client, steps: &[&StepRow], node: NodeKey) -> Result<(), StoreError> {
        let rows = || steps.iter().filter(|row| row.further_task.is_some());
        if rows().next().is_none() {
            return Ok(());
        }
        let songs: Vec<Uuid> = rows().map(|row| row.song.0).collect();
        let versions: Vec<i64> = rows().map(|row| row.version).collect();
        let seqs: Vec<i64> = rows().map(|row| row.seq).collect();
        let times: Vec<_> = rows().map(|row| timestamp(row.at.millis())).collect();
        let tasks: Vec<_> = rows().map(|row| row.further_task.as_ref().map(Json)).collect();
        client
            .execute(&self.further, &[&node.id, &node.epoch, &songs, &versions, &seqs, &times, &tasks])
            .await?;
        Ok(())
    }

    async fn beside(&self, client: &Client, steps: &[&StepRow], node: NodeKey) -> Result<(), StoreError> {
        let rows = || steps.iter().filter(|row| row.additions.is_some());
        if rows().next().is_none() {
            return Ok(());
        }
        let songs: Vec<Uuid> = rows().map(|row| row.song.0).collect();
        let times: Vec<_> = rows().map(|row| timestamp(row.at.millis())).collect();
        let additions: Vec<_> = rows().map(|row| row.additions.as_ref().map(Json)).collect();
        client.execute(&self.beside, &[&node.id, &node.epoch, &songs, &times, &additions]).await?;
        Ok(())
    }

    async fn refs(&self, client: &Client, steps: &[&StepRow]) -> Result<(), StoreError> {
        let refs = || steps.iter().flat_map(|row| &row.refs);
        if refs().next().is_none() {
            return Ok(());
        }
        let providers: Vec<&str> = refs().map(|one| one.provider.as_str()).collect();
        let names: Vec<Option<&str>> = refs().map(|one| one.provider_task.as_deref()).collect();
        let tasks: Vec<Uuid> = refs().map(|one| one.call.task.0).collect();
        let calls: Vec<i16> = refs().map(|one| i16::from(one.call.call)).collect();
        let attempts: Vec<i16> =
            refs().map(|one| i16::try_from(one.call.attempt).unwrap_or(i16::MAX)).collect();
        client.execute(&self.refs, &[&providers, &names, &tasks, &calls, &attempts]).await?;
        Ok(())
    }
}

/// The places of the steps whose songs are at another version, or not ours.
pub(super) async fn stale(
    client: &Client,
    steps: &[&StepRow],
    node: NodeKey,
) -> Result<HashSet<usize>, StoreError> {
    let heads: Vec<Uuid> = steps.iter().map(|row| row.head.0).collect();
    let versions: Vec<i64> = steps.iter().map(|row| row.version).collect();
    let rows = client.query(STALE, &[&node.id, &heads, &versions]).await?;
    Ok(rows.iter().filter_map(|row| usize::try_from(row.get::<_, i64>(0)).ok()).collect())
}
