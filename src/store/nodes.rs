//! Which node owns which songs: leases and epochs (`durability.md` section 4). The database's clock decides.

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::StoreError;
use super::journal::NodeKey;
use crate::id::{SongId, TaskId, UserId};
use crate::song::phase::Run;

/// Enters a node that never was before. A node's id is never used again.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn enter(
    client: &impl GenericClient,
    id: Uuid,
    name: &str,
    lease: Duration,
) -> Result<NodeKey, StoreError> {
    let sql = "insert into nodes (id, name, lease_until)
               values ($1, $2, now() + make_interval(secs => $3)) returning epoch";
    let row = client.query_one(sql, &[&id, &name, &lease.as_secs_f64()]).await?;
    Ok(NodeKey { id, epoch: row.get(0) })
}

/// Prolongs the lease; `false` when another node has taken over, and nothing may be written any more.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away: the lease runs on as it was.
pub async fn heartbeat(
    client: &impl GenericClient,
    node: NodeKey,
    lease: Duration,
) -> Result<bool, StoreError> {
    let sql = "update nodes set lease_until = now() + make_interval(secs => $3) where id = $1 and epoch = $2";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &[&node.id, &node.epoch, &lease.as_secs_f64()]).await? == 1)
}

/// Leaves: nothing more is written under this key, and others need not wait for the lease.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away: then the lease just runs out.
pub async fn leave(client: &impl GenericClient, node: NodeKey) -> Result<(), StoreError> {
    let sql = "update nodes set epoch = epoch + 1, lease_until = now(), left_at = now(), left_well = true
                where id = (select id from nodes where id = $1 and epoch = $2 for update)";
    client.execute(sql, &[&node.id, &node.epoch]).await?;
    Ok(())
}

/// Fences nodes whose lease ran out: every later commit of theirs moves nothing. Answers how many.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn fence_the_dead(client: &impl GenericClient, node: NodeKey) -> Result<u64, StoreError> {
    // `for update` waits for commits that hold their `for key share`; a plain update of `epoch` would not.
    let sql = "update nodes set epoch = epoch + 1, left_at = now()
                where id in (select id from nodes where lease_until < now() and left_at is null and id <> $1
                             for update skip locked)";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &[&node.id]).await?)
}

/// Ends all leases: for a start that knows itself alone, because it holds the lock on the data folder.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn end_all_leases(client: &impl GenericClient) -> Result<(), StoreError> {
    client.execute("update nodes set lease_until = '-infinity' where left_at is null", &[]).await?;
    Ok(())
}

/// Ends the lease of a node that is gone for certain, if it was one of this database's.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn end_lease(client: &impl GenericClient, node: Uuid) -> Result<(), StoreError> {
    let sql = "update nodes set lease_until = '-infinity' where id = $1 and left_at is null";
    client.execute(sql, &[&node]).await?;
    Ok(())
}

/// Tasks that were taken over, with no more of their songs than says what they need next: there may be a hundred
/// thousand of them.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Songs of which one task runs, the head's.
    pub heads: Vec<TakenHead>,
    /// Songs with something under way beside the head, or that do not read: to be loaded whole.
    pub others: BTreeSet<SongId>,
    /// The last song, from which to go on until none comes.
    pub next: Option<SongId>,
}

#[derive(Clone, Debug)]
pub struct TakenHead {
    pub song: SongId,
    pub user: UserId,
    pub task: TaskId,
    pub provider: String,
    pub run: Run,
}

/// Takes running songs of nodes that are gone, and those of nobody: at most `limit` tasks, in the order of their songs
/// and from the song `from` on. Each time is counted unless the one before stopped on request; what was taken `most`
/// times without a step since is left alone (`store::letters`).
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn take_over(
    client: &impl GenericClient,
    node: NodeKey,
    from: Option<SongId>,
    limit: i64,
    most: i16,
) -> Result<Taken, StoreError> {
    // In the order of the index, so that a page costs as much as it has rows: sorted, each would look at all that are left.
    // Where a row stands (`ctid`) is where it was locked; one that somebody moved meanwhile is not ours to take.
    let take = "
        with living as materialized (select id, epoch from nodes where left_at is null)
        update tasks t set owner = $1, epoch = $2,
               activations = t.activations
                           + ((t.owner in (select id from nodes where left_well)) is not true)::int
          from (
            select t.ctid as place from tasks t
             where t.ended_at is null and t.activations < $4 and t.song_id >= $5
               and not exists (select from living n where n.id = t.owner and n.epoch = t.epoch)
             order by t.song_id limit $3 for update of t skip locked) gone
         where t.ctid = gone.place
           and exists (select 1 from nodes where id = $1 and epoch = $2)
        returning t.song_id, (select s.user_id from songs s where s.id = t.song_id) as user_id, t.id, t.provider,
                  t.beside, t.run";
    let statement = client.prepare_cached(take).await?;
    let from = from.map_or(Uuid::nil(), |song| song.0);
    let asked: [&(dyn ToSql + Sync); 5] = [&node.id, &node.epoch, &limit, &most, &from];
    // All sent at once: whoever stops waiting leaves no transaction open behind.
    let (began, rows, committed) = tokio::join!(
        biased;
        client.batch_execute("begin; set local enable_seqscan = off; set local enable_sort = off"),
        client.query(&statement, &asked),
        client.batch_execute("commit")
    );
    began?;
    let rows = rows?;
    committed?;
    let mut taken = Taken::default();
    for row in &rows {
        let song = SongId(row.get("song_id"));
        taken.next = taken.next.max(Some(song));
        match row.try_get::<_, Json<Run>>("run") {
            Ok(Json(run)) if !row.get::<_, bool>("beside") => taken.heads.push(TakenHead {
                song,
                user: UserId::trusted(row.get("user_id")),
                task: TaskId(row.get("id")),
                provider: row.get("provider"),
                run,
            }),
            Ok(_) | Err(_) => drop(taken.others.insert(song)),
        }
    }
    taken.heads.retain(|head| !taken.others.contains(&head.song));
    Ok(taken)
}

/// Counts that a song of this node's is begun anew, as [`take_over`] does; answers how often it was since it moved.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn count_activation(
    client: &impl GenericClient,
    node: NodeKey,
    song: SongId,
) -> Result<i16, StoreError> {
    let sql = "update tasks set activations = activations + 1
                where song_id = $1 and ended_at is null and owner = $2 and epoch = $3 returning activations";
    let rows = client.query(sql, &[&song.0, &node.id, &node.epoch]).await?;
    Ok(rows.iter().map(|row| row.get(0)).max().unwrap_or(0))
}

/// A song may have several tasks under way.
fn distinct(rows: &[tokio_postgres::Row]) -> Vec<SongId> {
    rows.iter().map(|row| SongId(row.get(0))).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Songs that run here, as far as the database knows.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn running(client: &impl GenericClient, node: NodeKey) -> Result<Vec<SongId>, StoreError> {
    let sql = "select song_id from tasks where ended_at is null and owner = $1 and epoch = $2";
    let rows = client.query(sql, &[&node.id, &node.epoch]).await?;
    Ok(distinct(&rows))
}

/// Takes a song that no living node owns, so that its actor may write it; `false` when another node has it.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn claim(client: &impl GenericClient, node: NodeKey, song: SongId) -> Result<bool, StoreError> {
    let sql = "
        update tasks t set owner = $1, epoch = $2, activations = t.activations + 1
         where t.song_id = $3
           and (t.ended_at is null or t.id = (select id from tasks where song_id = $3 and not beside
                                              order by number desc limit 1))
           and not exists (select 1 from nodes n where n.id = t.owner and n.epoch = t.epoch
                            and n.left_at is null and n.lease_until >= now() and n.id <> $1)";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &[&node.id, &node.epoch, &song.0]).await? >= 1)
}
