//! Kills the real program with SIGKILL again and again while it works, and then asks whether anything was
//! lost, doubled or invented: songs, money, submissions, events (OPS-3, PROV-5, CRED-2, RT-2).
//!
//! `outages` does the same to what it stands on: its database, the database's disk, its provider. `purse` looks at the
//! money alone: many hands at one user's purse while the program is killed.
//!
//! `CRASH_KILLS=500 cargo test --test crash -- --nocapture` kills more often (`PURSE_KILLS` those at the purse);
//! `CRASH_SEED` repeats the moments of a run (what happens at them is the machine's).
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers as well")]
#![allow(clippy::print_stdout, reason = "a test tells what it did")]
#![allow(unreachable_pub, reason = "what the files of a test share is for this binary alone")]

mod caller;
mod dice;
#[path = "../../loadtest/src/follow.rs"]
mod follow;
#[allow(dead_code, unused_imports, reason = "shared with the tests from outside, which need more of it")]
#[path = "../it/harness/mod.rs"]
mod harness;
mod outages;
mod people;
mod provider;
mod purse;
mod watcher;

use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use dice::Dice;
use follow::Figures;
use harness::program::{Program, command};
use harness::{Setup, audit, eventually};
use people::People;
use provider::Provider;
use songflight::time::Clock;

#[actix_web::test]
async fn nothing_is_lost_doubled_or_invented_however_often_the_program_is_killed() {
    let kills: u32 = from_environment("CRASH_KILLS").unwrap_or(40);
    let seed = from_environment("CRASH_SEED").unwrap_or_else(|| Clock.now().millis().unsigned_abs());
    println!("{kills} kills, CRASH_SEED={seed}");
    let begun = Clock.monotonic();
    let mut dice = Dice::new(seed);

    let provider = Provider::start(seed).await;
    let setup = quick(Setup::new(&provider.url()).await);
    let mut program = setup.start().await.program;
    let people = Rc::new(People::new(&program.url, dice.fork()));
    people.begin();

    for kill in 1..=kills {
        program = kill_and_start_again(program, &setup, &mut dice, kill, 2_400).await;
    }
    let report = all_is_well(&setup, &provider, &people).await;
    let took = Clock.monotonic().duration_since(begun).as_secs_f64();
    println!("{kills} kills, {report}, {took:.0} s");
}

/// SIGKILL: most often at work, within so many milliseconds from here, and now and then once more while it starts.
async fn kill_and_start_again(
    program: Program,
    setup: &Setup,
    dice: &mut Dice,
    kill: u32,
    at_work_ms: u64,
) -> Program {
    let while_it_starts = kill.is_multiple_of(8);
    if !while_it_starts {
        tokio::time::sleep(dice.millis(0, at_work_ms)).await;
    }
    program.signal("KILL");
    drop(program);
    if while_it_starts {
        let mut starting = command(&setup.home, &["serve"], setup.variables())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        tokio::time::sleep(dice.millis(0, 400)).await;
        starting.kill().expect("it is ours to kill");
        starting.wait().expect("its end");
    }
    Program::start(&setup.home, &["serve"], setup.variables()).await
}

/// Lets everything come to its end, and asks whether anything was lost, doubled or invented; answers the figures.
async fn all_is_well(setup: &Setup, provider: &Provider, people: &People) -> String {
    provider.be_kind().await;
    people.order_no_more().await;
    every_song_ends(setup).await;
    people.have_seen_everything().await;
    let report = nothing_is_wrong(setup, provider, &people.ordered()).await;
    let Figures { events, resumes, repeated, .. } = people.figures();
    format!("{report}, {events} events watched over {resumes} resumes ({repeated} came again)")
}

async fn every_song_ends(setup: &Setup) {
    let database = setup.look().await;
    eventually("every song to end", || async {
        let sql = "select count(*) from songs where status not in ('ready', 'failed', 'cancelled')";
        match database.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0) {
            0 => Ok(()),
            under_way => Err(format!("{under_way} songs are under way")),
        }
    })
    .await;
}

/// What holds of any end; `ordered` are the keys and songs that people were told of, sorted. Answers the figures.
async fn nothing_is_wrong(setup: &Setup, provider: &Provider, ordered: &[(String, String)]) -> String {
    let database = setup.look().await;
    audit(setup.look().await, None).await;
    every_order_is_one_song(&database, ordered).await;
    every_song_ended_once(&database).await;
    let submissions = provider.check();
    let duplicates = provider.stats().await["duplicates_of_intent"].clone();
    assert_eq!(duplicates, 0, "an intent was submitted twice");

    format!(
        "{} songs ({}), {} submissions accepted, {} possible duplicates",
        ordered.len(),
        endings(&database).await,
        submissions.accepted,
        submissions.possible_duplicates,
    )
}

/// Small times, so that many lives fit between two kills, and every kind of recovery happens.
fn quick(setup: Setup) -> Setup {
    [
        ("cluster.heartbeat", "100ms"),
        ("cluster.lease", "500ms"),
        ("tasks.call_timeout", "1s"),
        ("tasks.grace", "2s"),
        ("tasks.deadline", "60s"),
        ("tasks.poll.initial", "1s"),
        ("tasks.poll.max", "3s"),
        ("retry.network.delays", r#"["100ms","200ms","400ms","800ms","800ms"]"#),
        ("retry.provider_error.delays", r#"["100ms","200ms","400ms"]"#),
        ("retry.unknown.delays", r#"["100ms","200ms","400ms"]"#),
        ("credits.signup_grant", "100000"),
        ("log.filter", "warn"),
    ]
    .into_iter()
    .fold(setup, |setup, (key, value)| setup.set(key, value))
}

/// Whoever got an answer has a song, and nobody has one that was not ordered.
async fn every_order_is_one_song(database: &tokio_postgres::Client, ordered: &[(String, String)]) {
    let rows = database.query("select id::text, idempotency_key from songs", &[]).await.expect("songs");
    let mut stored: Vec<(String, String)> = rows.iter().map(|row| (row.get(1), row.get(0))).collect();
    stored.sort();
    assert_eq!(stored, ordered);
}

async fn every_song_ended_once(database: &tokio_postgres::Client) {
    let sql = "
        select format('song %s is %s; its endings are %s', s.id, s.status, e.kinds)
          from songs s cross join lateral (
               select array_agg(kind order by seq) as kinds from song_events
                where song_id = s.id and kind in ('ready', 'failed', 'cancelled')) e
         where e.kinds is distinct from array[s.status::text]
        union all
        select format('song %s failed, and task %s was not refunded', s.id, t.id)
          from songs s join lateral (
               select * from tasks where song_id = s.id and not beside order by number desc limit 1) t on true
         where s.status = 'failed' and not exists (
               select from credit_entries where task_id = t.id and reason = 'release' and amount = t.price)
        union all
        select format('song %s is ready without a clip', s.id) from songs s
         where s.status = 'ready' and not exists (
               select from song_variants where song_id = s.id and (audio_url is not null or stream_url is not null))
        union all
        select format('song %s was to be told %s times that it is ready', n.song_id, count(*)) from notifications n
         where kind = 'music_ready' group by n.song_id having count(*) > 1";
    let rows = database.query(sql, &[]).await.expect("an answer");
    let wrong: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn endings(database: &tokio_postgres::Client) -> String {
    let sql = "select status::text, count(*) from songs group by status order by status";
    let rows = database.query(sql, &[]).await.expect("counts");
    let told = rows.iter().map(|row| format!("{} {}", row.get::<_, i64>(1), row.get::<_, &str>(0)));
    told.collect::<Vec<_>>().join(", ")
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Longer than anything here takes, so that only a fault is waited out.
const PATIENCE: Duration = Duration::from_secs(90);
