//! What the fuzz targets in `tests/fuzz` reach inside for: there with `--cfg fuzzing` only, and no interface.
//! Providers are fuzzed through their trait, with an answer in the place of the network.

use std::time::Duration;

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use reqwest::StatusCode;

use crate::api::songs;
use crate::provider::http::{prepared, retry_after};
use crate::time::Time;

/// What the next call to a provider that this thread makes is answered with.
pub fn answer_with(status: StatusCode, body: &[u8]) {
    prepared::prepare(status, body);
}

/// How long an answer with this header asks to wait.
pub fn told_to_wait(value: &[u8], now: Time) -> Option<Duration> {
    let value = reqwest::header::HeaderValue::from_bytes(value).ok()?;
    retry_after(&reqwest::header::HeaderMap::from_iter([(reqwest::header::RETRY_AFTER, value)]), now)
}

/// The key that a request with these headers is repeated under; the status of the refusal where it is none.
///
/// # Errors
/// The status of the answer.
pub fn idempotency_key(values: &[&[u8]]) -> Result<Option<String>, u16> {
    let mut headers = HeaderMap::new();
    for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append(header::HeaderName::from_static("idempotency-key"), value);
    }
    songs::idempotency_key(&headers)
        .map_err(|problem| actix_web::ResponseError::status_code(&problem).as_u16())
}

/// The library's cursor as it would be given out again.
pub fn library_cursor(text: &str) -> Option<String> {
    songs::rewritten(text)
}

/// How many of a set's keys can check tokens.
pub fn usable_keys(set: &[u8]) -> Option<usize> {
    crate::auth::usable_keys(set)
}
