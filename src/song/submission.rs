//! One call of a provider, from its durable intent to its durable answer, beside the song's actor: that goes on with what
//! happens meanwhile.
//!
//! Not here: whether it is made at all (`song::step`), when (`actor`), what an answer means (`song::step`).

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use actix::Addr;

use super::actor::{TellError, World};
use super::directory::{Directory, tell};
use super::event::Event;
use crate::id::{CallKey, SongId};
use crate::mutant::{Mutant, planted};
use crate::provider::failure::{Class, Failure};
use crate::provider::gate::{Call, Gate, Outcome};
use crate::provider::{Member, Order, Submitted};
use crate::time::Time;

/// A provider that takes longer to answer does not keep others from ordering.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);

/// A song's share of the room for songs that are being created (`http.creates_at_once`): given back once its provider
/// has taken it, so that no more are begun than can be brought to their providers.
pub(super) type Beginning = tokio::sync::OwnedSemaphorePermit;

/// One submission from before its intent is recorded until its answer is durable: a node that leaves waits for it, so
/// that no intent is left behind of which nobody knows what became (OPS-9).
pub(super) struct UnderWay(Arc<World>);

impl UnderWay {
    pub(super) fn begin(world: &Arc<World>) -> Self {
        world.calls.fetch_add(1, SeqCst);
        Self(world.clone())
    }

    /// `None` once the node leaves. Who leaves says so first and then counts: either it sees this one, or this sees it.
    pub(super) fn begin_unless_leaving(world: &Arc<World>) -> Option<Self> {
        Some(Self::begin(world)).filter(|_| !world.lease.is_draining())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, SeqCst);
    }
}

/// All that a call needs.
pub(super) struct Submission {
    pub(super) key: CallKey,
    pub(super) not_after: Time,
    pub(super) order: Order,
    /// Where the provider is to call back.
    pub(super) reply_to: String,
    pub(super) song: SongId,
    pub(super) directory: Addr<Directory>,
    pub(super) world: Arc<World>,
    pub(super) member: Member,
    pub(super) beginning: Option<Beginning>,
    pub(super) under_way: UnderWay,
}

impl Submission {
    /// Calls, unless it is too late for that, and tells the song what came of it.
    pub(super) async fn make(self) {
        let event = if in_time(&self.world, self.not_after) {
            let gate = &self.member.gate;
            let started = self.world.clock.monotonic();
            let begun = gate.begin(Call::Submit);
            let mut asking = self.member.provider.submit(&self.order, &self.reply_to);
            let answer = match tokio::time::timeout(BEGINS_WITHIN, &mut asking).await {
                Ok(answer) => answer,
                Err(_) => {
                    drop(self.beginning);
                    asking.await
                }
            };
            gate.report(begun, Outcome::of(&answer));
            tell_metrics(&self.world, started, &answer);
            outcome(self.key, answer, gate, self.world.rules.retry.rate_limited)
        } else {
            Event::NotSent { call: self.key }
        };
        insist(&self.directory, self.song, event).await;
        drop(self.under_way);
    }
}

/// Tells a song something that must not get lost: until it is durable, or known to matter no more.
async fn insist(directory: &Addr<Directory>, song: SongId, event: Event) {
    let mut wait = Duration::from_millis(100);
    loop {
        match tell(directory, song, None, event.clone(), None).await {
            Ok(_) | Err(TellError::NotFound | TellError::Elsewhere) => return,
            Err(error) => {
                // While the database is away the journal says so, once for all songs.
                tracing::debug!(song.id = %song, %error, "what the provider answered is not durable yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(4));
            }
        }
    }
}

/// The last look before money may be spent: the call starts in time and under our lease, or never.
fn in_time(world: &World, not_after: Time) -> bool {
    if planted(Mutant::NoLeaseCheck) {
        return true;
    }
    world.clock.now() < not_after && !world.lease.is_lost() && world.clock.monotonic() < world.lease.ends()
}

/// What the answer means to the song, and to whoever comes next: without a word of how long, a limit is kept away from for
/// `pause`.
fn outcome(call: CallKey, answer: Result<Submitted, Failure>, gate: &Gate, pause: Duration) -> Event {
    match answer {
        Ok(Submitted::Task(taken)) => {
            Event::Submitted { call, provider_task: taken.task, clip_ids: taken.clip_ids }
        }
        Ok(Submitted::Done(news)) => Event::Answered { call, news },
        Err(failure) => {
            if failure.class == Class::RateLimited {
                gate.pause(failure.retry_after.unwrap_or(pause));
            }
            if failure.operator || failure.class == Class::InsufficientProviderCredits {
                tracing::error!(?failure, "the provider account needs an operator");
            }
            Event::SubmitFailed { call, failure }
        }
    }
}

fn tell_metrics(world: &World, started: Instant, answer: &Result<Submitted, Failure>) {
    let took = world.clock.since(started).as_secs_f64();
    metrics::histogram!("songflight_submit_seconds").record(took);
    let outcome = match answer {
        Ok(_) => "accepted",
        Err(failure) => failure.class.as_str(),
    };
    metrics::counter!("songflight_submissions_total", "outcome" => outcome).increment(1);
}
