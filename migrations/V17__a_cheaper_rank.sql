-- What a small commit costs Postgres, once more (V15). Beside this the version before works on as it did.

-- A function in SQL is parsed and put into the expression anew by every statement that may change a song's status; this one
-- is compiled once for a session.
create or replace function library_rank(status song_status) returns smallint
    language plpgsql immutable parallel safe as $$
begin
    return case status
        when 'lyrics_ready' then 6 when 'ready' then 5
        when 'pending' then 4 when 'generating_lyrics' then 4 when 'generating_music' then 4
        when 'complete' then 3 when 'failed' then 2 else 1 end;
end $$;
