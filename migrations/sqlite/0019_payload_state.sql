-- Payloads go before the rows that they belong to.

-- domain/payload.rs, PayloadState. Where it is not 0, the envelope is empty.
ALTER TABLE events ADD COLUMN payload INTEGER NOT NULL DEFAULT 0;
-- The same of the headers and bodies, which are null where it is not 0.
ALTER TABLE attempts ADD COLUMN payload INTEGER NOT NULL DEFAULT 0;

-- Events whose payload is past its retention and stays while a delivery of them is to be sent (upkeep/payload.rs).
CREATE TABLE late_payloads (
    event_key INTEGER PRIMARY KEY
) STRICT;
