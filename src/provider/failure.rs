//! What can go wrong at a provider, and what follows from it: the one table (PROV-8, `design.md` section 6).
//!
//! Pure. Adapters put every failure into a [`Class`] here; `song::step` asks here when to try again. What the user
//! is told of it stands in `texts`.

mod texts;

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

/// What follows from a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy<'a> {
    /// Wait as long as the provider asks, else this long; uses up no attempt.
    Wait { default: Duration },
    /// One delay per attempt; after the last it has failed.
    Delays(&'a [Duration], Jitter),
    /// The same again would end the same.
    Never,
}

/// How a delay is spread, so that songs that failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Anywhere from nothing to the whole delay.
    Full,
    /// A fifth less to a fifth more.
    Fifth,
}

/// The delays per class (PROV-9); configured as `retry.<class>.delays`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryRules {
    /// The wait where the provider names none. 10 s is Suno's window.
    pub rate_limited: Duration,
    pub network: Vec<Duration>,
    pub provider_error: Vec<Duration>,
    /// For a time-out that the provider reports; our own deadline is final (PROV-7).
    pub timeout: Vec<Duration>,
    pub storage: Vec<Duration>,
    pub unknown: Vec<Duration>,
}

impl Default for RetryRules {
    fn default() -> Self {
        let seconds = |list: &[u64]| list.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
        Self {
            rate_limited: Duration::from_secs(10),
            network: seconds(&[1, 2, 4, 8, 16]),
            provider_error: seconds(&[30, 120, 300]),
            timeout: seconds(&[30]),
            storage: seconds(&[30, 120, 300]),
            unknown: seconds(&[30, 120, 300]),
        }
    }
}

/// Shorter waits than this would turn `Retry-After: 0` into a busy loop, because waiting costs no attempt.
const WAIT_MIN: Duration = Duration::from_secs(1);

impl Class {
    pub const ALL: [Class; 9] = [
        Class::RateLimited,
        Class::InsufficientProviderCredits,
        Class::InvalidInput,
        Class::Moderation,
        Class::ProviderError,
        Class::Network,
        Class::Timeout,
        Class::Storage,
        Class::Unknown,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Class::RateLimited => "rate_limited",
            Class::InsufficientProviderCredits => "insufficient_provider_credits",
            Class::InvalidInput => "invalid_input",
            Class::Moderation => "moderation",
            Class::ProviderError => "provider_error",
            Class::Network => "network",
            Class::Timeout => "timeout",
            Class::Storage => "storage",
            Class::Unknown => "unknown",
        }
    }
}

impl Failure {
    pub fn new(class: Class, message: impl AsRef<str>) -> Self {
        Self {
            class,
            reason: None,
            code: None,
            message: kept(message.as_ref()),
            retry_after: None,
            arrived: Arrived::No,
            operator: false,
        }
    }

    #[must_use]
    pub fn code(mut self, code: impl ToString) -> Self {
        self.code = Some(kept(&code.to_string()));
        self
    }

    #[must_use]
    pub fn reason(mut self, reason: Option<ModerationReason>) -> Self {
        self.reason = reason;
        self
    }

    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    #[must_use]
    pub fn maybe_arrived(mut self) -> Self {
        self.arrived = Arrived::Maybe;
        self
    }

    #[must_use]
    pub fn operator(mut self) -> Self {
        self.operator = true;
        self
    }

    /// Whether the provider failed for reasons of its own, so that another one may succeed (PROV-12).
    pub const fn is_the_providers(&self) -> bool {
        match self.class {
            Class::RateLimited
            | Class::InsufficientProviderCredits
            | Class::ProviderError
            | Class::Network
            | Class::Timeout
            | Class::Unknown => true,
            Class::InvalidInput | Class::Moderation | Class::Storage => self.operator,
        }
    }

    /// What follows from this failure. A submission that may have arrived ([`Arrived::Maybe`]) is to be
    /// resolved before this is asked (`durability.md` section 5).
    pub fn strategy<'a>(&self, rules: &'a RetryRules) -> Strategy<'a> {
        if self.operator {
            return Strategy::Never;
        }
        match self.class {
            Class::RateLimited => Strategy::Wait { default: rules.rate_limited },
            Class::Network => Strategy::Delays(&rules.network, Jitter::Full),
            Class::ProviderError => Strategy::Delays(&rules.provider_error, Jitter::Fifth),
            // Only a provider gives a code; without one it is our own deadline, and that is final.
            Class::Timeout if self.code.is_some() => Strategy::Delays(&rules.timeout, Jitter::Fifth),
            Class::Storage => Strategy::Delays(&rules.storage, Jitter::Fifth),
            Class::Unknown => Strategy::Delays(&rules.unknown, Jitter::Fifth),
            Class::Timeout | Class::InsufficientProviderCredits | Class::InvalidInput | Class::Moderation => {
                Strategy::Never
            }
        }
    }

    /// When the next automatic attempt may start; `None` is the end. `attempts_used` counts the automatic
    /// attempts that this class has already failed; `chance` (0.0 to 1.0) spreads the delay.
    pub fn retry_in(&self, attempts_used: u16, rules: &RetryRules, chance: f64) -> Option<Duration> {
        match self.strategy(rules) {
            Strategy::Never => None,
            Strategy::Wait { default } => Some(self.retry_after.unwrap_or(default).max(WAIT_MIN)),
            Strategy::Delays(delays, jitter) => {
                let delay = jitter.spread(*delays.get(usize::from(attempts_used))?, chance);
                Some(delay.max(self.retry_after.unwrap_or_default()))
            }
        }
    }

    /// May the user do it again by hand without changing the text (PROV-10).
    pub fn retryable(&self) -> bool {
        !matches!(self.class, Class::Moderation | Class::InvalidInput)
    }
}

/// The code of our own that says why a lyrics phase failed although the provider did not (SONG-5).
pub const TOO_FEW_LYRICS: &str = "too_few_lyrics";

impl Jitter {
    fn spread(self, delay: Duration, chance: f64) -> Duration {
        let chance = if chance.is_finite() { chance.clamp(0.0, 1.0) } else { 0.5 };
        match self {
            Jitter::Full => delay.mul_f64(chance),
            Jitter::Fifth => delay.mul_f64(0.8 + 0.4 * chance),
        }
    }
}

/// Fragments of messages and what they mean, compared in lower case, the first match wins: what refuses
/// a text stands above what asks for patience ("credits insufficient, please try again later"). From
/// `suno.md` section 8 and the table beside its fixtures; the texts are Suno's and pass through gateways.
const MESSAGES: &[(&str, Class, Option<ModerationReason>)] = {
    use Class::{
        InsufficientProviderCredits as Credits, InvalidInput, Moderation, ProviderError, RateLimited, Timeout,
    };
    use ModerationReason::{ArtistReference, Copyright, Flagged, Inappropriate, Malformed, ProducerTag};
    &[
        ("contained artist name", Moderation, Some(ArtistReference)),
        ("contains artist name", Moderation, Some(ArtistReference)),
        ("contained producer tag", Moderation, Some(ProducerTag)),
        ("contains producer tag", Moderation, Some(ProducerTag)),
        ("copyrighted material", Moderation, Some(Copyright)),
        ("likely copyrighted", Moderation, Some(Copyright)),
        ("copyrighted content", Moderation, Some(Copyright)),
        ("matches existing work of art", Moderation, Some(Copyright)),
        ("inappropriate material", Moderation, Some(Inappropriate)),
        ("inappropriate content", Moderation, Some(Inappropriate)),
        ("prohibited words", Moderation, Some(Inappropriate)),
        ("sensitive word", Moderation, Some(Inappropriate)),
        ("flagged for moderation", Moderation, Some(Flagged)),
        ("moderation review", Moderation, Some(Flagged)),
        ("likely malformed", Moderation, Some(Malformed)),
        ("prompt too long", InvalidInput, None),
        ("tags too long", InvalidInput, None),
        ("title too long", InvalidInput, None),
        ("topic too long", InvalidInput, None),
        ("does not exist or has been taken offline", InvalidInput, None),
        ("credits are insufficient", Credits, None),
        ("credits insufficient", Credits, None),
        ("insufficient credit", Credits, None),
        ("top up", Credits, None),
        ("frequency is too high", RateLimited, None),
        ("too many requests", RateLimited, None),
        ("rate limit", RateLimited, None),
        ("timeout while waiting", Timeout, None),
        ("timed out", Timeout, None),
        ("no available worker", ProviderError, None),
        ("job failed with unknown error", ProviderError, None),
        ("unknown error", ProviderError, None),
        ("under maintenance", ProviderError, None),
        ("generation paused", ProviderError, None),
        ("unable to generate lyrics", ProviderError, None),
        ("openai error", ProviderError, None),
        ("internal error", ProviderError, None),
        ("try again later", ProviderError, None),
    ]
};

/// The class that a provider's words tell, where they tell one. Codes that leave no doubt go before it.
pub fn class_of_message(text: &str) -> Option<(Class, Option<ModerationReason>)> {
    let text = text.to_lowercase();
    MESSAGES.iter().find(|(fragment, ..)| text.contains(fragment)).map(|&(_, class, reason)| (class, reason))
}

/// The first [`MESSAGE_CHARS_MAX`] characters, without the NUL that Postgres cannot store.
fn kept(text: &str) -> String {
    text.chars().filter(|&c| c != '\0').take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(class: Class) -> Failure {
        Failure::new(class, "")
    }

    fn delays(failure: &Failure, chance: f64) -> Vec<u64> {
        let rules = RetryRules::default();
        (0..20).map_while(|used| failure.retry_in(used, &rules, chance)).map(|d| d.as_secs()).collect()
    }

    #[test]
    fn provider_errors_are_tried_three_times_more_a_fifth_around_30_s_2_min_and_5_min() {
        assert_eq!(delays(&failed(Class::ProviderError), 0.5), [30, 120, 300]);
        assert_eq!(delays(&failed(Class::ProviderError), 0.0), [24, 96, 240]);
        assert_eq!(delays(&failed(Class::ProviderError), 1.0), [36, 144, 360]);
    }

    #[test]
    fn network_failures_are_tried_five_times_more_with_full_jitter() {
        assert_eq!(delays(&failed(Class::Network), 1.0), [1, 2, 4, 8, 16]);
        assert_eq!(delays(&failed(Class::Network), 0.0), [0; 5]);
    }

    #[test]
    fn a_rate_limit_is_waited_for_without_using_an_attempt() {
        let rules = RetryRules::default();
        let limited = failed(Class::RateLimited);
        assert_eq!(limited.retry_in(500, &rules, 0.9), Some(Duration::from_secs(10)));
        let told = limited.clone().retry_after(Some(Duration::from_secs(42)));
        assert_eq!(told.retry_in(500, &rules, 0.9), Some(Duration::from_secs(42)));
        let at_once = limited.retry_after(Some(Duration::ZERO));
        assert_eq!(at_once.retry_in(0, &rules, 0.0), Some(WAIT_MIN));
    }

    #[test]
    fn refusals_our_own_account_and_our_own_deadline_are_never_tried_again() {
        for class in
            [Class::Moderation, Class::InvalidInput, Class::InsufficientProviderCredits, Class::Timeout]
        {
            assert_eq!(delays(&failed(class), 0.5).len(), 0, "{class:?}");
        }
        assert_eq!(delays(&failed(Class::ProviderError).operator(), 0.5).len(), 0);
        assert_eq!(delays(&failed(Class::Timeout).code(408), 0.5), [30]);
    }

    #[test]
    fn a_provider_that_names_a_later_time_is_not_asked_before() {
        let busy = failed(Class::ProviderError).retry_after(Some(Duration::from_secs(90)));
        assert_eq!(delays(&busy, 0.5), [90, 120, 300]);
    }

    #[test]
    fn any_chance_gives_a_delay() {
        for chance in [f64::NAN, f64::INFINITY, -1.0, 2.0] {
            assert_eq!(delays(&failed(Class::ProviderError), chance).len(), 3);
        }
    }

    #[test]
    fn every_class_is_named_as_in_the_api() {
        for class in Class::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let failure = Failure::new(Class::Unknown, "ä\0".repeat(2000));
        assert_eq!(failure.message, "ä".repeat(MESSAGE_CHARS_MAX));
    }

    #[test]
    fn missing_money_is_not_mistaken_for_patience() {
        let text = "The current CREDITS ARE INSUFFICIENT, try again later";
        assert_eq!(class_of_message(text), Some((Class::InsufficientProviderCredits, None)));
        assert_eq!(class_of_message("all is well"), None);
    }
}
