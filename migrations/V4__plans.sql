-- Limits that hold under every race (CRED-3, CRED-4, PROV-13), what operators give and take (CRED-2), and what the
-- providers cost us (CRED-6). A user's limits are counted in the profile's row, which every creation locks anyway.

alter table profiles
    -- GCRA: when the whole minute's worth is there again. Whoever creates moves it on by one share of a minute.
    add column rate_full_at timestamptz not null default 'epoch',
    -- The UTC day that the counters are about. It turns by comparison, so nobody has to be awake at midnight.
    add column day date not null default 'epoch',
    add column used_today integer not null default 0 check (used_today >= 0),
    add column previews_today integer not null default 0 check (previews_today >= 0);

alter table credit_entries
    -- Of what an operator gave or took: why, who, and under which key, so that it happens once.
    add column note text,
    add column granted_by text,
    add column idempotency_key text;
create unique index credit_entries_keys on credit_entries (user_id, idempotency_key)
    where idempotency_key is not null;

drop function create_song(uuid, bigint, bigint, text, uuid, text, bytea, text, jsonb, jsonb, text, text, timestamptz,
                          uuid, text, text, bigint, jsonb, jsonb, jsonb);

-- Creates a song in one round trip. In this order: a replay (by idempotency key, or an identical song under way
-- that was asked for within 5 s), which costs nothing, no limit either; the limits of the minute, the day, of songs
-- at once; the credits; then song, first task, ledger entry and event 1. Whoever is refused leaves no trace.
--
-- `outcome`: created | replay (song_id says which) | mismatch (same key, other content) | gone (the key's song was
-- deleted) | too_fast | day_used_up | previews_used_up | too_many | short (available < the price).
--
-- `p_now` is the creating node's clock, so that edges can be tested. Nodes whose clocks differ by a little do no harm:
-- neither the rate's time nor the day ever goes back.
-- `p_plans`: {"<plan>": {"per_minute", "per_day" (null: none), "concurrent"}, "previews_per_day"}; `p_plan` is the
-- token's, else the profile's counts.
create function create_song(
    p_node uuid, p_epoch bigint, p_plans jsonb,
    p_user text, p_song uuid, p_key text, p_hash bytea, p_mode text, p_wish jsonb, p_metadata jsonb,
    p_title text, p_lyrics text, p_now timestamptz,
    p_task uuid, p_kind text, p_provider text, p_price bigint, p_run jsonb, p_progress jsonb, p_set jsonb,
    p_plan text, p_grant bigint, p_refuse boolean,
    out outcome text, out song_id uuid, out u bigint, out available bigint,
    -- Where the user stands afterwards.
    out on_plan text, out left_now integer, out next_at timestamptz, out full_at timestamptz,
    out used integer, out previews integer
) language plpgsql
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
as $$
declare
    minute constant bigint := 60000000;
    preview constant boolean := coalesce((p_wish ->> 'preview')::boolean, false);
    person profiles;
    earlier songs;
    limits jsonb;
    -- One share of a minute, and what is gone of the minute; in microseconds, rounded down, so that a minute's worth
    -- always fits into a minute.
    share bigint;
    spent bigint;
begin
    insert into profiles (user_id, credits, plan)
        values (p_user, p_grant, case when p_user like 'guest:%' then 'guest' else 'free' end) on conflict do nothing;
    if found and p_grant > 0 then
        insert into credit_entries (user_id, amount, reason, balance) values (p_user, p_grant, 'grant', p_grant);
    end if;
    -- Takes turns with everything else that this user creates or reserves.
    select * into person from profiles where profiles.user_id = p_user for no key update;
    available := person.credits;

    on_plan := coalesce(p_plan, person.plan);
    limits := coalesce(p_plans -> on_plan, p_plans -> 'free');
    share := minute / (limits ->> 'per_minute')::bigint;
    full_at := greatest(person.rate_full_at, p_now);
    spent := (extract(epoch from full_at - p_now) * 1000000)::bigint;
    left_now := greatest((minute - spent) / share, 0);
    next_at := p_now + greatest(spent + share - minute, 0) * interval '1 microsecond';
    if (p_now at time zone 'utc')::date > person.day then
        person.day := (p_now at time zone 'utc')::date;
        person.used_today := 0;
        person.previews_today := 0;
    end if;
    used := person.used_today;
    previews := person.previews_today;

    -- A commit whose answer got lost is made again with the same song.
    perform 1 from songs where id = p_song;
    if found then
        select e.u into u from song_events e where e.song_id = p_song and e.seq = 1;
        outcome := 'created';
        song_id := p_song;
        return;
    end if;
    if p_key is not null then
        select * into earlier from songs where songs.user_id = p_user and songs.idempotency_key = p_key;
        if found then
            song_id := earlier.id;
            outcome := case
                when earlier.content_hash <> p_hash then 'mismatch'
                when earlier.deleted_at is not null then 'gone'
                else 'replay' end;
            return;
        end if;
    else
        -- Somebody pressed twice (PROV-13). Rank 4 of the library is what is under way.
        select s.id into song_id from songs s
         where s.user_id = p_user and s.deleted_at is null and library_rank(s.status) = 4
           and s.content_hash = p_hash and s.created_at > p_now - interval '5 seconds'
         order by s.id desc limit 1;
        if found then
            outcome := 'replay';
            return;
        end if;
    end if;

    outcome := case
        when next_at > p_now then 'too_fast'
        when preview and previews >= (p_plans ->> 'previews_per_day')::integer then 'previews_used_up'
        when not preview and used >= (limits ->> 'per_day')::integer then 'day_used_up'
        when p_refuse and (limits ->> 'concurrent')::integer <= (
            select count(*) from songs s
             where s.user_id = p_user and s.deleted_at is null and library_rank(s.status) = 4) then 'too_many'
        when person.credits < p_price then 'short'
        else 'created' end;
    if outcome <> 'created' then
        return;
    end if;

    full_at := full_at + share * interval '1 microsecond';
    spent := spent + share;
    left_now := (minute - spent) / share;
    next_at := p_now + greatest(spent + share - minute, 0) * interval '1 microsecond';
    used := used + (not preview)::integer;
    previews := previews + preview::integer;
    update profiles p
       set credits = p.credits - p_price, u = p.u + 1,
           rate_full_at = full_at, day = person.day, used_today = used, previews_today = previews
     where p.user_id = p_user returning p.u, p.credits into u, available;
    insert into songs (id, user_id, status, mode, wish, idempotency_key, content_hash, metadata, parent_ids, title, lyrics,
                       cost, created_at, updated_at)
        -- With the plan it was asked for under, which says how soon it is served (PROV-14).
        values (p_song, p_user, 'pending', p_mode, p_wish || jsonb_build_object('plan', on_plan), p_key, p_hash, p_metadata,
                array(select parent::uuid from jsonb_array_elements_text(coalesce(p_wish -> 'parent_ids', '[]')) parent),
                p_title, p_lyrics, p_price, p_now, p_now);
    insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, run, progress, created_at, updated_at)
        values (p_task, p_song, 1, p_kind, p_provider, p_price, p_node, p_epoch, p_run, p_progress, p_now, p_now);
    if p_price > 0 then
        insert into credit_entries (user_id, song_id, task_id, task_kind, amount, reason, balance)
            values (p_user, p_song, p_task, p_kind, -p_price, 'reserve', available);
    end if;
    insert into song_events (at, song_id, seq, user_id, u, kind, set)
        values (now(), p_song, 1, p_user, u, 'created', p_set);
    song_id := p_song;
end $$;

-- What an operator gives (or takes, with a negative amount, never below zero): one entry for each key.
-- `outcome`: granted | replay (same key and amount) | mismatch (same key, another amount) | short.
create function grant_credits(
    p_user text, p_signup bigint, p_amount bigint, p_note text, p_by text, p_key text,
    out outcome text, out entry bigint, out available bigint
) language plpgsql as $$
declare
    earlier credit_entries;
begin
    insert into profiles (user_id, credits, plan)
        values (p_user, p_signup, case when p_user like 'guest:%' then 'guest' else 'free' end) on conflict do nothing;
    if found and p_signup > 0 then
        insert into credit_entries (user_id, amount, reason, balance) values (p_user, p_signup, 'grant', p_signup);
    end if;
    select credits into available from profiles where user_id = p_user for no key update;
    select * into earlier from credit_entries c where c.user_id = p_user and c.idempotency_key = p_key;
    if found then
        entry := earlier.id;
        outcome := case when earlier.amount = p_amount then 'replay' else 'mismatch' end;
        return;
    end if;
    if available + p_amount < 0 then
        outcome := 'short';
        return;
    end if;
    update profiles set credits = credits + p_amount where user_id = p_user returning credits into available;
    insert into credit_entries (user_id, amount, reason, balance, note, granted_by, idempotency_key)
        values (p_user, p_amount, 'grant', available, p_note, p_by, p_key) returning id into entry;
    outcome := 'granted';
end $$;

-- What a call to a provider costs us, from when on; written at the start when it differs. A call that a provider took
-- has a row in provider_refs, so what it cost follows, for previews, for superseded attempts, for everything.
create table provider_prices (
    provider text not null,
    since timestamptz not null,
    cost_usd_milli integer not null check (cost_usd_milli >= 0),
    primary key (provider, since)
);

create view provider_costs with (security_invoker = true) as
    select r.provider, r.task_id, r.at, t.kind, s.id as song_id, s.user_id,
           coalesce((s.wish ->> 'preview')::boolean, false) as preview,
           coalesce((select p.cost_usd_milli from provider_prices p
                      where p.provider = r.provider and p.since <= r.at order by p.since desc limit 1), 0)
               as cost_usd_milli
      from provider_refs r join tasks t on t.id = r.task_id join songs s on s.id = t.song_id;
