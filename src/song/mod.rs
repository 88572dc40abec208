//! The song: what it is, what happens to it, who keeps it.

pub mod parts;
