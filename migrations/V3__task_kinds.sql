-- All task kinds (PROV-2): tasks that add something to a finished song (stems, a video, a persona) run beside its
-- head. `beside` tells them apart; `addition` is what they work on and what came of it.
alter table tasks add column beside boolean not null default false, add column addition jsonb;

-- Clips are written several times while they are made.
alter table song_variants set (fillfactor = 70);

-- The provider's id of the task that brought a clip: further work on it may have to name that.
alter table song_variants add column provider_task text;
