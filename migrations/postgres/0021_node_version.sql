-- What a node runs and since when, for the page that shows the nodes. Null for nodes of earlier versions.
ALTER TABLE nodes ADD COLUMN version TEXT;
ALTER TABLE nodes ADD COLUMN started_at BIGINT;
