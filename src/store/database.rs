//! What the shells around songs ask of the database, beside what they write through the `journal`: leases, who owns
//! which song, and songs as they are stored.
//!
//! A trait, so that the same shells run over a simulated database (`tests/sim`). Not here: the questions of the doors,
//! which ask Postgres itself (`store::ask`).

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use uuid::Uuid;

use super::journal::NodeKey;
use super::nodes::Taken;
use super::songs::{self, Loaded};
use super::{StoreError, ask, ask_within, nodes};
use crate::id::{SongId, UserId};

/// Every question may fail with [`StoreError::Unavailable`] while the database is away. What each means is said in
/// [`nodes`] and [`songs`].
#[async_trait(?Send)]
pub trait Database: Send + Sync {
    async fn enter(&self, id: Uuid, name: &str, lease: Duration) -> Result<NodeKey, StoreError>;
    async fn succeed(&self, former: Uuid, name: &str, lease: Duration)
    -> Result<Option<NodeKey>, StoreError>;
    async fn heartbeat(&self, node: NodeKey, lease: Duration) -> Result<bool, StoreError>;
    async fn leave(&self, node: NodeKey) -> Result<(), StoreError>;
    async fn fence_the_dead(&self, node: NodeKey) -> Result<u64, StoreError>;
    async fn inherited(&self, node: NodeKey, from: Option<SongId>, limit: i64) -> Result<Taken, StoreError>;
    async fn resumed(&self, node: NodeKey) -> Result<(), StoreError>;
    async fn take_over(
        &self,
        node: NodeKey,
        from: Option<SongId>,
        limit: i64,
        most: i16,
    ) -> Result<Taken, StoreError>;
    async fn running(&self, node: NodeKey) -> Result<Vec<SongId>, StoreError>;
    async fn claim(&self, node: NodeKey, song: SongId) -> Result<bool, StoreError>;
    async fn load(&self, songs: &[SongId]) -> Result<Loaded, StoreError>;
    /// Whether the song is there and this user's.
    async fn is_own(&self, song: SongId, user: &UserId) -> Result<bool, StoreError>;
}

#[async_trait(?Send)]
impl Database for Pool {
    async fn enter(&self, id: Uuid, name: &str, lease: Duration) -> Result<NodeKey, StoreError> {
        ask(self, async |client| nodes::enter(client, id, name, lease).await).await
    }

    async fn succeed(
        &self,
        former: Uuid,
        name: &str,
        lease: Duration,
    ) -> Result<Option<NodeKey>, StoreError> {
        ask(self, async |client| nodes::succeed(client, former, name, lease).await).await
    }

    async fn heartbeat(&self, node: NodeKey, lease: Duration) -> Result<bool, StoreError> {
        // Several are to have their chance before the lease ends, each on a connection that answers.
        ask_within(self, lease / 3, async |client| nodes::heartbeat(client, node, lease).await).await
    }

    async fn leave(&self, node: NodeKey) -> Result<(), StoreError> {
        ask(self, async |client| nodes::leave(client, node).await).await
    }

    async fn fence_the_dead(&self, node: NodeKey) -> Result<u64, StoreError> {
        ask(self, async |client| nodes::fence_the_dead(client, node).await).await
    }

    async fn inherited(&self, node: NodeKey, from: Option<SongId>, limit: i64) -> Result<Taken, StoreError> {
        ask(self, async |client| nodes::inherited(client, node, from, limit).await).await
    }

    async fn resumed(&self, node: NodeKey) -> Result<(), StoreError> {
        ask(self, async |client| nodes::resumed(client, node).await).await
    }

    async fn take_over(
        &self,
        node: NodeKey,
        from: Option<SongId>,
        limit: i64,
        most: i16,
    ) -> Result<Taken, StoreError> {
        ask(self, async |client| nodes::take_over(client, node, from, limit, most).await).await
    }

    async fn running(&self, node: NodeKey) -> Result<Vec<SongId>, StoreError> {
        ask(self, async |client| nodes::running(client, node).await).await
    }

    async fn claim(&self, node: NodeKey, song: SongId) -> Result<bool, StoreError> {
        ask(self, async |client| nodes::claim(client, node, song).await).await
    }

    async fn load(&self, ids: &[SongId]) -> Result<Loaded, StoreError> {
        ask(self, async |client| songs::load_many(client, ids).await).await
    }

    async fn is_own(&self, song: SongId, user: &UserId) -> Result<bool, StoreError> {
        ask(self, async |client| songs::is_own(client, song, user).await).await
    }
}
