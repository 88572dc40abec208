//! The public keys of whoever signs our users' tokens (RFC 7517), fetched and kept for a while.
//! Only keys for RS256 and ES256 are kept: a shared secret in such a set is ignored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::AuthError;
use crate::time::Clock;

/// How long keys are used before they are fetched again.
const FRESH: Duration = Duration::from_secs(600);
/// The least time between two fetches, however many unknown keys are named.
const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// One fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A set of keys is a few kilobytes.
const SET_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Jwks {
    source: Arc<Source>,
    /// Held during a fetch, so that there is one at a time; when the last one began.
    last_fetch: Arc<Mutex<Option<Instant>>>,
}

struct Source {
    url: String,
    http: reqwest::Client,
    known: RwLock<Arc<Known>>,
    /// The last fetch brought nothing: what is not known may be there all the same.
    away: AtomicBool,
}

#[derive(Default)]
struct Known {
    keys: Vec<PublicKey>,
    fetched: Option<Instant>,
}

struct PublicKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    /// Read one by one: a kind of key that is not known here must not hide the others.
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    pub(super) fn new(url: String, http: reqwest::Client) -> Self {
        let source = Arc::new(Source { url, http, known: RwLock::default(), away: AtomicBool::new(true) });
        Self { source, last_fetch: Arc::default() }
    }

    /// The key a token names. While keys cannot be fetched, those already known go on being used.
    pub(super) async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, AuthError> {
        let known = self.source.known();
        let fresh = known.fetched.is_some_and(|at| !has_passed(at, FRESH));
        let found = known.find(id, algorithm);
        match (found, fresh) {
            (Some(key), true) => Ok(key),
            (Some(key), false) => {
                // One caller fetches, the others need not wait for it.
                if let Ok(last) = Arc::clone(&self.last_fetch).try_lock_owned() {
                    self.fetch(last).await;
                    return self.source.known().find(id, algorithm).ok_or(AuthError::BadSignature);
                }
                Ok(key)
            }
            (None, _) => {
                self.fetch(Arc::clone(&self.last_fetch).lock_owned().await).await;
                let known = self.source.known();
                let missing = if self.source.away.load(Ordering::Acquire) {
                    AuthError::KeysUnavailable
                } else {
                    AuthError::BadSignature
                };
                known.find(id, algorithm).ok_or(missing)
            }
        }
    }

    /// A task of its own, which takes the lock with it: a caller may hang up at any moment, and the others wait for the
    /// same keys.
    async fn fetch(&self, mut last: OwnedMutexGuard<Option<Instant>>) {
        if last.is_some_and(|at| !has_passed(at, FETCH_PAUSE)) {
            return;
        }
        let (source, now) = (Arc::clone(&self.source), Clock.monotonic());
        *last = Some(now);
        let fetching = tokio::spawn(async move {
            source.fetch(now).await;
            drop(last);
        });
        if let Err(error) = fetching.await {
            tracing::error!(%error, "fetching the signer's keys broke off");
        }
    }
}

/// By the clock that the moment is of: a simulation holds it still.
fn has_passed(since: Instant, duration: Duration) -> bool {
    Clock.since(since) >= duration
}

impl Source {
    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().expect("nothing panics while it holds this lock"))
    }

    async fn fetch(&self, now: Instant) {
        let downloaded = self.download().await;
        self.away.store(downloaded.is_err(), Ordering::Release);
        match downloaded {
            Ok(keys) => {
                let known = Arc::new(Known { keys, fetched: Some(now) });
                *self.known.write().expect("nothing panics while it holds this lock") = known;
            }
            Err(error) => tracing::warn!(error, url = self.url, "The signer's keys could not be fetched"),
        }
    }

    async fn download(&self) -> Result<Vec<PublicKey>, String> {
        let answer = self.http.get(&self.url).timeout(FETCH_TIMEOUT).send().await;
        let mut answer =
            answer.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?;
        // What it says of its length is not to be relied on, if it says any.
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| error.to_string())? {
            if body.len() + piece.len() > SET_BYTES_MAX {
                return Err("the answer is too large".into());
            }
            body.extend_from_slice(&piece);
        }
        public_keys(&body)
    }
}

impl Known {
    /// A token that names no key means the only one of its algorithm.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).map(|key| key.key.clone()),
            None => match (fitting.next(), fitting.next()) {
                (Some(only), None) => Some(only.key.clone()),
                _ => None,
            },
        }
    }
}

/// Those of a set that can be used.
fn public_keys(set: &[u8]) -> Result<Vec<PublicKey>, String> {
    let set: Set = serde_json::from_slice(set).map_err(|error| error.to_string())?;
    Ok(set.keys.into_iter().filter_map(public_key).collect())
}

/// How many keys of a set can be used.
#[cfg(fuzzing)]
pub(crate) fn usable(set: &[u8]) -> Option<usize> {
    public_keys(set).ok().map(|keys| keys.len())
}

fn public_key(value: serde_json::Value) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let fits = jwk.common.key_algorithm.is_none_or(|algorithm| algorithm == named);
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (signs && fits).then_some(PublicKey { id: jwk.common.key_id, algorithm, key })
}
