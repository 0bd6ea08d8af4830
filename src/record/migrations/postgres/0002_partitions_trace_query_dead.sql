ALTER TABLE invocations ADD COLUMN trace_id text, ADD COLUMN query text;

-- Rows that were refused, each with the reason and as one JSON object.
CREATE TABLE invocations_dead (
    id         uuid PRIMARY KEY,
    refused_at timestamptz NOT NULL DEFAULT now(),
    reason     text NOT NULL,
    invocation text NOT NULL
);

-- The first UUIDv7 of a moment. Partitions are cut by the id, which begins with its time: so the id
-- alone stays the key, and a row is stored once however often it is sent.
CREATE FUNCTION invocations_first_id(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0')
            || '00000000000000000000')::uuid
$$;

-- What is there becomes the first partition, as it is.
ALTER TABLE invocations RENAME TO invocations_until_now;
ALTER INDEX invocations_pkey RENAME TO invocations_until_now_pkey;
DROP INDEX invocations_created_at;

CREATE TABLE invocations (LIKE invocations_until_now) PARTITION BY RANGE (id);
ALTER TABLE invocations ADD PRIMARY KEY (id);
-- For queries by time that do not name ids; rows lie in its order, so it costs next to nothing.
CREATE INDEX invocations_created_at ON invocations USING brin (created_at);
CREATE INDEX invocations_request_id ON invocations (request_id);
CREATE TABLE invocations_other PARTITION OF invocations DEFAULT;

DO $$
DECLARE
    month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    bound uuid := invocations_first_id((month + interval '1 month') AT TIME ZONE 'UTC');
    name  text := 'invocations_' || to_char(month, 'YYYY_MM');
BEGIN
    WITH later AS (DELETE FROM invocations_until_now WHERE id >= bound RETURNING *)
    INSERT INTO invocations_other SELECT * FROM later;
    IF EXISTS (SELECT FROM invocations_until_now) THEN
        EXECUTE format('ALTER TABLE invocations_until_now RENAME TO %I', name);
        EXECUTE format('ALTER TABLE invocations ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
                       name, bound);
    ELSE
        DROP TABLE invocations_until_now;
    END IF;
END $$;
