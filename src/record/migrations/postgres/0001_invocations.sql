-- One row per request. The id is a UUIDv7: it sorts by time. Durations are in microseconds.
CREATE TABLE invocations (
    id                   uuid PRIMARY KEY,
    created_at           timestamptz NOT NULL,
    request_id           text NOT NULL,
    route                text NOT NULL,
    upstream             text,
    endpoint             text,
    consumer             text,
    client_address       inet,
    method               text NOT NULL,
    path                 text NOT NULL,
    status               integer NOT NULL,
    upstream_status      integer,
    success              boolean NOT NULL,
    attempts             integer NOT NULL,
    rejection            text,
    duration_us          bigint NOT NULL,
    upstream_duration_us bigint,
    bytes_in             bigint NOT NULL,
    bytes_out            bigint NOT NULL,
    protocol             text NOT NULL,
    name                 text,
    result_message       text,
    captured             jsonb,
    -- false until the request has ended
    completed            boolean NOT NULL
);

CREATE INDEX invocations_created_at ON invocations (created_at);
