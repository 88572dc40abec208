//! What is answered, as JSON Schema: a function for each resource.

use serde_json::{Value, json};

use super::super::problem::Kind;
use crate::provider::failure::Class;
use crate::song::parts::TaskKind;
use crate::song::phase::Status;

/// All that operations return, by name.
pub(super) fn all() -> Value {
    let all = [songs(), further(), people(), orders(), health(), problems()];
    all.into_iter().filter_map(|part| part.as_object().cloned()).flatten().collect()
}

fn text() -> Value {
    json!({"type": ["string", "null"]})
}

fn number() -> Value {
    json!({"type": ["number", "null"]})
}

fn named(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn many(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn songs() -> Value {
    let statuses = Status::ALL.map(|status| status.as_str());
    json!({
        "Song": {"type": "object", "properties": {
            "id": {"type": "string", "format": "uuid"}, "seq": {"type": "integer"},
            "status": {"type": "string", "enum": statuses}, "mode": {"type": "string"},
            "title": text(), "prompt": text(), "lyrics": text(),
            "style_tags": many(json!({"type": "string"})), "instrumental": {"type": "boolean"},
            "provider": {"type": "string"}, "model": text(),
            "lyrics_variants": many(json!({"type": "object", "properties": {
                "variant_index": {"type": "integer"}, "title": text(), "text": {"type": "string"},
                "selected": {"type": "boolean"}}})),
            "variants": many(json!({"type": "object", "properties": {
                "variant_number": {"type": "integer"}, "status": {"type": "string"}, "clip_id": text(),
                "title": text(), "duration_ms": number(), "stream_url": text(), "audio_url": text(),
                "asset_url": text(), "image_url": text(), "video_url": text(),
                "share_token": {"type": "string", "format": "uuid"}, "selected": {"type": "boolean"}}})),
            "progress": {"type": "object", "properties": {"lyrics": named("Progress"), "music": named("Progress")}},
            "queue_position": number(), "eta_ms": number(), "waiting_for": text(),
            "retry": {"type": "object", "properties": {
                "allowed": {"type": "boolean", "description":
                    "Whether there is anything to retry and a retry left. Where `error.retryable` is false, with other words."},
                "left": {"type": "integer"}, "next_allowed_at": text()}},
            "error": named("SongError"),
            "cost": {"type": "number"}, "refunded": {"type": "number"}, "preview": {"type": "boolean"},
            "notifications_sent": many(json!({"type": "string"})),
            "tasks": many(named("Task")),
            "parent_ids": many(json!({"type": "string"})), "metadata": {"type": "object"},
            "last_viewed_at": text(), "created_at": {"type": "string"}, "updated_at": {"type": "string"}}},
        "Progress": {"type": ["object", "null"], "properties": {
            "task_id": text(), "provider_task_id": text(), "started_at": text(), "completed_at": text(),
            "error": named("SongError"), "retry_count": {"type": "integer"},
            "passed_over": many(json!({"type": "object", "properties": {
                "provider": {"type": "string"}, "class": {"type": "string"}, "at": {"type": "string"}}}))}},
        "SongError": {"type": ["object", "null"], "properties": {
            "class": {"type": "string", "enum": Class::ALL.map(|class| class.as_str())},
            "code": text(), "message": {"type": "string"}, "retryable": {"type": "boolean"}}},
        "Batch": {"type": "object", "properties": {"results": many(json!({"type": "object", "properties": {
            "status": {"type": "integer"}, "song": named("Song"), "problem": named("Problem")}}))}},
        "Library": {"type": "object", "properties": {
            "songs": many(named("Song")), "next_cursor": text(), "counts": {"type": "object"},
            "badge": {"type": "integer"}}},
        "Events": {"type": "object", "properties": {
            "events": many(json!({"type": "object", "properties": {
                "seq": {"type": "integer"}, "at": {"type": "string"}, "kind": {"type": "string"},
                "set": {"type": ["object", "null"]}}})),
            "next_after": number()}},
    })
}

fn further() -> Value {
    let kinds = TaskKind::ALL.map(|kind| kind.as_str());
    let task = json!({
        "task_id": {"type": "string"}, "kind": {"type": "string", "enum": kinds}, "variant_number": number(),
        "provider": {"type": "string"}, "status": {"type": "string"}, "result": {"type": ["object", "null"]},
        "error": named("SongError"), "waiting_for": text(), "cost": {"type": "number"},
        "progress": named("Progress")});
    let mut persona = task.clone();
    for (field, schema) in
        [("persona_id", text()), ("name", text()), ("description", text()), ("song_id", text())]
    {
        persona[field] = schema;
    }
    json!({
        "Task": {"type": "object", "properties": task},
        "Persona": {"type": "object", "properties": persona},
        "Personas": {"type": "object", "properties": {"personas": many(named("Persona"))}},
    })
}

fn people() -> Value {
    json!({
        "Me": {"type": "object", "properties": {
            "user": {"type": "string"}, "plan": {"type": "string"}, "credits": {"type": "number"},
            "credits_used_today": {"type": "number"}, "songs_today": {"type": "integer"},
            "in_flight": {"type": "integer"},
            "limits": {"type": "object", "properties": {
                "per_minute": number(), "per_day": number(), "concurrent": number()}},
            "previews_left": {"type": "integer"},
            "daily_reset_at": {"type": "string"}}},
        "Entries": many(named("Entry")),
        "Entry": {"type": "object", "properties": {
            "at": {"type": "string"}, "amount": {"type": "number"}, "balance": {"type": "number"},
            "reason": {"type": "string", "enum": ["grant", "reserve", "capture", "release"]},
            "task": text(), "song_id": text()}},
        "Granted": {"type": "object", "properties": {
            "user": {"type": "string"}, "amount": {"type": "number"}, "credits": {"type": "number"}}},
        "Claimed": {"type": "object", "properties": {
            "count": {"type": "integer"}, "songs": many(json!({"type": "string"}))}},
        "Guest": {"type": "object", "properties": {
            "token": {"type": "string"}, "user": {"type": "string"}, "expires_at": {"type": "string"}}},
    })
}

fn orders() -> Value {
    json!({
        "Order": {"type": "object", "properties": {
            "id": {"type": "string"}, "status": {"type": "string", "enum": ["making", "incomplete", "complete"]},
            "package": {"type": "string"}, "occasion_date": text(), "payment_reference": text(),
            "created_at": {"type": "string"},
            "songs": many(json!({"type": "object", "properties": {
                "song_id": text(), "title": text(), "status": text(), "done": {"type": "integer"},
                "total": {"type": "integer"}, "selected": number(), "problem": named("Problem")}}))}},
        "Orders": {"type": "object", "properties": {"orders": many(named("Order")), "next_cursor": text()}},
    })
}

fn health() -> Value {
    json!({
        "Live": {"type": "object", "properties": {"status": {"type": "string"}}},
        "Ready": {"type": "object", "properties": {
            "status": {"type": "string"}, "database": {"type": "boolean"}, "owner": {"type": "boolean"}}},
    })
}

fn problems() -> Value {
    let kinds: Vec<String> = Kind::ALL.iter().map(|kind| format!("/problems/{}", kind.facts().0)).collect();
    json!({
        "Problem": {"type": "object", "description": "RFC 9457", "properties": {
            "type": {"type": "string", "enum": kinds}, "title": {"type": "string"},
            "status": {"type": ["integer", "string"], "description":
                "The answer's status; of `wrong-state` the state that the song is in."},
            "detail": {"type": "string"},
            "errors": many(json!({"type": "object", "properties": {
                "pointer": {"type": "string"}, "detail": {"type": "string"}}})),
            "retry_after_s": {"type": "integer"},
            "required": {"type": "number", "description": "Credits that it costs; `insufficient-credits` only."},
            "available": {"type": "number", "description": "Credits that there are."},
            "providers": many(json!({"type": "string", "description": "Who could make it."}))}},
    })
}
