-- The first schema. Instants are integer milliseconds since the Unix epoch. Row keys carry their millisecond of
-- creation in the upper bits (`domain/id.rs`), so `ORDER BY key DESC` is newest first and an age is a range of keys.
-- Tables and columns are those of `migrations/sqlite`; what only several nodes need stands at the end.

-- Facts about the store itself: its tag, the master key's id, the sealed canary.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);

-- Which run of the server's this is. Not logged, so it is empty after a crash or a failover, and then is filled anew: what was begun
-- before is known to be of another run, and its transaction id, which may have been lost and given out again, says nothing.
CREATE UNLOGGED TABLE server_run (
    id BIGINT NOT NULL
);

CREATE UNIQUE INDEX server_run_is_one ON server_run ((TRUE));

-- The event catalogues that this store has had. The one with the highest version counts.
CREATE TABLE catalogues (
    version      BIGINT PRIMARY KEY,
    text         TEXT   NOT NULL, -- the TOML file as it was given
    content_hash BYTEA  NOT NULL, -- of what it says, whatever its layout
    brand        TEXT   NOT NULL,
    names        TEXT   NOT NULL, -- separated by a space, retired ones too
    adopted_at   BIGINT NOT NULL
);

CREATE TABLE workspaces (
    key            BIGINT PRIMARY KEY,
    id             TEXT   NOT NULL UNIQUE,
    name           TEXT   NOT NULL,
    -- Bumped by every write to the workspace's endpoints and secrets; what is cached counts only at this version.
    config_version BIGINT NOT NULL DEFAULT 1,
    deleted_at     BIGINT
);

-- A deleted workspace gives its name free.
CREATE UNIQUE INDEX workspaces_by_name ON workspaces (name) WHERE deleted_at IS NULL;

CREATE TABLE api_keys (
    key           BIGINT   PRIMARY KEY,
    id            TEXT     NOT NULL UNIQUE,
    workspace_key BIGINT   NOT NULL REFERENCES workspaces (key),
    name          TEXT,
    mode          SMALLINT NOT NULL, -- 0 live, 1 test
    hash          BYTEA    NOT NULL UNIQUE,
    last4         TEXT     NOT NULL,
    scopes        TEXT     NOT NULL, -- separated by a space
    expires_at    BIGINT,
    revoked_at    BIGINT
);

CREATE INDEX api_keys_by_workspace ON api_keys (workspace_key, key);

CREATE TABLE endpoints (
    key             BIGINT  PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    workspace_key   BIGINT  NOT NULL REFERENCES workspaces (key),
    project_id      TEXT,
    name            TEXT    NOT NULL,
    url             TEXT    NOT NULL,
    events          TEXT    NOT NULL, -- separated by a space, in the order of the catalogue
    is_active       BOOLEAN NOT NULL,
    disabled_reason TEXT,
    -- The secret that signs what is enqueued now, and the oldest that may still sign what was enqueued before.
    secret_version  BIGINT  NOT NULL,
    oldest_secret_version BIGINT NOT NULL DEFAULT 1,
    secret_last4    TEXT    NOT NULL,
    updated_at      BIGINT  NOT NULL,
    deleted_at      BIGINT
);

-- One workspace's endpoints, newest first: lists, the limits, and filling the cache that matches events.
CREATE INDEX endpoints_by_workspace ON endpoints (workspace_key, key) WHERE deleted_at IS NULL;

CREATE TABLE endpoint_secrets (
    endpoint_key  BIGINT NOT NULL REFERENCES endpoints (key),
    version       BIGINT NOT NULL,
    sealed        BYTEA  NOT NULL,
    -- Deliveries enqueued before this instant carry the previous version's signature too.
    overlap_until BIGINT,
    PRIMARY KEY (endpoint_key, version)
);

-- The log: append-mostly, partitioned by day (a day is a range of keys), removed by dropping whole days. The partitions of the
-- days are made by the nodes (store/postgres/partition.rs). The default partition takes what belongs to no day that has one:
-- above all what was kept of a day that was dropped, because it is still to be sent.

CREATE TABLE events (
    key           BIGINT   PRIMARY KEY,
    workspace_key BIGINT   NOT NULL,
    mode          SMALLINT NOT NULL,
    type          TEXT     NOT NULL,
    project_id    TEXT,
    external_id   TEXT,
    occurred_at   BIGINT,
    deliveries    INTEGER  NOT NULL,
    -- The bytes that every attempt sends.
    envelope      BYTEA    NOT NULL
) PARTITION BY RANGE (key);

CREATE TABLE events_kept PARTITION OF events DEFAULT;

-- Lists of a workspace's events, newest first.
CREATE INDEX events_by_workspace ON events (workspace_key, key);

CREATE TABLE deliveries (
    key           BIGINT   PRIMARY KEY,
    workspace_key BIGINT   NOT NULL,
    endpoint_key  BIGINT   NOT NULL,
    event_key     BIGINT   NOT NULL,
    mode          SMALLINT NOT NULL,
    status        SMALLINT NOT NULL, -- domain/delivery.rs, DeliveryStatus
    reason        SMALLINT,          -- domain/delivery.rs, EndReason
    cause         SMALLINT NOT NULL, -- domain/delivery.rs, DeliveryCause
    retry_of      BIGINT,
    attempts      INTEGER  NOT NULL DEFAULT 0,
    completed_at  BIGINT,
    -- The status, of those that did not arrive. A column of its own, so that the update which ends an ordinary delivery changes
    -- nothing that is indexed and can stay on its page.
    unusual       SMALLINT GENERATED ALWAYS AS (CASE WHEN status BETWEEN 2 AND 5 THEN status END) STORED
) PARTITION BY RANGE (key);

-- Each row is updated once, soon: room for its second version on the same page.
CREATE TABLE deliveries_kept PARTITION OF deliveries DEFAULT WITH (fillfactor = 70);

CREATE INDEX deliveries_by_workspace ON deliveries (workspace_key, key);
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint_key, key);
CREATE INDEX deliveries_by_event ON deliveries (event_key);
-- What did not arrive, found without walking past all that did.
CREATE INDEX deliveries_unusual ON deliveries (workspace_key, unusual, key) WHERE unusual IS NOT NULL;

CREATE TABLE attempts (
    delivery_key     BIGINT   NOT NULL,
    number           INTEGER  NOT NULL,
    started_at       BIGINT   NOT NULL,
    duration_ms      BIGINT   NOT NULL,
    outcome          SMALLINT NOT NULL, -- domain/attempt.rs, AttemptOutcome
    response_status  INTEGER,
    -- Kept where nothing was sent: exactly what would have been. JSON arrays of [name, value].
    request_headers  TEXT,
    response_headers TEXT,
    response_body    BYTEA,
    error            TEXT,
    next_attempt_at  BIGINT,
    PRIMARY KEY (delivery_key, number)
) PARTITION BY RANGE (delivery_key);

CREATE TABLE attempts_kept PARTITION OF attempts DEFAULT;

-- The queue: one narrow row for each delivery that is not finished, deleted when it is. Never partitioned: it is small and hot.
CREATE TABLE due (
    delivery_key        BIGINT   PRIMARY KEY,
    -- The endpoint's key; negative for tests, which have a lane of their own (see `lanes`).
    lane_key            BIGINT   NOT NULL,
    event_key           BIGINT   NOT NULL,
    -- When it may be claimed. A claim moves it to the end of its lease, so a lost claim becomes due by itself.
    due_at              BIGINT   NOT NULL,
    mode                SMALLINT NOT NULL,
    cause               SMALLINT NOT NULL,
    -- Attempts allocated so far: the number of the last claim.
    attempts            INTEGER  NOT NULL DEFAULT 0,
    -- Waits of the retry schedule used so far.
    step                INTEGER  NOT NULL DEFAULT 0,
    -- Names the claim under way; an outcome is recorded only by who holds it.
    claim_token         BIGINT,
    claimed_at          BIGINT,
    secret_version      BIGINT   NOT NULL,
    also_secret_version BIGINT
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- The next due row of one lane, whatever the backlog of any.
CREATE INDEX due_by_lane ON due (lane_key, due_at);
-- What is still to be sent of a day that age takes.
CREATE INDEX due_by_event ON due (event_key);

-- One row for each endpoint with something in `due`. An endpoint that is off holds its lane, but a test is sent all the
-- same: so tests go through a lane of their own, whose key is the endpoint's with the sign turned, and which is never held.
CREATE TABLE lanes (
    lane_key      BIGINT PRIMARY KEY,
    workspace_key BIGINT NOT NULL,
    -- Nothing in the lane need be claimed before this instant; moved up when a claim finds it too low. Of the lanes past
    -- theirs the earliest is served first.
    next_at       BIGINT NOT NULL,
    -- Since when the lane waits for its endpoint to be active again.
    held_since    BIGINT
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX lanes_by_next ON lanes (next_at) WHERE held_since IS NULL;
CREATE INDEX lanes_held ON lanes (held_since) WHERE held_since IS NOT NULL;

-- Dedupe of publishes by the publisher's own id, within the retention of events.
CREATE TABLE publish_keys (
    workspace_key BIGINT   NOT NULL,
    mode          SMALLINT NOT NULL,
    external_id   TEXT     NOT NULL,
    event_key     BIGINT   NOT NULL,
    body_hash     BYTEA    NOT NULL,
    PRIMARY KEY (workspace_key, mode, external_id)
);

-- Those of a day that age takes.
CREATE INDEX publish_keys_by_event ON publish_keys (event_key);

-- Answers kept for replay. The key carries the instant of the first request, from which the window counts.
CREATE TABLE idempotency (
    key             BIGINT   PRIMARY KEY,
    workspace_key   BIGINT   NOT NULL,
    mode            SMALLINT NOT NULL,
    route           TEXT     NOT NULL,
    idempotency_key TEXT     NOT NULL,
    body_hash       BYTEA    NOT NULL,
    status          INTEGER  NOT NULL,
    body            BYTEA    NOT NULL,
    sealed          BOOLEAN  NOT NULL,
    UNIQUE (workspace_key, mode, route, idempotency_key)
);

-- Jobs that send again what an endpoint did not get, oldest first.
CREATE TABLE replays (
    key           BIGINT   PRIMARY KEY,
    workspace_key BIGINT   NOT NULL,
    endpoint_key  BIGINT   NOT NULL,
    mode          SMALLINT NOT NULL,
    since         BIGINT   NOT NULL,
    until         BIGINT   NOT NULL,
    statuses      TEXT     NOT NULL, -- codes of domain/delivery.rs, DeliveryStatus, separated by a space
    status        SMALLINT NOT NULL, -- domain/replay.rs, ReplayStatus
    -- Everything up to this delivery has been dealt with.
    cursor        BIGINT   NOT NULL,
    total         BIGINT   NOT NULL,
    replayed      BIGINT   NOT NULL DEFAULT 0,
    unavailable   BIGINT   NOT NULL DEFAULT 0,
    completed_at  BIGINT
);

CREATE INDEX replays_by_endpoint ON replays (endpoint_key, key);
CREATE INDEX replays_running ON replays (key) WHERE status = 0;

-- Who wrote what, when, by which request: one row for each write, in its transaction, never changed.
CREATE TABLE audit (
    key           BIGINT   PRIMARY KEY,
    workspace_key BIGINT   NOT NULL,
    actor         TEXT,              -- the id of the API key; none for the command line
    mode          SMALLINT NOT NULL,
    action        TEXT     NOT NULL, -- domain/audit.rs, AuditAction
    resource_id   TEXT     NOT NULL,
    request_id    TEXT
);

CREATE INDEX audit_by_workspace ON audit (workspace_key, key);
CREATE INDEX audit_by_resource ON audit (workspace_key, resource_id, key);

-- Only here: what several nodes need.


-- The number that tells one process's row keys from another's, leased while the process runs (store/postgres/node.rs).
CREATE TABLE nodes (
    number  SMALLINT PRIMARY KEY CHECK (number BETWEEN 0 AND 511),
    -- Drawn at random by the process that holds the number.
    holder  BIGINT   NOT NULL,
    seen_at BIGINT   NOT NULL,
    -- It sends: it counts when a cap is shared out.
    sends   BOOLEAN  NOT NULL
);
