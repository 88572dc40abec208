-- What a song's steps cost Postgres, once more (V8). Beside this the version before works on as it did.

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
