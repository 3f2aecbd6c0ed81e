-- Replays of the deliveries that pass a filter, to any endpoint.

-- Null for a replay by filter.
ALTER TABLE replays ALTER COLUMN endpoint_key DROP NOT NULL;
ALTER TABLE replays ALTER COLUMN since DROP NOT NULL;
ALTER TABLE replays ALTER COLUMN until DROP NOT NULL;
ALTER TABLE replays ALTER COLUMN statuses DROP NOT NULL;

ALTER TABLE replays ADD COLUMN filter TEXT; -- an object of the API's parameters: domain/delivery_filter.rs
-- Set when there were too many deliveries to count: `total` has those created before this instant.
ALTER TABLE replays ADD COLUMN counted_to BIGINT;
ALTER TABLE replays ADD COLUMN left_behind TEXT; -- store/filter_replay.rs, LeftBehind

CREATE INDEX replays_by_workspace ON replays (workspace_key, mode, key);
