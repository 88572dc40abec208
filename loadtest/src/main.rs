//! Scripted clients: ask for many songs at once, follow each over a WebSocket, check that what the clients saw
//! is complete, in order and true, and print what it took.
//!
//! It starts everything itself: a private Postgres in a temporary folder (durable, as in production), the
//! simulator in this process (so that it knows when each callback left), and the real binary beside it.
//! `follower` is one watching client, `machine` what the kernel and Postgres say of the effort.

#![allow(clippy::disallowed_methods, reason = "a measurement reads clocks")]

mod follower;
mod machine;
mod report;

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use songflight::ops::private_postgres::PrivatePostgres;
use songflight::simulator::{self, Latency, Seen, Simulator, Told};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use follower::{Follower, Saw};
use machine::Effort;

/// Ask for many songs at once, and see all of them through.
#[derive(Clone, Debug, Parser)]
#[command(name = "songflight-loadtest")]
struct Arguments {
    /// Songs to ask for, all at once
    #[arg(long, default_value_t = 1000)]
    songs: usize,
    /// Users among whom they are shared out; each has one socket
    #[arg(long, default_value_t = 250)]
    users: usize,
    /// How long the simulated provider takes for a song, in milliseconds, from
    #[arg(long, default_value_t = 1000)]
    latency_from: u64,
    /// … to
    #[arg(long, default_value_t = 2000)]
    latency_to: u64,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// The songflight binary [default: the one beside this program]
    #[arg(long)]
    binary: Option<PathBuf>,
}

const SECRET: &str = "a secret for the load test, long enough for HS256";

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    match actix_web::rt::System::new().block_on(run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(1)
        }
    }
}

/// Everything that has to run for a measurement.
struct Stage {
    postgres: PrivatePostgres,
    simulator: Simulator,
    server: Child,
    address: String,
    folder: PathBuf,
    left: Departures,
}

/// When the last `complete` callback of each intent was about to be written.
type Departures = Arc<Mutex<HashMap<String, Instant>>>;

async fn run(arguments: &Arguments) -> Result<bool, Failed> {
    let mut stage = Stage::set(arguments).await?;
    let outcome = measure(arguments, &mut stage).await;
    stage.clear().await;
    outcome
}

async fn measure(arguments: &Arguments, stage: &mut Stage) -> Result<bool, Failed> {
    let users: Vec<String> = (0..arguments.users.max(1)).map(|n| format!("listener-{n:05}")).collect();
    let tokens: Vec<String> = users.iter().map(|user| token(user)).collect();
    let (saw, mut seen) = mpsc::unbounded_channel();
    note(&format!("connecting {} sockets", users.len()));
    let mut followers = Vec::new();
    for token in &tokens {
        followers.push(Follower::connect(&stage.address, token, saw.clone()).await?);
    }
    drop(saw);

    let database = machine::Database::connect(&stage.postgres.config()).await?;
    let before = Effort::now(stage.server.id(), &stage.postgres, &database).await?;
    note(&format!("asking for {} songs", arguments.songs));
    let begun = Instant::now();
    let creating = actix_web::rt::spawn(create_all(stage.address.clone(), tokens.clone(), arguments.songs));

    let deadline = tokio::time::sleep(Duration::from_secs(arguments.patience));
    tokio::pin!(deadline);
    let mut ended: HashMap<String, (String, Instant)> = HashMap::new();
    while ended.len() < arguments.songs {
        tokio::select! {
            saw = seen.recv() => match saw {
                Some(Saw::Ended { song, status, at }) => {
                    ended.insert(song, (status, at));
                    if ended.len().is_multiple_of(50) { note(&format!("{} of {} songs ended", ended.len(), arguments.songs)); }
                }
                Some(Saw::Broken(why)) => return Err(why.into()),
                None => break,
            },
            () = &mut deadline => break,
        }
    }
    let all = begun.elapsed();
    let created = creating.await??;
    let after = Effort::now(stage.server.id(), &stage.postgres, &database).await?;
    note("comparing what was seen with what is stored");
    let mut wrong = Vec::new();
    for (follower, token) in followers.into_iter().zip(&tokens) {
        wrong.extend(follower.check(&stage.address, token).await?);
    }
    let left = stage.left.lock().map_err(|_| "the simulator's observer panicked")?.clone();
    let refs = database.intents().await?;
    let report = report::Report {
        songs: arguments.songs,
        users: users.len(),
        latency: (arguments.latency_from, arguments.latency_to),
        all,
        begun,
        created: &created,
        ended: &ended,
        left: &left,
        intents: &refs,
        effort: after.since(&before),
        wrong: &wrong,
        stats: stats(&stage.simulator).await?,
    };
    Ok(report.print())
}

impl Stage {
    async fn set(arguments: &Arguments) -> Result<Self, Failed> {
        let folder = std::env::temp_dir().join(format!("songflight-loadtest-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        note("starting Postgres");
        let postgres = PrivatePostgres::start(&folder.join("postgres"), |_| {}).await?;
        let left = Departures::default();
        let departures = left.clone();
        let music_ms = [arguments.latency_from, arguments.latency_to.max(arguments.latency_from)];
        let options = simulator::Options {
            latency: Latency { music_ms, ..Latency::default() },
            observer: Some(Arc::new(move |seen| {
                if let Seen::CallbackLeaves { intent, told: Told::Complete } = seen
                    && let Ok(mut left) = departures.lock()
                {
                    left.insert(intent.to_owned(), Instant::now());
                }
            })),
            ..simulator::Options::default()
        };
        let simulator = simulator::start(TcpListener::bind("127.0.0.1:0")?, options)?;
        let base_url = format!("http://{}/suno", simulator.address());
        note("starting the server");
        let (server, address) = start_server(arguments, &folder, &postgres, &base_url).await?;
        Ok(Self { postgres, simulator, server, address, folder, left })
    }

    async fn clear(mut self) {
        let _ = self.server.start_kill();
        let _ = self.server.wait().await;
        self.simulator.stop().await;
        self.postgres.stop().await;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn start_server(
    arguments: &Arguments,
    folder: &std::path::Path,
    postgres: &PrivatePostgres,
    base_url: &str,
) -> Result<(Child, String), Failed> {
    let beside = std::env::current_exe()?.with_file_name("songflight");
    let binary = arguments.binary.clone().unwrap_or(beside);
    let mut server = Command::new(&binary)
        .arg("serve")
        .current_dir(folder)
        .env("DATABASE_URL", postgres.url())
        .env("SONGFLIGHT_AUTH__JWT_SECRET", SECRET)
        .env("SONGFLIGHT_HTTP__BIND", "127.0.0.1:0")
        .env("SONGFLIGHT_PROVIDERS__SUNO__BASE_URL", base_url)
        .env("SONGFLIGHT_CREDITS__SIGNUP_GRANT", "100000")
        .env("RUST_LOG", "warn")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    let output = server.stdout.take().ok_or("the server has no output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, address)) = line.split_once("up at http://") {
            let address = address.trim().to_owned();
            // Its further lines are read, or the pipe would fill.
            actix_web::rt::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((server, address));
        }
    }
    Err("the server ended before it was up".into())
}

/// What became of one wish: which song, and how long the answer took.
#[derive(Clone, Debug)]
pub struct Created {
    pub song: String,
    pub asked: Instant,
    pub took: Duration,
}

/// Asks for all songs, as fast as 64 connections can.
async fn create_all(address: String, tokens: Vec<String>, songs: usize) -> Result<Vec<Created>, String> {
    use futures_util::StreamExt;
    let client = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
    let url = format!("http://{address}/v1/songs");
    let asked = futures_util::stream::iter(0..songs).map(|number| {
        let (client, url, token) = (client.clone(), url.clone(), tokens[number % tokens.len()].clone());
        async move { create(&client, &url, &token, number).await }
    });
    asked.buffer_unordered(64).collect::<Vec<_>>().await.into_iter().collect()
}

async fn create(client: &reqwest::Client, url: &str, token: &str, number: usize) -> Result<Created, String> {
    let wish = json!({
        "mode": "music", "title": format!("Song {number}"),
        "prompt": "a song about many people singing at once", "style_tags": ["choir"],
    });
    let asked = Instant::now();
    let answer = client.post(url).bearer_auth(token).json(&wish).send().await.map_err(|e| e.to_string())?;
    let (status, body) = (answer.status(), answer.json::<Value>().await.map_err(|e| e.to_string())?);
    let song = body["id"].as_str().filter(|_| status.as_u16() == 202).ok_or(format!("{status}: {body}"))?;
    Ok(Created { song: song.to_owned(), asked, took: asked.elapsed() })
}

async fn stats(simulator: &Simulator) -> Result<Value, Failed> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/control/stats", simulator.address());
    Ok(client.get(url).send().await?.json().await?)
}

fn token(user: &str) -> String {
    let claims = json!({"sub": user, "exp": 4_000_000_000_u64});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("claims that are JSON")
}

/// Progress, on stderr: stdout is for the report.
fn note(text: &str) {
    eprintln!("  {text} …");
}
