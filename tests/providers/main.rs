//! Conformance of the provider adapters: recorded answers are understood as their index says, orders
//! are written as the recorded requests, whatever else comes does no harm, and every way a connection can break is
//! classified.
//!
//! A new adapter adds a module here and a line to `conformance`'s subjects.

#![allow(clippy::print_stdout, reason = "the table of passed fixtures is for people")]

mod conformance;
mod fixtures;
mod harm;
mod minimax;
mod mureka;
mod musicgpt;
mod musicgpt_simulated;
mod mutations;
mod odd;
mod simulated;
mod suno;
mod transport;
mod wire;
