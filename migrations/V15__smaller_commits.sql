-- What a small commit costs Postgres (V8, V12): whatever stands in a table's definition is read, planned and made ready again
-- by every statement that writes a row of it. Beside this the version before works on as it did. No lock that anybody
-- notices.

-- What these say holds by what is written: of the program's own types, or never changed after it was. What guards money
-- stays, and what says of a task whether it runs. `doctor --audit` looks at these instead.
alter table profiles drop constraint profiles_user_id_check, drop constraint profiles_plan_check,
    drop constraint profiles_used_today_check, drop constraint profiles_previews_today_check;
alter table songs drop constraint songs_mode_check,
    -- Said by the other one as well: what is between nothing and the cost.
    drop constraint songs_cost_check;
alter table tasks drop constraint tasks_price_check;
alter table song_variants drop constraint song_variants_variant_number_check;

-- Only a step that sets it may end a task.
drop trigger remember_failure on tasks;
create trigger remember_failure after update of ended_at on tasks for each row
    when (old.ended_at is null and new.ended_at is not null
          and (new.beside or jsonb_typeof(new.progress -> 'error') = 'object'))
    execute function remember_failure();

-- `create_songs` (V8, V11) looks for newcomers before it makes ready to write them: most batches have none.
do $$
declare
    f regprocedure := 'create_songs(uuid, bigint, jsonb, text[], uuid[], text[], bytea[], text[], jsonb[], jsonb[], text[],
                                    text[], timestamptz[], uuid[], text[], text[], bigint[], jsonb[], jsonb[], json[],
                                    text[], bigint[], boolean[])'::regprocedure;
    text text := pg_get_functiondef(f);
    first constant text := '    with new as (
        insert into profiles';
    last constant text := 'from new where credits > 0;';
begin
    if position(first in text) = 0 or position(last in text) = 0 then
        raise 'create_songs is not as V8 made it';
    end if;
    text := replace(text, first, '    if exists (select from unnest(p_users) name
                where not exists (select from profiles p where p.user_id = name)) then
' || first);
    text := replace(text, last, last || '
    end if;');
    execute text;
end $$;
