//! Whether everything was right: each watcher's story against what HTTP tells, the simulator's against the server's,
//! the database against its own rules; and how each song ended.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;
use songflight::store::audit::RULES_ASKED;
use songflight::time::Clock;

use super::crowd::Crowd;
use super::follow::Figures;
use super::person::{Person, is_over};
use super::provider::Orders;
use super::result::{Check, End};
use super::stage::{Look, Stage};

pub struct Verdict {
    pub ends: Vec<End>,
    pub checks: Vec<Check>,
    pub faults: Vec<String>,
    pub figures: Figures,
}

/// Songs that are read side by side.
const SIDE_BY_SIDE: usize = 64;
/// How long watchers who were slow may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);

/// One song, seen from all sides.
struct Told {
    end: End,
    over: bool,
    faults: Vec<String>,
}

pub async fn check(crowd: &Crowd, stage: &Stage, after: &Look) -> Verdict {
    crowd.world.signals.send_modify(|signals| signals.calm = true);
    let told = songs(crowd).await;
    let mut ends = BTreeMap::<End, u64>::new();
    let mut stories = Vec::new();
    let stuck = told.iter().filter(|told| !told.over).count();
    let read = told.len();
    for told in told {
        *ends.entry(told.end).or_default() += 1;
        stories.extend(told.faults);
    }
    for person in &crowd.people {
        for (kind, why) in person.refused.borrow().iter() {
            let kind = &crowd.world.scenario.songs[*kind];
            let end = end(&kind.provider, kind.mode.as_str(), "–", "refused", why);
            *ends.entry(end).or_default() += 1;
        }
    }
    let figures = figures(crowd);
    let broken: Vec<String> = crowd
        .people
        .iter()
        .flat_map(|person| &person.watchers)
        .flat_map(|watcher| std::mem::take(&mut watcher.follower.borrow_mut().faults))
        .collect();
    let (seen, more) = crowd.world.faults();
    let mut checks = vec![
        Check {
            what: "every song came to its end".to_owned(),
            right: stuck == 0,
            detail: format!("{} of {read} ended, {stuck} are stuck", read - stuck),
        },
        Check {
            what: "every event came once and in order, every resume was exact".to_owned(),
            right: broken.is_empty(),
            detail: format!(
                "{} events; {} resumes, {} snapshots; {} said to be merged; {} rules broken",
                figures.events,
                figures.resumes,
                figures.snapshots,
                figures.skipped,
                broken.len()
            ),
        },
        Check {
            what: "every song is over its sockets what it is over HTTP".to_owned(),
            right: stories.is_empty(),
            detail: format!("{read} songs compared, {} differences", stories.len()),
        },
        Check {
            what: "no order and no socket met what it must not".to_owned(),
            right: seen.is_empty(),
            detail: format!("{} faults", seen.len() + more),
        },
    ];
    let orders = stage.own.as_ref().map(|own| own.provider.record.orders());
    checks.extend(orders.map(|orders| once(orders, after)));
    let mut faults: Vec<String> = broken.into_iter().chain(stories).chain(seen).collect();
    if let Some(audit) = audit(stage, &mut faults).await {
        checks.push(audit);
    }
    let ends = ends.into_iter().map(|(end, count)| End { count, ..end }).collect();
    Verdict { ends, checks, faults, figures }
}

fn once(orders: Orders, after: &Look) -> Check {
    let known = after.possible_duplicates.unwrap_or_default();
    Check {
        what: "no order was paid for twice unknowingly".to_owned(),
        right: orders.repeated == 0 && orders.strangers == 0 && orders.again as f64 <= known,
        detail: format!(
            "{} orders taken; {} attempts twice; {} calls again after one of unknown fate, of which the server \
             tells itself: {known:.0} possible duplicates",
            orders.accepted, orders.repeated, orders.again
        ),
    }
}

async fn audit(stage: &Stage, faults: &mut Vec<String>) -> Option<Check> {
    let what = "the ledger adds up, and the database keeps its rules".to_owned();
    let check = match stage.audit().await? {
        Ok(broken) => {
            let detail = format!("{} of {RULES_ASKED} rules broken", broken.len());
            let right = broken.is_empty();
            for broken in broken {
                faults.extend(broken.examples.iter().map(|row| format!("{}: {row}", broken.rule)));
            }
            Check { what, right, detail }
        }
        Err(failure) => Check { what, right: false, detail: failure.to_string() },
    };
    Some(check)
}

async fn songs(crowd: &Crowd) -> Vec<Told> {
    let give_up = Clock.monotonic() + CATCH_UP;
    let songs = crowd.people.iter().flat_map(|person| {
        let ordered: Vec<_> = {
            let songs = person.songs.borrow();
            songs.iter().filter_map(|(id, known)| Some((id.clone(), known.ordered?.1))).collect()
        };
        ordered.into_iter().map(|(id, kind)| (person.clone(), id, kind))
    });
    futures_util::stream::iter(songs)
        .map(|(person, id, kind)| async move { tell(&person, &id, kind, give_up).await })
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await
}

async fn tell(person: &Rc<Person>, id: &str, kind: usize, give_up: Instant) -> Told {
    loop {
        let read = person.read(id).await;
        let late = Clock.monotonic() >= give_up;
        match read {
            Ok(song) => {
                let faults = differences(person, id, &song);
                if faults.is_empty() || late {
                    let over = is_over(song["status"].as_str().unwrap_or_default());
                    return Told { end: ended(person, kind, &song), over, faults };
                }
            }
            Err(error) if late => {
                let wish = &person.world.scenario.songs[kind];
                let end = end(&wish.provider, wish.mode.as_str(), "–", "unreadable", "–");
                return Told { end, over: false, faults: vec![error] };
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether the events made the same song of it that HTTP tells, and all of them came, at each socket.
fn differences(person: &Person, id: &str, song: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for watcher in &person.watchers {
        let follower = watcher.follower.borrow();
        if let Err(difference) = follower.compare(song) {
            faults.push(difference);
        } else if let Some(told) = follower.songs.get(id).filter(|told| told.told != told.seq) {
            faults.push(format!("song {id}: {} of {} events came", told.told, told.seq));
        }
    }
    faults
}

fn ended(person: &Person, kind: usize, song: &Value) -> End {
    let wish = &person.world.scenario.songs[kind];
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let status = text(&song["status"]);
    let ended_as = if is_over(&status) {
        status
    } else {
        format!("stuck: {status}, waiting for {}", text(&song["waiting_for"]))
    };
    end(
        &wish.provider,
        wish.mode.as_str(),
        &text(&song["provider"]),
        &ended_as,
        &text(&song["error"]["class"]),
    )
}

fn end(wished: &str, mode: &str, provider: &str, ended_as: &str, class: &str) -> End {
    End {
        wished: wished.to_owned(),
        mode: mode.to_owned(),
        provider: provider.to_owned(),
        ended_as: ended_as.to_owned(),
        class: class.to_owned(),
        count: 0,
    }
}

fn figures(crowd: &Crowd) -> Figures {
    let watchers = crowd.people.iter().flat_map(|person| &person.watchers);
    watchers.map(|watcher| watcher.follower.borrow().figures).fold(Figures::default(), |sum, one| Figures {
        events: sum.events + one.events,
        repeated: sum.repeated + one.repeated,
        skipped: sum.skipped + one.skipped,
        resumes: sum.resumes + one.resumes,
        snapshots: sum.snapshots + one.snapshots,
    })
}
