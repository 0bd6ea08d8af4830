-- One row per idempotency key in use. What it is looked up by, and what it is compared by, are digests.
-- Times are milliseconds since the Unix epoch.
CREATE TABLE idempotency_keys (
    -- of consumer, route and key
    scope       BLOB PRIMARY KEY NOT NULL,
    -- of the request that came first
    fingerprint BLOB NOT NULL,
    route       TEXT NOT NULL,
    -- who holds the lease
    owner       BLOB NOT NULL,
    lease_until INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    -- the answer, once there is one; a body that was too large is null
    status      INTEGER,
    head        BLOB,
    body        BLOB
);

CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);
