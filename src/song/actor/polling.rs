//! Asking providers how calls are doing, as far as their limits allow (PROV-6).
//!
//! Not here: when (`due`), what an answer means (`step`).

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message};

use super::{Happened, LINGER, SongActor};
use crate::id::CallKey;
use crate::provider::Member;
use crate::provider::failure::{Class, Failure};
use crate::provider::gate::{Call, Outcome};
use crate::song::due::{self, Due};
use crate::song::event::Event;
use crate::song::parts::News;
use crate::song::phase::{CallState, Run};
use crate::time::Time;

/// Longer than any question lasts.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

impl SongActor {
    /// Each call by its own timetable: what is asked of one says nothing of another.
    pub(super) fn all_due(&self) -> Vec<(Time, Due)> {
        let polled = |call| self.polled_at(call).unwrap_or(self.asked_until);
        due::all(&self.song, polled, &self.world.rules)
    }

    fn polled_at(&self, call: CallKey) -> Option<Time> {
        self.polled.iter().find(|(asked, _)| *asked == call).map(|(_, at)| *at)
    }

    /// It is being asked about, or was answered for, now.
    fn note_polled(&mut self, call: CallKey) {
        let song = &self.song;
        // What is not under way any more need not be remembered.
        let at_work = |one: CallKey| provider_task(song.run_of(one.task), one).is_some();
        self.polled.retain(|(asked, _)| *asked != call && at_work(*asked));
        self.polled.push((call, self.world.clock.now()));
    }

    pub(super) fn held_until(&self, call: CallKey) -> Option<Time> {
        self.held_back.iter().find(|(held, _)| *held == call).map(|(_, until)| *until)
    }

    pub(super) fn poll(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        let now = self.world.clock.now();
        let Some(member) = self.member(call) else { return self.hold_back(call, now + LINGER, ctx) };
        let due = self.all_due().iter().find(|(_, what)| *what == Due::Poll(call)).map_or(now, |(at, _)| *at);
        match member.gate.try_poll_slot(now.since(due)) {
            Ok(()) => self.ask(call, ctx),
            Err(wait) => self.hold_back(call, now + wait.max(Duration::from_millis(50)), ctx),
        }
    }

    pub(super) fn hold_back(&mut self, call: CallKey, until: Time, ctx: &mut Context<Self>) {
        self.held_back.retain(|(held, _)| *held != call);
        self.held_back.push((call, until));
        self.arm(ctx);
    }

    /// A call that is to be given up, and has not been asked about for the provider's limits: once it is, whatever they
    /// are. What is finished there must not be lost for them (PROV-7).
    pub(super) fn last_chance(&self) -> Option<CallKey> {
        let now = self.world.clock.now();
        // Whom nobody can ask is given up.
        let may = |call: &CallKey| self.member(*call).is_some() && self.is_over(*call, now);
        self.held_back.iter().map(|(call, _)| *call).find(may)
    }

    /// Whether a call that is to be given up is being asked about. However long over: what finished while nobody listened
    /// is asked for once (OPS-3).
    pub(super) fn last_answer_comes(&self) -> bool {
        let now = self.world.clock.now();
        let lately = |at: Time| now.since(at) < ANSWER_WITHIN;
        self.busy.iter().any(|due| match due {
            Due::Poll(call) => self.is_over(*call, now) && self.polled_at(*call).is_some_and(lately),
            Due::Submit(_) | Due::Wake => false,
        })
    }

    fn is_over(&self, call: CallKey, at: Time) -> bool {
        due::is_over(&self.song, call, at, &self.world.rules)
    }

    pub(super) fn ask(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        self.held_back.retain(|(held, _)| *held != call);
        let Some(task) = provider_task(self.song.run_of(call.task), call) else { return self.arm(ctx) };
        let Some(member) = self.member(call).cloned() else { return self.arm(ctx) };
        self.busy.push(Due::Poll(call));
        self.note_polled(call);
        let order = self.song.order(call);
        let (provider, gate, me) = (member.provider, member.gate, ctx.address());
        actix::spawn(async move {
            let begun = gate.begin(Call::Poll);
            let answer = provider.poll(&order, &task).await;
            gate.report(begun, Outcome::of(&answer));
            me.do_send(Polled { call, answer });
        });
        // Nothing else that is due waits for the answer.
        self.arm(ctx);
    }
}

/// What a poll brought.
#[derive(Message)]
#[rtype(result = "()")]
struct Polled {
    call: CallKey,
    answer: Result<News, Failure>,
}

impl Handler<Polled> for SongActor {
    type Result = AtomicResponse<Self, ()>;

    /// What was heard is taken in before the next message: by a message of its own, the end of patience could come first.
    fn handle(&mut self, Polled { call, answer }: Polled, ctx: &mut Context<Self>) -> Self::Result {
        self.busy.retain(|due| *due != Due::Poll(call));
        self.note_polled(call);
        match answer {
            Ok(news) => {
                let news = with_fallback_urls(news, self.member(call));
                let event = Event::News { call, provider_task: None, news };
                let heard = self.happen(Happened { event, by: None, inbox: None });
                AtomicResponse::new(Box::pin(heard.map(|_, _, _| ())))
            }
            // The question failed; that says nothing of the task.
            Err(failure) => {
                metrics::counter!("songflight_polls_failed_total", "class" => failure.class.as_str())
                    .increment(1);
                if failure.class == Class::RateLimited
                    && let Some(member) = self.member(call)
                {
                    member
                        .gate
                        .pause_polls(failure.retry_after.unwrap_or(self.world.rules.retry.rate_limited));
                }
                tracing::debug!(song.id = %self.song.id, ?failure, "a poll failed");
                self.arm(ctx);
                AtomicResponse::new(Box::pin(actix::fut::ready(())))
            }
        }
    }
}

/// A url for each clip that may be tried at the deadline (PROV-7).
pub fn with_fallback_urls(mut news: News, member: Option<&Member>) -> News {
    if let (News::Clips(_, clips), Some(member)) = (&mut news, member) {
        for clip in clips {
            clip.fallback_url = clip.clip_id.as_ref().and_then(|id| member.provider.audio_from_clip_id(id));
        }
    }
    news
}

fn provider_task(run: Option<&Run>, key: CallKey) -> Option<String> {
    match &run?.calls.get(usize::from(key.call))?.state {
        CallState::Submitted { provider_task, .. } => Some(provider_task.clone()),
        CallState::Accepted { .. }
        | CallState::Intent { .. }
        | CallState::Unknown { .. }
        | CallState::Done
        | CallState::Failed { .. } => None,
    }
}
