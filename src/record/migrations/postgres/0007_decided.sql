-- What replaying recorded requests needs: the host that the client named, the configuration that decided,
-- and digests of whom the request was counted for by each rate limit.
ALTER TABLE invocations ADD COLUMN host text;
ALTER TABLE invocations ADD COLUMN generation bigint;
ALTER TABLE invocations ADD COLUMN limit_keys text;
