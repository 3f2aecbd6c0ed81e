-- How endpoints do: one row for each endpoint whose last attempt failed (domain/health.rs), none for the others.
CREATE TABLE endpoint_health (
    endpoint_key     BIGINT PRIMARY KEY REFERENCES endpoints (key),
    first_failure_at BIGINT NOT NULL,
    failures         BIGINT NOT NULL,
    warned           BOOLEAN NOT NULL,
    -- Set while the endpoint is paused.
    paused_since     BIGINT,
    failed_probes    BIGINT NOT NULL DEFAULT 0,
    next_probe_at    BIGINT
);

-- Nothing in the lane is claimed before this instant: its endpoint is being left alone. `next_at` is never below it.
ALTER TABLE lanes ADD COLUMN not_before BIGINT;
-- Since when its endpoint is paused: then a claim takes one delivery, as a probe. Such a lane stays when it is empty.
ALTER TABLE lanes ADD COLUMN paused_since BIGINT;

CREATE INDEX lanes_paused ON lanes (paused_since) WHERE paused_since IS NOT NULL;
