-- Listeners: endpoints without a URL (`url` is empty), whose deliveries are leased by consumers.

-- Set for listeners alone: whether it stays when no consumer uses it.
ALTER TABLE endpoints ADD COLUMN durable boolean;
-- Set for listeners alone: when a consumer last used it, within a few minutes.
ALTER TABLE endpoints ADD COLUMN last_seen_at bigint;

-- One workspace's listeners, newest first.
CREATE INDEX endpoints_listeners ON endpoints (workspace_key, mode, key)
    WHERE last_seen_at IS NOT NULL AND deleted_at IS NULL;
-- Listeners that go when nobody uses them.
CREATE INDEX endpoints_unseen ON endpoints (last_seen_at) WHERE NOT durable AND deleted_at IS NULL;
-- Their lanes, which the engine never visits: `not_before` never comes.
CREATE INDEX lanes_of_listeners ON lanes (lane_key) WHERE not_before = 9223372036854775807;
