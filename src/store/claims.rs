//! A guest's songs moving to an account (CRED-7): what `begin_claim` and `claim_song` (`migrations/V6`) take and answer.
//!
//! Not here: that a song changes hands (`song::step`), when the second one is sent (`store::journal`).

use std::sync::Arc;

use deadpool_postgres::GenericClient;
use serde_json::value::RawValue;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::journal::NodeKey;
use super::{StoreError, timestamp};
use crate::credit::Credits;
use crate::credit::plan::Plan;
use crate::id::{SongId, TaskId, UserId};
use crate::song::phase::{Rules, Song};
use crate::song::view;
use crate::time::Time;

pub(super) const CLAIM: &str = "
with fence as materialized (select 1 from nodes where id = $1 and epoch = $2 for key share)
select b.ord, r.moved, r.u_gone, r.u, (extract(epoch from now()) * 1000)::bigint as at
  from (select * from unnest(
            $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::bigint[], $8::bigint[], $9::text[], $10::timestamptz[],
            $11::jsonb[]) with ordinality as b (guest, account, song, head, version, seq, plan, at, set, ord)
         order by guest, ord) b
 cross join fence
 cross join lateral claim_song($1, $2, b.guest, b.account, b.song, b.head, b.version, b.seq, b.plan, b.at, b.set) r";

/// One song on its way to another owner.
#[derive(Clone, Debug)]
pub struct Claim {
    pub song: SongId,
    pub guest: UserId,
    pub account: UserId,
    pub(super) head: TaskId,
    version: i64,
    /// Of the account's first event; the guest's last one is the one before.
    pub seq: i64,
    plan: Option<String>,
    at: Time,
    /// The whole song, as its new owner is told of it.
    pub set: Arc<RawValue>,
}

impl Claim {
    pub fn new(before: &Song, version: i64, after: &Song, rules: &Rules) -> Self {
        Self {
            song: after.id,
            guest: before.user.clone(),
            account: after.user.clone(),
            head: before.head.task,
            version,
            seq: after.seq,
            plan: after.wish.plan.clone(),
            at: after.updated_at,
            set: view::changes(None, after, rules),
        }
    }
}

/// One row for each claim, unless this node is fenced. One that is written already, by an earlier attempt whose
/// answer got lost, is known again.
pub(super) async fn claim(
    client: &Client,
    statement: &Statement,
    claims: &[(usize, &Claim)],
    node: NodeKey,
) -> Result<Vec<Row>, StoreError> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let rows = || claims.iter().map(|(_, row)| *row);
    let guests: Vec<&str> = rows().map(|row| row.guest.as_str()).collect();
    let accounts: Vec<&str> = rows().map(|row| row.account.as_str()).collect();
    let songs: Vec<Uuid> = rows().map(|row| row.song.0).collect();
    let heads: Vec<Uuid> = rows().map(|row| row.head.0).collect();
    let versions: Vec<i64> = rows().map(|row| row.version).collect();
    let seqs: Vec<i64> = rows().map(|row| row.seq).collect();
    let plans: Vec<Option<&str>> = rows().map(|row| row.plan.as_deref()).collect();
    let times: Vec<_> = rows().map(|row| timestamp(row.at.millis())).collect();
    let sets: Vec<_> = rows().map(|row| Json(&row.set)).collect();
    Ok(client
        .query(
            statement,
            &[
                &node.id,
                &node.epoch,
                &guests,
                &accounts,
                &songs,
                &heads,
                &versions,
                &seqs,
                &plans,
                &times,
                &sets,
            ],
        )
        .await?)
}

/// Says whose the guest's things are to be, which only the first account does, and moves the guest's orders there. Answers
/// the plan of that account, which gets a profile if it has none; `None` when another account was first.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away; the same again does no harm.
pub async fn begin(
    client: &impl GenericClient,
    guest: &UserId,
    account: &UserId,
    start: Credits,
) -> Result<Option<Plan>, StoreError> {
    let sql = "select won, on_plan from begin_claim($1, $2, $3)";
    let row = client.query_one(sql, &[&guest.as_str(), &account.as_str(), &start.thousandths()]).await?;
    let plan = || Plan::parse(row.get("on_plan")).unwrap_or(Plan::Free);
    Ok(row.get::<_, bool>("won").then(plan))
}

/// Some of a user's songs, deleted ones left out.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn songs_of(
    client: &impl GenericClient,
    user: &UserId,
    limit: i64,
) -> Result<Vec<SongId>, StoreError> {
    let sql = "select id from songs where user_id = $1 and deleted_at is null order by id desc limit $2";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&user.as_str(), &limit]).await?;
    Ok(rows.iter().map(|row| SongId(row.get(0))).collect())
}
