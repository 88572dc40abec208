//! The database that this program works with: the configured one, or a private cluster of its own.
//!
//! Not here: how the private cluster is run (`ops::private_postgres`), how a server is reached (`store::server`).

use secrecy::ExposeSecret;

use super::StartError;
use crate::config::Config;
use crate::ops::private_postgres::{self, PrivatePostgres};
use crate::store::server::{AddressError, Server};

/// Why there is no database to work with.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("database.url: {0}")]
    Url(#[from] AddressError),
    #[error(transparent)]
    Private(#[from] private_postgres::StartError),
}

impl DatabaseError {
    /// What to do about it, in a line.
    pub fn advice(&self) -> &'static str {
        match self {
            DatabaseError::Url(_) => "check DATABASE_URL",
            DatabaseError::Private(error) => error.advice(),
        }
    }
}

impl From<DatabaseError> for StartError {
    fn from(error: DatabaseError) -> Self {
        StartError(error.to_string())
    }
}

/// A database to work with: the configured one, or a private cluster started for us.
pub struct Database {
    pub postgres: Server,
    pub private: Option<PrivatePostgres>,
}

impl Database {
    /// # Errors
    /// When the configured url does not read, or the private cluster cannot be started.
    pub async fn open(config: &Config, progress: impl Fn(&str)) -> Result<Self, DatabaseError> {
        if let Some(url) = &config.database.url {
            return Ok(Self { postgres: url.expose_secret().parse()?, private: None });
        }
        let private = PrivatePostgres::start(&config.database.data_dir, progress).await?;
        Ok(Self { postgres: private.config().into(), private: Some(private) })
    }

    /// For a look beside the running service: its private cluster, where it has one.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub async fn open_or_join(config: &Config, progress: impl Fn(&str)) -> Result<Self, DatabaseError> {
        let running = PrivatePostgres::of_running(&config.database.data_dir);
        match (Self::open(config, progress).await, running) {
            (Err(_), Some(running)) if config.database.url.is_none() => {
                Ok(Self { postgres: running.into(), private: None })
            }
            (opened, _) => opened,
        }
    }
}
