//! Everything that is known of one song, for operators: rows as they stand, raw callbacks included (SONG-4, OPS-1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deadpool_postgres::GenericClient;
use serde_json::{Value, json};

use super::{StoreError, time};
use crate::id::{SongId, TaskId};

/// Newest events and callbacks shown; and how much of each callback.
const EVENTS_MAX: i64 = 200;
const CALLBACKS_MAX: i64 = 50;
const BODY_BYTES_SHOWN: i32 = 64 * 1024;

const SONG: &str = "
select jsonb_build_object(
    'song', to_jsonb(s) - 'content_hash',
    'tasks', (select jsonb_agg(to_jsonb(t) order by t.number) from tasks t where t.song_id = s.id),
    'provider_refs', (select coalesce(jsonb_agg(to_jsonb(r) order by r.at), '[]') from provider_refs r
                       where r.task_id in (select id from tasks where song_id = s.id)),
    'lyrics_variants', (select coalesce(jsonb_agg(to_jsonb(l) order by l.variant_index), '[]')
                          from lyrics_variants l where l.song_id = s.id),
    'variants', (select coalesce(jsonb_agg(to_jsonb(v) order by v.variant_number), '[]')
                   from song_variants v where v.song_id = s.id),
    'events', (select coalesce(jsonb_agg(to_jsonb(e) - 'song_id' - 'user_id' order by e.seq), '[]')
                 from (select * from song_events where song_id = s.id order by seq desc limit $2) e),
    'credits', (select coalesce(jsonb_agg(to_jsonb(c) order by c.id), '[]') from credit_entries c
                 where c.task_id in (select id from tasks where song_id = s.id)),
    'notifications', (select coalesce(jsonb_agg(to_jsonb(n) order by n.created_at), '[]')
                        from notifications n where n.song_id = s.id),
    'dead_letters', (select coalesce(jsonb_agg(to_jsonb(f) - 'context' order by f.id), '[]')
                       from failed_jobs f where f.song_id = s.id))
  from songs s where s.id = $1";

/// The song's rows; `None` when there is none. Amounts are in thousandths of a credit, as they are stored.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn song(client: &impl GenericClient, id: SongId) -> Result<Option<Value>, StoreError> {
    let Some(row) = client.query_opt(SONG, &[&id.0, &EVENTS_MAX]).await? else { return Ok(None) };
    // Not `get`: what a user wrote may be nested deeper than is read.
    let mut all: Value = row.try_get(0)?;
    let sql = format!("{CALLBACKS} where task_id in (select id from tasks where song_id = $1) {NEWEST}");
    all["callbacks"] = callbacks(client, &sql, &id.0).await?;
    Ok(Some(all))
}

/// What providers posted about a task, the newest first.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn callbacks_of(client: &impl GenericClient, task: TaskId) -> Result<Value, StoreError> {
    callbacks(client, &format!("{CALLBACKS} where task_id = $1 {NEWEST}"), &task.0).await
}

const CALLBACKS: &str = "
select at, provider, task_id, call, attempt, outcome, octet_length(body) as bytes, substring(body for $2) as body
  from callback_inbox";
const NEWEST: &str = "order by at desc limit $3";

async fn callbacks(client: &impl GenericClient, sql: &str, id: &uuid::Uuid) -> Result<Value, StoreError> {
    let rows = client.query(sql, &[id, &BODY_BYTES_SHOWN, &CALLBACKS_MAX]).await?;
    let shown = |row: &tokio_postgres::Row| {
        let (body, bytes): (&[u8], i32) = (row.get("body"), row.get("bytes"));
        let mut shown = json!({
            "at": time(row.get("at")).rfc3339(), "provider": row.get::<_, &str>("provider"),
            "task_id": row.get::<_, uuid::Uuid>("task_id"), "call": row.get::<_, i16>("call"),
            "attempt": row.get::<_, i16>("attempt"), "outcome": row.get::<_, &str>("outcome"), "bytes": bytes,
        });
        // What is no text (malformed ones are kept, too) or was cut within a letter comes in base64.
        match std::str::from_utf8(body) {
            Ok(text) => shown["body"] = json!(text),
            Err(_) => shown["body_base64"] = json!(STANDARD.encode(body)),
        }
        shown
    };
    Ok(rows.iter().map(shown).collect())
}
