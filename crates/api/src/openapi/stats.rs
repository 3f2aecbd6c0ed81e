//! The operation and schemas of `/stats`.

use serde_json::{Value, json};

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::stats::BucketSize;

use crate::error_code::ErrorCode;

use super::info::STATS;
use super::operation::Operation;
use super::schema::{
    Schemas, array, boolean, count, described, growing, instant, nullable, object, one_of, reference, single,
    single_example, timestamp,
};

pub fn show(_: &Catalogue) -> Operation {
    Operation::new(STATS, "getStats", "Get statistics")
        .describe(format!(
            "What was counted in a period, in buckets of a minute, an hour or a day (UTC), and the queue as it is now. \
             The server counts in the same transactions in which it accepts, attempts and ends. So the numbers agree \
             with the log, and a long period is answered as quickly as a short one. At most {} buckets.\n\nCounts of \
             minutes are kept for {} days, counts of hours for {}, counts of days as long as the log; none longer than \
             the log. `completeSince` says from when on the answer is complete.",
            limits::STATS_BUCKETS,
            limits::MINUTE_ROLLUPS_KEPT.as_secs() / 86_400,
            limits::HOUR_ROLLUPS_KEPT.as_secs() / 86_400,
        ))
        .query(
            "since",
            instant(),
            "From the bucket that contains this instant. By default an hour, a day or 30 days before the end, for \
             buckets of a minute, an hour or a day.",
        )
        .query(
            "until",
            instant(),
            "Later than `since`. Up to the bucket that contains the instant before this one. By default the current bucket.",
        )
        .query(
            "endpointId",
            reference("EndpointId"),
            "Only deliveries to this endpoint. For an endpoint that does not exist nothing is counted.",
        )
        .query(
            "projectId",
            reference("ProjectId"),
            "Only events of this project, and deliveries to the endpoints that belong to it now, counted while they \
             belonged to it.",
        )
        .query("bucket", reference("StatsBucketSize"), "The length of a bucket. By default `hour`.")
        .answers(200, "The counts.", single(reference("Stats")), single_example(example()))
        .fails(&[ErrorCode::Unprocessable])
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let mut bucket = counts();
    bucket["start"] = timestamp("The start of the bucket.");
    let stats = json!({
        "bucket": reference("StatsBucketSize"),
        "since": timestamp("The start of the first bucket."),
        "until": timestamp("The end of the last bucket."),
        "completeSince": timestamp(
            "Buckets from this instant on are complete. Before it, something may be missing: the server did not count \
             yet, or no longer has the counts of buckets of this length.",
        ),
        "totals": described(reference("StatsCounts"), "The sums of all buckets."),
        "buckets": described(array(reference("StatsBucket")), "Every bucket of the period, the earliest first."),
        "queue": reference("StatsQueue"),
    });
    let queue = json!({
        "pending": described(
            count(),
            &format!("Deliveries that have not ended, counted up to {}.", limits::PENDING_COUNTED),
        ),
        "isExact": described(boolean(), "False when there may be more than `pending` says."),
        "oldestDueAt": nullable(timestamp(
            "Since when the delivery is due that has waited longest to be attempted; null if none waits. Deliveries \
             that wait for an inactive or paused endpoint do not count.",
        )),
    });
    let own = vec![
        ("Stats", described(object(stats, &[]), "What was counted in a period.")),
        ("StatsCounts", described(object(counts(), &[]), "The counts of a whole period.")),
        ("StatsBucket", described(object(bucket, &[]), "The counts of one bucket.")),
        ("StatsBucketSize", described(one_of(&BucketSize::ALL.map(BucketSize::as_str)), "The length of a bucket.")),
        ("StatsQueue", described(object(queue, &[]), "The deliveries that have not ended, as they are now.")),
    ];
    own.into_iter().chain(parts()).collect()
}

fn counts() -> Value {
    json!({
        "events": nullable(described(count(), "Accepted events; null with `endpointId`.")),
        "attempts": reference("StatsAttempts"),
        "deliveries": reference("StatsDeliveries"),
        "firstAttempts": reference("StatsFirstAttempts"),
    })
}

/// The parts of [`counts`].
fn parts() -> Schemas {
    let outcome = json!({ "outcome": growing(&AttemptOutcome::ALL.map(AttemptOutcome::as_str)), "count": count() });
    let end = json!({
        "status": one_of(&DeliveryStatus::ALL.map(DeliveryStatus::as_str)),
        "reason": nullable(growing(&EndReason::ALL.map(EndReason::as_str))),
        "count": count(),
    });
    let attempts = json!({
        "total": count(),
        "byOutcome": described(array(reference("StatsOutcome")), "Outcomes without an attempt are left out."),
    });
    let deliveries = json!({
        "created": described(count(), "Deliveries written to the log, skipped ones too."),
        "ended": described(
            array(reference("StatsEnd")),
            "Deliveries by the status and the reason with which they ended. Ends without a delivery are left out.",
        ),
    });
    let percentile = |percent: u8| {
        nullable(described(
            count(),
            &format!(
                "{percent} % of these deliveries waited no longer, in milliseconds, rounded up to a step of about 1, 2 \
                 or 5; null if there are none."
            ),
        ))
    };
    let first_attempts = json!({
        "count": described(count(), "Deliveries whose first attempt was recorded."),
        "p50Ms": percentile(50),
        "p95Ms": percentile(95),
        "p99Ms": percentile(99),
    });
    vec![
        ("StatsAttempts", object(attempts, &[])),
        ("StatsOutcome", object(outcome, &[])),
        ("StatsDeliveries", object(deliveries, &[])),
        ("StatsEnd", object(end, &[])),
        (
            "StatsFirstAttempts",
            described(
                object(first_attempts, &[]),
                "How long deliveries waited from their creation to the start of their first attempt.",
            ),
        ),
    ]
}

fn example() -> Value {
    let counts = json!({
        "events": 1200,
        "attempts": {
            "total": 1214,
            "byOutcome": [{ "outcome": "delivered", "count": 1198 }, { "outcome": "timeout", "count": 16 }],
        },
        "deliveries": { "created": 1200, "ended": [{ "status": "delivered", "reason": null, "count": 1198 }] },
        "firstAttempts": { "count": 1200, "p50Ms": 5, "p95Ms": 20, "p99Ms": 50 },
    });
    let mut bucket = counts.clone();
    bucket["start"] = "2026-05-15T08:00:00.000Z".into();
    json!({
        "bucket": "hour",
        "since": "2026-05-15T08:00:00.000Z",
        "until": "2026-05-15T09:00:00.000Z",
        "completeSince": "2026-04-01T00:00:00.000Z",
        "totals": counts,
        "buckets": [bucket],
        "queue": { "pending": 2, "isExact": true, "oldestDueAt": null },
    })
}
