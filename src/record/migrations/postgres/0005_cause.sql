-- Why a request failed, in one word; null for a success.
ALTER TABLE invocations ADD COLUMN cause text;
