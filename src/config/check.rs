//! What is refused at the start: values out of bounds, and in production whatever is only for trying.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::layers::Values;
use super::values::duration::write;
use super::{Config, Dialect, Env, OwnPoll, Poll, Problem, Provider};
use crate::store::server::Server;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// HS256 wants a key as long as its hash (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Longer lists of delays would outlast any song.
const DELAYS_MAX: usize = 20;

/// Notes every value that is out of bounds, and in production every setting that is missing.
pub(super) fn check(config: &Config, values: &Values, problems: &mut Vec<Problem>) {
    let mut check = Check { values, problems };
    check.http(config);
    check.stores(config);
    check.providers(config);
    check.tasks(config);
    check.plans(config);
    check.realtime(config);
    if config.env == Env::Production {
        check.production(config);
    }
}

struct Check<'a> {
    values: &'a Values,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn http(&mut self, config: &Config) {
        let http = &config.http;
        let bound = http.bind.parse::<SocketAddr>().is_ok();
        self.require(bound, "http.bind", "must be an address and a port, such as 127.0.0.1:8080");
        self.url("http.public_url", http.public_url.as_deref(), &["http", "https"]);
        self.range("http.callbacks_at_once", http.callbacks_at_once, 1..=100_000);
        self.range("http.creates_at_once", http.creates_at_once, 1..=100_000);
        if let Some(workers) = http.workers {
            self.range("http.workers", workers.get(), 1..=1024);
        }
        let origins = http.allowed_origins.iter().all(|origin| is_origin(origin));
        self.require(
            origins,
            "http.allowed_origins",
            "must be origins such as https://app.example.com, without a path",
        );
        self.url("auth.jwks_url", config.auth.jwks_url.as_deref(), &["http", "https"]);
        self.url("otel.endpoint", config.otel.endpoint.as_deref(), &["http", "https"]);
        let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter);
        self.require(filter.is_ok(), "log.filter", "must be a filter such as info or warn,songflight=debug");
    }

    fn stores(&mut self, config: &Config) {
        let database = config.database.url.as_ref().map(ExposeSecret::expose_secret);
        if let Some(Err(error)) = database.map(str::parse::<Server>) {
            self.require(false, "database.url", &error.to_string());
        }
        self.range("database.pool_size", config.database.pool_size, 2..=500);
        let redis = config.cluster.redis_url.as_ref().map(ExposeSecret::expose_secret);
        self.url("cluster.redis_url", redis, &["redis", "rediss", "unix"]);
        self.url("assets.url", config.assets.url.as_deref(), &["file", "s3"]);
        let cluster = &config.cluster;
        self.time("cluster.heartbeat", cluster.heartbeat, 10 * MILLISECOND..=MINUTE);
        self.time("cluster.lease", cluster.lease, cluster.heartbeat * 3..=10 * MINUTE);
        let ops = &config.ops;
        self.time("ops.sweep_every", ops.sweep_every, 100 * MILLISECOND..=60 * MINUTE);
        self.time("ops.stuck_after", ops.stuck_after, 100 * MILLISECOND..=DAY);
        self.range("ops.activations_max", usize::try_from(ops.activations_max).unwrap_or(0), 1..=1000);
        self.range("ops.dead_letters_keep_days", ops.dead_letters_keep_days as usize, 1..=3650);
        if !ops.audit_every.is_zero() {
            self.time("ops.audit_every", ops.audit_every, 1000 * MILLISECOND..=7 * DAY);
        }
        self.time("ops.stop_within", ops.stop_within, Duration::ZERO..=10 * MINUTE);
        let journal = &config.journal;
        self.range("journal.lanes", journal.lanes, 1..=16);
        self.range("journal.batch_max", journal.batch_max, 1..=16_384);
        self.range("journal.queue_max", journal.queue_max, journal.batch_max..=1_000_000);
    }

    fn providers(&mut self, config: &Config) {
        for (name, provider) in config.providers.all() {
            let key = |field: &str| format!("providers.{name}.{field}");
            self.url(&key("base_url"), provider.base_url.as_deref(), &["http", "https"]);
            self.url(&key("cdn_url"), provider.cdn_url.as_deref(), &["http", "https"]);
            self.require(provider.max_concurrent != Some(0), &key("max_concurrent"), "must be 1 or more");
            let breaker = &provider.breaker;
            if let Some(deadline) = provider.deadline {
                self.time(&key("deadline"), deadline, 1000 * MILLISECOND..=DAY);
            }
            self.own_poll(key, &provider.poll, &config.tasks.poll);
            self.require(signs(name, provider), &key("webhook_secret"), SIGNS_NOTHING);
            self.range(&key("breaker.failures"), breaker.failures as usize, 1..=1000);
            self.time(&key("breaker.open_for"), breaker.open_for, 100 * MILLISECOND..=60 * MINUTE);
        }
    }

    /// Together with what is configured for all: the first pause is none of the longest.
    fn own_poll(&mut self, key: impl Fn(&str) -> String, own: &OwnPoll, usual: &Poll) {
        let poll = own.over(usual);
        if let Some(initial) = own.initial {
            self.time(&key("poll.initial"), initial, 10 * MILLISECOND..=(10 * MINUTE).min(poll.max));
        }
        if let Some(max) = own.max {
            self.time(&key("poll.max"), max, poll.initial..=60 * MINUTE);
        }
        if let Some(multiplier) = own.multiplier {
            let fits = (1.0..=10.0).contains(&multiplier);
            self.require(fits, &key("poll.multiplier"), "must be from 1.0 to 10.0");
        }
    }

    fn tasks(&mut self, config: &Config) {
        let tasks = &config.tasks;
        self.time("tasks.deadline", tasks.deadline, 1000 * MILLISECOND..=DAY);
        self.time("tasks.grace", tasks.grace, Duration::ZERO..=60 * MINUTE);
        self.time("tasks.max_wait", tasks.max_wait, 1000 * MILLISECOND..=DAY);
        self.time("tasks.call_timeout", tasks.call_timeout, 100 * MILLISECOND..=10 * MINUTE);
        self.time("tasks.poll.initial", tasks.poll.initial, 10 * MILLISECOND..=10 * MINUTE);
        self.time("tasks.poll.max", tasks.poll.max, tasks.poll.initial..=60 * MINUTE);
        let multiplier = (1.0..=10.0).contains(&tasks.poll.multiplier);
        self.require(multiplier, "tasks.poll.multiplier", "must be from 1.0 to 10.0");
        let retry = &config.retry;
        let classes = [
            ("network", &retry.network),
            ("provider_error", &retry.provider_error),
            ("storage", &retry.storage),
            ("unknown", &retry.unknown),
            ("timeout", &retry.timeout),
            ("rate_limited", &retry.rate_limited),
        ];
        for (class, delays) in classes {
            let fits = delays.delays.len() <= DELAYS_MAX && delays.delays.iter().all(|delay| *delay <= DAY);
            self.require(fits, &format!("retry.{class}.delays"), "must be at most 20 delays of at most 1d");
        }
        let single = retry.rate_limited.delays.len() == 1;
        self.require(single, "retry.rate_limited.delays", "must be exactly one delay, such as [\"10s\"]");
        self.range("retry.manual.max", retry.manual.max as usize, 0..=100);
        self.range("retry.manual.per_hour", retry.manual.per_hour as usize, 0..=100);
    }

    fn plans(&mut self, config: &Config) {
        for (name, plan) in config.plans.all() {
            let key = |field: &str| format!("plans.{name}.{field}");
            self.range(&key("per_minute"), plan.per_minute as usize, 1..=60_000);
            self.range(&key("per_day"), plan.per_day as usize, 0..=1_000_000);
            self.range(&key("concurrent"), plan.concurrent as usize, 1..=10_000);
        }
        self.range("plans.previews_per_day", config.plans.previews_per_day as usize, 0..=1000);
        self.time("guests.token_ttl", config.guests.token_ttl, MINUTE..=365 * DAY);
    }

    fn realtime(&mut self, config: &Config) {
        let realtime = &config.realtime;
        self.time("realtime.hello_timeout", realtime.hello_timeout, 100 * MILLISECOND..=MINUTE);
        for (key, time) in [("ping", realtime.ping), ("pong", realtime.pong), ("stall", realtime.stall)] {
            self.time(&format!("realtime.{key}"), time, 100 * MILLISECOND..=10 * MINUTE);
        }
        self.range("realtime.frame_bytes_max", realtime.frame_bytes_max, KIB..=16 * MIB);
        for (key, bytes) in [
            ("resume_bytes_max", realtime.resume_bytes_max),
            ("outbox_bytes_max", realtime.outbox_bytes_max),
            ("slots_bytes_max", realtime.slots_bytes_max),
        ] {
            self.range(&format!("realtime.{key}"), bytes, KIB..=64 * MIB);
        }
        for (key, count, most) in [
            ("subs_max", realtime.subs_max, 10_000),
            ("commands_per_second", realtime.commands_per_second as usize, 10_000),
            ("connections_per_user", realtime.connections_per_user, 10_000),
            ("resume_events_max", realtime.resume_events_max, 100_000),
            ("outbox_frames_max", realtime.outbox_frames_max, 100_000),
            ("events_keep_days", realtime.events_keep_days as usize, 365),
            ("snapshots_at_once", realtime.snapshots_at_once, 1000),
        ] {
            self.range(&format!("realtime.{key}"), count, 1..=most);
        }
    }

    fn production(&mut self, config: &Config) {
        let auth = &config.auth;
        let long = |secret: &SecretString| secret.expose_secret().len() >= SECRET_BYTES_MIN;
        let known = auth.jwt_secret.is_some() || auth.jwks_url.is_some();
        self.require(known, "auth.jwt_secret", "production needs this or auth.jwks_url");
        let secrets = "production needs at least 32 bytes, for example from `openssl rand -base64 32`";
        self.require(auth.jwt_secret.as_ref().is_none_or(long), "auth.jwt_secret", secrets);
        self.require(auth.previous_secrets.iter().all(long), "auth.previous_secrets", secrets);
        let jwks = auth.jwks_url.as_deref().is_none_or(|url| url.starts_with("https://"));
        self.require(jwks, "auth.jwks_url", "production needs https");
        let shared = config.cluster.redis_url.is_none() || auth.jwt_secret.is_some();
        let both = "several nodes need one key in common: callback urls are made with it";
        self.require(shared || !known, "auth.jwt_secret", both);
        // Whoever sets it would take for kept there what is not.
        let elsewhere =
            "must be left out: files are kept beside the program, storage of yours is not there yet";
        self.require(config.assets.url.is_none(), "assets.url", elsewhere);
        let database = config.database.url.is_some();
        self.require(database, "database.url", "production needs a database of yours; set DATABASE_URL");
        let real = config.providers.all().iter().any(|(_, one)| one.enabled && one.api_key.is_some());
        let provider = "production does not run the simulator; at least one provider needs its api_key";
        self.require(real, "providers.suno.api_key", provider);
        let open = config.http.allowed_origins.iter().any(|origin| origin.contains('*'));
        self.require(!open, "http.allowed_origins", "production allows no `*`: name each origin");
        let https = config.http.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
        self.require(https, "http.public_url", "production needs the https url providers can reach us at");
    }

    fn require(&mut self, holds: bool, key: &str, allowed: &str) {
        if holds {
            return;
        }
        let (value, source) = self.values.get(key).map_or_else(
            || ("?".to_owned(), "?".to_owned()),
            |setting| (setting.shown(), setting.source.clone()),
        );
        self.problems.push(Problem { key: key.into(), value, source, allowed: allowed.into() });
    }

    fn range(&mut self, key: &str, value: usize, bounds: RangeInclusive<usize>) {
        let allowed = format!("must be from {} to {}", bounds.start(), bounds.end());
        self.require(bounds.contains(&value), key, &allowed);
    }

    fn time(&mut self, key: &str, value: Duration, bounds: RangeInclusive<Duration>) {
        let allowed = format!("must be from {} to {}", write(*bounds.start()), write(*bounds.end()));
        self.require(bounds.contains(&value), key, &allowed);
    }

    fn url(&mut self, key: &str, value: Option<&str>, schemes: &[&str]) {
        let parsed = value.map(reqwest::Url::parse);
        let fits = parsed.is_none_or(|url| url.is_ok_and(|url| schemes.contains(&url.scheme())));
        let allowed: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://…")).collect();
        self.require(fits, key, &format!("must be a url: {}", allowed.join(" or ")));
    }
}

const SIGNS_NOTHING: &str = "must be left out: this provider signs nothing, so that each of its callbacks would be \
     refused (suno: dialect = \"kie\", or the base_url of a gateway that signs)";

/// Whether a secret is of use, if there is one. Who else signs is not known (`providers/suno.md` section 5): another
/// gateway with sunoapi.org's paths may.
fn signs(name: &str, provider: &Provider) -> bool {
    let host = |url: &str| reqwest::Url::parse(url).ok()?.host_str().map(str::to_owned);
    let gateway = provider.base_url.as_deref().and_then(host);
    let elsewhere = gateway.is_some_and(|host| host != "sunoapi.org" && !host.ends_with(".sunoapi.org"));
    let suno_signs = provider.dialect == Dialect::Kie || elsewhere;
    provider.webhook_secret.is_none() || (name == "suno" && suno_signs)
}

/// `*`, or a scheme, a host and perhaps a port (a number or `*`) without anything after.
fn is_origin(text: &str) -> bool {
    let concrete = text.strip_suffix(":*").unwrap_or(text);
    let parsed = reqwest::Url::parse(concrete);
    text == "*" || parsed.is_ok_and(|url| url.has_host() && url.origin().ascii_serialization() == concrete)
}
