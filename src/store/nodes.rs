//! Which node owns which songs: leases and epochs (`durability.md` section 4). The database's clock decides.

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::StoreError;
use super::journal::NodeKey;
use crate::id::{SongId, TaskId, UserId};
use crate::song::phase::Run;

/// [`OWNS`] as part of a text that is put together at compile time.
macro_rules! owns {
    () => {
        "n.id = t.owner and (t.epoch = n.epoch or t.epoch >= n.inherits and t.activations = 0)"
    };
}
pub(super) use owns;

/// That the task `t` is the own of the node `n`, as [`NodeKey::owns`] says it of a song: what its process took up, and what
/// it found of the process before, unless that was under suspicion then already, having been taken up and not moved since.
pub(super) const OWNS: &str = owns!();

/// Enters a node that never was before.
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
    Ok(NodeKey { id, epoch: row.get(0), inherits: None })
}

/// Goes on as a node whose process is gone for certain: what it wrote is ours, and no row of it need change. `None` where
/// that node is gone as well, or never was of this database: then one is to [`enter`] anew.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn succeed(
    client: &impl GenericClient,
    former: Uuid,
    name: &str,
    lease: Duration,
) -> Result<Option<NodeKey>, StoreError> {
    // `for update` waits for a commit that is still under way; the new epoch stops whatever comes after it. Who left has
    // an epoch more than what it wrote. What a process never had in hand is still that of the one before it.
    let sql = "update nodes
                  set epoch = epoch + 1,
                      inherits = case when not resumed then inherits when left_at is null then epoch else epoch - 1 end,
                      left_well = left_at is not null or left_well and not resumed,
                      resumed = false, left_at = null,
                      name = $2, started_at = now(), lease_until = now() + make_interval(secs => $3)
                where id = (select id from nodes where id = $1 and (left_at is null or left_well) for update)
               returning epoch, inherits";
    let row = client.query_opt(sql, &[&former, &name, &lease.as_secs_f64()]).await?;
    Ok(row.map(|row| NodeKey { id: former, epoch: row.get(0), inherits: row.get(1) }))
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
    let sql = "update nodes set epoch = epoch + 1, left_at = now(), left_well = false
                where id in (select id from nodes where lease_until < now() and left_at is null and id <> $1
                             for update skip locked)";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &[&node.id]).await?)
}

/// Ends all other leases: for a node that knows itself alone, because it holds the lock on the data folder.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn end_other_leases(client: &impl GenericClient, node: NodeKey) -> Result<(), StoreError> {
    let sql = "update nodes set lease_until = '-infinity' where left_at is null and id <> $1";
    client.execute(sql, &[&node.id]).await?;
    Ok(())
}

/// Running tasks that are this node's from here on, with no more of their songs than says what they need next: there may
/// be a hundred thousand of them.
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

/// Says that all that was [`inherited`] is in hand: from here on this process answers for it.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn resumed(client: &impl GenericClient, node: NodeKey) -> Result<(), StoreError> {
    let sql = "update nodes set resumed = true where id = $1 and epoch = $2";
    client.execute(sql, &[&node.id, &node.epoch]).await?;
    Ok(())
}

/// What runs of the process before, as this node [`succeed`]ed it: at most `limit` tasks, more than one song has, in the
/// order of their songs and from the song `from` on. They are its own already, and nothing is written.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn inherited(
    client: &impl GenericClient,
    node: NodeKey,
    from: Option<SongId>,
    limit: i64,
) -> Result<Taken, StoreError> {
    let sql = "
        select t.song_id, (select s.user_id from songs s where s.id = t.song_id) as user_id, t.id, t.provider,
               t.beside, t.run
          from tasks t
         where t.ended_at is null and t.song_id >= $3
           and t.owner = $1 and t.epoch >= $2 and t.epoch < $5 and t.activations = 0
         order by t.song_id limit $4";
    let Some(epoch) = node.inherits else { return Ok(Taken::default()) };
    let statement = client.prepare_cached(sql).await?;
    let from = from.map_or(Uuid::nil(), |song| song.0);
    let asked: [&(dyn ToSql + Sync); 5] = [&node.id, &epoch, &from, &limit, &node.epoch];
    let rows = by_their_index(client, &statement, &asked).await?;
    let mut taken = taken(&rows);
    if i64::try_from(rows.len()).is_ok_and(|many| many < limit) {
        taken.next = None;
    } else if let Some(last) = taken.next {
        // Some of its tasks may stand behind the limit: it is asked for once more.
        taken.heads.retain(|head| head.song != last);
        taken.others.remove(&last);
    }
    Ok(taken)
}

/// Asks in the order of the index, so that a page costs as much as it has rows: sorted, each would look at all that are
/// left. All is sent at once: whoever stops waiting leaves no transaction open behind.
async fn by_their_index(
    client: &impl GenericClient,
    statement: &Statement,
    asked: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    let (began, rows, committed) = tokio::join!(
        biased;
        client.batch_execute("begin; set local enable_seqscan = off; set local enable_sort = off"),
        client.query(statement, asked),
        client.batch_execute("commit")
    );
    began?;
    let rows = rows?;
    committed?;
    Ok(rows)
}

fn taken(rows: &[Row]) -> Taken {
    let mut taken = Taken::default();
    for row in rows {
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
    taken
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
    // What runs beside a head goes where the head is: it is that node's to take, or nobody would look after it.
    // Where a row stands (`ctid`) is where it was locked; one that somebody moved meanwhile is not ours to take.
    let take = format!(
        "
        with living as materialized (select id, epoch, inherits from nodes where left_at is null)
        update tasks t set owner = $1, epoch = $2,
               activations = t.activations
                           + ((t.owner in (select id from nodes where left_well)) is not true)::int
          from (
            select t.ctid as place from tasks t
             where t.ended_at is null and t.activations < $4 and t.song_id >= $5
               and not exists (select from living n where {OWNS})
               and not (t.beside and exists (
                    select from living n, lateral (select * from tasks h where h.song_id = t.song_id and not h.beside
                                                    order by h.number desc limit 1) t
                     where n.id <> $1 and {OWNS}))
             order by t.song_id limit $3 for update of t skip locked) gone
         where t.ctid = gone.place
           and exists (select 1 from nodes where id = $1 and epoch = $2)
        returning t.song_id, (select s.user_id from songs s where s.id = t.song_id) as user_id, t.id, t.provider,
                  t.beside, t.run"
    );
    let statement = client.prepare_cached(&take).await?;
    let from = from.map_or(Uuid::nil(), |song| song.0);
    let asked: [&(dyn ToSql + Sync); 5] = [&node.id, &node.epoch, &limit, &most, &from];
    Ok(taken(&by_their_index(client, &statement, &asked).await?))
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
    let sql = "update tasks set activations = least(activations + 1, 32767), epoch = $3
                where song_id = $1 and ended_at is null and owner = $2
                  and exists (select from nodes where id = $2 and epoch = $3)
               returning activations";
    let rows = client.query(sql, &[&song.0, &node.id, &node.epoch]).await?;
    Ok(rows.iter().map(|row| row.get(0)).max().unwrap_or(0))
}

/// A song may have several tasks under way.
fn distinct(rows: &[Row]) -> Vec<SongId> {
    rows.iter().map(|row| SongId(row.get(0))).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Songs that run here, as far as the database knows.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn running(client: &impl GenericClient, node: NodeKey) -> Result<Vec<SongId>, StoreError> {
    let sql = format!(
        "select t.song_id from tasks t join nodes n on {OWNS}
          where t.ended_at is null and n.id = $1 and n.epoch = $2 and n.left_at is null"
    );
    let rows = client.query(&sql, &[&node.id, &node.epoch]).await?;
    Ok(distinct(&rows))
}

/// Takes a song that no living node owns, so that its actor may write it, with all that runs of it: whose the head is,
/// theirs is the song. `false` when another node has it.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn claim(client: &impl GenericClient, node: NodeKey, song: SongId) -> Result<bool, StoreError> {
    let sql = format!(
        "
        with head as materialized (select * from tasks where song_id = $3 and not beside order by number desc limit 1)
        update tasks set owner = $1, epoch = $2, activations = least(activations + 1, 32767)
         where song_id = $3 and (ended_at is null or id = (select id from head))
           and not exists (select from head t join nodes n on {OWNS}
                            where n.left_at is null and n.lease_until >= now() and n.id <> $1)
           and exists (select from nodes where id = $1 and epoch = $2)"
    );
    let statement = client.prepare_cached(&sql).await?;
    Ok(client.execute(&statement, &[&node.id, &node.epoch, &song.0]).await? >= 1)
}
