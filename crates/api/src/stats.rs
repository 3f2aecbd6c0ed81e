//! `/v1/stats`.

use axum::response::Response;
use serde::Serialize;

use postrider_domain::delivery::EndReason;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::EndpointId;
use postrider_domain::permission::Permission;
use postrider_domain::stats::{BucketSize, Counts, FirstAttempts, QueueState};
use postrider_domain::time::Timestamp;
use postrider_service::{StatsQuery, StatsReport};

use super::access::Access;
use super::answer::{answer, single};
use super::call::Call;
use super::error::Failure;
use super::openapi::stats as openapi;
use super::query::Query;
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    vec![Route::get("/stats", Access::Needs(Permission::DeliveriesRead), show, openapi::show(catalogue))]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsView {
    bucket: &'static str,
    since: Timestamp,
    until: Timestamp,
    complete_since: Timestamp,
    totals: CountsView,
    buckets: Vec<BucketView>,
    queue: QueueView,
}

#[derive(Serialize)]
struct BucketView {
    start: Timestamp,
    #[serde(flatten)]
    counts: CountsView,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountsView {
    events: Option<u64>,
    attempts: AttemptsView,
    deliveries: DeliveriesView,
    first_attempts: FirstAttemptsView,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptsView {
    total: u64,
    by_outcome: Vec<OutcomeView>,
}

#[derive(Serialize)]
struct OutcomeView {
    outcome: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct DeliveriesView {
    created: u64,
    ended: Vec<EndView>,
}

#[derive(Serialize)]
struct EndView {
    status: &'static str,
    reason: Option<&'static str>,
    count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FirstAttemptsView {
    count: u64,
    p50_ms: Option<u64>,
    p95_ms: Option<u64>,
    p99_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueView {
    pending: u64,
    is_exact: bool,
    oldest_due_at: Option<Timestamp>,
}

impl StatsView {
    fn new(report: &StatsReport) -> Self {
        let StatsReport { series, queue } = report;
        let buckets = series.buckets.iter();
        Self {
            bucket: series.period.bucket().as_str(),
            since: series.period.since(),
            until: series.period.until(),
            complete_since: series.complete_since,
            totals: CountsView::new(&series.totals()),
            buckets: buckets.map(|b| BucketView { start: b.start, counts: CountsView::new(&b.counts) }).collect(),
            queue: QueueView::new(*queue),
        }
    }
}

impl CountsView {
    fn new(counts: &Counts) -> Self {
        let by_outcome = counts.attempts.iter();
        let ended = counts.ended.iter();
        Self {
            events: counts.events,
            attempts: AttemptsView {
                total: counts.attempted(),
                by_outcome: by_outcome.map(|(of, count)| OutcomeView { outcome: of.as_str(), count: *count }).collect(),
            },
            deliveries: DeliveriesView {
                created: counts.created,
                ended: ended
                    .map(|(end, count)| EndView {
                        status: end.status.as_str(),
                        reason: end.reason.map(EndReason::as_str),
                        count: *count,
                    })
                    .collect(),
            },
            first_attempts: FirstAttemptsView::new(&counts.first_attempts),
        }
    }
}

impl FirstAttemptsView {
    fn new(waits: &FirstAttempts) -> Self {
        Self {
            count: waits.count(),
            p50_ms: waits.percentile_ms(50),
            p95_ms: waits.percentile_ms(95),
            p99_ms: waits.percentile_ms(99),
        }
    }
}

impl QueueView {
    const fn new(queue: QueueState) -> Self {
        Self { pending: queue.pending, is_exact: queue.is_exact(), oldest_due_at: queue.oldest_due_at }
    }
}

async fn show(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let asked = StatsQuery {
        since: query.optional("since", Timestamp::parse),
        until: query.optional("until", Timestamp::parse),
        bucket: query.optional("bucket", |text| {
            let sizes = BucketSize::ALL.map(BucketSize::as_str).join(", ");
            BucketSize::parse(text).ok_or_else(|| format!("must be one of {sizes}"))
        }),
        endpoint_id: query.optional("endpointId", str::parse::<EndpointId>),
        project_id: query.optional("projectId", ProjectId::parse),
    };
    query.finish()?;
    let report = call.service().stats(&call.principal, &asked).await?;
    Ok(answer(200, single(StatsView::new(&report))))
}
