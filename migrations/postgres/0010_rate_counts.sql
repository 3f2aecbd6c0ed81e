-- Only here: rate limits count over all nodes. Each node stores its requests of the last minute (domain/shared_rate.rs).

CREATE TABLE rate_counts (
    workspace_key BIGINT NOT NULL,
    bucket        TEXT   NOT NULL, -- domain/rate_limit.rs, RateBucket
    node          BIGINT NOT NULL, -- drawn by the process at its start
    stored_at     BIGINT NOT NULL, -- by the database's clock
    counts        TEXT   NOT NULL, -- requests by their age when stored
    PRIMARY KEY (workspace_key, bucket, node)
);
