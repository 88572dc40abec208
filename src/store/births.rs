//! Creating songs: whether each may be, what it costs, and all that is written of it, for many songs in one statement of the
//! journal's transaction. (`create_songs` in the database does the same for nodes of the version before.)
//!
//! Not here: when it is sent and what becomes of a broken connection (`store::journal`).

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures_util::future::maybe_done;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Client, Row, Statement};

use super::columns::{Columns, column};
use super::journal::NodeKey;
use super::row::NewSong;
use super::{StoreError, timestamp};
use crate::credit::Credits;
use crate::credit::plan::{Plan, Plans, Standing};
use crate::id::{SongId, UserId};
use crate::time::Time;

/// Whoever is seen for the first time is given something to begin with.
const NEWCOMERS: &str = "
with new as (
    insert into profiles (user_id, credits, plan)
    select distinct on (b.name) b.name, b.start, case when b.name like 'guest:%' then 'guest' else 'free' end
      from unnest($1::text[], $2::bigint[]) as b (name, start)
     where not exists (select from profiles p where p.user_id = b.name)
     order by b.name
    on conflict do nothing
    returning user_id, credits)
insert into credit_entries (user_id, amount, reason, balance)
select user_id, credits, 'grant', credits from new where credits > 0";

/// Takes turns with everything else that these users create or reserve. What committed while this waited is seen by the
/// statements after it, and by none of the same one. (Like the first grant it needs no fence: it is not about a song.)
const LOCK: &str =
    "select from profiles p where p.user_id = any ($1::text[]) order by p.user_id for no key update";

/// One song for each user, at most. What they may is decided here, where nobody comes in between: first whether the song is
/// there already, then the limits in the order of `api.md`, then the price.
///
/// The rate is GCRA in whole microseconds: `share` is one creation's part of a minute, `spent` what is gone of the minute,
/// both rounded down, so that a minute's worth always fits into a minute.
///
/// Tables are reached by their keys alone, and no two parts are joined (`moves`): what was decided of each song is kept in
/// arrays, by its place in the batch.
const BIRTHS: &str = "
with fence as materialized (select id, epoch from nodes where id = $1 and epoch = $2 for key share),
known as materialized (
    select i.*, p.credits, p.u, p.claimed_by, named.plan, p.rate_full_at,
           60000000 / ($3::bigint[])[named.plan] as share, ($4::integer[])[named.plan] as per_day,
           greatest(p.rate_full_at, i.now) as full_at,
           (extract(epoch from greatest(p.rate_full_at, i.now) - i.now) * 1000000)::bigint as spent,
           greatest(p.day, today.day) as day,
           case when today.day > p.day then 0 else p.used_today end as used,
           case when today.day > p.day then 0 else p.previews_today end as previews,
           kept.song_id as kept, kept.u as kept_u, keyed.id as keyed, keyed.content_hash as keyed_hash,
           keyed.deleted_at as keyed_gone, same.id as same, busy.many >= ($5::integer[])[named.plan] as busy
      from fence cross join
           unnest($7::text[], $8::uuid[], $9::text[], $10::bytea[], $11::bigint[], $12::timestamptz[], $13::text[],
                  $14::boolean[], $15::boolean[])
               with ordinality as i (name, song, key, hash, price, now, plan_named, refuse, preview, ord)
      -- Each looked up by itself (`limit`): joined, a table that was empty when this was planned would be read whole for
      -- every song.
     cross join lateral (select * from profiles p where p.user_id = i.name limit 1) p
     cross join lateral (
           select coalesce(array_position(array['guest', 'free', 'pro', 'premium'], coalesce(i.plan_named, p.plan)), 2)
               as plan) named
     cross join lateral (select (i.now at time zone 'utc')::date as day) today
      -- A commit whose answer got lost is made again with the same song.
      left join lateral (
           select s.id as song_id, (select e.u from song_events e where e.song_id = s.id and e.seq = 1) as u
             from songs s where s.id = i.song limit 1) kept on true
      left join lateral (
           select s.id, s.content_hash, s.deleted_at from songs s
            where i.key is not null and s.user_id = i.name and s.idempotency_key = i.key limit 1) keyed on true
      -- Somebody pressed twice (PROV-13). Rank 4 of the library is what is under way; an aggregate, because the newest one
      -- alone would be looked for among all that the user ever made.
      left join lateral (
           select (array_agg(s.id order by s.id desc))[1] as id from songs s
            where i.key is null and s.user_id = i.name and s.deleted_at is null and s.rank = 4
              and s.content_hash = i.hash and s.created_at > i.now - interval '5 seconds') same on true
      left join lateral (
           select count(*) as many from songs s
            where i.refuse and s.user_id = i.name and s.deleted_at is null and s.rank = 4) busy on i.refuse),
decided as materialized (
    select k.*,
           case when k.kept is not null then 'kept'
                when k.keyed is not null then
                    case when k.keyed_hash <> k.hash then 'mismatch' when k.keyed_gone is not null then 'gone'
                         else 'replay' end
                when k.same is not null then 'replay'
                -- It would be nobody's: the songs of this guest have moved (CRED-7).
                when k.claimed_by is not null then 'claimed'
                when k.spent + k.share > 60000000 then 'too_fast'
                when k.preview and k.previews >= $6 then 'previews_used_up'
                when not k.preview and k.used >= k.per_day then 'day_used_up'
                when k.busy then 'too_many'
                when k.credits < k.price then 'short'
                else 'created' end as outcome
      from known k),
-- Of each song by its place: its event's number or 0, the balance after it, the plan.
places as materialized (
    select array_agg(case when outcome = 'created' then u + 1 else 0 end order by ord) as us,
           array_agg(credits - price order by ord) as balances, array_agg(plan order by ord) as plans
      from decided
     -- A user without a profile, of whom nothing is decided, would move the others' places.
    having count(*) = cardinality($7)),
people as (
    update profiles p
       set credits = d.credits - d.price, u = d.u + 1, rate_full_at = d.full_at + d.share * interval '1 microsecond',
           day = d.day, used_today = d.used + (not d.preview)::integer, previews_today = d.previews + d.preview::integer
      from decided d, places
     where p.user_id = d.name and d.outcome = 'created'),
born as (
    insert into songs (id, user_id, status, mode, wish, idempotency_key, content_hash, metadata, parent_ids, title, lyrics,
                       cost, created_at, updated_at)
    -- With the plan it was asked for under, which says how soon it is served (PROV-14).
    select i.song, i.name, 'pending', i.mode,
           i.wish || jsonb_build_object('plan', (array['guest', 'free', 'pro', 'premium'])[p.plans[i.ord]]),
           i.key, i.hash, i.metadata, i.parents::uuid[], i.title, i.lyrics, i.price, i.now, i.now
      from places p cross join
           unnest($8::uuid[], $7::text[], $16::text[], $17::jsonb[], $9::text[], $10::bytea[], $18::jsonb[], $19::text[],
                  $20::text[], $21::text[], $11::bigint[], $12::timestamptz[])
               with ordinality as i (song, name, mode, wish, key, hash, metadata, parents, title, lyrics, price, now, ord)
     where p.us[i.ord] > 0),
heads as (
    insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, run, progress, created_at, updated_at)
    select i.task, i.song, 1, i.kind, i.provider, i.price, fence.id, fence.epoch, i.run, i.progress, i.now, i.now
      from fence cross join places p cross join
           unnest($22::uuid[], $8::uuid[], $23::text[], $24::text[], $11::bigint[], $25::jsonb[], $26::jsonb[],
                  $12::timestamptz[])
               with ordinality as i (task, song, kind, provider, price, run, progress, now, ord)
     where p.us[i.ord] > 0),
-- In the order in which they were charged, so that each balance is the sum up to it.
ledger as (
    insert into credit_entries (user_id, song_id, task_id, task_kind, amount, reason, balance)
    select i.name, i.song, i.task, i.kind, -i.price, 'reserve', p.balances[i.ord]
      from places p cross join
           unnest($7::text[], $8::uuid[], $22::uuid[], $23::text[], $11::bigint[])
               with ordinality as i (name, song, task, kind, price, ord)
     where p.us[i.ord] > 0 and i.price > 0),
events as (
    insert into song_events (at, song_id, seq, user_id, u, kind, set)
    select now(), i.song, 1, i.name, p.us[i.ord], 'created', i.set
      from places p cross join unnest($8::uuid[], $7::text[], $27::json[]) with ordinality as i (song, name, set, ord)
     where p.us[i.ord] > 0)
select d.ord, case d.outcome when 'kept' then 'created' else d.outcome end as outcome,
       coalesce(d.kept, d.keyed, d.same, d.song) as song_id,
       case when d.outcome = 'created' then d.u + 1 else d.kept_u end as u,
       d.credits as available, d.plan as on_plan,
       greatest((60000000 - after.spent) / d.share, 0)::integer as left_now,
       (extract(epoch from d.now) * 1000000)::bigint + greatest(after.spent + d.share - 60000000, 0) as next_at,
       (extract(epoch from d.full_at) * 1000000)::bigint + after.added as full_at,
       d.used + (d.outcome = 'created' and not d.preview)::integer as used,
       d.previews + (d.outcome = 'created' and d.preview)::integer as previews,
       (extract(epoch from now()) * 1000)::bigint as at
  from places
 cross join decided d
 cross join lateral (select case when d.outcome = 'created' then d.share else 0 end as added) a
 cross join lateral (select a.added, d.spent + a.added as spent) after";

/// A session's statements for creations.
pub(super) struct Births {
    newcomers: Statement,
    lock: Statement,
    births: Statement,
    /// Who has a profile for certain.
    known: Mutex<HashSet<UserId>>,
}

/// Of so many users a session remembers that they have profiles; of all others it asks.
const KNOWN_MAX: usize = 65_536;

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
    /// What this guest made is an account's by now (CRED-7).
    Claimed,
    Short {
        required: Credits,
        available: Credits,
    },
    TooFast,
    DayUsedUp,
    PreviewsUsedUp,
    TooManyAtOnce,
}

impl Births {
    pub(super) async fn prepare(client: &Client) -> Result<Self, StoreError> {
        let (newcomers, lock, births) =
            tokio::try_join!(client.prepare(NEWCOMERS), client.prepare(LOCK), client.prepare(BIRTHS))?;
        Ok(Self { newcomers, lock, births, known: Mutex::default() })
    }

    /// Answers a row for each song that says where in `new` it stands, unless this node is fenced. What one user creates is
    /// decided one after the other. All statements are sent without waiting for one another's answers.
    pub(super) async fn create(
        &self,
        client: &Client,
        new: &[(usize, &NewSong)],
        node: NodeKey,
    ) -> Result<Vec<(usize, Row)>, StoreError> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let rounds = rounds(new);
        let (newcomers, locked, answers) = tokio::join!(
            biased;
            self.welcome(client, &rounds[0]),
            self.lock(client, &rounds[0]),
            in_order(rounds.iter().map(|round| self.round(client, round, node)))
        );
        newcomers?;
        locked?;
        let answers: Vec<_> =
            answers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        if !answers.is_empty() && answers.len() != new.len() {
            return Err(StoreError::Unknown("of some creations nothing was decided".to_owned()));
        }
        Ok(answers)
    }

    /// What these users created is durable, and so are their profiles.
    pub(super) fn remember(&self, new: &[(usize, &NewSong)]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + new.len() > KNOWN_MAX {
            known.clear();
        }
        known.extend(new.iter().map(|(_, new)| new.song.user.clone()));
    }

    async fn welcome(&self, client: &Client, new: &[(usize, &NewSong)]) -> Result<(), StoreError> {
        let (names, grants): (Vec<&str>, Vec<i64>) = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let newcomers = new.iter().filter(|(_, new)| !known.contains(&new.song.user));
            newcomers.map(|(_, new)| (new.song.user.as_str(), new.terms.grant.thousandths())).unzip()
        };
        if !names.is_empty() {
            client.execute(&self.newcomers, &[&names, &grants]).await?;
        }
        Ok(())
    }

    async fn lock(&self, client: &Client, new: &[(usize, &NewSong)]) -> Result<(), StoreError> {
        let names: Vec<&str> = new.iter().map(|(_, new)| new.song.user.as_str()).collect();
        client.execute(&self.lock, &[&names]).await?;
        Ok(())
    }

    async fn round(
        &self,
        client: &Client,
        new: &[(usize, &NewSong)],
        node: NodeKey,
    ) -> Result<Vec<(usize, Row)>, StoreError> {
        // One configuration for the whole node.
        let Some(plans) = new.first().map(|(_, new)| &new.terms.plans) else { return Ok(Vec::new()) };
        let limits = || Plan::ALL.iter().map(|plan| plans.of(*plan));
        let whole = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let per_minute: Vec<i64> = limits().map(|limits| i64::from(limits.per_minute.max(1))).collect();
        let per_day: Vec<Option<i32>> = limits().map(|limits| limits.per_day.map(whole)).collect();
        let concurrent: Vec<i32> = limits().map(|limits| whole(limits.concurrent)).collect();
        let previews_per_day = whole(plans.previews_per_day);
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&node.id, &node.epoch, &per_minute, &per_day, &concurrent, &previews_per_day];
        let columns = columns(new);
        parameters.extend(columns.iter().map(|column| &**column as &(dyn ToSql + Sync)));
        let answers = client.query(&self.births, &parameters).await?;
        let place = |row: &Row| usize::try_from(row.get::<_, i64>("ord") - 1).unwrap_or(usize::MAX);
        let of = |row: Row| new.get(place(&row)).map(|(at, _)| (*at, row));
        Ok(answers.into_iter().filter_map(of).collect())
    }
}

/// The arrays of [`BIRTHS`], from `$7` on.
fn columns<'a>(new: &[(usize, &'a NewSong)]) -> Columns<'a> {
    let rows = || new.iter().map(|(_, row)| *row);
    vec![
        column!(rows(), n => n.song.user.as_str()),
        column!(rows(), n => n.song.id.0),
        column!(rows(), n => n.idempotency_key.as_deref()),
        column!(rows(), n => &n.content_hash[..]),
        column!(rows(), n => n.song.head.price.thousandths()),
        column!(rows(), n => timestamp(n.song.created_at.millis())),
        column!(rows(), n => n.terms.plan.map(Plan::as_str)),
        column!(rows(), n => n.terms.refuse_when_busy),
        column!(rows(), n => n.song.wish.preview),
        column!(rows(), n => n.song.wish.mode.as_str()),
        column!(rows(), n => Json(&*n.song.wish)),
        column!(rows(), n => Json(&*n.song.metadata)),
        column!(rows(), n => array(&n.song.wish.parent_ids)),
        column!(rows(), n => n.song.title.as_deref()),
        column!(rows(), n => n.song.lyrics.as_deref()),
        column!(rows(), n => n.song.head.task.0),
        column!(rows(), n => n.song.head.kind.as_str()),
        column!(rows(), n => n.song.head.provider.as_str()),
        column!(rows(), n => n.song.phase.run().map(Json)),
        column!(rows(), n => Json(n.song.progress(n.song.head.kind).cloned().unwrap_or_default())),
        column!(rows(), n => Json(&n.set)),
    ]
}

/// Each user's first song of these, then each one's second, and so on.
fn rounds<'a>(new: &[(usize, &'a NewSong)]) -> Vec<Vec<(usize, &'a NewSong)>> {
    let mut had: HashMap<&str, usize> = HashMap::new();
    let mut rounds: Vec<Vec<_>> = Vec::new();
    for (at, song) in new {
        let turn = had.entry(song.song.user.as_str()).or_default();
        if *turn == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*turn].push((*at, *song));
        *turn += 1;
    }
    rounds
}

/// Waits for all of them, having begun with each in its turn: what the client sends is in that order.
async fn in_order<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(|one| Box::pin(maybe_done(one))).collect();
    poll_fn(|context| {
        let pending = all.iter_mut().map(|one| one.as_mut().poll(context)).filter(Poll::is_pending).count();
        if pending == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    all.iter_mut().filter_map(|one| one.as_mut().take_output()).collect()
}

/// As Postgres reads an array of ids.
fn array(ids: &[SongId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    format!("{{{}}}", ids.join(","))
}

/// One row of the answer, about this song.
pub(super) fn read(row: &Row, new: &NewSong) -> (Birth, Standing) {
    let song = || SongId(row.get("song_id"));
    let birth = match row.get::<_, &str>("outcome") {
        "created" => Birth::Created { song: song() },
        "replay" => Birth::Replay { song: song() },
        "mismatch" => Birth::KeyMismatch,
        "gone" => Birth::KeyGone,
        "claimed" => Birth::Claimed,
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
    // Rounded up: at that millisecond it is true.
    let time = |name: &str| Time::from_millis((row.get::<_, i64>(name) + 999).div_euclid(1_000));
    let plan = usize::try_from(row.get::<_, i32>("on_plan") - 1).ok();
    let standing = Standing {
        plan: plan.and_then(|place| Plan::ALL.get(place).copied()).unwrap_or(Plan::Free),
        left: count("left_now"),
        next_at: time("next_at"),
        full_at: time("full_at"),
        used_today: count("used"),
        previews_today: count("previews"),
    };
    (birth, standing)
}
