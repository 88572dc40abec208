//! What steps mean for people: the numbers of their events, the events, what they get back of what they paid, and what
//! their devices are told.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::{Moving, Part, settles};
use crate::store::columns::{Columns, column};
use crate::store::row::StepRow;
use crate::time::Time;

/// Who is told of something.
pub(super) struct People<'a> {
    /// How many events each user has, with a place for each user.
    users: Vec<(&'a str, i64)>,
    /// Of each step its user's place, and how many of the user's events come after its own.
    places: Vec<(usize, i64)>,
}

impl<'a> People<'a> {
    pub(super) fn of(steps: &[&'a StepRow]) -> Self {
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut users: Vec<(&str, i64)> = Vec::new();
        let mut places: Vec<(usize, i64)> = Vec::with_capacity(steps.len());
        for row in steps.iter().rev() {
            if row.event.is_none() {
                places.push((0, 0));
                continue;
            }
            let place = *known.entry(row.user.as_str()).or_insert_with(|| {
                users.push((row.user.as_str(), 0));
                users.len() - 1
            });
            places.push((place, users[place].1));
            users[place].1 += 1;
        }
        places.reverse();
        Self { users, places }
    }

    /// The number of each step's event and when it was committed, as [`NUMBERS`] has them.
    pub(super) fn told(&self, steps: &[&StepRow], rows: &[Row]) -> Vec<Option<(i64, Time)>> {
        let mut newest = vec![None; self.users.len()];
        for row in rows.iter().filter(|row| !row.is_empty()) {
            let place = row.get::<_, Option<i64>>("place").and_then(|place| usize::try_from(place - 1).ok());
            if let Some(newest) = place.and_then(|place| newest.get_mut(place)) {
                *newest = Some((row.get::<_, i64>("u"), Time::from_millis(row.get("at"))));
            }
        }
        let told = steps.iter().zip(&self.places).map(|(row, (place, back))| {
            let (u, at) = newest.get(*place).copied().flatten().filter(|_| row.event.is_some())?;
            Some((u - back, at))
        });
        told.collect()
    }
}

/// Gives each user as many numbers as there are events. One person after the other as `totals` has them, for whom there is
/// but one way to be found: in one order for everybody, or two nodes' commits could wait for each other.
pub(super) const NUMBERED: Part = Part {
    sql: "
totals as materialized (
    select * from unnest(?::text[], ?::bigint[]) with ordinality as t (user_id, events, place) order by user_id),
people as (
    update profiles p set u = p.u + t.events
      from checked, totals t
     where p.user_id = t.user_id
    returning t.place, p.u)",
    needed: |moving| !moving.people.users.is_empty() && !settles(moving),
    columns: numbered,
    answer: Some(NUMBERS),
};

fn numbered<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let users = || moving.people.users.iter();
    vec![column!(users(), (user, _) => *user), column!(users(), (_, events) => *events)]
}

/// The same where something ends: with the ledger's entries for what is paid back and the balance after each (CRED-2), and
/// what is told to the user's devices, once for each song and kind however often it is decided (PUSH-2). Nobody but the
/// song's owner decides it, so there is no need for `on conflict`, which costs twice as much.
pub(super) const SETTLED: Part = Part {
    sql: "
settled as materialized (
    -- To whoever reserved it: what a guest paid does not become an account's with the song (CRED-7).
    select coalesce((select c.user_id from credit_entries c
                      where c.task_id = s.task
                        and (case when c.reason = 'reserve' then 'reserve' else 'settle' end) = 'reserve'), s.user_id)
               as user_id, s.song_id, s.task, s.kind, s.reason, s.amount, s.ord
      from unnest(?::text[], ?::uuid[], ?::uuid[], ?::text[], ?::text[], ?::bigint[]) with ordinality
        as s (user_id, song_id, task, kind, reason, amount, ord)),
totals as materialized (
    select user_id, max(events) as events, max(place) as place, coalesce(sum(amount), 0)::bigint as money,
           array_agg(song_id order by ord) filter (where task is not null) as songs,
           array_agg(task order by ord) filter (where task is not null) as tasks,
           array_agg(kind order by ord) filter (where task is not null) as kinds,
           array_agg(reason order by ord) filter (where task is not null) as reasons,
           array_agg(amount order by ord) filter (where task is not null) as amounts
      from (select user_id, 0::bigint as events, null::bigint as place, song_id, task, kind, reason, amount, ord
              from settled
            union all
            select user_id, events, place, null, null, null, null, null, null
              from unnest(?::text[], ?::bigint[]) with ordinality as t (user_id, events, place)) as each_one
     group by user_id
     order by user_id),
people as (
    update profiles p set u = p.u + t.events, credits = p.credits + t.money
      from checked, totals t
     where p.user_id = t.user_id
    returning t.*, p.u, p.credits - t.money as credits_before),
ledger as (
    insert into credit_entries (user_id, song_id, task_id, task_kind, amount, reason, balance)
    select people.user_id, s.song_id, s.task, s.kind, s.amount, s.reason,
           people.credits_before + sum(s.amount) over (partition by people.user_id order by s.ord)
      from people cross join lateral
           unnest(songs, tasks, kinds, reasons, amounts) with ordinality as s(song_id, task, kind, reason, amount, ord)
     order by people.user_id, s.ord),
notices as (
    insert into notifications (song_id, kind, user_id)
    select b.song_id, b.kind, b.user_id
      from unnest(?::uuid[], ?::text[], ?::text[]) as b (song_id, kind, user_id)
     where (select true from notifications n where n.song_id = b.song_id and n.kind = b.kind) is null)",
    needed: settles,
    columns: settled,
    answer: Some(NUMBERS),
};

fn settled<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let rows = || moving.steps.iter().flat_map(|row| row.settle.iter().map(move |settle| (row, settle)));
    let mut columns = vec![
        column!(rows(), (row, _) => row.user.as_str()),
        column!(rows(), (row, _) => row.song.0),
        column!(rows(), (_, settle) => settle.task.0),
        column!(rows(), (_, settle) => settle.kind),
        column!(rows(), (_, settle) => settle.reason),
        column!(rows(), (_, settle) => settle.amount.thousandths()),
    ];
    columns.extend(numbered(moving));
    let notices = || moving.steps.iter().filter_map(|row| row.notify.map(|kind| (row, kind)));
    columns.extend([
        column!(notices(), (row, _) => row.song.0),
        column!(notices(), (_, kind) => kind),
        column!(notices(), (row, _) => row.user.as_str()),
    ]);
    columns
}

/// Events, each so many before its user's newest.
pub(super) const TOLD: Part = Part {
    sql: "
numbers as materialized (
    select array_agg(u order by place) as u from people where place is not null having all_moved(count(*), ?)),
events as (
    insert into song_events (at, song_id, seq, user_id, u, kind, set)
    select now(), e.song_id, e.seq, e.user_id, numbers.u[e.person] - e.back, e.kind, e.set
      from numbers cross join
           unnest(?::uuid[], ?::bigint[], ?::text[], ?::integer[], ?::bigint[], ?::text[], ?::json[])
               as e (song_id, seq, user_id, person, back, kind, set))",
    needed: |moving| !moving.people.users.is_empty() || settles(moving),
    columns: told,
    answer: None,
};

fn told<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let events = || {
        let told = moving.steps.iter().zip(&moving.people.places);
        told.filter_map(|(row, place)| row.event.as_ref().map(|(kind, set)| (row, place, kind, set)))
    };
    vec![
        Box::new(i64::try_from(moving.people.users.len()).unwrap_or(i64::MAX)),
        column!(events(), (row, ..) => row.song.0),
        column!(events(), (row, ..) => row.seq),
        column!(events(), (row, ..) => row.user.as_str()),
        column!(events(), (_, (place, _), ..) => i32::try_from(place + 1).unwrap_or(i32::MAX)),
        column!(events(), (_, (_, back), ..) => *back),
        column!(events(), (_, _, kind, _) => kind.as_str()),
        column!(events(), (.., set) => Json(set)),
    ]
}

/// What the statement answers: the newest event of each user who has one in the batch (whoever is only paid back has none),
/// and in any case that all songs moved.
const NUMBERS: &str = "
select place, u, (extract(epoch from now()) * 1000)::bigint as at
  from checked left join people on place is not null";
