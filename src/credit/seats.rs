//! How many songs of one user are made at once (CRED-3): each has a seat while it is worked on, and those above the
//! plan's limit wait for one, the oldest first. Of one node; the songs of a user who creates at several nodes have
//! their seats at each.
//!
//! Not here: that a song waits (`song::actor`), and refusing in its place (`store::births` counts the database's rows).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::id::{SongId, UserId};
use crate::time::Time;

/// Cheap to clone; all clones share the seats.
#[derive(Clone, Debug, Default)]
pub struct Seats {
    users: Arc<Mutex<HashMap<UserId, Table>>>,
}

/// One user's. Gone once nobody sits and nobody waits.
#[derive(Debug, Default)]
struct Table {
    /// As of whoever asked last: a plan may change while songs wait.
    limit: usize,
    /// How many hold a song's seat; it counts once. An actor may come back before its last seat is given up.
    seated: HashMap<SongId, usize>,
    queue: BTreeMap<(Time, SongId), Vec<Waiter>>,
    /// Numbers the waiters, so that one who leaves is found again.
    asked: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    call: oneshot::Sender<Seat>,
}

/// A song's seat. Dropping it lets the next one sit down.
#[derive(Debug)]
#[must_use = "dropping it gives the seat to the next song"]
pub struct Seat {
    seats: Seats,
    user: UserId,
    song: SongId,
}

impl Seats {
    /// Waits for a seat, the oldest `since` first. Dropping the future gives up the place in the queue, and a seat
    /// that was on its way goes to the next.
    pub async fn seat(&self, user: &UserId, limit: u32, song: SongId, since: Time) -> Seat {
        let (call, called) = oneshot::channel();
        let place = Place {
            seats: self,
            user,
            at: (since, song),
            number: self.queue_up(user, limit, (since, song), call),
        };
        self.call_next(user);
        let seat = called.await.expect("who calls is kept until this is called or has left");
        drop(place);
        seat
    }

    /// A seat without waiting, also above the limit: for a song that is worked on already, such as after a restart.
    pub fn adopt(&self, user: &UserId, song: SongId) -> Seat {
        *self.tables().entry(user.clone()).or_default().seated.entry(song).or_default() += 1;
        self.a_seat(user, song)
    }

    /// Where in the queue a song is, from 1; `None` if it does not wait.
    pub fn position(&self, user: &UserId, song: SongId) -> Option<usize> {
        let tables = self.tables();
        let place = tables.get(user)?.queue.keys().position(|(_, waiting)| *waiting == song)?;
        Some(place + 1)
    }

    /// Songs of this user that have a seat.
    pub fn taken(&self, user: &UserId) -> usize {
        self.tables().get(user).map_or(0, |table| table.seated.len())
    }

    fn queue_up(&self, user: &UserId, limit: u32, at: (Time, SongId), call: oneshot::Sender<Seat>) -> u64 {
        let mut tables = self.tables();
        let table = tables.entry(user.clone()).or_default();
        table.limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
        table.asked += 1;
        let number = table.asked;
        table.queue.entry(at).or_default().push(Waiter { number, call });
        number
    }

    /// Calls whoever may sit down. Outside the lock, because an answer that nobody takes is a seat given up.
    fn call_next(&self, user: &UserId) {
        loop {
            let Some((song, waiter)) = self.next(user) else { return };
            // Not taken: dropped, which calls the next.
            drop(waiter.call.send(self.a_seat(user, song)));
        }
    }

    /// Takes the first in the queue who may sit down, and a seat for its song.
    fn next(&self, user: &UserId) -> Option<(SongId, Waiter)> {
        let mut tables = self.tables();
        let table = tables.get_mut(user)?;
        let full = table.seated.len() >= table.limit;
        // A song that sits already needs no further seat.
        let at = *table.queue.keys().find(|(_, song)| !full || table.seated.contains_key(song))?;
        let waiters = table.queue.get_mut(&at)?;
        let waiter = waiters.pop()?;
        if waiters.is_empty() {
            table.queue.remove(&at);
        }
        *table.seated.entry(at.1).or_default() += 1;
        Some((at.1, waiter))
    }

    fn leave(&self, user: &UserId, at: (Time, SongId), number: u64) {
        let mut tables = self.tables();
        let Some(table) = tables.get_mut(user) else { return };
        if let Some(waiters) = table.queue.get_mut(&at) {
            waiters.retain(|waiter| waiter.number != number);
            if waiters.is_empty() {
                table.queue.remove(&at);
            }
        }
        tidy(&mut tables, user);
    }

    fn give_up(&self, user: &UserId, song: SongId) {
        let mut tables = self.tables();
        let Some(table) = tables.get_mut(user) else { return };
        if let Some(holders) = table.seated.get_mut(&song) {
            *holders -= 1;
            if *holders == 0 {
                table.seated.remove(&song);
            }
        }
        tidy(&mut tables, user);
    }

    fn a_seat(&self, user: &UserId, song: SongId) -> Seat {
        Seat { seats: self.clone(), user: user.clone(), song }
    }

    /// Nothing panics while it holds this lock.
    fn tables(&self) -> MutexGuard<'_, HashMap<UserId, Table>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tidy(tables: &mut HashMap<UserId, Table>, user: &UserId) {
    if tables.get(user).is_some_and(|table| table.seated.is_empty() && table.queue.is_empty()) {
        tables.remove(user);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.give_up(&self.user, self.song);
        self.seats.call_next(&self.user);
    }
}

/// A place in the queue, which is left however the waiting ends.
struct Place<'a> {
    seats: &'a Seats,
    user: &'a UserId,
    at: (Time, SongId),
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.seats.leave(self.user, self.at, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use futures_util::poll;
    use proptest::prelude::*;

    use super::*;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Seat> + 'a>>;

    fn alice() -> UserId {
        UserId::trusted("alice")
    }

    fn song(number: u128) -> SongId {
        SongId(uuid::Uuid::from_u128(number))
    }

    fn at(millis: i64) -> Time {
        Time::from_millis(millis)
    }

    fn ask<'a>(seats: &'a Seats, user: &'a UserId, limit: u32, number: u128, since: i64) -> Waiting<'a> {
        Box::pin(seats.seat(user, limit, song(number), at(since)))
    }

    #[actix_web::test]
    async fn as_many_as_the_limit_sit_and_the_oldest_comes_next() {
        let (seats, user) = (Seats::default(), alice());
        let first = seats.seat(&user, 1, song(1), at(1)).await;
        let (mut young, mut old) = (ask(&seats, &user, 1, 3, 30), ask(&seats, &user, 1, 2, 20));
        assert!(poll!(&mut young).is_pending() && poll!(&mut old).is_pending());
        assert_eq!((seats.position(&user, song(2)), seats.position(&user, song(3))), (Some(1), Some(2)));
        drop(first);
        assert!(poll!(&mut young).is_pending());
        let Poll::Ready(second) = poll!(&mut old) else { panic!("the oldest is called") };
        drop(second);
        assert!(poll!(&mut young).is_ready());
    }

    #[actix_web::test]
    async fn users_do_not_wait_for_each_other() {
        let (seats, user, other) = (Seats::default(), alice(), UserId::trusted("bob"));
        let _one = seats.seat(&user, 1, song(1), at(1)).await;
        let _two = seats.seat(&other, 1, song(2), at(1)).await;
        assert_eq!((seats.taken(&user), seats.taken(&other)), (1, 1));
    }

    #[actix_web::test]
    async fn whoever_stops_waiting_takes_no_seat_along() {
        let (seats, user) = (Seats::default(), alice());
        let first = seats.seat(&user, 1, song(1), at(1)).await;
        let (mut gone, mut called) = (ask(&seats, &user, 1, 2, 2), ask(&seats, &user, 1, 3, 3));
        let mut last = ask(&seats, &user, 1, 4, 4);
        assert!(poll!(&mut gone).is_pending() && poll!(&mut called).is_pending());
        assert!(poll!(&mut last).is_pending());
        drop(gone);
        assert_eq!(seats.position(&user, song(3)), Some(1));
        // Called, and gone before it heard.
        drop(first);
        drop(called);
        assert!(poll!(&mut last).is_ready());
        drop(last);
        assert!(seats.tables().is_empty(), "nothing is kept of whoever has no songs");
    }

    #[actix_web::test]
    async fn songs_that_are_worked_on_have_their_seats_even_above_the_limit() {
        let (seats, user) = (Seats::default(), alice());
        let adopted: Vec<Seat> = (1..=3).map(|number| seats.adopt(&user, song(number))).collect();
        let mut waiting = ask(&seats, &user, 1, 9, 9);
        for seat in adopted {
            assert!(poll!(&mut waiting).is_pending());
            drop(seat);
        }
        assert!(poll!(&mut waiting).is_ready());
    }

    #[actix_web::test]
    async fn a_song_sits_once_however_often_it_asks() {
        let (seats, user) = (Seats::default(), alice());
        let first = seats.seat(&user, 1, song(1), at(1)).await;
        let again = seats.seat(&user, 1, song(1), at(1)).await;
        assert_eq!(seats.taken(&user), 1);
        drop(first);
        let mut other = ask(&seats, &user, 1, 2, 2);
        assert!(poll!(&mut other).is_pending(), "the song still sits");
        drop(again);
        assert!(poll!(&mut other).is_ready());
    }

    #[actix_web::test]
    async fn a_better_plan_counts_at_once() {
        let (seats, user) = (Seats::default(), alice());
        let _first = seats.seat(&user, 1, song(1), at(1)).await;
        let mut second = ask(&seats, &user, 1, 2, 2);
        assert!(poll!(&mut second).is_pending());
        let mut third = ask(&seats, &user, 3, 3, 3);
        assert!(poll!(&mut third).is_ready() && poll!(&mut second).is_ready());
    }

    proptest! {
        /// Whatever comes and goes: never more than the limit sit, none waits beside a free seat, and nothing stays.
        #[test]
        fn seats_are_neither_lost_nor_doubled(acts in proptest::collection::vec((0..4_u8, 0..12_usize), 1..200), limit in 1..4_u32) {
            futures_util::FutureExt::now_or_never(async {
                let (seats, user) = (Seats::default(), alice());
                let mut waiting: Vec<Option<Waiting>> = (0..12).map(|_| None).collect();
                let mut seated: Vec<Option<Seat>> = (0..12).map(|_| None).collect();
                for (act, number) in acts {
                    match act {
                        0 if waiting[number].is_none() && seated[number].is_none() => {
                            waiting[number] = Some(ask(&seats, &user, limit, number as u128, number as i64));
                        }
                        1 => waiting[number] = None,
                        2 => seated[number] = None,
                        _ => {}
                    }
                    for number in 0..12 {
                        let Some(one) = &mut waiting[number] else { continue };
                        if let Poll::Ready(seat) = poll!(one) {
                            seated[number] = Some(seat);
                            waiting[number] = None;
                        }
                    }
                    let sitting = seated.iter().flatten().count();
                    assert!(sitting <= limit as usize);
                    assert_eq!(sitting, seats.taken(&user));
                    assert!(sitting == limit as usize || waiting.iter().flatten().count() == 0);
                }
                drop((waiting, seated));
                assert!(seats.tables().is_empty());
            }).expect("nothing here waits for anything outside");
        }
    }
}
