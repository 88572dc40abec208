//! What steps write to a song as its owner sees it: its row in the library, its clips, and the lyrics to choose from.

use tokio_postgres::types::Json;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::StoreError;
use crate::song::phase::Variant;
use crate::store::row::StepRow;
use crate::store::timestamp;
use crate::time::Time;

const SONGS: &str = "
update songs s
   set status = c.status::song_status, wish = coalesce(c.wish, s.wish), title = c.title, lyrics = c.lyrics, error = c.error,
       cost = c.cost, refunded = c.refunded, retries = c.retries::timestamptz[], last_viewed_at = c.viewed,
       deleted_at = c.deleted, seq = c.seq, updated_at = c.at
  from unnest($1::uuid[], $2::text[], $3::jsonb[], $4::text[], $5::text[], $6::jsonb[], $7::bigint[], $8::bigint[],
              $9::text[], $10::timestamptz[], $11::timestamptz[], $12::bigint[], $13::timestamptz[])
    as c (song_id, status, wish, title, lyrics, error, cost, refunded, retries, viewed, deleted, seq, at)
 where s.id = c.song_id";

/// Nobody but the song's owner makes them, which moves it in the same transaction: so there is no need for `on conflict`,
/// which costs twice as much.
const NEW_VARIANTS: &str = "
insert into song_variants (song_id, variant_number, status, clip_id, provider_task, title, duration_ms, stream_url, audio_url,
                           fallback_url, asset_url, image_url, video_url, share_token, selected)
select c.song_id, c.variant_number, c.status::variant_status, c.clip_id, c.provider_task, c.title, c.duration_ms,
       c.stream_url, c.audio_url, c.fallback_url, c.asset_url, c.image_url, c.video_url, c.share_token, c.selected
  from unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
              $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::boolean[], $15::uuid[])
    as c (song_id, variant_number, status, clip_id, provider_task, title, duration_ms, stream_url, audio_url, fallback_url,
          asset_url, image_url, video_url, selected, share_token)";

/// Joined by where they stand: by their key, a table that was empty when this was planned would be read whole.
const CHANGED_VARIANTS: &str = "
with clips as materialized (
    select c.*, (select s.ctid from song_variants s
                  where s.song_id = c.song_id and s.variant_number = c.variant_number) as place
      from unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
                  $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::boolean[])
        as c (song_id, variant_number, status, clip_id, provider_task, title, duration_ms, stream_url, audio_url,
              fallback_url, asset_url, image_url, video_url, selected)
)
update song_variants v
   set status = c.status::variant_status, clip_id = c.clip_id, provider_task = c.provider_task, title = c.title,
       duration_ms = c.duration_ms, stream_url = c.stream_url, audio_url = c.audio_url, fallback_url = c.fallback_url,
       asset_url = c.asset_url, image_url = c.image_url, video_url = c.video_url, selected = c.selected
  from clips c
 where v.ctid = c.place";

const TEXTS: &str = "
insert into lyrics_variants (song_id, variant_index, title, text, selected)
select b.song_id, l.variant_index, l.title, l.text, l.selected
  from unnest($1::uuid[], $2::json[]) as b (song_id, lyrics)
 cross join lateral json_to_recordset(b.lyrics) as l(variant_index smallint, title text, text text, selected boolean)
on conflict (song_id, variant_index) do update
   set title = excluded.title, text = excluded.text, selected = excluded.selected";

pub(super) struct Library {
    songs: Statement,
    new_variants: Statement,
    changed_variants: Statement,
    texts: Statement,
}

impl Library {
    pub(super) async fn prepare(client: &Client) -> Result<Self, StoreError> {
        let (songs, new_variants, changed_variants, texts) = tokio::try_join!(
            client.prepare(SONGS),
            client.prepare(NEW_VARIANTS),
            client.prepare(CHANGED_VARIANTS),
            client.prepare(TEXTS)
        )?;
        Ok(Self { songs, new_variants, changed_variants, texts })
    }

    pub(super) async fn songs(&self, client: &Client, steps: &[&StepRow]) -> Result<(), StoreError> {
        let rows = || steps.iter().filter_map(|row| row.library.as_ref().map(|library| (row, library)));
        if rows().next().is_none() {
            return Ok(());
        }
        let time = |time: Time| timestamp(time.millis());
        let songs: Vec<Uuid> = rows().map(|(row, _)| row.song.0).collect();
        let statuses: Vec<&str> = rows().map(|(_, library)| library.status.as_str()).collect();
        let wishes: Vec<_> = rows().map(|(_, library)| library.wish.as_deref().map(Json)).collect();
        let titles: Vec<_> = rows().map(|(_, library)| library.title.as_deref()).collect();
        let lyrics: Vec<_> = rows().map(|(_, library)| library.lyrics.as_deref()).collect();
        let errors: Vec<_> = rows().map(|(_, library)| library.error.as_ref().map(Json)).collect();
        let costs: Vec<i64> = rows().map(|(_, library)| library.cost.thousandths()).collect();
        let refunds: Vec<i64> = rows().map(|(_, library)| library.refunded.thousandths()).collect();
        let retries: Vec<String> = rows().map(|(_, library)| array(&library.retries)).collect();
        let viewed: Vec<_> = rows().map(|(_, library)| library.viewed.map(time)).collect();
        let deleted: Vec<_> = rows().map(|(_, library)| library.deleted.map(time)).collect();
        let seqs: Vec<i64> = rows().map(|(row, _)| row.seq).collect();
        let times: Vec<_> = rows().map(|(row, _)| time(row.at)).collect();
        client
            .execute(
                &self.songs,
                &[
                    &songs, &statuses, &wishes, &titles, &lyrics, &errors, &costs, &refunds, &retries, &viewed,
                    &deleted, &seqs, &times,
                ],
            )
            .await?;
        Ok(())
    }

    pub(super) async fn variants(&self, client: &Client, steps: &[&StepRow]) -> Result<(), StoreError> {
        let new = steps.iter().flat_map(|row| row.new_variants.iter().map(|one| (row.song.0, one)));
        let changed = steps.iter().flat_map(|row| row.changed_variants.iter().map(|one| (row.song.0, one)));
        let (new, changed): (Vec<_>, Vec<_>) = (new.collect(), changed.collect());
        let (new, changed) = tokio::join!(
            biased;
            write_variants(client, &self.new_variants, &new, true),
            write_variants(client, &self.changed_variants, &changed, false)
        );
        new.and(changed)
    }

    pub(super) async fn texts(&self, client: &Client, steps: &[&StepRow]) -> Result<(), StoreError> {
        let rows = || steps.iter().filter(|row| row.lyrics.is_some());
        if rows().next().is_none() {
            return Ok(());
        }
        let songs: Vec<Uuid> = rows().map(|row| row.song.0).collect();
        let lyrics: Vec<_> = rows().map(|row| row.lyrics.as_ref().map(Json)).collect();
        client.execute(&self.texts, &[&songs, &lyrics]).await?;
        Ok(())
    }
}

/// `new`: with what never changes of them.
async fn write_variants(
    client: &Client,
    statement: &Statement,
    variants: &[(Uuid, &Variant)],
    new: bool,
) -> Result<(), StoreError> {
    if variants.is_empty() {
        return Ok(());
    }
    let all = || variants.iter().map(|(_, variant)| *variant);
    let songs: Vec<Uuid> = variants.iter().map(|(song, _)| *song).collect();
    let numbers: Vec<i16> = all().map(|one| one.variant_number).collect();
    let statuses: Vec<&str> = all().map(|one| one.status.as_str()).collect();
    let clips: Vec<_> = all().map(|one| one.clip_id.as_deref()).collect();
    let tasks: Vec<_> = all().map(|one| one.provider_task.as_deref()).collect();
    let titles: Vec<_> = all().map(|one| one.title.as_deref()).collect();
    let durations: Vec<_> = all().map(|one| one.duration_ms).collect();
    let streams: Vec<_> = all().map(|one| one.stream_url.as_deref()).collect();
    let audios: Vec<_> = all().map(|one| one.audio_url.as_deref()).collect();
    let fallbacks: Vec<_> = all().map(|one| one.fallback_url.as_deref()).collect();
    let assets: Vec<_> = all().map(|one| one.asset_url.as_deref()).collect();
    let images: Vec<_> = all().map(|one| one.image_url.as_deref()).collect();
    let videos: Vec<_> = all().map(|one| one.video_url.as_deref()).collect();
    let selected: Vec<bool> = all().map(|one| one.selected).collect();
    let tokens: Vec<Uuid> = all().map(|one| one.share_token.0).collect();
    let mut columns: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![
        &songs, &numbers, &statuses, &clips, &tasks, &titles, &durations, &streams, &audios, &fallbacks, &assets,
        &images, &videos, &selected,
    ];
    if new {
        columns.push(&tokens);
    }
    client.execute(statement, &columns).await?;
    Ok(())
}

/// As Postgres reads an array of times.
fn array(times: &[Time]) -> String {
    let times: Vec<String> = times.iter().map(|time| timestamp(time.millis()).to_string()).collect();
    format!("{{{}}}", times.join(","))
}
