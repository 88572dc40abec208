//! Songs as rows: loading them whole. Writing them is the journal's.

use std::sync::Arc;

use deadpool_postgres::GenericClient;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use uuid::Uuid;

use super::journal::Owner;
use super::{StoreError, time};
use crate::credit::Credits;
use crate::id::{CallKey, SongId, TaskId, UserId};
use crate::provider::failure::{Class, Failure};
use crate::song::parts::{Makes, TaskKind, Work};
use crate::song::phase::{Addition, AdditionState, Head, Phase, Progress, Push, Run, Song, Status};

/// A song with what the next commit needs to know about its row.
#[derive(Clone, Debug)]
pub struct Stored {
    pub song: Song,
    /// Of the head task's row; each commit names the one it was decided on.
    pub version: i64,
    /// The node whose actor may write it.
    pub owner: Option<Owner>,
}

/// Everything of a song in one row. Ends where the `where` begins.
pub(super) const SELECT: &str = "
select s.id, s.user_id, s.status::text as status, s.rank, s.wish, s.metadata, s.title, s.lyrics, s.error, s.cost, s.refunded,
       s.retries, s.last_viewed_at, s.created_at, s.deleted_at,
       h.id as task, h.number, h.kind, h.provider, h.price, h.version, h.seq, h.run, h.owner, h.epoch, h.activations, h.updated_at,
       (select t.progress from tasks t where t.song_id = s.id and t.kind = 'lyrics'
         order by t.number desc limit 1) as lyrics_progress,
       (select t.progress from tasks t where t.song_id = s.id and t.kind <> 'lyrics' and not t.beside
         order by t.number desc limit 1) as music_progress,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'task', t.id, 'number', t.number, 'provider', t.provider, 'price', t.price, 'run', t.run,
                   'progress', t.progress, 'work', t.addition -> 'work', 'ended', t.addition -> 'ended'
               ) order by t.number), '[]')
          from tasks t where t.song_id = s.id and t.beside) as additions,
       (select coalesce(jsonb_agg(to_jsonb(l) - 'song_id' order by l.variant_index), '[]')
          from lyrics_variants l where l.song_id = s.id) as lyrics_variants,
       (select coalesce(jsonb_agg(to_jsonb(v) - 'song_id' - 'storage_path' order by v.variant_number), '[]')
          from song_variants v where v.song_id = s.id) as variants,
       array(select n.kind from notifications n where n.song_id = s.id order by n.created_at) as pushes
  from songs s
  join lateral (select * from tasks t where t.song_id = s.id and not t.beside order by t.number desc limit 1) h on true
";

/// Loads one song, deleted or not; `None` when there is none.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn load(client: &impl GenericClient, id: SongId) -> Result<Option<Stored>, StoreError> {
    let statement = client.prepare_cached(&format!("{SELECT} where s.id = $1")).await?;
    client.query_opt(&statement, &[&id.0]).await?.map(|row| read(&row)).transpose()
}

/// Loads a song if it is this user's and not deleted: other people's songs do not exist (SEC-3).
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn load_own(
    client: &impl GenericClient,
    id: SongId,
    user: &UserId,
) -> Result<Option<Stored>, StoreError> {
    let sql = format!("{SELECT} where s.id = $1 and s.user_id = $2 and s.deleted_at is null");
    let statement = client.prepare_cached(&sql).await?;
    client.query_opt(&statement, &[&id.0, &user.as_str()]).await?.map(|row| read(&row)).transpose()
}

/// What this user had made under an idempotency key, also if it was deleted since, and the hash of what was asked for.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn made_under(
    client: &impl GenericClient,
    user: &UserId,
    key: &str,
) -> Result<Option<(SongId, Vec<u8>)>, StoreError> {
    let sql = "select id, content_hash from songs where user_id = $1 and idempotency_key = $2";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_opt(&statement, &[&user.as_str(), &key]).await?;
    Ok(row.map(|row| (SongId(row.get("id")), row.get("content_hash"))))
}

/// Whether a song is this user's and not deleted.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn is_own(client: &impl GenericClient, id: SongId, user: &UserId) -> Result<bool, StoreError> {
    let sql = "select exists (select from songs where id = $1 and user_id = $2 and deleted_at is null)";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_one(&statement, &[&id.0, &user.as_str()]).await?.get(0))
}

/// Songs of which there are several.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub stored: Vec<Stored>,
    /// Those that are there and do not read: a bug, or written by a version that is newer. They keep no other from
    /// anything.
    pub unreadable: Vec<SongId>,
}

impl Loaded {
    /// Tells once of all that do not read.
    pub(super) fn read<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let (mut loaded, mut why) = (Self::default(), None);
        for row in rows {
            match read(row) {
                Ok(stored) => loaded.stored.push(stored),
                Err(error) => {
                    loaded.unreadable.push(SongId(row.get("id")));
                    why.get_or_insert(error);
                }
            }
        }
        if let Some(error) = why {
            tracing::error!(songs = ?loaded.unreadable, %error, "songs do not read and are left out");
        }
        loaded
    }

    pub fn songs(self) -> impl Iterator<Item = Song> {
        self.stored.into_iter().map(|stored| stored.song)
    }
}

/// Loads these songs, in the order of `ids`; what does not exist is left out.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn load_many(client: &impl GenericClient, ids: &[SongId]) -> Result<Loaded, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let sql = format!("{SELECT} where s.id = any($1) order by array_position($1, s.id)");
    let statement = client.prepare_cached(&sql).await?;
    Ok(Loaded::read(&client.query(&statement, &[&ids]).await?))
}

/// The song that a task belongs to, deleted or not, and what the task makes.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn of_task(
    client: &impl GenericClient,
    task: TaskId,
) -> Result<Option<(SongId, TaskKind)>, StoreError> {
    let statement = client.prepare_cached("select song_id, kind from tasks where id = $1").await?;
    let row = client.query_opt(&statement, &[&task.0]).await?;
    row.map(|row| Ok((SongId(row.get(0)), task_kind(row.get(1))?))).transpose()
}

/// What a provider calls the task of this call, as far as that is known (PROV-5).
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn names_of_call(
    client: &impl GenericClient,
    key: CallKey,
    provider: &str,
) -> Result<Vec<String>, StoreError> {
    const NAMES: &str = "select provider_task from provider_refs where task_id = $1 and call = $2
        and attempt = $3 and provider = $4 and provider_task is not null";
    let statement = client.prepare_cached(NAMES).await?;
    let (call, attempt) = (i16::from(key.call), i16::try_from(key.attempt).unwrap_or(i16::MAX));
    let rows = client.query(&statement, &[&key.task.0, &call, &attempt, &provider]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(super) fn read(row: &Row) -> Result<Stored, StoreError> {
    let kind = task_kind(row.get("kind"))?;
    let run = json_option(row, "run")?;
    let deleted: Option<jiff::Timestamp> = row.get("deleted_at");
    let song = Song {
        id: SongId(row.get("id")),
        user: UserId::trusted(row.get("user_id")),
        wish: Arc::new(json(row, "wish")?),
        metadata: Arc::new(row.get("metadata")),
        phase: match (deleted, run) {
            (Some(_), _) => Phase::Deleted,
            (None, Some(run)) if kind.makes() == Makes::Lyrics => Phase::Lyrics(run),
            (None, Some(run)) => Phase::Music(run),
            (None, None) => resting_phase(row)?,
        },
        head: Head {
            task: TaskId(row.get("task")),
            number: row.get("number"),
            kind,
            provider: row.get("provider"),
            price: Credits::from_thousandths(row.get("price")),
        },
        lyrics_progress: json_option::<Progress>(row, "lyrics_progress")?,
        music_progress: json_option::<Progress>(row, "music_progress")?,
        seq: row.get("seq"),
        title: row.get("title"),
        lyrics: row.get("lyrics"),
        lyrics_variants: json(row, "lyrics_variants")?,
        variants: json(row, "variants")?,
        additions: additions(row)?,
        cost: Credits::from_thousandths(row.get("cost")),
        refunded: Credits::from_thousandths(row.get("refunded")),
        retries: row.get::<_, Vec<jiff::Timestamp>>("retries").into_iter().map(time).collect(),
        pushes: row.get::<_, Vec<String>>("pushes").iter().filter_map(|kind| Push::parse(kind)).collect(),
        last_viewed_at: row.get::<_, Option<jiff::Timestamp>>("last_viewed_at").map(time),
        created_at: time(row.get("created_at")),
        updated_at: time(row.get("updated_at")),
    };
    let owner = row.get::<_, Option<Uuid>>("owner").zip(row.get("epoch"));
    let owner = owner.map(|(node, epoch)| Owner { node, epoch, activations: row.get("activations") });
    Ok(Stored { song, version: row.get("version"), owner })
}

/// A task beside the head, as its columns tell it.
#[derive(serde::Deserialize)]
struct Beside {
    task: TaskId,
    number: i16,
    provider: String,
    price: Credits,
    run: Option<Run>,
    progress: Progress,
    work: Work,
    ended: Option<AdditionState>,
}

fn additions(row: &Row) -> Result<Vec<Addition>, StoreError> {
    let read = |one: Beside| {
        let state =
            one.run.map(AdditionState::Running).or(one.ended).ok_or_else(|| {
                StoreError::Refused(format!("task {} has neither a run nor an end", one.task))
            })?;
        Ok(Addition {
            task: one.task,
            number: one.number,
            provider: one.provider,
            work: one.work,
            price: one.price,
            state,
            progress: one.progress,
        })
    };
    json::<Vec<Beside>>(row, "additions")?.into_iter().map(read).collect()
}

fn resting_phase(row: &Row) -> Result<Phase, StoreError> {
    let status: &str = row.get("status");
    Ok(match Status::parse(status) {
        Some(Status::LyricsReady) => Phase::LyricsReady,
        Some(Status::Ready) => Phase::Ready,
        Some(Status::Complete) => Phase::Complete,
        Some(Status::Cancelled) => Phase::Cancelled,
        Some(Status::Failed) => Phase::Failed(
            json_option(row, "error")?.unwrap_or_else(|| Failure::new(Class::Unknown, "no error was stored")),
        ),
        Some(Status::Pending | Status::GeneratingLyrics | Status::GeneratingMusic) | None => {
            let song: Uuid = row.get("id");
            return Err(StoreError::Refused(format!("song {song} is {status} but has no running task")));
        }
    })
}

fn task_kind(text: &str) -> Result<TaskKind, StoreError> {
    TaskKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| StoreError::Refused(format!("unknown task kind {text}")))
}

fn json<T: DeserializeOwned>(row: &Row, column: &str) -> Result<T, StoreError> {
    serde_json::from_value(row.get(column))
        .map_err(|error| StoreError::Refused(format!("column {column} does not read: {error}")))
}

fn json_option<T: DeserializeOwned>(row: &Row, column: &str) -> Result<Option<T>, StoreError> {
    let value: Option<serde_json::Value> = row.get(column);
    value
        .map(serde_json::from_value)
        .transpose()
        .map_err(|error| StoreError::Refused(format!("column {column} does not read: {error}")))
}

/// A user's personas with the songs they were made of, newest first: at most 100.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn personas(
    client: &impl GenericClient,
    user: &UserId,
) -> Result<Vec<(SongId, Addition)>, StoreError> {
    let sql = format!(
        "{SELECT} where s.user_id = $1 and s.deleted_at is null and s.id in
            (select t.song_id from tasks t join songs o on o.id = t.song_id and o.user_id = $1
              where t.beside and t.kind = 'persona')
          order by s.id desc limit 100"
    );
    let statement = client.prepare_cached(&sql).await?;
    let mut found = Vec::new();
    for song in Loaded::read(&client.query(&statement, &[&user.as_str()]).await?).songs() {
        let personas = song.additions.into_iter().filter(|one| one.work.kind() == TaskKind::Persona);
        found.extend(personas.map(|one| (song.id, one)));
    }
    found.sort_by_key(|(_, one)| std::cmp::Reverse(one.task.0));
    Ok(found)
}

/// One event of a song, as its watchers were told.
#[derive(Clone, Debug)]
pub struct Happening {
    pub seq: i64,
    pub at: crate::time::Time,
    pub kind: String,
    pub set: serde_json::Value,
}

/// Events of a user's own song after `seq`, in order; `None` when there is no such song.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn history(
    client: &impl GenericClient,
    song: SongId,
    user: &UserId,
    after: i64,
    limit: i64,
) -> Result<Option<Vec<Happening>>, StoreError> {
    let sql = "select e.at, e.seq, e.kind, e.set from songs s left join lateral (
                   select * from song_events where song_id = s.id and seq > $3 order by seq limit $4) e on true
                where s.id = $1 and s.user_id = $2 and s.deleted_at is null order by e.seq";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&song.0, &user.as_str(), &after, &limit]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let events = rows.iter().filter_map(|row| {
        let seq: Option<i64> = row.get("seq");
        Some(Happening { seq: seq?, at: time(row.get("at")), kind: row.get("kind"), set: row.get("set") })
    });
    Ok(Some(events.collect()))
}

/// How a library is listed (SONG-7).
#[derive(Clone, Debug)]
pub struct Listing<'a> {
    pub user: &'a UserId,
    /// Empty means all.
    pub statuses: &'a [Status],
    /// Part of the title, any case.
    pub title: Option<&'a str>,
    pub sort: Sort,
    /// Where the page before ended.
    pub after: Option<Mark>,
    pub limit: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Smart,
    Newest,
}

/// The place of a song in the listing: the values it is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub rank: i16,
    /// Milliseconds; `None` is a song that was never opened, which comes first.
    pub viewed: Option<i64>,
    pub id: SongId,
}

/// A page of the library, and what stands beside it.
#[derive(Debug)]
pub struct Library {
    pub songs: Vec<Song>,
    /// The place of the last song, if there may be more.
    pub next: Option<Mark>,
    /// How many songs the user has in each status, whatever the filter.
    pub counts: Vec<(Status, i64)>,
    /// The user's newest event as of this reading, and the log's epoch (`Songs-Cursor`).
    pub u: i64,
    pub log_epoch: i64,
}

/// One statement for page, counts and cursor, so that they agree (SONG-7).
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn library(client: &impl GenericClient, listing: &Listing<'_>) -> Result<Library, StoreError> {
    let order = match listing.sort {
        Sort::Smart => "s.rank desc, coalesce(s.last_viewed_at, 'infinity') desc, s.id desc",
        Sort::Newest => "s.id desc",
    };
    let after = match listing.sort {
        Sort::Smart => {
            "(s.rank, coalesce(s.last_viewed_at, 'infinity'), s.id) < ($4::smallint, coalesce($5::timestamptz, 'infinity'), $6)"
        }
        Sort::Newest => "($4::smallint is null or $5::timestamptz is null or true) and s.id < $6",
    };
    let again = order.replace("s.", "page.");
    let sql = format!(
        "with page as ({SELECT}
            where s.user_id = $1 and s.deleted_at is null
              and (cardinality($2::text[]) = 0 or s.status = any ($2::text[]::song_status[]))
              and ($3::text is null or s.title ilike $3)
              and ($6::uuid is null or {after})
            order by {order} limit $7),
        counts as (select status::text, count(*) as n from songs
            where user_id = $1 and deleted_at is null group by status),
        head as (select coalesce((select u from profiles where user_id = $1), 0) as u,
                        (select epoch from event_log) as log_epoch,
                        coalesce((select jsonb_object_agg(status, n) from counts), '{{}}') as counts)
        select page.*, head.u, head.log_epoch, head.counts
          from head left join page on true order by {again}"
    );
    let statement = client.prepare_cached(&sql).await?;
    let statuses: Vec<&str> = listing.statuses.iter().map(|status| status.as_str()).collect();
    let title = listing.title.map(like);
    let rank = listing.after.map(|mark| mark.rank);
    let viewed = listing.after.and_then(|mark| mark.viewed).map(super::timestamp);
    let id = listing.after.map(|mark| mark.id.0);
    let rows = client
        .query(
            &statement,
            &[&listing.user.as_str(), &statuses, &title, &rank, &viewed, &id, &(listing.limit + 1)],
        )
        .await?;
    read_library(&rows, listing.limit)
}

fn read_library(rows: &[Row], limit: i64) -> Result<Library, StoreError> {
    let Some(head) = rows.first() else {
        return Err(StoreError::Refused("a listing without its head".to_owned()));
    };
    let counts: serde_json::Map<String, serde_json::Value> = json(head, "counts")?;
    let limit = usize::try_from(limit).unwrap_or(0);
    let page: Vec<&Row> = rows.iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some()).collect();
    let songs = Loaded::read(page.iter().copied().take(limit)).songs().collect();
    // Also where the last one does not read: those after it do.
    let last = page.get(limit.wrapping_sub(1)).filter(|_| page.len() > limit);
    let next = last.map(|row| Mark {
        rank: row.get("rank"),
        viewed: row.get::<_, Option<jiff::Timestamp>>("last_viewed_at").map(|at| time(at).millis()),
        id: SongId(row.get("id")),
    });
    Ok(Library {
        songs,
        next,
        counts: counts.iter().filter_map(|(status, n)| Some((Status::parse(status)?, n.as_i64()?))).collect(),
        u: head.get("u"),
        log_epoch: head.get("log_epoch"),
    })
}

/// A `like` pattern for "contains", with the pattern's own signs taken literally.
fn like(part: &str) -> String {
    let mut pattern = String::from("%");
    for letter in part.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}
