//! What an operator configures about the record: the store, and what each route records.
//!
//! `config` checks that a store is configured if any route records.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::place;
use crate::record::capture::source::Sources;
use crate::record::store::safety::Safety;
use crate::units::{Secret, Size, Timespan};

/// The `record` section: one store for all routes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub store: Stores,
    /// How long rows are kept; older ones are deleted. Zero keeps them for ever.
    pub retention: Timespan,
    /// The most rows in memory, including those being written. A row that does not fit is dropped
    /// and counted.
    pub queue: NonZeroU32,
    /// How long a `sync` request waits for its commit, within its own deadline; the journal gets
    /// the same time again.
    pub commit_timeout: Timespan,
    pub batch: Batch,
    /// Whether a commit to the local disk before a response survives a crash of the machine, and
    /// not only of the process.
    pub fsync: bool,
    pub journal: Journal,
    /// For routes without a `record` of their own.
    pub default: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            store: Stores::default(),
            retention: Timespan::from_secs(30 * 24 * 60 * 60),
            queue: NonZeroU32::new(10_000).unwrap_or(NonZeroU32::MIN),
            commit_timeout: Timespan::from_secs(1),
            batch: Batch::default(),
            fsync: true,
            journal: Journal::default(),
            default: Policy::default(),
        }
    }
}

impl Config {
    /// Whether a route with this policy may commit rows to the journal.
    pub fn needs_journal(&self, policy: &Policy) -> bool {
        match (policy.mode, self.store.chosen()) {
            (_, None) | (Mode::Off | Mode::Async, Some(_)) => false,
            (Mode::Durable, Some(chosen)) => matches!(chosen, Chosen::Postgres(..)),
            (Mode::Sync, Some(_)) => policy.on_failure == OnFailure::Journal,
        }
    }

    /// Checks that the journal's file can be written; creates its directory if missing.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check_journal(&self) -> Result<(), String> {
        place::check("record.journal.path", &self.journal.path)
    }

    /// What commits have to survive that a response waits for.
    pub(crate) fn safety(&self) -> Safety {
        if self.fsync { Safety::Power } else { Safety::Process }
    }

    /// The settings of the process as a whole, without those of routes.
    pub fn of_process(&self) -> Self {
        Config { default: Policy::default(), ..self.clone() }
    }
}

/// The stores that may be configured. PostgreSQL is used if it has a URL, else SQLite if it has a
/// path.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stores {
    pub postgres: Option<Postgres>,
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
    Postgres(&'a Postgres, &'a PostgresUrl),
    Sqlite(&'a Sqlite, &'a Path),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Empty or null counts as absent, so that an environment variable can switch this store on.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub url: Option<PostgresUrl>,
    /// The most connections. Commits, batches and upkeep use one each at a time.
    #[serde(default = "pool_size")]
    pub pool_size: NonZeroU32,
    #[serde(default = "connect_timeout", deserialize_with = "positive")]
    pub connect_timeout: Timespan,
    /// The time limit of one statement. The server enforces it; one second later the gateway gives
    /// up on a server that has not replied.
    #[serde(default = "statement_timeout", deserialize_with = "positive")]
    pub statement_timeout: Timespan,
    /// PEM file of the authorities that may have signed the server's certificate. Without it,
    /// `sslmode` `prefer` and `require` encrypt and do not verify, as libpq does.
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

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sqlite {
    /// The database file; it and its directory are created if missing. Empty or null counts as
    /// absent.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub path: Option<PathBuf>,
    /// How large the file may get; zero means no limit but the disk's.
    #[serde(default)]
    pub max_size: Size,
    #[serde(default)]
    pub when_full: StoreFull,
}

/// What happens when the embedded store has reached its `max_size`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreFull {
    /// The oldest rows are deleted to make room.
    #[default]
    DeleteOldest,
    /// The store counts as down until retention makes room.
    Refuse,
}

/// How rows are batched.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    pub max_rows: NonZeroU32,
    /// How long the first row of a batch waits for more rows.
    pub max_delay: Timespan,
    /// The least time from the start of one journal commit that several requests waited for to the
    /// next; rows that arrive meanwhile are committed together. While requests to durable routes
    /// are still under way, up to three times as long; a request that takes longer than that is
    /// waited for once.
    pub commit_interval: Timespan,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            max_rows: NonZeroU32::new(500).unwrap_or(NonZeroU32::MIN),
            max_delay: Timespan::from_millis(20),
            commit_interval: Timespan::from_millis(1),
        }
    }
}

/// Where rows of `durable` wait to be shipped to PostgreSQL, and those of `on_failure: journal` for
/// any store.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// An SQLite file, created when first needed.
    pub path: PathBuf,
    /// How large the file may get; zero means no limit but the disk's.
    pub max_size: Size,
    pub when_full: WhenFull,
}

impl Default for Journal {
    fn default() -> Self {
        let path = PathBuf::from("data/journal.db");
        Journal { path, max_size: Size::mib(1024), when_full: WhenFull::default() }
    }
}

/// What happens to a request whose row does not fit into the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The client gets 503.
    #[default]
    Reject,
    /// The client gets its response; the row is dropped and counted.
    Drop,
}

/// The `record` section of a route.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub mode: Mode,
    pub on_failure: OnFailure,
    /// Fields of the row, and where each comes from: the first of its sources that is present.
    /// `name` and `result_message` have columns of their own, the others share the column
    /// `captured`.
    pub capture: BTreeMap<String, Sources>,
    /// Nothing is captured from a body larger than this.
    pub capture_limit: Size,
    /// Whether the query is kept, without the values of parameters that look like secrets.
    pub query: bool,
    /// Further parameters whose values are not kept.
    pub redact: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            mode: Mode::default(),
            on_failure: OnFailure::default(),
            capture: BTreeMap::new(),
            capture_limit: Size::kib(64),
            query: false,
            redact: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Off,
    /// Written after the response, from bounded memory.
    Async,
    /// Committed in the journal before the first byte of the response, and shipped to PostgreSQL;
    /// with the embedded store, committed there.
    Durable,
    /// Committed in the store before the first byte of the response.
    Sync,
}

/// What happens to a `sync` request whose row cannot be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The client gets 503.
    #[default]
    Reject,
    /// The row is committed in the journal, and shipped once the store is back.
    Journal,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Result<Config, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    fn policy(yaml: &str) -> Result<Policy, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_database_url_the_embedded_store_is_used() {
        let both = |url: &str| {
            config(&format!("store: {{postgres: {{url: '{url}'}}, sqlite: {{path: a.db}}}}"))
                .expect("valid")
                .store
        };
        assert!(
            matches!(both("").chosen(), Some(Chosen::Sqlite(_, path)) if path == Path::new("a.db"))
        );
        let stores = both("postgres://localhost/x");
        assert!(matches!(stores.chosen(), Some(Chosen::Postgres(..))), "{stores:?}");
    }

    #[test]
    fn no_store_is_no_store() {
        assert_eq!(config("{}").expect("valid").store.chosen(), None);
        let empty = config("store: {postgres: {url: }, sqlite: {path: ''}}").expect("valid");
        assert_eq!(empty.store.chosen(), None);
    }

    #[test]
    fn a_wrong_database_url_is_refused_without_being_repeated() {
        for url in ["mysql://u:hunter2@h/d", "postgres://u:hunter2@h/d?hunter2=1", "postgres://"] {
            let error = config(&format!("store: {{postgres: {{url: '{url}'}}}}")).expect_err(url);
            assert!(error.contains("URL") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_database_url_is_not_printed() {
        let printed = format!("{:?}", config("store: {postgres: {url: 'postgres://u:hunter2@h'}}"));
        assert!(printed.contains("Postgres") && !printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn a_route_records_nothing_unless_asked_to() {
        let policy = policy("{}").expect("valid");
        assert_eq!((policy.mode, policy.on_failure), (Mode::Off, OnFailure::Reject));
    }

    #[test]
    fn a_queue_holds_at_least_one_row() {
        assert!(config("queue: 0").is_err());
        assert!(config("batch: {max_rows: 0}").is_err());
    }
}
