-- One row per request. The id is a UUIDv7: it sorts by time, so rows are appended to the table.
-- created_at is RFC 3339 in UTC with microseconds; durations are in microseconds.
CREATE TABLE invocations (
    id                   TEXT PRIMARY KEY NOT NULL,
    created_at           TEXT NOT NULL,
    request_id           TEXT NOT NULL,
    route                TEXT NOT NULL,
    upstream             TEXT,
    endpoint             TEXT,
    consumer             TEXT,
    client_address       TEXT,
    method               TEXT NOT NULL,
    path                 TEXT NOT NULL,
    status               INTEGER NOT NULL,
    upstream_status      INTEGER,
    success              INTEGER NOT NULL CHECK (success IN (0, 1)),
    attempts             INTEGER NOT NULL,
    rejection            TEXT,
    duration_us          INTEGER NOT NULL,
    upstream_duration_us INTEGER,
    bytes_in             INTEGER NOT NULL,
    bytes_out            INTEGER NOT NULL,
    protocol             TEXT NOT NULL,
    name                 TEXT,
    result_message       TEXT,
    captured             TEXT,
    -- 0 until the request has ended
    completed            INTEGER NOT NULL CHECK (completed IN (0, 1))
) WITHOUT ROWID;
