//! Asking the pool: a connection, a question, and an end to both. A database that hangs is away, as one that is gone.
//!
//! Not here: the connections that somebody keeps (`store::connect`): the journal's, the audit's.

use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};

use super::StoreError;
use super::server::Server;
use crate::time::Clock;

/// How long an answer to a question may take; a person waits for most of them.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How long one may wait for a connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// Questions that may wait for a connection.
const WAITING_MAX: usize = 1024;

/// The pool for reads.
///
/// # Errors
/// A text, when the pool's settings contradict each other.
pub fn pool(server: impl Into<Server>, size: usize) -> Result<Pool, String> {
    let Server { config, tls } = server.into().named("songflight reads");
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_config(config, tls, recycling))
        .max_size(size)
        .wait_timeout(Some(CONNECTED_WITHIN))
        .create_timeout(Some(CONNECTED_WITHIN))
        .recycle_timeout(Some(CONNECTED_WITHIN))
        .runtime(Runtime::Tokio1)
        // A reader that was given up must not keep its connection busy.
        .post_create(Hook::async_fn(|client, _| {
            Box::pin(async move {
                let limit = format!("set statement_timeout = {}", ASK_WITHIN.as_millis());
                client.batch_execute(&limit).await.map_err(HookError::Backend)
            })
        }))
        .build()
        .map_err(|error| error.to_string())
}

/// Asks the pool something that a person waits for.
///
/// # Errors
/// [`StoreError::Unavailable`] without a connection, or without an answer in time; and the question's own.
pub async fn ask<T>(
    pool: &Pool,
    question: impl AsyncFnOnce(&Object) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    ask_within(pool, ASK_WITHIN, async |client| question(client).await).await
}

/// The same for as long as is said here. Postgres itself ends a statement after 5 s unless the question says otherwise.
///
/// # Errors
/// As [`ask`].
pub async fn ask_within<T>(
    pool: &Pool,
    within: Duration,
    question: impl AsyncFnOnce(&mut Object) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    // Whoever comes when so many wait already is told at once: their answer would come too late, and each who waits
    // holds on to a whole request.
    if pool.status().waiting > WAITING_MAX {
        return Err(StoreError::Unavailable("too many questions wait already".to_owned()));
    }
    let asked = async {
        let mut loan = Loan::of(pool, within.min(ASK_WITHIN) / 2).await?;
        let answer = question(loan.client()).await;
        loan.answered = true;
        answer
    };
    tokio::time::timeout(within, asked)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())))
}

/// A connection of the pool for one question. A question that nobody waits for any more is dropped, and the pool would
/// take its connection back: of a host that vanished it would do so with all, and lend them out again until the kernel
/// gives up.
struct Loan<'a> {
    pool: &'a Pool,
    client: Option<Object>,
    since: Instant,
    /// A connection that kept silent so long is not lent again. Who gave up sooner says nothing of it.
    patience: Duration,
    answered: bool,
}

impl<'a> Loan<'a> {
    async fn of(pool: &'a Pool, patience: Duration) -> Result<Self, StoreError> {
        let client = Some(pool.get().await?);
        Ok(Self { pool, client, since: Clock.monotonic(), patience, answered: false })
    }

    fn client(&mut self) -> &mut Object {
        self.client.as_mut().expect("it is lent for as long as there is a loan")
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let silent_for = Clock.since(self.since);
        let Some(client) = self.client.take().filter(|_| !self.answered && silent_for >= self.patience)
        else {
            return;
        };
        drop(Object::take(client));
        // Those that idle have not been heard of for longer still.
        let _ = self.pool.retain(|_, metrics| metrics.last_used() < silent_for);
        tracing::warn!(
            silent_for_ms = silent_for.as_millis(),
            "a connection that does not answer was given up"
        );
    }
}
