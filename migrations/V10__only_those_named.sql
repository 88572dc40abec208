-- Rows are reached by their keys alone, as in the journal's own session: a plan made while a table was small would join it
-- by hashing all of it, for every batch, however many people there are later. No lock that anybody notices.
do $$
declare
    name regprocedure;
begin
    for name in select oid::regprocedure from pg_proc
                 where proname = 'create_songs' and pronamespace = current_schema()::regnamespace
    loop
        execute format('alter function %s set enable_hashjoin = off', name);
    end loop;
end $$;
