//! The commands beside `serve`, as a shell sees them.

use std::path::Path;
use std::process::Output;

use crate::harness::person::Person;
use crate::harness::program::{Variables, command, folder};
use crate::harness::server::SECRET;
use crate::harness::{Setup, shared, simulator};

#[tokio::test]
async fn a_token_from_the_command_line_is_taken_by_the_server() {
    let server = shared().await;
    let home = folder();
    let key = vec![("SONGFLIGHT_AUTH__JWT_SECRET".to_owned(), SECRET.to_owned())];
    let user = server.person("shell").user;
    let made = run(&home, &["token", "--user", &user, "--plan", "pro", "--ttl", "5m"], &key).await;
    assert_eq!(made.status.code(), Some(0));
    let token = text(&made.stdout);
    let me = Person::new(server.url(), &user).with(token.trim()).get("/v1/me").await.expect(200);
    assert_eq!((&me["user"], &me["plan"]), (&user.into(), &"pro".into()));
    let wrong = run(&home, &["token", "--user", ""], &key).await;
    assert_eq!((wrong.status.code(), text(&wrong.stdout).as_str()), (Some(2), ""));
    assert!(text(&wrong.stderr).contains("--user"), "{}", text(&wrong.stderr));
}

#[tokio::test]
async fn a_schema_is_brought_up_to_date_once() {
    let setup = Setup::new("http://127.0.0.1:9").await;
    let first = run(&setup.home, &["migrate"], setup.variables()).await;
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert!(text(&first.stdout).contains("migrations applied"), "{}", text(&first.stdout));
    let second = run(&setup.home, &["migrate"], setup.variables()).await;
    assert_eq!((second.status.code(), text(&second.stdout).trim()), (Some(0), "The schema is up to date."));
    let away = setup.variable("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none");
    let failed = run(&away.home, &["migrate"], away.variables()).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        text(&failed.stderr).starts_with("songflight: ") || text(&failed.stderr).contains("songflight: ")
    );
}

#[tokio::test]
async fn two_servers_that_start_at_once_share_one_new_database() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await.set("http.bind", "127.0.0.1:0");
    let (one, other) = tokio::join!(setup.start(), setup.start());
    assert_ne!(one.url(), other.url());
    one.person("mira").get("/v1/songs").await.expect(200);
    other.person("mira").get("/v1/songs").await.expect(200);
}

#[tokio::test]
async fn the_configuration_hides_what_is_secret() {
    let home = folder();
    let variables = vec![
        ("SONGFLIGHT_AUTH__JWT_SECRET".to_owned(), "very-secret-key".to_owned()),
        ("DATABASE_URL".to_owned(), "postgres://u:hidden-password@db/x".to_owned()),
        ("SONGFLIGHT_PROVIDERS__SUNO__API_KEY".to_owned(), "sk-hidden".to_owned()),
    ];
    let shown = run(&home, &["config"], &variables).await;
    assert_eq!(shown.status.code(), Some(0));
    let (out, err) = (text(&shown.stdout), text(&shown.stderr));
    for secret in ["very-secret-key", "hidden-password", "sk-hidden"] {
        assert!(!out.contains(secret) && !err.contains(secret), "{secret}");
    }
    assert!(out.lines().count() > 30 && out.contains("SONGFLIGHT_AUTH__JWT_SECRET"), "{out}");
}

#[tokio::test]
async fn a_variable_that_means_nothing_stops_the_start() {
    let home = folder();
    let variables = vec![("SONGFLIGHT_HTTP__BINT".to_owned(), "x".to_owned())];
    let refused = run(&home, &["serve"], &variables).await;
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("http.bint") && said.contains("http.bind"), "{said}");
}

#[tokio::test]
async fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await;
    run(&setup.home, &["migrate"], setup.variables()).await;
    let looked = run(&setup.home, &["doctor"], setup.variables()).await;
    let said = text(&looked.stdout);
    assert!(
        said.contains("✓ database") && said.contains("✓ ledger") && said.contains("✓ provider"),
        "{said}"
    );
    // The tests' Postgres forgets in a power cut, and that is all there is to say against it.
    assert!(said.contains("✗ durability") && said.matches('✗').count() == 1, "{said}");
    assert_eq!(looked.status.code(), Some(1));
    let away = setup.variable("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none");
    let ill = run(&away.home, &["doctor"], away.variables()).await;
    assert_eq!(ill.status.code(), Some(1));
    let said = text(&ill.stdout);
    assert!(said.contains("✗ database") && said.contains("→ check DATABASE_URL"), "{said}");
}

#[tokio::test]
async fn commands_find_the_service_that_runs_in_their_folder_wherever_it_listens() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await.set("http.bind", "127.0.0.1:0");
    let mut server = setup.start().await;
    let replay = async || {
        let ended = run(&setup.home, &["dead-letters", "replay", "1"], setup.variables()).await;
        text(&ended.stderr)
    };
    let said = replay().await;
    assert!(said.contains("404"), "it was asked, and has no such letter: {said}");
    server.program.signal("TERM");
    assert!(server.program.ended().await.success());
    let said = replay().await;
    assert!(said.contains("does not answer"), "it has taken its address away: {said}");
}

async fn run(home: &Path, arguments: &[&str], variables: &Variables) -> Output {
    let mut command = command(home, arguments, variables);
    let ended = tokio::task::spawn_blocking(move || command.output().expect("the program runs"));
    crate::harness::within("the command to end", ended).await.expect("the thread that waits")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
