//! The configuration in the words of those who go by it: the core's rules, the sweeper, plans and prices.
//!
//! Not here: what can be set and within which bounds (`config`).

use std::collections::BTreeMap;

use crate::config::{self, Config};
use crate::credit::Credits;
use crate::credit::plan::{Limits, Plans};
use crate::provider::failure::RetryRules;
use crate::song::parts::TaskKind;
use crate::song::phase::{ManualRetries, OwnRules, PollRules, Rules};
use crate::song::sweeper;

pub(super) fn rules(config: &Config) -> Rules {
    let tasks = &config.tasks;
    let retry = &config.retry;
    let manual = &config.retry.manual;
    let defaults = RetryRules::default();
    Rules {
        deadline: tasks.deadline,
        poll: poll_rules(&tasks.poll),
        own: config
            .providers
            .all()
            .into_iter()
            .filter_map(|(name, own)| own_rules(name, own, tasks))
            .collect(),
        grace: tasks.grace,
        max_wait: tasks.max_wait,
        retry: RetryRules {
            rate_limited: retry.rate_limited.delays.first().copied().unwrap_or(defaults.rate_limited),
            network: retry.network.delays.clone(),
            provider_error: retry.provider_error.delays.clone(),
            timeout: retry.timeout.delays.clone(),
            storage: retry.storage.delays.clone(),
            unknown: retry.unknown.delays.clone(),
        },
        manual_retries: ManualRetries {
            max: u16::try_from(manual.max).unwrap_or(u16::MAX),
            per_hour: u16::try_from(manual.per_hour).unwrap_or(u16::MAX),
        },
    }
}

/// `None` where a provider has nothing of its own.
fn own_rules(name: &str, provider: &config::Provider, tasks: &config::Tasks) -> Option<(String, OwnRules)> {
    let deadline = provider.deadline.unwrap_or(tasks.deadline);
    let own = OwnRules { deadline, poll: poll_rules(&provider.poll.over(&tasks.poll)) };
    let usual = OwnRules { deadline: tasks.deadline, poll: poll_rules(&tasks.poll) };
    (own != usual).then(|| (name.to_owned(), own))
}

fn poll_rules(poll: &config::Poll) -> PollRules {
    PollRules { initial: poll.initial, max: poll.max, multiplier: poll.multiplier }
}

pub(super) fn sweeping(config: &Config) -> sweeper::Settings {
    let ops = &config.ops;
    sweeper::Settings { every: ops.sweep_every, slack: ops.stuck_after }
}

pub(super) fn plans(config: &Config) -> Plans {
    let limits = |plan: &config::PlanLimits| Limits {
        per_minute: plan.per_minute,
        per_day: Some(plan.per_day).filter(|limit| *limit > 0),
        concurrent: plan.concurrent,
    };
    let plans = &config.plans;
    Plans {
        guest: limits(&plans.guest),
        free: limits(&plans.free),
        pro: limits(&plans.pro),
        premium: limits(&plans.premium),
        previews_per_day: plans.previews_per_day,
    }
}

pub(super) fn prices(config: &Config) -> BTreeMap<&'static str, Credits> {
    TaskKind::ALL.into_iter().map(|kind| (kind.as_str(), config.credits.prices.of(kind))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_class_waits_as_it_was_set() {
        let mut config = Config::default();
        let retry = &mut config.retry;
        let lists = [
            &mut retry.rate_limited,
            &mut retry.network,
            &mut retry.provider_error,
            &mut retry.timeout,
            &mut retry.storage,
            &mut retry.unknown,
        ];
        for (list, seconds) in lists.into_iter().zip(1..) {
            list.delays = vec![Duration::from_secs(seconds)];
        }
        let set = |seconds| vec![Duration::from_secs(seconds)];
        let wanted = RetryRules {
            rate_limited: Duration::from_secs(1),
            network: set(2),
            provider_error: set(3),
            timeout: set(4),
            storage: set(5),
            unknown: set(6),
        };
        assert_eq!(rules(&config).retry, wanted);
    }
}
