//! What goes wrong, as clients read it (RFC 9457, `api.md`). Status and public text stand here alone.
//!
//! Nothing internal is ever in a problem: no SQL, path, provider key or provider's own words.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ContentType, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Map, Value, json};

use crate::credit::Credits;
use crate::credit::plan::Allowance;
use crate::song::actor::TellError;
use crate::song::phase::Status;
use crate::song::refusal::Refusal;
use crate::store::StoreError;
use crate::store::journal::CommitError;
use crate::time::Time;

/// A field that is wrong: a JSON pointer (RFC 6901) and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    more: Map<String, Value>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    InvalidInput,
    Unauthorized,
    InsufficientCredits,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    WrongState,
    TooLarge,
    IdempotencyMismatch,
    UnsupportedByProvider,
    RetryLimit,
    RateLimited,
    ProviderFailed,
    DailyLimit,
    TooManyAtOnce,
    Internal,
    Unavailable,
}

impl Kind {
    pub const ALL: [Kind; 17] = [
        Kind::InvalidInput,
        Kind::Unauthorized,
        Kind::InsufficientCredits,
        Kind::Forbidden,
        Kind::NotFound,
        Kind::MethodNotAllowed,
        Kind::WrongState,
        Kind::TooLarge,
        Kind::IdempotencyMismatch,
        Kind::UnsupportedByProvider,
        Kind::RetryLimit,
        Kind::RateLimited,
        Kind::ProviderFailed,
        Kind::DailyLimit,
        Kind::TooManyAtOnce,
        Kind::Internal,
        Kind::Unavailable,
    ];

    /// The end of `type`, the title, the status.
    pub const fn facts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Kind::InvalidInput => {
                ("invalid-input", "Something in the request is wrong", StatusCode::BAD_REQUEST)
            }
            Kind::Unauthorized => ("unauthorized", "A valid token is needed", StatusCode::UNAUTHORIZED),
            Kind::InsufficientCredits => {
                ("insufficient-credits", "Not enough credits", StatusCode::PAYMENT_REQUIRED)
            }
            Kind::Forbidden => ("forbidden", "Not allowed", StatusCode::FORBIDDEN),
            Kind::NotFound => ("not-found", "There is no such thing", StatusCode::NOT_FOUND),
            Kind::MethodNotAllowed => {
                ("method-not-allowed", "This cannot be done here", StatusCode::METHOD_NOT_ALLOWED)
            }
            Kind::WrongState => ("wrong-state", "The song's state does not allow it", StatusCode::CONFLICT),
            Kind::TooLarge => ("too-large", "The request is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Kind::IdempotencyMismatch => (
                "idempotency-mismatch",
                "The idempotency key was used for something else",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            Kind::UnsupportedByProvider => {
                ("unsupported-by-provider", "The provider cannot do this", StatusCode::UNPROCESSABLE_ENTITY)
            }
            Kind::RetryLimit => ("retry-limit", "No retry at this time", StatusCode::TOO_MANY_REQUESTS),
            Kind::RateLimited => ("rate-limited", "Too many requests", StatusCode::TOO_MANY_REQUESTS),
            Kind::ProviderFailed => {
                ("provider-failed", "The provider could not do it", StatusCode::BAD_GATEWAY)
            }
            Kind::DailyLimit => ("daily-limit", "No more songs today", StatusCode::TOO_MANY_REQUESTS),
            Kind::TooManyAtOnce => {
                ("too-many-at-once", "Too many songs under way", StatusCode::TOO_MANY_REQUESTS)
            }
            Kind::Internal => {
                ("internal", "Something went wrong on our side", StatusCode::INTERNAL_SERVER_ERROR)
            }
            Kind::Unavailable => {
                ("unavailable", "The service cannot do this now", StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

impl Kind {
    /// What it means for a client, and what to do.
    pub const fn advice(self) -> &'static str {
        match self {
            Kind::InvalidInput => {
                "Every field that is wrong stands in `errors`, each with a JSON pointer and what is allowed. The same \
                 request would be refused again."
            }
            Kind::Unauthorized => {
                "The header `Authorization: Bearer …` is missing, or its token is expired or not ours. Come again with a \
                 fresh one."
            }
            Kind::InsufficientCredits => {
                "It costs `required` credits and there are `available`. Nothing was made and nothing charged."
            }
            Kind::Forbidden => "The token is valid, but its role or its owner may not do this.",
            Kind::NotFound => "There is no such thing, or it is somebody else's: the answer is the same.",
            Kind::MethodNotAllowed => "The path is right, the method is not. `/docs` lists what there is.",
            Kind::WrongState => {
                "The song is in `status`, in which this cannot be done. Look at the song again before the next try."
            }
            Kind::TooLarge => "The body is larger than this path takes. Nothing of it was read.",
            Kind::IdempotencyMismatch => {
                "The `Idempotency-Key` came with another request before. A new request needs a new key."
            }
            Kind::UnsupportedByProvider => {
                "`errors` says what the provider lacks, `providers` names those that can do all of it. `auto` chooses one \
                 that can."
            }
            Kind::RetryLimit => {
                "A song is retried a few times, and not too often an hour. `retry_after_s`, where it is there, says when \
                 to try again."
            }
            Kind::RateLimited => {
                "More came than is allowed in that time. Wait for `retry_after_s`, then send the same again."
            }
            Kind::ProviderFailed => {
                "The provider was asked and could not do it. Trying again later may help."
            }
            Kind::DailyLimit => {
                "The plan allows no more songs today. `retry_after_s` says how long until the next day (UTC)."
            }
            Kind::TooManyAtOnce => {
                "As many songs are under way as the plan allows. Without `on_busy: refuse` the song would have waited for \
                 its turn."
            }
            Kind::Internal => {
                "A fault of ours, which was noted. `X-Request-Id` names the request to whoever looks into it."
            }
            Kind::Unavailable => {
                "The service is busy, being restarted or without its database. Nothing was lost: send the same again after \
                 `Retry-After`."
            }
        }
    }
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { kind, detail, errors: Vec::new(), more: Map::new(), retry_after: None, headers: Vec::new() }
    }

    /// Every wrong field at once.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.pointer.is_empty() => one.detail.clone(),
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} fields are wrong", many.len()),
        };
        Self::new(Kind::InvalidInput, detail).with_errors(errors)
    }

    /// One wrong field or, with an empty pointer, a wrong whole.
    pub fn invalid_at(pointer: &str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError { pointer: pointer.to_owned(), detail: detail.into() }])
    }

    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, "There is no such thing, or it is not yours.")
    }

    pub fn unavailable() -> Self {
        Self::new(Kind::Unavailable, "The database is away or busy. Nothing was lost; try again shortly.")
            .after(Duration::from_secs(2))
    }

    /// The same request is for the next who runs here.
    pub fn leaving() -> Self {
        Self::new(Kind::Unavailable, "The service is being restarted. Nothing was lost; try again shortly.")
            .after(Duration::from_secs(2))
    }

    pub fn wrong_state(status: Status, detail: impl Into<String>) -> Self {
        Self::new(Kind::WrongState, detail).with("status", json!(status.as_str()))
    }

    /// What this guest made has moved, and what else they made would be nobody's (CRED-7).
    pub fn claimed() -> Self {
        Self::new(
            Kind::Forbidden,
            "What this guest made belongs to an account now. Use a token of that account's.",
        )
    }

    pub fn short(required: Credits, available: Credits) -> Self {
        Self::new(Kind::InsufficientCredits, format!("This costs {required} credits; there are {available}."))
            .with("required", required.as_json())
            .with("available", available.as_json())
    }

    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.more.insert(field.to_owned(), value);
        self
    }

    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after = Some(Duration::from_secs(seconds.max(1)));
        self
    }

    /// What is wrong with single fields.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The fields that it is about.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// Headers beside those that follow from the kind.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Nothing is left of a limit (CRED-3). All of it is there again at that time, if it ever is.
    #[must_use]
    pub fn used_up(mut self, limit: u32, full_at: Option<Time>) -> Self {
        let reset = full_at.map(|reset| Allowance { limit, remaining: 0, reset }.reset_seconds());
        self.headers.extend(told(limit, 0, reset));
        self
    }

    pub fn status(&self) -> StatusCode {
        self.kind.facts().2
    }

    pub fn body(&self) -> Value {
        let (kind, title, status) = self.kind.facts();
        let mut body = json!({
            "type": format!("/problems/{kind}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(fields) = &mut body {
            if !self.errors.is_empty() {
                let error = |error: &FieldError| json!({"pointer": error.pointer, "detail": error.detail});
                fields.insert("errors".into(), self.errors.iter().map(error).collect());
            }
            fields.extend(self.more.clone());
            if let Some(wait) = self.retry_after {
                fields.insert("retry_after_s".into(), json!(wait.as_secs()));
            }
        }
        body
    }
}

/// What is left of a limit, as answers tell it (CRED-3).
pub fn headers(allowance: &Allowance) -> HeaderMap {
    told(allowance.limit, allowance.remaining, Some(allowance.reset_seconds())).collect()
}

fn told(limit: u32, left: u32, reset: Option<i64>) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let told = [
        ("x-ratelimit-limit", Some(limit.into())),
        ("x-ratelimit-remaining", Some(left.into())),
        ("x-ratelimit-reset", reset),
    ];
    told.into_iter()
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from(value?))))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.facts().0, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header(ContentType("application/problem+json".parse().expect("a media type")));
        if let Some(wait) = self.retry_after {
            response.insert_header((RETRY_AFTER, wait.as_secs()));
        }
        if self.kind == Kind::Unauthorized {
            response.insert_header(("WWW-Authenticate", "Bearer"));
        }
        for header in &self.headers {
            response.insert_header(header.clone());
        }
        response.body(self.body().to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Unknown(_) => {
                tracing::warn!(%error, "a request found no database");
                Problem::unavailable()
            }
            StoreError::Refused(_) => {
                tracing::error!(%error, "a request failed in the database");
                Problem::new(Kind::Internal, "This was noted and will be looked into.")
            }
        }
    }
}

impl From<deadpool_postgres::PoolError> for Problem {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Busy | CommitError::Away | CommitError::Fenced => Problem::unavailable(),
            CommitError::Refused(_) => {
                Problem::new(Kind::Internal, "This was noted and will be looked into.")
            }
        }
    }
}

impl From<TellError> for Problem {
    fn from(error: TellError) -> Self {
        match error {
            TellError::NotFound => Problem::not_found(),
            TellError::Unavailable | TellError::Elsewhere => Problem::unavailable(),
            TellError::Short { required, available } => Problem::short(required, available),
            TellError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Gone | Refusal::NoSuchVariant => Problem::not_found(),
            Refusal::NoSuchLyrics(there) => {
                let there = there.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let errors =
                    json!([{"pointer": "/variant_index", "detail": format!("must be one of {there}")}]);
                Problem::new(Kind::NotFound, format!("The song has no such lyrics; there are {there}."))
                    .with("errors", errors)
            }
            Refusal::WrongState(status) => {
                Problem::wrong_state(status, format!("The song is {}.", status.as_str()))
            }
            Refusal::NeedsOtherWords => Problem::wrong_state(
                Status::Failed,
                "The same words would be refused again: send a changed `prompt` or `lyrics`.",
            ),
            Refusal::NoLyricsYet => {
                let why = "the lyrics are what failed; change the prompt, or choose a text of your own once there are some";
                Problem::invalid_at("/lyrics", why)
            }
            Refusal::RetryLater { per_hour, wait, full_at } => {
                Problem::new(Kind::RetryLimit, "Too many retries of this song in the last hour.")
                    .after(wait)
                    .used_up(per_hour.into(), Some(full_at))
            }
            Refusal::TooManyAdditions(status) => Problem::wrong_state(
                status,
                format!("A song has at most {} further tasks.", crate::song::phase::ADDITIONS_MAX),
            ),
            Refusal::NoRetriesLeft { max } => Problem::new(
                Kind::RetryLimit,
                "This song was retried as often as it can be. Please contact support.",
            )
            .used_up(max.into(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_song_that_is_in_the_way_of_something_is_told_with_its_state() {
        for (refusal, status) in [
            (Refusal::WrongState(Status::Complete), "complete"),
            (Refusal::NeedsOtherWords, "failed"),
            (Refusal::TooManyAdditions(Status::Ready), "ready"),
        ] {
            let problem = Problem::from(refusal);
            assert_eq!((problem.kind(), &problem.body()["status"]), (Kind::WrongState, &json!(status)));
        }
    }
}
