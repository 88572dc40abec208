//! The song: what it is, what happens to it, who keeps it.
//!
//! `parts`, `wish`, `phase` and `event` are the values; `step`, `due`, `refusal` and `view` are the pure
//! functions over them; `actor`, `directory`, `recovery` and `sweeper` are the shell.

pub mod actor;
mod clips;
pub mod directory;
pub mod due;
pub mod event;
pub mod parts;
pub mod phase;
pub mod places;
mod queueing;
pub mod recovery;
pub mod refusal;
pub mod step;
mod submission;
pub mod sweeper;
pub mod view;
pub mod wish;

#[cfg(test)]
mod tests;
