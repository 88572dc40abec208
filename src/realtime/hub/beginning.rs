//! How a hub begins a subscription: the watcher is there first, then is read what it begins with, then both are put
//! together without a hole.
//!
//! Not here: what the frames are that a subscription begins with (`resume`), how events reach it later (`hub`).

use std::sync::Arc;

use actix::prelude::*;
use tracing::warn;

use super::{Begun, Hub, MOVED, Subscribe};
use crate::id::SongId;
use crate::realtime::frames::{self, Channel, Mode, Refusal};
use crate::realtime::resume::{self, Start};
use crate::store::StoreError;
use crate::store::feed::Snapshot;

const NO_SUCH_SONG: &str = "there is no such song";

type Reading = Result<Option<Start>, StoreError>;
type Beginning = ResponseActFuture<Hub, Begun>;

impl Handler<Subscribe> for Hub {
    type Result = Beginning;

    fn handle(&mut self, subscribe: Subscribe, _: &mut Self::Context) -> Self::Result {
        self.subscribe(subscribe)
    }
}

/// Whether this was read of another log than what had been told, or of one that has gone back.
fn is_another_log(had: Option<(i64, i64)>, read: &Snapshot) -> bool {
    had.is_some_and(|(epoch, had)| read.epoch != epoch || read.u < had)
}

fn done(begun: Begun) -> Beginning {
    Box::pin(actix::fut::ready(begun))
}

impl Hub {
    fn subscribe(&mut self, subscribe: Subscribe) -> Beginning {
        let user = self.users.entry(subscribe.owner.clone()).or_default();
        if let Channel::Song(song) = subscribe.channel
            && user.me_of(&subscribe.connection).is_some()
        {
            return self.by_me(subscribe, song);
        }
        user.watch(&subscribe);
        if let Some((epoch, have)) = user.have.filter(|_| !user.reading)
            && let Some(start) = resume::from_memory(&subscribe, &user.recent, epoch, have, &self.settings)
        {
            self.put(&subscribe, start);
            return done(Ok(()));
        }
        let collects = user.have.is_some();
        self.read(subscribe, collects)
    }

    /// Reads what a subscription begins with, whose watcher is there already. `collects`: what is delivered goes into its
    /// lane, too, because it is known of the user what has been.
    fn read(&self, subscribe: Subscribe, collects: bool) -> Beginning {
        let (feed, settings) = (Arc::clone(&self.feed), Arc::clone(&self.settings));
        let admission = Arc::clone(&self.admission);
        let read = async move {
            // The semaphore is never closed; if it were, the reading would go ahead.
            let _permit = admission.acquire_owned().await;
            let start = resume::read(&*feed, &subscribe, &settings).await;
            (subscribe, start)
        };
        Box::pin(
            read.into_actor(self)
                .then(move |(subscribe, start), hub, ctx| hub.begin(subscribe, collects, start, ctx)),
        )
    }

    /// The reading for a subscription is done. No event may come neither with it nor after it:
    ///
    /// - From a certain number on everything has gone into the lane: from what had been delivered (`have`) when the watcher
    ///   came, or else, of a user that was new here, from where the first reading of any watcher ended.
    /// - The reading has everything up to its own number.
    /// - So there is no hole if it was read at that number or later.
    ///
    /// A watcher that came while `have` was known was read later, and so was the one whose reading made it known. One of two
    /// that came to a new user may not have been:
    ///
    /// ```text
    /// slow    comes, reads at 8 .......................... begins?
    /// log                         9                   10
    /// quick                           comes, reads at 9   has 10
    /// ```
    ///
    /// Nobody was told of 9, because the reading of the quick one has it; 10 is in both lanes. The slow one reads once more:
    /// then it does so at 10 or later, and has collected everything after 9.
    fn begin(
        &mut self,
        subscribe: Subscribe,
        collects: bool,
        start: Reading,
        ctx: &mut Context<Self>,
    ) -> Beginning {
        let start = match start {
            Ok(Some(start)) => start,
            Ok(None) => return self.nothing_there(subscribe),
            Err(error) => return done(self.away(&subscribe, &error)),
        };
        let have = self.users.get(&subscribe.owner).and_then(|user| user.have);
        if !collects && have.is_some_and(|(epoch, have)| epoch == start.from().epoch && start.u < have) {
            return self.read(subscribe, true);
        }
        self.go_live(&subscribe, start, ctx);
        done(Ok(()))
    }

    fn go_live(&mut self, subscribe: &Subscribe, start: Start, ctx: &mut Context<Self>) {
        let (cursor, u) = (start.from(), start.u);
        if !self.put(subscribe, start) {
            return;
        }
        let Some(user) = self.users.get_mut(&subscribe.owner) else {
            // Invalidated while it was read.
            return subscribe.connection.close(4014, "state invalidated");
        };
        match user.have {
            None => user.have = Some((cursor.epoch, u)),
            Some((epoch, _)) if epoch != cursor.epoch => return self.invalidate(&subscribe.owner),
            Some(_) => {}
        }
        self.heard_of(&subscribe.owner, 0, ctx);
    }

    /// Behind a link there may be a song all the same: another owner's, since it was looked up (CRED-7).
    fn nothing_there(&mut self, subscribe: Subscribe) -> Beginning {
        let Channel::Share(token) = subscribe.channel else {
            return done(self.refuse(&subscribe, Refusal::NotFound, NO_SUCH_SONG));
        };
        let feed = Arc::clone(&self.feed);
        let look = async move { feed.shared(token).await };
        Box::pin(look.into_actor(self).map(move |found, hub, _| {
            // Who went with the song was told and has no lane any more, nor has who left: the subscription as such is not
            // answered yet. A lane that is off with `gone` in it never began, so that would not be written: this is its answer.
            let is_over = !subscribe.connection.outbox().knows(subscribe.lane);
            match found {
                _ if is_over => {
                    resume::taken_back(&subscribe);
                    Ok(())
                }
                Ok(None) => hub.refuse(&subscribe, Refusal::NotFound, NO_SUCH_SONG),
                Ok(Some(_)) => hub.refuse(&subscribe, Refusal::Unavailable { after_ms: 0 }, MOVED),
                Err(error) => hub.away(&subscribe, &error),
            }
        }))
    }

    /// Puts what a subscription begins with on its way. Who follows all songs needs none of them twice (RT-3): the
    /// `song:` channels of this connection are off from then on, and are told to go on with `me`. Not before: as long as
    /// that may still be refused, they bring what happens. False when the lane is gone.
    fn put(&mut self, subscribe: &Subscribe, start: Start) -> bool {
        let begun = self.put_first(subscribe, start);
        if !begun {
            resume::taken_back(subscribe);
        }
        begun
    }

    fn put_first(&mut self, subscribe: &Subscribe, mut start: Start) -> bool {
        let (connection, user) = (&subscribe.connection, self.users.get_mut(&subscribe.owner));
        let Some(user) = user.filter(|_| subscribe.channel == Channel::Me) else {
            return start.put(connection, subscribe.lane);
        };
        let songs = user.songs_of(connection);
        for (_, name) in &songs {
            start.tell(&frames::subd(None, name, Mode::ViaMe));
        }
        if !start.put(connection, subscribe.lane) {
            return false;
        }
        for (lane, _) in &songs {
            connection.outbox().retire_lane(*lane);
        }
        user.forget(|watcher| {
            watcher.connection.id() == connection.id() && songs.iter().any(|(lane, _)| *lane == watcher.lane)
        });
        true
    }

    /// A song whose changes come with `me` anyway, if it is this user's. It is shown as it is now: `me` may have begun
    /// without it (`protocol.md` 3), and then its first event is one after a hole for the client.
    fn by_me(&self, subscribe: Subscribe, song: SongId) -> Beginning {
        let (feed, admission) = (Arc::clone(&self.feed), Arc::clone(&self.admission));
        let had = self.users.get(&subscribe.owner).and_then(|user| user.have);
        let look = async move {
            let _permit = admission.acquire_owned().await;
            let found = feed.song(&subscribe.owner, song).await;
            (subscribe, found)
        };
        Box::pin(look.into_actor(self).then(move |(subscribe, found), hub, _| match found {
            Ok(Some(read)) if is_another_log(had, &read) => {
                hub.invalidate(&subscribe.owner);
                // Also where `me` was left meanwhile, so that it is nobody's watcher any more.
                subscribe.connection.close(4014, "state invalidated");
                done(Ok(()))
            }
            Ok(Some(read)) => hub.show(subscribe, song, read),
            Ok(None) => done(hub.refuse(&subscribe, Refusal::NotFound, NO_SUCH_SONG)),
            Err(error) => done(hub.away(&subscribe, &error)),
        }))
    }

    /// A client takes what it is shown for newer than all that it was told. So where more of it may have been told meanwhile,
    /// the song is read again, until nothing came while it was read; and where `me` was left, it is followed by itself.
    fn show(&mut self, subscribe: Subscribe, song: SongId, read: Snapshot) -> Beginning {
        let shown = self.users.get(&subscribe.owner).is_some_and(|user| {
            let me = user.me_of(&subscribe.connection).filter(|_| !user.has_told_more(song, &read));
            me.is_some_and(|me| resume::via_me(&subscribe, me, read))
        });
        if shown { done(Ok(())) } else { self.subscribe(subscribe) }
    }

    fn away(&mut self, subscribe: &Subscribe, error: &StoreError) -> Begun {
        warn!(%error, "a subscription could not be read");
        let refusal = Refusal::Unavailable { after_ms: 1000 };
        self.refuse(subscribe, refusal, "the database is away; subscribe again")
    }

    fn refuse(&mut self, subscribe: &Subscribe, refusal: Refusal, message: &str) -> Begun {
        subscribe.connection.outbox().close_lane(subscribe.lane);
        subscribe.connection.say(&frames::err(subscribe.id, Some(&subscribe.name), refusal, message));
        self.leave(&subscribe.owner, subscribe.connection.id(), Some(subscribe.lane));
        Err(refusal)
    }
}
