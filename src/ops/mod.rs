//! What keeps the service running besides songs: the private database, putting dead letters back to work.

pub mod private_postgres;
pub mod replay;
