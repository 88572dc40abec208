//! The song as clients see it (`api.md`, "The song"): one shape for HTTP, WebSocket, and the events'
//! `set`. Pure.
//!
//! Never here: a provider's own error text, raw callbacks, content hashes.

use serde_json::{Map, Value, json};

use super::parts::TaskKind;
use super::phase::{Phase, Progress, Rules, Song, Variant, VariantStatus, Waiting};
use super::refusal::{NextRetry, next_retry};
use crate::provider::failure::Failure;
use crate::time::Time;

/// All top-level fields of a song, `seq` included.
pub fn view(song: &Song, rules: &Rules) -> Map<String, Value> {
    let wish = &song.wish;
    let fields = json!({
        "id": song.id,
        "seq": song.seq,
        "status": song.status().as_str(),
        "mode": wish.mode.as_str(),
        "title": song.title,
        "prompt": wish.prompt,
        "style_tags": wish.options.style_tags,
        "instrumental": wish.options.instrumental,
        "provider": wish.provider,
        "model": wish.options.model,
        "lyrics": song.lyrics,
        "lyrics_variants": song.lyrics_variants,
        "variants": song.variants.iter().map(variant).collect::<Vec<_>>(),
        "progress": {
            "lyrics": progress(song, TaskKind::Lyrics),
            "music": progress(song, TaskKind::Generate),
        },
        "queue_position": Value::Null,
        "eta_ms": Value::Null,
        "waiting_for": song.phase.run().and_then(|run| run.waiting).map(waiting_for),
        "retry": retry(song, rules),
        "error": error(song),
        "cost": song.cost.as_json(),
        "refunded": song.refunded.as_json(),
        "preview": wish.preview,
        "notifications_sent": [],
        "parent_ids": [],
        "metadata": *song.metadata,
        "last_viewed_at": song.last_viewed_at.map(Time::rfc3339),
        "created_at": song.created_at.rfc3339(),
        "updated_at": song.updated_at.rfc3339(),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The fields of `after` that differ from `before`: what an event carries as `set`. Never `seq`, which
/// stands beside it.
pub fn changes(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    after
        .iter()
        .filter(|(field, value)| *field != "seq" && before.get(*field) != Some(*value))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect()
}

const fn waiting_for(waiting: Waiting) -> &'static str {
    match waiting {
        Waiting::Concurrency => "concurrency",
        Waiting::ProviderLimit => "provider_limit",
        Waiting::Retry => "retry",
    }
}

fn variant(variant: &Variant) -> Value {
    json!({
        "variant_number": variant.variant_number,
        "status": match variant.status {
            VariantStatus::Pending => "pending",
            VariantStatus::Generating => "generating",
            VariantStatus::Complete => "complete",
            VariantStatus::Failed => "failed",
        },
        "clip_id": variant.clip_id,
        "title": variant.title,
        "duration_ms": variant.duration_ms,
        "stream_url": variant.stream_url,
        "audio_url": variant.audio_url,
        "asset_url": variant.asset_url,
        "image_url": variant.image_url,
        "video_url": variant.video_url,
        "share_token": variant.share_token,
        "selected": variant.selected,
    })
}

fn progress(song: &Song, kind: TaskKind) -> Value {
    let Some(progress) = song.progress(kind) else { return Value::Null };
    let Progress { task, provider_task, started_at, completed_at, error, retry_count } = progress;
    json!({
        "task_id": task,
        "provider_task_id": provider_task,
        "started_at": started_at.map(Time::rfc3339),
        "completed_at": completed_at.map(Time::rfc3339),
        "error": error.as_ref().map(error_view),
        "retry_count": retry_count,
    })
}

/// `allowed` speaks of the present state; a limit that time alone lifts is told by `next_allowed_at`,
/// so that the view does not change by merely being looked at later.
fn retry(song: &Song, rules: &Rules) -> Value {
    let left = usize::from(rules.manual_retries.max).saturating_sub(song.retries.len());
    let next = match next_retry(song, song.updated_at, rules) {
        NextRetry::At(at) => Some(at.rfc3339()),
        NextRetry::Now | NextRetry::Never => None,
    };
    json!({
        "allowed": matches!(song.phase, Phase::Failed(_)) && left > 0,
        "left": left,
        "next_allowed_at": next,
    })
}

fn error(song: &Song) -> Option<Value> {
    match &song.phase {
        Phase::Failed(failure) => Some(error_view(failure)),
        Phase::Lyrics(_)
        | Phase::LyricsReady
        | Phase::Music(_)
        | Phase::Ready
        | Phase::Complete
        | Phase::Cancelled
        | Phase::Deleted => None,
    }
}

fn error_view(failure: &Failure) -> Value {
    json!({
        "class": failure.class,
        "code": failure.code,
        "message": failure.user_text(),
        "retryable": failure.retryable(),
    })
}

/// What the holder of a share link may see: this variant and its frame, nothing else (RT-6). Works on a
/// whole song and on an event's `set` alike; empty when nothing in it is for them.
pub fn shared(fields: &Map<String, Value>, share_token: &str) -> Map<String, Value> {
    const OPEN: [&str; 5] = ["id", "seq", "status", "title", "instrumental"];
    let mut shared: Map<String, Value> = fields
        .iter()
        .filter(|(field, _)| OPEN.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    if let Some(Value::Array(variants)) = fields.get("variants") {
        let theirs = variants.iter().filter(|variant| variant["share_token"] == share_token);
        shared.insert("variants".to_owned(), theirs.cloned().collect());
    }
    shared
}
