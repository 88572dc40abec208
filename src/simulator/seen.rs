//! What somebody beside the simulator may see of it while it runs: its own side of the story, against which a
//! test or a measurement holds what the service tells.

use std::sync::Arc;

use super::plan::Event;

/// Called from the simulator's threads, in the order of what happens to one task.
pub type Observer = Arc<dyn Fn(Seen<'_>) + Send + Sync>;

/// Something that happened. `intent` is the `Idempotency-Key` of the submission, or the path of its
/// callback url where it had none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A submission was taken, and is being paid for. Whether the client hears of it is another matter.
    Accepted { intent: &'a str },
    /// A callback is about to be written to its receiver; again for each try and each double.
    CallbackLeaves { intent: &'a str, told: Told },
    /// The receiver answered a callback with 2xx.
    CallbackTaken { intent: &'a str, told: Told },
}

/// What a callback tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    Text,
    First,
    Complete,
    Failed,
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        match event {
            Event::Text => Self::Text,
            Event::First => Self::First,
            Event::Complete => Self::Complete,
            Event::Failed(_) => Self::Failed,
        }
    }
}
