//! Signs callbacks where a secret is set, in the way of the dialect that is spoken.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::behaviour::Dialect;
use crate::time::Time;

/// The signature's two headers, for a body that tells of this task.
pub(super) fn headers(
    secret: &str,
    dialect: Dialect,
    task: &str,
    body: &str,
    now: Time,
) -> [(&'static str, String); 2] {
    let timestamp = now.millis().div_euclid(1000).to_string();
    let signed = |over: String| {
        let mut hmac =
            Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
        hmac.update(over.as_bytes());
        hmac.finalize().into_bytes()
    };
    let signature = match dialect {
        Dialect::Kie => STANDARD.encode(signed(format!("{task}.{timestamp}"))),
        Dialect::Sunoapi => format!("sha256={:x}", signed(format!("{timestamp}.{body}"))),
    };
    [("x-webhook-timestamp", timestamp), ("x-webhook-signature", signature)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vector(name: &str) -> Value {
        let path = format!("{}/tests/fixtures/suno/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn callbacks_are_signed_as_was_recorded() {
        for (name, secret, dialect) in [
            ("signature_vector_kie", "webhook_hmac_key", Dialect::Kie),
            ("gw_aimusicapi_webhook_signed", "secret", Dialect::Sunoapi),
        ] {
            let vector = vector(name);
            let text = |key: &str| vector[key].as_str().unwrap_or_default();
            let now = Time::from_millis(1_772_446_600_999);
            let [timestamp, signature] =
                headers(text(secret), dialect, text("task_id"), text("raw_body"), now);
            assert_eq!(timestamp.1, vector["headers"]["X-Webhook-Timestamp"], "{name}");
            assert_eq!(signature.1, vector["headers"]["X-Webhook-Signature"], "{name}");
        }
    }
}
