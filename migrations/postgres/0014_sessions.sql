-- Sign-in sessions of the dashboard, and the login codes that open one. Both are found by keyed hashes.

CREATE TABLE dashboard_sessions (
    key           BIGINT PRIMARY KEY,
    id            TEXT    NOT NULL UNIQUE,
    hash          BYTEA   NOT NULL UNIQUE,
    workspace_key BIGINT NOT NULL,
    mode          SMALLINT NOT NULL,
    scopes        TEXT    NOT NULL,
    api_key_key   BIGINT, -- the key that signed in; NULL for a login code
    expires_at    BIGINT NOT NULL,
    last_seen_at  BIGINT NOT NULL,
    ends_at       BIGINT NOT NULL -- without a further request
);

CREATE INDEX dashboard_sessions_by_workspace ON dashboard_sessions (workspace_key, last_seen_at);
CREATE INDEX dashboard_sessions_ended ON dashboard_sessions (ends_at);

CREATE TABLE login_codes (
    key           BIGINT PRIMARY KEY,
    hash          BYTEA   NOT NULL UNIQUE,
    session_id    TEXT    NOT NULL UNIQUE, -- of the session that it will open
    workspace_key BIGINT NOT NULL,
    mode          SMALLINT NOT NULL,
    scopes        TEXT    NOT NULL,
    expires_at    BIGINT NOT NULL
);

CREATE INDEX login_codes_by_workspace ON login_codes (workspace_key, key);
CREATE INDEX login_codes_ended ON login_codes (expires_at);

-- The API key behind the session that made this key: it is revoked with that key's children.
ALTER TABLE api_keys ADD COLUMN session_api_key TEXT;
CREATE INDEX api_keys_by_session_api_key ON api_keys (session_api_key, key) WHERE session_api_key IS NOT NULL;
