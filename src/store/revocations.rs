//! Whose tokens are refused although they have not expired (protocol.md 6).
//!
//! Not here: refusing them (`auth::revoked`), closing sockets (`ops::revocations`).

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::{StoreError, time, timestamp};
use crate::id::UserId;
use crate::time::Time;

/// What is known of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub user: UserId,
    /// Tokens issued up to this moment are refused.
    pub before: Time,
    /// All tokens are.
    pub banned: bool,
    pub changed_at: Time,
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    SignOut,
    Ban,
    /// Tokens that were issued before the ban stay refused.
    Pardon,
}

/// Notes it; the same again does no harm.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn revoke(client: &impl GenericClient, user: &UserId, act: Act) -> Result<Revocation, StoreError> {
    let sql = "
        insert into revocations as r (user_id, before, banned, changed_at)
        values ($1, clock_timestamp(), coalesce($2, false), clock_timestamp())
        on conflict (user_id) do update set
            before = case when $2 is false then r.before else excluded.before end,
            banned = coalesce($2, r.banned), changed_at = excluded.changed_at
        returning user_id, before, banned, changed_at";
    let banned = match act {
        Act::SignOut => None,
        Act::Ban => Some(true),
        Act::Pardon => Some(false),
    };
    let row = client.query_one(sql, &[&user.as_str(), &banned]).await?;
    Ok(read(&row))
}

/// What changed from this moment on.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn since(client: &impl GenericClient, from: Time) -> Result<Vec<Revocation>, StoreError> {
    let sql = "select user_id, before, banned, changed_at from revocations where changed_at >= $1";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&timestamp(from.millis())]).await?;
    Ok(rows.iter().map(read).collect())
}

fn read(row: &Row) -> Revocation {
    Revocation {
        user: UserId::trusted(row.get("user_id")),
        before: time(row.get("before")),
        banned: row.get("banned"),
        changed_at: time(row.get("changed_at")),
    }
}
