-- What a song's life costs Postgres (durability.md section 8). Beside this the version before works on as it did, but
-- that it sorts libraries without an index. Adding a stored column writes `songs` anew, under a lock.

-- The library's order, as a column of its own: a song that goes from `pending` to `generating_music` keeps its rank, so
-- that this, too, is a HOT update and touches none of the four indexes (SONG-7).
alter table songs add column rank smallint generated always as (library_rank(status)) stored;
drop index songs_library;
create index songs_library on songs
    (user_id, rank desc, coalesce(last_viewed_at, 'infinity') desc, id desc)
    where deleted_at is null;
-- Room for the next version of a row beside it, which a HOT update needs. Of both tables every row changes a few times.
alter table songs set (fillfactor = 70);
alter table song_variants set (fillfactor = 60);

-- What is over 2 KB is compressed before it is kept: with lz4, where this Postgres has it, in a fraction of the time.
do $$
declare
    each record;
begin
    -- The days that are there, and the parents, after which the coming days are made.
    for each in select p.relid, case r.relname when 'song_events' then 'set' else 'body' end as col
                  from pg_class r cross join lateral pg_partition_tree(r.oid) p
                 where r.oid in ('song_events'::regclass, 'callback_inbox'::regclass)
    loop
        execute format('alter table %s alter column %I set compression lz4', each.relid, each.col);
    end loop;
exception when feature_not_supported then
    null;
end $$;

-- `create_song` (V4) for a whole batch: the same decisions in the same order for each user, but one statement for each
-- table in place of one for each song. Answers a row for each song.
--
-- `outcome`: created | replay (song_id says which) | mismatch (same key, other content) | gone (the key's song was
-- deleted) | too_fast | day_used_up | previews_used_up | too_many | short (available < the price).
create function create_songs(
    p_node uuid, p_epoch bigint, p_plans jsonb,
    p_users text[], p_songs uuid[], p_keys text[], p_hashes bytea[], p_modes text[], p_wishes jsonb[],
    p_metadata jsonb[], p_titles text[], p_lyrics text[], p_times timestamptz[],
    p_tasks uuid[], p_kinds text[], p_providers text[], p_prices bigint[], p_runs jsonb[], p_progress jsonb[],
    p_sets jsonb[], p_on_plans text[], p_grants bigint[], p_refuse boolean[]
) returns table (
    ord bigint, outcome text, song_id uuid, u bigint, available bigint,
    -- Where the user stands afterwards.
    on_plan text, left_now integer, next_at timestamptz, full_at timestamptz, used integer, previews integer
) language plpgsql
    -- One plan, made once, that does well whatever the tables held at that time: rows by their keys.
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    minute constant bigint := 60000000;
    many constant integer := cardinality(p_users);
    b record;
    preview boolean;
    limits jsonb;
    -- One share of a minute, and what is gone of the minute; in microseconds, rounded down, so that a minute's worth
    -- always fits into a minute.
    share bigint;
    spent bigint;
    -- The user whose turn it is, as this batch has left them so far.
    person text;
    credits bigint;
    number bigint;
    rate_full_at timestamptz;
    day date;
    used_today integer;
    previews_today integer;
    -- Where in the batch the songs stand that this user was given in it.
    mine integer[];
    earlier integer;
    -- Of each song of the batch that is created: its event's number, the balance after it, the plan. Else null.
    us bigint[] := array_fill(null::bigint, array[many]);
    balances bigint[] := array_fill(null::bigint, array[many]);
    plans text[] := array_fill(null::text, array[many]);
    -- How those users stand afterwards to whom something was given.
    people text[] := '{}';
    people_credits bigint[] := '{}';
    people_us bigint[] := '{}';
    people_full timestamptz[] := '{}';
    people_days date[] := '{}';
    people_used integer[] := '{}';
    people_previews integer[] := '{}';
begin
    -- Who is seen for the first time is given something to begin with.
    with new as (
        insert into profiles (user_id, credits, plan)
        select distinct on (b.name) b.name, b.start, case when b.name like 'guest:%' then 'guest' else 'free' end
          from unnest(p_users, p_grants) b (name, start)
         where not exists (select from profiles p where p.user_id = b.name)
         order by b.name
        on conflict do nothing
        returning user_id, credits)
    insert into credit_entries (user_id, amount, reason, balance)
    select user_id, credits, 'grant', credits from new where credits > 0;

    -- Takes turns with everything else that these users create or reserve. What committed while this waited is seen by
    -- the statements after it, and by none of the same one.
    perform 1 from profiles p where p.user_id = any (p_users) order by p.user_id for no key update;

    for b in
        select i.*, p.credits, p.plan as own_plan, p.u, p.rate_full_at, p.day, p.used_today, p.previews_today,
               kept.song_id as kept, kept.u as kept_u,
               keyed.id as keyed, keyed.content_hash as keyed_hash, keyed.deleted_at as keyed_gone,
               same.id as same, busy.many as busy
          from unnest(p_users, p_songs, p_keys, p_hashes, p_prices, p_times, p_on_plans, p_refuse, p_wishes)
                   with ordinality i (name, song, key, hash, price, now, plan, refuse, wish, place)
          -- Each looked up by itself (`limit`): joined, a table that was empty when this was planned would be read whole
          -- for every song.
         cross join lateral (select * from profiles p where p.user_id = i.name limit 1) p
          -- A commit whose answer got lost is made again with the same song.
          left join lateral (
               select s.id as song_id, (select e.u from song_events e where e.song_id = s.id and e.seq = 1) as u
                 from songs s where s.id = i.song limit 1) kept on true
          left join lateral (
               select s.id, s.content_hash, s.deleted_at from songs s
                where i.key is not null and s.user_id = i.name and s.idempotency_key = i.key limit 1) keyed on true
          -- Somebody pressed twice (PROV-13). Rank 4 of the library is what is under way; an aggregate, because the newest
          -- one alone would be looked for among all that the user ever made.
          left join lateral (
               select (array_agg(s.id order by s.id desc))[1] as id from songs s
                where i.key is null and s.user_id = i.name and s.deleted_at is null and s.rank = 4
                  and s.content_hash = i.hash and s.created_at > i.now - interval '5 seconds') same on true
          left join lateral (
               select count(*) as many from songs s
                where i.refuse and s.user_id = i.name and s.deleted_at is null and s.rank = 4) busy on true
         order by i.name, i.place
    loop
        if person is distinct from b.name then
            if mine <> '{}' then
                people := people || person;
                people_credits := people_credits || credits;
                people_us := people_us || number;
                people_full := people_full || rate_full_at;
                people_days := people_days || day;
                people_used := people_used || used_today;
                people_previews := people_previews || previews_today;
            end if;
            person := b.name;
            credits := b.credits;
            number := b.u;
            rate_full_at := b.rate_full_at;
            day := b.day;
            used_today := b.used_today;
            previews_today := b.previews_today;
            mine := '{}';
        end if;
        ord := b.place;
        outcome := null;
        song_id := null;
        u := null;
        available := credits;
        on_plan := coalesce(b.plan, b.own_plan);
        limits := coalesce(p_plans -> on_plan, p_plans -> 'free');
        share := minute / (limits ->> 'per_minute')::bigint;
        full_at := greatest(rate_full_at, b.now);
        spent := (extract(epoch from full_at - b.now) * 1000000)::bigint;
        left_now := greatest((minute - spent) / share, 0);
        next_at := b.now + greatest(spent + share - minute, 0) * interval '1 microsecond';
        if (b.now at time zone 'utc')::date > day then
            day := (b.now at time zone 'utc')::date;
            used_today := 0;
            previews_today := 0;
        end if;
        used := used_today;
        previews := previews_today;

        if b.kept is not null then
            outcome := 'created';
            song_id := b.kept;
            u := b.kept_u;
        elsif b.keyed is not null then
            song_id := b.keyed;
            outcome := case when b.keyed_hash <> b.hash then 'mismatch'
                            when b.keyed_gone is not null then 'gone'
                            else 'replay' end;
        elsif b.same is not null then
            song_id := b.same;
            outcome := 'replay';
        else
            -- The same once more in this very batch.
            foreach earlier in array mine loop
                if b.key is not null and p_keys[earlier] = b.key
                   or b.key is null and p_hashes[earlier] = b.hash and p_times[earlier] > b.now - interval '5 seconds'
                then
                    song_id := p_songs[earlier];
                    outcome := case when p_hashes[earlier] <> b.hash then 'mismatch' else 'replay' end;
                end if;
            end loop;
        end if;
        if outcome is not null then
            return next;
            continue;
        end if;

        preview := coalesce((b.wish ->> 'preview')::boolean, false);
        outcome := case
            when next_at > b.now then 'too_fast'
            when preview and previews >= (p_plans ->> 'previews_per_day')::integer then 'previews_used_up'
            when not preview and used >= (limits ->> 'per_day')::integer then 'day_used_up'
            when b.refuse and (limits ->> 'concurrent')::integer <= b.busy + cardinality(mine) then 'too_many'
            when credits < b.price then 'short'
            else 'created' end;
        if outcome = 'created' then
            rate_full_at := full_at + share * interval '1 microsecond';
            full_at := rate_full_at;
            spent := spent + share;
            left_now := (minute - spent) / share;
            next_at := b.now + greatest(spent + share - minute, 0) * interval '1 microsecond';
            used_today := used_today + (not preview)::integer;
            previews_today := previews_today + preview::integer;
            used := used_today;
            previews := previews_today;
            credits := credits - b.price;
            number := number + 1;
            mine := mine || b.place::integer;
            song_id := b.song;
            available := credits;
            u := number;
            us[b.place] := number;
            balances[b.place] := credits;
            plans[b.place] := on_plan;
        end if;
        return next;
    end loop;
    if mine <> '{}' then
        people := people || person;
        people_credits := people_credits || credits;
        people_us := people_us || number;
        people_full := people_full || rate_full_at;
        people_days := people_days || day;
        people_used := people_used || used_today;
        people_previews := people_previews || previews_today;
    end if;
    if people = '{}' then
        return;
    end if;

    -- The rows are locked, so these are their values still.
    update profiles p
       set credits = i.credits, u = i.u, rate_full_at = i.full_at, day = i.day, used_today = i.used,
           previews_today = i.previews
      from unnest(people, people_credits, people_us, people_full, people_days, people_used, people_previews)
               i (name, credits, u, full_at, day, used, previews)
     where p.user_id = i.name;
    insert into songs (id, user_id, status, mode, wish, idempotency_key, content_hash, metadata, parent_ids, title, lyrics,
                       cost, created_at, updated_at)
    -- With the plan it was asked for under, which says how soon it is served (PROV-14).
    select i.song, i.name, 'pending', i.mode, i.wish || jsonb_build_object('plan', i.plan), i.key, i.hash, i.metadata,
           array(select parent::uuid from jsonb_array_elements_text(coalesce(i.wish -> 'parent_ids', '[]')) parent),
           i.title, i.lyrics, i.price, i.now, i.now
      from unnest(p_songs, p_users, p_modes, p_wishes, p_keys, p_hashes, p_metadata, p_titles, p_lyrics, p_prices, p_times,
                  us, plans) i (song, name, mode, wish, key, hash, metadata, title, lyrics, price, now, u, plan)
     where i.u is not null;
    insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, run, progress, created_at, updated_at)
    select i.task, i.song, 1, i.kind, i.provider, i.price, p_node, p_epoch, i.run, i.progress, i.now, i.now
      from unnest(p_tasks, p_songs, p_kinds, p_providers, p_prices, p_runs, p_progress, p_times, us)
               i (task, song, kind, provider, price, run, progress, now, u)
     where i.u is not null;
    -- In the order in which they were charged, so that each balance is the sum up to it.
    insert into credit_entries (user_id, song_id, task_id, task_kind, amount, reason, balance)
    select i.name, i.song, i.task, i.kind, -i.price, 'reserve', i.balance
      from unnest(p_users, p_songs, p_tasks, p_kinds, p_prices, balances) with ordinality
               i (name, song, task, kind, price, balance, place)
     where i.balance is not null and i.price > 0
     order by i.place;
    insert into song_events (at, song_id, seq, user_id, u, kind, set)
    select now(), i.song, 1, i.name, i.u, 'created', i.set
      from unnest(p_songs, p_users, us, p_sets) i (song, name, u, set)
     where i.u is not null;
end $$;

-- Nobody from outside calls it, whatever default privileges say.
do $$
declare
    f regprocedure;
    who text;
begin
    for f in select p.oid::regprocedure from pg_proc p
              where p.pronamespace = current_schema()::regnamespace and p.proname = 'create_songs'
    loop
        execute format('revoke all on function %s from public', f);
        foreach who in array array['anon', 'authenticated'] loop
            if to_regrole(who) is not null then
                execute format('revoke all on function %s from %I', f, who);
            end if;
        end loop;
    end loop;
end $$;
