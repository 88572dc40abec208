-- What a song's steps cost Postgres, once more (V8). Beside this the version before works on as it did. The first part
-- writes the days' events anew, under a lock.

-- Events are kept as they are sent, word for word: taking each one's JSON apart and putting it together again was a tenth
-- of what a song's life cost.
alter table song_events alter column set type json using set::json;
-- A column of another type has forgotten how it was compressed.
do $$
declare
    each record;
begin
    for each in select relid from pg_partition_tree('song_events') loop
        execute format('alter table %s alter column set set compression lz4', each.relid);
    end loop;
exception when feature_not_supported then
    null;
end $$;

-- `create_songs` (V8) with the events as they are to be kept; the one before stays for nodes of the version before.
do $$
declare
    f regprocedure;
    who text;
begin
    execute replace(pg_get_functiondef(
        (select p.oid from pg_proc p where p.pronamespace = current_schema()::regnamespace and p.proname = 'create_songs')),
        'p_sets jsonb[]', 'p_sets json[]');
    for f in select p.oid::regprocedure from pg_proc p
              where p.pronamespace = current_schema()::regnamespace and p.proname = 'create_songs'
    loop
        execute format('revoke all on function %s from public', f);
        foreach who in array array['anon', 'authenticated'] loop
            if to_regrole(who) is not null then
                execute format('revoke all on function %s from %I', f, who);
            end if;
        end loop;
    end loop;
end $$;

-- Room for the next version of each row beside it, for all rows of a page: only then is a step a HOT update.
alter table tasks set (fillfactor = 50);
alter table songs set (fillfactor = 50);
alter table song_variants set (fillfactor = 45);

-- These rows are written in the statement that writes or locks what they belong to, and nothing of that is ever deleted.
-- To look it up and lock it once more for each row was a tenth of what a step cost, and more of a creation.
-- `doctor --audit` looks instead.
alter table songs drop constraint songs_user_id_fkey;
alter table tasks drop constraint tasks_song_id_fkey;
alter table song_variants drop constraint song_variants_song_id_fkey;
alter table notifications drop constraint notifications_song_id_fkey;
alter table credit_entries drop constraint credit_entries_user_id_fkey;

-- A user's entries are found by this anyway: one index less.
alter table credit_entries drop constraint credit_entries_pkey;
alter table credit_entries add primary key (user_id, id);
drop index credit_entries_of_user;
