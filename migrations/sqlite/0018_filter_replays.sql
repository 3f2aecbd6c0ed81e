-- Replays of the deliveries that pass a filter, to any endpoint. SQLite cannot make a column nullable, so the table is
-- made anew.
CREATE TABLE replays_new (
    key           INTEGER PRIMARY KEY,
    workspace_key INTEGER NOT NULL,
    -- Null for a replay by filter, as are `since`, `until` and `statuses`.
    endpoint_key  INTEGER,
    mode          INTEGER NOT NULL,
    since         INTEGER,
    until         INTEGER,
    statuses      TEXT,             -- codes of domain/delivery.rs, DeliveryStatus, separated by a space
    status        INTEGER NOT NULL, -- domain/replay.rs, ReplayStatus
    -- Everything up to this delivery has been dealt with, apart from endpoints left behind.
    cursor        INTEGER NOT NULL,
    total         INTEGER NOT NULL,
    replayed      INTEGER NOT NULL DEFAULT 0,
    unavailable   INTEGER NOT NULL DEFAULT 0,
    completed_at  INTEGER,
    -- Set when a tenant narrowed to a project asked for the replay: it sends only events that carry it.
    project_id    TEXT,
    filter        TEXT,             -- an object of the API's parameters: domain/delivery_filter.rs
    -- Set when there were too many deliveries to count: `total` has those created before this instant.
    counted_to    INTEGER,
    left_behind   TEXT              -- store/filter_replay.rs, LeftBehind
) STRICT;

INSERT INTO replays_new (key, workspace_key, endpoint_key, mode, since, until, statuses, status, cursor, total, replayed,
                         unavailable, completed_at, project_id)
SELECT key, workspace_key, endpoint_key, mode, since, until, statuses, status, cursor, total, replayed,
       unavailable, completed_at, project_id
FROM replays;

DROP TABLE replays;
ALTER TABLE replays_new RENAME TO replays;

CREATE INDEX replays_by_endpoint ON replays (endpoint_key, key);
CREATE INDEX replays_by_workspace ON replays (workspace_key, mode, key);
CREATE INDEX replays_running ON replays (key) WHERE status = 0;
CREATE INDEX replays_ended ON replays (completed_at, key) WHERE completed_at IS NOT NULL;
