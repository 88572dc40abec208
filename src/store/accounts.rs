//! Accounts: what a user has and has used, their ledger page by page, and what operators change of it.
//!
//! Not here: charging and giving back, which is the journal's; whether the books are right (`store::ledger`).

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{StoreError, time};
use crate::credit::Credits;
use crate::credit::plan::Plan;
use crate::id::UserId;
use crate::time::Time;

/// A user's money and what of it is at work.
#[derive(Clone, Debug)]
pub struct Account {
    pub plan: Plan,
    pub credits: Credits,
    /// Reserved less given back since 00:00 UTC.
    pub spent_today: Credits,
    pub songs_today: u32,
    pub previews_today: u32,
    pub in_flight: i64,
    pub created_at: Time,
    /// What the providers took for this user's songs, in thousandths of a US dollar: all, and of that for previews.
    pub provider_cost: Option<(i64, i64)>,
}

/// `None` for a user who never created anything. `costs`: whether the providers' costs are summed up, too.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn account(
    client: &impl GenericClient,
    user: &UserId,
    now: Time,
    costs: bool,
) -> Result<Option<Account>, StoreError> {
    let statement = client
        .prepare_cached(
            "select p.plan, p.credits, p.created_at,
                    -- Of what came back only what was paid today as well.
                    (select coalesce(-sum(c.amount), 0)::bigint from credit_entries c
                      where c.user_id = p.user_id and c.id > today.after
                        and (c.reason = 'reserve' or c.reason <> 'grant' and exists (
                                select from credit_entries r
                                 where r.task_id = c.task_id
                                   and (case when r.reason = 'reserve' then 'reserve' else 'settle' end) = 'reserve'
                                   and r.id > today.after))) as spent_today,
                    case when p.day >= ($2 at time zone 'utc')::date then p.used_today else 0 end as songs_today,
                    case when p.day >= ($2 at time zone 'utc')::date then p.previews_today else 0 end
                        as previews_today,
                    (select count(*) from songs s where s.user_id = p.user_id and s.deleted_at is null
                        and s.rank = 4) as in_flight,
                    c.of_all, c.of_previews
               from profiles p
              -- Back from the newest to the last of yesterday: there may be very many before that.
              cross join lateral (select coalesce((
                        select e.id from credit_entries e
                         where e.user_id = p.user_id
                           and e.at < date_trunc('day', $2 at time zone 'utc') at time zone 'utc'
                         order by e.id desc limit 1), 0) as after) today
               left join lateral (select coalesce(sum(cost_usd_milli), 0)::bigint as of_all,
                        coalesce(sum(cost_usd_milli) filter (where preview), 0)::bigint as of_previews
                   from provider_costs c where c.user_id = p.user_id) c on $3
              where p.user_id = $1",
        )
        .await?;
    let at = super::timestamp(now.millis());
    let row = client.query_opt(&statement, &[&user.as_str(), &at, &costs]).await?;
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    Ok(row.map(|row| Account {
        plan: Plan::parse(row.get("plan")).unwrap_or(Plan::Free),
        credits: Credits::from_thousandths(row.get("credits")),
        spent_today: Credits::from_thousandths(row.get("spent_today")),
        songs_today: count(row.get("songs_today")),
        previews_today: count(row.get("previews_today")),
        in_flight: row.get("in_flight"),
        created_at: time(row.get("created_at")),
        provider_cost: row.get::<_, Option<i64>>("of_all").zip(row.get("of_previews")),
    }))
}

/// One movement of money.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    pub id: i64,
    pub at: Time,
    pub amount: Credits,
    pub reason: String,
    pub task: Option<String>,
    pub song: Option<Uuid>,
    pub balance: Credits,
    /// Of what an operator gave or took.
    pub note: Option<String>,
    pub granted_by: Option<String>,
}

/// A user's movements before this one, newest first.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn entries(
    client: &impl GenericClient,
    user: &UserId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let statement = client
        .prepare_cached(
            "select id, at, amount, reason, task_kind, song_id, balance, note, granted_by from credit_entries
              where user_id = $1 and id < $2 order by id desc limit $3",
        )
        .await?;
    let rows = client.query(&statement, &[&user.as_str(), &before.unwrap_or(i64::MAX), &limit]).await?;
    Ok(rows
        .iter()
        .map(|row| LedgerEntry {
            id: row.get("id"),
            at: time(row.get("at")),
            amount: Credits::from_thousandths(row.get("amount")),
            reason: row.get("reason"),
            task: row.get("task_kind"),
            song: row.get("song_id"),
            balance: Credits::from_thousandths(row.get("balance")),
            note: row.get("note"),
            granted_by: row.get("granted_by"),
        })
        .collect())
}

/// What an operator gives or takes.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    pub user: &'a UserId,
    /// Negative to take.
    pub amount: Credits,
    pub note: Option<&'a str>,
    /// Who gives.
    pub by: &'a str,
    /// The same key gives once.
    pub key: &'a str,
    /// What a user starts with who was not seen before.
    pub start: Credits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    Done {
        balance: Credits,
    },
    Replay {
        balance: Credits,
    },
    /// The key was used for another amount.
    KeyMismatch,
    /// It would be less than nothing.
    Short {
        available: Credits,
    },
}

/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away; then the same again, with the same key.
pub async fn grant(client: &impl GenericClient, grant: &Grant<'_>) -> Result<Granted, StoreError> {
    let row = client
        .query_one(
            "select outcome, available from grant_credits($1, $2, $3, $4, $5, $6)",
            &[
                &grant.user.as_str(),
                &grant.start.thousandths(),
                &grant.amount.thousandths(),
                &grant.note,
                &grant.by,
                &grant.key,
            ],
        )
        .await?;
    let balance = Credits::from_thousandths(row.get("available"));
    Ok(match row.get("outcome") {
        "granted" => Granted::Done { balance },
        "replay" => Granted::Replay { balance },
        "mismatch" => Granted::KeyMismatch,
        _ => Granted::Short { available: balance },
    })
}

/// Sets a user's plan; one not seen before gets a profile, as by the first song.
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away; the same again does no harm.
pub async fn set_plan(
    client: &impl GenericClient,
    user: &UserId,
    plan: Plan,
    start: Credits,
) -> Result<(), StoreError> {
    let sql = "
        with entered as (
            insert into profiles (user_id, credits, plan) values ($1, $3, $2)
            on conflict (user_id) do update set plan = excluded.plan
            returning xmax = 0 as is_new),
        begun as (
            insert into credit_entries (user_id, amount, reason, balance)
            select $1, $3, 'grant', $3 from entered where is_new and $3 > 0)
        select 1 from entered";
    client.query_one(sql, &[&user.as_str(), &plan.as_str(), &start.thousandths()]).await?;
    Ok(())
}

/// Notes what a call to each provider costs from now on, where that changed (CRED-6).
///
/// # Errors
/// [`StoreError::Unavailable`] while Postgres is away.
pub async fn note_prices(
    client: &impl GenericClient,
    prices: &[(&'static str, u32)],
) -> Result<(), StoreError> {
    let names: Vec<&str> = prices.iter().map(|(name, _)| *name).collect();
    let costs: Vec<i32> = prices.iter().map(|(_, cost)| i32::try_from(*cost).unwrap_or(i32::MAX)).collect();
    let sql = "
        insert into provider_prices (provider, since, cost_usd_milli)
        select b.name, now(), b.cost from unnest($1::text[], $2::integer[]) as b (name, cost)
         where b.cost is distinct from (select p.cost_usd_milli from provider_prices p
                                         where p.provider = b.name order by p.since desc limit 1)
        on conflict do nothing";
    client.execute(sql, &[&names, &costs]).await?;
    Ok(())
}
