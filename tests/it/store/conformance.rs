//! Every promise of the trait `Store`, each stated once and run on each back end.
//!
//! A fact is an `async fn` that takes a fresh [`Fixture`](super::fixture::Fixture); `on_each_backend!` at the foot of a
//! file runs its facts as tests named after the back end, like `claim::sqlite::a_claim_…`. What only one back end does
//! stands in the file of its own name beside this one. Opening again is the next process on SQLite, and another node on
//! PostgreSQL, where the leases of the last one hold.

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
mod catalogue;
mod claim;
mod commit;
mod delivery;
mod endpoint;
mod endpoint_change;
mod endpoint_end;
pub mod endpoint_health;
mod endpoint_options;
mod event;
mod event_log;
mod fairness;
mod idempotency;
mod interleaving;
mod meta;
mod ordering;
mod ordering_walk;
mod outcome;
mod replay;
mod requeue;
mod retention;
mod rotation;
mod waiting;
mod workspace;
