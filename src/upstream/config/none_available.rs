//! `when_none_available:` of an upstream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::units::Percent;
use crate::units::schema::written_as;

/// What is used when too few endpoints are available.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum NoneAvailable {
    /// All, if none is available.
    #[default]
    All,
    /// None: requests are refused.
    Refuse,
    /// All, if fewer than this share are available.
    AllBelow(Percent),
}

/// What is used of the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Those that are available.
    Available,
    /// All, because too few are available.
    All,
    /// None, because none is available.
    None,
}

impl NoneAvailable {
    /// What is used if `available` of `known` endpoints are.
    pub(in crate::upstream) fn usage(self, available: usize, known: usize) -> Use {
        match self {
            _ if known == 0 => Use::Available,
            NoneAvailable::All | NoneAvailable::AllBelow(_) if available == 0 => Use::All,
            NoneAvailable::Refuse if available == 0 => Use::None,
            NoneAvailable::AllBelow(share)
                if (available as f64) < share.fraction() * known as f64 - 1e-9 =>
            {
                Use::All
            }
            NoneAvailable::All | NoneAvailable::Refuse | NoneAvailable::AllBelow(_) => {
                Use::Available
            }
        }
    }
}

impl FromStr for NoneAvailable {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(NoneAvailable::All),
            "refuse" => Ok(NoneAvailable::Refuse),
            share => match share.parse::<Percent>() {
                Ok(share) => Ok(NoneAvailable::AllBelow(share)),
                Err(_) => Err("expected `all`, `refuse`, or a share such as 50%"),
            },
        }
    }
}

impl<'de> Deserialize<'de> for NoneAvailable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for NoneAvailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoneAvailable::All => f.write_str("all"),
            NoneAvailable::Refuse => f.write_str("refuse"),
            NoneAvailable::AllBelow(share) => share.fmt(f),
        }
    }
}

impl Serialize for NoneAvailable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

written_as!(NoneAvailable, "NoneAvailable", {
    "description": "What is used when no endpoint is available: all, refuse, or a share below which \
                    all are used, such as 50%.",
    "anyOf": [{ "enum": ["all", "refuse"] }, { "type": "string", "pattern": "%\\s*$" }],
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_uses_all_as_soon_as_fewer_are_available() {
        let half = "50%".parse::<NoneAvailable>().expect("valid");
        let used: Vec<_> = (0..=4).map(|available| half.usage(available, 4)).collect();
        assert_eq!(used, [Use::All, Use::All, Use::Available, Use::Available, Use::Available]);
    }

    #[test]
    fn without_a_share_one_available_endpoint_is_enough() {
        assert_eq!(NoneAvailable::All.usage(1, 100), Use::Available);
        assert_eq!(NoneAvailable::All.usage(0, 100), Use::All);
        assert_eq!(NoneAvailable::Refuse.usage(0, 100), Use::None);
        assert_eq!(NoneAvailable::All.usage(0, 0), Use::Available);
    }

    #[test]
    fn other_words_are_refused() {
        for text in ["", "none", "50", "101%", "ALL"] {
            assert!(text.parse::<NoneAvailable>().is_err(), "{text}");
        }
    }
}
