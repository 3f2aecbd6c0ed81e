//! What the migration of the operations workspace makes of stores that an earlier version wrote.
//!
//! The statements run as they are in the files: before the migration, the rows of each case are inserted; after it, the
//! marked workspaces and the remaining endpoints are read.

use crate::support::postgres::TestDatabase;

const BEFORE: [(&str, &str); 6] = [
    (
        include_str!("../../../migrations/sqlite/0001_first.sql"),
        include_str!("../../../migrations/postgres/0001_first.sql"),
    ),
    (
        include_str!("../../../migrations/sqlite/0002_attempt_phases.sql"),
        include_str!("../../../migrations/postgres/0002_attempt_phases.sql"),
    ),
    (
        include_str!("../../../migrations/sqlite/0003_endpoint_options.sql"),
        include_str!("../../../migrations/postgres/0003_endpoint_options.sql"),
    ),
    (
        include_str!("../../../migrations/sqlite/0004_ordering.sql"),
        include_str!("../../../migrations/postgres/0004_ordering.sql"),
    ),
    (
        include_str!("../../../migrations/sqlite/0005_endpoint_health.sql"),
        include_str!("../../../migrations/postgres/0005_endpoint_health.sql"),
    ),
    (
        include_str!("../../../migrations/sqlite/0006_growth.sql"),
        include_str!("../../../migrations/postgres/0006_growth.sql"),
    ),
];
const MIGRATION: (&str, &str) = (
    include_str!("../../../migrations/sqlite/0007_keys.sql"),
    include_str!("../../../migrations/postgres/0007_keys.sql"),
);

const WORKSPACE: &str = "INSERT INTO workspaces (key, id, name) VALUES (1, 'org_0000000000000001', 'operations');
     INSERT INTO lanes (lane_key, workspace_key, next_at) VALUES (10, 1, 99);
     INSERT INTO audit (key, workspace_key, mode, action, resource_id)
         VALUES (30, 1, 0, 'workspace.created', 'org_0000000000000001');";
const KEY: &str = "INSERT INTO api_keys (key, id, workspace_key, mode, hash, last4, scopes)
         VALUES (20, 'key_0000000000000001', 1, 0, 'hash', 'last', 'webhooks:read events:read');
     INSERT INTO audit (key, workspace_key, mode, action, resource_id)
         VALUES (31, 1, 0, 'api_key.created', 'key_0000000000000001');";
const PUBLISHER: &str = "INSERT INTO api_keys (key, id, workspace_key, mode, hash, last4, scopes)
         VALUES (21, 'key_0000000000000002', 1, 0, 'other', 'last', 'events:write');
     INSERT INTO audit (key, workspace_key, mode, action, resource_id, actor)
         VALUES (32, 1, 0, 'api_key.created', 'key_0000000000000002', 'key_0000000000000001');";

/// An endpoint, `operator webhook` or a tenant's, and its secret.
fn endpoint(key: i64, name: &str, events: &str) -> String {
    format!(
        "INSERT INTO endpoints (key, id, workspace_key, name, url, events, is_active, secret_version, secret_last4,
                                updated_at)
             VALUES ({key}, 'whe_00000000000000{key}', 1, '{name}', 'https://example.com/', '{events}', ACTIVE, 1, 'last',
                     0);
         INSERT INTO endpoint_secrets (endpoint_key, version, sealed) VALUES ({key}, 1, 'sealed');"
    )
}

fn webhook() -> String {
    let events = "endpoint.failing endpoint.paused endpoint.disabled endpoint.recovered delivery.exhausted";
    endpoint(10, "operator webhook", events)
}

/// After the migration: workspaces of the server, endpoints that exist, secrets, and when the lane is due.
type After = (i64, i64, i64, i64);

const AFTER: &str = "SELECT (SELECT COUNT(*) FROM workspaces WHERE MARKED),
                            (SELECT COUNT(*) FROM endpoints WHERE deleted_at IS NULL),
                            (SELECT COUNT(*) FROM endpoint_secrets), (SELECT next_at FROM lanes)";

/// Each case: its rows, and what the migration leaves.
fn cases() -> Vec<(&'static str, String, After)> {
    let own = format!("{WORKSPACE}{}", webhook());
    vec![
        ("the server's own", own.clone(), (1, 1, 1, 99)),
        ("the server's own, with a key that reads", format!("{own}{KEY}"), (1, 1, 1, 99)),
        ("a tenant's without a webhook", format!("{WORKSPACE}{KEY}{PUBLISHER}"), (0, 0, 0, 99)),
        ("a tenant's with another endpoint", format!("{own}{}", endpoint(11, "mine", "post.created")), (0, 1, 1, 0)),
        ("a tenant's that publishes", format!("{own}{KEY}{PUBLISHER}"), (0, 0, 0, 0)),
        (
            "a tenant's that a key has changed",
            format!(
                "{own}INSERT INTO audit (key, workspace_key, mode, action, resource_id, actor)
                     VALUES (33, 1, 0, 'endpoint.updated', 'whe_0000000000000010', 'key_0000000000000001');"
            ),
            (0, 0, 0, 0),
        ),
    ]
}

const MAKERS: &str = "SELECT COALESCE(created_by, 'unknown') FROM api_keys ORDER BY key";

#[test]
fn sqlite_marks_only_the_servers_own_workspace() {
    for (name, rows, expected) in cases() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for (sql, _) in BEFORE {
            connection.execute_batch(sql).unwrap();
        }
        let rows = rows.replace("ACTIVE", "1").replace("'hash'", "x'01'").replace("'other'", "x'02'");
        connection.execute_batch(&rows.replace("'sealed'", "x'03'")).unwrap();
        connection.execute_batch(MIGRATION.0).unwrap();
        let after: After = connection
            .query_row(&AFTER.replace("MARKED", "is_operations = 1"), [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .unwrap();
        assert_eq!(after, expected, "{name}");
        let makers: Vec<String> =
            connection.prepare(MAKERS).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let all = ["command_line", "key_0000000000000001"];
        assert_eq!(makers, all[..makers.len()], "{name}");
    }
}

#[tokio::test]
async fn postgres_marks_only_the_servers_own_workspace() {
    for (name, rows, expected) in cases() {
        let Some(database) = TestDatabase::without_tables().await else { return };
        let client = database.client().await;
        for (_, sql) in BEFORE {
            client.batch_execute(sql).await.unwrap();
        }
        client.batch_execute(&rows.replace("ACTIVE", "true")).await.unwrap();
        client.batch_execute(MIGRATION.1).await.unwrap();
        let row = client.query_one(&AFTER.replace("MARKED", "is_operations"), &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2), row.get(3)), expected, "{name}");
        let makers: Vec<String> = client.query(MAKERS, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        let all = ["command_line", "key_0000000000000001"];
        assert_eq!(makers, all[..makers.len()], "{name}");
    }
}
