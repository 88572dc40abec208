//! Mistakes that can be planted, one at a time, to see that the simulation finds them (`tests/sim`): the ones that
//! `durability.md` section 7 warns of.
//!
//! A switch at run time, so that one test binary runs with and without; of one thread, so that worlds beside each other
//! do not disturb one another; and compiled out of release builds, so that no shipped program can be switched. (`cfg(test)`
//! does not reach a library that an integration test links.)

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The provider is called before the intent is durable.
    CallBeforeRecord,
    /// What is told of a task that has ended is taken for news.
    NoTerminalCheck,
    /// A call is made whatever became of the lease and of the time since its intent.
    NoLeaseCheck,
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a mistake in what runs on this thread, or none. Does nothing in a release build.
pub fn plant(mutant: Option<Mutant>) {
    #[cfg(debug_assertions)]
    PLANTED.set(mutant);
    #[cfg(not(debug_assertions))]
    let _ = mutant;
}

/// Whether this mistake is planted: never, in a release build.
pub fn planted(mutant: Mutant) -> bool {
    #[cfg(debug_assertions)]
    return PLANTED.get() == Some(mutant);
    #[cfg(not(debug_assertions))]
    return {
        let _ = mutant;
        false
    };
}
