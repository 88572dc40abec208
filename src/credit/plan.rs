//! Plans: how much a user may create in a minute, in a day and at once (CRED-3), and what of it is left. Pure.
//!
//! Not here: counting, which only the database can do rightly under every race (`store::births`).

use serde_json::{Value, json};

use crate::time::Time;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// From the strictest to the most generous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plan {
    Guest,
    Free,
    Pro,
    Premium,
}

impl Plan {
    pub const ALL: [Plan; 4] = [Plan::Guest, Plan::Free, Plan::Pro, Plan::Premium];

    pub const fn as_str(self) -> &'static str {
        match self {
            Plan::Guest => "guest",
            Plan::Free => "free",
            Plan::Pro => "pro",
            Plan::Premium => "premium",
        }
    }

    pub fn parse(text: &str) -> Option<Plan> {
        Self::ALL.into_iter().find(|plan| plan.as_str() == text)
    }
}

/// What a plan allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many at once after a pause, then one more each 60 s ÷ this (GCRA, burst = the limit). At least 1.
    pub per_minute: u32,
    /// Days turn at 00:00 UTC (CRED-4). `None` is no limit.
    pub per_day: Option<u32>,
    /// Songs under way, those that wait included. At least 1.
    pub concurrent: u32,
}

impl Limits {
    pub fn as_json(&self) -> Value {
        json!({"per_minute": self.per_minute, "per_day": self.per_day, "concurrent": self.concurrent})
    }
}

/// All plans, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plans {
    pub guest: Limits,
    pub free: Limits,
    pub pro: Limits,
    pub premium: Limits,
    /// Previews charge nothing; they have a day's limit of their own, the same for everybody (CRED-6).
    pub previews_per_day: u32,
}

impl Plans {
    pub const fn of(&self, plan: Plan) -> &Limits {
        match plan {
            Plan::Guest => &self.guest,
            Plan::Free => &self.free,
            Plan::Pro => &self.pro,
            Plan::Premium => &self.premium,
        }
    }

    /// What a client is told: of the minute's and the day's limit the one that is nearer to its end.
    pub fn allowance(&self, standing: &Standing, preview: bool, now: Time) -> Allowance {
        let limits = self.of(standing.plan);
        let minute =
            Allowance { limit: limits.per_minute, remaining: standing.left, reset: standing.full_at };
        let (per_day, used) = match preview {
            true => (Some(self.previews_per_day), standing.previews_today),
            false => (limits.per_day, standing.used_today),
        };
        let day = per_day.map(|limit| Allowance {
            limit,
            remaining: limit.saturating_sub(used),
            reset: next_midnight(now),
        });
        day.filter(|day| day.remaining <= minute.remaining).unwrap_or(minute)
    }
}

/// Where a user stands, as the database counted while it decided on a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The plan that counted: the token's, else the profile's.
    pub plan: Plan,
    /// Creations that the minute's limit would allow at this very moment.
    pub left: u32,
    /// When it allows the next one; that may be at once.
    pub next_at: Time,
    /// When it allows a minute's worth again.
    pub full_at: Time,
    pub used_today: u32,
    pub previews_today: u32,
}

/// The headers of CRED-3, as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub limit: u32,
    pub remaining: u32,
    /// When all of it is there again.
    pub reset: Time,
}

impl Allowance {
    /// `X-RateLimit-Reset`: never told too early.
    pub fn reset_seconds(&self) -> i64 {
        self.reset.millis().div_euclid(1000) + i64::from(self.reset.millis().rem_euclid(1000) > 0)
    }
}

/// Days turn at 00:00 UTC (CRED-4).
pub fn next_midnight(now: Time) -> Time {
    Time::from_millis((now.millis().div_euclid(DAY_MS) + 1) * DAY_MS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOON: Time = Time::from_millis(1_766_318_400_000);
    const FREE: Limits = Limits { per_minute: 3, per_day: Some(10), concurrent: 1 };
    const PREMIUM: Limits = Limits { per_minute: 30, per_day: None, concurrent: 10 };
    const PLANS: Plans = Plans { guest: FREE, free: FREE, pro: FREE, premium: PREMIUM, previews_per_day: 3 };

    fn standing(plan: Plan, left: u32, used_today: u32) -> Standing {
        let full_at = NOON + Duration::from_secs(20);
        Standing { plan, left, next_at: NOON, full_at, used_today, previews_today: 3 }
    }

    #[test]
    fn a_client_is_told_of_the_limit_that_ends_first() {
        let told = |standing: Standing, preview| {
            let told = PLANS.allowance(&standing, preview, NOON);
            (told.limit, told.remaining, told.reset)
        };
        let (soon, midnight) = (NOON + Duration::from_secs(20), NOON + Duration::from_secs(12 * 3600));
        assert_eq!(told(standing(Plan::Free, 2, 1), false), (3, 2, soon));
        assert_eq!(told(standing(Plan::Free, 2, 9), false), (10, 1, midnight));
        assert_eq!(told(standing(Plan::Free, 0, 10), false), (10, 0, midnight), "the later end counts");
        assert_eq!(told(standing(Plan::Premium, 2, 1_000), false), (30, 2, soon));
        assert_eq!(told(standing(Plan::Premium, 2, 0), true), (3, 0, midnight), "previews have their own");
    }

    #[test]
    fn midnight_is_the_next_one_even_at_midnight() {
        let midnight = next_midnight(NOON);
        assert_eq!(midnight, NOON + Duration::from_secs(12 * 3600));
        assert_eq!(next_midnight(midnight), midnight + Duration::from_secs(24 * 3600));
        assert_eq!(next_midnight(midnight - Duration::from_millis(1)), midnight);
    }

    #[test]
    fn a_reset_is_never_told_too_early() {
        let told = |millis| Allowance { limit: 1, remaining: 0, reset: Time::from_millis(millis) };
        assert_eq!((told(5_000).reset_seconds(), told(5_001).reset_seconds()), (5, 6));
    }

    #[test]
    fn plans_have_the_names_that_they_are_stored_under() {
        for plan in Plan::ALL {
            assert_eq!(Plan::parse(plan.as_str()), Some(plan));
        }
        assert_eq!(Plan::parse("gold"), None);
    }
}
