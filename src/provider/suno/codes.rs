//! What the gateway's codes and words mean (`suno.md` sections 4 and 8).
//!
//! The words go first where they leave no doubt, because two gateways use one number for opposite things.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::provider::failure::{Class, Failure, ModerationReason, class_of_message};
use crate::provider::http::{Answer, Purpose, doubtful};

/// Which gateway's numbers are meant; the paths and bodies are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// sunoapi.org: 429 is "no credits".
    #[default]
    Sunoapi,
    /// kie.ai: 429 is "too fast".
    Kie,
}

/// Where a code stood: some numbers mean another thing about a finished task than about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Request,
    Task,
}

/// A code with its words, as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Complaint<'a> {
    pub(super) code: Option<i64>,
    pub(super) message: &'a str,
    pub(super) retry_after: Option<Duration>,
    pub(super) about: About,
}

type Verdict = (Class, Option<ModerationReason>);

/// Puts an error of the gateway into our classes.
pub(super) fn classify(complaint: Complaint<'_>, dialect: Dialect) -> Failure {
    let words = class_of_message(complaint.message);
    let (class, reason) = words
        .filter(|&(class, _)| leaves_no_doubt(class))
        .or_else(|| definite(complaint, dialect))
        .or(words)
        .or_else(|| vague(complaint, dialect))
        .unwrap_or((Class::ProviderError, None));
    let mut failure =
        Failure::new(class, complaint.message).reason(reason).retry_after(complaint.retry_after);
    failure.code = complaint.code.map(|code| code.to_string());
    failure.operator = class == Class::ProviderError && matches!(complaint.code, Some(401 | 403 | 404 | 505));
    failure
}

/// Words that are about the text, the money or the pace; the others only ask for patience.
fn leaves_no_doubt(class: Class) -> bool {
    matches!(
        class,
        Class::Moderation | Class::InvalidInput | Class::InsufficientProviderCredits | Class::RateLimited
    )
}

/// Codes that mean one thing whatever the words.
fn definite(complaint: Complaint<'_>, dialect: Dialect) -> Option<Verdict> {
    let class = match complaint.code? {
        401 | 403 | 404 | 455 | 505 => Class::ProviderError,
        402 => Class::InsufficientProviderCredits,
        405 | 430 => Class::RateLimited,
        429 => too_many(complaint, dialect),
        _ => return None,
    };
    Some((class, None))
}

/// 429 says "no credits" at one gateway and "too fast" at the other.
fn too_many(complaint: Complaint<'_>, dialect: Dialect) -> Class {
    let about_money = complaint.message.to_lowercase().contains("credit");
    match dialect {
        _ if about_money => Class::InsufficientProviderCredits,
        // Nobody says when to come back to an empty account.
        _ if complaint.retry_after.is_some() => Class::RateLimited,
        Dialect::Sunoapi => Class::InsufficientProviderCredits,
        Dialect::Kie => Class::RateLimited,
    }
}

/// Codes that the words may refine.
fn vague(complaint: Complaint<'_>, dialect: Dialect) -> Option<Verdict> {
    let verdict = match (complaint.code?, complaint.about) {
        (400, About::Request) => (Class::InvalidInput, None),
        // A task that was accepted and then failed without a usable reason.
        (400, About::Task) => (Class::ProviderError, None),
        (408, _) => (Class::Timeout, None),
        // kie.ai: the uploaded audio is an existing work.
        (413, About::Task) if dialect == Dialect::Kie => {
            (Class::Moderation, Some(ModerationReason::Copyright))
        }
        (409 | 413 | 422 | 451, _) => (Class::InvalidInput, None),
        (500..=599, _) => (Class::ProviderError, None),
        _ => (Class::Unknown, None),
    };
    Some(verdict)
}

/// An HTTP error without the gateway's own envelope: a proxy before it spoke.
pub(super) fn bare(answer: &Answer, purpose: Purpose) -> Failure {
    let text = answer.excerpt();
    let status = answer.status.as_u16();
    let failed = |class| Failure::new(class, &text).code(status).retry_after(answer.retry_after);
    match status {
        402 => failed(Class::InsufficientProviderCredits),
        // Rates are what proxies limit; credits are the gateway's own business.
        429 => failed(Class::RateLimited),
        408 => failed(Class::Network),
        400 | 413 | 422 => failed(Class::InvalidInput),
        // The address or the key is wrong; a redirect is not followed.
        300..=499 => failed(Class::ProviderError).operator(),
        _ => doubtful(failed(Class::ProviderError), purpose),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: i64, message: &str, about: About, dialect: Dialect) -> Class {
        classify(Complaint { code: Some(code), message, retry_after: None, about }, dialect).class
    }

    #[test]
    fn the_same_number_means_money_or_pace_by_words_first_and_dialect_second() {
        for dialect in [Dialect::Sunoapi, Dialect::Kie] {
            assert_eq!(
                class(429, "Please top up", About::Request, dialect),
                Class::InsufficientProviderCredits
            );
            assert_eq!(
                class(429, "no credit left", About::Task, dialect),
                Class::InsufficientProviderCredits
            );
            assert_eq!(class(429, "Rate limit", About::Request, dialect), Class::RateLimited);
        }
        assert_eq!(class(429, "", About::Request, Dialect::Kie), Class::RateLimited);
        assert_eq!(class(429, "", About::Request, Dialect::Sunoapi), Class::InsufficientProviderCredits);
    }

    #[test]
    fn a_request_to_try_again_later_does_not_hide_the_code() {
        assert_eq!(class(430, "try again later", About::Request, Dialect::Sunoapi), Class::RateLimited);
        assert_eq!(class(500, "timeout while waiting", About::Task, Dialect::Sunoapi), Class::Timeout);
        assert_eq!(class(400, "no available worker", About::Request, Dialect::Sunoapi), Class::ProviderError);
    }

    #[test]
    fn a_task_that_failed_without_reason_is_not_the_users_fault() {
        assert_eq!(class(400, "failed", About::Task, Dialect::Sunoapi), Class::ProviderError);
        assert_eq!(class(400, "failed", About::Request, Dialect::Sunoapi), Class::InvalidInput);
    }

    #[test]
    fn an_upload_that_is_an_existing_work_is_moderation_only_where_413_means_that() {
        assert_eq!(class(413, "", About::Task, Dialect::Kie), Class::Moderation);
        assert_eq!(class(413, "", About::Request, Dialect::Kie), Class::InvalidInput);
        assert_eq!(class(413, "", About::Task, Dialect::Sunoapi), Class::InvalidInput);
    }

    #[test]
    fn a_refused_key_and_a_switched_off_feature_call_the_operator() {
        for code in [401, 403, 404, 505] {
            let complaint =
                Complaint { code: Some(code), message: "no", retry_after: None, about: About::Request };
            assert!(classify(complaint, Dialect::Kie).operator, "{code}");
            let words = Complaint { message: "flagged for moderation", ..complaint };
            assert!(!classify(words, Dialect::Kie).operator, "{code}");
        }
    }
}
