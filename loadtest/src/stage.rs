//! What the load meets: the server's program with a database and a simulated provider of its own, all on
//! this machine; or a server that runs somewhere already, of which only the outside is seen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;
use songflight::auth::{Auth, Role};
use songflight::config;
use songflight::credit::plan::Plan;
use songflight::id::UserId;
use songflight::ops::private_postgres::PrivatePostgres;
use songflight::store::audit::{self, Finding, Scope};
use songflight::store::stuck::Patience;
use songflight::time::Clock;
use tokio::sync::Mutex;

use super::process::{self, Usage};
use super::provider::Provider;
use super::scenario::Scenario;
use super::server::{self, Server};
use super::{Failure, cannot};

#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// A server that runs already, with whatever providers it has; else one is started here.
    #[arg(long, requires = "jwt_secret")]
    pub url: Option<String>,
    /// The key its tokens are signed with.
    #[arg(long, env = "SONGFLIGHT_AUTH__JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<String>,
    /// Do not build the server's program first; it must stand beside this one.
    #[arg(long)]
    pub no_build: bool,
}

pub struct Stage {
    pub url: String,
    auth: Auth,
    pub own: Option<Own>,
}

/// What was started here, to be stopped in this order.
pub struct Own {
    pub server: Mutex<Server>,
    pub provider: Provider,
    database: Mutex<tokio_postgres::Client>,
    postgres: PrivatePostgres,
    postmaster: u32,
    home: PathBuf,
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
    pub journal_commits: Option<f64>,
    /// Orders that were sent again though the first may have arrived, as the server counts them.
    pub possible_duplicates: Option<f64>,
}

const TOKENS_LAST: Duration = Duration::from_secs(6 * 3600);

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
        if let Some(url) = &place.url {
            let url = url.trim_end_matches('/').to_owned();
            return Ok(Self { url, auth, own: None });
        }
        let program = server::program(place.no_build).await?;
        let home = std::env::temp_dir().join(format!("songflight-load-{}", std::process::id()));
        std::fs::create_dir_all(&home).map_err(cannot("a folder for the database"))?;
        let own = Own::start(&program, home.clone(), &secret, scenario).await;
        let own = own.inspect_err(|_| drop(std::fs::remove_dir_all(&home)))?;
        let url = own.server.lock().await.url.clone();
        Ok(Self { url, auth, own: Some(own) })
    }

    pub fn token(&self, user: &str) -> String {
        self.token_on(user, None)
    }

    /// For somebody on this plan.
    pub fn token_on(&self, user: &str, plan: Option<Plan>) -> String {
        let user = UserId::parse(user).expect("our own names are fit for users");
        self.auth.issue(&user, plan.map(Plan::as_str), Role::Authenticated, TOKENS_LAST, Clock.now())
    }

    pub async fn look(&self) -> Result<Look, Failure> {
        let here = process::usage(std::process::id());
        let Some(own) = &self.own else { return Ok(Look { here, ..Look::default() }) };
        let sql = "select xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, w.wal_sync
                     from pg_stat_database d, pg_stat_wal w where d.datname = current_database()";
        let row =
            own.database.lock().await.query_one(sql, &[]).await.map_err(cannot("the database's figures"))?;
        let metrics = server::metrics(&self.url).await;
        let server = own.server.lock().await;
        let whole = |name: &str| Some(server.lives_before.metric(name) + server::metric(&metrics, name));
        Ok(Look {
            here,
            server: Some(server.usage()),
            postgres: Some(process::family(own.postmaster)),
            database: Some([row.get(0), row.get(1), row.get(2)]),
            journal_commits: whole("songflight_journal_commit_seconds_count"),
            possible_duplicates: whole("songflight_possible_duplicates_total"),
        })
    }

    /// What the server and its database use at the moment.
    pub async fn glance(&self) -> Option<[Usage; 2]> {
        let own = self.own.as_ref()?;
        let server = own.server.try_lock().ok()?.usage();
        let postmaster = own.postmaster;
        // Reading takes a while: here it would hold up all sockets, and be taken for the server's delay.
        let looked = actix_web::rt::task::spawn_blocking(move || process::family(postmaster));
        Some([server, looked.await.ok()?])
    }

    /// The rules that the database breaks; `None` of a server elsewhere.
    pub async fn audit(&self) -> Option<Result<Vec<Finding>, Failure>> {
        let own = self.own.as_ref()?;
        let database = own.database.lock().await;
        let seconds = Duration::from_secs;
        let patience = Patience { slack: seconds(30), deadline: seconds(600), max_wait: seconds(3600) };
        let scope = Scope { user: None, patience, examples: 20 };
        Some(audit::audit(&*database, &scope).await.map_err(cannot("the audit")))
    }

    /// Stops what was started here, and takes its files away.
    pub async fn strike(self) {
        let Some(own) = self.own else { return };
        own.server.into_inner().stop().await;
        own.provider.stop().await;
        drop(own.database);
        own.postgres.stop().await;
        let _ = std::fs::remove_dir_all(&own.home);
    }
}

impl Own {
    /// A database beside the server's.
    pub async fn bare_database(&self) -> Result<tokio_postgres::Config, Failure> {
        self.postgres.fresh_database("bare").await.map_err(cannot("a database"))
    }

    /// Songs that the server looks after, whether they have an actor or rest until their time.
    pub async fn in_hand(&self) -> f64 {
        let metrics = server::metrics(&self.server.lock().await.url).await;
        ["songflight_song_actors", "songflight_songs_resting"]
            .map(|name| server::metric(&metrics, name))
            .iter()
            .sum()
    }

    /// Songs under way, as the database has them.
    pub async fn under_way(&self) -> Result<u32, Failure> {
        let sql = "select count(distinct song_id) from tasks where ended_at is null";
        let row = self.database.lock().await.query_one(sql, &[]).await.map_err(cannot("the database"))?;
        Ok(u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX))
    }

    async fn start(
        program: &Path,
        home: PathBuf,
        secret: &str,
        scenario: &Scenario,
    ) -> Result<Self, Failure> {
        let data_dir = home.join("postgres");
        let (postgres, postmaster) = super::postgres::start(&data_dir).await?;
        let provider = Provider::start(scenario).await?;
        let mut settings = vec![
            ("DATABASE_URL".to_owned(), postgres.url()),
            ("SONGFLIGHT_AUTH__JWT_SECRET".to_owned(), secret.to_owned()),
            ("SONGFLIGHT_LOG__FILTER".to_owned(), "warn".to_owned()),
            // A load is not one person's use.
            ("SONGFLIGHT_PLANS__FREE__PER_MINUTE".to_owned(), "60000".to_owned()),
            ("SONGFLIGHT_PLANS__FREE__PER_DAY".to_owned(), "0".to_owned()),
            ("SONGFLIGHT_PLANS__FREE__CONCURRENT".to_owned(), "10000".to_owned()),
        ];
        for name in scenario.providers() {
            let key = format!("SONGFLIGHT_PROVIDERS__{}__BASE_URL", name.to_uppercase());
            settings.push((key, provider.url(name)));
        }
        settings.extend(scenario.server.clone());
        let server = Server::start(program, &home, settings).await?;
        let (database, connection) =
            postgres.config().connect(tokio_postgres::NoTls).await.map_err(cannot("the database"))?;
        actix_web::rt::spawn(connection);
        let (server, database) = (Mutex::new(server), Mutex::new(database));
        Ok(Self { server, provider, database, postgres, postmaster, home })
    }
}
