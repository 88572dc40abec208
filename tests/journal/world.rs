//! A database of the test's own, a node in it, and its journal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use songflight::id::{SongId, fresh};
use songflight::ops::private_postgres::for_tests;
use songflight::store::births::Birth;
use songflight::store::journal::{CommitError, Committed, Entry, Journal, Lane, Session, Sessions, Settings};
use songflight::store::row::StepRow;
use songflight::store::server::Server;
use songflight::store::{connect, migrate, nodes, pool};
use tokio_postgres::{Client, Config};

use super::audit::audit;
use super::life::Life;
use super::wire::Wire;

pub struct World {
    pub journal: Journal,
    /// A look at what was written.
    pub look: Client,
    pub pool: deadpool_postgres::Pool,
    database: Config,
    writers: Vec<Lane>,
    told: Told,
}

/// Who was told of which of their events, in that order.
type Told = Arc<Mutex<Vec<(String, i64)>>>;

impl World {
    pub async fn new(name: &str) -> Self {
        let database = for_tests().fresh_database(&format!("journal_{name}")).await.expect("a database");
        Self::through(database.clone(), &database).await
    }

    /// The journal's connections, and no others, go through a wire.
    pub async fn behind_a_wire(name: &str) -> (Self, Wire) {
        let database = for_tests().fresh_database(&format!("journal_{name}")).await.expect("a database");
        let wire = Wire::to(&database).await;
        (Self::through(database, &wire.config).await, wire)
    }

    /// The journal's connections go this way.
    pub async fn through(database: Config, way: impl Into<Server>) -> Self {
        migrate(&database).await.expect("migrated");
        let look = connect(&database, "test").await.expect("connected");
        let pool = pool(&database, 2).expect("a pool");
        let node =
            nodes::enter(&pool.get().await.expect("connected"), fresh(), "test", Duration::from_secs(600))
                .await
                .expect("a node");
        let told = Told::default();
        let telling = told.clone();
        let (journal, writers) = Journal::new(way, node, &Settings::default(), move |change| {
            telling.lock().unwrap().push((change.user.as_str().to_owned(), change.u));
        });
        Self { journal, look, pool, database, writers, told }
    }

    /// The writers begin, with what waits for them in one batch.
    pub fn begin(&mut self) {
        for writer in self.writers.drain(..) {
            actix_web::rt::spawn(writer);
        }
    }

    /// The same world with a journal whose writers have not begun yet.
    pub async fn pause(self) -> (Self, Journal) {
        let (journal, writers) =
            Journal::new(&self.database, self.journal.node(), &Settings::default(), |_| {});
        (Self { journal: journal.clone(), writers, ..self }, journal)
    }

    /// All of these in one batch, and what became of each.
    pub async fn in_one_batch(
        self,
        entries: impl IntoIterator<Item = Entry>,
    ) -> (Self, Vec<Result<Committed, CommitError>>) {
        let (mut world, journal) = self.pause().await;
        let commits = join_all(entries.into_iter().map(|entry| journal.commit(entry)));
        let begin = async { world.begin() };
        let (answers, ()) = tokio::join!(biased; commits, begin);
        (world, answers)
    }

    /// The same world once its process is gone and another one goes on as its node.
    pub async fn succeeded(self) -> Self {
        let client = self.pool.get().await.expect("connected");
        let former = self.journal.node().id;
        let node =
            nodes::succeed(&client, former, "test", Duration::from_secs(600)).await.expect("an answer");
        drop(client);
        let (journal, writers) =
            Journal::new(&self.database, node.expect("the node"), &Settings::default(), |_| {});
        let mut world = Self { journal, writers, ..self };
        world.begin();
        world
    }

    /// A pool with which it is certain who gets which connection.
    pub fn pool_of_one(&self) -> deadpool_postgres::Pool {
        pool(&self.database, 1).expect("a pool")
    }

    pub async fn connection(&self, name: &str) -> Client {
        connect(&self.database, name).await.expect("connected")
    }

    /// Resolves once a connection of this name waits for somebody.
    pub async fn waits_for_a_lock(&self, name: &str) {
        // Outside of a transaction, which would see the same for ever.
        let look = self.connection("test").await;
        let waiting = "select count(*) from pg_stat_activity
                        where datname = current_database() and application_name = $1 and wait_event_type = 'Lock'";
        while look.query_one(waiting, &[&name]).await.expect("a count").get::<_, i64>(0) == 0 {}
    }

    pub fn database(&self) -> &Config {
        &self.database
    }

    /// All that was inherited is in hand.
    pub async fn resumed(&self) {
        let client = self.pool.get().await.expect("connected");
        nodes::resumed(&client, self.journal.node()).await.expect("an answer");
    }

    /// Has something made beside a song, from here on under way.
    pub async fn work_beside(&self, song: SongId) {
        let sql = "insert into tasks (id, song_id, number, kind, provider, owner, epoch, run, progress, beside, addition)
                   select gen_random_uuid(), song_id, 2, 'persona', provider, owner, epoch, run, progress, true, '{}'
                     from tasks where song_id = $1";
        self.look.execute(sql, &[&song.0]).await.expect("a task");
    }

    pub async fn create_all(&self, songs: &[Life]) {
        let births = songs.iter().map(|song| async {
            let committed = self.journal.commit(Entry::Create(Box::new(song.birth()))).await;
            let Ok(Committed::Birth { birth, .. }) = committed else { panic!("{committed:?}") };
            assert_eq!(birth, Birth::Created { song: song.song.id });
        });
        join_all(births).await;
    }

    pub async fn step(&self, step: StepRow) -> Result<Committed, CommitError> {
        self.journal.commit(Entry::Step(Box::new(step), None)).await
    }

    /// A writer's connection, without the writer.
    pub async fn session(&self) -> Box<dyn Session> {
        Server::from(&self.database).open().await.expect("connected")
    }

    pub async fn version(&self, song: &Life) -> i64 {
        let sql = "select version from tasks where song_id = $1 and not beside order by number desc limit 1";
        self.look.query_one(sql, &[&song.song.id.0]).await.expect("a task").get(0)
    }

    /// Where each task's row stands: another place says that it was written.
    pub async fn rows_of_tasks(&self) -> Vec<(String, String)> {
        let sql =
            "select id::text, ctid::text || '@' || xmin::text || '-' || xmax::text from tasks order by id";
        let rows = self.look.query(sql, &[]).await.expect("rows");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    pub async fn count(&self, table: &str) -> i64 {
        self.look.query_one(&format!("select count(*) from {table}"), &[]).await.expect("a count").get(0)
    }

    pub fn told(&self) -> Vec<(String, i64)> {
        self.told.lock().unwrap().clone()
    }

    pub async fn audit(&self) {
        audit(connect(&self.database, "audit").await.expect("connected"), None).await;
    }
}
