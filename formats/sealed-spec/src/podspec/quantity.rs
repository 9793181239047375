//! Kubernetes quantities (`500m`, `1Gi`, `1e3`) and numbers-or-names.
//!
//! Resource quantity syntax: apimachinery `resource.Quantity`: a signed decimal number with a binary
//! suffix (Ki…Ei), a decimal suffix (n, u, m, k, M, G, T, P, E) or an exponent.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An amount, kept as it was written.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Scalar", into = "String")]
pub struct Quantity(String);

/// Why text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("quantity {given:?}: {rule}")]
pub struct QuantityError {
    given: String,
    rule: &'static str,
}

impl Quantity {
    /// From its written form.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        scaled(text, 0)?;
        Ok(Self(text.to_owned()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whole units, rounded up: bytes of memory.
    pub fn units(&self) -> u64 {
        // Its syntax was checked on the way in: only overflow is left, and that saturates.
        scaled(&self.0, 0).unwrap_or(u64::MAX)
    }

    /// Thousandths, rounded up: milli-CPUs.
    pub fn millis(&self) -> u64 {
        scaled(&self.0, 3).unwrap_or(u64::MAX)
    }
}

/// `text` × 10^`power`, rounded up.
fn scaled(text: &str, power: i32) -> Result<u64, QuantityError> {
    let refuse = |rule| QuantityError { given: text.chars().take(64).collect(), rule };
    const SYNTAX: &str = "a number with an optional suffix like m, k, M, Ki, Mi or Gi is needed";
    if text.len() > 32 {
        return Err(refuse("at most 32 characters are allowed"));
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.starts_with('-') {
        return Err(refuse("it must not be negative"));
    }
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(refuse(SYNTAX));
    }
    let (binary, decimal) = match suffix {
        "" => (0, 0),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E']).ok_or_else(|| refuse(SYNTAX))?;
            let value: i32 = digits.parse().map_err(|_| refuse(SYNTAX))?;
            if !(-18..=18).contains(&value) {
                return Err(refuse("its exponent is out of range"));
            }
            (0, value)
        }
    };
    let overflow = || refuse("it is too large");
    let digits: u128 = format!("0{whole}{fraction}").parse().map_err(|_| overflow())?;
    let shifted = digits.checked_mul(1u128 << binary).ok_or_else(overflow)?;
    let exponent = decimal + power - i32::try_from(fraction.len()).map_err(|_| overflow())?;
    let ten = |n: u32| 10u128.checked_pow(n).ok_or_else(overflow);
    let value = if exponent >= 0 {
        shifted.checked_mul(ten(exponent.unsigned_abs())?).ok_or_else(overflow)?
    } else {
        shifted.div_ceil(ten(exponent.unsigned_abs())?)
    };
    u64::try_from(value).map_err(|_| overflow())
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> String {
        quantity.0
    }
}

/// What YAML and JSON may give where Kubernetes takes a number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Unsigned(u64),
    Float(f64),
    Text(String),
}

impl TryFrom<Scalar> for Quantity {
    type Error = QuantityError;
    fn try_from(value: Scalar) -> Result<Self, QuantityError> {
        match value {
            Scalar::Unsigned(number) => Self::parse(&number.to_string()),
            Scalar::Float(number) => Self::parse(&number.to_string()),
            Scalar::Text(text) => Self::parse(&text),
        }
    }
}

/// A port number or a port's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(u16),
    /// A name.
    String(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, units, millis) in [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("500m", 1, 500),
            ("0.1", 1, 100),
            ("1.5", 2, 1500),
            ("64Mi", 64 << 20, (64 << 20) * 1000),
            ("1.5Gi", 3 << 29, (3u64 << 29) * 1000),
            ("128974848", 128_974_848, 128_974_848_000),
            ("129e6", 129_000_000, 129_000_000_000),
            ("1e-3", 1, 1),
            ("100u", 1, 1),
            (".5", 1, 500),
            ("2.", 2, 2000),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.units(), quantity.millis()), (units, millis), "{text}");
        }
    }

    #[test]
    fn refused() {
        for bad in
            ["", "-1", "1.2.3", "x", "1KiB", "1 Gi", "1e99", "99999999999999999999", ".", "Mi", "1e", "0x10"]
        {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_and_text_both_parse() {
        let quantity: Quantity = serde_json::from_str("2").unwrap();
        assert_eq!(quantity.millis(), 2000);
        let quantity: Quantity = serde_json::from_str("0.25").unwrap();
        assert_eq!(quantity.millis(), 250);
        assert_eq!(serde_json::to_string(&quantity).unwrap(), "\"0.25\"");
        assert!(serde_json::from_str::<Quantity>("-1").is_err());
        assert!(serde_json::from_str::<Quantity>("true").is_err());
    }
}
