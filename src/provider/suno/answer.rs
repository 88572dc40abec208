//! Understands what the gateway says: answers to submissions, polls and callbacks (`suno.md`
//! sections 3, 5 and 6).
//!
//! Pure. HTTP 200 does not mean success here: the `code` of the envelope decides.

use std::time::Duration;

use serde_json::Value;

use super::codes::{About, Complaint, Dialect, bare, classify};
use super::fields;
use crate::provider::failure::{Class, Failure, ModerationReason};
use crate::provider::http::{Answer, Purpose, doubtful};
use crate::provider::{Callback, Clip, Made, Makes, Malformed, News, ProviderTaskId, Stage, TaskKind};

/// `{code, msg, data}`, with everything optional.
struct Envelope {
    root: Value,
    code: Option<i64>,
    message: String,
    /// From the header beside it.
    retry_after: Option<Duration>,
}

/// How far the gateway says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Working,
    Text,
    First,
    Complete,
    /// It does not say: what is there tells.
    Untold,
    Refused,
    Failed,
}

/// The task id of an accepted order.
pub(super) fn submitted(answer: &Answer, dialect: Dialect) -> Result<ProviderTaskId, Failure> {
    let envelope = accepted(answer, Purpose::Submit, dialect)?;
    envelope.task_id().ok_or_else(|| unreadable(answer, "no task id", Purpose::Submit))
}

/// The persona that was made at once.
pub(super) fn persona(answer: &Answer, dialect: Dialect) -> Result<Made, Failure> {
    let envelope = accepted(answer, Purpose::Submit, dialect)?;
    let persona_id = fields::id(envelope.data(), &["personaId", "persona_id"])
        .ok_or_else(|| unreadable(answer, "no persona id", Purpose::Submit))?;
    let text = |key| fields::text(envelope.data(), &[key]);
    Ok(Made::Persona { persona_id, name: text("name"), description: text("description") })
}

/// The task that a callback names, before anything else is believed of it.
pub(super) fn task_id(body: &[u8]) -> Option<ProviderTaskId> {
    Envelope::read(body)?.task_id()
}

/// What a poll tells about its task.
pub(super) fn polled(answer: &Answer, kind: TaskKind, dialect: Dialect) -> Result<News, Failure> {
    let envelope = accepted(answer, Purpose::Ask, dialect)?;
    Ok(envelope.news(kind, envelope.status(), dialect))
}

/// What a callback's body tells.
pub(super) fn called_back(body: &[u8], kind: TaskKind, dialect: Dialect) -> Result<Callback, Malformed> {
    let envelope = Envelope::read(body).ok_or_else(|| Malformed("the body is no JSON object".into()))?;
    let news = match envelope.code {
        Some(code) if code != 200 => News::Failed(envelope.failure(About::Task, dialect)),
        _ => envelope.news(kind, envelope.callback_type(), dialect),
    };
    let provider_task = envelope.task_id();
    let recognised = envelope.code.is_some() || provider_task.is_some() || news != News::Working;
    if recognised {
        Ok(Callback { provider_task, news })
    } else {
        Err(Malformed("neither code nor task nor result".into()))
    }
}

/// The envelope of an answer that is not an error, in whichever of the two places errors are told.
fn accepted(answer: &Answer, purpose: Purpose, dialect: Dialect) -> Result<Envelope, Failure> {
    match Envelope::read(&answer.body) {
        Some(envelope) if envelope.code.is_some_and(|code| code != 200) => {
            let envelope = Envelope { retry_after: answer.retry_after, ..envelope };
            let failure = envelope.failure(About::Request, dialect);
            // A gateway that breaks may have started before; one that refuses has not.
            let broke = answer.status.is_server_error() && !failure.operator;
            let broke =
                broke && matches!(failure.class, Class::ProviderError | Class::Timeout | Class::Unknown);
            Err(if broke { doubtful(failure, purpose) } else { failure })
        }
        _ if !answer.status.is_success() => Err(bare(answer, purpose)),
        Some(envelope) => Ok(envelope),
        None => Err(unreadable(answer, "no JSON object", purpose)),
    }
}

/// A success that cannot be understood: an order may well have been taken.
fn unreadable(answer: &Answer, why: &str, purpose: Purpose) -> Failure {
    doubtful(Failure::new(Class::ProviderError, format!("{why} in {}", answer.excerpt())), purpose)
}

impl Envelope {
    fn read(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let mut root: Value = serde_json::from_slice(body).ok()?;
        if !root.is_object() && !root.is_array() {
            return None;
        }
        fields::unwrap_texts(&mut root);
        let code = fields::number(&root, &["code"]).map(|code| code as i64);
        let message = fields::text(&root, &["msg", "message", "errorMessage"]).unwrap_or_default();
        Some(Self { root, code, message, retry_after: None })
    }

    fn data(&self) -> &Value {
        self.root.get("data").unwrap_or(&Value::Null)
    }

    /// Looks in `data`, then beside it.
    fn word(&self, keys: &[&str]) -> Option<String> {
        fields::text(self.data(), keys).or_else(|| fields::text(&self.root, keys))
    }

    fn task_id(&self) -> Option<ProviderTaskId> {
        const TASK: &[&str] = &["task_id", "taskId"];
        let in_response = |value: &Value| fields::id(value.get("response")?, TASK);
        let as_data = || self.data().as_str().filter(|id| fields::is_id(id)).map(String::from);
        fields::id(self.data(), TASK)
            .or_else(|| fields::id(&self.root, TASK))
            .or_else(|| in_response(self.data()).or_else(|| in_response(&self.root)))
            .or_else(as_data)
    }

    fn callback_type(&self) -> Progress {
        let word = self.word(&["callbackType", "callback_type"]).unwrap_or_default();
        match word.to_lowercase().as_str() {
            "text" => Progress::Text,
            "first" | "audio" => Progress::First,
            "complete" => Progress::Complete,
            "error" => Progress::Failed,
            // A record as polls show it; a single clip has a status of its own, which says nothing here.
            _ => match self.status() {
                Progress::Working => Progress::Untold,
                told => told,
            },
        }
    }

    fn status(&self) -> Progress {
        let word = self.word(&["status", "successFlag"]).unwrap_or_default();
        match word.to_uppercase().as_str() {
            "TEXT_SUCCESS" => Progress::Text,
            "FIRST_SUCCESS" => Progress::First,
            "SUCCESS" => Progress::Complete,
            "SENSITIVE_WORD_ERROR" => Progress::Refused,
            // Our endpoint did not take a callback, which one is not said.
            "CALLBACK_EXCEPTION" => Progress::Untold,
            failed if failed.ends_with("_FAILED") => Progress::Failed,
            _ => Progress::Working,
        }
    }

    fn news(&self, kind: TaskKind, progress: Progress, dialect: Dialect) -> News {
        match progress {
            Progress::Working => News::Working,
            Progress::Failed => News::Failed(self.failure(About::Task, dialect)),
            Progress::Refused => News::Failed(self.refusal(dialect)),
            Progress::Text | Progress::First | Progress::Complete | Progress::Untold => match kind.makes() {
                Makes::Lyrics => self.lyrics(progress),
                Makes::Music => self.music(progress),
                Makes::Addition => self.addition(kind, progress),
            },
        }
    }

    fn lyrics(&self, progress: Progress) -> News {
        let texts = fields::lyrics(&self.root);
        if texts.is_empty() && progress != Progress::Complete {
            return News::Working;
        }
        News::Lyrics(texts)
    }

    fn music(&self, progress: Progress) -> News {
        let clips = fields::clips(&self.root);
        let stage = match progress {
            Progress::Text => Stage::Text,
            Progress::First => Stage::First,
            Progress::Complete => Stage::Complete,
            _ if clips.is_empty() => return News::Working,
            _ => stage_of(&clips),
        };
        News::Clips(stage, clips)
    }

    /// Told apart by what is inside; a persona was there at once.
    fn addition(&self, kind: TaskKind, progress: Progress) -> News {
        let made = match kind {
            TaskKind::Stems => fields::stems(&self.root).map(|stems| Made::Stems { stems }),
            TaskKind::Video => fields::video(&self.root).map(|video_url| Made::Video { video_url }),
            _ => None,
        };
        match (made, progress) {
            (Some(made), _) => News::Made(made),
            (None, Progress::Complete) => {
                News::Failed(Failure::new(Class::ProviderError, "the task ended without a result"))
            }
            (None, _) => News::Working,
        }
    }

    /// The task's own code and words where it has some, else the envelope's.
    fn failure(&self, about: About, dialect: Dialect) -> Failure {
        let own_code = fields::number(self.data(), &["errorCode", "error_code"]).map(|code| code as i64);
        let own_words = fields::text(self.data(), &["errorMessage", "error_message", "fail_reason"]);
        let code = own_code.or(self.code).filter(|&code| code != 200);
        let message = own_words.as_deref().unwrap_or(&self.message);
        let failure = classify(Complaint { code, message, retry_after: self.retry_after, about }, dialect);
        match (&failure.code, self.word(&["status", "successFlag"])) {
            (None, Some(word)) => failure.code(word),
            _ => failure,
        }
    }

    /// `SENSITIVE_WORD_ERROR` is moderation also without a message.
    fn refusal(&self, dialect: Dialect) -> Failure {
        let failure = self.failure(About::Task, dialect);
        if failure.class == Class::Moderation {
            return failure;
        }
        let reason = Some(ModerationReason::Inappropriate);
        Failure { class: Class::Moderation, reason, operator: false, ..failure }
    }
}

fn stage_of(clips: &[Clip]) -> Stage {
    let playable = clips.iter().filter(|clip| clip.audio_url.is_some()).count();
    let alive = clips.iter().filter(|clip| !clip.failed).count();
    match playable {
        0 => Stage::Text,
        all if all >= alive => Stage::Complete,
        _ => Stage::First,
    }
}
