//! Servers: one with a quick simulator shared by most tests, and others with databases, providers and
//! settings of their own.

use reqwest::Client;
use serde_json::{Value, json};
use songflight::id;
use songflight::ops::private_postgres;
use tokio::sync::OnceCell;
use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

use super::eventually;
use super::person::{Person, client};
use super::program::{Folder, Program, Variables, folder};

/// The key all servers here sign with.
pub const SECRET: &str = "a key for tests that is long enough for HS256";

/// A server to be started: again on the same database and address after it was stopped.
#[derive(Clone)]
pub struct Setup {
    pub home: Folder,
    pub database: Config,
    variables: Variables,
}

/// A running server.
pub struct Server {
    pub program: Program,
    pub setup: Setup,
}

/// A simulator that stays with the test.
pub struct Simulator {
    pub program: Program,
    _home: Folder,
}

impl Setup {
    /// With a new database, talking to this provider at Suno's place.
    pub async fn new(provider: &str) -> Self {
        let name = format!("it_{}", id::fresh().simple());
        let cluster = tokio::task::spawn_blocking(private_postgres::for_tests).await.expect("a cluster");
        Self::on(cluster.fresh_database(&name).await.expect("a database"), provider)
    }

    /// On this database, which is the test's own.
    pub fn on(database: Config, provider: &str) -> Self {
        let setup = Self { home: folder(), variables: Vec::new(), database: database.clone() };
        setup
            .variable("DATABASE_URL", &url(&database))
            .set("auth.jwt_secret", SECRET)
            // Tests that are not about limits create as fast as they like.
            .set("plans.free.per_minute", "60000")
            .set("plans.free.per_day", "0")
            .set("plans.free.concurrent", "1000")
            .set("http.bind", &format!("127.0.0.1:{}", free_port()))
            .set("providers.suno.base_url", provider)
            .set("providers.suno.cdn_url", &format!("{provider}/cdn"))
    }

    /// Sets a key of the configuration.
    pub fn set(self, key: &str, value: &str) -> Self {
        self.variable(&name(key), value)
    }

    /// What a key was set to.
    pub fn value(&self, key: &str) -> &str {
        let set = self.variables.iter().find(|(known, _)| *known == name(key));
        set.map_or("", |(_, value)| value)
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    pub async fn start(&self) -> Server {
        let program = Program::start(&self.home, &["serve"], &self.variables).await;
        Server { program, setup: self.clone() }
    }

    /// Nobody gets past this table until what comes back is dropped.
    pub async fn hold(&self, table: &str) -> tokio_postgres::Client {
        let client = self.look().await;
        let lock = format!("begin; lock table {table} in access exclusive mode");
        client.batch_execute(&lock).await.expect("a lock");
        client
    }

    /// Waits until the creation of songs stands before a table that is held.
    pub async fn creation_waits(&self) {
        let look = self.look().await;
        eventually("songs to be created", || async {
            let sql = "select count(*) from pg_stat_activity where datname = current_database()
                          and wait_event_type = 'Lock' and query like '%known as materialized%'";
            match look.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0) {
                0 => Err("none waits".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// A connection that looks at what was stored.
    pub async fn look(&self) -> tokio_postgres::Client {
        let (client, connection) = self.database.connect(NoTls).await.expect("the database answers");
        tokio::spawn(connection);
        client
    }
}

impl Server {
    pub fn url(&self) -> &str {
        &self.program.url
    }

    /// Somebody new.
    pub fn person(&self, name: &str) -> Person {
        Person::new(self.url(), &format!("{name}-{}", id::fresh().simple()))
    }

    /// Killed as by a power cut, and started again on what is left.
    pub async fn crash_and_start(self) -> Server {
        self.program.signal("KILL");
        let setup = self.setup.clone();
        drop(self);
        setup.start().await
    }

    pub async fn look(&self) -> tokio_postgres::Client {
        self.setup.look().await
    }
}

/// The variable that sets a key of the configuration.
fn name(key: &str) -> String {
    format!("SONGFLIGHT_{}", key.to_uppercase().replace('.', "__"))
}

/// The url of a database, as `DATABASE_URL` takes it.
pub fn url(database: &Config) -> String {
    let host = match database.get_hosts() {
        [Host::Unix(path)] => path.display().to_string().replace('/', "%2F"),
        other => panic!("the test cluster listens at {other:?}"),
    };
    let user = database.get_user().expect("a user");
    format!("postgres://{user}@{host}/{}", database.get_dbname().expect("a name"))
}

/// A port that nobody has at this moment, for a server that must be found there again.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Most tests meet here, each as people of its own.
pub async fn shared() -> &'static Server {
    static SHARED: OnceCell<(Server, Simulator)> = OnceCell::const_new();
    let start = || async {
        let simulator = Simulator::start().await;
        let quick = Setup::new(&simulator.provider()).await;
        let own = format!("http://{}/", quick.value("http.bind"));
        let quick = quick
            .set("http.public_url", &own)
            .set("retry.provider_error.delays", r#"["50ms","50ms","50ms"]"#)
            .set("retry.network.delays", r#"["50ms","50ms"]"#)
            .set("tasks.poll.initial", "300ms")
            .set("http.allowed_origins", r#"["https://app.example.com"]"#);
        (quick.start().await, simulator)
    };
    &SHARED.get_or_init(start).await.0
}

/// A simulator of the test's own, to be steered as it likes.
pub async fn simulator() -> Simulator {
    Simulator::start().await
}

impl Simulator {
    async fn start() -> Self {
        let home = folder();
        let program = Program::start(&home, &["simulator", "--bind", "127.0.0.1:0"], &Vec::new()).await;
        let simulator = Self { program, _home: home };
        simulator.steer(json!({"latency": {"lyrics_ms": [20, 60], "music_ms": [80, 200]}})).await;
        simulator
    }

    /// Where its Suno is.
    pub fn provider(&self) -> String {
        format!("{}/suno", self.program.url)
    }

    pub async fn steer(&self, change: Value) {
        let control = client().post(format!("{}/control", self.program.url));
        let answer = control.json(&change).send().await.expect("the simulator answers");
        assert!(answer.status().is_success(), "{change}: {}", answer.text().await.unwrap_or_default());
    }

    pub async fn stats(&self) -> Value {
        let stats = Client::get(&client(), format!("{}/control/stats", self.program.url)).send().await;
        stats.expect("the simulator answers").json().await.expect("figures")
    }
}
