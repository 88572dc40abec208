//! What keeps the service running besides songs: the private database, putting dead letters back to work, looking whether
//! all rules hold, forgetting old letters, keeping the loops in the background going.

pub mod auditor;
pub mod forgetting;
pub mod private_postgres;
pub mod replay;
pub mod revocations;
pub mod supervise;
