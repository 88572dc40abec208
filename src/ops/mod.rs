//! What keeps the service running besides songs: the private database, putting dead letters back to work, looking whether
//! all rules hold, keeping the loops in the background going.

pub mod auditor;
pub mod private_postgres;
pub mod replay;
pub mod revocations;
pub mod supervise;
