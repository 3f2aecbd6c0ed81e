-- Erasures: jobs that take the content of events out of the store and leave their rows.

CREATE TABLE erasures (
    key           BIGINT PRIMARY KEY,
    workspace_key BIGINT NOT NULL,
    mode          SMALLINT NOT NULL,
    -- What it empties: one of the three.
    event_key     BIGINT,
    project_id    TEXT,
    endpoint_key  BIGINT,
    pending       SMALLINT NOT NULL, -- domain/erasure.rs, PendingDeliveries
    status        SMALLINT NOT NULL, -- domain/erasure.rs, ErasureStatus
    phase         SMALLINT NOT NULL DEFAULT 0, -- store/erasure.rs, Phase
    -- Everything up to this row has been dealt with. The row is of the log or an answer, as the phase says.
    cursor        BIGINT NOT NULL DEFAULT 0,
    -- The pass of the walk: store/erasure.rs, Pass.
    pass_began    BIGINT,
    waiting_from  BIGINT,
    waiting       BIGINT NOT NULL DEFAULT 0,
    -- Upkeep leaves it alone until then.
    resume_at     BIGINT NOT NULL DEFAULT 0,
    events        BIGINT NOT NULL DEFAULT 0,
    attempts      BIGINT NOT NULL DEFAULT 0,
    cancelled     BIGINT NOT NULL DEFAULT 0,
    answers       BIGINT NOT NULL DEFAULT 0,
    needs_compact BOOLEAN NOT NULL DEFAULT FALSE,
    -- Days of the rows emptied, separated by a space: on PostgreSQL their partitions are vacuumed.
    days          TEXT NOT NULL DEFAULT '',
    completed_at  BIGINT
);

CREATE INDEX erasures_by_workspace ON erasures (workspace_key, mode, key);
CREATE INDEX erasures_by_event ON erasures (event_key) WHERE event_key IS NOT NULL;
CREATE INDEX erasures_by_project ON erasures (workspace_key, mode, project_id, key) WHERE project_id IS NOT NULL;
CREATE INDEX erasures_by_endpoint ON erasures (endpoint_key) WHERE endpoint_key IS NOT NULL;
-- Those that have not ended.
CREATE INDEX erasures_running ON erasures (key) WHERE status < 2;
CREATE INDEX erasures_ended ON erasures (completed_at, key) WHERE completed_at IS NOT NULL;
