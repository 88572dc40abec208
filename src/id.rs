//! Identifiers. Each is its own type, so that a task's id cannot be handed where a song's is wanted.
//!
//! Not here: how ids are made in Postgres, or what they name. UUIDs are version 7 (RFC 9562): they
//! sort by the time of their making, which keeps the indexes compact.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// A song, for its whole life.
    SongId
);
uuid_id!(
    /// One paid go at a phase of a song: automatic attempts stay in it, a manual retry makes a new one.
    TaskId
);
uuid_id!(
    /// Lets whoever holds it watch one variant of a song (RT-6).
    ShareToken
);

/// The longest user id a token may carry, in characters (`api.md`, Identity).
pub const USER_ID_CHARS_MAX: usize = 128;

/// A user, named by the `sub` of the token: any text of 1 to [`USER_ID_CHARS_MAX`] characters.
/// Shared, because every song and session of a user carries it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(Arc<str>);

impl UserId {
    /// # Errors
    /// `None` when the text is empty, longer than [`USER_ID_CHARS_MAX`], or holds control characters.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=USER_ID_CHARS_MAX).contains(&text.chars().count());
        (fits && !text.chars().any(char::is_control)).then(|| Self(text.into()))
    }

    /// Takes a text that was checked when it was stored.
    pub fn trusted(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A number that stands for the user, the same on every node and in every version (FNV-1a).
    pub fn number(&self) -> u64 {
        let hash = self.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash ^ (hash >> 32)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One call to a provider: the `call`th of a task (two lyrics texts may need two), in its
/// `attempt`th try, both from 0. Written `<task>.<call>.<attempt>`: as the `Idempotency-Key` of the
/// submission and as what the token of a callback url vouches for (CB-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallKey {
    pub task: TaskId,
    pub call: u8,
    pub attempt: u16,
}

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.task, self.call, self.attempt)
    }
}

impl FromStr for CallKey {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let (Some(task), Some(call), Some(attempt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        Ok(Self {
            task: task.parse().map_err(drop)?,
            call: call.parse().map_err(drop)?,
            attempt: attempt.parse().map_err(drop)?,
        })
    }
}

/// A fresh UUIDv7. The one place that makes ids, so that the core cannot (`clippy.toml`).
#[allow(clippy::disallowed_methods, reason = "here is where ids are drawn")]
pub fn fresh() -> Uuid {
    Uuid::now_v7()
}

/// A fresh UUIDv4: 122 random bits, for what must not be guessed.
#[allow(clippy::disallowed_methods, reason = "here is where ids are drawn")]
pub fn secret() -> Uuid {
    Uuid::new_v4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_key_reads_back_what_it_wrote() {
        let key = CallKey { task: TaskId(fresh()), call: 1, attempt: 7 };
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("x.1.2".parse::<CallKey>(), Err(()));
        assert_eq!(format!("{key}.1").parse::<CallKey>(), Err(()));
    }

    #[test]
    fn a_user_id_is_text_of_1_to_128_characters() {
        assert!(UserId::parse("").is_none());
        assert!(UserId::parse(&"ä".repeat(128)).is_some());
        assert!(UserId::parse(&"ä".repeat(129)).is_none());
        assert!(UserId::parse("a\nb").is_none());
    }
}
