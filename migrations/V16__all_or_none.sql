-- What a batch of steps asks of its own first statement: that all of its songs moved. Otherwise nothing of its transaction
-- is written, and it is written again without those that cannot move (`store/moves`).
create function all_moved(p_moved bigint, p_wanted bigint) returns boolean language plpgsql as $$
begin
    if p_moved <> p_wanted then
        raise exception '% of % songs moved', p_moved, p_wanted using errcode = 'SF001';
    end if;
    return true;
end $$;

-- Nobody from outside calls it, whatever default privileges say.
do $$
declare
    who text;
begin
    revoke all on function all_moved(bigint, bigint) from public;
    foreach who in array array['anon', 'authenticated'] loop
        if to_regrole(who) is not null then
            execute format('revoke all on function all_moved(bigint, bigint) from %I', who);
        end if;
    end loop;
end $$;
