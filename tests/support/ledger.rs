//! What the store holds, read the way an operator's own queries read it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::gateway::Gateway;
use super::postgres::Postgres;
use super::wait::eventually;

/// One row of `invocations`: every value as text, as a terminal shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(pub BTreeMap<String, Option<String>>);

impl Row {
    #[track_caller]
    pub fn text(&self, column: &str) -> Option<&str> {
        let value = self.0.get(column);
        value.unwrap_or_else(|| panic!("no column {column} in {:?}", self.0.keys())).as_deref()
    }

    #[track_caller]
    pub fn number(&self, column: &str) -> i64 {
        let text = self.text(column).unwrap_or_else(|| panic!("{column} is null"));
        text.parse().unwrap_or_else(|_| panic!("{column} is no number: {text}"))
    }

    /// The dialects write truth differently.
    #[track_caller]
    pub fn is_true(&self, column: &str) -> bool {
        matches!(self.text(column), Some("1" | "t" | "true"))
    }
}

/// Where a test's gateway keeps its record.
pub enum Store {
    /// Beside the gateway.
    Sqlite,
    /// In a database of its own on the server that all tests share.
    Postgres { server: Arc<Postgres>, url: String },
}

impl Store {
    /// `None`, said loudly, where there is no PostgreSQL.
    pub fn postgres() -> Option<Self> {
        Some(Store::on(Postgres::shared()?))
    }

    /// A new database on a server of the test's own, which it may stop.
    pub fn on(server: Arc<Postgres>) -> Self {
        let url = server.database();
        Store::Postgres { server, url }
    }

    /// The configuration's section.
    pub fn section(&self) -> String {
        let store = match self {
            Store::Sqlite => "{sqlite: {path: \"${PORTCULLIS_DATA}/portcullis.db\"}}".to_owned(),
            Store::Postgres { url, .. } => format!("{{postgres: {{url: \"{url}\"}}}}"),
        };
        format!(
            "record: {{store: {store}, journal: {{path: \"${{PORTCULLIS_DATA}}/journal.db\"}}}}"
        )
    }

    /// Every row, oldest first; none where nothing was stored yet.
    pub fn rows(&self, gateway: &Gateway) -> Vec<Row> {
        match self {
            Store::Sqlite => Store::rows_in(&gateway.store()),
            Store::Postgres { server, url } => read_postgres(server, url),
        }
    }

    /// Every row of an embedded store, oldest first.
    pub fn rows_in(path: &Path) -> Vec<Row> {
        read_sqlite(path).unwrap_or_default()
    }

    /// Wait for `count` rows whose requests have ended; there must be no more.
    #[track_caller]
    pub fn wait_for_rows(&self, gateway: &Gateway, count: usize) -> Vec<Row> {
        let rows = eventually(&format!("{count} complete rows"), || {
            let rows = self.rows(gateway);
            (rows.iter().filter(|row| row.is_true("completed")).count() >= count).then_some(rows)
        });
        assert_eq!(rows.len(), count, "{rows:#?}");
        rows
    }
}

fn read_postgres(server: &Postgres, url: &str) -> Vec<Row> {
    let exists = server.query(url, "SELECT to_regclass('invocations') IS NOT NULL");
    if exists != "t" {
        return Vec::new();
    }
    let query = "SELECT row_to_json(i) FROM invocations i ORDER BY created_at, id";
    server.query(url, query).lines().map(parse).collect()
}

fn parse(line: &str) -> Row {
    let columns: BTreeMap<String, Value> = serde_json::from_str(line).expect("a row as JSON");
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    Row(columns.into_iter().map(|(name, value)| (name, text(value))).collect())
}

fn read_sqlite(path: &Path) -> rusqlite::Result<Vec<Row>> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let mut query = connection.prepare("SELECT * FROM invocations ORDER BY created_at, id")?;
    let names: Vec<String> = query.column_names().map(str::to_owned).collect();
    let rows = query.query_map([], |row| {
        let values = names
            .iter()
            .enumerate()
            .map(|(index, name)| Ok((name.clone(), written(row.get_ref(index)?))));
        values.collect::<rusqlite::Result<_>>().map(Row)
    })?;
    rows.collect()
}

fn written(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Some(bytes.iter().map(|b| format!("{b:02x}")).collect()),
    }
}
