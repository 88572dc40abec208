//! The song: what it is, what happens to it, who keeps it.
//!
//! `parts`, `wish`, `phase` and `event` are the values; `step`, `due`, `refusal` and `view` are the pure
//! functions over them; `actor` and `directory` are the shell.

mod chance;
mod clips;
pub mod due;
pub mod event;
pub mod parts;
pub mod phase;
pub mod refusal;
pub mod step;
pub mod view;
pub mod wish;

#[cfg(test)]
mod tests;
