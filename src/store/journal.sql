-- The journal's one statement for steps: many songs, each moved only if this node still owns it and it is
-- still at the version that the step was decided on. Everything else that a step writes hangs on `m`.
-- Clips before statuses is kept by all being one statement (CB-5).
--
-- What stands between `-- if …` and `-- end` is left out of a batch in which no step needs it (`moves::PARTS`): opening
-- tables and their indexes costs a small batch more than what it writes there.
--
-- Planned once for a session, whatever the tables hold at that time and however many rows a batch has: a plan each time
-- would cost more than small batches themselves. It does well in any case because tables are reached by their keys
-- alone (the session allows no other way), and because no two of the parts below are joined with each other: the
-- planner takes every batch for ten rows, and would compare each with each.
with
-- A take-over of this node's songs waits here for the commit that is under way, and stops every later one.
fence as materialized (
    select 1 from nodes where id = $1 and epoch = $2 for key share
),
-- Whose they must be stands here beside what they must be at: said of `tasks` alone, it makes a table of which
-- nothing is known yet look as if it held one such row, worth to be read whole for each song.
b as materialized (
    select b.*, $1::uuid as owner, $2::bigint as epoch from unnest(
        $3::uuid[], $4::bigint[], $5::uuid[], $6::text[], $7::bigint[], $8::jsonb[], $9::jsonb[], $10::timestamptz[],
        $11::text[], $12::json[], $13::json[], $14::json[], $15::json[], $16::json[], $17::json[], $18::text[],
        $19::json[], $20::uuid[], $21::json[], $22::text[]
    ) with ordinality as b (
        head, version, song_id, user_id, seq, run, progress, at,
        kind, set, song, lyrics, variants, task, settle, notify,
        refs, reserved, additions, provider, ord)
),
m as (
    update tasks t
       set version = t.version + 1, seq = b.seq, epoch = b.epoch, run = b.run, progress = b.progress, activations = 0,
           provider = coalesce(b.provider, t.provider),
           -- As watchers know it: a step that nobody sees does not change it.
           updated_at = case when b.kind is null then t.updated_at else b.at end
           -- if over
         , ended_at = case when b.run is null then coalesce(t.ended_at, b.at) end
           -- end
      from b, fence
     where t.id = b.head and t.version = b.version and t.owner = b.owner
       -- if rare
       -- A count, because `exists` would be answered from all reservations there ever were.
       and (b.reserved is null
            or (select count(*) from credit_entries c where c.task_id = b.reserved and c.reason = 'reserve') > 0)
       -- end
    -- Of two entries for one version only one is taken, and only its rows are written.
    returning b.*
)
-- if ending
, settled as materialized (
    -- To whoever reserved it: what a guest paid does not become an account's with the song (CRED-7).
    select coalesce((select c.user_id from credit_entries c
                      where c.task_id = s.task
                        and (case when c.reason = 'reserve' then 'reserve' else 'settle' end) = 'reserve'), m.user_id)
               as user_id, m.song_id, m.ord, s.*
      from m cross join lateral json_to_recordset(m.settle) as s(task uuid, kind text, reason text, amount bigint)
     where m.settle is not null
)
-- end
-- if people
-- What each user is told and gets back, in the order of the batch.
, totals as materialized (
    select user_id, count(kind) as events, coalesce(sum(amount), 0)::bigint as money,
           array_agg(ord order by ord) filter (where kind is not null) as ords,
           array_agg(song_id order by ord) filter (where kind is not null) as songs,
           array_agg(seq order by ord) filter (where kind is not null) as seqs,
           array_agg(kind order by ord) filter (where kind is not null) as kinds,
           array_agg(set order by ord) filter (where kind is not null) as sets
           -- if ending
         , array_agg(song_id order by ord) filter (where task is not null) as paid_songs,
           array_agg(task order by ord) filter (where task is not null) as paid_tasks,
           array_agg(task_kind order by ord) filter (where task is not null) as paid_kinds,
           array_agg(reason order by ord) filter (where task is not null) as reasons,
           array_agg(amount order by ord) filter (where task is not null) as amounts
           -- end
      from (select user_id, ord, song_id, seq, kind, set, null::uuid as task, null as task_kind, null as reason,
                   null::bigint as amount from m where kind is not null
            -- if ending
            union all
            select user_id, ord, song_id, null, null, null, task, kind, reason, amount from settled
            -- end
           ) as each_one
     group by user_id
     order by user_id
)
-- One person after the other as `totals` has them, for whom there is but one way to be found: in one order for everybody,
-- or two nodes' commits could wait for each other.
, people as (
    update profiles p set u = p.u + t.events, credits = p.credits + t.money
      from totals t
     where p.user_id = t.user_id
    returning t.*, p.u - t.events as u_before, p.credits - t.money as credits_before
)
, events as (
    insert into song_events (at, song_id, seq, user_id, u, kind, set)
    select now(), e.song_id, e.seq, people.user_id, people.u_before + e.place, e.kind, e.set
      from people cross join lateral
           unnest(songs, seqs, kinds, sets) with ordinality as e(song_id, seq, kind, set, place)
)
-- end
-- if ending
, ledger as (
    insert into credit_entries (user_id, song_id, task_id, task_kind, amount, reason, balance)
    select people.user_id, s.song_id, s.task, s.kind, s.amount, s.reason,
           people.credits_before + sum(s.amount) over (partition by people.user_id order by s.place)
      from people cross join lateral
           unnest(paid_songs, paid_tasks, paid_kinds, amounts, reasons) with ordinality
               as s(song_id, task, kind, amount, reason, place)
     order by people.user_id, s.place
)
-- end
-- if library
, library as (
    update songs s
       set status = coalesce(c.status, s.status), wish = coalesce(c.wish, s.wish), title = c.title, lyrics = c.lyrics,
           error = c.error, cost = c.cost, refunded = c.refunded,
           retries = array(select to_timestamp(ms / 1000.0) from unnest(c.retries) ms),
           last_viewed_at = to_timestamp(c.viewed / 1000.0), deleted_at = to_timestamp(c.deleted / 1000.0),
           seq = m.seq, updated_at = m.at
      from m cross join lateral json_to_record(m.song) as c(
           status song_status, wish jsonb, title text, lyrics text, error jsonb, cost bigint, refunded bigint,
           retries bigint[], viewed bigint, deleted bigint)
     where m.song is not null and s.id = m.song_id
)
-- end
-- if rare
, texts as (
    insert into lyrics_variants (song_id, variant_index, title, text, selected)
    select m.song_id, l.variant_index, l.title, l.text, l.selected
      from m cross join lateral json_to_recordset(m.lyrics) as l(
           variant_index smallint, title text, text text, selected boolean)
     where m.lyrics is not null
    on conflict (song_id, variant_index) do update
       set title = excluded.title, text = excluded.text, selected = excluded.selected
)
-- end
-- if variants
-- Nobody but the song's owner makes them, which moves it here: so there is no need for `on conflict`, which costs twice as
-- much. Joined by where they stand: by their key, a table that was empty when this was planned would be read whole.
, clips as materialized (
    select m.song_id, v.*, (select s.ctid from song_variants s
                             where s.song_id = m.song_id and s.variant_number = v.variant_number) as place
      from m cross join lateral json_to_recordset(m.variants) as v(
           variant_number smallint, status variant_status, clip_id text, provider_task text, title text, duration_ms bigint,
           stream_url text, audio_url text, fallback_url text, asset_url text, image_url text, video_url text,
           share_token uuid, selected boolean)
     where m.variants is not null
)
, changed_clips as (
    update song_variants v
       set status = c.status, clip_id = c.clip_id, provider_task = c.provider_task, title = c.title,
           duration_ms = c.duration_ms, stream_url = c.stream_url, audio_url = c.audio_url,
           fallback_url = c.fallback_url, asset_url = c.asset_url, image_url = c.image_url, video_url = c.video_url,
           selected = c.selected
      from clips c
     where v.ctid = c.place
)
, new_clips as (
    insert into song_variants (song_id, variant_number, status, clip_id, provider_task, title, duration_ms, stream_url, audio_url,
                               fallback_url, asset_url, image_url, video_url, share_token, selected)
    select c.song_id, c.variant_number, c.status, c.clip_id, c.provider_task, c.title, c.duration_ms, c.stream_url,
           c.audio_url, c.fallback_url, c.asset_url, c.image_url, c.video_url, c.share_token, c.selected
      from clips c
     where c.place is null
)
-- end
-- if rare
, further as (
    insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, version, seq, run, progress,
                       created_at, updated_at)
    select t.id, m.song_id, t.number, t.kind, t.provider, t.price, $1, $2, m.version + 1, m.seq, t.run, t.progress,
           m.at, m.at
      from m cross join lateral json_to_record(m.task) as t(
           id uuid, number smallint, kind text, provider text, price bigint, run jsonb, progress jsonb)
     where m.task is not null
)
-- Tasks beside the head: new ones, and those that moved on. The head's version speaks for them.
, beside as (
    insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, run, progress, beside, addition,
                       created_at, updated_at, ended_at)
    select a.id, m.song_id, a.number, a.kind, a.provider, a.price, $1, $2, a.run, a.progress, true, a.addition,
           m.at, m.at, case when a.run is null then m.at end
      from m cross join lateral json_to_recordset(m.additions) as a(
           id uuid, number smallint, kind text, provider text, price bigint, run jsonb, progress jsonb, addition jsonb)
     where m.additions is not null
    on conflict (id) do update
       set run = excluded.run, progress = excluded.progress, addition = excluded.addition, activations = 0,
           updated_at = excluded.updated_at, ended_at = coalesce(tasks.ended_at, excluded.ended_at)
)
-- end
-- if ending
, told as (
    insert into notifications (song_id, kind, user_id)
    select song_id, notify, user_id from m
     where notify is not null
       and (select true from notifications n where n.song_id = m.song_id and n.kind = m.notify) is null
)
-- end
-- if refs
, names as (
    insert into provider_refs (provider, provider_task, task_id, call, attempt)
    select r.provider, r.provider_task, r.task, r.call, r.attempt
      from m cross join lateral json_to_recordset(m.refs) as r(
           provider text, provider_task text, task uuid, call smallint, attempt smallint)
     where m.refs is not null
    on conflict do nothing
)
-- end
select ord, null::bigint as u, (extract(epoch from now()) * 1000)::bigint as at from m where kind is null
-- if people
union all
select e.ord, people.u_before + e.place, (extract(epoch from now()) * 1000)::bigint
  from people cross join lateral unnest(ords) with ordinality as e(ord, place)
-- end
