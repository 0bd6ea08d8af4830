//! `admin`: where the admin listener is reached, and who may use it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::config::socket_path::socket_path;
use crate::routing::host::HostPattern;
use crate::units::Secret;
use crate::units::schema::{one_or_many, written_as};

/// Written instead of an address where there is to be none.
const OFF: &str = "off";
/// A token of fewer bytes can be guessed: 16 random bytes are 22 in base64.
const LEAST_TOKEN: usize = 16;

/// The listener for health, metrics, state and orders.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// IP address and port; default 127.0.0.1:9901. It must not be exposed to the public. `off`: it
    /// is reached at `socket` only.
    #[serde(deserialize_with = "address_or_off")]
    #[schemars(schema_with = "address_schema")]
    pub address: Option<SocketAddr>,
    /// Absolute path of a Unix socket where it is reached, too. Only the gateway's own user, and
    /// root, may open it (mode 0600); no token is asked for there. Default: none.
    #[serde(deserialize_with = "socket_path")]
    pub socket: Option<PathBuf>,
    /// With it, what comes over `address` needs `Authorization: Bearer` and this token, but for
    /// health and metrics; 401 without. One, or a list of which each is valid, so that it can be
    /// replaced without a gap. At least 16 bytes, visible ASCII without spaces. Default: none.
    #[serde(deserialize_with = "tokens")]
    #[schemars(schema_with = "one_or_many::<Token>")]
    pub token: Vec<Token>,
    /// Host names, besides `localhost` and IP addresses, under which state and orders are served
    /// over `address`; 421 for others. Default: none.
    pub hosts: Vec<HostPattern>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            address: Some(SocketAddr::from(([127, 0, 0, 1], 9901))),
            socket: None,
            token: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

/// What an operator shows to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Secret);

impl Token {
    /// The token itself. The caller is responsible for where it goes.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secret = Secret::deserialize(deserializer)?;
        if !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(de::Error::custom(
                "a token is visible ASCII without spaces, or no client could send it; look for a line \
                 break at its end",
            ));
        }
        if secret.expose().len() < LEAST_TOKEN {
            return Err(de::Error::custom(format_args!(
                "a token must be at least {LEAST_TOKEN} bytes long, or it could be guessed; `openssl rand -hex 32` \
                 makes one"
            )));
        }
        Ok(Token(secret))
    }
}

// A token of digits alone is a number in YAML.
written_as!(Token, "Token", {
    "description": "A secret of at least 16 bytes; better ${VARIABLE} or ${file:path} than the secret itself.",
    "type": ["string", "integer"],
    "writeOnly": true,
});

/// One token, or a list of them.
///
/// # Errors
/// Says what a token looks like, without the token.
pub fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Token>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<Token>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a token, or a list of tokens")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<Token>, E> {
            Token::deserialize(de::value::StrDeserializer::new(text)).map(|token| vec![token])
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Vec<Token>, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<Token>, A::Error> {
            let tokens = Vec::deserialize(SeqAccessDeserializer::new(list))?;
            if tokens.is_empty() {
                return Err(de::Error::custom(
                    "name at least one token, or remove the key: an empty list would let everyone in",
                ));
            }
            Ok(tokens)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

fn address_or_off<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == OFF {
        return Ok(None);
    }
    text.parse().map(Some).map_err(de::Error::custom)
}

fn address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Admin, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn one_token_or_a_list_of_them() {
        let exposed = |yaml: &str| -> Vec<String> {
            let admin = read(yaml).expect("valid");
            admin.token.iter().map(|token| token.expose().to_owned()).collect()
        };
        assert!(exposed("{}").is_empty());
        assert_eq!(exposed("token: 0123456789abcdef"), ["0123456789abcdef"]);
        assert_eq!(exposed("token: 1234567890123456"), ["1234567890123456"]);
        let two = "token: [0123456789abcdef, fedcba9876543210]";
        assert_eq!(exposed(two), ["0123456789abcdef", "fedcba9876543210"]);
    }

    #[test]
    fn a_token_that_could_be_guessed_or_never_be_sent_is_refused_without_being_shown() {
        for wrong in ["''", "0123456789abcde", "'0123456789abcdef\n\n'", "'0123456 89abcdef'", "[]"]
        {
            let error = read(&format!("token: {wrong}")).expect_err(wrong);
            assert!(!error.contains("012345"), "{error}");
        }
        let second = read("token: [0123456789abcdef, short]").expect_err("too short");
        assert!(!second.contains("short]") && second.contains("16 bytes"), "{second}");
    }

    #[test]
    fn the_address_may_be_off() {
        let address = |yaml: &str| read(yaml).map(|admin| admin.address);
        assert_eq!(address("{}"), Ok(Some(SocketAddr::from(([127, 0, 0, 1], 9901)))));
        assert_eq!(address("{address: off, socket: /run/a.sock}"), Ok(None));
        assert!(address("address: none").is_err());
    }

    #[test]
    fn a_socket_has_an_absolute_path_that_fits() {
        assert!(read("socket: /run/portcullis/admin.sock").is_ok());
        for wrong in ["admin.sock", "''", &format!("/{}", "a".repeat(107))] {
            assert!(read(&format!("socket: {wrong}")).is_err(), "{wrong}");
        }
    }
}
