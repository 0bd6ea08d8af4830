//! What the statements of both stores take from the list of columns.

use crate::record::row::columns::{COLUMNS, Column, Settled, names};

/// The names of the columns, separated by commas.
pub(super) fn columns() -> String {
    names().collect::<Vec<_>>().join(", ")
}

/// The columns that may change once the request has ended, each with its place in the list.
pub(super) fn at_the_end() -> impl Iterator<Item = (usize, &'static Column)> {
    COLUMNS.iter().enumerate().filter(|(_, column)| match column.settled {
        Settled::AtOnce => false,
        Settled::AtTheEnd => true,
    })
}

/// What an insert does if the row exists already.
pub(super) fn on_conflict(overwrite: bool) -> String {
    if !overwrite {
        // Nothing changes, but there is something to commit: with synchronous replication, the row that is
        // there already may not be with the standby yet, and only a commit waits for that.
        return "ON CONFLICT (id) DO UPDATE SET completed = invocations.completed".to_owned();
    }
    let set: Vec<String> = names()
        .filter(|name| !matches!(*name, "id" | "created_at"))
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    format!("ON CONFLICT (id) DO UPDATE SET {}", set.join(", "))
}
