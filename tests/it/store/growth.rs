//! No table grows for ever: what is created and deleted in a loop leaves no row once retention has passed.
//!
//! The test knows every table of the schema by name. A migration that adds a table must add it here, and say what
//! removes its rows in `ARCHITECTURE.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_domain::id::{RowKey, WorkspaceId};
use postrider_domain::limits;
use postrider_domain::workspace::WorkspaceName;
use postrider_store::{AgedStep, EndedCursor, EndedKind, EndedStep, LogPart, NewWorkspace, PayloadStep};
use rusqlite::Connection;
use tokio_postgres::Client;

use super::conformance::erasure;
use super::filled::fill;
use super::fixture::{AUTHOR, Fixture, write};
use super::postgres::PostgresBackend;
use super::sqlite::with_database;

/// Tables that gain rows in each round.
const GROWING: &[&str] = &[
    "api_keys",
    "portal_sessions",
    "attempts",
    "audit",
    "dashboard_sessions",
    "deliveries",
    "due",
    "endpoint_health",
    "endpoint_sealed",
    "endpoint_secrets",
    "endpoints",
    "erasures",
    "events",
    "idempotency",
    "lanes",
    "late_payloads",
    "login_codes",
    "ordered_lanes",
    "parked_messages",
    "paused_sources",
    "publish_keys",
    "replays",
    "rollups",
    "stored_bytes",
    "workspaces",
];

/// Tables whose rows are replaced in place: a fixed set of names, the newest catalogue, one row for a node number.
const CONSTANT: &[&str] = &["catalogues", "meta", "nodes", "server_run"];

/// Tables whose rows other tests make: request counts of the last minutes, which the next exchange removes and only
/// PostgreSQL has, and the zeros of erasures, which only SQLite has (`erased_bytes.rs`).
const TESTED_APART: &[&str] = &["rate_counts", "erasure_filler"];

type Counts = BTreeMap<String, i64>;

/// The database of the fixture, beside the store.
enum Database {
    Sqlite(Connection),
    Postgres(Client),
}

impl Database {
    /// The rows of every table of the schema.
    async fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for table in self.tables().await {
            let sql = format!("SELECT COUNT(*) FROM {table}");
            let count = match self {
                Self::Sqlite(connection) => connection.query_row(&sql, [], |row| row.get(0)).unwrap(),
                Self::Postgres(client) => client.query_one(&sql, &[]).await.unwrap().get(0),
            };
            counts.insert(table, count);
        }
        counts
    }

    async fn tables(&self) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => connection
                .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'refinery_schema_history'")
                .unwrap()
                .query_map([], |row| row.get(0))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap(),
            Self::Postgres(client) => {
                let sql = "SELECT relname::text FROM pg_class
                           WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
                             AND NOT relispartition AND relname <> 'refinery_schema_history'";
                client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
        }
    }
}

/// Runs every step of upkeep to its end, as one round of the janitor does.
async fn upkeep(at: &Fixture) {
    let store = at.store();
    while store.expire_waiting(3).await.unwrap() == 3 {}
    while store.forget_answers(3).await.unwrap() == 3 {}
    while store.remove_ended_sessions(3).await.unwrap() == 3 {}
    while store.erase_unused_secrets(3).await.unwrap() == 3 {}
    for part in [LogPart::Deliveries, LogPart::Events] {
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after {
            let step = AgedStep { part, age: limits::RETENTION, after: from, limit: 3 };
            after = store.remove_aged(step).await.unwrap().next;
        }
    }
    let step = PayloadStep { age: limits::RETENTION, limit: 3 };
    while store.expire_payloads(step).await.unwrap().next.is_some() {}
    let mut after = Some(RowKey::from_i64(0));
    while let Some(from) = after {
        after = store.expire_late_payloads(step, from).await.unwrap().next;
    }
    while store.remove_aged_audit(limits::AUDIT_RETENTION, 3).await.unwrap() == 3 {}
    while store.remove_empty_counters(limits::RETENTION, 3).await.unwrap() >= 3 {}
    while store.fold_rollups(50).await.unwrap() {}
    while store.remove_aged_rollups(limits::RETENTION, 50).await.unwrap() {}
    for kind in EndedKind::ALL {
        remove_ended(at, kind, if kind == EndedKind::ApiKeys { limits::AUDIT_RETENTION } else { limits::RETENTION })
            .await;
    }
}

async fn remove_ended(at: &Fixture, kind: EndedKind, age: Duration) {
    let mut after = Some(EndedCursor::START);
    while let Some(from) = after {
        after = at.store().remove_ended(EndedStep { kind, age, after: from, limit: 2 }).await.unwrap();
    }
}

/// Creates a workspace with rows in every table, uses it, and deletes it.
async fn live_and_die(at: &mut Fixture, round: u8, database: &Database) -> Counts {
    let name = WorkspaceName::parse(&format!("workspace {round}")).unwrap();
    let new = NewWorkspace { id: WorkspaceId::from_letters(at.letters()), name, author: AUTHOR };
    let workspace = at.store().ensure_workspace(new).await.unwrap();
    let home = std::mem::replace(&mut at.workspace, workspace);
    let filled = fill(at, 3 * round).await;
    at.rotate(&filled.endpoint, 2, Duration::from_secs(3600), false).await;
    let (mut expiring, revoked) = (at.new_api_key(3 * round + 1), at.new_api_key(3 * round + 2));
    expiring.expires_at = Some(at.clock_now().plus(Duration::from_secs(60)));
    at.api_key(expiring).await;
    let revoked = at.api_key(revoked).await;
    at.store().revoke_api_key(write(at.tenant()), revoked.id).await.unwrap();
    let counts = database.counts().await;
    at.delete(&filled.endpoint).await;
    at.store().delete_workspace(at.workspace.id, AUTHOR, None).await.unwrap();
    at.workspace = home;
    counts
}

/// Lets everything end that is still under way: replays, erasures, leases, and what is queued.
async fn settle(at: &Fixture) {
    while at.store().advance_replays().await.unwrap().is_some_and(|passed| passed > 0) {}
    erasure::run(at).await;
    at.advance(limits::LEASE * 2);
    while !at.claim(100).await.claims.is_empty() {}
    at.advance(limits::LEASE * 2);
    assert!(at.claim(100).await.claims.is_empty(), "nothing of a deleted workspace is claimed");
}

async fn what_is_created_and_deleted_in_a_loop_leaves_no_row(mut at: Fixture, database: Database) {
    let mut all: Vec<&str> = GROWING.iter().chain(CONSTANT).chain(TESTED_APART).copied().collect();
    all.sort_unstable();
    let schema = database.tables().await;
    let unnamed: Vec<&String> = schema.iter().filter(|table| !all.contains(&table.as_str())).collect();
    assert!(unnamed.is_empty(), "name these tables here, and what removes their rows: {unnamed:?}");
    let at_first = database.counts().await;
    for round in 1..=3 {
        let full = live_and_die(&mut at, round, &database).await;
        for table in GROWING {
            assert!(full[*table] > at_first[*table], "{table} gained no row, so the test proves nothing about it");
        }
        settle(&at).await;
        at.advance(limits::RETENTION - Duration::from_secs(3600));
        upkeep(&at).await;
        let kept = database.counts().await;
        for table in ["endpoints", "workspaces", "api_keys", "replays", "erasures", "deliveries", "events"] {
            assert!(kept[table] > at_first[table], "{table}: its rows stay within retention");
        }
        at.advance(Duration::from_secs(7200));
        upkeep(&at).await;
        let kept = database.counts().await;
        for table in ["endpoints", "replays", "erasures", "deliveries", "attempts", "events", "publish_keys"] {
            assert_eq!(kept[table], at_first[table], "{table}: retention of the log has passed");
        }
        assert!(kept["workspaces"] > at_first["workspaces"], "the audit log still names the workspace");
        at.advance(limits::AUDIT_RETENTION);
        upkeep(&at).await;
        let left = database.counts().await;
        for table in GROWING.iter().filter(|table| **table != "audit") {
            assert_eq!(left[*table], at_first[*table], "{table} after round {round}");
        }
        assert_eq!(left["audit"], 0, "the fixture's own entry has aged too");
        let constant = |counts: &Counts| CONSTANT.iter().filter_map(|table| counts.get(*table)).sum::<i64>();
        assert_eq!(constant(&left), constant(&kept), "in round {round}");
        assert!(
            constant(&left) <= constant(&at_first) + 6,
            "one catalogue, the id of a master key, the count of bytes, the last instant, the sums of counts, \
             how far payloads were walked"
        );
    }
}

#[tokio::test]
async fn no_table_of_sqlite_grows_for_ever() {
    let (at, connection) = with_database().await;
    what_is_created_and_deleted_in_a_loop_leaves_no_row(at, Database::Sqlite(connection)).await;
}

#[tokio::test]
async fn no_table_of_postgres_grows_for_ever() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let client = backend.client().await;
    let at = Fixture::new(backend).await;
    what_is_created_and_deleted_in_a_loop_leaves_no_row(at, Database::Postgres(client)).await;
}

#[tokio::test]
async fn an_exchange_removes_request_counts_of_earlier_minutes() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let client = backend.client().await;
    let at = Fixture::new(backend).await;
    let sql = "INSERT INTO rate_counts (workspace_key, bucket, node, stored_at, counts)
               SELECT 1, 'management', node, (extract(epoch FROM clock_timestamp()) * 1000)::bigint - age, '1'
               FROM (VALUES (1, 125000), (2, 90000)) AS old (node, age)";
    client.execute(sql, &[]).await.unwrap();
    at.store().exchange_rates(3, Vec::new()).await.unwrap();
    let left = client.query("SELECT node FROM rate_counts", &[]).await.unwrap();
    assert_eq!(left.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [2]);
}
