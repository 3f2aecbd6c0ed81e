-- What an attempt sent, and to which address.

-- The request's head without what other columns tell (domain/sent_request.rs). None where nothing was sent, and in rows
-- from before this column; simulated attempts among those have `request_headers`.
ALTER TABLE attempts ADD COLUMN request BLOB;
-- 4 or 16 bytes.
ALTER TABLE attempts ADD COLUMN remote_address BLOB;
-- As the other phases.
ALTER TABLE attempts ADD COLUMN body_ms INTEGER;
