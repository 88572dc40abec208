//! What the load meets: the server's program with a database and a simulated provider of its own, all on
//! this machine; or a server that runs somewhere already, of which only the outside is seen.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use secrecy::SecretString;
use songflight::auth::{Auth, Role};
use songflight::config;
use songflight::id::{CallKey, TaskId, UserId};
use songflight::ops::private_postgres::PrivatePostgres;
use songflight::simulator::{self, Latency, Options, Seen, Simulator};
use songflight::time::Clock;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::process::{self, Usage};
use super::scenario::Scenario;
use super::{Failure, cannot};

#[derive(Clone, Debug, Args)]
pub struct Place {
    /// A server that runs already, with whatever providers it has; else one is started here.
    #[arg(long, requires = "jwt_secret")]
    url: Option<String>,
    /// The key its tokens are signed with.
    #[arg(long, env = "SONGFLIGHT_AUTH__JWT_SECRET", hide_env_values = true)]
    jwt_secret: Option<String>,
    /// Do not build the server's program first; it must stand beside this one.
    #[arg(long)]
    no_build: bool,
}

pub struct Stage {
    pub url: String,
    pub departures: Departures,
    auth: Auth,
    own: Option<Own>,
}

/// What was started here, to be stopped in this order.
struct Own {
    server: Child,
    simulator: Simulator,
    database: tokio_postgres::Client,
    postgres: PrivatePostgres,
    postmaster: u32,
    home: PathBuf,
}

/// When callbacks were about to be written; each is asked for once.
#[derive(Clone, Default)]
pub struct Departures(Arc<Mutex<HashMap<TaskId, Instant>>>);

impl Departures {
    /// When the newest callback of a task left, if it was not asked for yet.
    pub fn take(&self, task: TaskId) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&task)
    }

    fn note(&self, seen: Seen) {
        let Seen::CallbackLeaves { intent, .. } = seen else { return };
        let Ok(key) = intent.parse::<CallKey>() else { return };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.task, Clock.monotonic());
    }
}

/// Counters and memory at one moment. Of a server elsewhere only this process is known.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub here: Usage,
    pub server: Option<Usage>,
    pub postgres: Option<Usage>,
    /// Transactions of any kind, bytes of write-ahead log, and how often it was synced.
    pub database: Option<[i64; 3]>,
    /// The journal's transactions among them.
    pub journal_commits: Option<i64>,
    /// What the provider was asked to make, and how much of that twice.
    pub orders: Option<[u64; 2]>,
}

impl Stage {
    pub async fn set(place: &Place, scenario: &Scenario) -> Result<Self, Failure> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let secret =
            place.jwt_secret.clone().unwrap_or_else(|| "a key for one load test, not secret".to_owned());
        let auth = Auth::new(
            &config::Config::default().auth,
            &SecretString::from(secret.clone()),
            reqwest::Client::new(),
        );
        let departures = Departures::default();
        if let Some(url) = &place.url {
            let url = url.trim_end_matches('/').to_owned();
            return Ok(Self { url, departures, auth, own: None });
        }
        let program = program(place.no_build).await?;
        let home = std::env::temp_dir().join(format!("songflight-load-{}", std::process::id()));
        std::fs::create_dir_all(&home).map_err(cannot("a folder for the database"))?;
        let postgres =
            PrivatePostgres::start(&home.join("postgres"), |_| {}).await.map_err(cannot("the database"))?;
        let simulator = simulate(scenario, departures.clone())?;
        let (server, url) = serve(&program, &home, &postgres, &simulator, &secret).await?;
        let (database, connection) =
            postgres.config().connect(tokio_postgres::NoTls).await.map_err(cannot("the database"))?;
        actix_web::rt::spawn(connection);
        let postmaster = postmaster(&home.join("postgres"))?;
        let own = Some(Own { server, simulator, database, postgres, postmaster, home });
        Ok(Self { url, departures, auth, own })
    }

    pub fn token(&self, user: &str) -> String {
        let user = UserId::parse(user).expect("our own names are fit for users");
        self.auth.issue(&user, None, Role::Authenticated, Duration::from_secs(3600), Clock.now())
    }

    pub async fn look(&self) -> Result<Look, Failure> {
        let here = process::usage(std::process::id());
        let Some(own) = &self.own else { return Ok(Look { here, ..Look::default() }) };
        let sql = "select xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, w.wal_sync
                     from pg_stat_database d, pg_stat_wal w where d.datname = current_database()";
        let row = own.database.query_one(sql, &[]).await.map_err(cannot("the database's figures"))?;
        Ok(Look {
            here,
            server: own.server.id().map(process::usage),
            postgres: Some(process::family(own.postmaster)),
            database: Some([row.get(0), row.get(1), row.get(2)]),
            journal_commits: self.metric("songflight_journal_commit_seconds_count").await,
            orders: orders(own.simulator.address()).await,
        })
    }

    /// A counter of the server's; before it has counted anything it is not there.
    async fn metric(&self, name: &str) -> Option<i64> {
        let text = reqwest::get(format!("{}/metrics", self.url)).await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).or(Some(0))
    }

    /// Stops what was started here, and takes its files away.
    pub async fn strike(self) {
        let Some(mut own) = self.own else { return };
        let _ = own.server.kill().await;
        own.simulator.stop().await;
        drop(own.database);
        own.postgres.stop().await;
        let _ = std::fs::remove_dir_all(&own.home);
    }
}

/// The server's program of the same build as this one, made fresh where cargo started us.
async fn program(no_build: bool) -> Result<PathBuf, Failure> {
    let here = std::env::current_exe().map_err(cannot("this program's place"))?;
    if let Some(cargo) = std::env::var_os("CARGO").filter(|_| !no_build) {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "songflight", "--bin", "songflight"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.status().await.map_err(cannot("cargo"))?;
        if !built.success() {
            return Err(Failure("the server could not be built".to_owned()));
        }
    }
    let program = here.with_file_name("songflight");
    match program.exists() {
        true => Ok(program),
        false => Err(Failure(format!("{} is not there: build it first", program.display()))),
    }
}

fn simulate(scenario: &Scenario, departures: Departures) -> Result<Simulator, Failure> {
    let latency = Latency { lyrics_ms: scenario.latency(), music_ms: scenario.latency() };
    let options = Options {
        latency,
        observer: Some(Arc::new(move |seen: Seen| departures.note(seen))),
        ..Options::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").map_err(cannot("a port for the simulator"))?;
    simulator::start(listener, options).map_err(cannot("the simulator"))
}

/// Starts the server and waits until it says where it is.
async fn serve(
    program: &Path,
    home: &Path,
    postgres: &PrivatePostgres,
    simulator: &Simulator,
    secret: &str,
) -> Result<(Child, String), Failure> {
    let mut server = Command::new(program)
        .arg("serve")
        .current_dir(home)
        .env("DATABASE_URL", postgres.url())
        .env("SONGFLIGHT_AUTH__JWT_SECRET", secret)
        .env("SONGFLIGHT_HTTP__BIND", "127.0.0.1:0")
        .env("SONGFLIGHT_PROVIDERS__SUNO__BASE_URL", format!("http://{}/suno", simulator.address()))
        .env("SONGFLIGHT_CREDITS__SIGNUP_GRANT", "100000")
        .env("SONGFLIGHT_PLANS__FREE__PER_MINUTE", "60000")
        .env("SONGFLIGHT_PLANS__FREE__PER_DAY", "0")
        .env("SONGFLIGHT_PLANS__FREE__CONCURRENT", "10000")
        .env("SONGFLIGHT_LOG__FILTER", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot("the server"))?;
    let stdout = server.stdout.take().ok_or_else(|| Failure("the server has no output".to_owned()))?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await.map_err(cannot("the server"))? {
        if let Some((_, url)) = line.split_once(" is up at ") {
            let url = url.trim().to_owned();
            // What it prints later must go somewhere.
            actix_web::rt::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((server, url));
        }
    }
    Err(Failure("the server ended at once".to_owned()))
}

async fn orders(simulator: std::net::SocketAddr) -> Option<[u64; 2]> {
    let answer = reqwest::get(format!("http://{simulator}/control/stats")).await.ok()?;
    let stats: serde_json::Value = answer.json().await.ok()?;
    Some([stats["accepted"].as_u64()?, stats["duplicates_of_intent"].as_u64()?])
}

fn postmaster(data_dir: &Path) -> Result<u32, Failure> {
    let file = data_dir.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).map_err(cannot("postmaster.pid"))?;
    text.lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .ok_or_else(|| Failure("no postmaster".to_owned()))
}
