//! Checks what providers sign their callbacks with (CB-1). Pure; compares in constant time.
//!
//! Not here: which provider signs in which way (`Provider::verify`), nor the token in the callback's url
//! (`auth::callback`), which is checked before and is the only proof where nothing is signed.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::BadSignature;
use crate::time::Time;

/// How far a signature's timestamp may be off, into either direction.
pub const OFF_MAX: Duration = Duration::from_secs(5 * 60);

/// The headers of both ways, in lower case.
const SIGNATURE: &str = "x-webhook-signature";
const TIMESTAMP: &str = "x-webhook-timestamp";

/// A header by its name in lower case.
pub type Header<'a> = &'a dyn Fn(&str) -> Option<String>;

/// kie.ai: base64 of HMAC-SHA256(secret, `<task id>.<timestamp>`). It does not cover the body: that the body is
/// from them too rests on the url's token, which nobody else knows.
///
/// # Errors
/// What is missing or wrong.
pub fn of_task(secret: &[u8], task: Option<&str>, header: Header<'_>, now: Time) -> Result<(), BadSignature> {
    let (signature, timestamp) = both(header, now)?;
    let task = task.ok_or(BadSignature("the body names no task"))?;
    let signature = STANDARD.decode(signature).map_err(|_| BadSignature("the signature is no base64"))?;
    check(secret, &[task.as_bytes(), b".", timestamp.as_bytes()], &signature)
}

/// `sha256=` and the hexadecimal HMAC-SHA256(secret, `<timestamp>.<body>`), over the body as it came.
///
/// # Errors
/// What is missing or wrong.
pub fn of_body(secret: &[u8], body: &[u8], header: Header<'_>, now: Time) -> Result<(), BadSignature> {
    let (signature, timestamp) = both(header, now)?;
    let digits = signature.strip_prefix("sha256=").unwrap_or(&signature);
    let signature = from_hex(digits).ok_or(BadSignature("the signature is not hexadecimal"))?;
    check(secret, &[timestamp.as_bytes(), b".", body], &signature)
}

/// The signature, and its timestamp as it was signed.
fn both(header: Header<'_>, now: Time) -> Result<(String, String), BadSignature> {
    let signature = header(SIGNATURE).ok_or(BadSignature("there is no signature"))?;
    let timestamp = header(TIMESTAMP).ok_or(BadSignature("there is no timestamp"))?;
    let millis = timestamp.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1000));
    let signed = millis.ok_or(BadSignature("the timestamp is no number of seconds"))?;
    if now.millis().abs_diff(signed) > OFF_MAX.as_millis() as u64 {
        return Err(BadSignature("the timestamp is more than 5 minutes off"));
    }
    Ok((signature, timestamp))
}

/// In a time that does not depend on how much of the signature is right.
fn check(secret: &[u8], parts: &[&[u8]], signature: &[u8]) -> Result<(), BadSignature> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| hmac.update(part));
    hmac.verify_slice(signature).map_err(|_| BadSignature("the signature is wrong"))
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The timestamp of both vectors, in seconds.
    const SIGNED: i64 = 1_772_446_600;

    fn vector(name: &str) -> Value {
        let path = format!("{}/tests/fixtures/suno/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
        vector[key].as_str().unwrap()
    }

    /// The vector's headers, one of them changed.
    fn headers(vector: &Value, change: (&str, Option<&str>)) -> impl Fn(&str) -> Option<String> {
        let fields = vector["headers"].as_object().unwrap().iter();
        let all = fields.map(|(key, value)| (key.to_lowercase(), value.as_str().map(String::from)));
        let changed = [(change.0.to_owned(), change.1.map(String::from))];
        let all: Vec<(String, Option<String>)> = changed.into_iter().chain(all).collect();
        move |name| all.iter().find(|(key, _)| key == name)?.1.clone()
    }

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn the_recorded_signature_of_a_task_is_right_and_every_other_is_wrong() {
        let vector = vector("signature_vector_kie");
        let secret = text(&vector, "webhook_hmac_key").as_bytes();
        let (task, now) = (Some(text(&vector, "task_id")), at(SIGNED));
        let check = |secret: &[u8], task, change| of_task(secret, task, &headers(&vector, change), now);
        assert_eq!(check(secret, task, ("", None)), Ok(()));
        assert!(check(b"another key", task, ("", None)).is_err());
        assert!(check(secret, Some("another task"), ("", None)).is_err());
        assert!(check(secret, None, ("", None)).is_err());
        let later = (SIGNED + 1).to_string();
        for change in [
            (SIGNATURE, None),
            (SIGNATURE, Some("")),
            (SIGNATURE, Some("mtH5RunINCrTEI1zmT1UbfGfB4vLaOkOgz37mgc1+Fg=")),
            (SIGNATURE, Some("mtH5")),
            (SIGNATURE, Some("no base64 ä")),
            (TIMESTAMP, None),
            (TIMESTAMP, Some(later.as_str())),
            (TIMESTAMP, Some("today")),
            (TIMESTAMP, Some("9223372036854775807")),
        ] {
            assert!(check(secret, task, change).is_err(), "{change:?}");
        }
    }

    #[test]
    fn the_recorded_signature_of_a_body_is_right_and_every_other_is_wrong() {
        let vector = vector("gw_aimusicapi_webhook_signed");
        let (secret, body) = (text(&vector, "secret").as_bytes(), text(&vector, "raw_body"));
        let check = |secret: &[u8], body: &str| {
            of_body(secret, body.as_bytes(), &headers(&vector, ("", None)), at(SIGNED))
        };
        assert_eq!(check(secret, body), Ok(()));
        assert!(check(b"another key", body).is_err());
        assert!(check(secret, &body.replace("200", "201")).is_err());
        assert!(check(secret, "").is_err());

        let with = |name: &str, value: Option<&str>| {
            of_body(secret, body.as_bytes(), &headers(&vector, (name, value)), at(SIGNED))
        };
        let digits = text(&vector["headers"], "X-Webhook-Signature").trim_start_matches("sha256=").to_owned();
        assert_eq!(with(SIGNATURE, Some(&digits.to_uppercase())), Ok(()));
        for wrong in ["", "sha256=", "sha256=0", "sha256=zz", &digits[..62], &digits.replace('6', "7")] {
            assert!(with(SIGNATURE, Some(wrong)).is_err(), "{wrong}");
        }
        assert!(with(SIGNATURE, None).is_err());
        assert!(with(TIMESTAMP, None).is_err());
    }

    #[test]
    fn a_signature_may_be_five_minutes_off_and_no_more() {
        let vector = vector("signature_vector_kie");
        let (secret, task) = (text(&vector, "webhook_hmac_key").as_bytes(), text(&vector, "task_id"));
        let header = headers(&vector, ("", None));
        let check = |now| of_task(secret, Some(task), &header, now);
        for off in [-300, 0, 300] {
            assert_eq!(check(at(SIGNED + off)), Ok(()), "{off}");
        }
        for off in [-301, 301, -SIGNED] {
            assert!(check(at(SIGNED + off)).is_err(), "{off}");
        }
        assert!(check(Time::from_millis(i64::MIN)).is_err());
    }
}
