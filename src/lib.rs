//! Songflight: the backend for apps that make songs with AI. Every in-flight song is an actor; every
//! change is durable before it is shown. `docs/ARCHITECTURE.md` has the picture and the code map.

pub mod api;
pub mod app;
pub mod asset;
pub mod auth;
pub mod callback;
pub mod chance;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod credit;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
#[doc(hidden)]
pub mod mutant;
pub mod ops;
pub mod provider;
pub mod realtime;
pub mod simulator;
pub mod song;
pub mod store;
pub mod time;
