//! The song as clients see it (`api.md`, "The song"): one shape for HTTP, WebSocket, and the events'
//! `set`. Pure. Written straight into JSON's text: every step of every song comes through here.
//!
//! Never here: a provider's own error text, raw callbacks, content hashes.

use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::parts::{Made, TaskKind};
use super::phase::{
    Addition, AdditionState, PassedOver, Phase, Progress, Rules, Song, Variant, VariantStatus, Waiting,
};
use super::refusal::{NextRetry, next_retry};
use crate::id::{ShareToken, TaskId};
use crate::provider::failure::{Class, Failure};
use crate::time::{Time, rfc3339};

/// A song with all its top-level fields, `seq` included.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub song: &'a Song,
    pub rules: &'a Rules,
}

/// What an event carries: the fields that changed, with their new values. Never `seq`, which stands beside it.
#[derive(Clone, Copy, Debug)]
struct Changes<'a> {
    before: Option<&'a Song>,
    after: View<'a>,
}

/// All top-level fields of a song, `seq` included, to be looked into.
pub fn view(song: &Song, rules: &Rules) -> Map<String, Value> {
    match serde_json::to_value(View { song, rules }) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// The `set` of an event: what of `after` differs from `before`; without a `before`, all of it.
pub fn changes(before: Option<&Song>, after: &Song, rules: &Rules) -> Arc<RawValue> {
    let changes = Changes { before, after: View { song: after, rules } };
    to_raw_value(&changes)
        .expect("a song's fields have text for keys, and writing to memory does not fail")
        .into()
}

/// The `set` of a song's last event: of what is gone there is nothing to show.
pub fn nothing() -> Arc<RawValue> {
    to_raw_value(&Map::new()).expect("an empty object can be written").into()
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("seq", &self.song.seq)?;
        let mut fields = Fields { map, song: self.song, before: None };
        fields.write_all(self.rules)?;
        fields.map.end()
    }
}

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields { map: to.serialize_map(None)?, song: self.after.song, before: self.before };
        fields.write_all(self.after.rules)?;
        fields.map.end()
    }
}

/// The fields on their way into a map, those left out that are as they were.
struct Fields<'a, M> {
    map: M,
    song: &'a Song,
    before: Option<&'a Song>,
}

impl<'a, M: SerializeMap> Fields<'a, M> {
    fn field<T: PartialEq + Serialize>(
        &mut self,
        name: &'static str,
        of: impl Fn(&'a Song) -> T,
    ) -> Result<(), M::Error> {
        let value = of(self.song);
        match self.before {
            Some(before) if of(before) == value => Ok(()),
            _ => self.map.serialize_entry(name, &value),
        }
    }

    fn write_all(&mut self, rules: &Rules) -> Result<(), M::Error> {
        self.field("id", |song| song.id)?;
        self.field("status", |song| song.status().as_str())?;
        self.field("mode", |song| song.wish.mode.as_str())?;
        self.field("title", |song| &song.title)?;
        self.field("prompt", |song| &song.wish.prompt)?;
        self.field("style_tags", |song| &song.wish.options.style_tags)?;
        self.field("instrumental", |song| song.wish.options.instrumental)?;
        self.field("provider", |song| &song.wish.provider)?;
        self.field("model", |song| &song.wish.options.model)?;
        self.field("lyrics", |song| &song.lyrics)?;
        self.field("lyrics_variants", |song| &song.lyrics_variants)?;
        self.field("variants", |song| song.variants.iter().map(VariantView::of).collect::<Vec<_>>())?;
        self.field("progress", |song| Phases {
            lyrics: song.progress(TaskKind::Lyrics).map(ProgressView::of),
            music: song.progress(TaskKind::Generate).map(ProgressView::of),
        })?;
        self.field("queue_position", |song| song.phase.run().and_then(|run| run.queue_position))?;
        self.field("eta_ms", eta_ms)?;
        self.field("waiting_for", |song| song.phase.run().and_then(|run| run.waiting).map(waiting_for))?;
        self.field("retry", |song| retry(song, rules))?;
        self.field("error", error)?;
        self.field("cost", |song| song.cost.as_json())?;
        self.field("refunded", |song| song.refunded.as_json())?;
        self.field("preview", |song| song.wish.preview)?;
        self.field("notifications_sent", |_| [(); 0])?;
        self.field("tasks", |song| song.additions.iter().map(AdditionView::of).collect::<Vec<_>>())?;
        self.field("parent_ids", |song| &song.wish.parent_ids)?;
        self.field("metadata", |song| &*song.metadata)?;
        self.field("last_viewed_at", |song| song.last_viewed_at.map(Moment))?;
        self.field("created_at", |song| Moment(song.created_at))?;
        self.field("updated_at", |song| Moment(song.updated_at))
    }
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

/// A moment, as clients read it.
#[derive(PartialEq, Serialize)]
#[serde(transparent)]
struct Moment(#[serde(serialize_with = "rfc3339::serialize")] Time);

#[derive(PartialEq, Serialize)]
struct VariantView<'a> {
    variant_number: i16,
    status: VariantStatus,
    clip_id: &'a Option<String>,
    title: &'a Option<String>,
    duration_ms: Option<i64>,
    stream_url: &'a Option<String>,
    audio_url: &'a Option<String>,
    asset_url: &'a Option<String>,
    image_url: &'a Option<String>,
    video_url: &'a Option<String>,
    share_token: ShareToken,
    selected: bool,
}

impl<'a> VariantView<'a> {
    fn of(variant: &'a Variant) -> Self {
        let Variant {
            variant_number,
            status,
            clip_id,
            provider_task: _,
            title,
            duration_ms,
            stream_url,
            audio_url,
            fallback_url: _,
            asset_url,
            image_url,
            video_url,
            share_token,
            selected,
        } = variant;
        let (variant_number, status, duration_ms) = (*variant_number, *status, *duration_ms);
        let (share_token, selected) = (*share_token, *selected);
        Self {
            variant_number,
            status,
            clip_id,
            title,
            duration_ms,
            stream_url,
            audio_url,
            asset_url,
            image_url,
            video_url,
            share_token,
            selected,
        }
    }
}

/// How far each phase got.
#[derive(PartialEq, Serialize)]
struct Phases<'a> {
    lyrics: Option<ProgressView<'a>>,
    music: Option<ProgressView<'a>>,
}

#[derive(PartialEq, Serialize)]
struct ProgressView<'a> {
    task_id: Option<TaskId>,
    provider_task_id: &'a Option<String>,
    started_at: Option<Moment>,
    completed_at: Option<Moment>,
    error: Option<ErrorView<'a>>,
    retry_count: u16,
    passed_over: Vec<PassedOverView<'a>>,
}

impl<'a> ProgressView<'a> {
    fn of(progress: &'a Progress) -> Self {
        let Progress { task, provider_task, started_at, completed_at, error, retry_count, passed_over } =
            progress;
        Self {
            task_id: *task,
            provider_task_id: provider_task,
            started_at: started_at.map(Moment),
            completed_at: completed_at.map(Moment),
            error: error.as_ref().map(|failure| match completed_at {
                Some(_) => ErrorView::of(failure),
                None => ErrorView::meanwhile(failure),
            }),
            retry_count: *retry_count,
            passed_over: passed_over.iter().map(PassedOverView::of).collect(),
        }
    }
}

#[derive(PartialEq, Serialize)]
struct PassedOverView<'a> {
    provider: &'a str,
    class: Class,
    at: Moment,
}

impl<'a> PassedOverView<'a> {
    fn of(PassedOver { provider, class, at }: &'a PassedOver) -> Self {
        Self { provider, class: *class, at: Moment(*at) }
    }
}

/// A task beside the song, as its owner sees it.
#[derive(PartialEq, Serialize)]
pub struct AdditionView<'a> {
    task_id: TaskId,
    kind: &'static str,
    variant_number: Option<i16>,
    provider: &'a str,
    status: &'static str,
    result: Option<&'a Made>,
    error: Option<ErrorView<'a>>,
    waiting_for: Option<&'static str>,
    cost: Value,
    progress: ProgressView<'a>,
}

impl<'a> AdditionView<'a> {
    pub fn of(one: &'a Addition) -> Self {
        let (status, result, error) = match &one.state {
            AdditionState::Running(_) if one.progress.started_at.is_none() => ("pending", None, None),
            AdditionState::Running(_) => ("generating", None, None),
            AdditionState::Done(made) => ("complete", Some(made), None),
            AdditionState::Failed(failure) => ("failed", None, Some(ErrorView::of(failure))),
        };
        Self {
            task_id: one.task,
            kind: one.work.kind().as_str(),
            variant_number: one.variant_number(),
            provider: &one.provider,
            status,
            result,
            error,
            waiting_for: one.run().and_then(|run| run.waiting).map(waiting_for),
            cost: one.price.as_json(),
            progress: ProgressView::of(&one.progress),
        }
    }
}

/// How long it will still take, from `updated_at` on; of what is not under way, or takes longer than it was expected to,
/// nobody can say.
fn eta_ms(song: &Song) -> Option<u64> {
    let expected = song.phase.run()?.expected_at.filter(|expected| *expected > song.updated_at)?;
    u64::try_from(expected.since(song.updated_at).as_millis()).ok()
}

#[derive(PartialEq, Serialize)]
struct RetryView {
    allowed: bool,
    left: usize,
    next_allowed_at: Option<Moment>,
}

/// `allowed` speaks of the present state; a limit that time alone lifts is told by `next_allowed_at`,
/// so that the view does not change by merely being looked at later.
fn retry(song: &Song, rules: &Rules) -> RetryView {
    let left = usize::from(rules.manual_retries.max).saturating_sub(song.retries.len());
    let next_allowed_at = match next_retry(song, song.updated_at, rules) {
        NextRetry::At(at) => Some(Moment(at)),
        NextRetry::Now | NextRetry::Never => None,
    };
    RetryView { allowed: matches!(song.phase, Phase::Failed(_)) && left > 0, left, next_allowed_at }
}

fn error(song: &Song) -> Option<ErrorView<'_>> {
    match &song.phase {
        Phase::Failed(failure) => Some(ErrorView::of(failure)),
        Phase::Lyrics(_)
        | Phase::LyricsReady
        | Phase::Music(_)
        | Phase::Ready
        | Phase::Complete
        | Phase::Cancelled
        | Phase::Deleted => None,
    }
}

#[derive(PartialEq, Serialize)]
struct ErrorView<'a> {
    class: Class,
    code: &'a Option<String>,
    message: &'static str,
    retryable: bool,
}

impl<'a> ErrorView<'a> {
    fn of(failure: &'a Failure) -> Self {
        Self {
            class: failure.class,
            code: &failure.code,
            message: failure.user_text(),
            retryable: failure.retryable(),
        }
    }

    /// Of what is tried again.
    fn meanwhile(failure: &'a Failure) -> Self {
        Self { message: failure.text_meanwhile(), ..Self::of(failure) }
    }
}

/// What the holder of a share link may see: this variant and its frame, nothing else (RT-6). Works on a
/// whole song and on an event's `set` alike; empty when nothing in it is for them, `None` when no variant has this link
/// (any more).
pub fn shared(fields: &Map<String, Value>, share_token: &str) -> Option<Map<String, Value>> {
    const OPEN: [&str; 5] = ["id", "seq", "status", "title", "instrumental"];
    let mut shared: Map<String, Value> = fields
        .iter()
        .filter(|(field, _)| OPEN.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    if let Some(Value::Array(variants)) = fields.get("variants") {
        let theirs = variants.iter().find(|variant| variant["share_token"] == share_token)?;
        shared.insert("variants".to_owned(), Value::Array(vec![theirs.clone()]));
    }
    Some(shared)
}
