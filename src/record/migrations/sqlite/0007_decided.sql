-- What replaying recorded requests needs: the host that the client named, the configuration that decided,
-- and digests of whom the request was counted for by each rate limit.
ALTER TABLE invocations ADD COLUMN host TEXT;
ALTER TABLE invocations ADD COLUMN generation INTEGER;
ALTER TABLE invocations ADD COLUMN limit_keys TEXT;
