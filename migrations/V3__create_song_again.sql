-- A commit whose answer got lost is made again with the same song. Without an idempotency key the second
-- time met the song's own primary key, and was refused as a bad row although the song was there and paid for.
-- The function looks for the song itself first and answers `created`, as the first time.
create or replace function create_song(
    p_node uuid, p_epoch bigint, p_grant bigint,
    p_user text, p_song uuid, p_key text, p_hash bytea, p_mode text, p_wish jsonb, p_metadata jsonb,
    p_title text, p_lyrics text, p_now timestamptz,
    p_task uuid, p_kind text, p_provider text, p_price bigint, p_run jsonb, p_progress jsonb, p_set jsonb,
    out outcome text, out song_id uuid, out u bigint, out available bigint
) language plpgsql as $$
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

    select e.u into u from song_events e where e.song_id = p_song and e.seq = 1;
    if found then
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
