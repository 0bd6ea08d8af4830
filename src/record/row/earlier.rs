//! Versions 2 and 3 of the binary form, which journals of builds before the list may hold. They are
//! only read.
//!
//! They are the columns in an order of their own. One that is nullable has a byte before it, which
//! tells whether it is present; only the trace and the captured texts are always there. Version 3 has
//! the cause after the others.

use super::bytes::Bytes;
use super::columns::{COLUMNS, Column, Draft};
use super::value::Kind;
use crate::record::invocation::Invocation;

const VERSION: u8 = 2;
const WITH_CAUSE: u8 = 3;

#[rustfmt::skip]
const ORDER: [&str; 26] = [
    "id", "created_at", "request_id", "trace_id", "route", "upstream", "endpoint", "consumer",
    "client_address", "method", "path", "query", "status", "upstream_status", "success", "attempts",
    "rejection", "duration_us", "upstream_duration_us", "bytes_in", "bytes_out", "protocol", "name",
    "result_message", "captured", "completed",
];
const CAUSE: &str = "cause";

/// The row in `bytes`, which follow the version.
pub(super) fn read(version: u8, mut bytes: &[u8]) -> Option<(Invocation, bool)> {
    let cause: &[&str] = match version {
        VERSION => &[],
        WITH_CAUSE => &[CAUSE],
        _ => return None,
    };
    let mut draft = Draft::new();
    for name in ORDER.iter().chain(cause) {
        let index = COLUMNS.iter().position(|column| column.name == *name)?;
        if !may_be_absent(&COLUMNS[index]) || bool::read(&mut bytes)? {
            draft.take(index, &mut bytes)?;
        }
    }
    if bytes.is_empty() { draft.finish() } else { None }
}

fn may_be_absent(column: &Column) -> bool {
    column.nullable && !matches!(column.kind, Kind::Trace | Kind::Texts) && column.name != CAUSE
}
