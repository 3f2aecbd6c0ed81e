-- The first schema. Instants are integer milliseconds since the Unix epoch. Row keys carry their millisecond of
-- creation in the upper bits (`domain/id.rs`), so `ORDER BY key DESC` is newest first and an age is a range of keys.

-- Facts about the store itself: its tag, the master key's id, the sealed canary.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The event catalogues that this store has had. The one with the highest version counts.
CREATE TABLE catalogues (
    version      INTEGER PRIMARY KEY,
    text         TEXT    NOT NULL, -- the TOML file as it was given
    content_hash BLOB    NOT NULL, -- of what it says, whatever its layout
    brand        TEXT    NOT NULL,
    names        TEXT    NOT NULL, -- separated by a space, retired ones too
    adopted_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE workspaces (
    key            INTEGER PRIMARY KEY,
    id             TEXT    NOT NULL UNIQUE,
    name           TEXT    NOT NULL,
    -- Bumped by every write to the workspace's endpoints and secrets; what is cached counts only at this version.
    config_version INTEGER NOT NULL DEFAULT 1,
    deleted_at     INTEGER
) STRICT;

-- A deleted workspace gives its name free.
CREATE UNIQUE INDEX workspaces_by_name ON workspaces (name) WHERE deleted_at IS NULL;

CREATE TABLE api_keys (
    key           INTEGER PRIMARY KEY,
    id            TEXT    NOT NULL UNIQUE,
    workspace_key INTEGER NOT NULL REFERENCES workspaces (key),
    name          TEXT,
    mode          INTEGER NOT NULL, -- 0 live, 1 test
    hash          BLOB    NOT NULL UNIQUE,
    last4         TEXT    NOT NULL,
    scopes        TEXT    NOT NULL, -- separated by a space
    expires_at    INTEGER,
    revoked_at    INTEGER
) STRICT;

CREATE INDEX api_keys_by_workspace ON api_keys (workspace_key, key);

CREATE TABLE endpoints (
    key             INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    workspace_key   INTEGER NOT NULL REFERENCES workspaces (key),
    project_id      TEXT,
    name            TEXT    NOT NULL,
    url             TEXT    NOT NULL,
    events          TEXT    NOT NULL, -- separated by a space, in the order of the catalogue
    is_active       INTEGER NOT NULL,
    disabled_reason TEXT,
    -- The secret that signs what is enqueued now, and the oldest that may still sign what was enqueued before.
    secret_version  INTEGER NOT NULL,
    oldest_secret_version INTEGER NOT NULL DEFAULT 1,
    secret_last4    TEXT    NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER
) STRICT;

-- One workspace's endpoints, newest first: lists, the limits, and filling the cache that matches events.
CREATE INDEX endpoints_by_workspace ON endpoints (workspace_key, key) WHERE deleted_at IS NULL;

CREATE TABLE endpoint_secrets (
    endpoint_key  INTEGER NOT NULL REFERENCES endpoints (key),
    version       INTEGER NOT NULL,
    sealed        BLOB    NOT NULL,
    -- Deliveries enqueued before this instant carry the previous version's signature too.
    overlap_until INTEGER,
    PRIMARY KEY (endpoint_key, version)
) STRICT, WITHOUT ROWID;

-- The log: append-mostly, removed by age.

CREATE TABLE events (
    key           INTEGER PRIMARY KEY,
    workspace_key INTEGER NOT NULL,
    mode          INTEGER NOT NULL,
    type          TEXT    NOT NULL,
    project_id    TEXT,
    external_id   TEXT,
    occurred_at   INTEGER,
    deliveries    INTEGER NOT NULL,
    -- The bytes that every attempt sends.
    envelope      BLOB    NOT NULL
) STRICT;

CREATE INDEX events_by_workspace ON events (workspace_key, key);

CREATE TABLE deliveries (
    key           INTEGER PRIMARY KEY,
    workspace_key INTEGER NOT NULL,
    endpoint_key  INTEGER NOT NULL,
    event_key     INTEGER NOT NULL,
    mode          INTEGER NOT NULL,
    status        INTEGER NOT NULL, -- domain/delivery.rs, DeliveryStatus
    reason        INTEGER,          -- domain/delivery.rs, EndReason
    cause         INTEGER NOT NULL, -- domain/delivery.rs, DeliveryCause
    retry_of      INTEGER,
    attempts      INTEGER NOT NULL DEFAULT 0,
    completed_at  INTEGER
) STRICT;

CREATE INDEX deliveries_by_workspace ON deliveries (workspace_key, key);
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint_key, key);
CREATE INDEX deliveries_by_event ON deliveries (event_key);
-- What did not arrive, found without walking past all that did. Most deliveries are pending and then delivered (0 and 1), and
-- never enter it.
CREATE INDEX deliveries_unusual ON deliveries (workspace_key, status, key)
    WHERE status = 2 OR status = 3 OR status = 4 OR status = 5;

CREATE TABLE attempts (
    delivery_key     INTEGER NOT NULL,
    number           INTEGER NOT NULL,
    started_at       INTEGER NOT NULL,
    duration_ms      INTEGER NOT NULL,
    outcome          INTEGER NOT NULL, -- domain/attempt.rs, AttemptOutcome
    response_status  INTEGER,
    -- Kept where nothing was sent: exactly what would have been. JSON arrays of [name, value].
    request_headers  TEXT,
    response_headers TEXT,
    response_body    BLOB,
    error            TEXT,
    next_attempt_at  INTEGER,
    PRIMARY KEY (delivery_key, number)
) STRICT, WITHOUT ROWID;

-- The queue: one narrow row for each delivery that is not finished, deleted when it is.
CREATE TABLE due (
    delivery_key        INTEGER PRIMARY KEY,
    -- The endpoint's key; negative for tests, which have a lane of their own (see `lanes`).
    lane_key            INTEGER NOT NULL,
    event_key           INTEGER NOT NULL,
    -- When it may be claimed. A claim moves it to the end of its lease, so a lost claim becomes due by itself.
    due_at              INTEGER NOT NULL,
    mode                INTEGER NOT NULL,
    cause               INTEGER NOT NULL,
    -- Attempts allocated so far: the number of the last claim.
    attempts            INTEGER NOT NULL DEFAULT 0,
    -- Waits of the retry schedule used so far.
    step                INTEGER NOT NULL DEFAULT 0,
    -- Names the claim under way; an outcome is recorded only by who holds it.
    claim_token         INTEGER,
    claimed_at          INTEGER,
    secret_version      INTEGER NOT NULL,
    also_secret_version INTEGER
) STRICT;

-- The next due row of one lane, whatever the backlog of any.
CREATE INDEX due_by_lane ON due (lane_key, due_at);

-- One row for each endpoint with something in `due`. An endpoint that is off holds its lane, but a test is sent all the
-- same: so tests go through a lane of their own, whose key is the endpoint's with the sign turned, and which is never held.
CREATE TABLE lanes (
    lane_key      INTEGER PRIMARY KEY,
    workspace_key INTEGER NOT NULL,
    -- Nothing in the lane need be claimed before this instant; moved up when a claim finds it too low. Of the lanes past
    -- theirs the earliest is served first.
    next_at       INTEGER NOT NULL,
    -- Since when the lane waits for its endpoint to be active again.
    held_since    INTEGER
) STRICT;

CREATE INDEX lanes_by_next ON lanes (next_at) WHERE held_since IS NULL;
CREATE INDEX lanes_held ON lanes (held_since) WHERE held_since IS NOT NULL;

-- Dedupe of publishes by the publisher's own id, within the retention of events.
CREATE TABLE publish_keys (
    workspace_key INTEGER NOT NULL,
    mode          INTEGER NOT NULL,
    external_id   TEXT    NOT NULL,
    event_key     INTEGER NOT NULL,
    body_hash     BLOB    NOT NULL,
    PRIMARY KEY (workspace_key, mode, external_id)
) STRICT, WITHOUT ROWID;

-- Answers kept for replay. The key carries the instant of the first request, from which the window counts.
CREATE TABLE idempotency (
    key             INTEGER PRIMARY KEY,
    workspace_key   INTEGER NOT NULL,
    mode            INTEGER NOT NULL,
    route           TEXT    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    body_hash       BLOB    NOT NULL,
    status          INTEGER NOT NULL,
    body            BLOB    NOT NULL,
    sealed          INTEGER NOT NULL,
    UNIQUE (workspace_key, mode, route, idempotency_key)
) STRICT;

-- Jobs that send again what an endpoint did not get, oldest first.
CREATE TABLE replays (
    key           INTEGER PRIMARY KEY,
    workspace_key INTEGER NOT NULL,
    endpoint_key  INTEGER NOT NULL,
    mode          INTEGER NOT NULL,
    since         INTEGER NOT NULL,
    until         INTEGER NOT NULL,
    statuses      TEXT    NOT NULL, -- codes of domain/delivery.rs, DeliveryStatus, separated by a space
    status        INTEGER NOT NULL, -- domain/replay.rs, ReplayStatus
    -- Everything up to this delivery has been dealt with.
    cursor        INTEGER NOT NULL,
    total         INTEGER NOT NULL,
    replayed      INTEGER NOT NULL DEFAULT 0,
    unavailable   INTEGER NOT NULL DEFAULT 0,
    completed_at  INTEGER
) STRICT;

CREATE INDEX replays_by_endpoint ON replays (endpoint_key, key);
CREATE INDEX replays_running ON replays (key) WHERE status = 0;

-- Who wrote what, when, by which request: one row for each write, in its transaction, never changed.
CREATE TABLE audit (
    key           INTEGER PRIMARY KEY,
    workspace_key INTEGER NOT NULL,
    actor         TEXT,             -- the id of the API key; none for the command line
    mode          INTEGER NOT NULL,
    action        TEXT    NOT NULL, -- domain/audit.rs, AuditAction
    resource_id   TEXT    NOT NULL,
    request_id    TEXT
) STRICT;

CREATE INDEX audit_by_workspace ON audit (workspace_key, key);
CREATE INDEX audit_by_resource ON audit (workspace_key, resource_id, key);
