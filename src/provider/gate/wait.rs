//! One submission that waits for its turn. Only the first in the queue is ever woken, so that a hundred
//! thousand that wait cost nothing while they do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Sleep;

use super::queue::{Ask, Turn};
use super::{Inner, TaskSlot, Wait, wake};

/// Resolves to the place at the provider. Dropping it leaves the queue.
#[must_use = "it waits only while it is polled"]
pub struct SubmitWait {
    inner: Arc<Inner>,
    ask: Ask,
    turn: Option<Turn>,
    /// The first in the queue sleeps until it may go; the others are woken when they are first.
    timer: Option<Pin<Box<Sleep>>>,
}

impl SubmitWait {
    pub(super) fn new(inner: Arc<Inner>, ask: Ask) -> Self {
        Self { inner, ask, turn: None, timer: None }
    }

    /// How many there are up to and with this one: 1 is next. `None` before the first poll and after the last.
    /// In a long queue it may be a second old.
    pub fn position(&self) -> Option<usize> {
        let now = self.inner.clock.now();
        self.inner.lock().queue.position(self.turn?, now)
    }

    /// The slot, or how long to sleep before looking again: until woken if there is no time.
    fn look(&mut self, waker: &Waker) -> Result<TaskSlot, Option<Duration>> {
        let mut state = self.inner.lock();
        let turn = *self.turn.get_or_insert_with(|| state.queue.join(self.ask, waker.clone()));
        let wait = if state.queue.is_first(turn) {
            match self.inner.take(&mut state) {
                Ok(probe) => {
                    let own = state.queue.leave(turn);
                    let next = state.queue.first().cloned();
                    drop(state);
                    drop(own);
                    self.turn = None;
                    wake(next);
                    return Ok(TaskSlot { inner: self.inner.clone(), probe });
                }
                Err(Wait::For(time)) => Some(time),
                Err(Wait::Place) => None,
            }
        } else {
            None
        };
        // A future may be polled by another task than before.
        let stale = state
            .queue
            .waker(turn)
            .filter(|kept| !kept.will_wake(waker))
            .map(|kept| std::mem::replace(kept, waker.clone()));
        drop(state);
        drop(stale);
        Err(wait)
    }
}

impl Future for SubmitWait {
    type Output = TaskSlot;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TaskSlot> {
        loop {
            self.timer = match self.look(context.waker()) {
                Ok(slot) => return Poll::Ready(slot),
                Err(None) => None,
                Err(Some(time)) => Some(Box::pin(tokio::time::sleep(time))),
            };
            let elapsed = self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready());
            if !elapsed {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for SubmitWait {
    fn drop(&mut self) {
        let Some(turn) = self.turn else { return };
        let mut state = self.inner.lock();
        let was_first = state.queue.is_first(turn);
        let own = state.queue.leave(turn);
        let next = if was_first { state.queue.first().cloned() } else { None };
        drop(state);
        drop(own);
        wake(next);
    }
}
