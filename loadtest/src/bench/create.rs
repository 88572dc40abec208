//! A song's creation beside a bare `select 1`: the journal's commit alone, and the whole of `POST /v1/songs` at a real
//! server. That either asks the database once is what `tests/journal` asserts.
//!
//! The single row that is written and synced stands between them, because that is what nobody can do without: most of
//! the time of a creation is the disk's.

use std::time::Duration;

use clap::Args;
use reqwest::Client;
use secrecy::SecretString;
use serde_json::json;
use songflight::credit::plan::Plan;
use songflight::id::fresh;
use songflight::store::births::Birth;
use songflight::store::journal::{Committed, Entry, Journal, Settings};
use songflight::store::{connect, nodes, pool};
use songflight::time::Clock;

use super::life::Life;
use super::{Ground, Row, keep_doing, print};
use crate::figures::Times;
use crate::scenario::Scenario;
use crate::stage::{Place, Stage};
use crate::{Failure, cannot};

#[derive(Clone, Debug, Args)]
pub struct Wanted {
    /// Measure for about so long; starting and stopping comes on top of it
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Do not build the server's program first; it must stand beside this one
    #[arg(long)]
    no_build: bool,
}

const IN_FLIGHT: [usize; 2] = [1, 8];
/// In turn, so that a moment in which the machine is busy is a moment for all.
const ROUNDS: u32 = 3;
const THINGS: [&str; 5] = [
    "select 1",
    "one row, synced",
    "create, the journal",
    "create, POST /v1/songs",
    "the same, and submitted",
];
const USERS: usize = 100;

/// Songs that stay under way: what is measured is their creation. Those of the free plan wait for the first of their
/// owner's to end; those of the premium plan go to the provider at once, which takes its share of the machine.
const SCENARIO: &str = r#"
about = "songs are created and stay under way"
takes = "15 s"
[load]
songs = 1
patience = "10s"
[[songs]]
provider = "suno"
mode = "music"
[provider]
latency = { lyrics_ms = [600000, 600000], music_ms = [600000, 600000] }
[server]
SONGFLIGHT_CREDITS__SIGNUP_GRANT = "1000000"
SONGFLIGHT_PLANS__FREE__CONCURRENT = "1"
SONGFLIGHT_PLANS__PREMIUM__PER_MINUTE = "60000"
SONGFLIGHT_PLANS__PREMIUM__CONCURRENT = "10000"
SONGFLIGHT_TASKS__POLL__INITIAL = "60s"
SONGFLIGHT_TASKS__POLL__MAX = "60s"
"#;

pub(super) async fn run(wanted: &Wanted) -> Result<bool, Failure> {
    let each = Duration::from_secs(wanted.seconds.into())
        / (ROUNDS * u32::try_from(THINGS.len() * IN_FLIGHT.len()).unwrap_or(1));
    println!(
        "\n  a creation beside a bare select 1: {ROUNDS} rounds of {:.2} s for each line",
        each.as_secs_f64()
    );
    if cfg!(debug_assertions) {
        println!("  a development build: its figures say nothing about speed");
    }
    let ground = Ground::prepare().await?;
    let measured = measure(&ground, wanted, each).await;
    ground.clear().await;
    println!();
    print(&measured?);
    println!("\n  Each creation is one round trip to the database (tests/journal asserts it).\n");
    Ok(true)
}

async fn measure(ground: &Ground, wanted: &Wanted, each: Duration) -> Result<Vec<Row>, Failure> {
    let bare = Bare::open(ground).await?;
    let store = Store::open(ground).await?;
    let place = Place { no_build: wanted.no_build, ..Place::default() };
    let stage = Stage::set(&place, &Scenario::read("create", SCENARIO)?).await?;
    let measured =
        in_turn(&bare, &store, &Door::open(&stage, Plan::Free), &Door::open(&stage, Plan::Premium), each)
            .await;
    stage.strike().await;
    measured
}

async fn in_turn(
    bare: &Bare,
    store: &Store,
    door: &Door,
    onwards: &Door,
    each: Duration,
) -> Result<Vec<Row>, Failure> {
    // Whoever creates for the first time gets a profile, too, and every connection is made once.
    let mut unused = Times::default();
    for user in 0..USERS {
        store.create(user).await?;
        door.create(user).await?;
        onwards.create(user).await?;
    }
    keep_doing(&mut unused, 8, each, |number| door.create(number)).await?;

    let row = |(name, in_flight)| Row { name, in_flight, times: Times::default() };
    let lines = IN_FLIGHT.iter().flat_map(|in_flight| THINGS.map(|name| (name, *in_flight)));
    let mut rows: Vec<Row> = lines.map(row).collect();
    for _ in 0..ROUNDS {
        for (number, Row { in_flight, times, .. }) in rows.iter_mut().enumerate() {
            match number % THINGS.len() {
                0 => keep_doing(times, *in_flight, each, |_| bare.select()).await?,
                1 => keep_doing(times, *in_flight, each, |_| bare.insert()).await?,
                2 => keep_doing(times, *in_flight, each, |number| store.create(number)).await?,
                3 => keep_doing(times, *in_flight, each, |number| door.create(number)).await?,
                _ => keep_doing(times, *in_flight, each, |number| onwards.create(number)).await?,
            }
        }
    }
    Ok(rows)
}

/// One connection, without anything of ours.
struct Bare {
    client: tokio_postgres::Client,
    select: tokio_postgres::Statement,
    insert: tokio_postgres::Statement,
}

impl Bare {
    async fn open(ground: &Ground) -> Result<Self, Failure> {
        let database = ground.database("bare").await?;
        let client = connect(&database, "bench").await.map_err(cannot("a connection"))?;
        let table =
            "create table numbers (id bigint generated always as identity primary key, n bigint not null)";
        client.batch_execute(table).await.map_err(cannot("a table"))?;
        let select = client.prepare("select 1").await.map_err(cannot("select 1"))?;
        let insert =
            client.prepare("insert into numbers (n) values (1)").await.map_err(cannot("an insert"))?;
        Ok(Self { client, select, insert })
    }

    async fn select(&self) -> Result<Duration, Failure> {
        let begun = Clock.monotonic();
        self.client.query_one(&self.select, &[]).await.map_err(cannot("select 1"))?;
        Ok(begun.elapsed())
    }

    async fn insert(&self) -> Result<Duration, Failure> {
        let begun = Clock.monotonic();
        self.client.execute(&self.insert, &[]).await.map_err(cannot("an insert"))?;
        Ok(begun.elapsed())
    }
}

/// The journal as a server has it, with nothing in front of it.
struct Store {
    journal: Journal,
}

/// Longer than anything here takes.
const LEASE: Duration = Duration::from_secs(3600);

impl Store {
    async fn open(ground: &Ground) -> Result<Self, Failure> {
        let database = ground.database("journal").await?;
        let pool = pool(&database, 1).map_err(Failure)?;
        let client = pool.get().await.map_err(cannot("a connection"))?;
        let node = nodes::enter(&client, fresh(), "bench", LEASE).await.map_err(cannot("a node"))?;
        let (journal, lanes) = Journal::new(&database, node, &Settings::default(), |_| {});
        lanes.into_iter().for_each(|lane| drop(actix_web::rt::spawn(lane)));
        Ok(Self { journal })
    }

    async fn create(&self, number: usize) -> Result<Duration, Failure> {
        let song = Life::new(&format!("user-{}", number % USERS)).birth();
        let begun = Clock.monotonic();
        let committed = self.journal.commit(Entry::Create(Box::new(song))).await;
        let took = begun.elapsed();
        match committed {
            Ok(Committed::Birth { birth: Birth::Created { .. }, .. }) => Ok(took),
            other => Err(Failure(format!("a song was not created: {other:?}"))),
        }
    }
}

/// The server from outside.
struct Door {
    url: String,
    tokens: Vec<SecretString>,
    http: Client,
}

impl Door {
    fn open(stage: &Stage, plan: Plan) -> Self {
        let user = |number| format!("{}-{number}", plan.as_str());
        let token = |number| SecretString::from(stage.token_on(&user(number), Some(plan)));
        let tokens = (0..USERS).map(token).collect();
        Self { url: format!("{}/v1/songs", stage.url), tokens, http: Client::new() }
    }

    async fn create(&self, number: usize) -> Result<Duration, Failure> {
        use secrecy::ExposeSecret;
        let key = fresh().to_string();
        let wish =
            json!({"mode": "music", "provider": "suno", "prompt": format!("song {key} about the sea")});
        let request = self.http.post(&self.url).header("Idempotency-Key", &key).json(&wish);
        let request = request.bearer_auth(self.tokens[number % USERS].expose_secret());
        let begun = Clock.monotonic();
        let answer = request.send().await.map_err(cannot("no answer"))?;
        let status = answer.status().as_u16();
        let body = answer.text().await.map_err(cannot("half an answer"))?;
        let took = begun.elapsed();
        match status {
            202 => Ok(took),
            _ => Err(Failure(format!("a song was not created: {status} {body}"))),
        }
    }
}
