//! Money: exact amounts and what things cost (CRED-1); `plan`: how much of it at a time. Both are pure. `seats` is not: it
//! is where songs wait for one of their owner's to end.
//!
//! Not here: the ledger's rows and who may spend (`store::journal`, the SQL functions).

pub mod plan;
pub mod seats;

use serde::{Deserialize, Serialize, Serializer};

/// An amount in whole thousandths of a credit, so that sums are exact (CRED-1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(transparent)]
pub struct Credits(i64);

impl Credits {
    pub const ZERO: Credits = Credits(0);
    /// What a person may write as an amount.
    pub const ALLOWED: &'static str = "a number of credits from 0 to 1000000 with at most three decimals";
    const THOUSANDTHS_MAX: i64 = 1_000_000_000;

    pub const fn from_thousandths(thousandths: i64) -> Self {
        Self(thousandths)
    }

    pub const fn thousandths(self) -> i64 {
        self.0
    }

    /// Reads an amount that may be less than nothing: what an operator takes.
    ///
    /// # Errors
    /// What is allowed, but for the sign.
    pub fn signed(text: &str) -> Result<Self, &'static str> {
        match text.trim().strip_prefix('-') {
            Some(amount) => amount.parse::<Credits>().map(|amount| -amount),
            None => text.parse(),
        }
    }

    /// As the API writes amounts: a JSON number with at most three decimals.
    pub fn as_json(self) -> serde_json::Value {
        serde_json::json!(self.0 as f64 / 1000.0)
    }
}

/// Stored as the integer it is; [`Credits::as_json`] is for clients.
impl Serialize for Credits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(self.0)
    }
}

impl std::ops::Add for Credits {
    type Output = Credits;
    fn add(self, other: Credits) -> Credits {
        Credits(self.0 + other.0)
    }
}

impl std::ops::Neg for Credits {
    type Output = Credits;
    fn neg(self) -> Credits {
        Credits(-self.0)
    }
}

impl std::str::FromStr for Credits {
    type Err = &'static str;

    /// Digit by digit: no floating-point number is on the way.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        let part = part.trim_end_matches('0');
        if whole.is_empty() || whole.len() > 9 || part.len() > 3 || !is_number(whole) || !is_number(part) {
            return Err(Self::ALLOWED);
        }
        let thousandths = format!("{whole}{part:0<3}").parse().map_err(|_| Self::ALLOWED)?;
        if thousandths > Self::THOUSANDTHS_MAX { Err(Self::ALLOWED) } else { Ok(Self(thousandths)) }
    }
}

impl std::fmt::Display for Credits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 1000, format!(".{:03}", self.0.unsigned_abs() % 1000));
        write!(f, "{sign}{whole}{}", part.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_at_most_three_decimals() {
        let written = |thousandths| Credits::from_thousandths(thousandths).as_json().to_string();
        assert_eq!(written(1100), "1.1");
        assert_eq!(written(100), "0.1");
        assert_eq!(written(-1), "-0.001");
        assert_eq!(written(123_456_789_001), "123456789.001");
    }
}
