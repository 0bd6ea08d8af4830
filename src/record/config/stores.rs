//! `record.store`: which database holds the rows, and the limits of it.

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use tokio_postgres::config::Host;

use crate::units::schema::SecretText;
use crate::units::{Secret, Size, Timespan};

/// The stores that may be configured. PostgreSQL is used if it has a URL, else SQLite if it has a
/// path.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stores {
    /// Takes precedence over `sqlite`, if it has a URL; absent: not used.
    pub postgres: Option<Postgres>,
    /// The embedded store, if it has a path; absent: not used.
    pub sqlite: Option<Sqlite>,
}

impl Stores {
    /// The store to use; `None` means that nothing can be recorded.
    pub fn chosen(&self) -> Option<Chosen<'_>> {
        if let Some(postgres) = &self.postgres
            && let Some(url) = &postgres.url
        {
            return Some(Chosen::Postgres(postgres, url));
        }
        let sqlite = self.sqlite.as_ref()?;
        Some(Chosen::Sqlite(sqlite, sqlite.path.as_deref()?))
    }
}

/// The store that [`Stores::chosen`] has selected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Chosen<'a> {
    /// With its URL, which is present.
    Postgres(&'a Postgres, &'a PostgresUrl),
    /// With its path, which is present.
    Sqlite(&'a Sqlite, &'a Path),
}

/// PostgreSQL, shared by replicas.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`. Empty or null counts as absent, so that an
    /// environment variable can switch this store on.
    #[serde(default, deserialize_with = "text_or_nothing")]
    #[schemars(with = "Option<SecretText>")]
    pub url: Option<PostgresUrl>,
    /// The most connections; at least 1, default 8. Commits, batches and upkeep use one each at a
    /// time.
    #[serde(default = "pool_size")]
    pub pool_size: NonZeroU32,
    /// Limit on one connect, with TLS and login; longer than 0, default 2 s.
    #[serde(default = "connect_timeout", deserialize_with = "positive")]
    pub connect_timeout: Timespan,
    /// The time limit of one statement; longer than 0, default 5 s. The server enforces it; one
    /// second later the gateway gives up on a server that has not replied.
    #[serde(default = "statement_timeout", deserialize_with = "positive")]
    pub statement_timeout: Timespan,
    /// PEM file of the authorities that may have signed the server's certificate. Absent: `sslmode`
    /// `prefer` and `require` encrypt and do not verify, as libpq does. Read at the start only.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub ca: Option<PathBuf>,
}

fn pool_size() -> NonZeroU32 {
    NonZeroU32::new(8).unwrap_or(NonZeroU32::MIN)
}

fn connect_timeout() -> Timespan {
    Timespan::from_secs(2)
}

fn statement_timeout() -> Timespan {
    Timespan::from_secs(5)
}

/// A valid `postgres://` URL. It may contain a password, so no error message repeats it.
#[derive(Clone, PartialEq)]
pub struct PostgresUrl(Secret);

impl PostgresUrl {
    /// The parsed URL, as the driver's configuration.
    pub(crate) fn parsed(&self) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
        self.0.expose().parse()
    }
}

/// Prints the servers' addresses only.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(parsed) = self.parsed() else { return f.write_str("[redacted]") };
        for (n, host) in parsed.get_hosts().iter().enumerate() {
            f.write_str(if n > 0 { "," } else { "" })?;
            match host {
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
            let ports = parsed.get_ports();
            // One port may stand for all hosts.
            write!(f, ":{}", ports.get(n).or(ports.first()).unwrap_or(&5432))?;
        }
        Ok(())
    }
}

/// Prints the kind of database, and where it is.
impl fmt::Display for Chosen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chosen::Postgres(_, url) => write!(f, "postgres {url}"),
            Chosen::Sqlite(_, path) => write!(f, "sqlite {}", path.display()),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl FromStr for PostgresUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("expected a URL that begins with postgres:// or postgresql://".to_owned());
        }
        let url = PostgresUrl(Secret::new(text));
        match url.parsed() {
            Ok(parsed) if !parsed.get_hosts().is_empty() || !parsed.get_hostaddrs().is_empty() => {
                Ok(url)
            }
            Ok(_) => Err("the PostgreSQL URL names no host".to_owned()),
            // The driver's error may quote a part of the URL.
            Err(_) => Err("not a valid PostgreSQL URL: expected \
                           postgres://user:password@host:port/database?sslmode=disable|prefer|require, \
                           with special characters in the password percent-encoded"
                .to_owned()),
        }
    }
}

/// The embedded store: a file of SQLite that this process alone writes.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sqlite {
    /// The database file; it and its directory are created if missing. Empty or null counts as
    /// absent.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub path: Option<PathBuf>,
    /// How large the file may get, in bytes; 0, the default, means no limit but the disk's.
    #[serde(default)]
    pub max_size: Size,
    /// What happens at `max_size`; default `delete_oldest`.
    #[serde(default)]
    pub when_full: StoreFull,
}

/// What happens when the embedded store has reached its `max_size`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum StoreFull {
    /// The oldest rows are deleted to make room.
    #[default]
    DeleteOldest,
    /// The store counts as down until retention makes room.
    Refuse,
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let timespan = Timespan::deserialize(deserializer)?;
    if timespan.is_zero() {
        return Err(D::Error::custom(
            "must be more than 0: a store that hangs would never be given up",
        ));
    }
    Ok(timespan)
}

fn text_or_nothing<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(D::Error::custom),
        Some(_) | None => Ok(None),
    }
}
