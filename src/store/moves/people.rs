//! What steps mean for people: the numbers of their events, the events, what they get back of what they paid, and what
//! their devices are told.

use std::collections::HashMap;

use tokio_postgres::types::Json;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::{Newest, StoreError};
use crate::store::row::StepRow;
use crate::time::Time;

/// One person after the other, in one order for everybody, or two nodes' commits could wait for each other.
const NUMBER: &str = "
with totals as materialized (
    select * from unnest($1::text[], $2::bigint[]) as t (user_id, events) order by user_id
)
update profiles p set u = p.u + t.events from totals t where p.user_id = t.user_id
returning p.user_id, p.u, (extract(epoch from now()) * 1000)::bigint as at";

/// The same where something is paid back: the ledger's entries with the balance after each (CRED-2).
const SETTLE: &str = "
with settled as materialized (
    -- To whoever reserved it: what a guest paid does not become an account's with the song (CRED-7).
    select coalesce((select c.user_id from credit_entries c
                      where c.task_id = s.task
                        and (case when c.reason = 'reserve' then 'reserve' else 'settle' end) = 'reserve'), s.user_id)
               as user_id, s.song_id, s.task, s.kind, s.reason, s.amount, s.place
      from unnest($3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::bigint[]) with ordinality
        as s (user_id, song_id, task, kind, reason, amount, place)
), totals as materialized (
    select user_id, sum(events)::bigint as events, sum(amount)::bigint as money,
           array_agg(song_id order by place) filter (where task is not null) as songs,
           array_agg(task order by place) filter (where task is not null) as tasks,
           array_agg(kind order by place) filter (where task is not null) as kinds,
           array_agg(reason order by place) filter (where task is not null) as reasons,
           array_agg(amount order by place) filter (where task is not null) as amounts
      from (select user_id, 0::bigint as events, song_id, task, kind, reason, amount, place from settled
            union all
            select user_id, events, null, null, null, null, 0, 0
              from unnest($1::text[], $2::bigint[]) as t (user_id, events)) as each_one
     group by user_id
     order by user_id
), people as (
    update profiles p set u = p.u + t.events, credits = p.credits + t.money
      from totals t
     where p.user_id = t.user_id
    returning t.*, p.u, p.credits - t.money as credits_before
), ledger as (
    insert into credit_entries (user_id, song_id, task_id, task_kind, amount, reason, balance)
    select people.user_id, s.song_id, s.task, s.kind, s.amount, s.reason,
           people.credits_before + sum(s.amount) over (partition by people.user_id order by s.place)
      from people cross join lateral
           unnest(songs, tasks, kinds, reasons, amounts) with ordinality as s(song_id, task, kind, reason, amount, place)
     order by people.user_id, s.place
)
select user_id, u, (extract(epoch from now()) * 1000)::bigint as at from people";

/// Of a user's newest events, each so many before the last.
const EVENTS: &str = "
insert into song_events (at, song_id, seq, user_id, u, kind, set)
select now(), e.song_id, e.seq, e.user_id, (select p.u from profiles p where p.user_id = e.user_id) - e.back, e.kind, e.set
  from unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::json[])
    as e (song_id, seq, user_id, back, kind, set)";

/// One for each song and kind, however often it is decided (PUSH-2). No `on conflict`, which costs twice as much: only the
/// song's owner decides it.
const NOTICES: &str = "
insert into notifications (song_id, kind, user_id)
select b.song_id, b.kind, b.user_id
  from unnest($1::uuid[], $2::text[], $3::text[]) as b (song_id, kind, user_id)
 where (select true from notifications n where n.song_id = b.song_id and n.kind = b.kind) is null";

pub(super) struct People {
    number: Statement,
    settle: Statement,
    events: Statement,
    notices: Statement,
}

impl People {
    pub(super) async fn prepare(client: &Client) -> Result<Self, StoreError> {
        let (number, settle, events, notices) = tokio::try_join!(
            client.prepare(NUMBER),
            client.prepare(SETTLE),
            client.prepare(EVENTS),
            client.prepare(NOTICES)
        )?;
        Ok(Self { number, settle, events, notices })
    }

    /// Gives each user as many numbers as there are events, and the ledger what is paid back.
    pub(super) async fn number(&self, client: &Client, steps: &[&StepRow]) -> Result<Newest, StoreError> {
        let mut many: HashMap<&str, i64> = HashMap::new();
        for row in steps.iter().filter(|row| row.event.is_some()) {
            *many.entry(row.user.as_str()).or_default() += 1;
        }
        let (users, events): (Vec<&str>, Vec<i64>) = many.into_iter().unzip();
        let settled = || steps.iter().flat_map(|row| row.settle.iter().map(move |settle| (row, settle)));
        let people = if settled().next().is_some() {
            let payers: Vec<&str> = settled().map(|(row, _)| row.user.as_str()).collect();
            let songs: Vec<Uuid> = settled().map(|(row, _)| row.song.0).collect();
            let tasks: Vec<Uuid> = settled().map(|(_, settle)| settle.task.0).collect();
            let kinds: Vec<&str> = settled().map(|(_, settle)| settle.kind).collect();
            let reasons: Vec<&str> = settled().map(|(_, settle)| settle.reason).collect();
            let amounts: Vec<i64> = settled().map(|(_, settle)| settle.amount.thousandths()).collect();
            client
                .query(&self.settle, &[&users, &events, &payers, &songs, &tasks, &kinds, &reasons, &amounts])
                .await?
        } else if users.is_empty() {
            Vec::new()
        } else {
            client.query(&self.number, &[&users, &events]).await?
        };
        Ok(people.iter().map(|row| (row.get(0), (row.get(1), Time::from_millis(row.get(2))))).collect())
    }

    /// `back`: how many events of its user come after each step's.
    pub(super) async fn events(
        &self,
        client: &Client,
        steps: &[&StepRow],
        back: &[i64],
    ) -> Result<(), StoreError> {
        let events = || {
            let told = steps.iter().zip(back);
            told.filter_map(|(row, back)| row.event.as_ref().map(|(kind, set)| (row, back, kind, set)))
        };
        if events().next().is_none() {
            return Ok(());
        }
        let songs: Vec<Uuid> = events().map(|(row, ..)| row.song.0).collect();
        let seqs: Vec<i64> = events().map(|(row, ..)| row.seq).collect();
        let users: Vec<&str> = events().map(|(row, ..)| row.user.as_str()).collect();
        let backs: Vec<i64> = events().map(|(_, back, ..)| *back).collect();
        let kinds: Vec<&str> = events().map(|(_, _, kind, _)| kind.as_str()).collect();
        let sets: Vec<_> = events().map(|(.., set)| Json(set)).collect();
        client.execute(&self.events, &[&songs, &seqs, &users, &backs, &kinds, &sets]).await?;
        Ok(())
    }

    pub(super) async fn notices(&self, client: &Client, steps: &[&StepRow]) -> Result<(), StoreError> {
        let notices = || steps.iter().filter_map(|row| row.notify.map(|kind| (row, kind)));
        if notices().next().is_none() {
            return Ok(());
        }
        let songs: Vec<Uuid> = notices().map(|(row, _)| row.song.0).collect();
        let kinds: Vec<&str> = notices().map(|(_, kind)| kind).collect();
        let users: Vec<&str> = notices().map(|(row, _)| row.user.as_str()).collect();
        client.execute(&self.notices, &[&songs, &kinds, &users]).await?;
        Ok(())
    }
}
