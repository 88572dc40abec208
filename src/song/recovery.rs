//! Songs whose owner is gone are taken over, at the start and ever after: a sweep that keeps running, not a
//! thing done once (`durability.md` section 4). What each then needs is for `song::due` to say.

use std::sync::Arc;
use std::time::Duration;

use super::actor::World;
use super::directory::{Directories, Rest};
use super::due::{Due, NEVER, due, due_for_run};
use super::places::Places;
use crate::chance;
use crate::id::SongId;
use crate::store::StoreError;
use crate::store::nodes::Taken;
use crate::time::Time;

/// Tasks taken in one statement.
const PAGE: i64 = 20_000;
/// Songs loaded whole in one statement.
const WHOLE_AT_ONCE: usize = 1000;
/// How often other nodes' leases are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Every so many rounds running songs of nobody are looked for, too.
const THOROUGH_EVERY: u32 = 10;
/// Every so many rounds this node's own songs are counted over: the net under everything else (OPS-2).
const COUNT_EVERY: u32 = 60;

/// Runs until the lease is lost. `resumed` is called once what ran here before is in hand, or could not be had.
pub async fn keep_taking_over(world: Arc<World>, directories: Directories, resumed: impl FnOnce()) {
    match inherit(&world, &directories).await {
        Ok(0) => {}
        Ok(songs) => tracing::info!(songs, "went on with the songs of the process before"),
        Err(error) => {
            tracing::warn!(%error, "could not look for the songs of the process before");
            world.journal.doubt();
        }
    }
    resumed();
    let mut round = 0;
    while !world.lease.is_lost() && !world.lease.is_draining() {
        match take_over(&world, &directories, round % THOROUGH_EVERY == 0).await {
            Ok(0) => {}
            Ok(taken) => tracing::info!(songs = taken, "took up songs whose owner is gone"),
            Err(error) => {
                // Some may be ours by now and in nobody's hands.
                tracing::warn!(%error, "could not look for songs without an owner");
                world.journal.doubt();
            }
        }
        let doubt = world.journal.take_doubt();
        if doubt || round % COUNT_EVERY == COUNT_EVERY - 1 {
            match pick_up(&world, &directories).await {
                Ok(0) => {}
                Ok(found) => tracing::warn!(songs = found, "picked up songs that nobody looked after"),
                Err(error) => {
                    tracing::warn!(%error, "could not look for songs that nobody looks after");
                    world.journal.doubt();
                }
            }
        }
        round += 1;
        tokio::time::sleep(EVERY).await;
    }
}

async fn take_over(world: &World, directories: &Directories, thorough: bool) -> Result<usize, StoreError> {
    let (node, database) = (world.journal.node(), &world.database);
    if database.fence_the_dead(node).await? == 0 && !thorough {
        return Ok(0);
    }
    let page = |from| database.take_over(node, from, PAGE, world.activations_max);
    page_by_page(world, directories, page).await
}

/// What ran here when the process before ended is this one's already.
async fn inherit(world: &World, directories: &Directories) -> Result<usize, StoreError> {
    let (node, database) = (world.journal.node(), &world.database);
    if node.inherits.is_none() {
        return Ok(0);
    }
    let songs = page_by_page(world, directories, |from| database.inherited(node, from, PAGE)).await?;
    database.resumed(node).await?;
    Ok(songs)
}

async fn page_by_page<P: Future<Output = Result<Taken, StoreError>>>(
    world: &World,
    directories: &Directories,
    page: impl Fn(Option<SongId>) -> P,
) -> Result<usize, StoreError> {
    let mut total = 0;
    let mut taken = page(None).await?;
    loop {
        total += taken.heads.len() + taken.others.len();
        let Some(from) = taken.next else {
            hand_out(world, directories, taken).await?;
            return Ok(total);
        };
        // The database is at the next page while this one finds its hands.
        let (next, handed_out) = tokio::join!(biased; page(Some(from)), hand_out(world, directories, taken));
        handed_out?;
        taken = next?;
    }
}

/// Each of these songs rests here, until it is due.
async fn hand_out(world: &World, directories: &Directories, taken: Taken) -> Result<(), StoreError> {
    // Whatever else this thread has to do comes first: the question for the next page, for one.
    tokio::task::yield_now().await;
    let Taken { heads, others, next: _ } = taken;
    let (songs, now) = (heads.len() + others.len(), world.clock.now());
    let rest = |song: SongId, next: Option<(Time, Due)>, places: Places| {
        let due = next.map(|next| spread(song, next, now, songs));
        directories.of(song).do_send(Rest { song, due, asked_until: NEVER, places, actor: None });
    };
    // A task that holds a place at the provider keeps it while its song rests.
    for head in heads {
        let places = Places::adopted_for(&head, &world.providers, &world.seats);
        rest(head.song, due_for_run(head.task, &head.run, &head.provider, |_| NEVER, &world.rules), places);
    }
    for page in others.into_iter().collect::<Vec<_>>().chunks(WHOLE_AT_ONCE) {
        for song in world.database.load(page).await?.songs() {
            let places = Places::adopted(&song, &world.providers, &world.seats);
            rest(song.id, due(&song, |_| NEVER, &world.rules), places);
        }
    }
    Ok(())
}

/// Songs that run here by the database, and of which no directory knows: their creation was committed and
/// its answer lost, or a take-over broke off halfway.
async fn pick_up(world: &World, directories: &Directories) -> Result<usize, StoreError> {
    let running = world.database.running(world.journal.node()).await?;
    let now = world.clock.now();
    let mut found = 0;
    for song in directories.unknown(running).await {
        found += 1;
        directories.of(song).do_send(Rest {
            song,
            due: Some(now),
            asked_until: NEVER,
            places: Places::default(),
            actor: None,
        });
    }
    Ok(found)
}

/// Polls that are overdue are spread, so that the provider is not asked for everything at once
/// (`durability.md` section 6); everything else is done when it is due.
fn spread(song: SongId, (at, what): (Time, Due), now: Time, songs: usize) -> Time {
    let seconds = u32::try_from(songs / 50).unwrap_or(u32::MAX).min(30);
    match what {
        Due::Poll(_) if at < now => now + Duration::from_secs(1).mul_f64(chance::of(song.0, 1)) * seconds,
        Due::Poll(_) | Due::Submit(_) | Due::Wake => at.max(now),
    }
}
