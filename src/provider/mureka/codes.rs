//! What Mureka's statuses and words mean (`mureka.md` sections 3 and 4).
//!
//! 429 means "too fast" or "the quota is used up", and only the words tell.

use serde_json::Value;

use crate::provider::failure::{Class, Failure, ModerationReason, class_of_message};
use crate::provider::http::{Answer, Purpose, doubtful};
use crate::provider::json;

/// Words of Mureka's own, in lower case; the first that is found decides.
const WORDS: &[(&str, Class, Option<ModerationReason>)] = {
    use ModerationReason::{Copyright, Flagged, Inappropriate};
    &[
        ("safety", Class::Moderation, Some(Flagged)),
        ("moderation", Class::Moderation, Some(Flagged)),
        ("copyright", Class::Moderation, Some(Copyright)),
        ("sensitive", Class::Moderation, Some(Inappropriate)),
        ("violat", Class::Moderation, Some(Inappropriate)),
        ("invalid request", Class::InvalidInput, None),
        ("timeout", Class::Timeout, None),
    ]
};
const PACE: [&str; 5] = ["rate limit", "too many", "too fast", "too frequent", "concurren"];
const MONEY: [&str; 6] = ["quota", "billing", "plan", "balance", "credit", "recharge"];

/// An answer that is an error.
pub(super) fn of_request(answer: &Answer, purpose: Purpose) -> Failure {
    let message = message(answer);
    let status = answer.status.as_u16();
    let failed = |class| Failure::new(class, &message).code(status).retry_after(answer.retry_after);
    match status {
        451 => failed(Class::Moderation).reason(reason(&message).or(Some(ModerationReason::Flagged))),
        400 | 413 | 422 => match class_of_words(&message) {
            Some((Class::Moderation, reason)) => failed(Class::Moderation).reason(reason),
            _ => failed(Class::InvalidInput),
        },
        402 => failed(Class::InsufficientProviderCredits),
        429 => failed(too_many(&message)),
        408 => failed(Class::Network),
        // The address, the key or the region is wrong; a redirect is not followed.
        300..=499 => failed(Class::ProviderError).operator(),
        _ => doubtful(failed(Class::ProviderError), purpose),
    }
}

/// A task that ended without a song.
pub(super) fn of_task(status: &str, reason: Option<&str>) -> Failure {
    let message = reason.unwrap_or(status);
    let (class, reason) = match status {
        "timeouted" => (Class::Timeout, None),
        "cancelled" => (Class::ProviderError, None),
        _ => class_of_words(message).unwrap_or((Class::ProviderError, None)),
    };
    Failure::new(class, message).code(status).reason(reason)
}

fn too_many(message: &str) -> Class {
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match says(&MONEY) && !says(&PACE) {
        true => Class::InsufficientProviderCredits,
        false => Class::RateLimited,
    }
}

fn class_of_words(message: &str) -> Option<(Class, Option<ModerationReason>)> {
    let lower = message.to_lowercase();
    let own = || WORDS.iter().find(|(fragment, ..)| lower.contains(fragment));
    class_of_message(message).or_else(|| own().map(|&(_, class, reason)| (class, reason)))
}

fn reason(message: &str) -> Option<ModerationReason> {
    class_of_words(message).and_then(|(_, reason)| reason)
}

/// `error.message`, or whatever a proxy in front said.
fn message(answer: &Answer) -> String {
    let told = |body: Value| json::text(body.get("error")?, &["message"]);
    json::object(&answer.body).and_then(told).unwrap_or_else(|| answer.excerpt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_requests_means_pace_or_money_by_its_words() {
        for (words, class) in [
            ("Rate Limit Exceeded", Class::RateLimited),
            ("Too many concurrent requests", Class::RateLimited),
            ("Rate limit reached for your plan", Class::RateLimited),
            ("", Class::RateLimited),
            ("Quota Exceeded", Class::InsufficientProviderCredits),
            (
                "You exceeded your current quota, please check your plan and billing details",
                Class::InsufficientProviderCredits,
            ),
        ] {
            assert_eq!(too_many(words), class, "{words}");
        }
    }

    #[test]
    fn why_a_task_failed_is_told_by_words_where_they_are_known() {
        for (status, reason, class) in [
            ("failed", Some("generation failed"), Class::ProviderError),
            ("failed", None, Class::ProviderError),
            ("failed", Some("Content did not pass the safety review"), Class::Moderation),
            ("failed", Some("lyrics contain sensitive content"), Class::Moderation),
            ("failed", Some("task timeout"), Class::Timeout),
            ("timeouted", Some("safety"), Class::Timeout),
            ("cancelled", None, Class::ProviderError),
        ] {
            let failure = of_task(status, reason);
            assert_eq!(failure.class, class, "{status} {reason:?}");
            assert_eq!(failure.code.as_deref(), Some(status));
        }
    }
}
