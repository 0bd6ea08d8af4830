//! The columns of a row. To add one: a field of [`Invocation`], an entry at the end of [`COLUMNS`],
//! and a migration for each store.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http::Method;

use super::fields::Field;
use super::value::{Kind, Value};
use crate::record::invocation::Invocation;

/// One column: its name, what it holds, and how that gets out of a row and into one.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    pub(crate) settled: Settled,
    get: fn(&Invocation, bool) -> Value<'_>,
    set: fn(&mut Draft, Value<'_>) -> Option<()>,
    put: fn(&Invocation, bool, &mut Vec<u8>) -> bool,
    take: fn(&mut Draft, &mut &[u8]) -> Option<()>,
}

/// When the value of a column is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// With the first write of the row; the second does not change it.
    AtOnce,
    /// Once the request has ended.
    AtTheEnd,
}

use Settled::{AtOnce, AtTheEnd};

/// A column that is a field of [`Invocation`]. The field's type says what kind it is, and whether it
/// may be null.
macro_rules! column {
    ($name:literal, $($field:ident).+, $settled:ident) => {
        Column {
            name: $name,
            kind: shape(|it| &it.$($field).+).0,
            nullable: shape(|it| &it.$($field).+).1,
            settled: $settled,
            get: |it, _| it.$($field).+.value(),
            set: |draft, value| {
                draft.invocation.$($field).+ = Field::from_value(value)?;
                Some(())
            },
            put: |it, _, out| it.$($field).+.put(out),
            take: |draft, from| {
                draft.invocation.$($field).+ = Field::take(from)?;
                Some(())
            },
        }
    };
}

/// In the order in which the stores bind them and the journal's bytes hold them. A new column comes
/// at the end, and is nullable: see [`super`].
pub(crate) static COLUMNS: &[Column] = &[
    column!("id", id, AtOnce),
    column!("created_at", created_at, AtOnce),
    column!("request_id", request_id, AtOnce),
    column!("route", route, AtOnce),
    column!("upstream", upstream, AtTheEnd),
    column!("endpoint", endpoint, AtTheEnd),
    column!("consumer", consumer, AtOnce),
    column!("client_address", client_address, AtOnce),
    column!("method", method, AtOnce),
    column!("path", path, AtOnce),
    column!("status", status, AtTheEnd),
    column!("upstream_status", upstream_status, AtTheEnd),
    column!("success", success, AtTheEnd),
    column!("attempts", attempts, AtTheEnd),
    column!("rejection", rejection, AtTheEnd),
    column!("duration_us", duration, AtTheEnd),
    column!("upstream_duration_us", upstream_duration, AtTheEnd),
    column!("bytes_in", bytes_in, AtTheEnd),
    column!("bytes_out", bytes_out, AtTheEnd),
    column!("protocol", protocol, AtOnce),
    column!("name", captured.name, AtTheEnd),
    column!("result_message", captured.result_message, AtTheEnd),
    column!("captured", captured.other, AtTheEnd),
    Column {
        name: "completed",
        kind: Kind::Flag,
        nullable: false,
        settled: AtTheEnd,
        get: |_, completed| Value::Flag(completed),
        set: |draft, value| {
            draft.completed = Field::from_value(value)?;
            Some(())
        },
        put: |_, completed, out| Field::put(&completed, out),
        take: |draft, from| {
            draft.completed = Field::take(from)?;
            Some(())
        },
    },
    column!("trace_id", trace_id, AtOnce),
    column!("query", query, AtOnce),
    column!("cause", cause, AtTheEnd),
    column!("would_refuse", would_refuse, AtTheEnd),
];

const fn shape<F: Field>(_: fn(&Invocation) -> &F) -> (Kind, bool) {
    (F::KIND, F::NULLABLE)
}

/// The names of the columns.
pub fn names() -> impl Iterator<Item = &'static str> {
    COLUMNS.iter().map(|column| column.name)
}

/// The value of each column in a row.
pub(crate) fn values(
    it: &Invocation,
    completed: bool,
) -> impl ExactSizeIterator<Item = Value<'_>> + Send {
    COLUMNS.iter().map(move |column| column.value(it, completed))
}

impl Column {
    /// The value in a row; `completed` says whether the request had ended when it was written.
    pub(crate) fn value<'a>(&self, it: &'a Invocation, completed: bool) -> Value<'a> {
        (self.get)(it, completed)
    }

    /// Appends the value as the journal holds it, unless it is absent, and says whether it is present.
    pub(super) fn put(&self, it: &Invocation, completed: bool, out: &mut Vec<u8>) -> bool {
        (self.put)(it, completed, out)
    }
}

/// A row that is being read, column by column.
pub(crate) struct Draft {
    invocation: Invocation,
    completed: bool,
    /// A bit for each column that has been set.
    set: u64,
}

const _: () = assert!(COLUMNS.len() <= u64::BITS as usize);

impl Draft {
    pub(crate) fn new() -> Self {
        let (nothing, path) = (Arc::<str>::default(), String::new());
        let invocation =
            Invocation::new(UNIX_EPOCH, Arc::clone(&nothing), nothing, Method::default(), path);
        Draft { invocation, completed: false, set: 0 }
    }

    /// Sets one of [`COLUMNS`]; `None` if it cannot have this value, or has one already.
    pub(crate) fn set(&mut self, index: usize, value: Value<'_>) -> Option<()> {
        (self.once(index)?.set)(self, value)
    }

    /// Sets one of [`COLUMNS`] to what [`Column::put`] has appended.
    pub(super) fn take(&mut self, index: usize, from: &mut &[u8]) -> Option<()> {
        (self.once(index)?.take)(self, from)
    }

    fn once(&mut self, index: usize) -> Option<&'static Column> {
        let bit = 1 << index;
        let is_first = self.set & bit == 0;
        self.set |= bit;
        if is_first { COLUMNS.get(index) } else { None }
    }

    /// The row, and whether the request had ended when it was written; `None` if a column is missing
    /// that no row is without.
    pub(crate) fn finish(self) -> Option<(Invocation, bool)> {
        let is_set = |index: usize| self.set & (1 << index) != 0;
        let is_whole = |(index, column): (usize, &Column)| column.nullable || is_set(index);
        let whole = COLUMNS.iter().enumerate().all(is_whole);
        whole.then_some((self.invocation, self.completed))
    }
}
