-- The id begins with the time.
DROP INDEX IF EXISTS invocations_created_at;

ALTER TABLE invocations ADD COLUMN trace_id TEXT;
ALTER TABLE invocations ADD COLUMN query TEXT;

-- Rows that were refused, each with the reason and as one JSON object.
CREATE TABLE invocations_dead (
    id         TEXT PRIMARY KEY NOT NULL,
    refused_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    reason     TEXT NOT NULL,
    invocation TEXT NOT NULL
) WITHOUT ROWID;
