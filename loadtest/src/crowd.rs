//! The people of a scenario together: they gather, order, and are waited for.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Client;
use songflight::time::Clock;
use tokio::sync::{Notify, Semaphore};

use super::figures::CALM;
use super::person::{Person, World};
use super::scenario::{Afterwards, Manner, Scenario};
use super::socket::Watcher;
use super::stage::Stage;
use super::{Failure, cannot};

pub struct Crowd {
    pub world: Rc<World>,
    /// Those who order; those who only watch stand behind them.
    pub people: Vec<Rc<Person>>,
    ordering: usize,
}

/// Sockets that are opened side by side before it begins.
const SIDE_BY_SIDE: usize = 64;
const GATHER_WITHIN: Duration = Duration::from_secs(180);

impl Crowd {
    /// Everybody is connected and watching.
    pub async fn gather(stage: &Stage, scenario: &Scenario) -> Result<Self, Failure> {
        let http = Client::builder().timeout(Duration::from_secs(60)).no_proxy().build();
        let record = stage.own.as_ref().map(|own| own.provider.record.clone());
        let http = http.map_err(cannot("the http client"))?;
        let world = Rc::new(World::new(scenario.clone(), stage.url.clone(), http, record));
        let users = &scenario.users;
        let people: Vec<_> = (0..users.count + users.idle)
            .map(|number| {
                let idle = number >= users.count;
                let manner = if idle { Manner::Steady } else { scenario.manner(number) };
                let sockets = match manner {
                    Manner::None => 0,
                    _ if idle => 1,
                    _ => users.sockets,
                };
                Rc::new(Person {
                    number,
                    token: stage.token(&format!("load-{}-{number}", std::process::id())),
                    manner,
                    world: world.clone(),
                    songs: Default::default(),
                    watchers: (0..sockets).map(|index| Rc::new(Watcher::new(index == 0))).collect(),
                    refused: Default::default(),
                })
            })
            .collect();
        let crowd = Self { world, people, ordering: users.count };
        crowd.arrive().await?;
        Ok(crowd)
    }

    async fn arrive(&self) -> Result<(), Failure> {
        let all = self.people.iter().map(|person| person.watchers.len()).sum::<usize>();
        let (waiting, done) = (Rc::new(Cell::new(all)), Rc::new(Notify::new()));
        let doors = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        for person in &self.people {
            if person.watchers.is_empty() {
                actix_web::rt::spawn(person.clone().ask());
            }
            for watcher in &person.watchers {
                let (person, watcher) = (person.clone(), watcher.clone());
                let (waiting, done, doors) = (waiting.clone(), done.clone(), doors.clone());
                actix_web::rt::spawn(async move {
                    let door = doors.acquire_owned().await;
                    let arrived = move || {
                        drop(door);
                        waiting.set(waiting.get() - 1);
                        done.notify_one();
                    };
                    watcher.keep(person, arrived).await;
                });
            }
        }
        let arriving = async {
            while waiting.get() > 0 {
                done.notified().await;
            }
        };
        tokio::time::timeout(GATHER_WITHIN, arriving).await.map_err(|_| {
            let cuts: Vec<_> = self.world.seen.borrow().cuts.keys().cloned().collect();
            let left = waiting.get();
            Failure(format!(
                "{left} of {all} sockets did not open (too few open files?): {}",
                cuts.join("; ")
            ))
        })
    }

    /// Orders all songs when their time has come, and waits until each has ended. Whether all did.
    pub async fn go(&self) -> bool {
        let load = &self.world.scenario.load;
        let began = Clock.monotonic();
        self.world.seen.borrow_mut().began = Some(began);
        let doors = Semaphore::new(load.at_once.unwrap_or(Semaphore::MAX_PERMITS));
        let mut orders = self.orders(0..load.songs, load.rate, &doors);
        while orders.next().await.is_some() {}
        drop(orders);
        if let Some(afterwards) = load.afterwards {
            self.go_on(afterwards).await;
        }
        tokio::time::timeout(load.patience, self.all_ended()).await.is_ok()
    }

    /// Orders of these numbers, at a rate from now on or all at once: when each was to be sent, and how long it took.
    fn orders<'a>(
        &'a self,
        numbers: Range<usize>,
        rate: Option<f64>,
        doors: &'a Semaphore,
    ) -> FuturesUnordered<impl Future<Output = (Duration, Duration)> + 'a> {
        let (began, first) = (Clock.monotonic(), numbers.start);
        let order = move |number: usize| async move {
            let at = rate.map_or(0.0, |rate| (number - first) as f64 / rate);
            let at = Duration::from_secs_f64(at);
            until(began, at).await;
            let _place = doors.acquire().await;
            let sent = Clock.monotonic();
            self.people[number % self.ordering].clone().order(number).await;
            (at, Clock.monotonic().duration_since(sent))
        };
        numbers.map(order).collect()
    }

    /// Orders at an even pace, and finds from when on each was answered quickly.
    async fn go_on(&self, Afterwards { songs, rate }: Afterwards) {
        let rush = self.world.scenario.load.songs;
        let doors = Semaphore::new(Semaphore::MAX_PERMITS);
        let mut orders = self.orders(rush..rush + songs, Some(rate), &doors);
        let mut calm = Duration::ZERO;
        while let Some((at, took)) = orders.next().await {
            if took > CALM {
                calm = calm.max(at + took);
            }
        }
        self.world.seen.borrow_mut().calm.add(calm);
    }

    async fn all_ended(&self) {
        while {
            let seen = self.world.seen.borrow();
            seen.ended() < seen.created
        } {
            self.world.progress.notified().await;
        }
    }
}

/// Waits for a moment of the run.
pub async fn until(began: Instant, at: Duration) {
    tokio::time::sleep(at.saturating_sub(Clock.monotonic().duration_since(began))).await;
}
