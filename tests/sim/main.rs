//! Worlds from seeds, on virtual time: the real actors, core, journal protocol, recovery and leases on several nodes in one
//! actix System, over a simulated database and simulated providers, with users and everything that goes wrong
//! (OPS-3, PROV-5; `durability.md` section 7). A world that breaks a law prints its seed, which replays it exactly:
//!
//! `SIM_SEED=123 cargo test --test sim -- --nocapture` tells that world's whole history,
//! `SIM_WORLDS=100000` runs so many of them, `SIM_FROM` from another seed on; `make soak` runs until it is stopped.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers as well")]
#![allow(clippy::print_stdout, reason = "a test tells what it did")]
#![allow(unreachable_pub, reason = "what the files of a test share is for this binary alone")]

mod database;
mod dice;
mod law;
mod node;
mod people;
mod plan;
mod provider;
mod rows;
mod sim;
mod tables;
mod world;

use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use songflight::mutant::Mutant;
use songflight::time::Clock;
use world::{End, Figures, Mistake, THREAD, run};

/// Seeds of worlds that once broke a law, and what was wrong then.
const KEPT: &[(u64, &str)] = &[
    (
        4_561,
        "that a call was not made was told twice, and took back the next one of the same number, which was sent twice",
    ),
    (
        25_331,
        "a node left between an intent and its call, and the next one had to wait until the intent was settled by itself",
    ),
    (1_005_098, "after a commit of unknown outcome a step was taken for another one of the same number"),
];

#[test]
fn no_world_breaks_a_law() {
    if let Some(seed) = from_environment("SIM_SEED") {
        let end = on_its_own(move || run(seed, None, true));
        println!("{}", end.notes.join("\n"));
        assert_eq!(end.broken, None, "world {seed}");
        return;
    }
    let from = from_environment("SIM_FROM");
    if from_environment("SIM_SOAK").is_some() {
        // Other worlds each time.
        let mut from = from.unwrap_or_else(|| Clock.now().millis().unsigned_abs());
        loop {
            all_keep_the_laws(from, SOAK_CHUNK);
            from += SOAK_CHUNK;
        }
    }
    all_keep_the_laws(from.unwrap_or(0), from_environment("SIM_WORLDS").unwrap_or(2_000));
}

/// Worlds between two signs of life.
const SOAK_CHUNK: u64 = 5_000;

fn all_keep_the_laws(from: u64, worlds: u64) {
    let begun = Clock.monotonic();
    let (broken, figures) = search(from, worlds, None);
    let took = Clock.monotonic().duration_since(begun).as_secs_f64();
    println!(
        "{worlds} worlds from {from} on in {took:.1} s ({:.0}/s, {:.0} times real time): {} songs, {} commits, {} calls, {} orders",
        worlds as f64 / took,
        figures.lasted.as_secs_f64() / took,
        figures.songs,
        figures.commits,
        figures.calls,
        figures.orders,
    );
    if let Some((seed, end)) = broken {
        let words = end.broken.unwrap_or_default();
        panic!("world {seed} breaks a law: {words}\nSIM_SEED={seed} cargo test --test sim -- --nocapture");
    }
}

#[test]
fn worlds_that_broke_a_law_once_keep_them_all() {
    for (seed, what) in KEPT {
        let seed = *seed;
        let end = on_its_own(move || run(seed, None, false));
        assert_eq!(end.broken, None, "world {seed}: {what}");
    }
}

#[test]
fn a_world_replays_exactly() {
    for seed in 0..20 {
        let once = on_its_own(move || run(seed, None, true));
        let again = on_its_own(move || run(seed, None, true));
        for (one, other) in once.notes.iter().zip(&again.notes) {
            assert_eq!(one, other, "world {seed}");
        }
        assert_eq!(once.fingerprint, again.fingerprint, "world {seed}");
        assert_eq!(on_its_own(move || run(seed, None, false)).fingerprint, once.fingerprint, "world {seed}");
    }
}

#[test]
fn each_planted_mistake_is_found_within_5000_worlds() {
    if !cfg!(debug_assertions) {
        return;
    }
    for mistake in [
        Mistake::NoFence,
        Mistake::Program(Mutant::CallBeforeRecord),
        Mistake::Program(Mutant::NoTerminalCheck),
        Mistake::Program(Mutant::NoLeaseCheck),
    ] {
        let (found, _) = search(0, 5_000, Some(mistake));
        let (seed, end) =
            found.unwrap_or_else(|| panic!("{mistake:?} was not found: the simulation has rotted"));
        println!("{mistake:?} is found in world {seed}: {}", end.broken.unwrap_or_default());
    }
}

/// Runs these worlds on all cores, up to the first that breaks a law.
fn search(from: u64, worlds: u64, mistake: Option<Mistake>) -> (Option<(u64, End)>, Figures) {
    catch_panics();
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let broken: Mutex<Option<(u64, End)>> = Mutex::new(None);
    let sum = Mutex::new(Figures::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get) {
            let worker = || {
                while !stop.load(Ordering::Acquire) {
                    let seed = next.fetch_add(1, Ordering::AcqRel);
                    if seed - from >= worlds {
                        return;
                    }
                    let end = run(seed, mistake, false);
                    add(&mut sum.lock().unwrap(), end.figures);
                    if end.broken.is_some() {
                        stop.store(true, Ordering::Release);
                        let mut broken = broken.lock().unwrap();
                        // The least, so that two runs name the same.
                        if broken.as_ref().is_none_or(|(least, _)| seed < *least) {
                            *broken = Some((seed, end));
                        }
                    }
                }
            };
            std::thread::Builder::new()
                .name(THREAD.to_owned())
                .spawn_scoped(scope, worker)
                .expect("a thread");
        }
    });
    (broken.into_inner().unwrap(), sum.into_inner().unwrap())
}

fn on_its_own<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    catch_panics();
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(act).expect("a thread").join().expect("its end")
}

fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(world::catch_panics);
}

fn add(sum: &mut Figures, one: Figures) {
    sum.songs += one.songs;
    sum.commits += one.commits;
    sum.calls += one.calls;
    sum.orders += one.orders;
    sum.lasted += one.lasted;
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
