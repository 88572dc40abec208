//! What keeps the service running besides songs: the private database so far.

pub mod private_postgres;
