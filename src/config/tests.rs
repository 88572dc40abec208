//! The environment is an argument everywhere here, so these tests do not meet.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

fn load(environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let owned = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Config::load_from(None, owned)
}

fn problems(environment: &[(&str, &str)]) -> Vec<Problem> {
    match load(environment) {
        Err(ConfigError::Problems(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

fn keys(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.key.as_str()).collect()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("songflight-config-{name}-{}.toml", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    path
}

const PRODUCTION: [(&str, &str); 5] = [
    ("SONGFLIGHT_ENV", "production"),
    ("SONGFLIGHT_AUTH__JWT_SECRET", "0123456789abcdef0123456789abcdef"),
    ("DATABASE_URL", "postgres://songs:hidden@db/songs"),
    ("SONGFLIGHT_PROVIDERS__SUNO__API_KEY", "12345"),
    ("SONGFLIGHT_HTTP__PUBLIC_URL", "https://songs.example.com"),
];

#[test]
fn nothing_configured_is_a_working_development_configuration() {
    let loaded = load(&[]).expect("the defaults");
    let config = &loaded.config;
    assert_eq!(config.env, Env::Development);
    assert_eq!(config.http.bind, "127.0.0.1:8080");
    assert_eq!(config.tasks.deadline, Duration::from_secs(600));
    assert_eq!(config.credits.prices.lyrics.thousandths(), 100);
    assert_eq!(config.retry.network.delays.len(), 5);
    assert_eq!(config.retry.timeout.delays, [Duration::from_secs(30)]);
    assert!(config.is_simulated());
    assert!(!loaded.is_chosen("http.bind"));
}

#[test]
fn the_file_is_over_the_defaults_and_the_environment_over_the_file() {
    let path = file(
        "layers",
        "[tasks]\ndeadline = \"5m\"\ngrace = \"1m\"\npoll = { multiplier = 2 }\n\
         [credits.prices]\ngenerate = 1.005\nstems = 2\n",
    );
    let environment = [("SONGFLIGHT_TASKS__GRACE".to_owned(), "30s".to_owned())];
    let loaded = Config::load_from(Some(&path), environment).expect("a configuration");
    let config = &loaded.config;
    assert_eq!(config.tasks.deadline, Duration::from_secs(300));
    assert_eq!(config.tasks.grace, Duration::from_secs(30));
    assert_eq!(config.tasks.poll.multiplier, 2.0);
    assert_eq!(config.credits.prices.generate.thousandths(), 1005);
    assert_eq!(config.credits.prices.stems.thousandths(), 2000);
    assert_eq!(loaded.sources["tasks.deadline"], path.display().to_string());
    assert_eq!(loaded.sources["tasks.grace"], "env SONGFLIGHT_TASKS__GRACE");
    assert_eq!(loaded.sources["tasks.max_wait"], DEFAULT_SOURCE);
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn a_provider_may_have_a_deadline_and_a_timetable_of_its_own() {
    let loaded = load(&[
        ("SONGFLIGHT_TASKS__POLL__INITIAL", "3s"),
        ("SONGFLIGHT_PROVIDERS__MUREKA__DEADLINE", "20m"),
        ("SONGFLIGHT_PROVIDERS__MUREKA__POLL__MAX", "1m"),
        ("SONGFLIGHT_PROVIDERS__MUREKA__POLL__MULTIPLIER", "2"),
    ]);
    let config = loaded.expect("a configuration").config;
    let (tasks, mureka) = (&config.tasks, &config.providers.mureka);
    let poll = mureka.poll.over(&tasks.poll);
    assert_eq!((poll.initial, poll.max), (Duration::from_secs(3), Duration::from_secs(60)));
    assert_eq!((poll.multiplier, tasks.poll.multiplier), (2.0, 1.5));
    let suno = config.providers.suno.poll.over(&tasks.poll);
    assert_eq!((suno.initial, suno.max), (Duration::from_secs(3), Duration::from_secs(30)));
    assert_eq!(config.longest_deadline(), Duration::from_secs(1200));

    let found = problems(&[
        ("SONGFLIGHT_PROVIDERS__SUNO__DEADLINE", "1ms"),
        ("SONGFLIGHT_PROVIDERS__SUNO__POLL__INITIAL", "40s"),
        ("SONGFLIGHT_PROVIDERS__MUREKA__POLL__MAX", "1s"),
        ("SONGFLIGHT_PROVIDERS__MUREKA__POLL__MULTIPLIER", "0.5"),
    ]);
    let expected = [
        "providers.suno.deadline",
        "providers.suno.poll.initial",
        "providers.mureka.poll.max",
        "providers.mureka.poll.multiplier",
    ];
    assert_eq!(keys(&found), expected);
}

#[test]
fn variables_are_read_as_what_their_key_is() {
    let loaded = load(&[
        ("SONGFLIGHT_RETRY__PROVIDER_ERROR__DELAYS", "[\"1s\",\"2s\"]"),
        ("SONGFLIGHT_RETRY__NETWORK__DELAYS", "100ms, 1s"),
        ("SONGFLIGHT_RETRY__UNKNOWN__DELAYS", "[]"),
        ("SONGFLIGHT_RETRY__STORAGE__DELAYS", "3s"),
        ("SONGFLIGHT_AUTH__JWT_SECRET", "0012345"),
        ("SONGFLIGHT_PROVIDERS__SUNO__MAX_CONCURRENT", "3"),
        ("SONGFLIGHT_PROVIDERS__SUNO__RATE_LIMIT", "20/10s"),
        ("SONGFLIGHT_PROVIDERS__SUNO__DIALECT", "kie"),
        ("SONGFLIGHT_PROVIDERS__SUNO__BREAKER__FAILURES", "9"),
        ("SONGFLIGHT_PROVIDERS__SUNO__BREAKER__OPEN_FOR", "1m"),
        ("SONGFLIGHT_PROVIDERS__MUREKA__ENABLED", "false"),
        ("SONGFLIGHT_CREDITS__PRICES__GENERATE", "1.005"),
        ("SONGFLIGHT_HTTP__PUBLIC_URL", ""),
        ("PORT", "9000"),
        ("SONGFLIGHT_TOKEN", "an argument of `watch`"),
        ("RUST_LOG", "debug"),
    ]);
    let loaded = loaded.expect("a configuration");
    let config = &loaded.config;
    let seconds = Duration::from_secs;
    assert_eq!(config.retry.provider_error.delays, [seconds(1), seconds(2)]);
    assert_eq!(config.retry.network.delays, [Duration::from_millis(100), seconds(1)]);
    assert!(config.retry.unknown.delays.is_empty());
    assert_eq!(config.retry.storage.delays, [seconds(3)]);
    let secret = config.auth.jwt_secret.as_ref().map(ExposeSecret::expose_secret);
    assert_eq!(secret, Some("0012345"));
    assert_eq!(config.providers.suno.max_concurrent, Some(3));
    assert_eq!(
        config.providers.suno.rate_limit,
        Some(crate::provider::gate::Rate { requests: 20.try_into().expect("not 0"), window: seconds(10) })
    );
    assert_eq!(config.providers.suno.dialect, Dialect::Kie);
    assert_eq!((config.providers.suno.breaker.failures, config.providers.mureka.breaker.failures), (9, 5));
    assert_eq!(config.providers.suno.breaker.open_for, seconds(60));
    assert!(!config.providers.mureka.enabled);
    assert_eq!(config.credits.prices.generate.thousandths(), 1005);
    assert_eq!(config.http.public_url, None);
    assert_eq!(config.http.bind, "127.0.0.1:9000");
    assert_eq!(loaded.sources["http.bind"], "env PORT");
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn all_problems_are_told_at_once_with_key_value_source_and_what_is_allowed() {
    let found = problems(&[
        ("SONGFLIGHT_TASKS__DEADLINE", "ten minutes"),
        ("SONGFLIGHT_TASKS__GRACE", "9d"),
        ("SONGFLIGHT_DATABASE__POOL_SIZE", "many"),
        ("SONGFLIGHT_LOG__FORMAT", "xml"),
        ("SONGFLIGHT_HTTP__BINDD", "x"),
        ("SONGFLIGHT_CREDITS__PRICES__LYRICS", "0.0001"),
        ("SONGFLIGHT_CLUSTER__LEASE", "5s"),
        ("SONGFLIGHT_HTTP__WORKERS", "0"),
        ("SONGFLIGHT_PROVIDERS__SUNO__BREAKER__FAILURES", "0"),
        ("SONGFLIGHT_PROVIDERS__MUREKA__BREAKER__OPEN_FOR", "2h"),
        ("SONGFLIGHT_RETRY__UNKNOWN__DELAYS", "1s,soon"),
        ("PORT", "80000"),
    ]);
    let mut sorted = keys(&found);
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "cluster.lease",
            "credits.prices.lyrics",
            "database.pool_size",
            "http.bind",
            "http.bindd",
            "http.workers",
            "log.format",
            "providers.mureka.breaker.open_for",
            "providers.suno.breaker.failures",
            "retry.unknown.delays",
            "tasks.deadline",
            "tasks.grace",
        ]
    );
    let text = ConfigError::Problems(found).to_string();
    for part in [
        "tasks.deadline = \"ten minutes\"   (env SONGFLIGHT_TASKS__DEADLINE)",
        "must be a duration such as 250ms",
        "must be from 0s to 1h",
        "must be text or json",
        "http.bindd = \"x\"   (env SONGFLIGHT_HTTP__BINDD)",
        "did you mean http.bind?",
        "must be from 6s to 10m",
        "(env PORT)",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn a_misspelt_secret_is_not_shown() {
    for name in ["AUTH__JWT_SECRT", "AUTH", "PROVIDERS__SUNO__API_KY", "SOMETHING__ELSE"] {
        let variable = (format!("SONGFLIGHT_{name}"), String::from("hunter2"));
        let error = Config::load_from(None, [variable]).expect_err("no such key").to_string();
        assert!(error.contains(MASK) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn unknown_keys_in_the_file_are_refused_with_the_file() {
    let path = file("unknown", "http = 5\n[task]\ndeadline = \"1m\"\n[tasks]\nsecret_number = 7\n");
    let error = Config::load_from(Some(&path), []).expect_err("unknown keys").to_string();
    for part in ["did you mean tasks.deadline?", "this is a section", "tasks.secret_number"] {
        assert!(error.contains(part), "{part} is missing in:\n{error}");
    }
    assert!(error.contains(&path.display().to_string()));
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn a_named_file_must_exist_and_be_toml() {
    let missing = Config::load_from(Some(Path::new("/nowhere/songflight.toml")), []);
    assert!(matches!(missing, Err(ConfigError::File(..))));
    let path = file("syntax", "[http\n");
    let error = Config::load_from(Some(&path), []).expect_err("no TOML").to_string();
    assert!(error.contains("is not valid TOML"), "{error}");
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn a_slip_in_the_file_is_told_by_its_line_and_not_by_what_stands_there() {
    let path = file("slip", "[providers.suno]\napi_key = \"sk-live-123\n");
    let error = Config::load_from(Some(&path), []).expect_err("no TOML").to_string();
    assert!(error.contains("line 2") && !error.contains("sk-live-123"), "{error}");
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn what_a_template_left_empty_is_not_set() {
    let path =
        file("empty", "[providers.suno]\napi_key = \"\"\n[auth]\njwt_secret = \" \"\naudience = \"\"\n");
    let loaded = Config::load_from(Some(&path), []).expect("a development configuration");
    assert!(loaded.config.is_simulated() && loaded.config.auth.jwt_secret.is_none());
    assert!(loaded.config.auth.audience.is_none());
    let production = PRODUCTION.iter().filter(|(name, _)| !name.ends_with("API_KEY"));
    let production = production.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    match Config::load_from(Some(&path), production) {
        Err(ConfigError::Problems(found)) => assert_eq!(keys(&found), ["providers.suno.api_key"]),
        other => panic!("expected problems, got {other:?}"),
    }
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn what_kubernetes_tells_of_services_is_no_setting() {
    load(&[
        ("SONGFLIGHT_SERVICE_HOST", "10.0.0.7"),
        ("SONGFLIGHT_SERVICE_PORT", "80"),
        ("SONGFLIGHT_SERVICE_PORT_HTTP", "80"),
        ("SONGFLIGHT_PORT", "tcp://10.0.0.7:80"),
        ("SONGFLIGHT_PORT_80_TCP", "tcp://10.0.0.7:80"),
        ("SONGFLIGHT_PORT_80_TCP_PROTO", "tcp"),
        ("SONGFLIGHT_PORT_80_TCP_ADDR", "10.0.0.7"),
        ("SONGFLIGHT_POSTGRESQL_SERVICE_HOST", "10.0.0.8"),
        ("SONGFLIGHT_POSTGRESQL_PORT", "tcp://10.0.0.8:5432"),
    ])
    .expect("services of this name");
    for misspelt in ["SONGFLIGHT_DATABASE_URL", "SONGFLIGHT_HTTP_PORT", "SONGFLIGHT_PORT"] {
        assert_eq!(problems(&[(misspelt, "80")]).len(), 1, "{misspelt}");
    }
}

#[test]
fn a_port_alone_is_laid_over_the_address() {
    for (bind, both) in [
        ("0.0.0.0", "0.0.0.0:9000"),
        ("0.0.0.0:80", "0.0.0.0:9000"),
        ("::", "[::]:9000"),
        ("[::]", "[::]:9000"),
    ] {
        let loaded = load(&[("SONGFLIGHT_HTTP__BIND", bind), ("PORT", "9000")]).expect(bind);
        assert_eq!(loaded.config.http.bind, both);
    }
    assert_eq!(keys(&problems(&[("SONGFLIGHT_HTTP__BIND", "localhost:8080")])), ["http.bind"]);
}

#[test]
fn a_secret_for_callbacks_that_nobody_signs_is_refused() {
    const SECRET: (&str, &str) = ("SONGFLIGHT_PROVIDERS__SUNO__WEBHOOK_SECRET", "hidden");
    const URL: &str = "SONGFLIGHT_PROVIDERS__SUNO__BASE_URL";
    for more in [(URL, "https://api.sunoapi.org"), ("SONGFLIGHT_PROVIDERS__SUNO__API_KEY", "12345")] {
        let found = problems(&[SECRET, more]);
        assert_eq!(keys(&found), ["providers.suno.webhook_secret"], "{more:?}");
        assert!(!ConfigError::Problems(found).to_string().contains("hidden"));
    }
    let musicgpt = problems(&[("SONGFLIGHT_PROVIDERS__MUSICGPT__WEBHOOK_SECRET", "hidden")]);
    assert_eq!(keys(&musicgpt), ["providers.musicgpt.webhook_secret"]);
    for more in [(URL, "https://gateway.example.com"), ("SONGFLIGHT_PROVIDERS__SUNO__DIALECT", "kie")] {
        load(&[SECRET, more]).expect("somebody who signs");
    }
}

#[test]
fn production_starts_when_everything_is_there() {
    let loaded = load(&PRODUCTION).expect("a configuration");
    assert!(loaded.config.http.allowed_origins.is_empty());
    assert!(loaded.config.http.origins().allows("https://songs.example.com"));
    assert!(!loaded.config.http.origins().allows("http://localhost:3000"));
}

#[test]
fn production_refuses_each_thing_that_is_only_for_development() {
    let all = problems(&[("SONGFLIGHT_ENV", "production")]);
    assert_eq!(keys(&all), ["auth.jwt_secret", "database.url", "providers.suno.api_key", "http.public_url"]);
    for (name, text, key) in [
        ("SONGFLIGHT_AUTH__JWT_SECRET", "short", "auth.jwt_secret"),
        ("SONGFLIGHT_AUTH__PREVIOUS_SECRETS", "short", "auth.previous_secrets"),
        ("SONGFLIGHT_AUTH__JWKS_URL", "http://keys.example.com", "auth.jwks_url"),
        ("SONGFLIGHT_HTTP__ALLOWED_ORIGINS", "*", "http.allowed_origins"),
        ("SONGFLIGHT_HTTP__ALLOWED_ORIGINS", "http://localhost:*", "http.allowed_origins"),
        ("SONGFLIGHT_HTTP__PUBLIC_URL", "http://songs.example.com", "http.public_url"),
        ("SONGFLIGHT_PROVIDERS__SUNO__ENABLED", "false", "providers.suno.api_key"),
        ("SONGFLIGHT_ASSETS__URL", "s3://songs", "assets.url"),
    ] {
        let changed: Vec<_> = PRODUCTION.iter().copied().chain([(name, text)]).collect();
        assert_eq!(keys(&problems(&changed)), [key], "{name}={text}");
    }
}

#[test]
fn origins_match_whole_and_a_star_is_any_port() {
    let origins = load(&[]).expect("the defaults").config.http.origins();
    for origin in ["http://localhost:3000", "http://127.0.0.1:8080", "http://localhost"] {
        assert!(origins.allows(origin), "{origin}");
    }
    for origin in [
        "http://localhost.evil.com",
        "http://localhost:80.evil.com",
        "http://localhost:80@evil.com",
        "http://localhost:",
        "https://localhost:3000",
        "null",
    ] {
        assert!(!origins.allows(origin), "{origin}");
    }
}

#[test]
fn our_own_origin_is_allowed_whatever_else_stands_in_our_url() {
    for url in
        ["https://songs.example.com", "https://songs.example.com/", "https://songs.example.com:443/api"]
    {
        let http = Http { public_url: Some(url.to_owned()), allowed_origins: Vec::new(), ..Http::default() };
        assert!(http.origins().allows("https://songs.example.com"), "{url}");
        assert!(!http.origins().allows("https://songs.example.com.evil.com"), "{url}");
    }
}

#[test]
fn no_secret_is_in_what_is_printed() {
    let environment: Vec<_> = PRODUCTION
        .iter()
        .copied()
        .chain([
            ("SONGFLIGHT_PROVIDERS__SUNO__WEBHOOK_SECRET", "hidden"),
            ("SONGFLIGHT_PROVIDERS__SUNO__DIALECT", "kie"),
            ("SONGFLIGHT_AUTH__PREVIOUS_SECRETS", "hidden6789abcdef0123456789abcdef"),
            ("REDIS_URL", "redis://:hidden@cache:6379"),
        ])
        .collect();
    let loaded = load(&environment).expect("a configuration");
    let printed = describe(&loaded) + &format!("{loaded:?}");
    for secret in ["hidden", "12345", "0123456789abcdef"] {
        assert!(!printed.contains(secret), "{secret} is in\n{printed}");
    }
    assert!(printed.contains("postgres://songs:••••@db/songs"));
    assert!(printed.contains("# env DATABASE_URL"));
    let misspelt = problems(&[("SONGFLIGHT_AUTH__JWT_SECRETT", "hidden"), ("DATABASE_URL", "hidden")]);
    assert!(!ConfigError::Problems(misspelt).to_string().contains("hidden"));
}
