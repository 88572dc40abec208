//! Who is asking (SEC-1): reads and issues JSON web tokens, keeps the key of our own.
//!
//! Not here: what somebody may do, profiles, and where in a request the token stands beyond its
//! header. `jwks` fetches public keys of others, `callback` makes callback urls unguessable.

mod callback;
mod jwks;
mod revoked;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::config;
use crate::id::UserId;
use crate::time::Time;
pub use callback::CallbackKeys;
use jwks::Jwks;
#[cfg(fuzzing)]
pub(crate) use jwks::usable as usable_keys;
use revoked::Revoked;

/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest `plan` that is passed on.
const PLAN_BYTES_MAX: usize = 32;
/// The development key's file, beside the private cluster.
const KEY_FILE: &str = "jwt.key";
/// As many random bytes as HS256's hash has (RFC 7518 section 3.2).
const KEY_BYTES: usize = 32;

/// What a token says about its bearer, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    /// The plan by its name, if the token names one; else the profile's counts.
    pub plan: Option<String>,
    pub role: Role,
    pub expires: Time,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A user, for their own things.
    #[default]
    Authenticated,
    /// An operator or another service of ours.
    Service,
}

/// Why a token is not accepted. A client is told what it can do about it: fetch a new one (`Expired`), sign in again
/// (`Revoked`), nothing (`Banned`), try again later (`KeysUnavailable`). What else is wrong is for logs and figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("no token")]
    Missing,
    #[error("not a token of ours")]
    Malformed,
    #[error("bad signature")]
    BadSignature,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYet,
    #[error("for another audience")]
    WrongAudience,
    #[error("of another issuer")]
    WrongIssuer,
    /// Issued before its user was signed out everywhere.
    #[error("revoked")]
    Revoked,
    #[error("its user is banned")]
    Banned,
    /// The signer's keys could not be fetched: ours to repair, the client may try again (503).
    #[error("the signer's keys are not to be had")]
    KeysUnavailable,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970; RFC 7519 allows fractions.
    exp: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[serde(default)]
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
}

/// Reads tokens, and issues our own. Keys are bound to algorithms: ours to HS256, fetched ones to
/// RS256 and ES256, so that no token can have a public key taken for a shared secret.
pub struct Auth {
    own_reading: DecodingKey,
    own_writing: EncodingKey,
    jwks: Option<Jwks>,
    audience: Option<String>,
    issuer: Option<String>,
    revoked: Revoked,
}

impl Auth {
    /// `own_key` comes from [`own_key`]; `http` fetches `auth.jwks_url`.
    pub fn new(config: &config::Auth, own_key: &SecretString, http: reqwest::Client) -> Self {
        let secret = own_key.expose_secret().as_bytes();
        Self {
            own_reading: DecodingKey::from_secret(secret),
            own_writing: EncodingKey::from_secret(secret),
            jwks: config.jwks_url.clone().map(|url| Jwks::new(url, http)),
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            revoked: Revoked::default(),
        }
    }

    /// Refuses the user's tokens that were issued up to a moment, or all; answers whether that is new.
    pub fn revoke(&self, user: &UserId, before: Time, banned: bool) -> bool {
        self.revoked.note(user, before, banned)
    }

    /// Checks a token, without leeway: whoever issues tokens keeps their clock.
    ///
    /// # Errors
    /// Answer 401, but 403 to [`AuthError::Banned`] and 503 to [`AuthError::KeysUnavailable`].
    pub async fn verify(&self, token: &str, now: Time) -> Result<Identity, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        // An extension that must be understood is not (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        match (header.alg, &self.jwks) {
            (Algorithm::HS256, _) => self.read(token, &self.own_reading, header.alg, now),
            (Algorithm::RS256 | Algorithm::ES256, Some(jwks)) => {
                let key = jwks.key(header.kid.as_deref(), header.alg).await?;
                self.read(token, &key, header.alg, now)
            }
            _ => Err(AuthError::BadSignature),
        }
    }

    /// A token of our own, for development, guests and operators.
    pub fn issue(&self, user: &UserId, plan: Option<&str>, role: Role, ttl: Duration, now: Time) -> String {
        let claims = Claims {
            sub: user.as_str().to_owned(),
            exp: ((now + ttl).millis() / 1000) as f64,
            iat: Some((now.millis() / 1000) as f64),
            nbf: None,
            plan: plan.map(str::to_owned),
            role,
            aud: self.audience.clone().map(serde_json::Value::from),
            iss: self.issuer.clone(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.own_writing)
            .expect("HS256 signs any text with any key")
    }

    fn read(&self, token: &str, key: &DecodingKey, alg: Algorithm, now: Time) -> Result<Identity, AuthError> {
        let read = jsonwebtoken::decode::<Claims>(token, key, &self.rules(alg));
        let claims = read.map_err(|error| reason(error.kind()))?.claims;
        let millis = |seconds: f64| Time::from_millis((seconds * 1000.0) as i64);
        let expires = millis(claims.exp);
        if now >= expires {
            return Err(AuthError::Expired);
        }
        if claims.nbf.is_some_and(|from| now < millis(from)) {
            return Err(AuthError::NotYet);
        }
        let user = UserId::parse(&claims.sub).ok_or(AuthError::Malformed)?;
        self.revoked.check(&user, claims.iat)?;
        if claims.plan.as_ref().is_some_and(|plan| plan.len() > PLAN_BYTES_MAX) {
            return Err(AuthError::Malformed);
        }
        Ok(Identity { user, plan: claims.plan, role: claims.role, expires })
    }

    /// Times are checked here and not by the library, which asks a clock of its own.
    fn rules(&self, alg: Algorithm) -> Validation {
        let mut rules = Validation::new(alg);
        rules.validate_exp = false;
        rules.validate_aud = self.audience.is_some();
        let mut required = vec!["exp", "sub"];
        if let Some(audience) = &self.audience {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        rules.set_required_spec_claims(&required);
        rules
    }
}

fn reason(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => AuthError::BadSignature,
        ErrorKind::InvalidAudience => AuthError::WrongAudience,
        ErrorKind::InvalidIssuer => AuthError::WrongIssuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => AuthError::WrongAudience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => AuthError::WrongIssuer,
        _ => AuthError::Malformed,
    }
}

/// The token of an `Authorization` header; the scheme's case does not matter (RFC 9110 section 11.1).
///
/// # Errors
/// [`AuthError::Missing`] without a header, [`AuthError::Malformed`] with another scheme.
pub fn bearer(header: Option<&str>) -> Result<&str, AuthError> {
    let (scheme, token) = header.ok_or(AuthError::Missing)?.split_once(' ').ok_or(AuthError::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(AuthError::Malformed) }
}

/// The key of our own tokens and callback urls: `auth.jwt_secret`, or the one kept in `dir`.
///
/// # Errors
/// When the key in `dir` can be neither read nor made.
pub fn own_key(config: &config::Auth, dir: &Path) -> io::Result<SecretString> {
    match &config.jwt_secret {
        Some(secret) => Ok(secret.clone()),
        None => development_key(dir),
    }
}

/// The key kept in `dir`, made once. Two processes that make it at the same time get the same one.
///
/// # Errors
/// What the file system says; also when the file holds no key.
pub fn development_key(dir: &Path) -> io::Result<SecretString> {
    let path = dir.join(KEY_FILE);
    if !path.exists() {
        std::fs::create_dir_all(dir)?;
        make_key(dir, &path)?;
    }
    let key = std::fs::read_to_string(&path)?.trim().to_owned();
    if key.len() < KEY_BYTES {
        let what = format!("{} holds no key; remove it to have a new one made", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(key.into())
}

/// Written whole under another name, then linked: a link is made once, whoever comes second keeps it.
fn make_key(dir: &Path, path: &Path) -> io::Result<()> {
    let making = dir.join(format!("{KEY_FILE}.{}", URL_SAFE_NO_PAD.encode(random::<6>()?)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&making)?;
    writeln!(file, "{}", URL_SAFE_NO_PAD.encode(random::<KEY_BYTES>()?))?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&making, path);
    std::fs::remove_file(&making)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn random<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
