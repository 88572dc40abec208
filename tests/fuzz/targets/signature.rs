//! Signed callbacks: a right signature is taken as long as nothing is changed, and nothing else is ever taken.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;
use songflight::auth::CallbackKeys;
use songflight::id::CallKey;
use songflight::provider::signature::{of_body, of_task};
use songflight::time::Time;

const SECRET: &[u8] = b"the-secret-of-the-webhooks";
const SIGNED: i64 = 1_772_446_600;

fn signed(parts: &[&[u8]]) -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| hmac.update(part));
    hmac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The headers as they came, the clock's difference, and the body or the task; line by line.
fn untouched_or_refused(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (signature, timestamp, body) = (line(), line(), line());
    let header = |name: &str| match name {
        "x-webhook-signature" => Some(signature.clone()),
        "x-webhook-timestamp" => Some(timestamp.clone()),
        _ => None,
    };
    let now = Time::from_millis(SIGNED * 1000);
    let right = signed(&[timestamp.as_bytes(), b".", body.as_bytes()]);
    if of_body(SECRET, body.as_bytes(), &header, now).is_ok() {
        let told = signature.strip_prefix("sha256=").unwrap_or(&signature);
        assert!(told.eq_ignore_ascii_case(&hex(&right)), "{signature} signs {body:?}");
    }
    let right = signed(&[body.as_bytes(), b".", timestamp.as_bytes()]);
    if of_task(SECRET, Some(&body), &header, now).is_ok() {
        assert_eq!(signature, STANDARD.encode(right), "signs {body:?}");
    }
}

/// A right one, with one byte of it changed somewhere.
fn right_until_it_is_changed(input: &[u8]) {
    let [place, at, xor, body @ ..] = input else { return };
    let timestamp = (SIGNED + i64::from(*xor) - 128).to_string();
    let mut parts = [
        format!("sha256={}", hex(&signed(&[timestamp.as_bytes(), b".", body]))).into_bytes(),
        timestamp.into_bytes(),
        body.to_vec(),
    ];
    let taken = |[signature, timestamp, body]: &[Vec<u8>; 3]| {
        let header = |name: &str| {
            let value = if name == "x-webhook-signature" { signature } else { timestamp };
            String::from_utf8(value.clone()).ok()
        };
        of_body(SECRET, body, &header, Time::from_millis(SIGNED * 1000)).is_ok()
    };
    assert!(taken(&parts), "a right signature is refused");
    let part = &mut parts[usize::from(*place) % 3];
    let length = part.len();
    let Some(byte) = part.get_mut(usize::from(*at) % length.max(1)) else { return };
    *byte ^= xor;
    // The digits of a signature mean the same in both cases.
    if *xor != 0 && !(place % 3 == 0 && *xor == 0x20) {
        assert!(!taken(&parts), "a changed one is taken");
    }
}

/// The token in a callback's url.
fn vouched_for(input: &[u8]) {
    let keys = CallbackKeys::new(&"the-key".into(), &["the-one-before".into()]);
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (key, token) = text.split_once('/').unwrap_or((text, ""));
    if let Ok(key) = key.parse::<CallKey>() {
        assert!(keys.vouches("suno", &key, &keys.token("suno", &key)));
        let before = CallbackKeys::new(&"the-one-before".into(), &[]).token("suno", &key);
        let ours = token == keys.token("suno", &key) || token == before;
        assert_eq!(keys.vouches("suno", &key, token), ours, "{token}");
    }
}

fuzz_target!(|input: &[u8]| {
    untouched_or_refused(input);
    right_until_it_is_changed(input);
    vouched_for(input);
});
