-- One project's endpoints: what a portal session sees.
CREATE INDEX endpoints_by_project ON endpoints (workspace_key, project_id, mode, key) WHERE project_id IS NOT NULL;

-- Set when a tenant narrowed to a project asked for the replay: it sends only events that carry it.
ALTER TABLE replays ADD COLUMN project_id TEXT;
