-- Where the time of an attempt went, in milliseconds; null for a part that did not happen or did not end. Over a kept
-- connection all but the last are null.
ALTER TABLE attempts ADD COLUMN dns_ms BIGINT;
ALTER TABLE attempts ADD COLUMN connect_ms BIGINT;
ALTER TABLE attempts ADD COLUMN tls_ms BIGINT;
ALTER TABLE attempts ADD COLUMN first_byte_ms BIGINT;
-- Null where no exchange was begun: then there are no phases.
ALTER TABLE attempts ADD COLUMN connection_reused BOOLEAN;
