//! Whether the books are right (CRED-2, `durability.md` section 6): what must hold at every moment, as one question.
//! Operators ask it over HTTP, from the command line, and by `songflight doctor`.

use serde_json::{Value, json};
use tokio_postgres::GenericClient;

use super::StoreError;

/// Every task's reservations and settlements.
pub(super) const SLOTS: &str = "
    select task_id, count(*) filter (where reason = 'reserve') as reserved,
           count(*) filter (where reason in ('capture', 'release')) as settled
      from credit_entries where task_id is not null group by task_id";

/// One statement, so that all of it is about one moment. Lists hold at most 20 of what is wrong.
/// Begins after `slots`.
const BOOKS: &str = "
unbalanced as (
    select p.user_id, p.credits, coalesce(c.total, 0)::bigint as entries
      from profiles p
      left join (select user_id, sum(amount) as total from credit_entries group by user_id) c using (user_id)
     where p.credits <> coalesce(c.total, 0)),
unsettled as (
    select t.id from tasks t left join slots s on s.task_id = t.id
     where t.price > 0 and t.ended_at is not null
       and (coalesce(s.reserved, 0), coalesce(s.settled, 0)) <> (1, 1)),
adrift as (
    select coalesce(t.id, s.task_id) as id from slots s full join tasks t on t.id = s.task_id
     where (t.id is null and s.reserved <> s.settled)
        or (t.ended_at is null and t.price > 0 and (coalesce(s.reserved, 0), coalesce(s.settled, 0)) <> (1, 0)))
select (select count(*) from profiles) as users, (select count(*) from credit_entries) as entries,
       (select coalesce(sum(credits), 0)::bigint from profiles) as credits,
       (select count(*) from slots where reserved > settled) as open_reservations,
       (select count(*) from tasks where ended_at is null and price > 0) as paid_in_flight,
       (select count(*) from tasks where ended_at is null) as in_flight,
       (select count(*) from failed_jobs where resolved_at is null) as dead_letters,
       (select count(*) from unbalanced) as unbalanced, (select count(*) from unsettled) as unsettled,
       (select count(*) from adrift) as adrift,
       array(select user_id from unbalanced limit 20) as unbalanced_users,
       array(select id::text from unsettled limit 20) as unsettled_tasks,
       array(select id::text from adrift limit 20) as adrift_tasks";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    pub users: i64,
    pub entries: i64,
    /// What all users together can spend, in thousandths.
    pub credits: i64,
    /// Reserved and not settled; as many as there are paid tasks under way.
    pub open_reservations: i64,
    pub paid_in_flight: i64,
    pub in_flight: i64,
    pub dead_letters: i64,
    /// Users whose balance is not the sum of their entries.
    pub unbalanced: i64,
    /// Ended tasks without exactly one reservation and one settlement.
    pub unsettled: i64,
    /// Reservations without their task under way, and the other way round.
    pub adrift: i64,
    pub unbalanced_users: Vec<String>,
    pub unsettled_tasks: Vec<String>,
    pub adrift_tasks: Vec<String>,
}

impl Books {
    pub fn are_right(&self) -> bool {
        self.unbalanced == 0
            && self.unsettled == 0
            && self.adrift == 0
            && self.open_reservations == self.paid_in_flight
    }

    pub fn as_json(&self) -> Value {
        json!({
            "right": self.are_right(),
            "users": self.users,
            "entries": self.entries,
            "credits": crate::credit::Credits::from_thousandths(self.credits).as_json(),
            "open_reservations": self.open_reservations,
            "tasks_in_flight": self.paid_in_flight,
            "unbalanced": {"count": self.unbalanced, "users": self.unbalanced_users},
            "unsettled": {"count": self.unsettled, "tasks": self.unsettled_tasks},
            "adrift": {"count": self.adrift, "tasks": self.adrift_tasks},
        })
    }
}

/// Reads all of the ledger: seconds, where it is long.
///
/// # Errors
/// [`StoreError::Refused`] where the schema is not up to date; [`StoreError::Unavailable`] while Postgres is away.
pub async fn books(client: &impl GenericClient) -> Result<Books, StoreError> {
    let row = client.query_one(&format!("with slots as ({SLOTS}), {BOOKS}"), &[]).await?;
    Ok(Books {
        users: row.get("users"),
        entries: row.get("entries"),
        credits: row.get("credits"),
        open_reservations: row.get("open_reservations"),
        paid_in_flight: row.get("paid_in_flight"),
        in_flight: row.get("in_flight"),
        dead_letters: row.get("dead_letters"),
        unbalanced: row.get("unbalanced"),
        unsettled: row.get("unsettled"),
        adrift: row.get("adrift"),
        unbalanced_users: row.get("unbalanced_users"),
        unsettled_tasks: row.get("unsettled_tasks"),
        adrift_tasks: row.get("adrift_tasks"),
    })
}
