//! Values with units, as the operator writes them.
//!
//! Each type parses itself, so that an invalid value is reported at its place in the file.

pub mod placeholder;
mod reason;
pub mod schema;

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

pub use reason::reason;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A length of time: `250ms`, `5s`, `1m 30s`, `24h`. A bare number is refused, except `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespan(pub Duration);

impl Timespan {
    /// A length of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Timespan(Duration::from_secs(seconds))
    }

    /// A length of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Timespan(Duration::from_millis(millis))
    }
}

/// `wait` in whole seconds for `Retry-After`: rounded up, and at least 1, so that a client that
/// waits that long is never too early.
pub const fn retry_after_seconds(wait: Duration) -> u64 {
    let seconds =
        if wait.subsec_nanos() > 0 { wait.as_secs().saturating_add(1) } else { wait.as_secs() };
    if seconds == 0 { 1 } else { seconds }
}

impl Deref for Timespan {
    type Target = Duration;
    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl FromStr for Timespan {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "0" {
            return Ok(Timespan(Duration::ZERO));
        }
        humantime::parse_duration(text)
            .map(Timespan)
            .map_err(|_| "expected a duration with its unit, such as 250ms, 5s or 1m".to_owned())
    }
}

/// A number of bytes: `64KiB`, `10MB`, `512B`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// `n` × 1024 bytes.
    pub const fn kib(n: u64) -> Self {
        Size(n * 1024)
    }

    /// `n` × 1024² bytes.
    pub const fn mib(n: u64) -> Self {
        Size(n * 1024 * 1024)
    }

    /// As an operator would write it: exactly, in the largest unit that allows it.
    pub fn written(self) -> String {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let whole = units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit));
        let (unit, name) = whole.unwrap_or((1, "B"));
        format!("{}{name}", self.0 / unit)
    }

    /// The size as an index; saturates where `usize` is smaller.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", bytesize::ByteSize(self.0).display().iec())
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a size with its unit, such as 64KiB or 10MB".to_owned();
        if text.trim().bytes().all(|b| b.is_ascii_digit()) && text.trim() != "0" {
            return Err(wrong());
        }
        bytesize::ByteSize::from_str(text.trim()).map(|b| Size(b.as_u64())).map_err(|_| wrong())
    }
}

/// A share from 0 % to 100 %: `50%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// `percent` in 0..=100; clamped.
    pub const fn new(percent: u8) -> Self {
        Percent(if percent > 100 { 1.0 } else { percent as f64 / 100.0 })
    }

    /// The share as a fraction between 0 and 1.
    pub const fn fraction(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded: the fraction of 55 % is a little more than 0.55.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.trim()
            .strip_suffix('%')
            .and_then(|n| n.trim().parse::<f64>().ok())
            .filter(|n| (0.0..=100.0).contains(n))
            .map(|n| Percent(n / 100.0))
            .ok_or_else(|| "expected a percentage from 0% to 100%, such as 50%".to_owned())
    }
}

/// A secret value: never printed, not even by `Debug`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wiped from memory when dropped.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(SecretString::from(value.into()))
    }

    /// The value itself. The caller is responsible for where it goes.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl FromStr for Secret {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a secret must not be empty".to_owned());
        }
        Ok(Secret::new(text))
    }
}

struct Text<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    // YAML reads a bare `500` as a number; the parser then says that the unit is missing.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! deserialize_from_text {
    ($($type:ty: $what:literal),+ $(,)?) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(std::marker::PhantomData, $what))
            }
        }
    )+};
}

deserialize_from_text! {
    Timespan: "a duration such as 250ms, 5s or 1m",
    Size: "a size such as 64KiB or 10MB",
    Percent: "a percentage such as 50%",
    Secret: "a string",
}

/// Reads a [`Timespan`] that must be longer than zero; for `#[serde(deserialize_with)]`.
///
/// # Errors
/// Names the bound when the value is zero.
pub fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let span = Timespan::deserialize(deserializer)?;
    if span.is_zero() {
        return Err(de::Error::custom("must be longer than 0"));
    }
    Ok(span)
}

/// Reads a whole number from `MIN` to `MAX`, both included; for `#[serde(deserialize_with)]`.
///
/// # Errors
/// Names the bounds when the value is outside them.
pub fn bounded<'de, D, const MIN: u32, const MAX: u32>(deserializer: D) -> Result<u32, D::Error>
where
    D: Deserializer<'de>,
{
    let number = u64::deserialize(deserializer)?;
    u32::try_from(number)
        .ok()
        .filter(|n| (MIN..=MAX).contains(n))
        .ok_or_else(|| de::Error::custom(format_args!("must be from {MIN} to {MAX}, not {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_never_early_and_never_zero() {
        assert_eq!(retry_after_seconds(Duration::ZERO), 1);
        assert_eq!(retry_after_seconds(Duration::from_secs(7)), 7);
        assert_eq!(retry_after_seconds(Duration::from_nanos(7_000_000_001)), 8);
    }

    #[test]
    fn durations_carry_a_unit() {
        assert_eq!("250ms".parse(), Ok(Timespan::from_millis(250)));
        assert_eq!("1m 30s".parse(), Ok(Timespan::from_secs(90)));
        assert_eq!("0".parse(), Ok(Timespan::default()));
        assert!("500".parse::<Timespan>().is_err());
        assert!("-1s".parse::<Timespan>().is_err());
    }

    #[test]
    fn sizes_carry_a_unit() {
        assert_eq!("64KiB".parse(), Ok(Size::kib(64)));
        assert_eq!("10MB".parse(), Ok(Size(10_000_000)));
        assert!("65536".parse::<Size>().is_err());
    }

    #[test]
    fn percentages_stay_within_their_whole() {
        assert_eq!("50%".parse::<Percent>().map(Percent::fraction), Ok(0.5));
        assert!("101%".parse::<Percent>().is_err());
        assert!("0.5".parse::<Percent>().is_err());
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
    }
}
