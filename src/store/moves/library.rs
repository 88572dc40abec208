//! What steps write to a song as its owner sees it: its row in the library, its clips, and the lyrics to choose from.

use tokio_postgres::types::Json;

use super::{Moving, Part, rare};
use crate::song::phase::Variant;
use crate::store::columns::{Columns, column};
use crate::store::row::StepRow;
use crate::store::timestamp;
use crate::time::Time;

pub(super) const SONGS: Part = Part {
    sql: "
library as (
    update songs s
       set status = c.status::song_status, wish = coalesce(c.wish, s.wish), title = c.title, lyrics = c.lyrics,
           error = c.error, cost = c.cost, refunded = c.refunded, retries = c.retries::timestamptz[],
           last_viewed_at = c.viewed, deleted_at = c.deleted, seq = c.seq, updated_at = c.at
      from unnest(?::uuid[], ?::text[], ?::jsonb[], ?::text[], ?::text[], ?::jsonb[], ?::bigint[], ?::bigint[], ?::text[],
                  ?::timestamptz[], ?::timestamptz[], ?::bigint[], ?::timestamptz[])
        as c (song_id, status, wish, title, lyrics, error, cost, refunded, retries, viewed, deleted, seq, at)
     where s.id = c.song_id)",
    needed: |moving| moving.steps.iter().any(|row| row.library.is_some()),
    columns: songs,
    answer: None,
};

fn songs<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let rows = || moving.steps.iter().filter_map(|row| row.library.as_ref().map(|library| (row, library)));
    let time = |time: Time| timestamp(time.millis());
    vec![
        column!(rows(), (row, _) => row.song.0),
        column!(rows(), (_, library) => library.status.as_str()),
        column!(rows(), (_, library) => library.wish.as_deref().map(Json)),
        column!(rows(), (_, library) => library.title.as_deref()),
        column!(rows(), (_, library) => library.lyrics.as_deref()),
        column!(rows(), (_, library) => library.error.as_ref().map(Json)),
        column!(rows(), (_, library) => library.cost.thousandths()),
        column!(rows(), (_, library) => library.refunded.thousandths()),
        column!(rows(), (_, library) => array(&library.retries)),
        column!(rows(), (_, library) => library.viewed.map(time)),
        column!(rows(), (_, library) => library.deleted.map(time)),
        column!(rows(), (row, _) => row.seq),
        column!(rows(), (row, _) => time(row.at)),
    ]
}

/// As Postgres reads an array of times.
fn array(times: &[Time]) -> String {
    let times: Vec<String> = times.iter().map(|time| timestamp(time.millis()).to_string()).collect();
    format!("{{{}}}", times.join(","))
}

/// Nobody but the song's owner makes them, which moves it here: so it is known which are new. Those that changed are joined
/// by where they stand: by their key, a table that was empty when this was planned would be read whole.
pub(super) const VARIANTS: Part = Part {
    sql: "
new_clips as (
    insert into song_variants (song_id, variant_number, status, clip_id, provider_task, title, duration_ms, stream_url,
                               audio_url, fallback_url, asset_url, image_url, video_url, selected, share_token)
    select song_id, variant_number, status::variant_status, clip_id, provider_task, title, duration_ms, stream_url,
           audio_url, fallback_url, asset_url, image_url, video_url, selected, share_token
      from unnest(?::uuid[], ?::smallint[], ?::text[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::text[], ?::text[],
                  ?::text[], ?::text[], ?::text[], ?::text[], ?::boolean[], ?::uuid[])
        as c (song_id, variant_number, status, clip_id, provider_task, title, duration_ms, stream_url, audio_url,
              fallback_url, asset_url, image_url, video_url, selected, share_token)),
clips as materialized (
    select c.*, (select s.ctid from song_variants s
                  where s.song_id = c.song_id and s.variant_number = c.variant_number) as place
      from unnest(?::uuid[], ?::smallint[], ?::text[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::text[], ?::text[],
                  ?::text[], ?::text[], ?::text[], ?::text[], ?::boolean[], ?::uuid[])
        as c (song_id, variant_number, status, clip_id, provider_task, title, duration_ms, stream_url, audio_url,
              fallback_url, asset_url, image_url, video_url, selected, share_token)),
changed_clips as (
    update song_variants v
       set status = c.status::variant_status, clip_id = c.clip_id, provider_task = c.provider_task, title = c.title,
           duration_ms = c.duration_ms, stream_url = c.stream_url, audio_url = c.audio_url,
           fallback_url = c.fallback_url, asset_url = c.asset_url, image_url = c.image_url, video_url = c.video_url,
           selected = c.selected, share_token = c.share_token
      from clips c
     where v.ctid = c.place)",
    needed: |moving| {
        moving.steps.iter().any(|row| !row.new_variants.is_empty() || !row.changed_variants.is_empty())
    },
    columns: variants,
    answer: None,
};

fn variants<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let mut columns = clips(moving, |row| &row.new_variants);
    columns.extend(clips(moving, |row| &row.changed_variants));
    columns
}

fn clips<'a>(moving: &Moving<'a>, of: fn(&'a StepRow) -> &'a Vec<Variant>) -> Columns<'a> {
    let steps = || moving.steps.iter().copied();
    let all = || steps().flat_map(of);
    vec![
        column!(steps().flat_map(|row| of(row).iter().map(move |_| row)), row => row.song.0),
        column!(all(), clip => clip.variant_number),
        column!(all(), clip => clip.status.as_str()),
        column!(all(), clip => clip.clip_id.as_deref()),
        column!(all(), clip => clip.provider_task.as_deref()),
        column!(all(), clip => clip.title.as_deref()),
        column!(all(), clip => clip.duration_ms),
        column!(all(), clip => clip.stream_url.as_deref()),
        column!(all(), clip => clip.audio_url.as_deref()),
        column!(all(), clip => clip.fallback_url.as_deref()),
        column!(all(), clip => clip.asset_url.as_deref()),
        column!(all(), clip => clip.image_url.as_deref()),
        column!(all(), clip => clip.video_url.as_deref()),
        column!(all(), clip => clip.selected),
        column!(all(), clip => clip.share_token.0),
    ]
}

pub(super) const TEXTS: Part = Part {
    sql: "
texts as (
    insert into lyrics_variants (song_id, variant_index, title, text, selected)
    select b.song_id, l.variant_index, l.title, l.text, l.selected
      from unnest(?::uuid[], ?::json[]) as b (song_id, lyrics)
     cross join lateral json_to_recordset(b.lyrics) as l(variant_index smallint, title text, text text, selected boolean)
    on conflict (song_id, variant_index) do update
       set title = excluded.title, text = excluded.text, selected = excluded.selected)",
    needed: rare,
    columns: texts,
    answer: None,
};

fn texts<'a>(moving: &Moving<'a>) -> Columns<'a> {
    let rows = || moving.steps.iter().filter(|row| row.lyrics.is_some());
    vec![column!(rows(), row => row.song.0), column!(rows(), row => row.lyrics.as_ref().map(Json))]
}
