//! What a world is made of and what goes wrong in it, from its seed: each fault is switched on in some worlds and off in
//! others, so that combinations come up which nobody thought of (swarm).

use std::time::Duration;

use songflight::credit::plan::{Limits, Plans};
use songflight::provider::failure::RetryRules;
use songflight::song::phase::{ManualRetries, PollRules, Rules};

use super::dice::Dice;

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    /// Whether a machine goes on as the node that ran on it before.
    pub remembers: bool,
    pub people: usize,
    pub songs_each: u64,
    /// How long things go wrong; then everybody is kind and all must come to an end.
    pub trouble: Duration,
    pub faults: Faults,
    /// Tasks that a provider makes at once.
    pub tasks_max: Option<usize>,
    /// Thousandths of a credit that everybody begins with.
    pub grant: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub kill: bool,
    pub pause: bool,
    pub leave: bool,
    pub cut: bool,
    pub skew: bool,
    /// The database: away for a while, commits of unknown outcome, slow ones, answers to questions that get lost.
    pub outage: bool,
    pub unknown: bool,
    pub slow: bool,
    pub deaf: bool,
    /// The provider: refuses, may or may not have taken an order, has its limits, forgets, contradicts itself.
    pub refuse: bool,
    pub ambiguous: bool,
    pub limit: bool,
    pub forget: bool,
    pub lie: bool,
    /// Callbacks.
    pub late: bool,
    pub twice: bool,
    pub missing: bool,
    /// People.
    pub fickle: bool,
    pub impatient: bool,
}

impl Faults {
    pub const NONE: Faults = Faults {
        kill: false,
        pause: false,
        leave: false,
        cut: false,
        skew: false,
        outage: false,
        unknown: false,
        slow: false,
        deaf: false,
        refuse: false,
        ambiguous: false,
        limit: false,
        forget: false,
        lie: false,
        late: false,
        twice: false,
        missing: false,
        fickle: false,
        impatient: false,
    };

    fn drawn(dice: &mut Dice) -> Self {
        let mut on = || dice.percent(45);
        Self {
            kill: on(),
            pause: on(),
            leave: on(),
            cut: on(),
            skew: on(),
            outage: on(),
            unknown: on(),
            slow: on(),
            deaf: on(),
            refuse: on(),
            ambiguous: on(),
            limit: on(),
            forget: on(),
            lie: on(),
            late: on(),
            twice: on(),
            missing: on(),
            fickle: on(),
            impatient: on(),
        }
    }
}

impl Plan {
    pub fn drawn(dice: &mut Dice) -> Self {
        Self {
            nodes: dice.pick(&[1, 1, 2, 3]),
            remembers: dice.percent(70),
            people: dice.pick(&[1, 2, 2]),
            songs_each: dice.pick(&[1, 2, 3]),
            trouble: dice.millis(60_000, 400_000),
            faults: Faults::drawn(dice),
            tasks_max: dice.pick(&[None, None, Some(1), Some(2)]),
            grant: dice.pick(&[100_000, 100_000, 3_000]),
        }
    }
}

/// As in production, with shorter times where that makes a world cheaper.
pub fn rules() -> Rules {
    let seconds = |list: &[u64]| list.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
    Rules {
        deadline: Duration::from_secs(180),
        grace: GRACE,
        max_wait: Duration::from_secs(480),
        own: std::collections::BTreeMap::new(),
        poll: PollRules { initial: Duration::from_secs(2), max: Duration::from_secs(30), multiplier: 1.5 },
        retry: RetryRules {
            provider_error: seconds(&[5, 20, 60]),
            unknown: seconds(&[5, 20]),
            ..RetryRules::default()
        },
        manual_retries: ManualRetries { max: 5, per_hour: 3 },
    }
}

pub const GRACE: Duration = Duration::from_secs(30);
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
pub const HEARTBEAT: Duration = Duration::from_secs(2);
pub const LEASE: Duration = Duration::from_secs(6);
/// Two machines' clocks may differ by this.
pub const SKEW_MILLIS: u64 = 3_000;
/// By then every world must have come to rest.
pub const PEACE_MAX: Duration = Duration::from_secs(3 * 3600);

/// Enough for everybody at all times, but for songs at once.
pub fn plans() -> Plans {
    let limits = Limits { per_minute: 60_000, per_day: None, concurrent: 2 };
    Plans { guest: limits, free: limits, pro: limits, premium: limits, previews_per_day: 1000 }
}
