-- Row level security for people who also show the database to browsers, as Supabase does (OPS-8): a user reads their
-- own rows, the holder of a share link that one variant, the service everything; nobody writes but us. The owner of
-- the tables, which is the account this program connects with, is not hindered.
--
-- Every table is locked, also those that nothing is granted on: where default privileges open new tables to
-- everybody (again Supabase), a lock without a policy is what keeps them shut. What is shown is shown by columns:
-- providers' own words, raw callbacks and the insides of tasks are for operators.

-- Roles are the cluster's: made where they are missing and we may. Without them nothing is shown to anybody, and
-- `select show_rows()` can be run later by somebody who made them.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['anon', 'authenticated', 'service_role'] loop
        begin
            if to_regrole(wanted) is null then
                execute format('create role %I nologin noinherit', wanted);
            end if;
        exception
            -- Another database of the same cluster was quicker; or we may not.
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise notice 'The role % is missing and could not be made; row level security shows nothing to it.', wanted;
        end;
    end loop;
end $$;

-- Who asks, as PostgREST says it. Where schema and functions are there they are somebody else's and stay.
do $$
begin
    if to_regnamespace('auth') is null then
        create schema auth;
    end if;
    if to_regprocedure('auth.jwt()') is null then
        execute 'create function auth.jwt() returns jsonb language sql stable as
            ''select nullif(current_setting(''''request.jwt.claims'''', true), '''''''')::jsonb''';
    end if;
    if to_regprocedure('auth.uid()') is null then
        execute 'create function auth.uid() returns text language sql stable as
            ''select auth.jwt() ->> ''''sub''''''';
    end if;
exception when insufficient_privilege then
    raise notice 'The schema auth could not be completed; row level security shows nothing to users.';
end $$;

-- User ids are text here: Supabase's auth.uid() is a uuid and would fail on others.
create function asking_user() returns text language plpgsql stable as $$
begin
    return auth.jwt() ->> 'sub';
exception when others then
    return null;
end $$;

-- The share link that an anonymous reader came with: a setting of the transaction, a claim, or PostgREST's header.
create function asking_share() returns uuid language plpgsql stable as $$
begin
    return coalesce(
        nullif(current_setting('songflight.share_token', true), ''),
        auth.jwt() ->> 'share_token',
        nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-share-token')::uuid;
exception when others then
    return null;
end $$;

-- Locks every table that is there, and every day's that is to come.
create function lock_rows() returns void language plpgsql as $$
declare
    t regclass;
begin
    for t in select c.oid::regclass from pg_class c
              where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
                and not c.relrowsecurity and pg_has_role(c.relowner, 'usage')
    loop
        execute format('alter table %s enable row level security', t);
    end loop;
end $$;

create or replace function make_days() returns void language plpgsql set lock_timeout = '1s' as $$
declare
    day date;
begin
    perform pg_advisory_xact_lock(5470601);
    for offset_days in -1 .. 7 loop
        day := (now() at time zone 'utc')::date + offset_days;
        if to_regclass('song_events_' || to_char(day, 'YYYYMMDD')) is null then
            execute format('create table %I partition of song_events for values from (%L) to (%L)',
                'song_events_' || to_char(day, 'YYYYMMDD'),
                day::timestamp at time zone 'utc', (day + 1)::timestamp at time zone 'utc');
            execute format('create table %I partition of callback_inbox for values from (%L) to (%L)',
                'callback_inbox_' || to_char(day, 'YYYYMMDD'), day, day + 1);
            execute format('alter table %I enable row level security', 'song_events_' || to_char(day, 'YYYYMMDD'));
            execute format('alter table %I enable row level security', 'callback_inbox_' || to_char(day, 'YYYYMMDD'));
        end if;
    end loop;
end $$;

-- Policies and grants, for the roles that are there. To be run again when one was made later.
create function show_rows() returns void language plpgsql as $$
declare
    own record;
    f regprocedure;
    t regclass;
    shown constant text := current_schema();
    users constant boolean := to_regrole('authenticated') is not null;
    guests constant boolean := to_regrole('anon') is not null;
    service constant boolean := to_regrole('service_role') is not null;
begin
    -- What default privileges may have opened is shut first; functions are open to all by default.
    for t in select c.oid::regclass from pg_class c
              where c.relnamespace = shown::regnamespace and c.relkind in ('r', 'p', 'v') and pg_has_role(c.relowner, 'usage')
    loop
        execute format('revoke all on %s from public', t);
        if guests then execute format('revoke all on %s from anon', t); end if;
        if users then execute format('revoke all on %s from authenticated', t); end if;
    end loop;
    for f in select p.oid::regprocedure from pg_proc p
              where p.pronamespace = shown::regnamespace and pg_has_role(p.proowner, 'usage')
                and p.proname in ('create_song', 'reserve_credits', 'grant_credits', 'make_days', 'drop_days',
                                  'lock_rows', 'show_rows')
    loop
        execute format('revoke all on function %s from public', f);
        if guests then execute format('revoke all on function %s from anon', f); end if;
        if users then execute format('revoke all on function %s from authenticated', f); end if;
    end loop;

    for own in select * from (values
        ('profiles', 'user_id, plan, credits, created_at', 'user_id = (select asking_user())'),
        ('songs', 'id, user_id, status, mode, wish, idempotency_key, metadata, parent_ids, title, lyrics, cost, refunded,
                   retries, seq, last_viewed_at, created_at, updated_at, deleted_at',
         'user_id = (select asking_user()) and deleted_at is null'),
        ('tasks', 'id, song_id, number, kind, provider, price, created_at, updated_at, ended_at',
         'exists (select from songs s where s.id = song_id)'),
        ('lyrics_variants', 'song_id, variant_index, title, text, selected',
         'exists (select from songs s where s.id = song_id)'),
        ('song_variants', 'song_id, variant_number, status, clip_id, title, duration_ms, stream_url, audio_url,
                           fallback_url, asset_url, image_url, video_url, share_token, selected',
         'exists (select from songs s where s.id = song_id)'),
        ('credit_entries', 'id, user_id, song_id, task_id, task_kind, amount, reason, balance, at',
         'user_id = (select asking_user())'),
        ('notifications', 'song_id, kind, user_id, created_at, sent_at', 'user_id = (select asking_user())'),
        ('song_events', 'at, song_id, seq, user_id, u, kind, set', 'user_id = (select asking_user())')
        ) as own (of_table, columns, condition)
    loop
        exit when not users;
        execute format('drop policy if exists own_rows on %I', own.of_table);
        execute format('create policy own_rows on %I for select to authenticated using (%s)', own.of_table, own.condition);
        execute format('grant select (%s) on %I to authenticated', own.columns, own.of_table);
    end loop;
    if guests then
        drop policy if exists shared_variant on song_variants;
        create policy shared_variant on song_variants for select to anon using (share_token = (select asking_share()));
        grant select (song_id, variant_number, status, title, duration_ms, stream_url, audio_url, asset_url, image_url,
                      video_url, share_token) on song_variants to anon;
    end if;
    if service then
        for t in select c.oid::regclass from pg_class c
                  where c.relnamespace = shown::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
                    and pg_has_role(c.relowner, 'usage')
        loop
            execute format('drop policy if exists service_rows on %s', t);
            execute format('create policy service_rows on %s for select to service_role using (true)', t);
            execute format('grant select on %s to service_role', t);
        end loop;
        -- Dead letters are resolved with notes (OPS-1).
        drop policy if exists service_resolves on failed_jobs;
        create policy service_resolves on failed_jobs for update to service_role using (true) with check (true);
        grant update (resolved_at, notes) on failed_jobs to service_role;
        grant select on provider_costs to service_role;
        execute format('grant usage on schema %I to service_role', shown);
    end if;
    if users then execute format('grant usage on schema %I to authenticated', shown); end if;
    if guests then execute format('grant usage on schema %I to anon', shown); end if;
    -- Where the schema auth is ours.
    if pg_has_role((select nspowner from pg_namespace where nspname = 'auth'), 'usage') then
        if users then grant usage on schema auth to authenticated; end if;
        if guests then grant usage on schema auth to anon; end if;
        if service then grant usage on schema auth to service_role; end if;
    end if;
end $$;

select lock_rows();
select show_rows();
