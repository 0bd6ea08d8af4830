//! `rate_limit_stores:` and `shared:` of a rate limit: where replicas count together.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use serde::de::{self, Deserialize, Deserializer};

use crate::units::schema::SecretText;
use crate::units::{Secret, Timespan};

/// `shared:` of a limit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// The name of an entry of `rate_limit_stores`.
    pub store: String,
    /// What happens while the store is unavailable; default `local`.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What happens to a request under a shared limit while its store is unavailable.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The limit does not apply.
    Open,
    /// The request is refused.
    Closed,
    /// Each replica counts on its own.
    #[default]
    Local,
}

/// An entry of `rate_limit_stores`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Where counts are kept.
    pub redis: Redis,
}

/// A Redis from 5.0 on, or a Valkey; a single server, not a cluster.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Empty or null counts as absent, so that an environment variable can switch the store on.
    /// Without it every replica counts on its own.
    #[serde(default, deserialize_with = "url_or_nothing")]
    #[schemars(with = "Option<SecretText>")]
    pub url: Option<RedisUrl>,
    /// How long a request waits for a reply; 1 ms to 1 s, default 4 ms. Timers are up to 1 ms late,
    /// so with the default no request waits longer than 5 ms.
    #[serde(default = "four_millis", deserialize_with = "timeout")]
    pub timeout: Timespan,
    /// The prefix of its keys, default `portcullis`.
    #[serde(default = "portcullis", deserialize_with = "prefix")]
    #[schemars(length(min = 1, max = 64))]
    pub prefix: String,
    /// PEM file of the authorities that may have signed the server's certificate; default those of
    /// the system.
    #[serde(default)]
    pub ca: Option<std::path::PathBuf>,
}

/// A valid `redis://` or `rediss://` URL. It may contain a password, so no error message repeats
/// it.
#[derive(Clone, PartialEq)]
pub struct RedisUrl(Secret);

impl RedisUrl {
    /// The parsed URL, as the driver's configuration.
    ///
    /// # Errors
    /// The driver does not accept the URL.
    pub fn parsed(&self) -> Result<ConnectionInfo, redis::RedisError> {
        self.0.expose().into_connection_info()
    }

    /// Whether the scheme is `rediss`.
    pub fn is_encrypted(&self) -> bool {
        self.0.expose().starts_with("rediss://")
    }
}

/// Prints the server's address only.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parsed() {
            Ok(info) => write!(f, "{}", info.addr()),
            Err(_) => f.write_str("[redacted]"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with("redis://") && !text.starts_with("rediss://") {
            return Err("expected a URL that begins with redis:// or rediss://".to_owned());
        }
        let url = RedisUrl(Secret::new(text));
        match url.parsed().as_ref().map(ConnectionInfo::addr) {
            Ok(ConnectionAddr::TcpTls { insecure: true, .. }) => {
                Err("`#insecure` is not supported: name the authority in `ca`".to_owned())
            }
            Ok(ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. }) => Ok(url),
            // The driver's error may quote a part of the URL.
            Ok(_) | Err(_) => Err("not a valid Redis URL: expected \
                                   redis://user:password@host:port/database, with special \
                                   characters in the password percent-encoded"
                .to_owned()),
        }
    }
}

fn url_or_nothing<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<RedisUrl>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(de::Error::custom),
        Some(_) | None => Ok(None),
    }
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let timeout = Timespan::deserialize(deserializer)?;
    if timeout < Timespan::from_millis(1) || timeout > Timespan::from_secs(1) {
        return Err(de::Error::custom(
            "must be from 1ms to 1s: every request may have to wait for it",
        ));
    }
    Ok(timeout)
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let prefix = String::deserialize(deserializer)?;
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(de::Error::custom("must be 1 to 64 printable ASCII characters without spaces"));
    }
    Ok(prefix)
}

fn four_millis() -> Timespan {
    Timespan::from_millis(4)
}

fn portcullis() -> String {
    "portcullis".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(redis: &str) -> Result<Redis, String> {
        let store: Result<Store, _> = serde_yaml::from_str(&format!("redis: {redis}"));
        store.map(|store| store.redis).map_err(|error| error.to_string())
    }

    #[test]
    fn a_store_needs_a_url_alone() {
        let redis = store("{url: 'redis://:pass@cache.internal:6380/2'}").expect("valid");
        assert_eq!((redis.timeout, redis.prefix.as_str()), (four_millis(), "portcullis"));
        let info = redis.url.as_ref().expect("a URL").parsed().expect("understood");
        assert_eq!(
            (info.addr().to_string(), info.redis_settings().db()),
            ("cache.internal:6380".into(), 2)
        );
    }

    #[test]
    fn without_a_url_there_is_no_store() {
        for text in ["{}", "{url: ''}", "{url: }"] {
            assert_eq!(store(text).expect(text).url, None);
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_being_repeated() {
        for url in [
            "http://:hunter2@h",
            "redis://:hunter2@",
            "redis://:hunter2@h/first",
            "rediss://:hunter2@h#insecure",
            "rediss://:hunter2@h#hunter2",
        ] {
            let error = store(&format!("{{url: '{url}'}}")).expect_err(url);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_url_is_shown_as_the_address_it_names() {
        let url: RedisUrl = "redis://ada:hunter2@h:1/0".parse().expect("valid");
        assert_eq!((url.to_string(), format!("{url:?}")), ("h:1".into(), "[redacted]".into()));
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in
            ["{timeout: 0s}", "{timeout: 2s}", "{prefix: ''}", "{prefix: 'a b'}", "{host: h}"]
        {
            assert!(store(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_whose_store_is_away_is_counted_here_unless_it_says_otherwise() {
        let shared: Shared = serde_yaml::from_str("{store: a}").expect("valid");
        assert_eq!(shared.on_failure, OnFailure::Local);
        assert!(serde_yaml::from_str::<Shared>("{store: a, on_failure: ignore}").is_err());
    }
}
