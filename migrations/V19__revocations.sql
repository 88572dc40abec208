-- Whose tokens are refused although they have not expired: who signed out everywhere, or was banned (protocol.md 6).
-- Beside this the version before works on as it did.
create table revocations (
    user_id text primary key,
    -- Tokens issued up to this moment are not taken any more.
    before timestamptz not null,
    banned boolean not null,
    changed_at timestamptz not null
);
create index revocations_changed on revocations (changed_at);
select lock_rows();
