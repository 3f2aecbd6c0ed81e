//! What both back ends share: how values stand in columns, and rules that need no database. No SQL.

pub mod attempt;
pub mod column;
pub mod endpoint;
pub mod endpoint_options;
pub mod group_claims;
pub mod lane;
pub mod matching;
pub mod operation;
pub mod order;
pub mod replay;
pub mod requeue;
