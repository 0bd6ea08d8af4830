-- One row per idempotency key in use. What it is looked up by, and what it is compared by, are digests.
CREATE TABLE idempotency_keys (
    -- of consumer, route and key
    scope       bytea PRIMARY KEY,
    -- of the request that came first
    fingerprint bytea NOT NULL,
    route       text NOT NULL,
    -- who holds the lease
    owner       uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    -- the answer, once there is one; a body that was too large is null
    status      integer,
    head        bytea,
    body        bytea
);

CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);
