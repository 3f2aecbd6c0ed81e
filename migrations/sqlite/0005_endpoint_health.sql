-- How endpoints do: one row for each endpoint whose last attempt failed (domain/health.rs), none for the others.
CREATE TABLE endpoint_health (
    endpoint_key     INTEGER PRIMARY KEY REFERENCES endpoints (key),
    first_failure_at INTEGER NOT NULL,
    failures         INTEGER NOT NULL,
    warned           INTEGER NOT NULL,
    -- Set while the endpoint is paused.
    paused_since     INTEGER,
    failed_probes    INTEGER NOT NULL DEFAULT 0,
    next_probe_at    INTEGER
) STRICT;

-- Nothing in the lane is claimed before this instant: its endpoint is being left alone. `next_at` is never below it.
ALTER TABLE lanes ADD COLUMN not_before INTEGER;
-- Since when its endpoint is paused: then a claim takes one delivery, as a probe. Such a lane stays when it is empty.
ALTER TABLE lanes ADD COLUMN paused_since INTEGER;

CREATE INDEX lanes_paused ON lanes (paused_since) WHERE paused_since IS NOT NULL;
