-- What the lists filter by. See crates/store/src/log/walk.rs for which list follows which index.

-- How the last attempt of a delivery that failed or was cancelled ended: domain/attempt.rs, AttemptOutcome. Null while
-- it is pending, without an attempt, and where the status says it (`delivered`, `simulated`): so an ordinary delivery
-- changes no index when it ends.
ALTER TABLE deliveries ADD COLUMN last_outcome INTEGER;
-- The status of the answer to the last attempt, of deliveries that have ended. Rows from before this column have none:
-- for them the attempts are read.
ALTER TABLE deliveries ADD COLUMN last_response_status INTEGER;

UPDATE deliveries
SET last_outcome = (SELECT a.outcome FROM attempts a WHERE a.delivery_key = deliveries.key
                    ORDER BY a.number DESC LIMIT 1),
    last_response_status = (SELECT a.response_status FROM attempts a WHERE a.delivery_key = deliveries.key
                            ORDER BY a.number DESC LIMIT 1)
WHERE (status = 2 OR status = 4) AND attempts > 0 AND (status = 2 OR status = 3 OR status = 4 OR status = 5);

CREATE INDEX deliveries_by_outcome ON deliveries (workspace_key, mode, last_outcome, key)
    WHERE last_outcome IS NOT NULL;
-- Deliveries made by hand: retries, replays, tests.
CREATE INDEX deliveries_by_cause ON deliveries (workspace_key, mode, cause, key)
    WHERE cause = 1 OR cause = 2 OR cause = 3;

-- Events that no active endpoint was subscribed to. Most of them matched nothing.
CREATE INDEX events_without_deliveries ON events (workspace_key, mode, key) WHERE deliveries = 0;

-- What one request wrote.
CREATE INDEX audit_by_request ON audit (request_id) WHERE request_id IS NOT NULL;

-- Endpoints by scheme and host, which stand at the start of the URL.
CREATE INDEX endpoints_by_url ON endpoints (workspace_key, mode, substr(url, 1, 300)) WHERE deleted_at IS NULL;
