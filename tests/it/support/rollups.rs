//! Compares the rollups of a store with a full count of its log, past the store.

use std::collections::BTreeMap;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::id::RowKey;
use postrider_domain::stats::{Counter, DeliveryEnd};
use postrider_domain::time::Timestamp;
use rusqlite::Connection;
use tokio_postgres::Client;

/// The database of a store.
pub enum LogDatabase<'d> {
    Sqlite(&'d Connection),
    Postgres(&'d Client),
}

impl LogDatabase<'_> {
    /// The rows of a statement that both databases accept. Every column is a number.
    async fn numbers(&self, sql: &str, columns: usize) -> Vec<Vec<i64>> {
        match self {
            Self::Sqlite(connection) => connection
                .prepare(sql)
                .unwrap()
                .query_map([], |row| (0..columns).map(|column| row.get(column)).collect())
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap(),
            Self::Postgres(client) => {
                let rows = client.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| (0..columns).map(|column| row.get(column)).collect()).collect()
            }
        }
    }
}

/// By workspace, mode, endpoint (0 for the workspace) and counter.
type Sums = BTreeMap<(i64, i64, i64, i64), i64>;

/// Asserts that the counts of all minutes are what a full count of the log finds. Nothing of the log was removed, and
/// no minute. Returns the number of different counts.
pub async fn assert_rollups_are_true(database: &LogDatabase<'_>) -> usize {
    let (counted, logged) = (counted(database).await, logged(database).await);
    let named = |sums: &Sums| -> BTreeMap<String, i64> {
        sums.iter().map(|(key, sum)| (format!("{key:?} {:?}", Counter::from_code(key.3)), *sum)).collect()
    };
    assert_eq!(named(&counted), named(&logged), "what was counted, and what the log holds");
    counted.len()
}

async fn counted(database: &LogDatabase<'_>) -> Sums {
    let sql = "SELECT workspace_key, mode, endpoint_key, counter, CAST(SUM(count) AS BIGINT) FROM rollups
               WHERE size = 0 AND counter <> {misfits} GROUP BY workspace_key, mode, endpoint_key, counter";
    // The log does not say which events are misfits.
    let sql = sql.replace("{misfits}", &Counter::MisfitsOfType.code().to_string());
    let rows = database.numbers(&sql, 5).await;
    rows.into_iter().map(|row| ((row[0], row[1], row[2], row[3]), row[4])).collect()
}

async fn logged(database: &LogDatabase<'_>) -> Sums {
    let mut sums = Sums::new();
    let events = "SELECT workspace_key, CAST(mode AS BIGINT), CAST(COUNT(*) AS BIGINT),
                         CAST(COUNT(project_id) AS BIGINT) FROM events GROUP BY workspace_key, mode";
    for row in database.numbers(events, 4).await {
        let mut add = |counter: Counter, count| {
            if count > 0 {
                *sums.entry((row[0], row[1], 0, counter.code())).or_default() += count;
            }
        };
        add(Counter::Events, row[2]);
        add(Counter::EventsOfType, row[2]);
        add(Counter::EventsOfProject, row[3]);
    }
    let mut both = |row: &[i64], counter: Counter, count: i64| {
        for endpoint in [0, row[2]] {
            *sums.entry((row[0], row[1], endpoint, counter.code())).or_default() += count;
        }
    };
    let deliveries = "SELECT workspace_key, CAST(mode AS BIGINT), endpoint_key, CAST(status AS BIGINT),
                             CAST(COALESCE(reason, -1) AS BIGINT), CAST(COUNT(*) AS BIGINT) FROM deliveries
                      GROUP BY workspace_key, mode, endpoint_key, status, reason";
    for row in database.numbers(deliveries, 6).await {
        both(&row, Counter::Created, row[5]);
        let (status, reason) = (DeliveryStatus::from_code(row[3]).unwrap(), EndReason::from_code(row[4]));
        if status != DeliveryStatus::Pending {
            both(&row, Counter::Ended(DeliveryEnd { status, reason }), row[5]);
        }
    }
    let attempts = "SELECT workspace_key, CAST(mode AS BIGINT), endpoint_key, CAST(outcome AS BIGINT),
                           CAST(number AS BIGINT), delivery_key, started_at
                    FROM attempts JOIN deliveries ON key = delivery_key";
    for row in database.numbers(attempts, 7).await {
        let (outcome, number) = (AttemptOutcome::from_code(row[3]).unwrap(), u32::try_from(row[4]).unwrap());
        let created_at = RowKey::from_i64(row[5]).created_at();
        both(&row, Counter::of_attempt(outcome, number, created_at, Timestamp::from_millis(row[6])), 1);
    }
    sums
}
