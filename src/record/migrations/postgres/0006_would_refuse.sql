-- The code with which a policy that is not enforced would have refused the request; null if none would.
ALTER TABLE invocations ADD COLUMN would_refuse text;
