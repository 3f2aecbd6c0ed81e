//! Tests of the hot statements: their text, and the indexes that they use.
//!
//! The text is compared with the snapshots beside the statements, so that a review sees every change. The plans show
//! that no statement reads a whole table. A plan can change with a statement, an index or a version of PostgreSQL. It
//! then fails here instead of slowing down a database that grows.

use postrider_store::EndedKind;
use postrider_store::gauges::StatePart;

use super::connect::{ConnectionConfig, connection};
use super::schema;
use super::session::{PLANNER, Parameter, Parameters, Session};
use super::settings::PostgresSettings;
use crate::gauges;
use crate::log::{attempt, delivery};
use crate::publish::event;
use crate::queue::{due, enqueue, lane, outcome};
use crate::stats;
use crate::upkeep::ended;

/// Compares a statement with its snapshot in a role's folder. Indentation does not count.
macro_rules! assert_statement {
    ($folder:literal, $name:literal, $sql:expr) => {
        let text = $sql.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(concat!("../", $folder, "/snapshots"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!($name, text));
    };
}

#[test]
fn the_hot_statements_are_those_of_the_snapshots() {
    assert_statement!("queue", "claim_ready_lanes", due::SELECT_READY_LANES);
    assert_statement!("queue", "claim_lock_lanes", due::LOCK_LANES);
    assert_statement!("queue", "claim_take", due::CLAIM);
    assert_statement!("queue", "lanes_raise", lane::RAISE_NEXT_AT);
    assert_statement!("queue", "enqueue_deliveries", delivery::INSERT_DELIVERIES);
    assert_statement!("queue", "enqueue_due", enqueue::INSERT_DUE);
    assert_statement!("queue", "outcome_finish", outcome::FINISH);
    assert_statement!("machinery", "rollups_add", stats::ADD);
    assert_statement!("log", "attempts_insert", attempt::INSERT_ATTEMPTS);
    assert_statement!("publish", "accept_find_published", event::SELECT_PUBLISHED);
    assert_statement!("publish", "accept_events", event::INSERT_EVENTS);
    assert_statement!("publish", "accept_publish_keys", event::INSERT_PUBLISH_KEYS);
}

const VARIABLE: &str = "POSTRIDER_TEST_DATABASE_URL";
const DEFAULT_SERVER: &str = "postgres://postgres@127.0.0.1:5432/postgres";

/// A new schema without rows: the planner has no statistics.
async fn database(name: &str) -> Option<Session> {
    #[expect(clippy::disallowed_methods, reason = "a test reads where its server is")]
    let (server, is_ci) = (std::env::var(VARIABLE), std::env::var("CI").is_ok_and(|value| value == "true"));
    let server = server.unwrap_or_else(|_| DEFAULT_SERVER.to_owned());
    let pool_of = |url: &str| ConnectionConfig::of(url, &PostgresSettings::new(url)).unwrap().pool(2).unwrap();
    let plain = match connection(&pool_of(&server)).await {
        Ok(connection) => Session::new(connection),
        Err(error) => {
            assert!(!is_ci, "no PostgreSQL at {server}: {error}");
            eprintln!("SKIPPED: the plans on PostgreSQL: no server at {server}; set {VARIABLE}");
            return None;
        }
    };
    plain.batch(&format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}")).await.unwrap();
    let mark = if server.contains('?') { '&' } else { '?' };
    let pool = pool_of(&format!("{server}{mark}options=-c%20search_path%3D{name}"));
    schema::migrate(&pool).await.unwrap();
    Some(Session::new(connection(&pool).await.unwrap()))
}

/// The indexes that a statement uses, sorted by name.
async fn indexes(session: &Session, sql: &str, values: Parameters<'_>) -> Vec<String> {
    let rows = session.query(&format!("EXPLAIN (COSTS OFF) {sql}"), values).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let whole = plan.iter().find(|line| line.contains("Seq Scan"));
    assert!(whole.is_none(), "a whole table is read:\n{}", plan.join("\n"));
    let mut indexes: Vec<String> = plan
        .iter()
        .filter(|line| line.contains("Index"))
        .filter_map(|line| line.split(" using ").nth(1).or_else(|| line.split(" on ").nth(1)))
        .filter_map(|rest| rest.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    indexes.sort();
    indexes.dedup();
    indexes
}

const ENDED_INDEXES: [&str; EndedKind::ALL.len()] = [
    "replays_ended",
    "erasures_ended",
    "endpoints_deleted",
    "api_keys_ended",
    "portal_sessions_ended",
    "parked_messages_aged",
    "workspaces_deleted",
];

#[tokio::test]
async fn the_hot_statements_use_their_indexes() {
    let name = format!("postrider_test_{}_plans", std::process::id());
    let Some(session) = database(&name).await else { return };
    session.batch(&format!("BEGIN; {PLANNER}")).await.unwrap();
    let (one, none, now) = (vec![1_i64], vec![None::<i64>], 1_i64);
    assert_eq!(indexes(&session, due::SELECT_READY_LANES, &[&now, &now, &now, &now]).await, ["lanes_by_next"]);
    let take = indexes(&session, due::CLAIM, &[&one, &one, &now, &now, &one]).await;
    assert_eq!(take, ["due_by_lane", "due_pkey", "events_kept_pkey"]);
    assert_eq!(indexes(&session, lane::RAISE_NEXT_AT, &[&one, &now, &now]).await, ["due_by_lane", "lanes_pkey"]);
    let finish = indexes(&session, outcome::FINISH, &[&one, &one, &one, &none, &one, &now, &none, &none]).await;
    assert_eq!(finish, ["deliveries_kept_pkey", "due_pkey"]);
    let published = indexes(&session, event::SELECT_PUBLISHED, &[&one, &one, &vec!["id"]]).await;
    assert_eq!(published, ["events_kept_pkey", "publish_keys_pkey"]);
    let counts = indexes(&session, stats::SELECT_COUNTS, &[&one, &one, &now, &now, &now, &"", &"~"]).await;
    assert_eq!(counts, ["rollups_pkey"]);
    let of_project = indexes(&session, stats::SELECT_EVENTS_OF_PROJECT, &[&one, &now, &now, &now, &"p", &now]).await;
    assert_eq!(of_project, ["rollups_pkey"]);
    let by_type = indexes(&session, stats::SELECT_EVENTS_BY_TYPE, &[&one, &now, &now, &now, &now]).await;
    assert_eq!(by_type, ["rollups_pkey"]);
    let cursor: [&dyn Parameter; 10] = [&now, &now, &now, &now, &now, &"", &now, &now, &now, &now];
    assert_eq!(indexes(&session, stats::SELECT_TO_FOLD, &cursor).await, ["rollups_pkey"]);
    for (kind, index) in EndedKind::ALL.into_iter().zip(ENDED_INDEXES) {
        assert_eq!(indexes(&session, &ended::select(kind), &[&now, &now, &now, &now]).await, [index]);
    }
    assert_eq!(indexes(&session, gauges::SELECT_OLDEST_DUE, &[&now, &now]).await, ["due_by_lane", "lanes_by_next"]);
    for (part, used) in [
        (StatePart::Deliveries, vec!["due_pkey", "lanes_pkey"]),
        (StatePart::Lanes, vec!["lanes_pkey"]),
        (StatePart::Endpoints, vec!["endpoint_health_pkey", "endpoints_pkey"]),
    ] {
        assert_eq!(indexes(&session, &gauges::count_states(part), &[&now, &now, &now]).await, used, "{part:?}");
    }
    session.batch(&format!("ROLLBACK; DROP SCHEMA {name} CASCADE")).await.unwrap();
}
