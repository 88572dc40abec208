-- What every call cost us, also where the provider named no task (CRED-6), and letters of what is made again (OPS-1).
--
-- The version before always writes a name and names no columns of a conflict, so it works beside this.

-- A provider that answers at once, with the result itself (MiniMax, and others for a text or for stems), names no task.
-- That it took the call, and so what the call cost us, is written down all the same: without a name, once for each call.
create unique index provider_refs_names on provider_refs (provider, provider_task);
alter table provider_refs drop constraint provider_refs_pkey;
alter table provider_refs alter column provider_task drop not null;
create unique index provider_refs_unnamed on provider_refs (task_id, call, attempt) where provider_task is null;

-- A call whose name was learnt later has two rows, and was paid for once.
create or replace view provider_costs with (security_invoker = true) as
    select r.provider, r.task_id, r.at, t.kind, s.id as song_id, s.user_id,
           coalesce((s.wish ->> 'preview')::boolean, false) as preview,
           coalesce((select p.cost_usd_milli from provider_prices p
                      where p.provider = r.provider and p.since <= r.at order by p.since desc limit 1), 0)
               as cost_usd_milli
      from provider_refs r join tasks t on t.id = r.task_id join songs s on s.id = t.song_id
     where r.provider_task is not null
        or not exists (select from provider_refs n
                        where n.task_id = r.task_id and n.call = r.call and n.attempt = r.attempt
                          and n.provider_task is not null);

-- What was to be made beside a song and failed waits for no operator once it is asked for again, whoever does so.
create function forget_addition() returns trigger language plpgsql as $$
begin
    update failed_jobs
       set resolved_at = now(), notes = 'it was asked for again'
     where song_id = new.song_id and kind = 'addition' and resolved_at is null
       -- The same to the song (`song/step/addition.rs`): of this variant, and a persona by its name.
       and (context #>> '{work,kind}', context #>> '{work,of,variant_number}', context #>> '{work,name}')
           is not distinct from
           (new.addition #>> '{work,kind}', new.addition #>> '{work,of,variant_number}', new.addition #>> '{work,name}');
    return null;
end $$;
create trigger forget_addition after insert on tasks for each row
    when (new.beside and new.ended_at is null) execute function forget_addition();

-- As before, but the callback that came with a refused step stays in its letter when the step is refused again without
-- it, after a poll for instance: it is what putting the letter back begins with.
create or replace function put_aside(p_kind text, p_song uuid, p_task uuid, p_user text, p_context jsonb, p_error text)
    returns bigint language sql as $$
    insert into failed_jobs as f (kind, song_id, task_id, user_id, context, error)
    values (p_kind, p_song, p_task, coalesce(p_user, (select user_id from songs where id = p_song)), p_context, p_error)
    on conflict (kind, (coalesce(task_id, song_id))) where resolved_at is null and coalesce(task_id, song_id) is not null
    do update set times = f.times + 1, last_at = now(), error = excluded.error,
                  context = case
                      when jsonb_typeof(f.context -> 'callback') = 'object'
                           and jsonb_typeof(excluded.context -> 'callback') is distinct from 'object'
                      then excluded.context || jsonb_build_object('callback', f.context -> 'callback')
                      else excluded.context end
    returning id
$$;
