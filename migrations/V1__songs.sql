-- What a song's whole life needs: people, songs, their tasks, what came of them, the events that
-- clients resume from, the raw callbacks, and the nodes that own songs.
--
-- Two rules shape the tables (docs/ARCHITECTURE.md, "What is stored"):
--   * what changes at every step lives in `tasks`, a narrow row of which no changing column is
--     indexed, so that each step is a HOT update; the indexed `songs` row is touched only when
--     something public changes;
--   * what only grows (`song_events`, `callback_inbox`) is partitioned by day and dropped by day.

create type song_status as enum
    ('pending', 'generating_lyrics', 'lyrics_ready', 'generating_music', 'ready', 'complete', 'failed', 'cancelled');
create type variant_status as enum ('pending', 'generating', 'complete', 'failed');

-- One row: the first half of every cursor. It changes when the log is not the one that clients knew
-- (restored from a backup, cut), which sends them a snapshot instead of a wrong resume.
create table event_log (
    only_row boolean primary key default true check (only_row),
    epoch bigint not null default 1 check (epoch > 0),
    system_identifier text not null
);
insert into event_log (system_identifier) select system_identifier::text from pg_control_system();

create table nodes (
    id uuid primary key,
    epoch bigint not null default 1,
    name text not null,
    started_at timestamptz not null default now(),
    lease_until timestamptz not null,
    left_at timestamptz
);

create table profiles (
    user_id text primary key check (length(user_id) between 1 and 128),
    plan text not null default 'free' check (plan in ('guest', 'free', 'pro', 'premium')),
    -- What can be spent, in thousandths of a credit; always the sum of the user's credit_entries (CRED-2).
    credits bigint not null default 0 check (credits >= 0),
    -- The number of the user's newest event: dense, and commit-ordered by this row's lock (protocol.md 1).
    u bigint not null default 0,
    created_at timestamptz not null default now()
) with (fillfactor = 70);

create table songs (
    id uuid primary key,
    user_id text not null references profiles,
    status song_status not null,
    -- What was asked for; never changes, but for texts that a retry replaces.
    mode text not null check (mode in ('lyrics_first', 'music')),
    wish jsonb not null,
    idempotency_key text,
    content_hash bytea not null,
    metadata jsonb not null default '{}',
    parent_ids uuid[] not null default '{}',
    -- What came of it.
    title text,
    lyrics text,
    error jsonb,
    cost bigint not null default 0 check (cost >= 0),
    refunded bigint not null default 0 check (refunded >= 0 and refunded <= cost),
    -- When the owner asked again (PROV-10).
    retries timestamptz[] not null default '{}',
    seq bigint not null default 1,
    last_viewed_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- The tombstone of a deleted song keeps its key and answers 204 again (SONG-12).
    deleted_at timestamptz
) with (fillfactor = 85);
create unique index songs_idempotency on songs (user_id, idempotency_key) where idempotency_key is not null;

-- The library's smart order (SONG-7): highest first.
create function library_rank(status song_status) returns smallint
    language sql immutable parallel safe
    return case status
        when 'lyrics_ready' then 6 when 'ready' then 5
        when 'pending' then 4 when 'generating_lyrics' then 4 when 'generating_music' then 4
        when 'complete' then 3 when 'failed' then 2 else 1 end;
create index songs_library on songs
    (user_id, library_rank(status) desc, coalesce(last_viewed_at, 'infinity') desc, id desc)
    where deleted_at is null;
create index songs_newest on songs (user_id, id desc) where deleted_at is null;

-- One paid go at a phase. `number` counts a song's tasks from 1; the highest is the song's head, and
-- its version is the song's: every commit names the version it was decided on.
create table tasks (
    id uuid primary key,
    song_id uuid not null references songs on delete cascade,
    number smallint not null,
    kind text not null,
    provider text not null,
    price bigint not null default 0 check (price >= 0),
    owner uuid,
    epoch bigint,
    version bigint not null default 1,
    -- The song's newest event.
    seq bigint not null default 1,
    -- Its calls to the provider: attempt, intent, provider task, when to try or ask again.
    -- Null once the task has ended.
    run jsonb,
    progress jsonb not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    ended_at timestamptz,
    check ((run is null) = (ended_at is not null))
) with (fillfactor = 70);
create unique index tasks_of_song on tasks (song_id, number);
-- Only its predicate changes, and only once in a task's life: the moves in between stay HOT.
create index tasks_running on tasks (song_id) where ended_at is null;

-- Which of our calls a provider's task belongs to. Append-only; whoever came first keeps the name.
create table provider_refs (
    provider text not null,
    provider_task text not null,
    task_id uuid not null,
    call smallint not null,
    attempt smallint not null,
    at timestamptz not null default now(),
    primary key (provider, provider_task)
);
create index provider_refs_of_task on provider_refs (task_id);

create table lyrics_variants (
    song_id uuid not null references songs on delete cascade,
    variant_index smallint not null check (variant_index >= 0),
    title text,
    text text not null check (text <> ''),
    selected boolean not null default false,
    primary key (song_id, variant_index)
);

create table song_variants (
    song_id uuid not null references songs on delete cascade,
    variant_number smallint not null check (variant_number between 1 and 5),
    status variant_status not null,
    clip_id text,
    title text,
    duration_ms bigint,
    stream_url text,
    audio_url text,
    -- A last resort built from the clip id, used at the deadline (PROV-7).
    fallback_url text,
    asset_url text,
    storage_path text,
    image_url text,
    video_url text,
    share_token uuid not null unique,
    selected boolean not null default false,
    primary key (song_id, variant_number)
);

-- The ledger (CRED-2): append-only; a task is reserved once and settled once, as capture or release.
create table credit_entries (
    id bigint generated always as identity primary key,
    user_id text not null references profiles,
    song_id uuid,
    task_id uuid,
    task_kind text,
    amount bigint not null,
    reason text not null check (reason in ('grant', 'reserve', 'capture', 'release')),
    balance bigint not null check (balance >= 0),
    at timestamptz not null default now(),
    check (reason = 'grant' or task_id is not null),
    check (reason <> 'reserve' or amount <= 0),
    check (reason = 'reserve' or reason = 'grant' or amount >= 0)
);
create unique index credit_entries_slots on credit_entries
    (task_id, (case when reason = 'reserve' then 'reserve' else 'settle' end)) where task_id is not null;
create index credit_entries_of_user on credit_entries (user_id, id desc);

-- What is to be told to a user's devices: one row per song and kind, however often it is decided (PUSH-2).
create table notifications (
    song_id uuid not null references songs on delete cascade,
    kind text not null,
    user_id text not null,
    created_at timestamptz not null default now(),
    sent_at timestamptz,
    primary key (song_id, kind)
);

create table song_events (
    at timestamptz not null,
    song_id uuid not null,
    seq bigint not null,
    user_id text not null,
    u bigint not null,
    kind text not null,
    -- The top-level fields of the song that changed, with their new values.
    set jsonb not null,
    primary key (song_id, seq, at)
) partition by range (at);
create index song_events_of_user on song_events (user_id, u);

create table callback_inbox (
    day date not null,
    at timestamptz not null default now(),
    provider text not null,
    -- Our own task, call and attempt, from the url; vouched for by its token.
    task_id uuid not null,
    call smallint not null,
    attempt smallint not null,
    body_hash bytea not null,
    body bytea not null,
    -- What came of it: applied, nothing new, malformed, no such task.
    outcome text not null,
    unique (task_id, provider, body_hash, day)
) partition by range (day);

-- What could not be done and must not be forgotten (OPS-1).
create table failed_jobs (
    id bigint generated always as identity primary key,
    kind text not null,
    song_id uuid,
    task_id uuid,
    context jsonb not null,
    error text not null,
    failed_at timestamptz not null default now(),
    resolved_at timestamptz,
    notes text
);

-- Makes the days' partitions from yesterday to a week ahead; called at start and every hour. Both wait for
-- their locks at most a second: behind a long reader (a dump) they would hold up every insert after them.
create function make_days() returns void language plpgsql set lock_timeout = '1s' as $$
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
        end if;
    end loop;
end $$;
select make_days();

-- Drops the days that are no longer kept, whole: nothing is deleted row by row. Answers how many.
create function drop_days(p_keep integer) returns integer language plpgsql set lock_timeout = '1s' as $$
declare
    old record;
    dropped integer := 0;
begin
    perform pg_advisory_xact_lock(5470601);
    for old in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent in ('song_events'::regclass, 'callback_inbox'::regclass)
           and right(c.relname, 8) < to_char((now() at time zone 'utc')::date - p_keep, 'YYYYMMDD')
    loop
        execute format('drop table %I', old.relname);
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;
