//! Orders of several songs in several variations (CRED-8): the rows that hold songs together.
//!
//! Not here: the songs, which are made, paid and changed as every song is (`store::journal`).

use deadpool_postgres::GenericClient;
use serde_json::Value;
use uuid::Uuid;

use super::{StoreError, time, timestamp};
use crate::credit::Credits;
use crate::id::{SongId, UserId};
use crate::song::phase::Status;
use crate::time::Time;

/// An order to be taken down.
#[derive(Debug)]
pub struct NewOrder {
    pub user: UserId,
    pub start: Credits,
    pub key: Option<String>,
    pub content_hash: [u8; 32],
    pub package: String,
    /// `YYYY-MM-DD`, checked.
    pub occasion_date: Option<String>,
    pub provider: String,
    /// What was asked for of each song.
    pub songs: Value,
    pub now: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is there, and nobody else has asked for its songs.
    Placed(Turn),
    /// It was placed before.
    Replay(Uuid),
    /// The key was used for another order.
    KeyMismatch,
    /// What this guest made is an account's by now (CRED-7).
    Claimed,
}

/// Somebody has an order's songs made. Whoever comes later has a later turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(jiff::Timestamp);

/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away; with a key the same again does no harm.
pub async fn place(client: &impl GenericClient, id: Uuid, new: &NewOrder) -> Result<Placed, StoreError> {
    let sql =
        "select outcome, order_id from place_order($1, $2, $3, $4, $5, $6, $7::text::date, $8, $9, $10)";
    let statement = client.prepare_cached(sql).await?;
    let now = timestamp(new.now.millis());
    let row = client
        .query_one(
            &statement,
            &[
                &new.user.as_str(),
                &new.start.thousandths(),
                &id,
                &new.key,
                &&new.content_hash[..],
                &new.package,
                &new.occasion_date,
                &new.provider,
                &new.songs,
                &now,
            ],
        )
        .await?;
    Ok(match row.get("outcome") {
        "placed" => Placed::Placed(Turn(now)),
        "replay" => Placed::Replay(row.get("order_id")),
        "claimed" => Placed::Claimed,
        _ => Placed::KeyMismatch,
    })
}

/// Whoever has more of an order made says so first, that nobody takes it back meanwhile; `None` where that was done.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away; the same again does no harm.
pub async fn take_turn(client: &impl GenericClient, order: Uuid) -> Result<Option<Turn>, StoreError> {
    let sql =
        "update orders set updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
                where id = $1 returning updated_at";
    let row = client.query_opt(sql, &[&order]).await?;
    Ok(row.map(|row| Turn(row.get(0))))
}

/// Takes an order back of which no song was made: whoever is refused leaves no trace, no key either. Unless somebody came
/// later, who has the last word: a song that is being made for them would be nobody's.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn withdraw(client: &impl GenericClient, order: Uuid, turn: Turn) -> Result<(), StoreError> {
    let sql = "delete from orders where id = $1 and updated_at = $2 and not exists (
                   select from orders o join order_songs os on os.order_id = o.id
                     join songs s on s.user_id = o.user_id and s.idempotency_key = song_key(os)
                    where o.id = $1)";
    client.execute(sql, &[&order, &turn.0]).await?;
    Ok(())
}

/// Notes which song is at this place of the order.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away; the same again does no harm.
pub async fn link(
    client: &impl GenericClient,
    order: Uuid,
    position: i16,
    song: SongId,
) -> Result<(), StoreError> {
    let sql = "update order_songs set song_id = $3 where order_id = $1 and position = $2 and song_id is null";
    client.execute(sql, &[&order, &position, &song.0]).await?;
    Ok(())
}

/// An order as it is.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: Uuid,
    pub package: String,
    pub occasion_date: Option<String>,
    pub payment_reference: Option<String>,
    pub provider: String,
    pub created_at: Time,
    pub songs: Vec<Place>,
}

/// A song's place in an order.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Place {
    pub position: i16,
    pub song_id: Option<SongId>,
    pub title: Option<String>,
    pub status: Option<Status>,
    pub deleted: bool,
    /// Variations that are there, of how many.
    pub done: i64,
    pub total: i64,
    /// The owner's choice.
    pub selected: Option<i64>,
    pub request: Value,
}

/// A song that was made and not noted yet is found by its key.
const SELECT: &str = "
select o.id, o.package, o.occasion_date::text as occasion_date, o.payment_reference, o.provider, o.created_at,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'position', os.position, 'song_id', s.id, 'title', s.title, 'status', s.status,
                   'deleted', s.deleted_at is not null, 'done', v.done, 'total', os.variations, 'selected', v.selected,
                   'request', os.request) order by os.position), '[]')
          from order_songs os
          left join lateral (
               select * from songs where id = coalesce(os.song_id, (
                   select id from songs k where k.user_id = o.user_id and k.idempotency_key = song_key(os)))) s on true
          left join lateral (
               select count(*) filter (where status = 'complete') as done,
                      max(variant_number) filter (where selected) as selected
                 from song_variants where song_id = s.id and s.deleted_at is null) v on true
         where os.order_id = o.id) as songs
  from orders o";

/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn load(client: &impl GenericClient, id: Uuid, user: &UserId) -> Result<Option<Order>, StoreError> {
    let statement = client.prepare_cached(&format!("{SELECT} where o.id = $1 and o.user_id = $2")).await?;
    client.query_opt(&statement, &[&id, &user.as_str()]).await?.map(|row| read(&row)).transpose()
}

/// A user's orders before this one, newest first.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn list(
    client: &impl GenericClient,
    user: &UserId,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Order>, StoreError> {
    let sql = format!("{SELECT} where o.user_id = $1 and o.id < $2 order by o.id desc limit $3");
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&user.as_str(), &before.unwrap_or(Uuid::max()), &limit]).await?;
    rows.iter().map(read).collect()
}

fn read(row: &tokio_postgres::Row) -> Result<Order, StoreError> {
    let songs = serde_json::from_value(row.get("songs"))
        .map_err(|error| StoreError::Refused(format!("an order does not read: {error}")))?;
    Ok(Order {
        id: row.get("id"),
        package: row.get("package"),
        occasion_date: row.get("occasion_date"),
        payment_reference: row.get("payment_reference"),
        provider: row.get("provider"),
        created_at: time(row.get("created_at")),
        songs,
    })
}

/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away; the same again does no harm.
pub async fn set_occasion(client: &impl GenericClient, order: Uuid, date: &str) -> Result<(), StoreError> {
    let sql = "update orders set occasion_date = $2::text::date, updated_at = now() where id = $1";
    client.execute(sql, &[&order, &date]).await?;
    Ok(())
}

/// Notes what an order was paid with, once: answers whose it is and the reference that counts; `None` without such an order.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away; the same again does no harm.
pub async fn pay(
    client: &impl GenericClient,
    order: Uuid,
    reference: &str,
) -> Result<Option<(UserId, String)>, StoreError> {
    let sql = "update orders set payment_reference = coalesce(payment_reference, $2), updated_at = now()
                where id = $1 returning user_id, payment_reference";
    let row = client.query_opt(sql, &[&order, &reference]).await?;
    Ok(row.map(|row| (UserId::trusted(row.get(0)), row.get(1))))
}
