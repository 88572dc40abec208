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

/// Notes it; the same again does no harm. `None`: nothing is revoked of somebody to be pardoned.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn revoke(
    client: &impl GenericClient,
    user: &UserId,
    act: Act,
) -> Result<Option<Revocation>, StoreError> {
    let pardon = "
        update revocations set banned = false, changed_at = clock_timestamp() where user_id = $1
        returning user_id, before, banned, changed_at";
    let refuse = "
        insert into revocations as r (user_id, before, banned, changed_at)
        values ($1, clock_timestamp(), $2, clock_timestamp())
        on conflict (user_id) do update set
            before = excluded.before, banned = r.banned or excluded.banned, changed_at = excluded.changed_at
        returning user_id, before, banned, changed_at";
    let row = match act {
        Act::Pardon => client.query_opt(pardon, &[&user.as_str()]).await?,
        Act::SignOut | Act::Ban => client.query_opt(refuse, &[&user.as_str(), &(act == Act::Ban)]).await?,
    };
    Ok(row.map(|row| read(&row)))
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
