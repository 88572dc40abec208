//! The whole program from outside: the real binary, a real Postgres, real HTTP and WebSocket clients. A
//! module for each subject; what they stand on is `harness`.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers as well")]
#![allow(unreachable_pub, reason = "nothing here is reached from outside")]

mod accounts;
mod adoption;
mod callbacks;
mod commands;
mod create;
mod doors;
mod further;
mod guests;
mod harness;
mod library;
mod life;
mod limits;
mod limits_of_providers;
mod operators;
mod orders;
mod other_providers;
mod outage;
mod overload;
mod owner;
mod race;
mod replays;
mod restart;
mod rows;
mod unreadable;
