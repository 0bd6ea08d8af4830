//! What an operator configures about the record: the store, and what each route records.
//!
//! `config` checks that a store is configured if any route records.

mod stores;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::Deserialize;
pub use stores::{Chosen, Postgres, PostgresUrl, Sqlite, StoreFull, Stores};

use super::place;
use crate::record::capture::source::Sources;
use crate::record::store::safety::Safety;
use crate::units::{Size, Timespan};

/// The `record` section: one store for all routes.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The database for rows and idempotency keys; default: none, and nothing can be recorded.
    pub store: Stores,
    /// How long rows are kept; older ones are deleted, a whole month at once. 0 keeps them for
    /// ever; default 30 days.
    pub retention: Timespan,
    /// The most rows in memory, including those being written, about 1 KiB each; at least 1,
    /// default 10,000. An `async` row that does not fit is dropped and counted; a request with
    /// another row waits.
    pub queue: NonZeroU32,
    /// How long a request waits for a store that commits nothing, within its own deadline; the
    /// journal gets the same time again. Default 1 s; more than three times
    /// `batch.commit_interval`.
    pub commit_timeout: Timespan,
    /// How many rows are written together, and how long they wait for each other.
    pub batch: Batch,
    /// Whether a commit to the local disk before a response survives a crash of the machine, and
    /// not only of the process; default: yes.
    pub fsync: bool,
    /// How long the end of the process waits for the store to take the rows that are left, those in the
    /// journal too; default 5 s. What the journal holds then, the next process with its file ships; `async`
    /// rows in memory are dropped and counted.
    pub drain_timeout: Timespan,
    /// Where rows wait for the store.
    pub journal: Journal,
    /// For routes without a `record` of their own; default: nothing is recorded.
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
            drain_timeout: Timespan::from_secs(5),
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

    /// The settings of the process as a whole that it keeps until its end.
    pub fn of_process(&self) -> Self {
        let (default, drain_timeout) = (Policy::default(), Timespan::default());
        Config { default, drain_timeout, ..self.clone() }
    }
}

/// How rows are batched.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// The most rows written at once; at least 1, default 500.
    pub max_rows: NonZeroU32,
    /// How long the first row of a batch waits for more rows; default 20 ms.
    pub max_delay: Timespan,
    /// The least time from the start of one journal commit that several requests waited for to the
    /// next; rows that arrive meanwhile are committed together. While requests to durable routes
    /// are still under way, up to three times as long; a request that takes longer than that is
    /// waited for once. Default 1 ms; less than a third of `commit_timeout`.
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
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// An SQLite file, created when first needed; default `data/journal.db`, relative to the
    /// working directory.
    pub path: PathBuf,
    /// How large the file may get, in bytes; 0 means no limit but the disk's, default 1 GiB.
    pub max_size: Size,
    /// What happens at `max_size`, or with a full disk; default `reject`.
    pub when_full: WhenFull,
}

impl Default for Journal {
    fn default() -> Self {
        let path = PathBuf::from("data/journal.db");
        Journal { path, max_size: Size::mib(1024), when_full: WhenFull::default() }
    }
}

/// What happens to a request whose row does not fit into the journal.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The client gets 503.
    #[default]
    Reject,
    /// The client gets its response; the row is dropped and counted.
    Drop,
}

/// The `record` section of a route.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Whether a row is written, and what the response waits for; default `off`.
    pub mode: Mode,
    /// What happens to a `sync` request whose row cannot be committed; default `reject`.
    pub on_failure: OnFailure,
    /// Fields of the row, and where each comes from: the first of its sources that is present.
    /// `name` and `result_message` have columns of their own, the others share the column
    /// `captured`. Default: none.
    pub capture: BTreeMap<String, Sources>,
    /// Nothing is captured from a body of more bytes than this; default 64 KiB.
    pub capture_limit: Size,
    /// Whether the query is kept, without the values of parameters that look like secrets; default:
    /// no.
    pub query: bool,
    /// Further parameters whose values are not kept; default: none.
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

/// What a request's response waits for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No row is written.
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
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The client gets 503.
    #[default]
    Reject,
    /// The row is committed in the journal, and shipped once the store is back.
    Journal,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
