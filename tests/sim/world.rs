//! One world from its seed: machines, people, trouble; then peace, in which everything must come to its end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use songflight::mutant::{self, Mutant};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::dice::Dice;
use super::node::{Machine, Ports};
use super::people::{self, Town};
use super::plan::{Faults, PEACE_MAX};
use super::sim::Sim;

/// A mistake to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Of the program.
    Program(Mutant),
    /// Of the database: whoever asks may write.
    NoFence,
}

/// What came of a world.
pub struct End {
    pub broken: Option<String>,
    pub notes: Vec<String>,
    pub fingerprint: u64,
    pub figures: Figures,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub songs: u64,
    pub commits: u64,
    pub calls: u64,
    pub orders: u64,
    pub lasted: Duration,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics in a task are caught by whoever runs it: here they fail the world.
pub fn catch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some(THREAD) {
            PANIC.set(Some(format!("panic: {panic}")));
        } else {
            before(panic);
        }
    }));
}

/// Of the threads that run worlds.
pub const THREAD: &str = "world";

pub fn run(seed: u64, mistake: Option<Mistake>, noted: bool) -> End {
    PANIC.set(None);
    mutant::plant(match mistake {
        Some(Mistake::Program(mutant)) => Some(mutant),
        Some(Mistake::NoFence) | None => None,
    });
    let system = actix::System::with_tokio_rt(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    });
    let mut end = system.block_on(live(seed, mistake, noted));
    mutant::plant(None);
    end.broken = end.broken.or(PANIC.take());
    end
}

async fn live(seed: u64, mistake: Option<Mistake>, noted: bool) -> End {
    let begun = Instant::now();
    let sim = Sim::new(Dice::new(seed), noted);
    sim.lock().tables.no_fence = mistake == Some(Mistake::NoFence);
    let (courier, letters) = mpsc::unbounded_channel();
    let (nodes, people, trouble) = sim.with(|state, _| {
        state.orders.courier = Some(courier);
        (state.plan.nodes, state.plan.people, state.plan.trouble)
    });
    let machines: Rc<[Rc<Machine>]> = (0..nodes).map(|number| Machine::new(number, &sim)).collect();
    let mut tasks = Vec::new();
    for machine in machines.iter() {
        tasks.push(spawn_local(machine.clone().keep_running()));
    }
    let town = Town { sim: sim.clone(), machines: machines.clone() };
    tasks.push(spawn_local(people::carry(town.clone(), letters)));
    for number in 0..people {
        tasks.push(spawn_local(people::live(town.clone(), number)));
    }
    make_trouble(&town, trouble).await;
    be_kind(&town);
    if let Err(words) = come_to_rest(&town).await {
        sim.lock().law.hold(false, || words);
    } else {
        sim.with(|state, now| state.law.end(&state.tables, now));
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    machines.iter().for_each(|machine| machine.end());
    sleep(Duration::from_millis(1)).await;
    let notes = sim.take_notes();
    sim.with(|state, _| {
        let (calls, orders) = state.law.figures();
        let songs = state.tables.songs.len() as u64;
        End {
            broken: state.law.broken().cloned(),
            notes,
            fingerprint: state.fingerprint,
            figures: Figures { songs, commits: state.law.commits, calls, orders, lasted: begun.elapsed() },
        }
    })
}

fn is_broken(sim: &Sim) -> bool {
    sim.lock().law.broken().is_some() || PANIC.with_borrow(Option::is_some)
}

/// Kills nodes, stops them, cuts them off, and takes the database away.
async fn make_trouble(town: &Town, time: Duration) {
    let sim = &town.sim;
    let until = Instant::now() + time;
    while Instant::now() < until && !is_broken(sim) {
        let (pause, what, of, lasts) = sim.dice(|dice| {
            let of = dice.below(town.machines.len() as u64);
            (
                dice.millis(500, 30_000),
                dice.below(100),
                usize::try_from(of).expect("few"),
                dice.millis(0, 60_000),
            )
        });
        sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        let faults = sim.lock().faults;
        let life = town.machines[of].life();
        match (what, life) {
            (0..30, Some(life)) if faults.kill && life.is_alive() => {
                sim.note(|| format!("node {of} is killed"));
                life.die();
            }
            (30..45, Some(life)) if faults.pause && life.is_alive() => {
                sim.note(|| format!("node {of} is stopped for {lasts:?}"));
                life.stop_for(lasts);
            }
            (45..60, Some(life)) if faults.cut => {
                sim.note(|| format!("node {of} is cut off for {lasts:?}"));
                life.cut_off_for(lasts);
            }
            (75..85, Some(_)) if faults.leave => {
                sim.note(|| format!("node {of} leaves"));
                let machine = town.machines[of].clone();
                // It ends before it could answer.
                spawn_local(async move { drop(machine.request(lasts, Ports::leave).await) });
            }
            (60..75, _) if faults.outage => {
                sim.note(|| format!("the database is away for {lasts:?}"));
                sim.lock().outage_until = Some(Instant::now() + lasts / 2);
            }
            _ => {}
        }
    }
}

fn be_kind(town: &Town) {
    town.sim.note(|| "peace".to_owned());
    town.sim.with(|state, _| {
        state.faults = Faults::NONE;
        state.outage_until = None;
    });
    town.machines.iter().filter_map(|machine| machine.life()).for_each(|life| life.go_on());
}

/// Waits until nothing is under way, and everything is free.
async fn come_to_rest(town: &Town) -> Result<(), String> {
    let peace = Instant::now();
    // Who ordered is answered by then, or has given up.
    sleep(Duration::from_secs(300)).await;
    let mut idle = Err(String::new());
    while peace.elapsed() < PEACE_MAX {
        if is_broken(&town.sim) {
            return Ok(());
        }
        let busy = town.sim.with(|state, _| {
            let busy = state.tables.songs.iter().find(|(_, row)| row.has_running_task());
            busy.map(|(id, row)| format!("song {id} is still at work: {:?}", row.song.phase))
        });
        idle = match busy {
            Some(busy) => Err(busy),
            None => town
                .machines
                .iter()
                .filter_map(|machine| machine.ports())
                .try_for_each(|ports| ports.is_idle()),
        };
        if idle.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_secs(10)).await;
    }
    idle
}
