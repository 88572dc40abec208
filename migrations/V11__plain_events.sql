-- Events are kept as they are sent, word for word: taking each one's JSON apart and putting it together again was a tenth
-- of what a song's life cost Postgres. Beside this the version before works on as it did. Writes the days' events anew,
-- under a lock on nothing else: who commits meanwhile waits for it, and it for nobody.

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

-- For nodes of the version before, which ask after a commit of unknown outcome whether an event is the one they wrote.
-- The next version may drop it, and the `create_songs` that takes `jsonb[]` for events.
create function json_is(json, jsonb) returns boolean language sql immutable parallel safe return $1::jsonb = $2;
create operator = (leftarg = json, rightarg = jsonb, function = json_is);

-- `create_songs` (V8, where its text stands) with the events as they are to be kept.
do $$
declare
    f regprocedure;
    who text;
begin
    execute replace(pg_get_functiondef(
        'create_songs(uuid, bigint, jsonb, text[], uuid[], text[], bytea[], text[], jsonb[], jsonb[], text[], text[],
                      timestamptz[], uuid[], text[], text[], bigint[], jsonb[], jsonb[], jsonb[], text[], bigint[],
                      boolean[])'::regprocedure), 'p_sets jsonb[]', 'p_sets json[]');
    -- Nobody from outside calls them, whatever default privileges say.
    for f in select p.oid::regprocedure from pg_proc p
              where p.pronamespace = current_schema()::regnamespace and p.proname in ('create_songs', 'json_is')
    loop
        execute format('revoke all on function %s from public', f);
        foreach who in array array['anon', 'authenticated'] loop
            if to_regrole(who) is not null then
                execute format('revoke all on function %s from %I', f, who);
            end if;
        end loop;
    end loop;
end $$;
