//! The song as clients see it (`api.md`, "The song"): one shape for HTTP, WebSocket, and the events'
//! `set`. Pure.
//!
//! Never here: a provider's own error text, raw callbacks, content hashes.

use serde_json::{Map, Value, json};

use super::parts::TaskKind;
use super::phase::{
    Addition, AdditionState, PassedOver, Phase, Progress, Rules, Song, Variant, VariantStatus, Waiting,
};
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
        "queue_position": song.phase.run().and_then(|run| run.queue_position),
        "eta_ms": eta_ms(song),
        "waiting_for": song.phase.run().and_then(|run| run.waiting).map(waiting_for),
        "retry": retry(song, rules),
        "error": error(song),
        "cost": song.cost.as_json(),
        "refunded": song.refunded.as_json(),
        "preview": wish.preview,
        "notifications_sent": [],
        "tasks": song.additions.iter().map(addition).collect::<Vec<_>>(),
        "parent_ids": wish.parent_ids,
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
        Waiting::ProviderDown => "provider_down",
        Waiting::ProviderAnswer => "provider_answer",
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
    song.progress(kind).map_or(Value::Null, progress_view)
}

fn progress_view(progress: &Progress) -> Value {
    let Progress { task, provider_task, started_at, completed_at, error, retry_count, passed_over } =
        progress;
    json!({
        "task_id": task,
        "provider_task_id": provider_task,
        "started_at": started_at.map(Time::rfc3339),
        "completed_at": completed_at.map(Time::rfc3339),
        "error": error.as_ref().map(error_view),
        "retry_count": retry_count,
        "passed_over": passed_over.iter().map(passed_over_view).collect::<Vec<_>>(),
    })
}

fn passed_over_view(passed: &PassedOver) -> Value {
    json!({ "provider": passed.provider, "class": passed.class, "at": passed.at.rfc3339() })
}

/// A task beside the song, as its owner sees it.
pub fn addition(one: &Addition) -> Value {
    let (status, result, error) = match &one.state {
        AdditionState::Running(_) if one.progress.started_at.is_none() => ("pending", None, None),
        AdditionState::Running(_) => ("generating", None, None),
        AdditionState::Done(made) => ("complete", Some(made), None),
        AdditionState::Failed(failure) => ("failed", None, Some(error_view(failure))),
    };
    let run = one.run();
    json!({
        "task_id": one.task,
        "kind": one.work.kind().as_str(),
        "variant_number": one.variant_number(),
        "provider": one.provider,
        "status": status,
        "result": result,
        "error": error,
        "waiting_for": run.and_then(|run| run.waiting).map(waiting_for),
        "cost": one.price.as_json(),
        "progress": progress_view(&one.progress),
    })
}

/// How long it will still take, from `updated_at` on; of what is not under way nobody can say.
fn eta_ms(song: &Song) -> Option<u64> {
    let expected = song.phase.run()?.expected_at?;
    u64::try_from(expected.since(song.updated_at).as_millis()).ok()
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
