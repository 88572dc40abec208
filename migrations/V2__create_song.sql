-- The two places where money is taken: functions, because each must look again at what committed while
-- it waited for the profile's row, which a single statement with CTEs cannot (its snapshot is older).
-- Both are called for many songs at once, inside the journal's one transaction. The journal's session plans
-- every statement anew, because a plan made while the tables were small would be kept; these two look up single
-- rows by their keys, for which one plan is good for ever: by the index, however small the table is. Planned anew
-- for each song they took twice as long.

-- Creates a song in one round trip: replay by idempotency key, else charge, song, first task, ledger, event 1.
-- `outcome`: created | replay (song_id says which) | mismatch (same key, other content) | gone (the key's
-- song was deleted) | short (available < the price).
create function create_song(
    p_node uuid, p_epoch bigint, p_grant bigint,
    p_user text, p_song uuid, p_key text, p_hash bytea, p_mode text, p_wish jsonb, p_metadata jsonb,
    p_title text, p_lyrics text, p_now timestamptz,
    p_task uuid, p_kind text, p_provider text, p_price bigint, p_run jsonb, p_progress jsonb, p_set jsonb,
    out outcome text, out song_id uuid, out u bigint, out available bigint
) language plpgsql
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
as $$
declare
    person profiles;
    earlier songs;
begin
    insert into profiles (user_id, credits) values (p_user, p_grant) on conflict do nothing;
    if found and p_grant > 0 then
        insert into credit_entries (user_id, amount, reason, balance) values (p_user, p_grant, 'grant', p_grant);
    end if;
    -- Takes turns with everything else that this user creates or reserves.
    select * into person from profiles where profiles.user_id = p_user for no key update;
    available := person.credits;

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
    end if;
    if person.credits < p_price then
        outcome := 'short';
        return;
    end if;

    update profiles p set credits = p.credits - p_price, u = p.u + 1
        where p.user_id = p_user returning p.u, p.credits into u, available;
    insert into songs (id, user_id, status, mode, wish, idempotency_key, content_hash, metadata, title, lyrics,
                       cost, created_at, updated_at)
        values (p_song, p_user, 'pending', p_mode, p_wish, p_key, p_hash, p_metadata, p_title, p_lyrics,
                p_price, p_now, p_now);
    insert into tasks (id, song_id, number, kind, provider, price, owner, epoch, run, progress, created_at, updated_at)
        values (p_task, p_song, 1, p_kind, p_provider, p_price, p_node, p_epoch, p_run, p_progress, p_now, p_now);
    if p_price > 0 then
        insert into credit_entries (user_id, song_id, task_id, task_kind, amount, reason, balance)
            values (p_user, p_song, p_task, p_kind, -p_price, 'reserve', available);
    end if;
    insert into song_events (at, song_id, seq, user_id, u, kind, set)
        values (now(), p_song, 1, p_user, u, 'created', p_set);
    outcome := 'created';
    song_id := p_song;
end $$;

-- Reserves the price of a further task of a song (the music after the choice, a retry), if its owner has it
-- and the song is still where the step was decided. Writes nothing otherwise. `outcome`: reserved | short | stale.
create function reserve_credits(
    p_node uuid, p_epoch bigint, p_user text, p_song uuid, p_head uuid, p_version bigint,
    p_task uuid, p_kind text, p_amount bigint,
    out outcome text, out available bigint
) language plpgsql
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
as $$
begin
    select credits into available from profiles where user_id = p_user for no key update;
    perform 1 from tasks t
        where t.id = p_head and t.version = p_version and t.owner = p_node and t.epoch = p_epoch for no key update;
    if not found then
        outcome := 'stale';
        return;
    end if;
    if available < p_amount then
        outcome := 'short';
        return;
    end if;
    update profiles set credits = credits - p_amount where user_id = p_user returning credits into available;
    insert into credit_entries (user_id, song_id, task_id, task_kind, amount, reason, balance)
        values (p_user, p_song, p_task, p_kind, -p_amount, 'reserve', available);
    outcome := 'reserved';
end $$;
