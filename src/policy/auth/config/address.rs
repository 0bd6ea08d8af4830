//! Addresses of what the gateway asks for authentication: key sets, introspection, forward auth.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};

use crate::units::schema::written_as;

/// The address of something that the gateway asks: `http` or `https`, without credentials in it.
#[derive(Clone, PartialEq)]
pub struct ServiceUrl(http::Uri);

impl ServiceUrl {
    /// The whole address, for asking. Its query may contain a token, so do not print it.
    pub fn expose(&self) -> String {
        self.0.to_string()
    }

    /// Whether the scheme is `https`.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}

/// Prints the address without the query.
impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let authority = self.0.authority().map_or("", http::uri::Authority::as_str);
        write!(f, "{scheme}://{authority}{}", self.0.path())
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ServiceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected an address such as https://auth.example.com/keys".to_owned();
        let uri: http::Uri = text.trim().parse().map_err(|_| wrong())?;
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong());
        };
        if authority.host().is_empty() {
            return Err(wrong());
        }
        if authority.as_str().contains('@') {
            return Err("this address must not hold a user name or password".to_owned());
        }
        Ok(ServiceUrl(uri))
    }
}

impl<'de> Deserialize<'de> for ServiceUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

// Its query may hold a token.
written_as!(ServiceUrl, "ServiceUrl", {
    "description": "http:// or https://, without user name and password.",
    "type": "string",
    "pattern": "^\\s*[hH][tT][tT][pP][sS]?://",
    "writeOnly": true,
});
