//! Snapshots of the statements on the hot path, each with its query plan, so that a review sees when either changes.
//!
//! A plan line must name an index or the primary key. `SCAN` without an index, or a temporary B-tree for `ORDER BY`,
//! makes a statement cost more as the table grows.

use std::fmt::Write as _;

use rusqlite::Connection;

use postrider_store::EndedKind;
use postrider_store::gauges::StatePart;

use super::schema;
use crate::gauges;
use crate::log::attempt::INSERT_ATTEMPT;
use crate::log::delivery::{FINISH_DELIVERY, INSERT_DELIVERY};
use crate::publish::event::{INSERT_EVENT, INSERT_PUBLISH_KEY, SELECT_PUBLISHED};
use crate::publish::matching::SELECT_VERSION;
use crate::queue::due::{CLAIM, GIVE_BACK, SELECT_DUE, SELECT_NEXT_LANES, SELECT_READY_LANES};
use crate::queue::enqueue::INSERT_DUE;
use crate::queue::lane::{LOWER_NEXT_AT, RAISE_NEXT_AT, SELECT_BOUND, SELECT_EARLIEST};
use crate::queue::outcome::{REMOVE_FINISHED, SCHEDULE_RETRY};
use crate::stats;
use crate::upkeep::ended;

/// The statements one after another, each followed by its plan as comments.
fn with_plans(statements: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = schema::connect(&schema::database_path(directory.path())).unwrap();
    schema::migrate(&mut connection).unwrap();
    let mut text = String::new();
    for sql in statements {
        for line in sql.lines() {
            writeln!(text, "{}", line.trim()).unwrap();
        }
        for step in plan_of(&connection, sql) {
            writeln!(text, "-- {step}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn plan_of(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get("detail").unwrap());
    }
    steps
}

#[test]
fn the_statements_that_accept_an_event() {
    let statements = [SELECT_PUBLISHED, SELECT_VERSION, INSERT_EVENT, INSERT_PUBLISH_KEY, INSERT_DELIVERY, INSERT_DUE];
    insta::assert_snapshot!(with_plans(&statements), @"
    SELECT body_hash, event_key, type, project_id, deliveries
    FROM publish_keys JOIN events ON events.key = event_key
    WHERE publish_keys.workspace_key = ?1 AND publish_keys.mode = ?2 AND publish_keys.external_id = ?3
    -- SEARCH publish_keys USING PRIMARY KEY (workspace_key=? AND mode=? AND external_id=?)
    -- SEARCH events USING INTEGER PRIMARY KEY (rowid=?)

    SELECT config_version FROM workspaces WHERE key = ?1
    -- SEARCH workspaces USING INTEGER PRIMARY KEY (rowid=?)

    INSERT INTO events (key, workspace_key, mode, type, project_id, external_id, occurred_at, deliveries, envelope,
    traceparent)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)

    INSERT OR REPLACE INTO publish_keys (workspace_key, mode, external_id, event_key, body_hash)
    VALUES (?1, ?2, ?3, ?4, ?5)

    INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, reason, cause, retry_of,
    completed_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)

    INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version, also_secret_version,
    attempts, claim_token, claimed_at, sequence)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
    ");
}

#[test]
fn the_statements_that_keep_the_bound_of_a_lane() {
    insta::assert_snapshot!(with_plans(&[SELECT_BOUND, LOWER_NEXT_AT, SELECT_EARLIEST, RAISE_NEXT_AT]), @"
    SELECT next_at, held_since IS NOT NULL OR not_before IS NOT NULL FROM lanes WHERE lane_key = ?1
    -- SEARCH lanes USING INTEGER PRIMARY KEY (rowid=?)

    INSERT INTO lanes (lane_key, workspace_key, next_at) VALUES (?1, ?2, ?3)
    ON CONFLICT (lane_key) DO UPDATE SET next_at = max(excluded.next_at, ifnull(not_before, excluded.next_at))
    WHERE next_at > excluded.next_at

    SELECT due_at FROM due WHERE lane_key = ?1 ORDER BY due_at LIMIT 1
    -- SEARCH due USING COVERING INDEX due_by_lane (lane_key=?)

    UPDATE lanes SET next_at = max(?2, ifnull(not_before, ?2)) WHERE lane_key = ?1
    -- SEARCH lanes USING INTEGER PRIMARY KEY (rowid=?)
    ");
}

#[test]
fn the_statements_that_claim_and_give_back() {
    let statements = [SELECT_READY_LANES, SELECT_DUE, CLAIM, SELECT_NEXT_LANES, GIVE_BACK];
    insta::assert_snapshot!(with_plans(&statements), @"
    SELECT lane_key, workspace_key, paused_since FROM lanes
    WHERE held_since IS NULL AND next_at <= ?1 ORDER BY next_at
    -- SEARCH lanes USING INDEX lanes_by_next (next_at<?)

    SELECT delivery_key, event_key, due.mode, cause, attempts, step, claimed_at, secret_version,
    also_secret_version, sequence, envelope, traceparent
    FROM due LEFT JOIN events ON events.key = event_key
    WHERE lane_key = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3
    -- SEARCH due USING INDEX due_by_lane (lane_key=? AND due_at<?)
    -- SEARCH events USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN

    UPDATE due SET due_at = ?2, claim_token = ?3, claimed_at = ?4, attempts = ?5 WHERE delivery_key = ?1
    -- SEARCH due USING INTEGER PRIMARY KEY (rowid=?)

    SELECT lane_key, workspace_key, next_at FROM lanes WHERE held_since IS NULL ORDER BY next_at
    -- SCAN lanes USING INDEX lanes_by_next

    UPDATE due SET due_at = ?3, claim_token = NULL, claimed_at = NULL, attempts = attempts - 1
    WHERE delivery_key = ?1 AND claim_token = ?2
    RETURNING lane_key, (SELECT workspace_key FROM deliveries WHERE key = delivery_key)
    -- SEARCH due USING INTEGER PRIMARY KEY (rowid=?)
    -- CORRELATED SCALAR SUBQUERY 1
    -- SEARCH deliveries USING INTEGER PRIMARY KEY (rowid=?)
    ");
}

#[test]
fn the_statements_that_record_an_outcome() {
    let statements = [REMOVE_FINISHED, SCHEDULE_RETRY, FINISH_DELIVERY, INSERT_ATTEMPT];
    insta::assert_snapshot!(with_plans(&statements), @"
    DELETE FROM due WHERE delivery_key = ?1 AND claim_token = ?2 RETURNING sequence
    -- SEARCH due USING INTEGER PRIMARY KEY (rowid=?)

    UPDATE due SET due_at = ?3, claim_token = NULL, claimed_at = NULL, step = step + ?4
    WHERE delivery_key = ?1 AND claim_token = ?2
    RETURNING lane_key, (SELECT workspace_key FROM deliveries WHERE key = delivery_key)
    -- SEARCH due USING INTEGER PRIMARY KEY (rowid=?)
    -- CORRELATED SCALAR SUBQUERY 1
    -- SEARCH deliveries USING INTEGER PRIMARY KEY (rowid=?)

    UPDATE deliveries SET status = ?2, reason = ?3, attempts = ?4, completed_at = ?5,
    last_outcome = ?6, last_response_status = ?7 WHERE key = ?1
    -- SEARCH deliveries USING INTEGER PRIMARY KEY (rowid=?)

    INSERT INTO attempts (delivery_key, number, started_at, duration_ms, outcome, request_headers,
    response_status, response_headers, response_body, error, next_attempt_at,
    dns_ms, connect_ms, tls_ms, first_byte_ms, connection_reused,
    request, remote_address, body_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
    ");
}

#[test]
fn the_statements_of_statistics_search_by_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = schema::connect(&schema::database_path(directory.path())).unwrap();
    schema::migrate(&mut connection).unwrap();
    let of_bucket = "size=? AND start=? AND workspace_key=? AND mode=? AND endpoint_key=? AND name";
    for sql in [stats::SELECT_COUNTS, stats::SELECT_EVENTS_OF_PROJECT, stats::SELECT_EVENTS_BY_TYPE] {
        let plan = plan_of(&connection, sql);
        assert!(plan.len() == 1 && plan[0].starts_with("SEARCH") && plan[0].contains(of_bucket), "{plan:?}");
    }
    let plan = plan_of(&connection, stats::SELECT_COUNTS_BETWEEN);
    let of_range = "size=? AND start=? AND workspace_key=? AND mode=? AND endpoint_key>? AND endpoint_key<?";
    assert!(plan.len() == 1 && plan[0].starts_with("SEARCH") && plan[0].contains(of_range), "{plan:?}");
    // A step continues behind its last row, wherever that is among the rows of a minute.
    let plan = plan_of(&connection, stats::SELECT_TO_FOLD);
    let behind = "size=? AND (start,workspace_key,mode,endpoint_key,name,counter,shard)>(?,?,?,?,?,?,?)";
    assert!(plan.len() == 1 && plan[0].contains(behind), "{plan:?}");
}

#[test]
fn the_statements_that_find_what_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = schema::connect(&schema::database_path(directory.path())).unwrap();
    schema::migrate(&mut connection).unwrap();
    let indexes: [&str; EndedKind::ALL.len()] = [
        "replays_ended",
        "erasures_ended",
        "endpoints_deleted",
        "api_keys_ended",
        "portal_sessions_ended",
        "parked_messages_aged",
        "workspaces_deleted",
    ];
    for (kind, index) in EndedKind::ALL.into_iter().zip(indexes) {
        let plan = plan_of(&connection, &ended::select(kind));
        // One step: a search of the index, in its order.
        assert!(plan.len() == 1 && plan[0].starts_with("SEARCH") && plan[0].contains(index), "{plan:?}");
    }
}

#[test]
fn no_gauge_reads_more_than_its_step() {
    let steps = [StatePart::Deliveries, StatePart::Lanes, StatePart::Endpoints].map(gauges::count_states);
    let statements = [gauges::SELECT_OLDEST_DUE, &steps[0], &steps[1], &steps[2]];
    let directory = tempfile::tempdir().unwrap();
    let mut connection = schema::connect(&schema::database_path(directory.path())).unwrap();
    schema::migrate(&mut connection).unwrap();
    for sql in statements {
        let plan = plan_of(&connection, sql);
        // The rows of a step are materialised, and then walked. No table is.
        let walked = plan
            .iter()
            .filter(|step| step.starts_with("SCAN") && !["SCAN seen", "SCAN ready"].contains(&step.as_str()));
        assert_eq!(walked.count(), 0, "{sql}\n{plan:#?}");
        assert!(plan.iter().any(|step| step.starts_with("SEARCH")), "{sql}\n{plan:#?}");
    }
}
