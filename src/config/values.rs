//! The kinds of values that stand in a configuration: durations, credits, rates, secrets. Each is
//! parsed at the door and written back the way people write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::credit::Credits;
use crate::provider::gate::Rate;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands for a secret wherever a configuration is shown.
pub const MASK: &str = "••••";

/// Durations as people write them: `250ms`, `30s`, `10m`, `1h`, `7d`. For `#[serde(with = …)]`.
pub mod duration {
    use super::*;

    pub const ALLOWED: &str = "a duration such as 250ms, 30s, 10m, 1h or 7d";
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

    /// `None` when the text is no whole number followed by a unit, or too large for milliseconds.
    pub fn parse(text: &str) -> Option<Duration> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (_, millis) = UNITS.into_iter().find(|(unit, _)| *unit == text[digits..].trim_start())?;
        let number: u64 = text[..digits].parse().ok()?;
        number.checked_mul(millis).map(Duration::from_millis)
    }

    /// In the largest unit that leaves no remainder.
    pub fn write(duration: Duration) -> String {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return "0s".into();
        }
        let fits = UNITS.iter().rev().find(|(_, unit)| millis.is_multiple_of(*unit));
        let (name, unit) = fits.expect("every number of milliseconds is a multiple of 1 ms");
        format!("{}{name}", millis / unit)
    }

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&write(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).ok_or_else(|| de::Error::custom(ALLOWED))
    }

    /// One that need not be there.
    pub mod option {
        use super::*;

        pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => to.serialize_some(&write(*duration)),
                None => to.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
            let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
            parse(&text).map(Some).ok_or_else(|| de::Error::custom(ALLOWED))
        }
    }

    /// A list of them.
    pub mod list {
        use super::*;

        pub fn serialize<S: Serializer>(durations: &[Duration], to: S) -> Result<S::Ok, S::Error> {
            to.collect_seq(durations.iter().map(|duration| write(*duration)))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
            let texts = Vec::<String>::deserialize(from)?;
            let parsed: Option<Vec<Duration>> = texts.iter().map(|text| parse(text)).collect();
            parsed.ok_or_else(|| de::Error::custom("a list of durations such as [\"1s\", \"2m\"]"))
        }
    }
}

/// Amounts of credits as decimals, which is how people write them; stored amounts are integers.
pub(super) mod credits {
    use super::{Credits, CreditsVisitor, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(credits: &Credits, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(credits)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Credits, D::Error> {
        from.deserialize_any(CreditsVisitor)
    }
}

struct CreditsVisitor;

impl Visitor<'_> for CreditsVisitor {
    type Value = Credits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Credits::ALLOWED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Credits, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Credits, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Credits, E> {
        self.visit_str(&number.to_string())
    }

    /// A float prints as the shortest decimals that mean it, which are those in the file.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Credits, E> {
        self.visit_str(&number.to_string())
    }
}

const RATE_ALLOWED: &str = "a rate such as 20/10s, from 1 on";

impl FromStr for Rate {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (requests, window) = text.split_once('/').ok_or(RATE_ALLOWED)?;
        let requests = requests.trim().parse().map_err(|_| RATE_ALLOWED)?;
        let window = duration::parse(window).filter(|window| !window.is_zero()).ok_or(RATE_ALLOWED)?;
        Ok(Self { requests, window })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, duration::write(self.window))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// Writes a secret as [`MASK`]. A url keeps what is not secret, since that is what people look for.
pub(super) fn masked<S: Serializer>(secret: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => to.serialize_some(&mask(secret.expose_secret())),
        None => to.serialize_none(),
    }
}

/// Writes each secret of a list as [`MASK`].
pub(super) fn masked_list<S: Serializer>(secrets: &[SecretString], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(secrets.iter().map(|secret| mask(secret.expose_secret())))
}

/// `postgres://user:secret@host/db?password=x` to `postgres://user:••••@host/db`; anything else to dots.
pub(super) fn mask(secret: &str) -> String {
    match reqwest::Url::parse(secret) {
        Ok(mut url) if url.has_host() => {
            let dots = url.password().is_some() && url.set_password(Some("MASK")).is_ok();
            url.set_query(None);
            let shown = url.to_string();
            if dots { shown.replacen(":MASK@", &format!(":{MASK}@"), 1) } else { shown }
        }
        _ => MASK.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for text in ["250ms", "30s", "90s", "10m", "1h", "7d", "0s"] {
            assert_eq!(duration::parse(text).map(duration::write).as_deref(), Some(text));
        }
        assert_eq!(duration::parse("60s").map(duration::write).as_deref(), Some("1m"));
        for text in ["", "10", "s", "-1s", "1.5s", "10 parsecs", "99999999999999999999s"] {
            assert_eq!(duration::parse(text), None, "{text}");
        }
    }

    #[test]
    fn credits_are_exact_to_the_thousandth() {
        let parsed = |text: &str| text.parse().map(Credits::thousandths);
        assert_eq!(parsed("0.1"), Ok(100));
        assert_eq!(parsed("1"), Ok(1000));
        assert_eq!(parsed("1.005"), Ok(1005));
        assert_eq!(parsed("0.500000"), Ok(500));
        for text in ["0.0001", "-1", "1e3", ".5", "", "abc", "1000001", "1,5", "NaN"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert_eq!(Credits::from_thousandths(1005).to_string(), "1.005");
        assert_eq!(Credits::from_thousandths(500).to_string(), "0.5");
        assert_eq!(Credits::from_thousandths(10_000).to_string(), "10");
    }

    proptest::proptest! {
        #[test]
        fn every_amount_survives_a_float_in_a_file(thousandths in 0..=1_000_000_000_i64) {
            let text = Credits::from_thousandths(thousandths).to_string();
            let float: f64 = text.parse().expect("a number");
            let read = CreditsVisitor.visit_f64::<de::value::Error>(float);
            proptest::prop_assert_eq!(read, Ok(Credits::from_thousandths(thousandths)));
        }
    }

    #[test]
    fn rates_are_a_count_and_a_time() {
        assert_eq!(
            "20/10s".parse(),
            Ok(Rate { requests: 20.try_into().expect("not 0"), window: Duration::from_secs(10) })
        );
        for text in ["0/10s", "20/0s", "20", "x/1s", "20/10"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_masked_url_shows_where_and_not_how() {
        assert_eq!(mask("postgres://me:pass@db:5432/songs?password=x"), "postgres://me:••••@db:5432/songs");
        assert_eq!(mask("redis://cache:6379/0"), "redis://cache:6379/0");
        assert_eq!(mask("host=db password=x"), MASK);
        assert_eq!(mask("sk-live-123"), MASK);
    }
}
