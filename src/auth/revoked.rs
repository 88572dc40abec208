//! Tokens that are refused although they have not expired, as far as this node knows (protocol.md 6).

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::AuthError;
use crate::id::UserId;
use crate::time::Time;

/// Few of all users are in it; nothing that is behind the lock can be left half done.
#[derive(Default)]
pub(super) struct Revoked {
    users: RwLock<HashMap<Box<str>, Entry>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    before: Time,
    banned: bool,
}

impl Revoked {
    /// Answers whether it was news.
    pub(super) fn note(&self, user: &UserId, before: Time, banned: bool) -> bool {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry { before, banned };
        users.insert(user.as_str().into(), entry) != Some(entry)
    }

    /// `issued` is in seconds since 1970, as tokens say it: of those from the same second as the revocation nobody
    /// knows which came first, nor of those that do not say it.
    pub(super) fn check(&self, user: &UserId, issued: Option<f64>) -> Result<(), AuthError> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        match users.get(user.as_str()) {
            None => Ok(()),
            Some(entry) if entry.banned => Err(AuthError::Banned),
            Some(entry) => {
                let later = issued.is_some_and(|issued| issued.floor() as i64 > entry.before.millis() / 1000);
                if later { Ok(()) } else { Err(AuthError::Revoked) }
            }
        }
    }
}
