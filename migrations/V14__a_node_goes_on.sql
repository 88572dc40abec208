-- A process that is started where another one ran, which is gone for certain, goes on as the same node, with an epoch
-- more: what runs is its own already, and a hundred thousand songs are resumed without a write (OPS-3). Beside this the
-- version before works on as it did; it may take what such a node has inherited and not moved yet.

alter table nodes
    -- The epoch of the process before: from it on, tasks are this one's, until they move or are taken up anew.
    add column inherits bigint check (inherits < epoch),
    -- Whether it has them all in hand. One that never had answers for nothing: the next one inherits what it did.
    add column resumed boolean not null default true;

-- A task is its owner's in whatever epoch the owner got it: that this is the owner's epoch still, the fence says, which
-- every statement that calls these has.
do $$
declare
    f record;
    old constant text := 't.owner = p_node and t.epoch = p_epoch';
    text text;
begin
    for f in select p.oid, p.proname from pg_proc p
              where p.pronamespace = current_schema()::regnamespace and p.proname in ('reserve_credits', 'claim_song')
    loop
        text := pg_get_functiondef(f.oid);
        if f.proname = 'claim_song' then
            -- One that was claimed by this very process is known again by its epoch.
            text := replace(text, 'set version = t.version + 1,', 'set version = t.version + 1, epoch = p_epoch,');
            text := overlay(text placing 't.owner = p_node' from position(old in text) for length(old));
        else
            text := overlay(text placing 't.owner = p_node' from position(old in text) for length(old));
        end if;
        execute text;
    end loop;
end $$;
