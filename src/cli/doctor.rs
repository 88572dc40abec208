//! `songflight doctor`: looks at everything a start needs and says what to do about what is wrong.

use std::time::Duration;

use super::Failure;
use super::terminal::{self, Style};
use crate::app::Database;
use crate::auth;
use crate::config::{Config, Dialect, Env, Loaded};
use crate::store::{self, ledger};
use crate::time::Clock;

/// One finding: what was looked at, how it is, what to do if it is not well.
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    Attention,
    Wrong,
}

fn well(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, state: State::Well, detail: detail.into(), advice: None }
}

fn attention(what: &'static str, detail: impl Into<String>, advice: &str) -> Finding {
    Finding { what, state: State::Attention, detail: detail.into(), advice: Some(advice.to_owned()) }
}

fn wrong(what: &'static str, detail: impl Into<String>, advice: &str) -> Finding {
    Finding { what, state: State::Wrong, detail: detail.into(), advice: Some(advice.to_owned()) }
}

pub(super) fn doctor(loaded: &Loaded) -> Result<(), Failure> {
    super::serve::start_log(&loaded.config);
    let findings = actix_web::rt::System::new().block_on(examine(&loaded.config));
    for finding in &findings {
        let (sign, style) = match finding.state {
            State::Well => ("✓", Style::Green),
            State::Attention => ("!", Style::Yellow),
            State::Wrong => ("✗", Style::Red),
        };
        terminal::line(style, format!("  {sign} {:<12} {}", finding.what, finding.detail))?;
        if let Some(advice) = &finding.advice {
            terminal::line(Style::Plain, format!("    {:<12} → {advice}", ""))?;
        }
    }
    match findings.iter().filter(|finding| finding.state == State::Wrong).count() {
        0 => Ok(()),
        1 => Err(Failure::Failed("one thing is wrong".to_owned())),
        n => Err(Failure::Failed(format!("{n} things are wrong"))),
    }
}

async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![environment(config), key(config)];
    findings.extend(database(config).await);
    findings.extend(providers(config).await);
    findings.push(files());
    findings
}

fn environment(config: &Config) -> Finding {
    match config.env {
        Env::Production => well("environment", "production"),
        Env::Development => attention(
            "environment",
            "development: a key made here, local origins, the simulator where no provider is configured",
            "set SONGFLIGHT_ENV=production where people depend on it",
        ),
    }
}

fn key(config: &Config) -> Finding {
    match (&config.auth.jwt_secret, auth::own_key(&config.auth, config.local_dir())) {
        (Some(_), Ok(_)) => well("signing key", "from the configuration"),
        (None, Ok(_)) => well("signing key", format!("in {}", config.local_dir().display())),
        (_, Err(error)) => {
            wrong("signing key", error.to_string(), "set auth.jwt_secret, or make the folder writable")
        }
    }
}

async fn database(config: &Config) -> Vec<Finding> {
    let database = match Database::open_or_join(config, |_| {}).await {
        Ok(database) => database,
        Err(error) => {
            return vec![wrong("database", error.to_string(), error.advice())];
        }
    };
    let findings = match store::connect(&database.postgres, "songflight doctor").await {
        Ok(client) => look_at(&client, config.database.url.is_none()).await,
        Err(error) => {
            vec![wrong("database", error.to_string(), "check DATABASE_URL, and that the server is up")]
        }
    };
    if let Some(private) = database.private {
        private.stop().await;
    }
    findings
}

async fn look_at(client: &tokio_postgres::Client, private: bool) -> Vec<Finding> {
    const LOOK: &str = "
        select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
               (extract(epoch from clock_timestamp()) * 1000)::bigint as now,
               to_regclass('refinery_schema_history') is not null as migrated,
               (select ssl from pg_stat_ssl where pid = pg_backend_pid()) as encrypted,
               inet_server_addr() is null or host(inet_server_addr()) in ('127.0.0.1', '::1') as here,
               current_setting('fsync') = 'on' and current_setting('synchronous_commit') <> 'off' as durable";
    let row = match client.query_one(LOOK, &[]).await {
        Ok(row) => row,
        Err(error) => return vec![wrong("database", error.to_string(), "check the server's log")],
    };
    let (version, number): (String, i32) = (row.get("version"), row.get("number"));
    let whose = if private { "private cluster" } else { "configured server" };
    let mut findings = vec![if number >= 150_000 {
        well("database", format!("Postgres {version}, {whose}"))
    } else {
        wrong("database", format!("Postgres {version}"), "Songflight needs Postgres 15 or later")
    }];
    let encrypted: Option<bool> = row.get("encrypted");
    match (encrypted, row.get::<_, Option<bool>>("here")) {
        (Some(true), _) => findings.push(well("connection", "by TLS")),
        (_, Some(true)) => {}
        _ => {
            let advice =
                "add ?sslmode=verify-full to DATABASE_URL, unless the network between is yours alone";
            findings.push(attention("connection", "to another machine, and not encrypted", advice));
        }
    }
    if !row.get::<_, bool>("durable") {
        let advice = "set fsync and synchronous_commit on, or a crash loses songs";
        findings.push(wrong("durability", "commits are not durable", advice));
    }
    let drift = (Clock.now().millis() - row.get::<_, i64>("now")).abs();
    findings.push(if drift < 2_000 {
        well("clock", format!("{drift} ms from the database's"))
    } else {
        attention("clock", format!("{drift} ms from the database's"), "keep both in time with NTP")
    });
    if row.get::<_, bool>("migrated") {
        findings.extend(books(client).await);
    } else {
        let advice = "songflight migrate, or just start: serve does it";
        findings.push(attention("schema", "not there yet", advice));
    }
    findings
}

/// What must hold at every moment (CRED-2, `durability.md` section 6).
async fn books(client: &tokio_postgres::Client) -> Vec<Finding> {
    let books = match ledger::books(client).await {
        Ok(books) => books,
        Err(error) => return vec![wrong("schema", error.to_string(), "songflight migrate")],
    };
    let ledger = if books.are_right() {
        well("ledger", "every balance is the sum of its entries, every ended task is settled")
    } else {
        let detail = format!(
            "{} balances, {} ended tasks and {} reservations do not add up",
            books.unbalanced, books.unsettled, books.adrift
        );
        wrong("ledger", detail, "this is a bug: please report it, with what `songflight credits check` says")
    };
    let in_flight = books.in_flight;
    let letters = match books.dead_letters {
        0 => well("songs", format!("{in_flight} in flight, no dead letters")),
        n => attention(
            "songs",
            format!("{in_flight} in flight, {n} dead letters"),
            "songflight dead-letters list",
        ),
    };
    vec![well("schema", "there"), ledger, letters]
}

async fn providers(config: &Config) -> Vec<Finding> {
    if config.is_simulated() {
        let advice = "set providers.suno.api_key for the real one";
        return vec![attention("providers", "simulated", advice)];
    }
    let mut findings = Vec::new();
    for (name, provider) in config.providers.all() {
        if !provider.enabled || !provider.is_configured() {
            continue;
        }
        let key = if provider.api_key.is_some() { "with a key" } else { "without a key" };
        findings.push(match &provider.base_url {
            Some(url) => match reaches(url).await {
                Ok(()) => well("provider", format!("{name} {key}; {url} answers")),
                Err(error) => wrong(
                    "provider",
                    format!("{name}: {error}"),
                    "check providers.<name>.base_url and the network",
                ),
            },
            None => well("provider", format!("{name} {key}, at its own address")),
        });
        if provider.webhook_secret.is_some() && provider.dialect == Dialect::SunoApi {
            let advice = "make sure that this gateway signs; else leave providers.suno.webhook_secret out";
            let detail = format!("{name}: unsigned ones are refused, and sunoapi.org signs nothing");
            findings.push(attention("callbacks", detail, advice));
        }
    }
    findings
}

/// Whether anything answers there; what it says does not matter.
async fn reaches(url: &str) -> Result<(), String> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    client.get(url).send().await.map(drop).map_err(|error| error.without_url().to_string())
}

/// Each socket is a file: the limit is how many can be open. The hard one, to which the service raises its own.
fn files() -> Finding {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let limit =
        line.and_then(|line| line.split_whitespace().nth(4)).and_then(|limit| limit.parse::<u64>().ok());
    match limit {
        Some(limit) if limit < 10_000 => attention(
            "open files",
            format!("at most {limit}"),
            "raise it (ulimit -n) for more sockets than that",
        ),
        Some(limit) => well("open files", format!("at most {limit}; a socket takes one")),
        None => well("open files", "the limit is not known here"),
    }
}
