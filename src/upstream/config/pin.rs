//! A certificate that an upstream may show, named by its digest.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::units::schema::written_as;

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl FromStr for Pin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "must be the SHA-256 of a certificate: 64 hexadecimal digits, as \
                                `openssl x509 -noout -fingerprint -sha256` prints them, with or \
                                without colons";
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut pin = [0; 32];
        let pairs: Vec<&[u8]> = match text.contains(':') {
            true => text.as_bytes().split(|byte| *byte == b':').collect(),
            false => text.as_bytes().chunks(2).collect(),
        };
        if pairs.len() != pin.len() {
            return Err(EXPECTED);
        }
        for (byte, pair) in pin.iter_mut().zip(pairs) {
            let [high, low] = pair else { return Err(EXPECTED) };
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(EXPECTED) };
            *byte = high << 4 | low;
        }
        Ok(Pin(pin))
    }
}

/// As `openssl` prints it: capitals, with colons.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

written_as!(Pin, "Pin", {
    "description": "The SHA-256 of a certificate in DER: 64 hexadecimal digits, with or without colons.",
    "type": "string",
    "pattern": "^([0-9a-fA-F]{64}|[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){31})$",
});

/// At least one pin. What a variable has left empty must not mean that every certificate will do.
pub(super) fn pins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Pin>, D::Error> {
    let pins = BTreeSet::deserialize(deserializer)?;
    match pins.is_empty() {
        true => Err(de::Error::custom("must not be empty: name a certificate, or leave it out")),
        false => Ok(pins),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_what_openssl_prints_with_or_without_colons() {
        let printed = format!("0F:{}A0", "7b:".repeat(30));
        let pin: Pin = printed.parse().expect("a pin");
        assert_eq!((pin.0[0], pin.0[1], pin.0[31]), (0x0f, 0x7b, 0xa0));
        assert_eq!(printed.replace(':', "").parse(), Ok(pin));
        assert_eq!(pin.to_string(), printed.to_uppercase());
    }

    #[test]
    fn what_is_no_sha_256_in_hexadecimal_is_refused() {
        for wrong in [
            String::new(),
            // The pin of a public key, as curl and HPKP write it.
            "sha256//YhKJKSzoTt2b5FP18fvpHo7fJYqQCjAa3HWY3tvRMwE=".to_owned(),
            "ab".repeat(31),
            "ab".repeat(33),
            format!("{}zz", "ab".repeat(31)),
            format!("{}ab", "ab:".repeat(30)),
            format!("a:{}ab", "ab:".repeat(30)),
            format!("+1{}", "ab".repeat(31)),
            // SHA-1, which openssl prints by default.
            format!("{}ab", "ab:".repeat(19)),
            "é".repeat(32),
        ] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }
}
