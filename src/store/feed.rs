//! What watchers read: heads, events after a cursor, snapshots. Each is one statement, so that its head
//! and its rows are of one moment without a transaction around them (`protocol.md` 3).
//!
//! Not here: who may watch what beyond the owner's check, and what is done with it (`realtime`).

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::songs::{self, Loaded, SELECT};
use super::{SongChanged, StoreError, ask};
use crate::id::{ShareToken, SongId, UserId};
use crate::song::event::EventKind;
use crate::song::phase::Rules;
use crate::song::view::view;
use crate::time::Time;

/// Songs in a snapshot of all of a user's songs, at most.
const SNAPSHOT_SONGS_MAX: i64 = 200;

/// Where a user's log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub epoch: i64,
    /// The newest event; 0 is none yet.
    pub u: i64,
}

/// Each user's log has an epoch of its own, so that a cursor of somebody else's is known as such: it would name events
/// that are none of theirs (`protocol.md` 3). 20 bits of who they are beside the log's own.
pub fn epoch_of(user: &UserId, epoch: i64) -> i64 {
    const BITS: u32 = 20;
    let mark = i64::try_from(user.number() % (1 << BITS)).unwrap_or(0);
    epoch.saturating_mul(1 << BITS).saturating_add(mark)
}

/// Events after a cursor, and where the log ended at that moment.
#[derive(Debug)]
pub struct Page {
    pub epoch: i64,
    /// The owner's newest event.
    pub u: i64,
    /// The newest of what was asked for: `u` for a user, `seq` for a song.
    pub head: i64,
    pub events: Vec<SongChanged>,
}

/// Songs as their owner sees them, and where the log ended at that moment.
#[derive(Debug)]
pub struct Snapshot {
    pub epoch: i64,
    pub u: i64,
    pub head: i64,
    pub songs: Vec<Map<String, Value>>,
}

/// What the hubs need of the database.
#[async_trait]
pub trait Feed: Send + Sync {
    /// Of each of these users.
    async fn heads(&self, users: &[UserId]) -> Result<HashMap<UserId, Head>, StoreError>;
    /// At most `limit` of the user's events after `u`, in their order.
    async fn of_user(&self, user: &UserId, u: i64, limit: i64) -> Result<Page, StoreError>;
    /// The same for one song after `seq`; `None` if it is not this user's.
    async fn of_song(
        &self,
        user: &UserId,
        song: SongId,
        seq: i64,
        limit: i64,
    ) -> Result<Option<Page>, StoreError>;
    /// In flight, waiting for the owner, or changed in the last 24 h.
    async fn songs(&self, user: &UserId) -> Result<Snapshot, StoreError>;
    /// `None` if it is not this user's.
    async fn song(&self, user: &UserId, song: SongId) -> Result<Option<Snapshot>, StoreError>;
    /// Whose song a share link shows.
    async fn shared(&self, token: ShareToken) -> Result<Option<(SongId, UserId)>, StoreError>;
}

/// The feed as Postgres has it.
pub struct PostgresFeed {
    pool: Pool,
    rules: Arc<Rules>,
}

const HEADS: &str = "
select l.epoch, w.user_id, coalesce(p.u, 0)
  from event_log l cross join unnest($1::text[]) as w (user_id) left join profiles p using (user_id)";

const OF_USER: &str = "
select l.epoch as log_epoch, coalesce(p.u, 0) as head_u, coalesce(p.u, 0) as head,
       (extract(epoch from e.at) * 1000)::bigint as at, e.song_id, e.seq, e.u, e.kind, e.set::text as set
  from event_log l
  left join profiles p on p.user_id = $1
  left join lateral (
       select * from song_events where user_id = $1 and u > $2 order by u limit $3) e on true
 order by e.u";

const OF_SONG: &str = "
select l.epoch as log_epoch, p.u as head_u, h.seq as head,
       (extract(epoch from e.at) * 1000)::bigint as at, e.song_id, e.seq, e.u, e.kind, e.set::text as set
  from event_log l
  join songs s on s.id = $4 and s.user_id = $1 and s.deleted_at is null
  join profiles p on p.user_id = s.user_id
  join lateral (select t.seq from tasks t where t.song_id = s.id and not t.beside order by t.number desc limit 1) h on true
  left join lateral (
       select * from song_events where song_id = s.id and seq > $2 order by seq limit $3) e on true
 order by e.seq";

const SHARED: &str = "
select s.id, s.user_id from song_variants v join songs s on s.id = v.song_id
 where v.share_token = $1 and s.deleted_at is null";

impl PostgresFeed {
    pub const fn new(pool: Pool, rules: Arc<Rules>) -> Self {
        Self { pool, rules }
    }

    async fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let query = async |client: &Object| {
            let statement = client.prepare_cached(sql).await?;
            Ok(client.query(&statement, parameters).await?)
        };
        ask(&self.pool, query).await
    }

    fn view(&self, row: &Row) -> Result<Map<String, Value>, StoreError> {
        Ok(view(&songs::read(row)?.song, &self.rules))
    }
}

#[async_trait]
impl Feed for PostgresFeed {
    async fn heads(&self, users: &[UserId]) -> Result<HashMap<UserId, Head>, StoreError> {
        let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = self.query(HEADS, &[&names]).await?;
        let heads = rows.iter().map(|row| {
            let user = UserId::trusted(row.get(1));
            let epoch = epoch_of(&user, row.get(0));
            (user, Head { epoch, u: row.get(2) })
        });
        Ok(heads.collect())
    }

    async fn of_user(&self, user: &UserId, u: i64, limit: i64) -> Result<Page, StoreError> {
        let rows = self.query(OF_USER, &[&user.as_str(), &u, &limit]).await?;
        page(user, &rows)?.ok_or_else(|| StoreError::Refused("the log has no epoch".to_owned()))
    }

    async fn of_song(
        &self,
        user: &UserId,
        song: SongId,
        seq: i64,
        limit: i64,
    ) -> Result<Option<Page>, StoreError> {
        let rows = self.query(OF_SONG, &[&user.as_str(), &seq, &limit, &song.0]).await?;
        page(user, &rows)
    }

    async fn songs(&self, user: &UserId) -> Result<Snapshot, StoreError> {
        let sql = format!(
            "with wanted as (
                 select id from songs where user_id = $1 and deleted_at is null
                    and (status in ('pending', 'generating_lyrics', 'generating_music', 'lyrics_ready', 'ready')
                         or updated_at > now() - interval '24 hours')
                  order by status in ('pending', 'generating_lyrics', 'generating_music') desc, updated_at desc
                  limit $2),
             page as ({SELECT} where s.id in (select id from wanted))
             select page.*, l.epoch as log_epoch, coalesce(p.u, 0) as head_u
               from event_log l left join profiles p on p.user_id = $1 left join page on true
              order by page.id desc"
        );
        let rows = self.query(&sql, &[&user.as_str(), &SNAPSHOT_SONGS_MAX]).await?;
        let (epoch, u) = rows.first().map_or((0, 0), |row| (row.get("log_epoch"), row.get("head_u")));
        let epoch = epoch_of(user, epoch);
        let present = rows.iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some());
        let songs = Loaded::read(present).songs().map(|song| view(&song, &self.rules)).collect();
        Ok(Snapshot { epoch, u, head: u, songs })
    }

    async fn song(&self, user: &UserId, song: SongId) -> Result<Option<Snapshot>, StoreError> {
        let sql = format!(
            "with page as ({SELECT} where s.id = $2 and s.user_id = $1 and s.deleted_at is null)
             select page.*, l.epoch as log_epoch, p.u as head_u
               from event_log l join page on true join profiles p on p.user_id = $1"
        );
        let rows = self.query(&sql, &[&user.as_str(), &song.0]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (u, head) = (row.get("head_u"), row.get("seq"));
        let epoch = epoch_of(user, row.get("log_epoch"));
        Ok(Some(Snapshot { epoch, u, head, songs: vec![self.view(row)?] }))
    }

    async fn shared(&self, token: ShareToken) -> Result<Option<(SongId, UserId)>, StoreError> {
        let rows = self.query(SHARED, &[&token.0]).await?;
        Ok(rows.first().map(|row| (SongId(row.get(0)), UserId::trusted(row.get(1)))))
    }
}

fn page(user: &UserId, rows: &[Row]) -> Result<Option<Page>, StoreError> {
    let Some(first) = rows.first() else { return Ok(None) };
    let present = rows.iter().filter(|row| row.get::<_, Option<Uuid>>("song_id").is_some());
    Ok(Some(Page {
        epoch: epoch_of(user, first.get("log_epoch")),
        u: first.get("head_u"),
        head: first.get("head"),
        events: present.map(|row| event(user, row)).collect::<Result<_, _>>()?,
    }))
}

fn event(user: &UserId, row: &Row) -> Result<SongChanged, StoreError> {
    let set = RawValue::from_string(row.get("set"))
        .map_err(|error| StoreError::Refused(format!("an event does not read: {error}")))?;
    Ok(SongChanged {
        user: user.clone(),
        song: SongId(row.get("song_id")),
        seq: row.get("seq"),
        u: row.get("u"),
        at: Time::from_millis(row.get("at")),
        // A newer version may have written kinds that this one does not know; its `set` is right anyway.
        kind: serde_json::from_value(Value::String(row.get("kind"))).unwrap_or(EventKind::Updated),
        set: set.into(),
    })
}
