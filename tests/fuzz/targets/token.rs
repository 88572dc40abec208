//! JSON web tokens, the header they stand in, and sets of public keys. Nothing is accepted that was not signed with our
//! key, and whatever is signed is read without harm.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;
use songflight::auth::{Auth, Identity, bearer};
use songflight::fuzzing::usable_keys;
use songflight::time::Time;

const SECRET: &str = "a secret of 32 bytes, at the least";
const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

thread_local! {
    static AUTH: Auth = {
        let config = songflight::config::Config::load_from(None, []).expect("the defaults").config;
        // Clients want to know with what they would speak TLS; this sets it.
        songflight_fuzz::http();
        Auth::new(&config.auth, &SECRET.into(), reqwest::Client::new())
    };
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
}

fn verified(token: &str) -> Option<Identity> {
    let now = Time::from_millis(1_772_446_600_000);
    AUTH.with(|auth| RUNTIME.with(|runtime| runtime.block_on(auth.verify(token, now)))).ok()
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes keys of any length");
    hmac.update(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(hmac.finalize().into_bytes()))
}

fn is_ours(token: &str) -> bool {
    let Some((text, signature)) = token.rsplit_once('.') else { return false };
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes keys of any length");
    hmac.update(text.as_bytes());
    signature == URL_SAFE_NO_PAD.encode(hmac.finalize().into_bytes())
}

fn as_claimed(claims: &[u8], identity: &Identity) {
    // What stands in fields that nobody reads need not even be text.
    let Ok(claims) = serde_json::from_slice::<serde_json::Value>(claims) else { return };
    assert_eq!(claims["sub"], identity.user.as_str());
    assert_eq!(claims["plan"].as_str(), identity.plan.as_deref());
}

fuzz_target!(|input: &[u8]| {
    usable_keys(input);
    if let Ok(text) = std::str::from_utf8(input) {
        let token = bearer(Some(text)).unwrap_or(text);
        assert!(verified(token).is_none() || is_ours(token), "{token}");
    }
    if let Some(identity) = verified(&signed(HEADER, input)) {
        as_claimed(input, &identity);
        // One letter changed.
        let token = signed(HEADER, input);
        let at = input.len() % token.len();
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        assert!(verified(&changed).is_none(), "{changed}");
    }
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (header, claims) = input.split_at(at);
    if let Some(identity) = verified(&signed(header, claims)) {
        as_claimed(claims, &identity);
    }
});
