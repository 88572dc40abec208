//! Puts a dead letter's job back to work (OPS-1).
//!
//! Not here: keeping and listing letters (`store::letters`), who may do this (`api`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use uuid::Uuid;

use crate::callback::{self, Heard};
use crate::id::{self, CallKey, SongId, TaskId};
use crate::song::actor::{TellError, World};
use crate::song::directory::Directories;
use crate::song::event::{Event, NewAddition};
use crate::song::phase::{AdditionState, Phase};
use crate::store::letters::{self, GIVEN_UP, Letter};
use crate::store::{self, StoreError, songs};

/// Why nothing was put back.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// In words for operators.
    #[error("{0}")]
    Nothing(String),
    #[error(transparent)]
    Told(#[from] TellError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn nothing<T>(why: &str) -> Result<T, ReplayError> {
    Err(ReplayError::Nothing(why.to_owned()))
}

/// Puts it back and closes the letter; answers what was done.
///
/// # Errors
/// See [`ReplayError`]; the letter stays open then.
pub async fn replay(
    world: &World,
    directories: &Directories,
    letter: &Letter,
    by: &str,
) -> Result<&'static str, ReplayError> {
    if letter.resolved_at.is_some() {
        return nothing("it was resolved already");
    }
    let done = match (letter.kind.as_str(), letter.song, letter.task) {
        ("song", Some(song), Some(task)) => again(world, directories, song, task).await?,
        ("addition", Some(song), Some(task)) => add_again(world, directories, song, task).await?,
        ("step", Some(song), _) => step_again(world, directories, song, letter).await?,
        ("callback", _, _) => hear_again(world, directories, letter).await?,
        (GIVEN_UP, Some(song), _) => take_up_again(world, directories, song).await?,
        ("create", ..) => {
            return nothing(
                "whoever ordered it was told that it failed, and nothing was charged: there is no job to put back",
            );
        }
        ("claim", ..) => {
            return nothing("the account that claimed the song was told that it failed, and may claim again");
        }
        _ => return nothing("there is nothing to put back of this kind"),
    };
    let noted =
        async |client: &deadpool_postgres::Object| letters::replayed(client, letter.id, by, done).await;
    store::ask(&world.pool, noted).await?;
    Ok(done)
}

async fn load(world: &World, song: SongId) -> Result<crate::song::phase::Song, ReplayError> {
    let loaded = store::ask(&world.pool, async |client| songs::load(client, song).await).await?;
    loaded.map(|stored| stored.song).ok_or_else(|| ReplayError::Nothing("the song is gone".to_owned()))
}

/// The phase that failed, as a new task: reserved anew, outside its owner's limits.
async fn again(
    world: &World,
    directories: &Directories,
    song: SongId,
    task: TaskId,
) -> Result<&'static str, ReplayError> {
    let stored = load(world, song).await?;
    if stored.head.task != task || !matches!(stored.phase, Phase::Failed(_)) {
        return nothing("the song went on since");
    }
    let event = Event::PutBack { task: TaskId(id::fresh()) };
    match directories.tell(song, None, event, None).await? {
        told if told.changed => Ok("the song is made again"),
        _ => nothing("the song went on since"),
    }
}

async fn add_again(
    world: &World,
    directories: &Directories,
    song: SongId,
    task: TaskId,
) -> Result<&'static str, ReplayError> {
    let stored = load(world, song).await?;
    let failed = stored.addition(task).filter(|one| matches!(one.state, AdditionState::Failed(_)));
    let Some(failed) = failed else { return nothing("it is not one of the song's failed tasks") };
    let (provider, work, price) = (failed.provider.clone(), failed.work.clone(), failed.price);
    let addition = Box::new(NewAddition { task: TaskId(id::fresh()), provider, work, price });
    match directories.tell(song, None, Event::Asked { addition }, None).await? {
        told if told.changed => Ok("the task is made again"),
        _ => nothing("the same was made since, or the song can have no further task"),
    }
}

/// What the step was decided on is decided again: the callback that came with it, or the time that passed.
async fn step_again(
    world: &World,
    directories: &Directories,
    song: SongId,
    letter: &Letter,
) -> Result<&'static str, ReplayError> {
    if letter.context["callback"].is_object() {
        return hear_again(world, directories, letter).await;
    }
    directories.begin_anew(song).await?;
    directories.tell(song, None, Event::Wake, None).await?;
    Ok("the song looked again at what is to be done")
}

/// A callback as it stands in a letter.
#[derive(Deserialize)]
struct Kept {
    provider: String,
    task: Uuid,
    call: u8,
    attempt: u16,
    body: String,
}

/// As when it came: heard, and kept raw beside whatever comes of it (CB-2).
async fn hear_again(
    world: &World,
    directories: &Directories,
    letter: &Letter,
) -> Result<&'static str, ReplayError> {
    let unreadable = || ReplayError::Nothing("the callback in it cannot be read".to_owned());
    let kept: Kept = serde_json::from_value(letter.context["callback"].clone()).map_err(|_| unreadable())?;
    let body = STANDARD.decode(&kept.body).map_err(|_| unreadable())?;
    let Some(member) = world.providers.member(&kept.provider) else {
        return nothing("its provider is not configured");
    };
    let key = CallKey { task: TaskId(kept.task), call: kept.call, attempt: kept.attempt };
    Ok(match callback::hear(world, directories, member, key, body.into(), None).await? {
        Heard::Told { changed: true } => "the callback was heard again",
        Heard::Told { changed: false } => "the callback was heard again and brought nothing new",
        Heard::Malformed => "the callback was kept: it cannot be read",
        Heard::Unknown => "the callback was kept: there is no such task",
    })
}

async fn take_up_again(
    world: &World,
    directories: &Directories,
    song: SongId,
) -> Result<&'static str, ReplayError> {
    store::ask(&world.pool, async |client| letters::allow_again(client, song).await).await?;
    directories.begin_anew(song).await?;
    Ok("the song is taken up again")
}
