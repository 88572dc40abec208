//! What steps write to `tasks`: each song's head, which carries its version, further tasks and those beside the head; and
//! which of our calls a provider's task belongs to.

use std::collections::HashSet;

use tokio_postgres::Client;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::{Moving, Part, ends, rare};
use crate::store::columns::{Columns, column};
use crate::store::journal::NodeKey;
use crate::store::row::StepRow;
use crate::store::{StoreError, timestamp};

/// Moves each song only if this node still owns it and it is still at the version that the step was decided on, and
/// fails unless all of them move (`migrations/V16`).
macro_rules! heads {
    ($over:literal) => {
        concat!(
            "
-- A take-over of this node's songs waits here for the commit that is under way, and stops every later one.
fence as materialized (select id, epoch from nodes where id = ? and epoch = ? for key share),
-- Whose they must be stands here beside what they must be at: said of `tasks` alone, it makes a table of which nothing is
-- known yet look as if it held one such row, worth to be read whole for each song.
b as materialized (
    select b.*, fence.id as owner, fence.epoch
      from fence cross join
           unnest(?::uuid[], ?::bigint[], ?::bigint[], ?::jsonb[], ?::jsonb[], ?::timestamptz[], ?::boolean[], ?::text[])
               as b (head, version, seq, run, progress, at, seen, provider)),
moved as (
    update tasks t
       set version = t.version + 1, seq = b.seq, epoch = b.epoch, run = b.run, progress = b.progress, activations = 0,
           provider = coalesce(b.provider, t.provider),
           -- As watchers know it: a step that nobody sees does not change it.
           updated_at = case when b.seen then b.at else t.updated_at end",
            $over,
            "
      from b
     where t.id = b.head and t.version = b.version and t.owner = b.owner
    returning 1),
checked as materialized (select all_moved(count(*), ?) as all_of_them from moved)"
        )
    };
}

/// That they did.
const MOVED: &str = "select from checked";

pub(super) const ON: Part = Part {
    sql: heads!(""),
    needed: |moving| !moving.steps.is_empty() && !ends(moving),
    columns: heads,
    answer: Some(MOVED),
};

/// That a task may end has Postgres look for what is to be done then.
pub(super) const OVER: Part = Part {
    sql: heads!(", ended_at = case when b.run is null then coalesce(t.ended_at, b.at) end"),
    needed: ends,
    columns: heads,
    answer: Some(MOVED),
};

fn heads<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let rows = || moving.steps.iter().copied();
    vec![
        Box::new(moving.node.id),
        Box::new(moving.node.epoch),
        column!(rows(), row => row.head.0),
        column!(rows(), row => row.version),
        column!(rows(), row => row.seq),
        column!(rows(), row => row.run.as_ref().map(Json)),
        column!(rows(), row => Json(&row.progress)),
        column!(rows(), row => timestamp(row.at.millis())),
        column!(rows(), row => row.event.is_some()),
        column!(rows(), row => row.provider.as_deref()),
        Box::new(i64::try_from(moving.steps.len()).unwrap_or(i64::MAX)),
    ]
}

/// Tasks that take the place of their song's head, and those beside it, new ones and those that moved on: the head's
/// version speaks for them.
pub(super) const FURTHER: Part = Part {
    sql: "
further as (
    insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, version, seq, run, progress, created_at,
                       updated_at)
    select t.id, b.song_id, t.number, t.kind, t.provider, t.price, fence.id, fence.epoch, b.version + 1, b.seq,
           t.run, t.progress, b.at, b.at
      from fence cross join
           unnest(?::uuid[], ?::bigint[], ?::bigint[], ?::timestamptz[], ?::json[]) as b (song_id, version, seq, at, task)
     cross join lateral json_to_record(b.task) as t(
           id uuid, number smallint, kind text, provider text, price bigint, run jsonb, progress jsonb)),
beside as (
    insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, run, progress, beside, addition,
                       created_at, updated_at, ended_at)
    select a.id, b.song_id, a.number, a.kind, a.provider, a.price, fence.id, fence.epoch, a.run, a.progress,
           true, a.addition, b.at, b.at, case when a.run is null then b.at end
      from fence cross join unnest(?::uuid[], ?::timestamptz[], ?::json[]) as b (song_id, at, additions)
     cross join lateral json_to_recordset(b.additions) as a(
           id uuid, number smallint, kind text, provider text, price bigint, run jsonb, progress jsonb, addition jsonb)
    on conflict (id) do update
       set run = excluded.run, progress = excluded.progress, addition = excluded.addition, activations = 0,
           updated_at = excluded.updated_at, ended_at = coalesce(tasks.ended_at, excluded.ended_at))",
    needed: rare,
    columns: further,
    answer: None,
};

fn further<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let rows = || moving.steps.iter().copied();
    let replaced = || rows().filter(|row| row.further_task.is_some());
    let beside = || rows().filter(|row| row.additions.is_some());
    vec![
        column!(replaced(), row => row.song.0),
        column!(replaced(), row => row.version),
        column!(replaced(), row => row.seq),
        column!(replaced(), row => timestamp(row.at.millis())),
        column!(replaced(), row => row.further_task.as_ref().map(Json)),
        column!(beside(), row => row.song.0),
        column!(beside(), row => timestamp(row.at.millis())),
        column!(beside(), row => row.additions.as_ref().map(Json)),
    ]
}

/// Whoever came first keeps the name.
pub(super) const REFS: Part = Part {
    sql: "
names as (
    insert into provider_refs (provider, provider_task, task_id, call, attempt)
    select * from unnest(?::text[], ?::text[], ?::uuid[], ?::smallint[], ?::smallint[])
    on conflict do nothing)",
    needed: |moving| moving.steps.iter().any(|row| !row.refs.is_empty()),
    columns: refs,
    answer: None,
};

fn refs<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let refs = || moving.steps.iter().flat_map(|row| &row.refs);
    vec![
        column!(refs(), one => one.provider.as_str()),
        column!(refs(), one => one.provider_task.as_deref()),
        column!(refs(), one => one.call.task.0),
        column!(refs(), one => i16::from(one.call.call)),
        column!(refs(), one => i16::try_from(one.call.attempt).unwrap_or(i16::MAX)),
    ]
}

const STALE: &str = "
select b.place - 1
  from unnest($2::uuid[], $3::bigint[]) with ordinality as b (head, version, place)
 where not exists (select from tasks t where t.id = b.head and t.version = b.version and t.owner = $1)";

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
