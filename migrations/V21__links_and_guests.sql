-- What a deleted song or a claimed guest leaves behind. Beside this the version before works on as it did; to a claimed guest
-- who orders it says that the key came with another order.

-- A deleted song's links show nothing, in SQL either (OPS-8, SONG-12): nobody knows the new ones. Those that are there come
-- first, while nothing is locked that a commit needs.
update song_variants v set share_token = gen_random_uuid() from songs s where s.id = v.song_id and s.deleted_at is not null;

-- As in V6; a guest who has made nothing yet is known to be claimed from here on as well.
create or replace function begin_claim(p_guest text, p_account text, p_start bigint, out won boolean, out on_plan text)
language plpgsql as $$
begin
    perform enter(p_account, p_start);
    select plan into on_plan from profiles where user_id = p_account;
    insert into profiles (user_id, credits, plan) values (p_guest, 0, 'guest') on conflict do nothing;
    update profiles set claimed_by = coalesce(claimed_by, p_account) where user_id = p_guest
        returning claimed_by = p_account into won;
    if won then
        -- A key that the account used for an order of its own stays with that.
        update orders o set user_id = p_account, updated_at = now(), idempotency_key = case when not exists (
                   select from orders mine where mine.user_id = p_account and mine.idempotency_key = o.idempotency_key)
               then o.idempotency_key end
         where o.user_id = p_guest;
    end if;
end $$;

-- As in V6, but what a guest asks for whose things are an account's would be nobody's (CRED-7). `outcome` may be `claimed`.
create or replace function place_order(
    p_user text, p_start bigint, p_order uuid, p_key text, p_hash bytea, p_package text, p_occasion date, p_provider text,
    p_songs jsonb, p_now timestamptz,
    out outcome text, out order_id uuid
) language plpgsql as $$
declare
    earlier orders;
    account text;
begin
    perform enter(p_user, p_start);
    -- Takes turns with everything else that this user asks for.
    select claimed_by into account from profiles where user_id = p_user for no key update;
    if account is not null then
        outcome := 'claimed';
        return;
    end if;
    select * into earlier from orders o
     where o.user_id = p_user and (o.idempotency_key = p_key or (
               p_key is null and o.content_hash = p_hash and o.created_at > p_now - interval '5 seconds'))
     order by o.id desc limit 1;
    if found then
        order_id := earlier.id;
        outcome := case when earlier.content_hash = p_hash then 'replay' else 'mismatch' end;
        return;
    end if;
    insert into orders (id, user_id, package, occasion_date, provider, idempotency_key, content_hash, created_at, updated_at)
        values (p_order, p_user, p_package, p_occasion, p_provider, p_key, p_hash, p_now, p_now);
    insert into order_songs (order_id, position, variations, request)
        select p_order, s.position - 1, jsonb_array_length(s.request -> 'variations'), s.request
          from jsonb_array_elements(p_songs) with ordinality as s (request, position);
    order_id := p_order;
    outcome := 'placed';
end $$;

-- The table of V19, too, is shown to service_role, and to nobody else. (`show_rows` would lock tables that commits need.)
do $$
declare
    who text;
begin
    if to_regrole('service_role') is not null then
        drop policy if exists service_rows on revocations;
        create policy service_rows on revocations for select to service_role using (true);
        grant select on revocations to service_role;
    end if;
    foreach who in array array['anon', 'authenticated'] loop
        if to_regrole(who) is not null then
            execute format('revoke all on revocations from %I', who);
        end if;
    end loop;
end $$;

create function forget_links() returns trigger language plpgsql as $$
begin
    update song_variants set share_token = gen_random_uuid() where song_id = new.id;
    return null;
end $$;
-- Nobody from outside calls it, whatever default privileges say.
do $$
declare
    who text;
begin
    revoke all on function forget_links() from public;
    foreach who in array array['anon', 'authenticated'] loop
        if to_regrole(who) is not null then
            execute format('revoke all on function forget_links() from %I', who);
        end if;
    end loop;
end $$;
create trigger forget_links after update of deleted_at on songs for each row
    when (old.deleted_at is null and new.deleted_at is not null) execute function forget_links();
-- What was deleted meanwhile.
update song_variants v set share_token = gen_random_uuid()
  from songs s where s.id = v.song_id and s.deleted_at > now() - interval '5 minutes';
