//! The conformance suite: each promise of the store's role traits, stated once and run on each back end.
//!
//! A fact is an `async fn` that takes a fresh [`Fixture`](super::fixture::Fixture). `on_each_backend!` at the top of a
//! file runs each fact as one test per back end, such as `claim::sqlite::a_claim_…`, and once on a SQLite store that
//! was restored from a backup. A promise that only one back end makes is tested in `sqlite.rs` or `postgres*.rs` beside
//! this file.
//!
//! [`Fixture::reopen`](super::fixture::Fixture::reopen) is the next process on SQLite. On PostgreSQL it is another
//! node, and the leases of the previous one still hold.

/// Runs each fact as a test on each back end.
macro_rules! on_each_backend {
    ($($fact:ident),+ $(,)?) => {
        mod sqlite {
            use crate::store::fixture::Fixture;
            use crate::store::sqlite::SqliteBackend;

            $(
                #[tokio::test]
                async fn $fact() {
                    super::$fact(Fixture::new(SqliteBackend::new()).await).await;
                }
            )+
        }

        mod restored {
            use crate::store::backup::RestoredBackend;
            use crate::store::fixture::Fixture;

            $(
                #[tokio::test]
                async fn $fact() {
                    super::$fact(Fixture::new(RestoredBackend::new()).await).await;
                }
            )+
        }

        mod postgres {
            use crate::store::fixture::Fixture;
            use crate::store::postgres::PostgresBackend;

            $(
                #[tokio::test]
                async fn $fact() {
                    if let Some(backend) = PostgresBackend::new().await {
                        super::$fact(Fixture::new(backend).await).await;
                    }
                }
            )+
        }
    };
}

mod api_key;
mod audit;
mod bulk_retry;
mod catalogue;
mod claim;
mod commit;
mod delivery;
mod delivery_filter;
mod disk;
mod endpoint;
mod endpoint_change;
mod endpoint_end;
pub mod endpoint_health;
mod endpoint_options;
pub mod erasure;
mod event;
mod event_log;
mod explanation;
mod fairness;
mod filter_replay;
mod gauges;
mod idempotency;
mod interleaving;
mod lease;
mod meta;
pub mod mode;
mod node;
mod ordering;
mod ordering_walk;
mod outcome;
pub mod parked_message;
mod payload;
pub mod portal_session;
mod project;
mod replay;
mod requeue;
mod retention;
mod rotation;
mod sealing;
mod session;
mod stored_bytes;
mod trouble;
mod waiting;
mod workspace;
