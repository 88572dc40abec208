//! The private database on this machine: that it survives what machines do. Runs as root and as a
//! plain user alike.

use std::cell::RefCell;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use songflight::ops::private_postgres::{PrivatePostgres, StartError, for_tests};
use tokio_postgres::{Client, NoTls};

#[actix_web::test]
async fn data_is_still_there_after_a_stop_and_a_start() {
    let home = Home::new("restart");
    let database = home.start().await;
    write_a_row(&database).await;
    database.stop().await;
    let database = home.start().await;
    assert_eq!(rows(&database).await, 1);
    database.stop().await;
}

#[actix_web::test]
async fn data_is_still_there_after_the_server_was_killed() {
    let home = Home::new("killed");
    let database = home.start().await;
    write_a_row(&database).await;
    kill("-KILL", home.server_pid());
    drop(database);
    let database = home.start().await;
    assert_eq!(rows(&database).await, 1);
    database.stop().await;
}

#[actix_web::test]
async fn a_server_that_lost_its_watchdog_is_replaced() {
    let home = Home::new("orphan");
    let database = home.start().await;
    write_a_row(&database).await;
    let orphan = home.server_pid();
    kill("-KILL", database.watchdog_id());
    drop(database);
    let database = home.start().await;
    assert_ne!(home.server_pid(), orphan);
    assert_eq!(rows(&database).await, 1);
    database.stop().await;
}

#[actix_web::test]
async fn the_server_stops_when_the_pipe_to_its_watchdog_closes() {
    let home = Home::new("pipe");
    let database = home.start().await;
    let client = connect(&database).await;
    drop(database);
    // The server says goodbye to its clients: the signal to wait for.
    let gone = async {
        while client.simple_query("select 1").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the server to stop");
}

#[actix_web::test]
async fn a_killed_program_leaves_no_server_and_the_next_start_finds_its_data() {
    let home = Home::new("program");
    let mut program = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "holds_a_database_when_asked_to"])
        .env(HOLD, &home.0)
        .stdout(Stdio::null())
        .spawn()
        .expect("the program to run");
    let written = home.0.join("written");
    wait_until(|| written.exists()).await;
    let server = home.server_pid();
    program.kill().expect("SIGKILL");
    program.wait().expect("its end");

    // At once: the watchdog is only now stopping the server.
    let database = home.start().await;
    assert_eq!(rows(&database).await, 1);
    assert!(!is_alive(server));
    drop(database);
    let server = home.server_pid();
    wait_until(|| !is_alive(server)).await;
}

/// Not a test by itself: the program that the one above kills.
#[actix_web::test]
async fn holds_a_database_when_asked_to() {
    let Some(home) = std::env::var_os(HOLD).map(PathBuf::from) else { return };
    let database = PrivatePostgres::start(&home.join("postgres"), |_| {}).await.expect("a database");
    write_a_row(&database).await;
    std::fs::write(home.join("written"), "").expect("a file");
    std::future::pending::<()>().await;
}

#[actix_web::test]
async fn what_is_not_a_database_is_left_alone() {
    let home = Home::new("thesis");
    let (folder, file) = (home.0.join("papers"), home.0.join("file"));
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("thesis.txt"), "years of work").expect("a file");
    std::fs::write(&file, "a letter").expect("a file");
    let refused = PrivatePostgres::start(&folder, |_| {}).await.expect_err("not a database");
    assert!(matches!(refused, StartError::NotOurs(_)), "{refused}");
    let refused = PrivatePostgres::start(&file, |_| {}).await.expect_err("not a folder");
    assert!(refused.to_string().contains("file"), "{refused}");
    assert_eq!(std::fs::read_to_string(folder.join("thesis.txt")).expect("the file"), "years of work");
    for left in ["papers.old-1", "papers.new", "file.new"] {
        assert!(!home.0.join(left).exists(), "{left}");
    }
}

#[actix_web::test]
async fn an_unfinished_database_is_set_aside_and_made_anew() {
    let home = Home::new("unfinished");
    let cluster = home.0.join("postgres");
    for dir in ["base", "global", "pg_wal"] {
        std::fs::create_dir_all(cluster.join(dir)).expect("a folder");
    }
    std::fs::write(cluster.join("PG_VERSION"), "15\n").expect("a file");
    std::fs::create_dir_all(home.0.join("postgres.new/base")).expect("a folder");

    let said = RefCell::new(Vec::new());
    let database = PrivatePostgres::start(&cluster, |line| said.borrow_mut().push(line.to_owned()));
    let database = database.await.expect("a database");
    write_a_row(&database).await;
    assert!(said.borrow().iter().any(|line| line.contains("unfinished")), "{said:?}");
    assert!(cluster.is_symlink() || !home.0.join("postgres.new").exists());
    database.stop().await;
}

#[actix_web::test]
async fn a_number_of_a_server_that_went_to_another_program_does_not_matter() {
    let home = Home::new("number");
    let database = home.start().await;
    database.stop().await;
    // Our own number stands for the program that has it: alive, and no server of this folder.
    let pid_file = home.0.join("postgres/postmaster.pid");
    std::fs::write(&pid_file, format!("{}\n", std::process::id())).expect("a pid file");
    home.start().await.stop().await;
}

#[actix_web::test]
async fn a_folder_the_servers_user_cannot_enter_gets_a_link_to_one_it_can() {
    let home = Home::new("closed");
    std::fs::set_permissions(&home.0, std::fs::Permissions::from_mode(0o700)).expect("a closed folder");
    let database = home.start().await;
    write_a_row(&database).await;
    database.stop().await;
    let database = home.start().await;
    assert_eq!(rows(&database).await, 1);
    database.stop().await;
}

#[actix_web::test]
async fn data_of_a_plain_user_is_served_to_root_as_that_user() {
    let home = Home::new("owner");
    home.start().await.stop().await;
    // Only root can make it so; a plain user's data is its own already.
    let owner = Command::new("chown")
        .args(["-R", "nobody"])
        .arg(&home.0)
        .stderr(Stdio::null())
        .status()
        .expect("chown");
    if owner.success() {
        assert_ne!(std::fs::metadata(home.0.join("postgres")).expect("the data").uid(), 0);
    }
    home.start().await.stop().await;
}

#[actix_web::test]
async fn a_server_that_cannot_start_is_reported_with_the_end_of_its_log() {
    let home = Home::new("broken");
    home.start().await.stop().await;
    std::fs::write(home.0.join("postgres/postgresql.conf"), "max_connections = nonsense\n").expect("a file");
    std::fs::write(home.0.join("postgres/postgresql.auto.conf"), "no_such = 1\n").expect("a file");
    let error = PrivatePostgres::start(&home.0.join("postgres"), |_| {}).await.expect_err("no start");
    let text = error.to_string();
    assert!(text.contains("no_such") && text.contains("postgres.log"), "{text}");
}

#[actix_web::test]
async fn two_folders_have_two_databases_at_the_same_time() {
    let (one, two) = (Home::new("one"), Home::new("two"));
    let (first, second) = (one.start().await, two.start().await);
    write_a_row(&first).await;
    assert!(connect(&second).await.query("select * from kept", &[]).await.is_err());
    assert_ne!(first.url(), second.url());
    first.stop().await;
    second.stop().await;
}

#[actix_web::test]
async fn the_same_folder_is_refused_while_in_use() {
    let home = Home::new("same");
    let database = home.start().await;
    let again = PrivatePostgres::start(&home.0.join("postgres"), |_| {}).await;
    let error = again.expect_err("a second start in the folder");
    assert!(matches!(error, StartError::AlreadyRunning { .. }), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    database.stop().await;
}

#[actix_web::test]
async fn a_url_leads_to_the_database_and_nothing_listens_on_tcp() {
    let database = for_tests();
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.expect("a connection");
    let connection = actix_web::rt::spawn(connection);
    let row = client.query_one("select current_database()::text, current_user::text", &[]).await;
    let row = row.expect("an answer");
    assert_eq!((row.get(0), row.get(1)), ("songflight", "songflight"));
    let shown = client.query_one("show listen_addresses", &[]).await.expect("an answer");
    assert_eq!(shown.get::<_, &str>(0), "");
    connection.abort();
}

#[actix_web::test]
async fn tests_get_databases_that_do_not_meet() {
    let config = for_tests().fresh_database("a \"quoted\" name").await.expect("a database");
    let (client, connection) = config.connect(NoTls).await.expect("a connection");
    actix_web::rt::spawn(connection);
    client.batch_execute("create table only_here ()").await.expect("a table");
}

#[test]
fn a_database_of_another_version_is_not_touched() {
    let home = Home::new("version");
    let cluster = home.0.join("postgres");
    std::fs::create_dir_all(cluster.join("global")).expect("a folder");
    std::fs::write(cluster.join("PG_VERSION"), "9\n").expect("a file");
    std::fs::write(cluster.join("global/pg_control"), "").expect("a file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(PrivatePostgres::start(&cluster, |_| {})).expect_err("no start");
    assert!(matches!(error, StartError::WrongVersion { data: 9, .. }), "{error}");
}

/// Names the folder in which `holds_a_database_when_asked_to` is to start.
const HOLD: &str = "SONGFLIGHT_TEST_HOLD";

/// A folder for one test, removed after it.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("songflight-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        Self(dir)
    }

    async fn start(&self) -> PrivatePostgres {
        PrivatePostgres::start(&self.0.join("postgres"), |_| {}).await.expect("a database")
    }

    fn server_pid(&self) -> u32 {
        let pid_file = std::fs::read_to_string(self.0.join("postgres/postmaster.pid")).expect("a pid file");
        pid_file.lines().next().and_then(|pid| pid.parse().ok()).expect("a number")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(dir: &Path) {
    // Where the server's user cannot come here, the data is elsewhere.
    let cluster = dir.join("postgres");
    if let (true, Ok(elsewhere)) = (cluster.is_symlink(), cluster.canonicalize())
        && let Some(parent) = elsewhere.parent()
    {
        let _ = std::fs::remove_dir_all(parent);
    }
    let _ = std::fs::remove_dir_all(dir);
}

async fn wait_until(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it to happen in time");
}

fn is_alive(pid: u32) -> bool {
    let status = Command::new("sh").arg("-c").arg(format!("kill -0 {pid} 2>/dev/null")).status();
    status.expect("a shell").success()
}

fn kill(signal: &str, pid: u32) {
    // The shell's own `kill`: a small container has no other.
    let status = Command::new("sh").arg("-c").arg(format!("kill {signal} {pid}")).status();
    assert!(status.expect("a shell").success());
}

async fn connect(database: &PrivatePostgres) -> Client {
    let (client, connection) = database.config().connect(NoTls).await.expect("a connection");
    actix_web::rt::spawn(connection);
    client
}

async fn write_a_row(database: &PrivatePostgres) {
    let client = connect(database).await;
    client.batch_execute("create table kept (n int); insert into kept values (1)").await.expect("a row");
}

async fn rows(database: &PrivatePostgres) -> i64 {
    let client = connect(database).await;
    client.query_one("select count(*) from kept", &[]).await.expect("an answer").get(0)
}
