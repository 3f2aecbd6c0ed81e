//! Shards: which rows of the counters a transaction may write. A transaction that counts takes a shard until it ends,
//! so that no two transactions write the same row: neither waits for the other, and none deadlocks.

use std::sync::{Arc, Mutex, PoisonError};

use super::transaction::{Database, WriteTx};

/// Shards of one node. More transactions than this at once share the last one.
const SHARDS: u32 = 64;

/// The shards of this node in use, a bit for each.
#[derive(Default)]
pub struct Shards(Mutex<u64>);

/// A shard of this node, held by one transaction.
pub struct Shard {
    database: Arc<Database>,
    number: u32,
}

impl Shard {
    pub fn take(database: &Arc<Database>) -> Self {
        let mut in_use = database.shards.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = in_use.trailing_ones().min(SHARDS - 1);
        *in_use |= 1 << number;
        Self { database: Arc::clone(database), number }
    }

    /// The number of the shard among those of all nodes.
    pub fn number(&self, tx: &WriteTx) -> i64 {
        i64::from(tx.next_key().node()) * i64::from(SHARDS) + i64::from(self.number)
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        *self.database.shards.0.lock().unwrap_or_else(PoisonError::into_inner) &= !(1 << self.number);
    }
}
