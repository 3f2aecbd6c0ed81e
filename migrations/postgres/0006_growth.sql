-- Rows that have ended, in the order of their ends: replays, deleted endpoints and workspaces, revoked and expired keys. Upkeep
-- removes them once nothing refers to them any more (upkeep/ended.rs).

CREATE INDEX endpoints_deleted ON endpoints (deleted_at, key) WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_deleted ON workspaces (deleted_at, key) WHERE deleted_at IS NOT NULL;
CREATE INDEX replays_ended ON replays (completed_at, key) WHERE completed_at IS NOT NULL;
-- The earlier of the two instants.
CREATE INDEX api_keys_ended ON api_keys (LEAST(revoked_at, expires_at), key)
    WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL;
-- Whether a workspace has endpoints left, deleted ones too.
CREATE INDEX endpoints_of_workspace ON endpoints (workspace_key, deleted_at);

-- Only the newest catalogue is ever read.
DELETE FROM catalogues WHERE version < (SELECT MAX(version) FROM catalogues);

-- What a workspace stores, counted while the server has a budget for it: content bytes by the day of their rows. Each writer has
-- rows of its own, so that two transactions of one workspace do not wait for each other.
CREATE TABLE stored_bytes (
    workspace_key BIGINT NOT NULL,
    part          BIGINT NOT NULL, -- store/stored_bytes.rs, CountedPart
    day           BIGINT NOT NULL, -- since the epoch
    shard         BIGINT NOT NULL,
    bytes         BIGINT NOT NULL,
    PRIMARY KEY (workspace_key, part, day, shard)
) WITH (fillfactor = 70);

CREATE INDEX stored_bytes_by_day ON stored_bytes (day);
