//! Which pages may call us (SEC-1): asked in the same way by HTTP and by whoever opens a socket.

use super::Http;

/// Origins of pages: `https://app.example`, `http://localhost:*` with any port, or `*`.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<String>);

impl From<Vec<String>> for Origins {
    fn from(allowed: Vec<String>) -> Self {
        Self(allowed)
    }
}

impl Http {
    /// Those that are named, and our own: that of `public_url`, whatever path stands in it.
    pub fn origins(&self) -> Origins {
        let ours = self.public_url.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
        let ours = ours.map(|url| url.origin().ascii_serialization());
        Origins(self.allowed_origins.iter().cloned().chain(ours).collect())
    }
}

impl Origins {
    /// Whether pages of this origin may call us.
    pub fn allows(&self, origin: &str) -> bool {
        self.0.iter().any(|allowed| matches(allowed, origin))
    }
}

fn matches(allowed: &str, origin: &str) -> bool {
    if allowed == "*" || allowed.eq_ignore_ascii_case(origin) {
        return true;
    }
    let Some(host) = allowed.strip_suffix(":*") else { return false };
    let (Some(start), Some(rest)) = (origin.get(..host.len()), origin.get(host.len()..)) else {
        return false;
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    start.eq_ignore_ascii_case(host) && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}
