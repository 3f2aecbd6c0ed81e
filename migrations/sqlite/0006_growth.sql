-- Rows that have ended, in the order of their ends: replays, deleted endpoints and workspaces, revoked and expired keys. Upkeep
-- removes them once nothing refers to them any more (upkeep/ended.rs).

CREATE INDEX endpoints_deleted ON endpoints (deleted_at, key) WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_deleted ON workspaces (deleted_at, key) WHERE deleted_at IS NOT NULL;
CREATE INDEX replays_ended ON replays (completed_at, key) WHERE completed_at IS NOT NULL;
-- The earlier of the two instants.
CREATE INDEX api_keys_ended ON api_keys (min(ifnull(revoked_at, expires_at), ifnull(expires_at, revoked_at)), key)
    WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL;
-- Whether a workspace has endpoints left, deleted ones too.
CREATE INDEX endpoints_of_workspace ON endpoints (workspace_key, deleted_at);

-- Only the newest catalogue is ever read.
DELETE FROM catalogues WHERE version < (SELECT MAX(version) FROM catalogues);

-- What a workspace stores, counted while the server has a budget for it: content bytes by the day of their rows.
CREATE TABLE stored_bytes (
    workspace_key INTEGER NOT NULL,
    part          INTEGER NOT NULL, -- store/stored_bytes.rs, CountedPart
    day           INTEGER NOT NULL, -- since the epoch
    -- Always 0 here; on PostgreSQL each writer has rows of its own.
    shard         INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    PRIMARY KEY (workspace_key, part, day, shard)
) STRICT, WITHOUT ROWID;

CREATE INDEX stored_bytes_by_day ON stored_bytes (day);
