-- Audit entries also say from where, what changed, and which requests were refused.

ALTER TABLE audit ADD COLUMN address TEXT;  -- of the caller; none for the command line
ALTER TABLE audit ADD COLUMN changes TEXT;  -- domain/audit_change.rs, as JSON; none when no field changed
-- Only of refusals. Their workspace_key is 0 when the key is unknown.
ALTER TABLE audit ADD COLUMN reason  TEXT;  -- domain/audit.rs, KeyRefusal
ALTER TABLE audit ADD COLUMN route   TEXT;
ALTER TABLE audit ADD COLUMN count   INTEGER;

CREATE INDEX audit_refusals ON audit (key) WHERE reason IS NOT NULL;
