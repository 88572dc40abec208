//! What can go wrong at a provider, and what follows from it: the one table (PROV-8, `design.md` section 6).
//!
//! Pure. Adapters put every failure into a [`Class`] here; `song::step` asks here when to try again and
//! what to tell the user.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why something failed (PROV-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    RateLimited,
    InsufficientProviderCredits,
    InvalidInput,
    Moderation,
    ProviderError,
    Network,
    Timeout,
    Storage,
    Unknown,
}

/// What a moderation refusal was about, where the provider's words tell (PROV-8, PROV-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModerationReason {
    ArtistReference,
    ProducerTag,
    Copyright,
    Inappropriate,
    Flagged,
    Malformed,
}

/// Whether the order may have reached the provider although the call failed (PROV-5,
/// `durability.md` section 5). Only meaningful for a submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrived {
    /// Surely not: a refused connection, a 4xx, an error code in the answer.
    #[default]
    No,
    /// Perhaps: a time-out, a reset, a 5xx after the body left, an answer that cannot be read.
    Maybe,
}

/// One failure, classified. `message` is the provider's own words, for operators only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: Class,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ModerationReason>,
    /// The provider's code, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The provider's words, at most [`MESSAGE_CHARS_MAX`] characters; never shown to users.
    #[serde(default)]
    pub message: String,
    /// How long the provider asks us to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    #[serde(default)]
    pub arrived: Arrived,
    /// Our account or our configuration is at fault, not this song: no retry, an alarm (401, 403, 404 …).
    #[serde(default)]
    pub operator: bool,
}

/// How much of a provider's message is kept.
pub const MESSAGE_CHARS_MAX: usize = 500;
