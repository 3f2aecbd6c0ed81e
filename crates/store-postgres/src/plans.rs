//! The plans of the hot statements, pinned: which indexes each goes by, and that none reads a whole table. A plan that changes, by another
//! statement, index or version of PostgreSQL, shows here and not as a database that slows down as it grows.

use super::connect::{Target, connection};
use super::session::{Session, Values};
use super::settings::PostgresSettings;
use super::{PLANNER, due, event, lane, outcome, schema};

const VARIABLE: &str = "POSTRIDER_TEST_DATABASE_URL";
const OTHERWISE: &str = "postgres://postgres@127.0.0.1:5432/postgres";

/// A database with the schema and nothing in it, which is when the planner knows least.
async fn database(name: &str) -> Option<Session> {
    #[expect(clippy::disallowed_methods, reason = "a test asks where its server is")]
    let (server, is_ci) = (std::env::var(VARIABLE), std::env::var("CI").is_ok_and(|value| value == "true"));
    let server = server.unwrap_or_else(|_| OTHERWISE.to_owned());
    let pool_of = |url: &str| Target::of(url, &PostgresSettings::new(url)).unwrap().pool(2).unwrap();
    let plain = match connection(&pool_of(&server)).await {
        Ok(connection) => Session::new(connection),
        Err(error) => {
            assert!(!is_ci, "no PostgreSQL at {server}: {error}");
            eprintln!("SKIPPED: the plans on PostgreSQL, since there is none at {server}; {VARIABLE} names another");
            return None;
        }
    };
    plain.batch(&format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}")).await.unwrap();
    let mark = if server.contains('?') { '&' } else { '?' };
    let pool = pool_of(&format!("{server}{mark}options=-c%20search_path%3D{name}"));
    schema::migrate(&pool).await.unwrap();
    Some(Session::new(connection(&pool).await.unwrap()))
}

/// The indexes that a statement goes by, in the order of their names.
async fn indexes(session: &Session, sql: &str, values: Values<'_>) -> Vec<String> {
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

#[tokio::test]
async fn the_hot_statements_go_by_their_indexes() {
    let name = format!("postrider_test_{}_plans", std::process::id());
    let Some(session) = database(&name).await else { return };
    session.batch(&format!("BEGIN; {PLANNER}")).await.unwrap();
    let (one, none, now) = (vec![1_i64], vec![None::<i64>], 1_i64);
    assert_eq!(indexes(&session, due::READY, &[&now, &now, &now, &now]).await, ["lanes_by_next"]);
    let take = indexes(&session, due::TAKE, &[&one, &one, &now, &now, &one]).await;
    assert_eq!(take, ["due_by_lane", "due_pkey", "events_kept_pkey"]);
    assert_eq!(indexes(&session, lane::RAISE, &[&one, &now, &now]).await, ["due_by_lane", "lanes_pkey"]);
    let finish = indexes(&session, outcome::FINISH, &[&one, &one, &one, &none, &one, &now]).await;
    assert_eq!(finish, ["deliveries_kept_pkey", "due_pkey"]);
    let published = indexes(&session, event::PUBLISHED, &[&one, &one, &vec!["id"]]).await;
    assert_eq!(published, ["events_kept_pkey", "publish_keys_pkey"]);
    session.batch(&format!("ROLLBACK; DROP SCHEMA {name} CASCADE")).await.unwrap();
}
