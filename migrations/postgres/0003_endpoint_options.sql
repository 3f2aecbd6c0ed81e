-- What an endpoint may be given beyond where it wants which events. Everything has a default, so what stands stays as it is.

-- Whole seconds, separated by a space; the server's own schedule where there is none.
ALTER TABLE endpoints ADD COLUMN retry_schedule TEXT;
-- For a whole exchange; the server's own where there is none.
ALTER TABLE endpoints ADD COLUMN timeout_seconds BIGINT;
-- Deliveries a second.
ALTER TABLE endpoints ADD COLUMN rate_limit BIGINT;
-- domain/endpoint_options.rs, DeliveryOrder: 0 none, 1 strict.
ALTER TABLE endpoints ADD COLUMN ordering BIGINT NOT NULL DEFAULT 0;
-- domain/endpoint_options.rs, SignatureSchemes: 0 v1, 1 v1 and v1a.
ALTER TABLE endpoints ADD COLUMN signature_schemes BIGINT NOT NULL DEFAULT 0;
-- The key that verifies v1a signatures of the newest secret's version, once that version has one.
ALTER TABLE endpoints ADD COLUMN public_key TEXT;
-- Separated by a space, in the order in which they were given; the values are in `endpoint_sealed`.
ALTER TABLE endpoints ADD COLUMN header_names TEXT NOT NULL DEFAULT '';
-- Hex; the certificate itself is in `endpoint_sealed`.
ALTER TABLE endpoints ADD COLUMN certificate_sha256 TEXT;
-- Counts the changes of what `endpoint_sealed` holds; what is opened of it counts only at this version.
ALTER TABLE endpoints ADD COLUMN sealed_version BIGINT NOT NULL DEFAULT 0;

-- The private key of v1a that belongs to this version of the secret, if there is one.
ALTER TABLE endpoint_secrets ADD COLUMN sealed_signing_key BYTEA;

-- An endpoint's sealed options: the values of its headers, and its certificate with the key.
CREATE TABLE endpoint_sealed (
    endpoint_key BIGINT NOT NULL REFERENCES endpoints (key),
    part         TEXT    NOT NULL, -- domain/endpoint_options.rs, SealedPart
    sealed       BYTEA    NOT NULL,
    PRIMARY KEY (endpoint_key, part)
);
