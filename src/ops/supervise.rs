//! Loops in the background that the program relies on, kept going.
//!
//! Not here: what they do; the journal's writers, which answer whoever waits first (`store::journal`).

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

/// Between a panic and the next beginning.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs a loop on this thread until it ends by itself. A panic is a fault of ours and ends one round of it, not the net
/// that it is: it begins anew.
pub fn keep<F: Future<Output = ()> + 'static>(what: &'static str, begin: impl Fn() -> F + 'static) {
    actix::spawn(async move {
        while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
            tracing::error!("{what} stumbled and begins anew; please report this");
            tokio::time::sleep(PAUSE).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::sync::oneshot;

    use super::*;

    #[actix_web::test]
    async fn a_loop_that_panics_begins_anew_and_one_that_ends_does_not() {
        tokio::time::pause();
        let (told, heard) = oneshot::channel();
        let (times, told) = (Rc::new(Cell::new(0)), Cell::new(Some(told)));
        let begun = times.clone();
        keep("a test", move || {
            begun.set(begun.get() + 1);
            let told = if begun.get() == 3 { told.take() } else { None };
            async move { told.expect("the third time goes well").send(()).expect("somebody listens") }
        });
        heard.await.expect("it went well once");
        tokio::time::sleep(10 * PAUSE).await;
        assert_eq!(times.get(), 3);
    }
}
