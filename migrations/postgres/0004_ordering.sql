-- Strict order: an endpoint's deliveries one at a time, as their events were accepted (store/sqlite/order.rs).

-- The place in its lane's order; none for what goes outside of it. Of the rows with a place only the first is ever due; the
-- others have a `due_at` that never comes.
ALTER TABLE due ADD COLUMN sequence BIGINT;

CREATE UNIQUE INDEX due_in_order ON due (lane_key, sequence) WHERE sequence IS NOT NULL;

-- One row for each endpoint that has been strict. It outlives the endpoint's queue.
CREATE TABLE ordered_lanes (
    lane_key         BIGINT PRIMARY KEY,
    -- The place given last.
    last_sequence    BIGINT NOT NULL,
    -- The delivery that failed at the head, until it is skipped or retried by hand, and its place.
    blocked_by       BIGINT,
    blocked_sequence BIGINT,
    blocked_since    BIGINT
);

CREATE UNIQUE INDEX ordered_lanes_blocked ON ordered_lanes (blocked_by) WHERE blocked_by IS NOT NULL;
CREATE INDEX ordered_lanes_by_age ON ordered_lanes (blocked_since) WHERE blocked_since IS NOT NULL;
