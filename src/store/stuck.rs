//! Songs under way that should have moved by now: beyond the time that their own state names, and beyond some slack
//! (OPS-2). What waits for a reason that its owner sees is not stuck.
//!
//! Not here: what is done about them (`song::sweeper`).

use std::time::Duration;

use deadpool_postgres::GenericClient;
use serde_json::{Value, json};
use uuid::Uuid;

use super::journal::Owner;
use super::nodes::owns;
use super::{StoreError, time};
use crate::id::{SongId, TaskId};
use crate::time::Time;

/// When each call should have moved at the latest, as `song::due` has it. `$2` is the slack, `$3` the deadline, `$4`
/// the longest wait, all in seconds; `$1` whose songs, or null.
///
/// Whoever waits for their own other songs to end needs to have some.
pub(super) const STUCK: &str = concat!(
    "
select t.song_id, t.id as task_id, s.user_id, s.status::text as status, t.kind, t.provider, t.owner, t.epoch,
       t.activations, t.updated_at, t.run ->> 'waiting' as waiting, n.id is not null as owned, late.state,
       late.at as should_have_moved_at
  from tasks t
  join songs s on s.id = t.song_id
  left join nodes n on ",
    owns!(),
    " and n.left_at is null and n.lease_until > now()
 cross join lateral (
       select due.state, to_timestamp(due.at / 1000.0) as at
         from jsonb_array_elements(t.run -> 'calls') as c
        cross join lateral (values
              ('intent', (c #>> '{state,intent,settled_by}')::bigint),
              ('unknown', (c #>> '{state,unknown,until}')::bigint),
              ('submitted', (c #>> '{state,submitted,since}')::bigint + ($3::float8 * 1000)::bigint),
              ('accepted', case
                   when t.run ->> 'limited_since' is not null
                       then greatest((c #>> '{state,accepted,from}')::bigint,
                                     (t.run ->> 'limited_since')::bigint + ($4::float8 * 1000)::bigint)
                   when t.run ->> 'waiting' = 'concurrency' and exists (
                            select from songs o where o.user_id = s.user_id and o.id <> s.id
                               and o.rank = 4 and o.deleted_at is null) then null
                   else (c #>> '{state,accepted,from}')::bigint end)
              ) as due (state, at)
        where due.at is not null
        order by due.at limit 1) late
 where t.ended_at is null and s.user_id = coalesce($1::text, s.user_id)
   and t.created_at < now() - make_interval(secs => $2::float8)
   and late.at < now() - make_interval(secs => $2::float8)"
);

/// By when songs should have moved.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Beyond the time that the state names.
    pub slack: Duration,
    pub deadline: Duration,
    pub max_wait: Duration,
}

/// A song that should have moved.
#[derive(Clone, Debug)]
pub struct Stuck {
    pub song: SongId,
    pub task: TaskId,
    pub user: String,
    pub status: String,
    pub kind: String,
    pub provider: String,
    pub owner: Option<Owner>,
    /// Whether its owner lives.
    pub owned: bool,
    pub activations: i16,
    pub state: String,
    pub waiting: Option<String>,
    pub since: Time,
    pub last_seen_to_move: Time,
}

impl Stuck {
    /// What should have happened, for operators.
    pub fn why(&self) -> &'static str {
        match self.state.as_str() {
            _ if !self.owned => "nobody looks after it",
            "intent" => "what became of its submission was never recorded",
            "unknown" => "its submission went unanswered, and the grace time is over",
            "submitted" => "its deadline is over",
            _ => "it waits to be submitted, and nothing keeps it",
        }
    }

    pub fn as_json(&self) -> Value {
        json!({
            "song_id": self.song, "task_id": self.task, "user": self.user, "status": self.status, "kind": self.kind,
            "provider": self.provider, "state": self.state, "waiting_for": self.waiting, "why": self.why(),
            "should_have_moved_at": self.since.rfc3339(), "last_moved_at": self.last_seen_to_move.rfc3339(),
            "activations": self.activations, "node": self.owner.map(|owner| owner.node), "owned": self.owned,
        })
    }
}

/// The longest stuck first, of all nodes; with how many there are.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn list(
    client: &impl GenericClient,
    patience: Patience,
    limit: i64,
) -> Result<(i64, Vec<Stuck>), StoreError> {
    let sql = format!(
        "with stuck as ({STUCK}) select *, count(*) over () as many from stuck order by should_have_moved_at limit $5"
    );
    let (slack, deadline) = (patience.slack.as_secs_f64(), patience.deadline.as_secs_f64());
    let max_wait = patience.max_wait.as_secs_f64();
    let rows = client.query(&sql, &[&None::<&str>, &slack, &deadline, &max_wait, &limit]).await?;
    let many = rows.first().map_or(0, |row| row.get("many"));
    let read = |row: &tokio_postgres::Row| Stuck {
        song: SongId(row.get("song_id")),
        task: TaskId(row.get("task_id")),
        user: row.get("user_id"),
        status: row.get("status"),
        kind: row.get("kind"),
        provider: row.get("provider"),
        owner: row.get::<_, Option<Uuid>>("owner").zip(row.get("epoch")).map(|(node, epoch)| Owner {
            node,
            epoch,
            activations: row.get("activations"),
        }),
        owned: row.get("owned"),
        activations: row.get("activations"),
        state: row.get("state"),
        waiting: row.get("waiting"),
        since: time(row.get("should_have_moved_at")),
        last_seen_to_move: time(row.get("updated_at")),
    };
    Ok((many, rows.iter().map(read).collect()))
}
