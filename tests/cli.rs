//! The program as a shell sees it: what goes to stdout, and how it ends.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn a_token_is_the_only_thing_on_stdout() {
    let home = home("token");
    let output = songflight(&home, &["token", "--user", "alice", "--plan", "pro"]);
    assert!(output.status.success());
    let token = text(&output.stdout);
    assert_eq!((token.lines().count(), token.trim().split('.').count()), (1, 3));
    assert!(home.join(".songflight/jwt.key").exists());
    std::fs::remove_dir_all(home).expect("the folder");
}

#[test]
fn the_configuration_is_shown_with_its_sources_and_without_colours_in_a_pipe() {
    let home = home("config");
    std::fs::write(home.join("songflight.toml"), "[tasks]\ndeadline = \"5m\"\n").expect("a file");
    let output = songflight(&home, &["config"]);
    assert!(output.status.success());
    let shown = text(&output.stdout);
    let line = shown.lines().find(|line| line.starts_with("tasks.deadline")).expect("the line");
    assert!(line.contains("= \"5m\"") && line.ends_with("# songflight.toml"), "{line}");
    assert!(!shown.contains('\x1b'));
    std::fs::remove_dir_all(home).expect("the folder");
}

#[test]
fn a_wrong_configuration_and_a_wrong_argument_end_with_2() {
    let home = home("wrong");
    std::fs::write(home.join("songflight.toml"), "[task]\ndeadline = \"5m\"\n").expect("a file");
    let output = songflight(&home, &["serve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("did you mean tasks.deadline?"), "{}", text(&output.stderr));
    assert_eq!(songflight(&home, &["fly"]).status.code(), Some(2));
    std::fs::remove_dir_all(home).expect("the folder");
}

#[test]
fn a_port_that_was_chosen_and_is_taken_is_refused_with_what_to_do() {
    let home = home("port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = with(&home, &["serve"], &[("PORT", &port)]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&port) && said.contains("Another program") && said.contains("env PORT"), "{said}");
    std::fs::remove_dir_all(home).expect("the folder");
}

#[test]
fn a_log_collector_reads_nothing_but_its_lines() {
    let home = home("json");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let json = ("SONGFLIGHT_LOG__FORMAT", "json");
    let served = with(&home, &["serve"], &[("PORT", &port.to_string()), json]);
    let simulated = with(&home, &["simulator", "--bind", &format!("127.0.0.1:{port}")], &[json]);
    for output in [served, simulated] {
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
        let said = text(&output.stderr);
        assert!(said.contains(&port.to_string()), "{said}");
        for line in said.lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        }
    }
    std::fs::remove_dir_all(home).expect("the folder");
}

#[test]
fn a_token_in_the_environment_stands_against_no_user_that_is_named() {
    let home = home("watch");
    for token in ["", "from-elsewhere"] {
        let output =
            with(&home, &["watch", "--url", "no url", "--user", "alice"], &[("SONGFLIGHT_TOKEN", token)]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("no url"), "{said}");
    }
    std::fs::remove_dir_all(home).expect("the folder");
}

/// Run in a folder of its own, with nothing configured from outside.
fn songflight(home: &Path, arguments: &[&str]) -> Output {
    with(home, arguments, &[])
}

/// The same with nothing but these variables.
fn with(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_songflight"));
    command.args(arguments).current_dir(home).env_clear().envs(variables.iter().copied());
    command.output().expect("the program to run")
}

fn home(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("songflight-cli-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    dir
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
