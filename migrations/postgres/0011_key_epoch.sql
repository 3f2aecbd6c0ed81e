-- The epoch of the master key's state by which a node works (crates/store/src/sealing/key_state.rs). Null until it has
-- reported one; nodes of earlier versions never do.
ALTER TABLE nodes ADD COLUMN key_epoch BIGINT;
