//! What MusicGPT's HTTP statuses and words mean (`musicgpt.md` section 5).
//!
//! The status counts; words only tell moderation from other bad input, and speak for tasks that failed.

use std::time::Duration;

use crate::provider::failure::{Class, Failure, ModerationReason, class_of_message};
use crate::provider::http::{Answer, Purpose, doubtful};

/// Places become free when a task ends, or after 30 to 60 s.
const PAUSE: Duration = Duration::from_secs(30);

/// Words of a refusal of what was asked for, in lower case. Compared only where the text is about the order.
const REFUSALS: &[(&str, ModerationReason)] = &[
    ("artist", ModerationReason::ArtistReference),
    ("copyright", ModerationReason::Copyright),
    ("policy", ModerationReason::Flagged),
];

/// An HTTP status that is none of success.
pub(super) fn refused(answer: &Answer, words: &str, purpose: Purpose) -> Failure {
    let status = answer.status.as_u16();
    let failed = |class| Failure::new(class, words).code(status).retry_after(answer.retry_after);
    match status {
        402 => failed(Class::InsufficientProviderCredits),
        429 => failed(Class::RateLimited).retry_after(Some(answer.retry_after.unwrap_or(PAUSE))),
        408 => failed(Class::Network),
        400 | 409 | 413 | 422 => match moderation(words) {
            Some(reason) => failed(Class::Moderation).reason(reason),
            None => failed(Class::InvalidInput),
        },
        // The address or the key is wrong; a redirect is not followed.
        300..=499 => failed(Class::ProviderError).operator(),
        _ => doubtful(failed(Class::ProviderError), purpose),
    }
}

/// A task that failed, or a refusal under HTTP 200: only the words can tell why.
pub(super) fn gave_up(words: &str, status: Option<String>) -> Failure {
    let lower = words.to_lowercase();
    let failure = match (moderation(words), class_of_message(words)) {
        (Some(reason), _) => Failure::new(Class::Moderation, words).reason(reason),
        _ if lower.contains("insufficient funds") => Failure::new(Class::InsufficientProviderCredits, words),
        _ if lower.contains("cannot be more than") => Failure::new(Class::InvalidInput, words),
        (None, Some((class, reason))) => Failure::new(class, words).reason(reason),
        (None, None) => Failure::new(Class::ProviderError, words),
    };
    // A time-out without any code would be taken for our own deadline, which is final.
    let timed_out = failure.class == Class::Timeout;
    match status.or_else(|| timed_out.then(|| "TIMEOUT".to_owned())) {
        Some(status) => failure.code(status),
        None => failure,
    }
}

/// Whether a text refuses the order's words, and why if it tells.
fn moderation(text: &str) -> Option<Option<ModerationReason>> {
    if let Some((Class::Moderation, reason)) = class_of_message(text) {
        return Some(reason);
    }
    let text = text.to_lowercase();
    REFUSALS.iter().find(|(word, _)| text.contains(word)).map(|&(_, reason)| Some(reason))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;
    use crate::provider::failure::Arrived;

    fn answered(status: u16, words: &str, retry_after: Option<Duration>) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        refused(&Answer { status, retry_after, body: Vec::new() }, words, Purpose::Submit)
    }

    #[test]
    fn the_status_counts_and_words_only_tell_moderation_from_other_bad_input() {
        for (status, words, class) in [
            (400, "bad", Class::InvalidInput),
            (409, "conflict", Class::InvalidInput),
            (422, "Input Prompt cannot be more than 300 characters", Class::InvalidInput),
            (422, "Please do not name an Artist", Class::Moderation),
            (400, "violates our policy", Class::Moderation),
            (409, "Copyrighted words", Class::Moderation),
            (402, "INSUFFICIENT FUNDS", Class::InsufficientProviderCredits),
            (429, "copyright", Class::RateLimited),
            (500, "policy", Class::ProviderError),
            (503, "", Class::ProviderError),
        ] {
            let failure = answered(status, words, None);
            assert_eq!(failure.class, class, "{status} {words}");
            assert!(!failure.operator, "{status}");
            let maybe = if status >= 500 { Arrived::Maybe } else { Arrived::No };
            assert_eq!(failure.arrived, maybe, "{status}");
        }
    }

    #[test]
    fn a_wrong_key_or_address_calls_the_operator() {
        for status in [302, 401, 403, 404, 405] {
            let failure = answered(status, "", None);
            assert_eq!((failure.class, failure.operator), (Class::ProviderError, true), "{status}");
        }
    }

    #[test]
    fn too_many_at_once_wait_as_long_as_told_or_half_a_minute() {
        assert_eq!(answered(429, "", None).retry_after, Some(PAUSE));
        let told = Some(Duration::from_secs(7));
        assert_eq!(answered(429, "", told).retry_after, told);
    }

    #[test]
    fn of_a_failed_task_the_words_tell() {
        for (words, class, reason) in [
            ("Prompt violates the content policy", Class::Moderation, Some(ModerationReason::Flagged)),
            ("Prompt contains artist name", Class::Moderation, Some(ModerationReason::ArtistReference)),
            ("Insufficient Funds", Class::InsufficientProviderCredits, None),
            ("Input Prompt cannot be more than 300 characters", Class::InvalidInput, None),
            ("Generation failed", Class::ProviderError, None),
            ("", Class::ProviderError, None),
        ] {
            let failure = gave_up(words, Some("FAILED".into()));
            assert_eq!((failure.class, failure.reason), (class, reason), "{words}");
            assert_eq!(failure.code.as_deref(), Some("FAILED"));
        }
    }

    #[test]
    fn a_time_out_that_is_reported_is_not_our_own_deadline() {
        let failure = gave_up("Request timed out", None);
        assert_eq!((failure.class, failure.code.is_some()), (Class::Timeout, true));
    }
}
