-- Counts of what happened, written in the transactions of the engine (store/stats.rs). The key begins with the time, so
-- that all writes of a minute are neighbours, and so are the rows that upkeep adds up or removes. Each writer has rows of
-- its own, so that two transactions of one workspace do not wait for each other.
CREATE TABLE rollups (
    size          BIGINT NOT NULL, -- domain/stats.rs, BucketSize; 3 for rows that belong to no bucket
    start         BIGINT NOT NULL, -- of the bucket, in milliseconds since the epoch
    workspace_key BIGINT NOT NULL,
    mode          BIGINT NOT NULL,
    endpoint_key  BIGINT NOT NULL, -- 0 for the workspace as a whole
    -- The project of the endpoint or of the events, or the type of the events. Else empty.
    name          TEXT COLLATE "C" NOT NULL,
    counter       BIGINT NOT NULL, -- domain/stats.rs, Counter
    shard         BIGINT NOT NULL,
    count         BIGINT NOT NULL,
    PRIMARY KEY (size, start, workspace_key, mode, endpoint_key, name, counter, shard)
) WITH (fillfactor = 70);

-- A store that has a log already counts from now on.
INSERT INTO meta (name, value)
SELECT 'rollups_since', convert_to(((extract(epoch FROM clock_timestamp()) * 1000)::bigint)::text, 'UTF8')
WHERE EXISTS (SELECT 1 FROM events) OR EXISTS (SELECT 1 FROM deliveries);
