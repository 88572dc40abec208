//! Sends the callbacks of the tasks as their plans say, and tries again when they are not taken.
//!
//! Not here: what a callback says; that is the task's provider's (`suno/wire.rs`).

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::rt;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::chance::Chance;
use super::plan::{Event, Sending};
use super::seen::Seen;
use super::signing;
use super::stats::Stats;
use super::tasks::{KEPT, Task};
use super::world::World;

/// How long a receiver may take to answer (the manual's 15 s).
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const UNDER_WAY_MAX: usize = 256;
/// Between a callback and its double.
const DOUBLE_AFTER: Duration = Duration::from_millis(20);
/// When callbacks leave whose moment passed while the simulator was away, in milliseconds.
const LATE_MS: [u64; 2] = [500, 2_500];

pub(super) struct Courier {
    client: reqwest::Client,
    under_way: Semaphore,
}

impl Courier {
    /// # Errors
    /// When the system has no usable TLS set-up.
    pub(super) fn new() -> std::io::Result<Self> {
        // An error says that one is installed already, which is what is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(UNDER_WAY_MAX)
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { client, under_way: Semaphore::new(UNDER_WAY_MAX) })
    }

    /// How many callbacks an event was told in, if the receiver took them all. The bodies are written only when
    /// their turn has come, so that a slow receiver does not fill the memory with bodies.
    async fn tell(&self, world: &World, task: &Task, event: Event) -> Option<u64> {
        let _turn = self.under_way.acquire().await.ok()?;
        let mut taken = 0;
        for body in (task.voice.write)(task, event) {
            if !self.post(world, task, event, body).await {
                return None;
            }
            taken += 1;
        }
        Some(taken)
    }

    /// Whether the receiver took it.
    async fn post(&self, world: &World, task: &Task, event: Event, body: String) -> bool {
        let mut request =
            self.client.post(&*task.order.callback_url).header("content-type", "application/json");
        let behaviour = world.behaviour();
        if let Some(secret) = &behaviour.webhook_secret {
            let signed = signing::headers(secret, behaviour.dialect, &task.name(), &body, world.now());
            request = signed.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        }
        let request = request.body(body);
        world.tell(Seen::CallbackLeaves { intent: &task.intent, told: event.into() });
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                world.tell(Seen::CallbackTaken { intent: &task.intent, told: event.into() });
                true
            }
            Ok(answer) => {
                tracing::debug!(status = answer.status().as_u16(), "a callback was not taken");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "a callback did not arrive");
                false
            }
        }
    }
}

/// Lets a task's life take its course.
pub(super) fn begin(world: Arc<World>, task: &Arc<Task>) {
    let end = task.plan.ends_at().unwrap_or(KEPT);
    let life = live(world, Arc::downgrade(task), task.plan.sendings.clone(), Duration::ZERO, end);
    rt::spawn(life);
}

/// Goes on with a life that an earlier run began. What came due in between leaves soon, not all at once.
pub(super) fn go_on(world: Arc<World>, task: &Arc<Task>, told: &[Event]) {
    let elapsed = world.elapsed(task);
    let [soonest, latest] = LATE_MS;
    let wait = Duration::from_millis(Chance::of(task.id.as_bytes()).within(soonest, latest));
    let owed = task.plan.owed(told, elapsed, wait);
    let end = task.plan.ends_at().unwrap_or(KEPT);
    rt::spawn(live(world, Arc::downgrade(task), owed, elapsed, end));
}

/// Holds the task weakly: one that was forgotten has no more to tell.
async fn live(
    world: Arc<World>,
    task: Weak<Task>,
    sendings: Vec<Sending>,
    mut passed: Duration,
    end: Duration,
) {
    let open = Open::new(world.clone());
    for Sending { event, at, copies } in sendings {
        sleep(at.saturating_sub(passed)).await;
        passed = passed.max(at);
        if copies == 0 {
            Stats::add(&world.stats.callbacks_lost);
        }
        for copy in 0..copies {
            rt::spawn(deliver(world.clone(), task.clone(), event, DOUBLE_AFTER * u32::from(copy)));
        }
    }
    sleep(end.saturating_sub(passed)).await;
    drop(open);
}

/// Tries until it is taken or the waits are used up.
async fn deliver(world: Arc<World>, task: Weak<Task>, event: Event, wait: Duration) {
    let again = world.behaviour().callback_retry_ms.clone();
    let waits = again.into_iter().map(Duration::from_millis);
    for wait in std::iter::once(wait).chain(waits) {
        if !wait.is_zero() {
            sleep(wait).await;
        }
        let Some(task) = task.upgrade() else {
            return;
        };
        if let Some(taken) = world.courier.tell(&world, &task, event).await {
            world.memory.told(task.id, event, true);
            world.stats.callbacks_sent.fetch_add(taken, Relaxed);
            return;
        }
        Stats::add(&world.stats.callback_tries_failed);
    }
    if let Some(task) = task.upgrade() {
        task.callback_refused.fetch_or(event.is_last(), Relaxed);
        world.memory.told(task.id, event, false);
    }
    Stats::add(&world.stats.callbacks_failed);
}

/// Counts a task as open for as long as it is held.
struct Open(Arc<World>);

impl Open {
    fn new(world: Arc<World>) -> Self {
        world.stats.tasks_open.fetch_add(1, Relaxed);
        Self(world)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stats.tasks_open.fetch_sub(1, Relaxed);
    }
}
