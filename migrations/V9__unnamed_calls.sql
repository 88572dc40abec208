-- A provider that answers at once, with the result itself (MiniMax, and others for a text or for stems), names no task.
-- That it took the call, and so what the call cost us, is written down all the same (CRED-6): without a name, once for
-- each call.
--
-- The version before always writes a name and names no columns of a conflict, so it works beside this.

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
