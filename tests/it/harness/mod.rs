//! What the tests stand on: the real program in a folder and a database of its own, people who use it,
//! providers it talks to, and a look at what it wrote.
//!
//! Every wait is bounded and says what it waited for.

pub mod audit;
pub mod cable;
pub mod caller;
pub mod person;
pub mod program;
pub mod provider;
pub mod purse;
pub mod server;
pub mod socket;

use std::future::Future;
use std::time::Duration;

pub use audit::audit;
pub use cable::Cable;
pub use caller::Caller;
pub use person::Person;
pub use provider::Provider;
pub use purse::Purse;
pub use server::{Server, Setup, shared, simulator};
pub use socket::Socket;

/// Longer than anything here takes, so that only a fault is waited out.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// # Panics
/// When it takes longer than anything here does.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited {} s in vain for {what}", PATIENCE.as_secs()))
}

/// Asks again until the answer is as wanted; for what nobody announces.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let mut last = String::from("nothing yet");
    let asking = async {
        loop {
            match ask().await {
                Ok(found) => return found,
                Err(seen) => last = seen,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(found) => found,
        Err(_) => {
            panic!("waited {} s in vain for {what}; the last that was seen: {last}", PATIENCE.as_secs())
        }
    }
}
