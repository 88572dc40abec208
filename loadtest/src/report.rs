//! The figures, as a table that says what each of them measures.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::Created;
use crate::machine::Effort;

pub struct Report<'a> {
    pub songs: usize,
    pub users: usize,
    pub latency: (u64, u64),
    pub all: Duration,
    pub begun: Instant,
    pub created: &'a [Created],
    /// How each song ended, and when its client saw it.
    pub ended: &'a HashMap<String, (String, Instant)>,
    pub left: &'a HashMap<String, Instant>,
    pub intents: &'a HashMap<String, String>,
    pub effort: Effort,
    pub wrong: &'a [String],
    pub stats: Value,
}

impl Report<'_> {
    /// Prints it; `false` when something was wrong.
    pub fn print(&self) -> bool {
        let ready = self.ended.values().filter(|(status, _)| status == "ready").count();
        let (songs, seconds) = (self.songs.max(1) as f64, self.all.as_secs_f64());
        let create = histogram(self.created.iter().map(|created| created.took));
        let last_answer = self.created.iter().map(|created| created.asked + created.took).max();
        let ends = self.created.iter().filter_map(|created| {
            let (_, at) = self.ended.get(&created.song)?;
            Some(at.duration_since(created.asked))
        });
        let to_socket = self.ended.iter().filter_map(|(song, (_, at))| {
            let left = self.left.get(self.intents.get(song)?)?;
            Some(at.saturating_duration_since(*left))
        });
        println!("\n  {} songs at once, {} users with a socket each", self.songs, self.users);
        println!("  simulated provider: {} to {} ms a song\n", self.latency.0, self.latency.1);
        row("ready", &format!("{ready} of {}", self.songs));
        row(
            "asking took",
            &last_answer.map_or(String::new(), |at| seconds_of(at.duration_since(self.begun))),
        );
        row("all ended after", &seconds_of(self.all));
        row("songs per second, start to end", &format!("{:.0}", self.ended.len() as f64 / seconds));
        row("create, asked to answered", &spread(&create));
        row("complete callback leaves → `ready` at the client", &spread(&histogram(to_socket)));
        row("song, asked to `ready` at the client", &spread(&histogram(ends)));
        let effort = &self.effort;
        row(
            "server memory, now / largest",
            &format!("{} / {} MiB", effort.rss_kib / 1024, effort.peak_kib / 1024),
        );
        row("CPU per song: server", &format!("{:.2} ms", effort.server_ms as f64 / songs));
        row("CPU per song: Postgres", &format!("{:.2} ms", effort.postgres_ms as f64 / songs));
        row("CPU per song: clients and simulator", &format!("{:.2} ms", effort.here_ms as f64 / songs));
        row("commits per song", &format!("{:.2}", effort.commits as f64 / songs));
        row("WAL per song", &format!("{:.1} KiB", effort.wal_bytes as f64 / 1024.0 / songs));
        row(
            "submissions / doubled intents",
            &format!("{} / {}", self.stats["accepted"], self.stats["duplicates_of_intent"]),
        );
        let checks = if self.wrong.is_empty() {
            "complete, in order, as stored".to_owned()
        } else {
            format!("{} WRONG", self.wrong.len())
        };
        row("what the clients saw", &checks);
        for wrong in self.wrong.iter().take(10) {
            println!("    {wrong}");
        }
        println!();
        ready == self.songs && self.wrong.is_empty() && self.stats["duplicates_of_intent"] == 0
    }
}

fn row(what: &str, value: &str) {
    println!("  {what:<50} {value}");
}

fn histogram(durations: impl Iterator<Item = Duration>) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three digits");
    for duration in durations {
        histogram += u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    }
    histogram
}

fn spread(histogram: &Histogram<u64>) -> String {
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms  (n {})", ms(0.5), ms(0.99), ms(1.0), histogram.len())
}

fn seconds_of(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
