-- Counts of what happened, written in the transactions of the engine (store/stats.rs). The key begins with the time, so
-- that all writes of a minute are neighbours, and so are the rows that upkeep adds up or removes.
CREATE TABLE rollups (
    size          INTEGER NOT NULL, -- domain/stats.rs, BucketSize; 3 for rows that belong to no bucket
    start         INTEGER NOT NULL, -- of the bucket, in milliseconds since the epoch
    workspace_key INTEGER NOT NULL,
    mode          INTEGER NOT NULL,
    endpoint_key  INTEGER NOT NULL, -- 0 for the workspace as a whole
    -- The project of the endpoint or of the events, or the type of the events. Else empty.
    name          TEXT    NOT NULL,
    counter       INTEGER NOT NULL, -- domain/stats.rs, Counter
    -- Always 0 here; on PostgreSQL each writer has rows of its own.
    shard         INTEGER NOT NULL,
    count         INTEGER NOT NULL,
    PRIMARY KEY (size, start, workspace_key, mode, endpoint_key, name, counter, shard)
) STRICT, WITHOUT ROWID;

-- A store that has a log already counts from now on.
INSERT INTO meta (name, value)
SELECT 'rollups_since', CAST(CAST(CAST(unixepoch('subsec') * 1000 AS INTEGER) AS TEXT) AS BLOB)
WHERE EXISTS (SELECT 1 FROM events) OR EXISTS (SELECT 1 FROM deliveries);
