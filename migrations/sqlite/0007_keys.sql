-- The id of the API key that may see a sealed answer: the one that made the request. None in answers from before this
-- column, which nobody may see.
ALTER TABLE idempotency ADD COLUMN sealed_for TEXT;
