-- The trace that an event belongs to, and whether an endpoint gets it.

-- domain/trace_context.rs: 25 bytes. None where the publisher sent no traceparent and the publish was not sampled.
ALTER TABLE events ADD COLUMN traceparent BYTEA;
-- The server's own setting where there is none.
ALTER TABLE endpoints ADD COLUMN trace_forwarding BOOLEAN;
