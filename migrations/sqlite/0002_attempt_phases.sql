-- Where the time of an attempt went, in milliseconds; null for a part that did not happen or did not end. Over a kept
-- connection all but the last are null, and a null takes one byte.
ALTER TABLE attempts ADD COLUMN dns_ms INTEGER;
ALTER TABLE attempts ADD COLUMN connect_ms INTEGER;
ALTER TABLE attempts ADD COLUMN tls_ms INTEGER;
ALTER TABLE attempts ADD COLUMN first_byte_ms INTEGER;
-- 0 or 1, and null where no exchange was begun: then there are no phases.
ALTER TABLE attempts ADD COLUMN connection_reused INTEGER;
