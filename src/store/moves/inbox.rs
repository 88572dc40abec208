//! The callbacks that came, raw (CB-2).

use super::{Moving, Part};
use crate::store::columns::{Columns, column};

/// The same once more on the same day is kept once.
pub(super) const KEPT: Part = Part {
    sql: "
kept as (
    insert into callback_inbox (day, provider, task_id, call, attempt, body_hash, body, outcome)
    select (now() at time zone 'utc')::date, b.provider, b.task, b.call, b.attempt, sha256(b.body), b.body, b.outcome
      from unnest(?::text[], ?::uuid[], ?::smallint[], ?::smallint[], ?::bytea[], ?::text[])
        as b (provider, task, call, attempt, body, outcome)
    on conflict do nothing)",
    needed: |moving| !moving.inbox.is_empty(),
    columns: kept,
    answer: None,
};

fn kept<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let rows = || moving.inbox.iter().copied();
    vec![
        column!(rows(), row => row.provider),
        column!(rows(), row => row.task),
        column!(rows(), row => i16::from(row.call)),
        column!(rows(), row => i16::try_from(row.attempt).unwrap_or(i16::MAX)),
        column!(rows(), row => &row.body[..]),
        column!(rows(), row => row.outcome),
    ]
}
