-- Erasures: jobs that take the content of events out of the store and leave their rows.

CREATE TABLE erasures (
    key           INTEGER PRIMARY KEY,
    workspace_key INTEGER NOT NULL,
    mode          INTEGER NOT NULL,
    -- What it empties: one of the three.
    event_key     INTEGER,
    project_id    TEXT,
    endpoint_key  INTEGER,
    pending       INTEGER NOT NULL, -- domain/erasure.rs, PendingDeliveries
    status        INTEGER NOT NULL, -- domain/erasure.rs, ErasureStatus
    phase         INTEGER NOT NULL DEFAULT 0, -- store/erasure.rs, Phase
    -- Everything up to this row has been dealt with. The row is of the log or an answer, as the phase says.
    cursor        INTEGER NOT NULL DEFAULT 0,
    -- The pass of the walk: store/erasure.rs, Pass.
    pass_began    INTEGER,
    waiting_from  INTEGER,
    waiting       INTEGER NOT NULL DEFAULT 0,
    -- Upkeep leaves it alone until then.
    resume_at     INTEGER NOT NULL DEFAULT 0,
    events        INTEGER NOT NULL DEFAULT 0,
    attempts      INTEGER NOT NULL DEFAULT 0,
    cancelled     INTEGER NOT NULL DEFAULT 0,
    answers       INTEGER NOT NULL DEFAULT 0,
    needs_compact INTEGER NOT NULL DEFAULT 0,
    -- Days of the rows emptied, separated by a space: on PostgreSQL their partitions are vacuumed.
    days          TEXT NOT NULL DEFAULT '',
    completed_at  INTEGER
) STRICT;

CREATE INDEX erasures_by_workspace ON erasures (workspace_key, mode, key);
CREATE INDEX erasures_by_event ON erasures (event_key) WHERE event_key IS NOT NULL;
CREATE INDEX erasures_by_project ON erasures (workspace_key, mode, project_id, key) WHERE project_id IS NOT NULL;
CREATE INDEX erasures_by_endpoint ON erasures (endpoint_key) WHERE endpoint_key IS NOT NULL;
-- Those that have not ended.
CREATE INDEX erasures_running ON erasures (key) WHERE status < 2;
CREATE INDEX erasures_ended ON erasures (completed_at, key) WHERE completed_at IS NOT NULL;

-- Zeros that take the place of free pages while the content of an erasure may still stand in them.
CREATE TABLE erasure_filler (
    key   INTEGER PRIMARY KEY,
    zeros BLOB NOT NULL
) STRICT;

-- Earlier versions left copies of rows in pages that they split. Erasures tell that such a file has to be rewritten once.
INSERT INTO meta (name, value) SELECT 'erasure:old_file', x'01' WHERE EXISTS (SELECT 1 FROM workspaces);
