-- Messages of a source that cannot become events, each with the reason. Removed by age, by hand, or to make room.
CREATE TABLE parked_messages (
    key           BIGINT PRIMARY KEY,
    id            TEXT    NOT NULL UNIQUE,
    workspace_key BIGINT NOT NULL REFERENCES workspaces (key),
    mode          BIGINT NOT NULL,
    source        TEXT    NOT NULL,
    -- SHA-256, in hex, of where the message stood and what it holds: the same message is parked once.
    fingerprint   TEXT    NOT NULL,
    project_id    TEXT,
    reason        TEXT    NOT NULL, -- domain/source.rs, ParkReason
    detail        TEXT    NOT NULL,
    origin        TEXT    NOT NULL, -- JSON: store/parked_message.rs, origin_text
    body          BYTEA   NOT NULL,
    -- Bytes of the whole body. The column may hold fewer.
    body_bytes    BIGINT NOT NULL,
    parked_at     BIGINT NOT NULL
);

CREATE UNIQUE INDEX parked_messages_once ON parked_messages (workspace_key, mode, source, fingerprint);
CREATE INDEX parked_messages_by_source ON parked_messages (workspace_key, mode, source, key);
CREATE INDEX parked_messages_by_workspace ON parked_messages (workspace_key, mode, key);
CREATE INDEX parked_messages_by_project ON parked_messages (workspace_key, mode, project_id)
    WHERE project_id IS NOT NULL;
CREATE INDEX parked_messages_aged ON parked_messages (parked_at, key);

-- Sources that somebody paused. A row goes when the source is resumed.
CREATE TABLE paused_sources (
    workspace_key BIGINT NOT NULL REFERENCES workspaces (key),
    mode          BIGINT NOT NULL,
    source        TEXT    NOT NULL,
    paused_at     BIGINT NOT NULL,
    PRIMARY KEY (workspace_key, mode, source)
);
