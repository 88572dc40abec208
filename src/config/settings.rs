//! Every setting, with its unit, default and bounds. Bounds are checked in `check.rs`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::values::{credits, duration, masked, masked_list};
use crate::credit::Credits;
use crate::provider::gate::Rate;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A struct of settings with its defaults beside its fields. Unknown keys are refused before serde
/// sees them (`layers.rs`), with where they came from.
macro_rules! settings {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

/// Development forgives what production refuses: no key, no database, the simulator, any local origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Env {
    #[default]
    Development,
    Production,
}

settings!(
    /// The whole configuration, sections in the order a request meets them.
    Config {
        /// `development` (default) or `production`. Environment: `SONGFLIGHT_ENV`.
        env: Env = Env::Development,
        http: Http = Http::default(),
        auth: Auth = Auth::default(),
        database: Database = Database::default(),
        providers: Providers = Providers::default(),
        tasks: Tasks = Tasks::default(),
        retry: Retry = Retry::default(),
        credits: CreditRules = CreditRules::default(),
        plans: Plans = Plans::default(),
        guests: Guests = Guests::default(),
        journal: Journal = Journal::default(),
        realtime: Realtime = Realtime::default(),
        assets: Assets = Assets::default(),
        cluster: Cluster = Cluster::default(),
        ops: Ops = Ops::default(),
        log: Log = Log::default(),
        otel: Otel = Otel::default(),
    }
);

settings!(
    Http {
        /// Address and port to listen at; default `127.0.0.1:8080`. `PORT` sets the port alone.
        bind: String = "127.0.0.1:8080".into(),
        /// Where clients and providers reach us, for callback urls; default: the bound address.
        public_url: Option<String> = None,
        /// Origins whose pages may call us (SEC-1); a port `*` is any port. Default: this machine's
        /// pages in development, none in production. The origin of `public_url` is always allowed.
        allowed_origins: Vec<String> = vec!["http://localhost:*".into(), "http://127.0.0.1:*".into()],
        /// Whether the last address in `X-Forwarded-For` is the client's: only behind a proxy that sets it.
        trust_forwarded: bool = false,
        /// Callbacks under way at once, 1-100000; default 2048. Beyond it 429, and providers send theirs again.
        callbacks_at_once: usize = 2048,
        /// Songs being created at once, 1-100000; default 2048. A song counts until its provider has taken it (but no more
        /// than a second of that), or it has to wait for something else. Beyond it 503 at once: whoever is taken is answered
        /// soon, and no more is begun than can be carried on.
        creates_at_once: usize = 2048,
        /// Threads that serve requests, 1-1024; default: one per core.
        workers: Option<NonZeroUsize> = None,
    }
);

settings!(
    Auth {
        /// The key of our own tokens (HS256) and callback urls; in production at least 32 bytes.
        /// Default: a key made once in `.songflight/`.
        #[serde(serialize_with = "masked")]
        jwt_secret: Option<SecretString> = None,
        /// Earlier keys: callback urls made with them stay valid; tokens do not.
        #[serde(serialize_with = "masked_list")]
        previous_secrets: Vec<SecretString> = Vec::new(),
        /// Public keys of whoever signs tokens with RS256 or ES256.
        jwks_url: Option<String> = None,
        /// The `aud` a token must name, when set.
        audience: Option<String> = None,
        /// The `iss` a token must name, when set.
        issuer: Option<String> = None,
    }
);

settings!(
    Database {
        /// `postgres://…`; default: a private cluster in `data_dir`. Environment: `DATABASE_URL`. TLS is used where the
        /// server has it; `?sslmode=verify-full` insists, and looks at its certificate (`sslrootcert=` for authorities of
        /// yours).
        #[serde(serialize_with = "masked")]
        url: Option<SecretString> = None,
        /// The private cluster's folder; development key and log are kept beside it. Default
        /// `.songflight/postgres`.
        data_dir: PathBuf = ".songflight/postgres".into(),
        /// Connections for reading, 2-500; default 16. Writing has its own.
        pool_size: usize = 16,
    }
);

settings!(Providers {
    suno: Provider = Provider::default(),
    mureka: Provider = Provider::default(),
    minimax: Provider = Provider::default(),
    musicgpt: Provider = Provider::default(),
});

/// Whose flavour of the Suno API is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    #[default]
    SunoApi,
    Kie,
}

/// Into what clips are separated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stems {
    #[default]
    Two,
    Twelve,
}

/// How a song is handed over by a provider that lets us choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// As a link.
    #[default]
    Url,
    /// In the answer itself; it is then kept and served here.
    Hex,
}

settings!(
    /// One provider. As long as none of the four has an `api_key` or a `base_url`, all are simulated in development. With
    /// the first that has one, the others are absent until they have one, too; in production they always are.
    Provider {
        /// Whether it may be used at all; default true.
        enabled: bool = true,
        /// Default: the provider's own address.
        base_url: Option<String> = None,
        #[serde(serialize_with = "masked")]
        api_key: Option<SecretString> = None,
        /// What the provider signs its callbacks with, where it signs them (CB-1): kie.ai does, sunoapi.org does not.
        #[serde(serialize_with = "masked")]
        webhook_secret: Option<SecretString> = None,
        /// `sunoapi` (default) or `kie`; only `suno` looks at it.
        dialect: Dialect = Dialect::SunoApi,
        /// `two` (default: vocals, and the rest) or `twelve`, each instrument for itself; only `suno` looks at it.
        stems: Stems = Stems::Two,
        /// `url` (default) or `hex`; only `minimax` looks at it.
        output_format: OutputFormat = OutputFormat::Url,
        /// How often it may be called, such as `20/10s`; default: what the provider documents, none when simulated.
        rate_limit: Option<Rate> = None,
        /// Generations in flight at once, from 1; default: what the provider documents.
        max_concurrent: Option<u32> = None,
        /// Where its finished files are fetched from, when not from the urls it gives.
        cdn_url: Option<String> = None,
        /// The model when the song names none; default: the adapter's.
        model: Option<String> = None,
        /// From submission to `timeout` at this provider, 1s-24h; default: `tasks.deadline`.
        #[serde(with = "duration::option")]
        deadline: Option<Duration> = None,
        poll: OwnPoll = OwnPoll::default(),
        breaker: Breaker = Breaker::default(),
    }
);

settings!(
    /// How often this provider is asked, where it is otherwise than `tasks.poll` says.
    OwnPoll {
        /// 10ms-10m; default: `tasks.poll.initial`.
        #[serde(with = "duration::option")]
        initial: Option<Duration> = None,
        /// Longest pause, from the first one to 1h; default: `tasks.poll.max`.
        #[serde(with = "duration::option")]
        max: Option<Duration> = None,
        /// Each pause is the last one times this, 1.0-10.0; default: `tasks.poll.multiplier`.
        multiplier: Option<f64> = None,
    }
);

impl OwnPoll {
    /// What holds for the provider.
    pub fn over(&self, usual: &Poll) -> Poll {
        Poll {
            initial: self.initial.unwrap_or(usual.initial),
            max: self.max.unwrap_or(usual.max),
            multiplier: self.multiplier.unwrap_or(usual.multiplier),
        }
    }
}

settings!(
    /// When a provider that fails is left alone for a while; its songs wait meanwhile (PROV-11).
    Breaker {
        /// Calls that fail in a row, or twice as many of the last four times as many, 1-1000; default 5.
        failures: u32 = 5,
        /// How long at first, 100ms-1h; default 15s. Doubled while it goes on, up to 2m.
        #[serde(with = "duration")]
        open_for: Duration = seconds(15),
    }
);

settings!(Tasks {
    /// From submission to `timeout`, 1s-24h; default 10m.
    #[serde(with = "duration")]
    deadline: Duration = seconds(600),
    /// How long an ambiguous submission may still be answered by a callback, 0s-1h; default 2m.
    #[serde(with = "duration")]
    grace: Duration = seconds(120),
    /// Longest wait for a provider's limit, 1s-24h; default 60m.
    #[serde(with = "duration")]
    max_wait: Duration = seconds(3600),
    /// One call to a provider, 100ms-10m; default 30s.
    #[serde(with = "duration")]
    call_timeout: Duration = seconds(30),
    poll: Poll = Poll::default(),
});

settings!(
    /// How often a provider is asked while its callback is awaited.
    Poll {
        /// 10ms-10m; default 2s.
        #[serde(with = "duration")]
        initial: Duration = seconds(2),
        /// Longest pause, from `initial` to 1h; default 30s.
        #[serde(with = "duration")]
        max: Duration = seconds(30),
        /// Each pause is the last one times this, 1.0-10.0; default 1.5.
        multiplier: f64 = 1.5,
    }
);

settings!(
    /// When a failed call is tried again, per class (PROV-8); one delay per try, the last class's
    /// single delay for as long as `tasks.max_wait` allows.
    Retry {
        /// 5 tries from 1 s doubling; jitter is added.
        network: Delays = Delays::of(&[1, 2, 4, 8, 16]),
        /// 30s, 2m, 5m.
        provider_error: Delays = Delays::of(&[30, 120, 300]),
        /// What was made could not be kept, and is made again. As `provider_error`.
        storage: Delays = Delays::of(&[30, 120, 300]),
        /// As `provider_error`.
        unknown: Delays = Delays::of(&[30, 120, 300]),
        /// For time-outs that the provider reports, default 30s; at the deadline it is partial results, or a refund.
        timeout: Delays = Delays::of(&[30]),
        /// When the provider does not say how long; default 10s, exactly one.
        rate_limited: Delays = Delays::of(&[10]),
        manual: ManualRetry = ManualRetry::default(),
    }
);

settings!(
    Delays {
        /// Each 0s-24h, at most 20.
        #[serde(with = "duration::list")]
        delays: Vec<Duration> = Vec::new(),
    }
);

impl Delays {
    fn of(delays: &[u64]) -> Self {
        Self { delays: delays.iter().copied().map(seconds).collect() }
    }
}

settings!(
    /// The user's own retries of a failed song.
    ManualRetry {
        /// Per song, 0-100; default 5.
        max: u32 = 5,
        /// Per song and hour, 0-100; default 3.
        per_hour: u32 = 3,
    }
);

settings!(CreditRules {
    /// What a new user starts with; default 10.
    #[serde(with = "credits")]
    signup_grant: Credits = Credits::from_thousandths(10_000),
    /// What a guest starts with; default 1.1, one song with its lyrics.
    #[serde(with = "credits")]
    guest_grant: Credits = Credits::from_thousandths(1_100),
    prices: Prices = Prices::default(),
});

settings!(
    /// What one task costs, in credits with at most three decimals (CRED-1, `design.md` section 10).
    Prices {
        #[serde(with = "credits")]
        generate: Credits = Credits::from_thousandths(1000),
        #[serde(with = "credits")]
        lyrics: Credits = Credits::from_thousandths(100),
        #[serde(with = "credits")]
        extend: Credits = Credits::from_thousandths(500),
        #[serde(with = "credits")]
        replace_section: Credits = Credits::from_thousandths(500),
        #[serde(with = "credits")]
        stems: Credits = Credits::from_thousandths(500),
        #[serde(with = "credits")]
        persona: Credits = Credits::from_thousandths(0),
        #[serde(with = "credits")]
        cover: Credits = Credits::from_thousandths(1000),
        #[serde(with = "credits")]
        merge: Credits = Credits::from_thousandths(500),
        #[serde(with = "credits")]
        video: Credits = Credits::from_thousandths(0),
    }
);

settings!(
    /// How much may be created in a minute, in a day and at once (CRED-3).
    Plans {
        guest: PlanLimits = PlanLimits::of(2, 3, 1),
        free: PlanLimits = PlanLimits::of(3, 10, 1),
        pro: PlanLimits = PlanLimits::of(10, 100, 3),
        premium: PlanLimits = PlanLimits::of(30, 0, 10),
        /// Previews of anybody in a day, 0-1000; default 3.
        previews_per_day: u32 = 3,
    }
);

settings!(PlanLimits {
    /// At once after a pause, and then spread over the minute, 1-60000.
    per_minute: u32 = 3,
    /// From 00:00 UTC on, up to 1000000; 0 is no limit.
    per_day: u32 = 10,
    /// Songs under way, 1-10000.
    concurrent: u32 = 1,
});

impl PlanLimits {
    const fn of(per_minute: u32, per_day: u32, concurrent: u32) -> Self {
        Self { per_minute, per_day, concurrent }
    }
}

settings!(
    /// People without an account (CRED-7).
    Guests {
        /// New guests from one address, such as `10/1h`.
        per_address: Rate = Rate { requests: NonZeroU32::MIN.saturating_add(9), window: seconds(3600) },
        /// How long a guest's token is valid, 1m-365d; default 30d.
        #[serde(with = "duration")]
        token_ttl: Duration = seconds(30 * 86_400),
    }
);

settings!(
    /// The writer that commits many songs at once.
    Journal {
        /// Connections to write by, 1-16; default 2. The first does it alone as long as it keeps up.
        lanes: usize = 2,
        /// Steps in one transaction, 1-16384; default 1024.
        batch_max: usize = 1024,
        /// Steps waiting before new work is refused, from `batch_max` to 1000000; default 4096.
        queue_max: usize = 4096,
    }
);

settings!(
    /// WebSocket and SSE sessions (`protocol.md`).
    Realtime {
        /// From connect to `hello`, 100ms-1m; default 5s.
        #[serde(with = "duration")]
        hello_timeout: Duration = seconds(5),
        /// Between pings, 100ms-10m; default 25s.
        #[serde(with = "duration")]
        ping: Duration = seconds(25),
        /// From ping to pong, 100ms-10m; default 10s.
        #[serde(with = "duration")]
        pong: Duration = seconds(10),
        /// Subscriptions of one session, 1-10000; default 100.
        subs_max: usize = 100,
        /// Per session, 1-10000; default 20.
        commands_per_second: u32 = 20,
        /// 1-10000; default 10.
        connections_per_user: usize = 10,
        /// One frame from a client in bytes, 1 KiB-16 MiB; default 64 KiB.
        frame_bytes_max: usize = 65_536,
        /// Events replayed on a resume, 1-100000; default 300.
        resume_events_max: usize = 300,
        /// The same in bytes, 1 KiB-64 MiB; default 256 KiB.
        resume_bytes_max: usize = 262_144,
        /// Frames waiting for one client, 1-100000; default 32.
        outbox_frames_max: usize = 32,
        /// The same in bytes, 1 KiB-64 MiB; default 64 KiB.
        outbox_bytes_max: usize = 65_536,
        /// Newest states kept for a slow client in bytes, 1 KiB-64 MiB; default 256 KiB.
        slots_bytes_max: usize = 262_144,
        /// A client that takes nothing for this long is cut off, 100ms-10m; default 10s.
        #[serde(with = "duration")]
        stall: Duration = seconds(10),
        /// How long events can be replayed, in days, 1-365; default 7.
        events_keep_days: u32 = 7,
        /// Snapshots read at the same time, 1-1000; default 8.
        snapshots_at_once: usize = 8,
    }
);

settings!(
    Assets {
        /// `file:///…` or `s3://…`. Not there yet: files are kept in `assets` beside the private cluster. Production refuses
        /// to start with another place.
        url: Option<String> = None,
    }
);

settings!(
    Cluster {
        /// The bus between nodes. Not there yet: sockets hear of songs of their own node. Environment: `REDIS_URL`.
        #[serde(serialize_with = "masked")]
        redis_url: Option<SecretString> = None,
        /// How often a node renews its lease, 10ms-1m; default 2s.
        #[serde(with = "duration")]
        heartbeat: Duration = seconds(2),
        /// After this long without a heartbeat a node's songs are taken over; from three heartbeats
        /// to 10m; default 6s.
        #[serde(with = "duration")]
        lease: Duration = seconds(6),
    }
);

settings!(
    /// What looks after songs that do not get on, and how this node leaves.
    Ops {
        /// How often stuck songs are looked for, 100ms-1h; default 1m.
        #[serde(with = "duration")]
        sweep_every: Duration = seconds(60),
        /// How much later than its state says a song may move before it counts as stuck, 100ms-24h; default 1m.
        #[serde(with = "duration")]
        stuck_after: Duration = seconds(60),
        /// How often a song is taken up without moving before it is given up and becomes a dead letter, 1-1000; default 20.
        activations_max: i16 = 20,
        /// How long dead letters are kept that were resolved, in days, 1-3650; default 90.
        dead_letters_keep_days: u32 = 90,
        /// How often all that must always hold is looked at, 1s-7d, or 0s for never; default 1h. It reads every table.
        #[serde(with = "duration")]
        audit_every: Duration = seconds(3600),
        /// When told to stop, how long submissions under way are waited for, 0s-10m; default 30s.
        #[serde(with = "duration")]
        stop_within: Duration = seconds(30),
    }
);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}

settings!(Log {
    /// `text` (default) or `json`.
    format: LogFormat = LogFormat::Text,
    /// Which messages, in the syntax of `tracing`; default `info`. Environment: `RUST_LOG`.
    filter: String = "info".into(),
});

settings!(
    Otel {
        /// Where traces are sent (OTLP over HTTP); default: nowhere.
        endpoint: Option<String> = None,
    }
);
