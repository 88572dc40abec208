-- The holder of a share link sees its variant also when signed in (OPS-8): to show something to somebody without a name
-- and hide it from everybody with one has no sense. It is one more policy beside that of a user's own rows, so of a
-- variant that was shared the same columns are seen as of one's own (beside anon's the clip's id, and where it is found
-- if all else fails). The song, its tasks and all else stay its owner's. The version before works on as it did.

alter function show_rows() rename to show_rows_and_orders;
create function show_rows() returns void language plpgsql as $$
declare
    who text;
begin
    perform show_rows_and_orders();
    revoke all on function show_rows_and_orders() from public;
    foreach who in array array['anon', 'authenticated'] loop
        if to_regrole(who) is not null then
            execute format('revoke all on function show_rows_and_orders() from %I', who);
        end if;
    end loop;
    if to_regrole('authenticated') is not null then
        drop policy if exists shared_with_user on song_variants;
        create policy shared_with_user on song_variants for select to authenticated
            using (share_token = (select asking_share()));
    end if;
end $$;

select show_rows();
