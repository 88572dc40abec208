-- Letters that were closed long ago are found without reading all others (OPS-1). Beside this the version before works on
-- as it did. Makes an index of the closed letters there are, under a lock on the letters.
create index failed_jobs_resolved on failed_jobs (resolved_at) where resolved_at is not null;
