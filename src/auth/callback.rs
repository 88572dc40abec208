//! Tokens in callback urls (CB-1): they vouch that we gave out the url for this very call, to this provider: else a
//! provider that signs could be passed by, by calling what it was given as one that does not. A keyed hash, so that a callback for a task nobody knows can be checked too, without asking a database.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::id::CallKey;

/// Keeps this use of the key apart from the signatures of tokens; a new scheme gets a new text.
const DOMAIN: &[u8] = b"songflight callback v2\0";
/// 144 bits: nobody guesses them, and they are 24 characters without padding.
const TOKEN_BYTES: usize = 18;

/// Makes and checks the tokens of callback urls.
pub struct CallbackKeys {
    current: Hmac<Sha256>,
    previous: Vec<Hmac<Sha256>>,
}

impl CallbackKeys {
    /// `previous` are keys that url's still under way may have been made with.
    pub fn new(current: &SecretString, previous: &[SecretString]) -> Self {
        Self { current: keyed(current), previous: previous.iter().map(keyed).collect() }
    }

    /// 24 characters, safe in urls.
    pub fn token(&self, provider: &str, key: &CallKey) -> String {
        URL_SAFE_NO_PAD.encode(digest(&self.current, provider, key))
    }

    /// Whether we made `token` for this provider and `key`, in a time that does not depend on how much of it is right.
    pub fn vouches(&self, provider: &str, key: &CallKey, token: &str) -> bool {
        let Ok(token) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let mut right = Choice::from(0);
        for hmac in std::iter::once(&self.current).chain(&self.previous) {
            right |= digest(hmac, provider, key).as_slice().ct_eq(&token);
        }
        right.into()
    }
}

fn keyed(secret: &SecretString) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes keys of any length")
}

fn digest(keyed: &Hmac<Sha256>, provider: &str, key: &CallKey) -> [u8; TOKEN_BYTES] {
    let mut hmac = keyed.clone();
    hmac.update(DOMAIN);
    hmac.update(provider.as_bytes());
    hmac.update(b"\0");
    hmac.update(key.to_string().as_bytes());
    let whole = hmac.finalize().into_bytes();
    std::array::from_fn(|index| whole[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{TaskId, fresh};

    #[test]
    fn a_token_vouches_for_its_own_call_only() {
        let keys = CallbackKeys::new(&"current".into(), &[]);
        let key = CallKey { task: TaskId(fresh()), call: 0, attempt: 1 };
        let token = keys.token("suno", &key);
        assert_eq!(token.len(), 24);
        assert!(keys.vouches("suno", &key, &token));
        assert!(!keys.vouches("musicgpt", &key, &token));
        for other in [
            CallKey { attempt: 2, ..key },
            CallKey { call: 1, ..key },
            CallKey { task: TaskId(fresh()), ..key },
        ] {
            assert!(!keys.vouches("suno", &other, &token), "{other}");
        }
        for wrong in ["", "x", &token[..22], &format!("{token}AAAA"), &token.to_lowercase(), "ä"] {
            assert!(!keys.vouches("suno", &key, wrong), "{wrong}");
        }
    }

    #[test]
    fn a_token_of_an_earlier_key_still_vouches_and_one_of_a_strange_key_does_not() {
        let key = CallKey { task: TaskId(fresh()), call: 0, attempt: 0 };
        let token = CallbackKeys::new(&"earlier".into(), &[]).token("suno", &key);
        assert!(
            CallbackKeys::new(&"current".into(), &["older".into(), "earlier".into()])
                .vouches("suno", &key, &token)
        );
        assert!(!CallbackKeys::new(&"current".into(), &["older".into()]).vouches("suno", &key, &token));
    }
}
