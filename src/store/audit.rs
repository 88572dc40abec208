//! What must hold in the database whatever happened (`durability.md` section 6), as questions that find whatever
//! breaks it. Operators ask them with `songflight doctor --audit`, the tests after every crash and outage.
//!
//! Not here: sums of the ledger as figures (`store::ledger`), what is done about a finding.

use tokio_postgres::GenericClient;

use super::StoreError;
use super::ledger::SLOTS;
use super::nodes::owns;
use super::stuck::{Patience, STUCK};

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: &'static str,
    pub many: i64,
    /// Some of what breaks it, in words and ids.
    pub examples: Vec<String>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Only this user's rows, where a rule is about users at all.
    pub user: Option<&'a str>,
    pub patience: Patience,
    /// Examples of each finding.
    pub examples: i64,
}

/// Each answers what must not be there, in words. `$1` is a user, or null for all; `$2` to `$4` are as in
/// `store::stuck`. `slots` holds every task's reservations and settlements.
const RULES: [(&str, &str); 23] = [
    (
        "a balance is the sum of its entries",
        "select format('%s has %s, the entries say %s', p.user_id, p.credits, coalesce(sum(c.amount), 0))
           from profiles p left join credit_entries c using (user_id)
          where p.user_id = coalesce($1, p.user_id)
          group by p.user_id, p.credits having p.credits <> coalesce(sum(c.amount), 0)",
    ),
    (
        "every entry's balance is the sum up to it",
        "select format('entry %s of %s says %s, not %s', id, user_id, balance, total)
           from (select *, sum(amount) over (partition by user_id order by id) as total from credit_entries
                  where user_id = coalesce($1, user_id)) c
          where balance <> total",
    ),
    (
        "a paid task that ended has one reservation and one settling entry",
        "select format('task %s of song %s: %s reservations, %s settlements', t.id, t.song_id,
                       coalesce(c.reserved, 0), coalesce(c.settled, 0))
           from tasks t join songs s on s.id = t.song_id left join slots c on c.task_id = t.id
          where t.price > 0 and t.ended_at is not null
            and (coalesce(c.reserved, 0), coalesce(c.settled, 0)) <> (1, 1) and s.user_id = coalesce($1, s.user_id)",
    ),
    (
        "a paid task under way is reserved and not settled",
        "select format('task %s of song %s: %s reservations, %s settlements', t.id, t.song_id,
                       coalesce(c.reserved, 0), coalesce(c.settled, 0))
           from tasks t join songs s on s.id = t.song_id left join slots c on c.task_id = t.id
          where t.price > 0 and t.ended_at is null
            and (coalesce(c.reserved, 0), coalesce(c.settled, 0)) <> (1, 0) and s.user_id = coalesce($1, s.user_id)",
    ),
    (
        "money is reserved for tasks that exist",
        "select format('task %s: %s reservations, %s settlements, and no such task', c.task_id, c.reserved, c.settled)
           from slots c left join tasks t on t.id = c.task_id
          where t.id is null and c.reserved <> c.settled and $1 is null",
    ),
    (
        "of a task its price is reserved, and what comes back goes to who paid and is no more than that",
        "select format('task %s of price %s: %s, of %s', c.task_id, t.price, array_agg(c.reason || ' ' || c.amount),
                       array_agg(distinct c.user_id))
           from credit_entries c left join tasks t on t.id = c.task_id
          where c.task_id is not null
            and ($1 is null or c.task_id in (select task_id from credit_entries where user_id = $1))
          group by c.task_id, t.price
         having sum(c.amount) > 0 or count(distinct c.user_id) > 1
             or (t.price > 0 and -sum(c.amount) filter (where c.reason = 'reserve') is distinct from t.price)",
    ),
    (
        "a song's costs and refunds are its entries",
        "select format('song %s: cost %s, refunded %s; entries %s, %s', s.id, s.cost, s.refunded,
                       coalesce(c.out, 0), coalesce(c.back, 0))
           from songs s
           left join (select song_id, coalesce(-sum(amount) filter (where reason = 'reserve'), 0) as out,
                             coalesce(sum(amount) filter (where reason <> 'reserve'), 0) as back
                        from credit_entries where song_id is not null group by song_id) c on c.song_id = s.id
          where (s.cost, s.refunded) <> (coalesce(c.out, 0), coalesce(c.back, 0)) and s.user_id = coalesce($1, s.user_id)",
    ),
    (
        // Of a song older than the oldest day that is kept, the first ones are gone; a node's clock may be a little off.
        "a song's events are numbered without a hole up to where it is",
        "select format('song %s: %s events, %s to %s, the song is at %s', s.id, e.n, e.low, e.high, h.seq)
           from songs s
           join tasks h on h.song_id = s.id and not h.beside
            and h.number = (select max(number) from tasks where song_id = s.id and not beside)
           left join (select song_id, count(*) as n, count(distinct seq) as different, min(seq) as low, max(seq) as high
                        from song_events group by song_id) e on e.song_id = s.id
          where s.user_id = coalesce($1, s.user_id)
            and case when e.n is null then s.created_at >= (select min(at) + interval '5 minutes' from song_events)
                     else e.n <> e.different or e.n <> e.high - e.low + 1 or e.high <> h.seq
                          or (e.low <> 1 and s.created_at >= (select min(at) + interval '5 minutes' from song_events)) end",
    ),
    (
        "a user's events are numbered without a hole up to where they are",
        "select format('%s: %s events, %s to %s, the user is at %s', p.user_id, e.n, e.low, e.high, p.u)
           from profiles p
           left join (select user_id, count(*) as n, count(distinct u) as different, min(u) as low, max(u) as high
                        from song_events group by user_id) e using (user_id)
          where p.user_id = coalesce($1, p.user_id)
            and case when e.n is null then p.u > 0 and p.created_at >= (select min(at) + interval '5 minutes' from song_events)
                     else e.n <> e.different or e.n <> e.high - e.low + 1 or e.high <> p.u
                          or (e.low <> 1 and p.created_at >= (select min(at) + interval '5 minutes' from song_events)) end",
    ),
    (
        // Once constraints of the tables, which every small commit paid for (V15).
        "values are those that there are",
        "select format('user %s: plan %s, used %s and %s today', user_id, plan, used_today, previews_today)
           from profiles
          where user_id = coalesce($1, user_id)
            and (length(user_id) not between 1 and 128 or plan not in ('guest', 'free', 'pro', 'premium')
                 or used_today < 0 or previews_today < 0)
          union all
         select format('song %s: mode %s', id, mode) from songs
          where user_id = coalesce($1, user_id) and mode not in ('lyrics_first', 'music')
          union all
         select format('task %s of song %s: price %s', t.id, t.song_id, t.price)
           from tasks t join songs s on s.id = t.song_id
          where s.user_id = coalesce($1, s.user_id) and t.price < 0
          union all
         select format('song %s: variant %s', v.song_id, v.variant_number)
           from song_variants v join songs s on s.id = v.song_id
          where s.user_id = coalesce($1, s.user_id) and v.variant_number not between 1 and 5",
    ),
    (
        "a song that is not under way has no running task",
        "select format('song %s is %s and its task %s runs', s.id, s.status, t.id)
           from songs s join tasks t on t.song_id = s.id and t.ended_at is null
          where (s.deleted_at is not null
                 or (s.status not in ('pending', 'generating_lyrics', 'generating_music') and not t.beside))
            and s.user_id = coalesce($1, s.user_id)",
    ),
    (
        "a song under way has one running task",
        "select format('song %s is %s and has %s running tasks', s.id, s.status, count(t.id))
           from songs s left join tasks t on t.song_id = s.id and t.ended_at is null
          where s.status in ('pending', 'generating_lyrics', 'generating_music') and s.deleted_at is null
            and s.user_id = coalesce($1, s.user_id)
          group by s.id having count(t.id) <> 1",
    ),
    (
        "a song under way moves in time, or shows what it waits for",
        "select format('song %s is %s; its task %s should have moved %s ago from %s', k.song_id, k.status, k.task_id,
                       date_trunc('second', now() - k.should_have_moved_at), k.state) from stuck k",
    ),
    (
        "while a node lives, every running task has an owner that lives",
        concat!(
            "select format('task %s of song %s is of node %s, epoch %s', t.id, t.song_id, t.owner, t.epoch)
           from tasks t join songs s on s.id = t.song_id left join nodes n on n.id = t.owner
          where t.ended_at is null and s.user_id = coalesce($1, s.user_id)
            and t.updated_at < now() - make_interval(secs => $2)
            and (n.id is null or (n.left_at is null and (",
            owns!(),
            ") is not true)
                 or coalesce(n.left_at, n.lease_until) < now() - make_interval(secs => $2))
            and exists (select from nodes where left_at is null and lease_until > now()
                           and started_at < now() - make_interval(secs => $2))"
        ),
    ),
    (
        "what a provider calls its task belongs to a task of ours",
        "select format('%s calls %s what is task %s here, and there is none', r.provider, r.provider_task, r.task_id)
           from provider_refs r left join tasks t on t.id = r.task_id where t.id is null and $1 is null",
    ),
    (
        // The journal writes these without asking the database each time.
        "what belongs to a song or to a person has one",
        "select format('task %s: no song %s', t.id, t.song_id)
           from tasks t left join songs s on s.id = t.song_id where s.id is null and $1 is null
          union all
         select format('song %s: nobody is %s', s.id, s.user_id)
           from songs s left join profiles p using (user_id) where p.user_id is null and $1 is null
          union all
         select format('variant %s: no song %s', v.variant_number, v.song_id)
           from song_variants v left join songs s on s.id = v.song_id where s.id is null and $1 is null
          union all
         select format('%s of %s: no song %s', n.kind, n.user_id, n.song_id)
           from notifications n left join songs s on s.id = n.song_id where s.id is null and n.user_id = coalesce($1, n.user_id)
          union all
         select format('entry %s: nobody is %s', c.id, c.user_id)
           from credit_entries c left join profiles p using (user_id) where p.user_id is null and $1 is null",
    ),
    (
        "what was made beside a song has its end written down",
        "select format('task %s of song %s', t.id, t.song_id) from tasks t join songs s on s.id = t.song_id
          where t.beside and s.user_id = coalesce($1, s.user_id)
            and (t.ended_at is not null) <> coalesce(jsonb_typeof(t.addition -> 'ended') = 'object', false)",
    ),
    (
        "a song that waits for its owner's choice has texts to choose from",
        "select format('song %s', s.id) from songs s
          where s.status = 'lyrics_ready' and s.deleted_at is null and s.user_id = coalesce($1, s.user_id)
            and (select count(*) from lyrics_variants l where l.song_id = s.id) < 2",
    ),
    (
        "a song that is ready can be played",
        "select format('song %s is %s', s.id, s.status) from songs s
          where s.status in ('ready', 'complete') and s.deleted_at is null and s.user_id = coalesce($1, s.user_id)
            and not exists (select from song_variants v
                             where v.song_id = s.id and coalesce(v.audio_url, v.stream_url) is not null)",
    ),
    (
        "a song that failed says why and was refunded",
        "select format('song %s: error %s, task %s', s.id, s.error ->> 'class', t.id)
           from songs s join tasks t on t.song_id = s.id and not t.beside
            and t.number = (select max(number) from tasks where song_id = s.id and not beside)
          where s.status = 'failed' and s.deleted_at is null and s.user_id = coalesce($1, s.user_id)
            and (s.error is null or (t.price > 0 and not exists (
                   select from credit_entries c where c.task_id = t.id and c.reason = 'release' and c.amount = t.price)))",
    ),
    (
        "at most one lyrics text and one clip are chosen",
        "select format('song %s', song_id) from (
            select l.song_id, l.selected from lyrics_variants l) l join songs s on s.id = song_id
          where l.selected and s.user_id = coalesce($1, s.user_id) group by song_id having count(*) > 1
          union all
         select format('song %s', v.song_id) from song_variants v join songs s on s.id = v.song_id
          where v.selected and s.user_id = coalesce($1, s.user_id) group by v.song_id having count(*) > 1",
    ),
    (
        "nobody is told twice of the same",
        "select format('song %s: %s times %s', song_id, count(*), kind) from notifications
          where user_id = coalesce($1, user_id) group by song_id, kind having count(*) > 1",
    ),
    (
        "no row was refused by the database, and no song given up",
        "select format('dead letter %s (%s of song %s): %s', id, kind, song_id, error) from failed_jobs
          where kind not in ('song', 'addition') and resolved_at is null and $1 is null
            -- One that a callback woke after all has come to its end.
            and not (kind = 'given_up' and exists (select from tasks t where t.id = task_id and t.ended_at is not null))",
    ),
];

/// How many rules there are.
pub const RULES_ASKED: usize = RULES.len();

/// Asks all of it, each rule about a moment of its own: whatever a rule compares it compares in one statement. Reads every
/// table that matters: minutes, where there are millions of songs. In one transaction, all tables would be locked against
/// migrations for as long, and what was deleted meanwhile could not be cleaned up. For a connection outside of any.
///
/// # Errors
/// [`StoreError::Refused`] where the schema is not up to date; [`StoreError::Unavailable`] while Postgres is away.
pub async fn audit(client: &impl GenericClient, scope: &Scope<'_>) -> Result<Vec<Finding>, StoreError> {
    if scope.user.is_none() {
        client.batch_execute(WHOLE_TABLES).await?;
    }
    let found = findings(client, scope).await;
    client.batch_execute(AS_BEFORE).await?;
    found
}

/// Everybody's rows are joined as wholes. Without statistics, as soon after many songs were made, the planner takes the
/// tables for small and compares each row with each: minutes for 10,000 songs, in place of a second.
const WHOLE_TABLES: &str = "set enable_nestloop = off; set work_mem = '64MB'; set jit = off";
const AS_BEFORE: &str = "reset enable_nestloop; reset work_mem; reset jit";

async fn findings(client: &impl GenericClient, scope: &Scope<'_>) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    let Patience { slack, deadline, max_wait } = scope.patience;
    let (slack, deadline, max_wait) = (slack.as_secs_f64(), deadline.as_secs_f64(), max_wait.as_secs_f64());
    for (rule, sql) in RULES {
        // Also what is named and not read would be locked.
        let named = [("slots", SLOTS), ("stuck", STUCK)].into_iter().filter(|(name, _)| sql.contains(name));
        let named: String = named.map(|(name, of)| format!("{name} as ({of}), ")).collect();
        let sql = format!(
            "with asked as (select $1::text, $2::float8, $3::float8, $4::float8), {named} found (what) as ({sql})
             select what, count(*) over () as many from found limit $5"
        );
        let rows =
            client.query(&sql, &[&scope.user, &slack, &deadline, &max_wait, &scope.examples.max(1)]).await?;
        if let Some(first) = rows.first() {
            let examples = rows.iter().map(|row| row.get(0)).collect();
            findings.push(Finding { rule, many: first.get(1), examples });
        }
    }
    Ok(findings)
}
