-- Modes are separate: a key sees and changes only what has its own mode. Endpoints that exist now are live.

-- As `mode` in `api_keys`: 0 live, 1 test.
ALTER TABLE endpoints ADD COLUMN mode INTEGER NOT NULL DEFAULT 0;

-- A list of one mode reads only rows of that mode, however many the other mode has.
DROP INDEX endpoints_by_workspace;
CREATE INDEX endpoints_by_workspace ON endpoints (workspace_key, mode, key) WHERE deleted_at IS NULL;
DROP INDEX events_by_workspace;
CREATE INDEX events_by_workspace ON events (workspace_key, mode, key);
DROP INDEX deliveries_by_workspace;
CREATE INDEX deliveries_by_workspace ON deliveries (workspace_key, mode, key);
DROP INDEX deliveries_unusual;
CREATE INDEX deliveries_unusual ON deliveries (workspace_key, mode, status, key)
    WHERE status = 2 OR status = 3 OR status = 4 OR status = 5;

-- A live key reads the audit entries of both modes, by `audit_by_workspace`.
CREATE INDEX audit_of_tests ON audit (workspace_key, key) WHERE mode = 1;

-- Only live keys have this scope: it manages whole workspaces, which have both modes.
UPDATE api_keys SET scopes = trim(replace(' ' || scopes || ' ', ' workspaces:manage ', ' ')) WHERE mode = 1;
