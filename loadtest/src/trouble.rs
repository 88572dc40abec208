//! What goes wrong by the clock: providers that are away for a while, sockets that are all lost at once, a server
//! that is killed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use songflight::time::Clock;
use tokio::task::JoinHandle;

use super::crowd::until;
use super::person::World;
use super::result::Mark;
use super::stage::{Own, Stage};

/// What happened when, for the report.
pub type Marks = Rc<RefCell<Vec<Mark>>>;

/// Starts everything that the scenario has in store.
pub fn brew(stage: &Rc<Stage>, world: &Rc<World>, marks: &Marks) -> [JoinHandle<()>; 3] {
    let began = Clock.monotonic();
    [
        actix_web::rt::spawn(outages(stage.clone(), world.clone(), began, marks.clone())),
        actix_web::rt::spawn(kills(stage.clone(), world.clone(), began, marks.clone())),
        actix_web::rt::spawn(storms(world.clone(), began, marks.clone())),
    ]
}

async fn outages(stage: Rc<Stage>, world: Rc<World>, began: Instant, marks: Marks) {
    let Some(own) = &stage.own else { return };
    let outages = &world.scenario.outage;
    let moments: BTreeSet<Duration> = outages.iter().flat_map(|one| [one.at, one.at + one.lasts]).collect();
    for at in moments {
        until(began, at).await;
        let away = |one: &&super::scenario::Outage| one.at <= at && at < one.at + one.lasts;
        let names: Vec<&str> = outages.iter().filter(away).map(|one| one.provider.as_str()).collect();
        if let Err(failure) = own.provider.down(&names).await {
            world.fault(format!("an outage could not be made: {failure}"));
        }
        for one in outages.iter().filter(|one| one.at == at) {
            let what = format!("{} is away", one.provider);
            marks.borrow_mut().push(Mark::new(what, one.at, one.at + one.lasts));
        }
    }
}

async fn storms(world: Rc<World>, began: Instant, marks: Marks) {
    for storm in &world.scenario.storm {
        until(began, storm.at).await;
        world.signals.send_modify(|signals| signals.storms += 1);
        marks.borrow_mut().push(Mark::new("all sockets at once".to_owned(), storm.at, storm.at));
    }
}

/// Waits until the server has as many songs in its hands as were under way when it began.
async fn all_in_hand(own: &Own, mut songs: u32) {
    let mut looks = 0_u32;
    while f64::from(songs) > own.in_hand().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
        looks += 1;
        // Some end before it has seen them all. Counting them costs it more than asking it does.
        if looks.is_multiple_of(20) {
            songs = own.under_way().await.map_or(songs, |now| now.min(songs));
        }
    }
}

async fn kills(stage: Rc<Stage>, world: Rc<World>, began: Instant, marks: Marks) {
    let (Some(own), Some(kills)) = (&stage.own, &world.scenario.kill) else { return };
    for number in 0..kills.times {
        until(began, kills.first + kills.every * number).await;
        let (at, revived, songs) = {
            let mut server = own.server.lock().await;
            server.kill().await;
            let at = Clock.monotonic().duration_since(began);
            let (revived, songs) = tokio::join!(server.revive(), own.under_way());
            (at, revived, songs)
        };
        let up = Clock.monotonic().duration_since(began);
        if revived.is_ok()
            && let Ok(songs) = songs.inspect_err(|failure| world.fault(failure.to_string()))
        {
            all_in_hand(own, songs).await;
            let over = Clock.monotonic().duration_since(began);
            world.seen.borrow_mut().take_overs.add(over.saturating_sub(at));
        }
        if let Err(failure) = revived {
            world.fault(format!("after SIGKILL {}: {failure}", number + 1));
            return;
        }
        marks.borrow_mut().push(Mark::new("SIGKILL".to_owned(), at, up));
    }
}
