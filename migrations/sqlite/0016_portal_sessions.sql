-- A customer's stay on the portal of one project.
CREATE TABLE portal_sessions (
    key           INTEGER PRIMARY KEY,
    id            TEXT    NOT NULL UNIQUE,
    workspace_key INTEGER NOT NULL REFERENCES workspaces (key),
    mode          INTEGER NOT NULL,
    project_id    TEXT    NOT NULL,
    terms         TEXT    NOT NULL, -- JSON: domain/portal.rs, PortalTerms
    -- The keyed hash of the code in the link, in hex, and until when it counts.
    code_hash     TEXT    NOT NULL,
    code_until    INTEGER NOT NULL,
    -- The keyed hashes of the tokens in cookies, in hex: one of 64 letters for each opening.
    tokens        TEXT    NOT NULL DEFAULT '',
    created_by    TEXT    NOT NULL,
    -- The API key that made the session. The session ends with it.
    api_key       TEXT,
    expires_at    INTEGER NOT NULL,
    -- When the session ends: as it expires, or when somebody ended it.
    ends_at       INTEGER NOT NULL,
    ended_at      INTEGER
) STRICT;

CREATE INDEX portal_sessions_by_workspace ON portal_sessions (workspace_key, mode, key);
-- The limit on live sessions, and ending those of a project.
CREATE INDEX portal_sessions_live ON portal_sessions (workspace_key, mode, ends_at);
CREATE INDEX portal_sessions_ended ON portal_sessions (ends_at, key);
