//! The least that could keep songs: a table, a row of it moved on by its version, and a row for the event, 256 songs in
//! one transaction on one connection. No fence, no ledger, no library, no callbacks: what the journal is held against.

use songflight::store::row::{NewSong, StepRow};
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Statement};

use crate::{Failure, cannot};

pub(super) const BATCH: usize = 256;

const TABLES: &str = "
create table bare_songs (id uuid primary key, version bigint not null, run jsonb, progress jsonb) with (fillfactor = 70);
create table bare_events (song_id uuid, seq bigint, kind text, set jsonb, primary key (song_id, seq))";

const BIRTH: &str = "
with b as materialized (select * from unnest($1::uuid[], $2::jsonb[]) b (id, set)),
     born as (insert into bare_songs select id, 1, null, null from b)
insert into bare_events select id, 1, 'created', set from b";

const STEP: &str = "
with b as materialized (
        select * from unnest($1::uuid[], $2::bigint[], $3::jsonb[], $4::jsonb[], $5::text[], $6::jsonb[])
            b (id, version, run, progress, kind, set)),
     moved as (update bare_songs s set version = s.version + 1, run = b.run, progress = b.progress
                 from b where s.id = b.id and s.version = b.version returning s.id)
insert into bare_events select b.id, b.version + 1, b.kind, b.set from b join moved using (id)";

pub(super) struct Bare {
    client: Client,
    birth: Statement,
    step: Statement,
}

impl Bare {
    pub(super) async fn new(client: Client) -> Result<Self, Failure> {
        let made = async {
            client.batch_execute(TABLES).await?;
            client.batch_execute("set plan_cache_mode = force_custom_plan; set jit = off").await?;
            Ok::<_, tokio_postgres::Error>((client.prepare(BIRTH).await?, client.prepare(STEP).await?))
        };
        let (birth, step) = made.await.map_err(cannot("the bare writer"))?;
        Ok(Self { client, birth, step })
    }

    pub(super) async fn births(&self, births: &[NewSong]) -> Result<(), Failure> {
        let ids: Vec<_> = births.iter().map(|birth| birth.song.id.0).collect();
        let sets: Vec<_> = births.iter().map(|birth| Json(&birth.set)).collect();
        let written = self.client.execute(&self.birth, &[&ids, &sets]).await;
        all_written(written, births.len())
    }

    pub(super) async fn steps(&self, rows: &[StepRow]) -> Result<(), Failure> {
        let ids: Vec<_> = rows.iter().map(|row| row.song.0).collect();
        let versions: Vec<_> = rows.iter().map(|row| row.version).collect();
        let runs: Vec<_> = rows.iter().map(|row| row.run.as_ref().map(Json)).collect();
        let progress: Vec<_> = rows.iter().map(|row| Json(&row.progress)).collect();
        let kinds: Vec<_> = rows.iter().map(StepRow::event_kind).collect();
        let sets: Vec<_> = rows.iter().map(|row| row.event.as_ref().map(|(_, set)| Json(set))).collect();
        let written =
            self.client.execute(&self.step, &[&ids, &versions, &runs, &progress, &kinds, &sets]).await;
        all_written(written, rows.len())
    }
}

fn all_written(written: Result<u64, tokio_postgres::Error>, wanted: usize) -> Result<(), Failure> {
    match written.map_err(cannot("the bare writer"))? {
        written if written == wanted as u64 => Ok(()),
        written => Err(Failure(format!("the bare writer wrote {written} rows of {wanted}"))),
    }
}
