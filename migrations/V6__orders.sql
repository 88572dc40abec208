-- Guests' songs move to an account (CRED-7), and orders of several songs in several variations (CRED-8).

-- The account that a guest's things belong to since somebody signed in: the first one, for ever.
alter table profiles add column claimed_by text;

create table orders (
    id uuid primary key,
    user_id text not null references profiles,
    package text not null,
    occasion_date date,
    payment_reference text,
    -- Who is to make its songs, as it was asked for: also of those that are made later.
    provider text not null,
    idempotency_key text,
    content_hash bytea not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index orders_idempotency on orders (user_id, idempotency_key) where idempotency_key is not null;
create index orders_of_user on orders (user_id, id desc);

-- A song of an order, from the order on; the song itself is there once it was paid for. It is made under the key
-- `order <order> <position>`, so that it is made once, whoever asks how often and whatever crashes in between.
create table order_songs (
    order_id uuid not null references orders on delete cascade,
    position smallint not null check (position >= 0),
    song_id uuid unique references songs,
    variations smallint not null check (variations between 1 and 5),
    request jsonb not null,
    primary key (order_id, position)
);

-- The key of a song of an order: with blanks, which no client's key can hold.
create function song_key(os order_songs) returns text language sql immutable parallel safe
    return 'order ' || os.order_id || ' ' || os.position;

-- A profile for somebody not seen before, with what everybody starts with.
create function enter(p_user text, p_start bigint) returns void language plpgsql as $$
begin
    insert into profiles (user_id, credits, plan)
        values (p_user, p_start, case when p_user like 'guest:%' then 'guest' else 'free' end) on conflict do nothing;
    if found and p_start > 0 then
        insert into credit_entries (user_id, amount, reason, balance) values (p_user, p_start, 'grant', p_start);
    end if;
end $$;

-- The first account that claims a guest has it for ever, and gets the guest's orders at once; the songs follow one by
-- one, through their actors. A guest who never made anything has nothing to be claimed.
create function begin_claim(p_guest text, p_account text, p_start bigint, out won boolean, out on_plan text)
language plpgsql as $$
begin
    perform enter(p_account, p_start);
    select plan into on_plan from profiles where user_id = p_account;
    update profiles set claimed_by = coalesce(claimed_by, p_account) where user_id = p_guest
        returning claimed_by = p_account into won;
    won := coalesce(won, true);
    if won then
        -- A key that the account used for an order of its own stays with that.
        update orders o set user_id = p_account, updated_at = now(), idempotency_key = case when not exists (
                   select from orders mine where mine.user_id = p_account and mine.idempotency_key = o.idempotency_key)
               then o.idempotency_key end
         where o.user_id = p_guest;
    end if;
end $$;

-- Moves one song, for the journal, fenced and at a version as every step: event n says `gone` in the guest's log,
-- event n+1 `created` in the account's. The ledger's entries stay with who paid; what is still reserved is settled
-- with whom the song then belongs to. A key that the account used for another song stays with that one.
create function claim_song(
    p_node uuid, p_epoch bigint, p_guest text, p_account text, p_song uuid, p_head uuid, p_version bigint, p_seq bigint,
    p_plan text, p_at timestamptz, p_set jsonb,
    out moved boolean, out u_gone bigint, out u bigint
) language plpgsql
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
as $$
begin
    -- In one order for everybody.
    perform 1 from profiles where user_id in (p_guest, p_account) order by user_id for no key update;
    update tasks t set version = t.version + 1, seq = p_seq, updated_at = p_at
     where t.id = p_head and t.version = p_version and t.owner = p_node and t.epoch = p_epoch;
    moved := found;
    if not moved then
        -- A commit whose answer got lost is made again.
        select g.u, c.u into u_gone, u
          from tasks t
          join songs s on s.id = t.song_id and s.user_id = p_account
          join song_events g on g.song_id = s.id and g.seq = p_seq - 1 and g.user_id = p_guest and g.kind = 'gone'
          join song_events c on c.song_id = s.id and c.seq = p_seq and c.user_id = p_account and c.kind = 'created'
         where t.id = p_head and t.version = p_version + 1 and t.seq = p_seq and t.owner = p_node and t.epoch = p_epoch;
        moved := found;
        return;
    end if;
    update profiles p set u = p.u + 1 where p.user_id = p_guest returning p.u into u_gone;
    update profiles p set u = p.u + 1 where p.user_id = p_account returning p.u into u;
    update songs s
       set user_id = p_account, seq = p_seq, updated_at = p_at,
           wish = s.wish || jsonb_build_object('plan', p_plan),
           idempotency_key = case when not exists (
                   select from songs mine where mine.user_id = p_account and mine.idempotency_key = s.idempotency_key)
               then s.idempotency_key end
     where s.id = p_song;
    update notifications n set user_id = p_account where n.song_id = p_song;
    insert into song_events (at, song_id, seq, user_id, u, kind, set)
        values (now(), p_song, p_seq - 1, p_guest, u_gone, 'gone', '{}'),
               (now(), p_song, p_seq, p_account, u, 'created', p_set);
end $$;

-- Takes an order down, before any of its songs is made. `outcome`: placed | replay (same key, or the same a moment ago
-- without one) | mismatch (same key, other content).
create function place_order(
    p_user text, p_start bigint, p_order uuid, p_key text, p_hash bytea, p_package text, p_occasion date, p_provider text,
    p_songs jsonb, p_now timestamptz,
    out outcome text, out order_id uuid
) language plpgsql as $$
declare
    earlier orders;
begin
    perform enter(p_user, p_start);
    -- Takes turns with everything else that this user asks for.
    perform 1 from profiles where user_id = p_user for no key update;
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

-- What is shown besides: the owner's orders; what is for us alone is nobody's to call.
alter function show_rows() rename to show_song_rows;
create function show_rows() returns void language plpgsql as $$
declare
    f regprocedure;
    who text;
begin
    perform show_song_rows();
    for f in select p.oid::regprocedure from pg_proc p
              where p.pronamespace = current_schema()::regnamespace and pg_has_role(p.proowner, 'usage')
                and p.proname in ('show_song_rows', 'enter', 'begin_claim', 'claim_song', 'place_order')
    loop
        execute format('revoke all on function %s from public', f);
        foreach who in array array['anon', 'authenticated'] loop
            if to_regrole(who) is not null then
                execute format('revoke all on function %s from %I', f, who);
            end if;
        end loop;
    end loop;
    if to_regrole('authenticated') is not null then
        drop policy if exists own_rows on orders;
        create policy own_rows on orders for select to authenticated using (user_id = (select asking_user()));
        grant select (id, user_id, package, occasion_date, payment_reference, created_at, updated_at) on orders to authenticated;
        drop policy if exists own_rows on order_songs;
        create policy own_rows on order_songs for select to authenticated
            using (exists (select from orders o where o.id = order_id));
        grant select (order_id, position, song_id, variations, request) on order_songs to authenticated;
    end if;
end $$;

select lock_rows();
select show_rows();
