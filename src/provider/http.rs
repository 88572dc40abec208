//! The HTTP that all adapters share: clients that send each submission exactly once, bodies with a
//! bound, and what a broken connection means (`durability.md` section 5).
//!
//! Not here: what an answer says (`provider/<name>`), when to try again (`provider::failure`).

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, StatusCode, Url};

use super::failure::{Class, Failure};
use crate::time::{Clock, Time};

/// The largest body that is read from a provider, unless it sends files in its answers ([`send_up_to`]).
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A longer wait than a day is taken for a mistake of the sender.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A shorter key keeps nobody out, and might be a word of its own.
const KEY_BYTES_MIN: usize = 12;

/// How long one call may take, from the first packet to the last byte of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    pub submit: Duration,
    pub ask: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            submit: Duration::from_secs(30),
            ask: Duration::from_secs(15),
        }
    }
}

/// What a call is for, which decides what its failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// May cost money: a failure after connecting is ambiguous.
    Submit,
    /// Free and repeatable.
    Ask,
}

/// How long a connection that submissions used is used for others. Without it each would cost a handshake: a tenth of
/// all that a song costs this program.
const FRESH: Duration = Duration::from_secs(1);

/// The clients of one provider.
///
/// Submissions have a client of their own, which uses a connection again only within [`FRESH`]: servers close idle ones
/// after several seconds, and what is written to one that is being closed may or may not have arrived. (hyper sends a
/// request on another connection only where it had not begun to write it; `tests/providers/transport.rs` holds it to that.)
#[derive(Clone, Debug)]
pub struct Http {
    submit: Client,
    ask: Client,
}

impl Http {
    /// Clients for the provider at `base_url`.
    ///
    /// # Errors
    /// The url or the machine's TLS setup cannot be used; the text says why.
    pub fn new(base_url: &str, timeouts: Timeouts) -> Result<Self, String> {
        // reqwest is built without a default for cryptography; whoever comes first sets it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = Url::parse(base_url).map_err(|error| format!("{base_url}: {error}"))?;
        let build =
            |builder: ClientBuilder| builder.build().map_err(|error| format!("{base_url}: {error:?}"));
        Ok(Self {
            submit: build(client(&base, timeouts).timeout(timeouts.submit).pool_idle_timeout(FRESH))?,
            ask: build(client(&base, timeouts).timeout(timeouts.ask))?,
        })
    }

    pub fn post(&self, url: &str) -> RequestBuilder {
        self.submit.post(url)
    }

    /// A `GET` that costs money, sent like any other submission.
    pub fn get_once(&self, url: &str) -> RequestBuilder {
        self.submit.get(url)
    }

    pub fn get(&self, url: &str) -> RequestBuilder {
        self.ask.get(url)
    }
}

/// Follows no redirect: one after a POST could order twice, and no other host is to see our key.
fn client(base: &Url, timeouts: Timeouts) -> ClientBuilder {
    let builder = Client::builder()
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(timeouts.connect)
        .user_agent(concat!("songflight/", env!("CARGO_PKG_VERSION")));
    let builder = if is_loopback(base) { builder.no_proxy() } else { builder };
    // Without TLS no certificates are needed, so a machine that has none can still run the simulator.
    if base.scheme() == "http" { builder.tls_certs_only([]) } else { builder }
}

fn is_loopback(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An answer with whatever status, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The start of the body as text, for a failure's message.
    pub fn excerpt(&self) -> String {
        let start = &self.body[..self.body.len().min(4 * super::failure::MESSAGE_CHARS_MAX)];
        format!("HTTP {}: {}", self.status.as_u16(), String::from_utf8_lossy(start).trim())
    }
}

/// Sends once and reads the answer, whatever its status.
///
/// # Errors
/// No whole answer came back. Of a submission `arrived` tells whether it may have been taken all the same.
pub async fn send(request: RequestBuilder, purpose: Purpose) -> Result<Answer, Failure> {
    send_up_to(BODY_BYTES_MAX, request, purpose).await
}

/// The same for a provider whose answers may be longer.
///
/// # Errors
/// As [`send`].
pub async fn send_up_to(
    body_bytes_max: usize,
    request: RequestBuilder,
    purpose: Purpose,
) -> Result<Answer, Failure> {
    #[cfg(fuzzing)]
    if let Some(answer) = prepared::answer() {
        return Ok(answer);
    }
    let (client, request) = request.build_split();
    let request = request.map_err(|error| broken(error, purpose))?;
    let key = key_of(request.headers());
    let mut response = client.execute(request).await.map_err(|error| broken(error, purpose))?;
    let mut answer = Answer {
        status: response.status(),
        retry_after: retry_after(response.headers(), Clock.now()),
        body: Vec::new(),
    };
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(error, purpose))? {
        if answer.body.len() + chunk.len() > body_bytes_max {
            return Err(doubtful(too_long(body_bytes_max), purpose));
        }
        answer.body.extend_from_slice(&chunk);
    }
    // Some complain of a key by repeating it, and what they say is logged and kept. Files are no complaints.
    if answer.body.len() <= BODY_BYTES_MAX {
        hide(&mut answer.body, &key);
    }
    Ok(answer)
}

/// What we show that we are ourselves by, without the word before it.
fn key_of(headers: &HeaderMap) -> Vec<u8> {
    let header = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    header.rsplit(|byte| *byte == b' ').next().unwrap_or_default().to_vec()
}

/// Puts stars in the place of a key.
fn hide(body: &mut [u8], key: &[u8]) {
    if key.len() < KEY_BYTES_MIN {
        return;
    }
    let mut at = 0;
    while let Some(found) = body[at..].windows(key.len()).position(|part| part == key) {
        at += found;
        body[at..at + key.len()].fill(b'*');
    }
}

/// An answer in the place of the network, for fuzz targets.
#[cfg(fuzzing)]
pub(crate) mod prepared {
    use std::cell::RefCell;

    use super::{Answer, StatusCode};

    thread_local! {
        static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
    }

    /// The next call that this thread makes is answered with this.
    pub(crate) fn prepare(status: StatusCode, body: &[u8]) {
        ANSWER.set(Some(Answer { status, retry_after: None, body: body.into() }));
    }

    pub(super) fn answer() -> Option<Answer> {
        ANSWER.take()
    }
}

fn too_long(body_bytes_max: usize) -> Failure {
    Failure::new(Class::ProviderError, format!("the answer is longer than {body_bytes_max} bytes"))
}

/// Only what failed before the connection stood has surely not arrived.
fn broken(error: reqwest::Error, purpose: Purpose) -> Failure {
    let (connect, builder) = (error.is_connect(), error.is_builder());
    let text = with_sources(&error.without_url());
    if builder {
        return Failure::new(Class::ProviderError, text).operator();
    }
    let failure = Failure::new(Class::Network, text);
    if connect { failure } else { doubtful(failure, purpose) }
}

/// Marks what may have arrived, which only matters for a submission.
pub fn doubtful(failure: Failure, purpose: Purpose) -> Failure {
    match purpose {
        Purpose::Submit => failure.maybe_arrived(),
        Purpose::Ask => failure,
    }
}

/// reqwest's own text says "error sending request"; the cause stands in its sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: Time) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(text).ok()?;
            Time::from_millis(date.timestamp().as_millisecond()).since(now)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        retry_after(&headers, Time::from_millis(1_766_286_000_000))
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        assert_eq!(told("17"), Some(Duration::from_secs(17)));
        assert_eq!(told("Sun, 21 Dec 2025 03:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(told("Sun, 21 Dec 2025 02:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(told("99999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(told("soon"), None);
        assert_eq!(told("-5"), None);
    }

    #[test]
    fn a_key_is_hidden_wherever_it_stands() {
        let hidden = |body: &str, key: &str| {
            let mut body = body.as_bytes().to_vec();
            hide(&mut body, key.as_bytes());
            String::from_utf8(body).expect("stars are text")
        };
        assert_eq!(hidden("sk-123456789:sk-123456789", "sk-123456789"), "************:************");
        assert_eq!(hidden("sk-12345678", "sk-123456789"), "sk-12345678");
        assert_eq!(hidden("simulated", "simulated"), "simulated", "no key, but a word");
        assert_eq!(hidden("", ""), "");
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_its_name() {
        let refused = Http::new("sunoapi", Timeouts::default()).expect_err("no url");
        assert!(refused.contains("sunoapi"), "{refused}");
    }

    #[test]
    fn only_this_machine_is_reached_without_a_proxy() {
        for (url, own) in [
            ("http://127.0.0.1:9090/suno", true),
            ("http://[::1]:9090", true),
            ("http://localhost", true),
            ("https://api.sunoapi.org", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), own, "{url}");
        }
    }
}
