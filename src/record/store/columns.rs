//! The columns of the table of invocations, in both stores.

/// The columns of `invocations`, in the order both stores bind them.
pub const COLUMNS: [&str; 27] = [
    "id",
    "created_at",
    "request_id",
    "route",
    "upstream",
    "endpoint",
    "consumer",
    "client_address",
    "method",
    "path",
    "status",
    "upstream_status",
    "success",
    "attempts",
    "rejection",
    "duration_us",
    "upstream_duration_us",
    "bytes_in",
    "bytes_out",
    "protocol",
    "name",
    "result_message",
    "captured",
    "completed",
    "trace_id",
    "query",
    "cause",
];

/// The [`COLUMNS`] that may change once the request has ended.
pub(crate) const AT_THE_END: [&str; 16] = [
    "upstream",
    "endpoint",
    "status",
    "upstream_status",
    "success",
    "attempts",
    "rejection",
    "duration_us",
    "upstream_duration_us",
    "bytes_in",
    "bytes_out",
    "name",
    "result_message",
    "captured",
    "completed",
    "cause",
];

/// What an insert does if the row exists already.
pub(crate) fn on_conflict(overwrite: bool) -> String {
    if !overwrite {
        return "ON CONFLICT (id) DO NOTHING".to_owned();
    }
    let set: Vec<String> = COLUMNS
        .iter()
        .filter(|column| !matches!(**column, "id" | "created_at"))
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    format!("ON CONFLICT (id) DO UPDATE SET {}", set.join(", "))
}
