//! What the program stands on goes away and comes back while people order songs: Postgres is killed, has no
//! connection left, its disk is full; the provider is gone. Then the same questions as after the kills.
//!
//! `CRASH_OUTAGES=20 cargo test --test crash -- --nocapture` has more of each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use songflight::ops::private_postgres::PrivatePostgres;
use songflight::time::Clock;
use tokio_postgres::{Client, Config, NoTls};

use super::dice::Dice;
use super::harness::Setup;
use super::harness::program::{Folder, Program, folder};
use super::people::People;
use super::provider::Provider;
use super::{all_is_well, from_environment, quick};

#[actix_web::test]
async fn nothing_is_lost_doubled_or_invented_however_often_postgres_is_killed() {
    let mut stage = Stage::new(None).await;
    let times = times();
    for time in 1..=times {
        stage.at_work().await;
        let file = stage.data_dir().join("postmaster.pid");
        let pid = std::fs::read_to_string(file).expect("the server runs");
        // Killed, it leaves its children to notice by themselves; told to quit, it takes them with it.
        let signal = if time % 2 == 0 { "-QUIT" } else { "-KILL" };
        let pid = pid.lines().next().expect("a number");
        assert!(Command::new("kill").args([signal, pid]).status().expect("kill runs").success());
        let away = stage.dice.millis(0, 700);
        tokio::time::sleep(away).await;
        stage.start_database_again().await;
    }
    stage.end(&format!("{times} kills of Postgres")).await;
}

#[actix_web::test]
async fn nothing_is_lost_doubled_or_invented_when_others_take_all_connections() {
    let mut stage = Stage::new(None).await;
    let times = times();
    for _ in 0..times {
        stage.at_work().await;
        let config = stage.setup.database.clone();
        let greedy = take_all_connections(&config, Duration::from_secs(2)).await;
        assert!(greedy.len() > 50, "{} connections were to be had", greedy.len());
    }
    stage.end(&format!("{times} times without a connection")).await;
}

#[actix_web::test]
async fn nothing_is_lost_doubled_or_invented_when_the_databases_disk_is_full() {
    let Some(disk) = SmallDisk::mount() else {
        println!("left out: a disk of its own needs root and `mount`");
        return;
    };
    let mut stage = Stage::new(Some(&disk.0)).await;
    let times = times();
    for _ in 0..times {
        stage.at_work().await;
        let ballast = disk.0.join("ballast");
        fill(&ballast);
        stage.at_work().await;
        std::fs::remove_file(&ballast).expect("room again");
        // Postgres gives up where it cannot write its log, and may be gone altogether.
        stage.start_database_again().await;
    }
    let log = std::fs::read_to_string(disk.0.join("postgres.log")).expect("the server's log");
    assert!(log.contains("No space left on device"), "the disk was never full for it: {log}");
    stage.end(&format!("{times} times with a full disk")).await;
    drop(disk);
}

#[actix_web::test]
async fn nothing_is_lost_doubled_or_invented_however_often_the_provider_is_gone() {
    let mut stage = Stage::new(None).await;
    let times = times();
    for _ in 0..times {
        stage.at_work().await;
        stage.provider.go_away().await;
        let away = stage.dice.millis(100, 1_500);
        tokio::time::sleep(away).await;
        stage.provider.come_back().await;
    }
    stage.end(&format!("{times} times without the provider")).await;
}

fn times() -> u32 {
    from_environment("CRASH_OUTAGES").unwrap_or(3)
}

/// The program, people who use it, and a database server of their own.
struct Stage {
    provider: Provider,
    database: Option<PrivatePostgres>,
    home: PathBuf,
    setup: Setup,
    _program: Program,
    people: Rc<People>,
    dice: Dice,
    _folder: Folder,
}

impl Stage {
    /// The database's files lie in `disk`, if one is given.
    async fn new(disk: Option<&Path>) -> Self {
        let seed = from_environment("CRASH_SEED").unwrap_or_else(|| Clock.now().millis().unsigned_abs());
        let mut dice = Dice::new(seed);
        let provider = Provider::start(seed).await;
        let folder = folder();
        let home = disk.map_or_else(|| folder.to_path_buf(), Path::to_path_buf);
        let database = PrivatePostgres::start(&home.join("postgres"), |_| {}).await.expect("a database");
        let setup = quick(Setup::on(database.config(), &provider.url()))
            // Whoever finds the provider gone goes on soon after it is back.
            .set("providers.suno.breaker.open_for", "500ms")
            .set("retry.network.delays", r#"["200ms","400ms","800ms","1600ms","3s","3s","3s","3s"]"#);
        let program = setup.start().await.program;
        let people = Rc::new(People::new(&program.url, dice.fork()));
        people.begin();
        let database = Some(database);
        Self { provider, database, home, setup, _program: program, people, dice, _folder: folder }
    }

    fn data_dir(&self) -> PathBuf {
        self.home.join("postgres")
    }

    async fn at_work(&mut self) {
        let pause = self.dice.millis(500, 1_500);
        tokio::time::sleep(pause).await;
    }

    async fn start_database_again(&mut self) {
        self.database.take().expect("it was there").stop().await;
        let started = PrivatePostgres::start(&self.data_dir(), |_| {}).await;
        self.database = Some(started.expect("the database comes back"));
    }

    async fn end(mut self, what: &str) {
        let report = all_is_well(&self.setup, &self.provider, &self.people).await;
        println!("{what}, {report}");
        drop(self._program);
        self.database.take().expect("it runs").stop().await;
    }
}

/// Every connection there is, those of the program included, for so long.
async fn take_all_connections(config: &Config, long: Duration) -> Vec<Client> {
    let mut config = config.clone();
    config.application_name("greedy");
    let mut greedy = Vec::new();
    let begun = Clock.monotonic();
    while Clock.monotonic().duration_since(begun) < long {
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                actix_web::rt::spawn(connection);
                greedy.push(client);
            }
            Err(_) => {
                let sql = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'songflight%'";
                if let Some(client) = greedy.first() {
                    drop(client.query(sql, &[]).await);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    greedy
}

/// Writes until nothing more goes in.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    let mut size = 1 << 20;
    while size > 0 {
        match file.write_all(&vec![7; size]) {
            Ok(()) => {}
            Err(_) => size /= 2,
        }
    }
}

/// A file system of its own, small enough to be filled.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("songflight-disk-{}", std::process::id()));
        std::fs::create_dir_all(&dir).ok()?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=192m", "tmpfs"]).arg(&dir).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        drop(std::fs::remove_dir(&dir));
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
        drop(std::fs::remove_dir(&self.0));
    }
}
