//! What MiniMax's codes mean (`minimax.md` section 3), and what a proxy in front of it says.

use std::time::Duration;

use crate::provider::failure::{Class, Failure, ModerationReason, class_of_message};
use crate::provider::http::{Answer, Purpose, doubtful};

/// A plan's window lasts up to five hours, and nobody says when it ends. Asked every half hour, a song that waits an
/// hour at most (`tasks.max_wait`) has one more chance.
const PLAN_WINDOW: Duration = Duration::from_secs(30 * 60);

/// The failure that a `base_resp.status_code` other than 0 tells of.
pub(super) fn classify(code: i64, message: &str, retry_after: Option<Duration>) -> Failure {
    let failed = |class| Failure::new(class, message).code(code).retry_after(retry_after);
    let refused = |reason| {
        let told = class_of_message(message).and_then(|(_, reason)| reason);
        failed(Class::Moderation).reason(told.or(Some(reason)))
    };
    match code {
        1001 => failed(Class::Timeout),
        1002 | 1039 | 1041 | 2045 => failed(Class::RateLimited),
        2056 => failed(Class::RateLimited).retry_after(retry_after.or(Some(PLAN_WINDOW))),
        1004 | 2049 => failed(Class::ProviderError).operator(),
        1008 => failed(Class::InsufficientProviderCredits),
        1026 => refused(ModerationReason::Inappropriate),
        // What came out was refused, so other words may pass.
        1027 => refused(ModerationReason::Flagged),
        1042 | 2013 => failed(Class::InvalidInput),
        // About cloned voices, which we never order.
        1043 | 1044 | 2037 | 2039 | 2042 | 2048 | 20132 => failed(Class::InvalidInput),
        // 1000, 1024, 1033 are faults inside; so is what the manual does not know.
        _ => failed(Class::ProviderError),
    }
}

/// An HTTP error without MiniMax's own words: a proxy before it spoke.
pub(super) fn bare(answer: &Answer) -> Failure {
    let status = answer.status.as_u16();
    let failed = |class| Failure::new(class, answer.excerpt()).code(status).retry_after(answer.retry_after);
    match status {
        429 => failed(Class::RateLimited),
        400 | 408 | 413 | 422 => failed(Class::ProviderError),
        // The address or the key is wrong; a redirect is not followed.
        300..=499 => failed(Class::ProviderError).operator(),
        _ => doubtful(failed(Class::ProviderError), Purpose::Submit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_table_has_its_class() {
        for (codes, class, operator) in [
            (&[1000, 1024, 1033, 7, -1][..], Class::ProviderError, false),
            (&[1004, 2049], Class::ProviderError, true),
            (&[1001], Class::Timeout, false),
            (&[1002, 1039, 1041, 2045, 2056], Class::RateLimited, false),
            (&[1008], Class::InsufficientProviderCredits, false),
            (&[1026, 1027], Class::Moderation, false),
            (&[1042, 2013, 1043, 1044, 20132, 2037, 2039, 2042, 2048], Class::InvalidInput, false),
        ] {
            for code in codes {
                let failure = classify(*code, "words", None);
                assert_eq!((failure.class, failure.operator), (class, operator), "{code}");
                assert_eq!(failure.code, Some(code.to_string()));
            }
        }
    }

    #[test]
    fn a_used_up_plan_is_waited_for_longer_unless_a_time_is_told() {
        assert_eq!(classify(2056, "", None).retry_after, Some(PLAN_WINDOW));
        let told = Some(Duration::from_secs(9));
        assert_eq!(classify(2056, "", told).retry_after, told);
        assert_eq!(classify(1002, "", None).retry_after, None);
    }
}
