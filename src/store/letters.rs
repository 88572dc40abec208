//! Dead letters: what could not be done and must not be forgotten (OPS-1). Failed songs and further tasks are put
//! there by the database itself (`migrations/V7`), refused rows by the journal, songs that were given up by the sweep.
//!
//! Not here: putting one back to work (`ops::replay`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deadpool_postgres::GenericClient;
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use super::journal::Entry;
use super::nodes::OWNS;
use super::row::InboxRow;
use super::{StoreError, time};
use crate::id::{SongId, TaskId};
use crate::time::Time;

/// What kinds of letters there are, and what each is about.
pub const KINDS: &[(&str, &str)] = &[
    ("song", "a song failed for good, for no fault of its owner's"),
    ("addition", "so did what was to be made beside a song"),
    ("step", "the database refused to write a song's step"),
    ("create", "the database refused to write a new song; its owner was told so"),
    ("claim", "the database refused to move a guest's song; the account was told so, and may claim again"),
    ("callback", "the database refused to keep a provider's callback"),
    (GIVEN_UP, "a song was taken up again and again and did not move"),
];

pub const GIVEN_UP: &str = "given_up";

/// What the kinds are called.
pub const NAMES: [&str; KINDS.len()] = {
    let mut names = [""; KINDS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = KINDS[at].0;
        at += 1;
    }
    names
};

/// One letter; `context` only where one was asked for.
#[derive(Clone, Debug)]
pub struct Letter {
    pub id: i64,
    pub kind: String,
    pub song: Option<SongId>,
    pub task: Option<TaskId>,
    pub user: Option<String>,
    pub error: String,
    pub times: i32,
    pub failed_at: Time,
    pub last_at: Time,
    pub replays: i32,
    pub replayed_at: Option<Time>,
    pub resolved_at: Option<Time>,
    pub resolved_by: Option<String>,
    pub notes: Option<String>,
    /// The song's status at this moment.
    pub song_status: Option<String>,
    pub context: Value,
}

impl Letter {
    /// Without its context.
    pub fn as_json(&self) -> Value {
        json!({
            "id": self.id, "kind": self.kind, "song_id": self.song, "task_id": self.task, "user": self.user,
            "error": self.error, "times": self.times,
            "failed_at": self.failed_at.rfc3339(), "last_at": self.last_at.rfc3339(),
            "replays": self.replays, "replayed_at": self.replayed_at.map(Time::rfc3339),
            "resolved_at": self.resolved_at.map(Time::rfc3339), "resolved_by": self.resolved_by, "notes": self.notes,
            "song_status": self.song_status,
        })
    }
}

const SELECT: &str = "
select f.id, f.kind, f.song_id, f.task_id, f.user_id, f.error, f.times, f.failed_at, f.last_at, f.replays, f.replayed_at,
       f.resolved_at, f.resolved_by, f.notes, s.status::text as song_status, case when $1 then f.context end as context
  from failed_jobs f left join songs s on s.id = f.song_id";

/// Which letters are wanted, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub kind: Option<&'a str>,
    /// `None`: whatever became of them.
    pub resolved: Option<bool>,
    /// Those before this one.
    pub before: Option<i64>,
    pub limit: i64,
}

/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn list(client: &impl GenericClient, wanted: &Wanted<'_>) -> Result<Vec<Letter>, StoreError> {
    let sql = format!(
        "{SELECT} where f.id < coalesce($2, 9223372036854775807) and f.kind = coalesce($3, f.kind)
            and (f.resolved_at is not null) = coalesce($4, f.resolved_at is not null) order by f.id desc limit $5"
    );
    let asked: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&false, &wanted.before, &wanted.kind, &wanted.resolved, &wanted.limit];
    Ok(client.query(&sql, &asked).await?.iter().map(read).collect())
}

/// One letter with its context.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn find(client: &impl GenericClient, id: i64) -> Result<Option<Letter>, StoreError> {
    let sql = format!("{SELECT} where f.id = $2");
    Ok(client.query_opt(&sql, &[&true, &id]).await?.map(|row| read(&row)))
}

fn read(row: &Row) -> Letter {
    let at = |name: &str| row.get::<_, Option<jiff::Timestamp>>(name).map(time);
    Letter {
        id: row.get("id"),
        kind: row.get("kind"),
        song: row.get::<_, Option<Uuid>>("song_id").map(SongId),
        task: row.get::<_, Option<Uuid>>("task_id").map(TaskId),
        user: row.get("user_id"),
        error: row.get("error"),
        times: row.get("times"),
        failed_at: time(row.get("failed_at")),
        last_at: time(row.get("last_at")),
        replays: row.get("replays"),
        replayed_at: at("replayed_at"),
        resolved_at: at("resolved_at"),
        resolved_by: row.get("resolved_by"),
        notes: row.get("notes"),
        song_status: row.get("song_status"),
        context: row.get::<_, Option<Value>>("context").unwrap_or_default(),
    }
}

/// Closes a letter; `false` where there is none. Again, the newer notes stand.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn resolve(
    client: &impl GenericClient,
    id: i64,
    by: &str,
    notes: Option<&str>,
) -> Result<bool, StoreError> {
    let sql = "update failed_jobs set resolved_at = coalesce(resolved_at, now()), resolved_by = $2,
                      notes = coalesce($3, notes) where id = $1";
    Ok(client.execute(sql, &[&id, &by, &notes]).await? == 1)
}

/// Notes that it was put back to work, which closes it.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn replayed(client: &impl GenericClient, id: i64, by: &str, what: &str) -> Result<(), StoreError> {
    let sql =
        "update failed_jobs set replays = replays + 1, replayed_at = now(), resolved_by = $2, notes = $3,
                      resolved_at = coalesce(resolved_at, now()) where id = $1";
    client.execute(sql, &[&id, &by, &what]).await?;
    Ok(())
}

/// Removes letters that were closed so many days ago, at most `limit` of them, the oldest first. Answers how many.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn forget_old(client: &impl GenericClient, days: u32, limit: i64) -> Result<u64, StoreError> {
    let sql = "delete from failed_jobs where id in (
                   select id from failed_jobs where resolved_at < now() - make_interval(days => $1)
                    order by resolved_at limit $2)";
    Ok(client.execute(sql, &[&i32::try_from(days).unwrap_or(i32::MAX), &limit]).await?)
}

/// Puts a row aside that the database refused.
///
/// # Errors
/// [`StoreError`], as every statement.
pub async fn put_entry_aside(
    client: &tokio_postgres::Client,
    entry: &Entry,
    error: &str,
) -> Result<(), StoreError> {
    let (kind, song, task, user) = match entry {
        Entry::Create(new) => ("create", Some(new.song.id.0), None, Some(new.song.user.as_str())),
        Entry::Step(row, _) => ("step", Some(row.song.0), Some(row.head.0), Some(row.user.as_str())),
        Entry::Claim(claim) => ("claim", Some(claim.song.0), None, Some(claim.guest.as_str())),
        Entry::Callback(row) => ("callback", None, Some(row.task), None),
    };
    let context = json!({ "entry": whole(entry), "callback": callback(entry) });
    let put = "select put_aside($1, $2, $3, $4, $5, $6)";
    client.query_one(put, &[&kind, &song, &task, &user, &context, &error]).await?;
    Ok(())
}

/// All of it, for operators' eyes: as `Debug` writes it, which escapes what the database may have refused in the row itself.
fn whole(entry: &Entry) -> String {
    match entry {
        Entry::Create(new) => format!("{new:?}"),
        Entry::Step(row, _) => format!("{row:?}"),
        Entry::Claim(claim) => format!("{claim:?}"),
        Entry::Callback(row) => format!("{row:?}"),
    }
}

/// The callback that came with it, so that it can be read once more.
fn callback(entry: &Entry) -> Option<Value> {
    let row = match entry {
        Entry::Step(_, Some(row)) | Entry::Callback(row) => row,
        Entry::Step(_, None) | Entry::Create(_) | Entry::Claim(_) => return None,
    };
    let InboxRow { provider, task, call, attempt, body, .. } = row;
    Some(
        json!({"provider": provider, "task": task, "call": call, "attempt": attempt, "body": STANDARD.encode(body)}),
    )
}

/// Songs of nobody that were taken up too often get a letter, once, until they are put back. Answers how many did.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn give_up(client: &impl GenericClient, most: i16) -> Result<u64, StoreError> {
    let sql = format!(
        "select put_aside('{GIVEN_UP}', t.song_id, t.id, null, {CONTEXT}, {error})
           from tasks t left join nodes n on {OWNS} and n.left_at is null
          where t.ended_at is null and n.id is null and t.activations >= $1 and {NOT_TOLD}",
        error = "format('taken up %s times and did not move', t.activations)",
    );
    Ok(client.execute(&sql, &[&most]).await?)
}

/// What whoever looks at the letter needs to know of the task.
const CONTEXT: &str =
    "jsonb_build_object('run', t.run, 'kind', t.kind, 'provider', t.provider, 'progress', t.progress)";

const NOT_TOLD: &str = "not exists (select from failed_jobs f where f.task_id = t.id and f.kind = 'given_up'
            and (f.resolved_at is null or f.replayed_at is null))";

/// One that is in our own hands and does not move, whatever is done.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn give_up_own(client: &impl GenericClient, task: TaskId) -> Result<u64, StoreError> {
    let sql = format!(
        "select put_aside('{GIVEN_UP}', t.song_id, t.id, null, {CONTEXT}, 'it does not move, whatever is done')
           from tasks t where t.id = $1 and t.ended_at is null and {NOT_TOLD}"
    );
    Ok(client.execute(&sql, &[&task.0]).await?)
}

/// A given-up song may be taken up again.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn allow_again(client: &impl GenericClient, song: SongId) -> Result<(), StoreError> {
    client
        .execute("update tasks set activations = 0 where song_id = $1 and ended_at is null", &[&song.0])
        .await?;
    Ok(())
}
