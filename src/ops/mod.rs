//! What keeps the service running besides songs: the private database, and the rules the database is held against.

pub mod audit;
pub mod private_postgres;
