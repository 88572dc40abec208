//! Creating songs: what `create_songs` (`migrations/V8`) takes and answers, for many songs in one statement of the
//! journal's transaction.
//!
//! Not here: when it is sent and what becomes of a broken connection (`store::journal`).

use std::sync::Arc;

use tokio_postgres::types::Json;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::journal::NodeKey;
use super::row::NewSong;
use super::{StoreError, timestamp};
use crate::credit::Credits;
use crate::credit::plan::{Plan, Plans, Standing};
use crate::id::SongId;
use crate::time::Time;

pub(super) const CREATE: &str = "
with fence as materialized (select 1 from nodes where id = $1 and epoch = $2 for key share)
select r.ord, r.outcome, r.song_id, r.u, r.available, r.on_plan, r.left_now, r.used, r.previews,
       ceil(extract(epoch from r.next_at) * 1000)::bigint as next_at,
       ceil(extract(epoch from r.full_at) * 1000)::bigint as full_at,
       (extract(epoch from now()) * 1000)::bigint as at
  from fence
 cross join lateral create_songs($1, $2, $3, $4::text[], $5::uuid[], $6::text[], $7::bytea[], $8::text[], $9::jsonb[],
        $10::jsonb[], $11::text[], $12::text[], $13::timestamptz[], $14::uuid[], $15::text[], $16::text[],
        $17::bigint[], $18::jsonb[], $19::jsonb[], $20::json[], $21::text[], $22::bigint[], $23::boolean[]) r";

/// On what terms somebody may create.
#[derive(Clone, Debug)]
pub struct Terms {
    pub plans: Arc<Plans>,
    /// The token's; else the profile's counts.
    pub plan: Option<Plan>,
    /// What a user seen for the first time is given.
    pub grant: Credits,
    /// With as many songs under way as the plan allows: refuse, rather than let the song wait.
    pub refuse_when_busy: bool,
}

/// What became of a creation. Unless it is `Created`, nothing was written and nothing counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    Created {
        song: SongId,
    },
    /// The key was used before for this song (CRED-5), or the same was asked for a moment ago (PROV-13).
    Replay {
        song: SongId,
    },
    /// The key was used before, for something else.
    KeyMismatch,
    /// The key's song was deleted.
    KeyGone,
    Short {
        required: Credits,
        available: Credits,
    },
    TooFast,
    DayUsedUp,
    PreviewsUsedUp,
    TooManyAtOnce,
}

pub(super) async fn create(
    client: &Client,
    statement: &Statement,
    new: &[(usize, &NewSong)],
    node: NodeKey,
) -> Result<Vec<Row>, StoreError> {
    let Some((_, first)) = new.first() else { return Ok(Vec::new()) };
    // One configuration for the whole node.
    let plans = first.terms.plans.as_json();
    let rows = || new.iter().map(|(_, row)| *row);
    let users: Vec<&str> = rows().map(|n| n.song.user.as_str()).collect();
    let songs: Vec<Uuid> = rows().map(|n| n.song.id.0).collect();
    let keys: Vec<Option<&str>> = rows().map(|n| n.idempotency_key.as_deref()).collect();
    let hashes: Vec<&[u8]> = rows().map(|n| &n.content_hash[..]).collect();
    let modes: Vec<&str> = rows().map(|n| n.song.wish.mode.as_str()).collect();
    let wishes: Vec<_> = rows().map(|n| Json(&*n.song.wish)).collect();
    let metadata: Vec<_> = rows().map(|n| Json(&*n.song.metadata)).collect();
    let titles: Vec<Option<&str>> = rows().map(|n| n.song.title.as_deref()).collect();
    let lyrics: Vec<Option<&str>> = rows().map(|n| n.song.lyrics.as_deref()).collect();
    let times: Vec<_> = rows().map(|n| timestamp(n.song.created_at.millis())).collect();
    let tasks: Vec<Uuid> = rows().map(|n| n.song.head.task.0).collect();
    let kinds: Vec<&str> = rows().map(|n| n.song.head.kind.as_str()).collect();
    let providers: Vec<&str> = rows().map(|n| n.song.head.provider.as_str()).collect();
    let prices: Vec<i64> = rows().map(|n| n.song.head.price.thousandths()).collect();
    let runs: Vec<_> = rows().map(|n| n.song.phase.run().map(Json)).collect();
    let progress: Vec<_> =
        rows().map(|n| Json(n.song.progress(n.song.head.kind).cloned().unwrap_or_default())).collect();
    let sets: Vec<_> = rows().map(|n| Json(&n.set)).collect();
    let named: Vec<Option<&str>> = rows().map(|n| n.terms.plan.map(Plan::as_str)).collect();
    let grants: Vec<i64> = rows().map(|n| n.terms.grant.thousandths()).collect();
    let refuse: Vec<bool> = rows().map(|n| n.terms.refuse_when_busy).collect();
    Ok(client
        .query(
            statement,
            &[
                &node.id,
                &node.epoch,
                &plans,
                &users,
                &songs,
                &keys,
                &hashes,
                &modes,
                &wishes,
                &metadata,
                &titles,
                &lyrics,
                &times,
                &tasks,
                &kinds,
                &providers,
                &prices,
                &runs,
                &progress,
                &sets,
                &named,
                &grants,
                &refuse,
            ],
        )
        .await?)
}

/// One row of the answer, about this song.
pub(super) fn read(row: &Row, new: &NewSong) -> (Birth, Standing) {
    let song = || SongId(row.get("song_id"));
    let birth = match row.get::<_, &str>("outcome") {
        "created" => Birth::Created { song: song() },
        "replay" => Birth::Replay { song: song() },
        "mismatch" => Birth::KeyMismatch,
        "gone" => Birth::KeyGone,
        "too_fast" => Birth::TooFast,
        "day_used_up" => Birth::DayUsedUp,
        "previews_used_up" => Birth::PreviewsUsedUp,
        "too_many" => Birth::TooManyAtOnce,
        _ => Birth::Short {
            required: new.song.head.price,
            available: Credits::from_thousandths(row.get("available")),
        },
    };
    let count = |name: &str| u32::try_from(row.get::<_, i32>(name)).unwrap_or(0);
    let standing = Standing {
        plan: Plan::parse(row.get("on_plan")).unwrap_or(Plan::Free),
        left: count("left_now"),
        next_at: Time::from_millis(row.get("next_at")),
        full_at: Time::from_millis(row.get("full_at")),
        used_today: count("used"),
        previews_today: count("previews"),
    };
    (birth, standing)
}
