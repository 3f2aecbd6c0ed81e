-- The id of the API key that may see a sealed answer: the one that made the request. None in answers from before this
-- column, which nobody may see.
ALTER TABLE idempotency ADD COLUMN sealed_for TEXT;

-- The server's own workspace, to which operational events belong. Earlier versions knew it by its name, which a tenant
-- could have too.
ALTER TABLE workspaces ADD COLUMN is_operations INTEGER NOT NULL DEFAULT 0;

-- Only a workspace with the operator's webhook and without a trace of a tenant is the server's own: no other endpoint,
-- no event of another type, no key that publishes or manages, no configuration by a key. No tenant can subscribe to
-- operational events, so these are the mark of the operator's endpoint.
UPDATE workspaces SET is_operations = 1
WHERE name = 'operations' AND deleted_at IS NULL
  AND EXISTS
      (SELECT 1 FROM endpoints e
       WHERE e.workspace_key = workspaces.key AND e.name = 'operator webhook' AND e.deleted_at IS NULL
         AND e.events = 'endpoint.failing endpoint.paused endpoint.disabled endpoint.recovered delivery.exhausted')
  AND NOT EXISTS
      (SELECT 1 FROM endpoints e
       WHERE e.workspace_key = workspaces.key
         AND (e.name <> 'operator webhook'
              OR e.events <> 'endpoint.failing endpoint.paused endpoint.disabled endpoint.recovered delivery.exhausted'))
  AND NOT EXISTS
      (SELECT 1 FROM events v
       WHERE v.workspace_key = workspaces.key
         AND v.type NOT IN ('endpoint.failing', 'endpoint.paused', 'endpoint.disabled', 'endpoint.recovered',
                            'delivery.exhausted'))
  AND NOT EXISTS
      (SELECT 1 FROM api_keys k
       WHERE k.workspace_key = workspaces.key
         AND (k.scopes LIKE '%events:write%' OR k.scopes LIKE '%keys:manage%' OR k.scopes LIKE '%workspaces:manage%'))
  AND NOT EXISTS
      (SELECT 1 FROM audit a
       WHERE a.workspace_key = workspaces.key AND a.actor IS NOT NULL
         AND a.action IN ('workspace.created', 'workspace.updated', 'api_key.created', 'endpoint.created',
                          'endpoint.updated', 'endpoint.secret_rotated'));

-- A tenant keeps its workspace, but not the operator's endpoint in it. The next start creates that anew, in a workspace
-- of the server's own.
UPDATE endpoints SET is_active = 0, deleted_at = CAST(unixepoch('subsec') * 1000 AS INTEGER)
WHERE name = 'operator webhook' AND deleted_at IS NULL
  AND events = 'endpoint.failing endpoint.paused endpoint.disabled endpoint.recovered delivery.exhausted'
  AND workspace_key IN (SELECT key FROM workspaces WHERE name = 'operations' AND is_operations = 0);

DELETE FROM endpoint_secrets WHERE endpoint_key IN
    (SELECT e.key FROM endpoints e JOIN workspaces w ON w.key = e.workspace_key
     WHERE w.name = 'operations' AND e.deleted_at IS NOT NULL);
DELETE FROM endpoint_sealed WHERE endpoint_key IN
    (SELECT e.key FROM endpoints e JOIN workspaces w ON w.key = e.workspace_key
     WHERE w.name = 'operations' AND e.deleted_at IS NOT NULL);
DELETE FROM endpoint_health WHERE endpoint_key IN
    (SELECT e.key FROM endpoints e JOIN workspaces w ON w.key = e.workspace_key
     WHERE w.name = 'operations' AND e.deleted_at IS NOT NULL);

-- The next claim finds these endpoints deleted and cancels what waits for them.
UPDATE lanes SET next_at = 0, held_since = NULL, not_before = NULL, paused_since = NULL
WHERE workspace_key IN (SELECT key FROM workspaces WHERE name = 'operations' AND is_operations = 0)
  AND EXISTS
      (SELECT 1 FROM endpoints e
       WHERE e.key IN (lanes.lane_key, -lanes.lane_key) AND e.name = 'operator webhook' AND e.deleted_at IS NOT NULL);

DROP INDEX workspaces_by_name;
CREATE UNIQUE INDEX workspaces_by_name ON workspaces (name) WHERE deleted_at IS NULL AND is_operations = 0;
CREATE UNIQUE INDEX workspaces_operations ON workspaces (is_operations) WHERE deleted_at IS NULL AND is_operations = 1;

-- Who made the key: the id of an API key, or 'command_line'. None where no audit entry tells.
ALTER TABLE api_keys ADD COLUMN created_by TEXT;
-- When the key was last accepted. Written at most once a minute.
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER;

UPDATE api_keys SET created_by =
    (SELECT COALESCE(a.actor, 'command_line') FROM audit a
     WHERE a.workspace_key = api_keys.workspace_key AND a.resource_id = api_keys.id AND a.action = 'api_key.created'
     LIMIT 1);

CREATE INDEX api_keys_by_creator ON api_keys (created_by, key) WHERE created_by IS NOT NULL;
