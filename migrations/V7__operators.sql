-- What operators need: dead letters with their whole context that can be put back to work (OPS-1), and how often a
-- song was taken up without getting anywhere (OPS-2, OPS-3).

-- Counted whenever a node takes the task up; every step of the song's sets it back. Without an index, so that steps
-- stay HOT updates.
alter table tasks add column activations smallint not null default 0;

-- Whether it gave its lease back: what a program left on request says nothing against the songs it had.
alter table nodes add column left_well boolean not null default false;

alter table failed_jobs
    add column user_id text,
    -- The same again is the same letter.
    add column times integer not null default 1,
    add column last_at timestamptz not null default now(),
    add column replays integer not null default 0,
    add column replayed_at timestamptz,
    add column resolved_by text;
-- What was put aside before by the same job more than once stays, and does not stand in the way of the rule.
update failed_jobs f set resolved_at = now(), notes = 'put aside again later'
 where resolved_at is null and exists (
    select from failed_jobs g where g.kind = f.kind and g.id > f.id and g.resolved_at is null
       and coalesce(g.task_id, g.song_id) = coalesce(f.task_id, f.song_id));
create unique index failed_jobs_open on failed_jobs (kind, (coalesce(task_id, song_id)))
    where resolved_at is null and coalesce(task_id, song_id) is not null;
create index failed_jobs_of_song on failed_jobs (song_id);

-- Keeps what could not be done; one open letter for each job.
create function put_aside(p_kind text, p_song uuid, p_task uuid, p_user text, p_context jsonb, p_error text)
    returns bigint language sql as $$
    insert into failed_jobs as f (kind, song_id, task_id, user_id, context, error)
    values (p_kind, p_song, p_task, coalesce(p_user, (select user_id from songs where id = p_song)), p_context, p_error)
    on conflict (kind, (coalesce(task_id, song_id))) where resolved_at is null and coalesce(task_id, song_id) is not null
    do update set times = f.times + 1, last_at = now(), context = excluded.context, error = excluded.error
    returning id
$$;

-- A task that failed for good, for no fault of its owner's, is a dead letter in the transaction that fails it: whoever
-- writes that. What the owner must change first (`moderation`, `invalid_input`) is no operator's matter.
create function remember_failure() returns trigger language plpgsql as $$
declare
    song songs;
    failure jsonb;
begin
    select * into song from songs where id = new.song_id;
    failure := case
        when new.beside then new.addition -> 'ended' -> 'failed'
        when song.status = 'failed' then song.error end;
    if failure is null or jsonb_typeof(failure) <> 'object' or song.deleted_at is not null
       or (failure ->> 'class' in ('moderation', 'invalid_input')
           and not coalesce((failure ->> 'operator')::boolean, false)) then
        return null;
    end if;
    perform put_aside(case when new.beside then 'addition' else 'song' end, song.id, new.id, song.user_id,
        jsonb_build_object(
            'wish', song.wish, 'title', song.title, 'lyrics', song.lyrics, 'parent_ids', song.parent_ids,
            'retries', song.retries, 'failure', failure, 'run', old.run, 'progress', new.progress,
            'work', new.addition -> 'work', 'kind', new.kind, 'number', new.number, 'provider', new.provider,
            'price', new.price, 'created_at', new.created_at, 'ended_at', new.ended_at),
        concat_ws(': ', failure ->> 'class', nullif(failure ->> 'message', '')));
    return null;
end $$;
create trigger remember_failure after update on tasks for each row
    when (old.ended_at is null and new.ended_at is not null
          and (new.beside or jsonb_typeof(new.progress -> 'error') = 'object'))
    execute function remember_failure();

-- A failed song that goes on, whoever had it retried, or that was deleted, waits for no operator any more.
create function forget_failure() returns trigger language plpgsql as $$
begin
    update failed_jobs
       set resolved_at = now(),
           notes = case when new.deleted_at is null then 'the song went on' else 'the song was deleted' end
     where song_id = new.id and resolved_at is null and (kind = 'song' or new.deleted_at is not null);
    return null;
end $$;
create trigger forget_failure after update of status, deleted_at on songs for each row
    when ((old.status = 'failed' and new.status <> 'failed')
          or (old.deleted_at is null and new.deleted_at is not null))
    execute function forget_failure();

-- Nobody from outside calls these, whatever default privileges say.
do $$
declare
    who text;
begin
    revoke all on function put_aside(text, uuid, uuid, text, jsonb, text) from public;
    foreach who in array array['anon', 'authenticated'] loop
        if to_regrole(who) is not null then
            execute format('revoke all on function put_aside(text, uuid, uuid, text, jsonb, text) from %I', who);
        end if;
    end loop;
end $$;
