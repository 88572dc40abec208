//! The net under everything else (OPS-2): songs that should have moved by now are woken, begun anew, and in the end
//! failed with a refund; what nobody can move is left to operators, as a dead letter.
//!
//! Not here: songs without an owner, or that no directory knows (`song::recovery`); which songs are stuck
//! (`store::stuck`).

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};

use super::actor::World;
use super::directory::Directories;
use super::event::Event;
use crate::store::stuck::{self, Patience, Stuck};
use crate::store::{self, StoreError, letters, nodes};

/// Songs looked at in one round, the longest stuck first.
const PAGE: i64 = 1000;
/// Songs of a round that cannot be helped, before it ends.
const FAILURES_MAX: usize = 10;
/// A look at all running tasks takes longer than what people wait for.
const WITHIN: Duration = Duration::from_secs(30);
/// With the wait for a connection.
const ANSWERED_WITHIN: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub every: Duration,
    /// How much later than its state says a song may move.
    pub slack: Duration,
}

/// By when songs should have moved, by this node's rules, whoever makes them.
pub fn patience(world: &World, slack: Duration) -> Patience {
    Patience { slack, deadline: world.rules.longest_deadline(), max_wait: world.rules.max_wait }
}

/// Runs until the lease is lost or this node leaves.
pub async fn keep_sweeping(world: Arc<World>, directories: Directories, settings: Settings) {
    while !world.lease.is_lost() && !world.lease.is_draining() {
        tokio::time::sleep(settings.every).await;
        if let Err(error) = sweep(&world, &directories, &settings).await {
            tracing::warn!(%error, "could not look for songs that are stuck");
        }
    }
}

async fn sweep(world: &World, directories: &Directories, settings: &Settings) -> Result<(), StoreError> {
    let (many, stuck) = look(&world.pool, patience(world, settings.slack), PAGE).await?;
    metrics::gauge!("songflight_stuck_songs").set(many as f64);
    let node = world.journal.node();
    let own = stuck.iter().filter(|one| one.owner.is_some_and(|owner| node.owns(owner)));
    resume_each(own, async |one| resume(world, directories, one).await).await?;
    let give_up = async |client: &Object| letters::give_up(client, world.activations_max).await;
    let given_up = store::ask(&world.pool, give_up).await?;
    if given_up > 0 {
        tracing::error!(
            songs = given_up,
            "songs were taken up too often without moving; see the dead letters"
        );
    }
    Ok(())
}

/// One that fails keeps the others from nothing, unless so many do that the database must be away.
async fn resume_each<'a>(
    songs: impl Iterator<Item = &'a Stuck>,
    resume: impl AsyncFn(&Stuck) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut failed = 0;
    for one in songs {
        let Err(error) = resume(one).await else { continue };
        failed += 1;
        if failed == FAILURES_MAX {
            return Err(error);
        }
        tracing::warn!(song.id = %one.song, %error, "a stuck song could not be helped");
    }
    Ok(())
}

/// The list of what is stuck, however long it takes to read.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn look(pool: &Pool, patience: Patience, limit: i64) -> Result<(i64, Vec<Stuck>), StoreError> {
    store::ask_within(pool, ANSWERED_WITHIN, async |client| {
        // Who stops waiting, or is refused, leaves no transaction behind: it ends with this value.
        let snapshot = client.build_transaction().read_only(true).start().await?;
        let limited = format!("set local statement_timeout = {}", WITHIN.as_millis());
        snapshot.batch_execute(&limited).await?;
        let found = stuck::list(&snapshot, patience, limit).await?;
        snapshot.rollback().await?;
        Ok(found)
    })
    .await
}

/// Wakes it; else begins it anew; else gives it up.
async fn resume(world: &World, directories: &Directories, stuck: &Stuck) -> Result<(), StoreError> {
    let song = stuck.song;
    if moved(directories, stuck, Event::Wake).await {
        tracing::warn!(song.id = %song, why = stuck.why(), "a stuck song was woken");
        return Ok(());
    }
    let node = world.journal.node();
    let count = async |client: &Object| nodes::count_activation(client, node, song).await;
    let times = store::ask(&world.pool, count).await?;
    if times < world.activations_max {
        tracing::warn!(song.id = %song, why = stuck.why(), times, "a stuck song is begun anew");
        if let Err(error) = directories.begin_anew(song).await {
            tracing::warn!(song.id = %song, %error, "a stuck song could not be begun anew");
        }
        return Ok(());
    }
    if moved(directories, stuck, Event::GivenUp).await {
        tracing::error!(song.id = %song, why = stuck.why(), "a stuck song was given up");
        return Ok(());
    }
    let give_up = async |client: &Object| letters::give_up_own(client, stuck.task).await;
    if store::ask(&world.pool, give_up).await? > 0 {
        tracing::error!(song.id = %song, why = stuck.why(), "a stuck song does not move; see the dead letters");
    }
    Ok(())
}

async fn moved(directories: &Directories, stuck: &Stuck, event: Event) -> bool {
    match directories.tell(stuck.song, None, event, None).await {
        Ok(told) => told.changed,
        Err(error) => {
            tracing::warn!(song.id = %stuck.song, %error, "a stuck song could not be told");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::id::{SongId, TaskId, fresh};
    use crate::time::Clock;

    fn stuck() -> Stuck {
        Stuck {
            song: SongId(fresh()),
            task: TaskId(fresh()),
            user: "mira".to_owned(),
            status: "pending".to_owned(),
            kind: "generate".to_owned(),
            provider: "suno".to_owned(),
            owner: None,
            owned: true,
            activations: 0,
            state: "accepted".to_owned(),
            waiting: None,
            since: Clock.now(),
            last_seen_to_move: Clock.now(),
        }
    }

    #[tokio::test]
    async fn a_song_that_cannot_be_helped_keeps_no_other_from_it() {
        let songs: Vec<Stuck> = (0..30).map(|_| stuck()).collect();
        let asked = RefCell::new(0);
        let round = async |failing: usize| {
            asked.replace(0);
            resume_each(songs.iter(), async |_| {
                *asked.borrow_mut() += 1;
                let fails = *asked.borrow() <= failing;
                if fails { Err(StoreError::Unavailable("no answer in time".to_owned())) } else { Ok(()) }
            })
            .await
        };
        assert!(round(FAILURES_MAX - 1).await.is_ok());
        assert_eq!(*asked.borrow(), 30);
        assert!(round(30).await.is_err());
        assert_eq!(*asked.borrow(), FAILURES_MAX, "the database is away");
    }
}
