//! Has this node know within a second whose tokens are refused, and close their sockets (protocol.md 6).
//!
//! Not here: what is stored of it (`store::revocations`), who may say so (`api::access`).

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;

use crate::auth::Auth;
use crate::realtime::Realtime;
use crate::store::revocations::{self, Revocation};
use crate::store::{self, StoreError};
use crate::time::Time;

/// Soon enough for sockets to hear of it within a second, the way to the database included.
const EVERY: Duration = Duration::from_millis(500);
/// Who wrote first may be seen later: looked at once more.
const OVERLAP: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Revocations {
    pub pool: Pool,
    pub auth: Arc<Auth>,
    pub realtime: Realtime,
}

impl Revocations {
    /// Looks at what changed, until the pool is closed. `known` is what [`Revocations::all`] answered.
    pub async fn keep_looking(self, known: Time) {
        let mut known = known;
        let mut away = false;
        loop {
            tokio::time::sleep(EVERY).await;
            match self.look(known - OVERLAP).await {
                Ok(newest) => (known, away) = (newest.max(known), false),
                Err(_) if self.pool.is_closed() => return,
                Err(error) if !std::mem::replace(&mut away, true) => {
                    tracing::warn!(%error, "could not look whose tokens were revoked");
                }
                Err(_) => {}
            }
        }
    }

    /// Learns all there is; answers when the newest of it was written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while Postgres is away.
    pub async fn all(&self) -> Result<Time, StoreError> {
        self.look(Time::from_millis(0)).await
    }

    async fn look(&self, from: Time) -> Result<Time, StoreError> {
        let question = async |client: &deadpool_postgres::Object| revocations::since(client, from).await;
        let found = store::ask(&self.pool, question).await?;
        let newest = found.iter().map(|one| one.changed_at).max();
        for one in &found {
            heed(&self.auth, &self.realtime, one);
        }
        Ok(newest.unwrap_or(from))
    }
}

/// From here on the user's tokens are refused, and sockets that were opened with them are closed.
pub fn heed(auth: &Auth, realtime: &Realtime, revocation: &Revocation) {
    let Revocation { user, before, banned, .. } = revocation;
    if auth.revoke(user, *before, *banned) {
        realtime.revoke(user);
    }
}
