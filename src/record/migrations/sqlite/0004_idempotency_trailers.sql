-- What came after the body of an answer, where anything did: gRPC says there how a call ended.
ALTER TABLE idempotency_keys ADD COLUMN trailers BLOB;
