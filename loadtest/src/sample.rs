//! Looks at a run about once a second: for the plots, and for the line that moves.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::Duration;

use songflight::time::Clock;

use super::person::World;
use super::process::{self, Usage};
use super::result::Sample;
use super::stage::Stage;

pub type Samples = Rc<RefCell<Vec<Sample>>>;

const BAR: usize = 30;
/// A log that nobody watches is told so often.
const SAID_EVERY: usize = 30;

pub async fn watch(stage: Rc<Stage>, world: Rc<World>, samples: Samples) {
    let mut before = (Clock.monotonic(), usages(&stage).await.unwrap_or_default());
    for number in 0_usize.. {
        let pause = Duration::from_millis(if number < 20 { 250 } else { 1_000 });
        let asleep = Clock.monotonic();
        tokio::time::sleep(pause).await;
        let late = Clock.monotonic().duration_since(asleep).saturating_sub(pause);
        world.seen.borrow_mut().late.add(late);
        // While the server is being started again, nothing is known of it.
        let now = (Clock.monotonic(), usages(&stage).await.unwrap_or(before.1));
        let passed = now.0.duration_since(before.0).as_secs_f64().max(0.001);
        let cores =
            |index: usize| now.1[index].cpu.saturating_sub(before.1[index].cpu).as_secs_f64() / passed;
        let sample = Sample {
            server_cpu: cores(0),
            postgres_cpu: cores(1),
            here_cpu: cores(2),
            server_mib: now.1[0].memory_kib as f64 / 1024.0,
            postgres_mib: now.1[1].memory_kib as f64 / 1024.0,
            ..seen(&world)
        };
        show(&sample, world.scenario.load.songs, number);
        samples.borrow_mut().push(sample);
        before = now;
    }
}

async fn usages(stage: &Stage) -> Option<[Usage; 3]> {
    let [server, postgres] = match &stage.own {
        Some(_) => stage.glance().await?,
        None => Default::default(),
    };
    Some([server, postgres, process::usage(std::process::id())])
}

fn seen(world: &World) -> Sample {
    let seen = world.seen.borrow();
    let passed = seen.began.map(|began| Clock.monotonic().duration_since(began)).unwrap_or_default();
    Sample {
        at_s: passed.as_secs_f64(),
        created: seen.created as u64,
        refused: seen.refused as u64,
        ready: (seen.in_status("ready") + seen.in_status("complete")) as u64,
        failed: (seen.in_status("failed") + seen.in_status("cancelled")) as u64,
        in_flight: (seen.created - seen.ended()) as u64,
        events: seen.events,
        live: seen.live as u64,
        ..Sample::default()
    }
}

fn show(sample: &Sample, songs: usize, number: usize) {
    let terminal = std::io::stderr().is_terminal();
    if !terminal && (number == 0 || !number.is_multiple_of(SAID_EVERY)) {
        return;
    }
    let done = (sample.ready + sample.failed + sample.refused) as usize * BAR / songs.max(1);
    let bar: String = (0..BAR).map(|at| if at < done { '█' } else { '·' }).collect();
    let Sample { created, in_flight, ready, failed, refused, live, at_s, .. } = sample;
    let line = format!(
        "  {bar}  {at_s:>5.0} s  created {created}  under way {in_flight}  ready {ready}  failed {failed}  \
         refused {refused}  sockets {live}  CPU {:.2} ",
        sample.server_cpu
    );
    match terminal {
        true => eprint!("\r{line}"),
        false => eprintln!("{line}"),
    }
    let _ = std::io::stderr().flush();
}
