//! What the operator configures under `discover.eureka`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de};

use super::name::{Name, one_or_several};
use super::networks;
use crate::units::schema::{one_or_many, written_as};
use crate::units::{Secret, Timespan};
use crate::upstream::config::Url;

/// `eureka:`, the instances of an application in Eureka, asked for again and again. Those whose status
/// is `UP` are used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EurekaSource")]
pub struct Eureka {
    /// The name of the application, in small or capital letters.
    pub service: Name,
    /// Where Eureka answers, such as `http://127.0.0.1:8761/eureka`: one server, or a list. One that does
    /// not answer, or knows of no instance, is left for the next; an empty answer is accepted only if
    /// all of them give it. A user and a password may be part of
    /// it: `http://user:${EUREKA_PASSWORD}@eureka.internal:8761/eureka`.
    #[serde(deserialize_with = "servers")]
    #[schemars(schema_with = "one_or_many::<Server>")]
    pub address: Vec<Server>,
    /// What an instance is reached at: `address` (the default), its `ipAddr`, or `host`, its `hostName`.
    #[serde(default)]
    pub prefer: Prefer,
    /// Which of its ports: `plain` or `secure`, where instances without that one are not used, or `any`
    /// (the default): with `as` the one that fits its scheme; without, the plain one if it is enabled, else
    /// the secure one, over TLS; with `protocol: h2` the other way round.
    #[serde(default)]
    pub port: Port,
    /// A PEM file with the authorities that sign the certificate of an `https://` address; default
    /// those of the system.
    pub ca: Option<PathBuf>,
    /// Where instances may be: networks such as 10.0.0.0/8, or addresses; others are not used. Default:
    /// everywhere but at loopback (127.0.0.0/8, ::1) and link-local addresses (169.254.0.0/16, fe80::/10).
    #[serde(default, deserialize_with = "networks")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub allow: Vec<IpNet>,
    /// How often it is asked; 1 s to 10 min, default 10 s. Eureka answers from a copy that is up to 30 s old.
    #[serde(default = "default_every", deserialize_with = "every")]
    pub every: Timespan,
}

/// What an instance is reached at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EurekaPrefer")]
pub enum Prefer {
    /// Its address, `ipAddr`.
    #[default]
    Address,
    /// Its name, `hostName`.
    Host,
}

/// Which port of an instance gets the requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EurekaPort")]
pub enum Port {
    /// The one that is enabled; of both, the one that fits the scheme.
    #[default]
    Any,
    /// `port`.
    Plain,
    /// `securePort`.
    Secure,
}

impl Eureka {
    /// Whether there is TLS to its endpoints, as far as that is known before it is asked.
    pub fn is_tls(&self) -> Option<bool> {
        match self.port {
            Port::Any => None,
            Port::Plain => Some(false),
            Port::Secure => Some(true),
        }
    }

    /// As Eureka has it: in capital letters.
    pub fn application(&self) -> String {
        self.service.as_str().to_uppercase()
    }

    /// Whether `other` means the same endpoints. Of several servers, each has them.
    pub fn has_same_endpoints(&self, other: &Eureka) -> bool {
        let of = |one: &Eureka| (one.application(), one.prefer, one.port);
        let is_asked = |server: &Server| other.address.iter().any(|other| other.url == server.url);
        of(self) == of(other) && self.address.iter().any(is_asked)
    }

    /// In words, for log lines and `/status`.
    pub fn words(&self) -> String {
        format!("eureka {}", self.application())
    }
}

/// A server of Eureka.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Server {
    /// Where it is, without user and password.
    pub url: Url,
    /// What is shown to be let in.
    pub login: Option<Login>,
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Decoded.
    pub user: String,
    /// Decoded.
    pub password: Secret,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Server {
    type Err = String;

    /// No message repeats the text, which may have a password in it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let url = format!("{scheme}://{host}{path}").parse().ok();
        // A password with a slash in it would be host and path.
        let is_whole = |url: &Url| !url.place.is_socket() && !path.contains('@');
        let url = url.filter(is_whole).ok_or(
            "expected a URL such as http://user:password@eureka.internal:8761/eureka, with special \
             characters in the password percent-encoded",
        )?;
        Ok(Server { url, login: login.map(Login::read).transpose()? })
    }
}

impl Login {
    fn read(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decoded = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| "user and password are UTF-8".to_owned())
        };
        Ok(Login { user: decoded(user)?, password: Secret::new(decoded(password)?) })
    }
}

// It may hold a password.
written_as!(Server, "EurekaServer", {
    "description": "http://host:port/eureka or https://…; user:password@ before the host, better as ${VARIABLE}.",
    "type": "string",
    "pattern": "^([hH][tT][tT][pP][sS]?://)",
    "writeOnly": true,
});

fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Server>, D::Error> {
    one_or_several(deserializer, "a URL such as http://127.0.0.1:8761/eureka, or a list of them")
}

fn default_every() -> Timespan {
    Timespan::from_secs(10)
}

fn every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let span = Timespan::deserialize(deserializer)?;
    match (Timespan::from_secs(1)..=Timespan::from_secs(10 * 60)).contains(&span) {
        true => Ok(span),
        false => Err(de::Error::custom("must be from 1s to 10m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str, rest: &str) -> Result<Eureka, String> {
        serde_yaml::from_str(&format!("{{service: orders, address: {address}{rest}}}"))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_server_may_have_a_user_and_a_password() {
        let eureka = parse("['http://a:8761/eureka/', 'https://us%40er:p%3A@ss@b/eureka']", "")
            .expect("valid");
        let [one, two] = &eureka.address[..] else { panic!("two") };
        assert_eq!((one.url.to_string().as_str(), &one.login), ("http://a:8761/eureka", &None));
        assert_eq!(two.url.to_string(), "https://b/eureka");
        let login = two.login.as_ref().expect("a login");
        assert_eq!((login.user.as_str(), login.password.expose()), ("us@er", "p:@ss"));
        assert!(!format!("{eureka:?}").contains("@ss"), "{eureka:?}");
    }

    #[test]
    fn what_cannot_be_asked_is_refused_without_repeating_a_password() {
        for (wrong, says) in [
            ("'ftp://u:geheim@a'", "expected a URL"),
            ("'u:geheim@a:8761'", "expected a URL"),
            ("'http://u:geheim@'", "expected a URL"),
            ("'http://u:80/geheim@a:8761/eureka'", "expected a URL"),
            ("'http://u/geheim@a:8761/eureka'", "expected a URL"),
            ("unix:/run/a.sock", "expected a URL"),
            ("unix:///run/a.sock", "expected a URL"),
            ("[]", "at least one"),
        ] {
            let error = parse(wrong, "").expect_err(wrong);
            assert!(error.contains(says) && !error.contains("geheim"), "{wrong}: {error}");
        }
        for wrong in ["every: 0", "every: 11m", "prefer: name", "port: 80", "ports: any"] {
            assert!(parse("'http://a'", &format!(", {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn how_it_is_asked_does_not_make_it_another_source() {
        let one = parse("'http://a/eureka'", "").expect("valid");
        for (address, rest) in [
            ("'http://u:p@a/eureka'", ""),
            ("['http://b/eureka', 'http://a/eureka']", ", every: 30s"),
        ] {
            assert!(one.has_same_endpoints(&parse(address, rest).expect(rest)), "{address}");
        }
        for (address, rest) in [
            ("'http://b/eureka'", ""),
            ("'http://a/eureka'", ", prefer: host"),
            ("'http://a/eureka'", ", port: plain"),
        ] {
            assert!(!one.has_same_endpoints(&parse(address, rest).expect(rest)), "{address}{rest}");
        }
        assert_eq!(one.words(), "eureka ORDERS");
    }
}
