//! Rollups: the counts are those of a full count of the log, whatever happens to deliveries.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint::{Endpoint, ProjectId};
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange};
use postrider_domain::stats::{BucketSize, Counts, StatsPeriod, StatsScope, StatsSeries};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::{AfterAttempt, AgedStep, LogPart, NewEndpoint, OutcomeRecord, Store};
use rusqlite::Connection;
use tokio_postgres::Client;

use super::fixture::{EVENT_TYPE, Fixture};
use super::postgres::PostgresBackend;
use super::sqlite::with_database;
use crate::support::rollups::{LogDatabase, assert_rollups_are_true};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

enum Database {
    Sqlite(Connection),
    Postgres(Client),
}

impl Database {
    const fn log(&self) -> LogDatabase<'_> {
        match self {
            Self::Sqlite(connection) => LogDatabase::Sqlite(connection),
            Self::Postgres(client) => LogDatabase::Postgres(client),
        }
    }

    async fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite(connection) => connection.execute_batch(sql).unwrap(),
            Self::Postgres(client) => client.batch_execute(sql).await.unwrap(),
        }
    }

    async fn assert_true(&self) -> usize {
        assert_rollups_are_true(&self.log()).await
    }
}

/// Runs each fact as a test on each back end, with a connection to its database.
macro_rules! on_each_database {
    ($($fact:ident),+ $(,)?) => {
        mod sqlite {
            use super::*;

            $(
                #[tokio::test]
                async fn $fact() {
                    let (at, connection) = with_database().await;
                    super::$fact(at, Database::Sqlite(connection)).await;
                }
            )+
        }

        mod postgres {
            use super::*;

            $(
                #[tokio::test]
                async fn $fact() {
                    let Some(backend) = PostgresBackend::new().await else { return };
                    let client = backend.client().await;
                    super::$fact(Fixture::new(backend).await, Database::Postgres(client)).await;
                }
            )+
        }
    };
}

on_each_database! {
    every_way_of_a_delivery_is_counted_as_in_the_log,
    a_rollback_counts_nothing,
    sums_of_hours_and_days_are_those_of_minutes,
    counts_outlive_the_log_but_not_their_age,
    a_store_with_a_log_is_complete_from_its_upgrade_on,
    modes_and_workspaces_and_projects_are_counted_apart,
    a_large_project_is_summed_without_the_endpoints_between,
    activity_tells_hours_last_success_and_queue,
}

fn simulated(at: &Fixture, claim: &postrider_store::Claim) -> OutcomeRecord {
    let finish = AfterAttempt::Finish { status: DeliveryStatus::Simulated, reason: None };
    let mut outcome = at.outcome(claim, 200, finish);
    outcome.attempt.outcome = AttemptOutcome::Simulated;
    outcome
}

async fn claim_and<F: Fn(&Fixture, &postrider_store::Claim) -> OutcomeRecord>(at: &Fixture, outcome: F) -> usize {
    let claims = at.claim(100).await.claims;
    let outcomes = claims.iter().map(|claim| outcome(at, claim)).collect();
    at.store().record_outcomes_if_claimed(outcomes).await.unwrap();
    claims.len()
}

/// Everything that can happen to a delivery, over some days.
async fn live(at: &Fixture) -> Endpoint {
    let operations = at.operations().await;
    let (endpoint, strict) = (at.endpoint().await, at.strict_endpoint().await);
    let project = ProjectId::parse("p").unwrap();
    at.create(NewEndpoint { project_id: Some(project), ..at.new_endpoint() }).await;
    at.test_endpoint().await;
    at.publish(4).await;
    at.accept(vec![at.test_event(), at.event_of(EVENT_TYPE, Some("p")), at.event_of("nobody.listens", None)]).await;
    at.advance(Duration::from_millis(70));
    assert!(
        claim_and(at, |at, claim| match claim.mode {
            Mode::Live => at.retry(claim, Duration::from_secs(30)),
            Mode::Test => simulated(at, claim),
        })
        .await
            > 6
    );
    at.advance(MINUTE);
    // Attempts whose process dies.
    let lost = at.claim(100).await.claims;
    assert!(!lost.is_empty());
    at.advance(limits::LEASE * 2);
    claim_and(at, |at, claim| if claim.endpoint.id == strict.id { at.failed(claim) } else { at.delivered(claim) })
        .await;
    // The strict order has stopped: retried by hand, then by a replay.
    at.publish(2).await;
    claim_and(at, Fixture::failed).await;
    let blocking = at.deliveries().await.into_iter().find(|delivery| delivery.is_blocking).unwrap();
    at.retry_by_hand(blocking.id).await;
    claim_and(at, Fixture::delivered).await;
    let range =
        ReplayRange { since: at.workspace.created_at, until: at.clock_now(), statuses: REPLAYED_BY_DEFAULT.to_vec() };
    at.replay(&endpoint, range).await;
    while at.store().advance_replays().await.unwrap().is_some_and(|passed| passed > 0) {}
    claim_and(at, Fixture::delivered).await;
    // Tests, a pause until the waiting deliveries expire, and skips.
    at.accept_test(&endpoint).await;
    claim_and(at, Fixture::failed).await;
    at.publish(3).await;
    at.switch(&endpoint, false).await;
    at.switch(&strict, false).await;
    at.publish(3).await;
    at.advance(limits::WAITING_MAX + HOUR);
    while at.store().expire_waiting(2).await.unwrap() > 0 {}
    at.switch(&endpoint, true).await;
    at.publish(3).await;
    claim_and(at, Fixture::delivered).await;
    // The endpoint is deleted while deliveries wait, one is under way and one was lost.
    at.publish(3).await;
    let under_way = at.claim_of(&endpoint).await;
    at.publish(2).await;
    at.delete(&endpoint).await;
    at.record(at.retry(&under_way, HOUR)).await;
    assert!(at.deliveries_of(Tenant::whole(operations.key, Mode::Live), Default::default()).await.len() > 1);
    endpoint
}

async fn every_way_of_a_delivery_is_counted_as_in_the_log(mut at: Fixture, database: Database) {
    live(&at).await;
    assert!(database.assert_true().await > 40, "every kind of count");
    at.reopen().await;
    at.advance(limits::LEASE * 2);
    claim_and(&at, Fixture::delivered).await;
    database.assert_true().await;
    let totals = totals(&at, at.tenant(), StatsScope::Workspace).await;
    for reason in [EndReason::Exhausted, EndReason::Expired, EndReason::Inactive, EndReason::EndpointDeleted] {
        assert!(totals.ended.iter().any(|(end, _)| end.reason == Some(reason)), "{reason:?} in {:?}", totals.ended);
    }
    for outcome in [AttemptOutcome::Delivered, AttemptOutcome::HttpError, AttemptOutcome::Abandoned] {
        assert!(totals.attempts_of(outcome) > 0, "{outcome:?}");
    }
}

async fn a_rollback_counts_nothing(at: Fixture, database: Database) {
    at.endpoint().await;
    at.publish(1).await;
    // The second event has the key of the first, so that the transaction fails after it has counted.
    let (first, second) = (at.event(), at.event());
    let twin = postrider_domain::event::NewEvent { id: first.id, ..second };
    assert!(at.store().accept_events(vec![first, twin], None).await.is_err());
    at.publish(1).await;
    database.assert_true().await;
    assert_eq!(totals(&at, at.tenant(), StatsScope::Workspace).await.events, Some(2));
}

async fn series(at: &Fixture, tenant: Tenant, scope: StatsScope, bucket: BucketSize, back: Duration) -> StatsSeries {
    let now = at.clock_now();
    let period = StatsPeriod::new(now.minus(back), Timestamp::from_millis(now.millis() + 1), bucket).unwrap();
    at.store().stats(tenant, scope, period).await.unwrap()
}

async fn totals(at: &Fixture, tenant: Tenant, scope: StatsScope) -> Counts {
    series(at, tenant, scope, BucketSize::Day, DAY * 40).await.totals()
}

async fn fold(at: &Fixture) {
    while at.store().fold_rollups(7).await.unwrap() {}
}

async fn sums_of_hours_and_days_are_those_of_minutes(at: Fixture, database: Database) {
    let endpoint = at.endpoint().await;
    let mut expected = Vec::new();
    // Hour by hour for three days, folded at odd times.
    for hour in 0..72 {
        at.publish(1 + hour % 3).await;
        at.advance(Duration::from_secs(30));
        claim_and(&at, Fixture::delivered).await;
        at.advance(HOUR - Duration::from_secs(30));
        if hour % 5 == 0 {
            fold(&at).await;
        }
        expected.push(u64::try_from(1 + hour % 3).unwrap());
    }
    database.assert_true().await;
    let both = [StatsScope::Workspace, StatsScope::Endpoint(endpoint.id)];
    for _ in 0..2 {
        for scope in &both {
            let hours = series(&at, at.tenant(), scope.clone(), BucketSize::Hour, HOUR * 72).await;
            let created: Vec<u64> = hours.buckets.iter().map(|bucket| bucket.counts.created).collect();
            assert_eq!(created[created.len() - 73..][..72], expected[..], "{scope:?}");
            let delivered = hours.totals().ended_as(DeliveryStatus::Delivered);
            assert_eq!(delivered, expected.iter().sum::<u64>());
            let days = series(&at, at.tenant(), scope.clone(), BucketSize::Day, DAY * 4).await;
            assert_eq!(days.totals(), hours.totals(), "{scope:?}");
            assert_eq!(days.totals().first_attempts.percentile_ms(50), Some(60_000));
            let minutes = series(&at, at.tenant(), scope.clone(), BucketSize::Minute, HOUR * 24).await;
            assert_eq!(minutes.totals().created, expected[48..].iter().sum::<u64>());
        }
        fold(&at).await;
    }
}

async fn remove_log(at: &Fixture, age: Duration) {
    for part in [LogPart::Deliveries, LogPart::Events] {
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after {
            after = at.store().remove_aged(AgedStep { part, age, after: from, limit: 50 }).await.unwrap().next;
        }
    }
}

async fn remove_aged(at: &Fixture) {
    while at.store().remove_aged_rollups(limits::RETENTION, 7).await.unwrap() {}
}

async fn counts_outlive_the_log_but_not_their_age(at: Fixture, database: Database) {
    at.endpoint().await;
    at.publish(3).await;
    claim_and(&at, Fixture::delivered).await;
    let first_day = BucketSize::Day.start_of(at.clock_now());
    at.advance(DAY * 3);
    fold(&at).await;
    remove_log(&at, DAY).await;
    assert!(at.deliveries().await.is_empty(), "the log is gone");
    remove_aged(&at).await;
    let minutes = series(&at, at.tenant(), StatsScope::Workspace, BucketSize::Minute, HOUR).await;
    assert!(minutes.complete_since > first_day, "{minutes:?}: minutes of the first day are gone");
    let before = series(&at, at.tenant(), StatsScope::Workspace, BucketSize::Day, DAY * 5).await;
    assert_eq!((before.totals().created, before.totals().events), (3, Some(3)));
    assert!(before.complete_since <= first_day);
    at.advance(limits::RETENTION - DAY * 4);
    remove_aged(&at).await;
    assert_eq!(totals(&at, at.tenant(), StatsScope::Workspace).await.created, 3);
    at.advance(DAY * 3);
    fold(&at).await;
    remove_aged(&at).await;
    let gone = series(&at, at.tenant(), StatsScope::Workspace, BucketSize::Day, DAY * 40).await;
    assert_eq!(gone.totals().created, 0);
    assert!(gone.complete_since > first_day);
    database.execute("DELETE FROM rollups WHERE size = 3").await;
    let left = match &database {
        Database::Sqlite(connection) => {
            connection.query_row("SELECT COUNT(*) FROM rollups", [], |row| row.get::<_, i64>(0)).unwrap()
        }
        Database::Postgres(client) => client.query_one("SELECT COUNT(*) FROM rollups", &[]).await.unwrap().get(0),
    };
    assert_eq!(left, 0);
}

async fn a_store_with_a_log_is_complete_from_its_upgrade_on(at: Fixture, database: Database) {
    at.publish(1).await;
    let whole = series(&at, at.tenant(), StatsScope::Workspace, BucketSize::Hour, DAY).await;
    assert!(whole.complete_since <= whole.period.since(), "it has counted from its first row");
    let upgraded = at.clock_now();
    let bytes = |text: String| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let value = bytes(upgraded.millis().to_string());
    let literal = match database {
        Database::Sqlite(_) => format!("x'{value}'"),
        Database::Postgres(_) => format!("'\\x{value}'"),
    };
    database.execute(&format!("INSERT INTO meta (name, value) VALUES ('rollups_since', {literal})")).await;
    for bucket in [BucketSize::Minute, BucketSize::Hour, BucketSize::Day] {
        let part = series(&at, at.tenant(), StatsScope::Workspace, bucket, HOUR).await;
        assert_eq!(part.complete_since, bucket.start_at_or_after(upgraded), "{bucket:?}");
    }
}

async fn modes_and_workspaces_and_projects_are_counted_apart(at: Fixture, _database: Database) {
    let (mine, theirs) = (ProjectId::parse("mine").unwrap(), ProjectId::parse("theirs").unwrap());
    let of_project = |project| NewEndpoint { project_id: Some(project), ..at.new_endpoint() };
    let endpoint = at.create(of_project(mine)).await;
    at.create(of_project(theirs)).await;
    at.test_endpoint().await;
    at.accept(vec![at.event_of(EVENT_TYPE, Some("mine")), at.event_of(EVENT_TYPE, Some("theirs"))]).await;
    at.accept(vec![at.event_of(EVENT_TYPE, Some("mine")), at.event(), at.test_event()]).await;
    let counts = async |tenant, scope| {
        let totals = totals(&at, tenant, scope).await;
        (totals.events, totals.created)
    };
    let narrow = |project| Tenant { project: Some(project), ..at.tenant() };
    assert_eq!(counts(at.tenant(), StatsScope::Workspace).await, (Some(4), 3));
    assert_eq!(counts(at.test_tenant(), StatsScope::Workspace).await, (Some(1), 1));
    assert_eq!(counts(at.tenant(), StatsScope::Project(mine)).await, (Some(2), 2));
    assert_eq!(counts(at.test_tenant(), StatsScope::Project(mine)).await, (Some(0), 0));
    assert_eq!(counts(at.tenant(), StatsScope::Endpoint(endpoint.id)).await, (None, 2));
    assert_eq!(counts(at.test_tenant(), StatsScope::Endpoint(endpoint.id)).await, (None, 0));
    assert_eq!(counts(at.tenant(), StatsScope::EndpointOfProject(endpoint.id, theirs)).await, (None, 0));
    assert_eq!(counts(narrow(mine), StatsScope::Workspace).await, (Some(2), 2));
    assert_eq!(counts(narrow(mine), StatsScope::Project(theirs)).await, (Some(0), 0));
    assert_eq!(counts(narrow(theirs), StatsScope::Endpoint(endpoint.id)).await, (None, 0));
    let other = at.other_workspace().await;
    let foreign = Tenant::whole(other.key, Mode::Live);
    assert_eq!(counts(foreign, StatsScope::Workspace).await, (Some(0), 0));
    assert_eq!(counts(foreign, StatsScope::Endpoint(endpoint.id)).await, (None, 0));

    let period = StatsPeriod::ending_at(at.clock_now(), BucketSize::Hour);
    let by_type = |tenant| at.store().events_by_type(tenant, period);
    assert_eq!(by_type(at.tenant()).await.unwrap(), [(EVENT_TYPE.to_owned(), 4)]);
    assert_eq!(by_type(at.test_tenant()).await.unwrap(), [(EVENT_TYPE.to_owned(), 1)]);
    assert_eq!(by_type(foreign).await.unwrap(), []);

    let queue = async |tenant, endpoint| at.store().queue_state(tenant, endpoint).await.unwrap().pending;
    assert_eq!(queue(at.tenant(), None).await, 3);
    assert_eq!(queue(at.test_tenant(), None).await, 1);
    assert_eq!(queue(narrow(mine), None).await, 2);
    assert_eq!(queue(at.tenant(), Some(endpoint.id)).await, 2);
    assert_eq!(queue(narrow(theirs), Some(endpoint.id)).await, 0);
    assert_eq!(queue(foreign, None).await, 0);

    // An endpoint that moves to another project brings no counts along.
    let change = postrider_domain::endpoint::EndpointChange { project_id: Some(Some(theirs)), ..Default::default() };
    at.update(&endpoint, change).await;
    assert_eq!(counts(narrow(theirs), StatsScope::Workspace).await, (Some(1), 1));
    assert_eq!(counts(narrow(theirs), StatsScope::Endpoint(endpoint.id)).await, (None, 0));
    assert_eq!(counts(at.tenant(), StatsScope::Endpoint(endpoint.id)).await, (None, 2));
}

async fn a_large_project_is_summed_without_the_endpoints_between(at: Fixture, _database: Database) {
    let (mine, theirs) = (ProjectId::parse("mine").unwrap(), ProjectId::parse("theirs").unwrap());
    let of_project = |project| NewEndpoint { project_id: Some(project), ..at.new_endpoint() };
    let (many, sparse) = (ProjectId::parse("many").unwrap(), 9);
    for number in 0..12 {
        at.create(of_project(mine)).await;
        at.create(of_project(theirs)).await;
        if number == 0 || number == 11 {
            at.create(of_project(many)).await;
        }
    }
    for _ in 0..sparse - 2 {
        at.create(of_project(many)).await;
    }
    at.accept(vec![at.event_of(EVENT_TYPE, Some("mine")), at.event_of(EVENT_TYPE, Some("theirs"))]).await;
    at.accept(vec![at.event_of(EVENT_TYPE, Some("mine")), at.event_of(EVENT_TYPE, Some("many"))]).await;
    for (project, created) in [(mine, 24), (theirs, 12), (many, sparse)] {
        assert_eq!(totals(&at, at.tenant(), StatsScope::Project(project)).await.created, created, "{project:?}");
    }
}

async fn activity_tells_hours_last_success_and_queue(at: Fixture, _database: Database) {
    let [busy, idle] = [at.endpoint().await, at.endpoint().await];
    at.switch(&idle, false).await;
    at.publish(2).await;
    let succeeded = at.clock_now();
    let claims = at.claim(1).await.claims;
    at.record(at.delivered(&claims[0])).await;
    at.advance(HOUR);
    fold(&at).await;
    let failing = at.claim_one().await;
    at.record(at.retry(&failing, Duration::from_secs(1))).await;
    at.advance(Duration::from_secs(10));
    let period = StatsPeriod::ending_at(at.clock_now(), BucketSize::Hour);
    let unknown = postrider_domain::id::EndpointId::from_letters([b'z'; 16]);
    let asked = vec![idle.id, busy.id, unknown];
    let found = at.store().endpoint_activity(at.tenant(), asked.clone(), period).await.unwrap();
    assert_eq!(found.iter().map(|activity| activity.endpoint_id).collect::<Vec<_>>(), asked);
    assert!(found.iter().all(|activity| activity.hours.len() == 24));
    let [idle, busy, unknown] = &found[..] else { panic!("{found:?}") };
    let last_two = |of: AttemptOutcome| [22, 23].map(|hour| busy.hours[hour].counts.attempts_of(of));
    assert_eq!(last_two(AttemptOutcome::Delivered), [1, 0]);
    assert_eq!(last_two(AttemptOutcome::HttpError), [0, 1]);
    assert_eq!(busy.last_success_at, Some(succeeded));
    assert_eq!((busy.queue.pending, busy.queue.is_exact()), (1, true));
    assert_eq!(busy.queue.oldest_due_at, Some(at.clock_now().minus(Duration::from_secs(9))));
    assert_eq!(idle.hours[22].counts.ended_as(DeliveryStatus::Skipped), 2);
    assert_eq!((idle.last_success_at, idle.queue.pending), (None, 0));
    assert_eq!((unknown.last_success_at, unknown.queue.oldest_due_at), (None, None));
    let whole = at.store().queue_state(at.tenant(), None).await.unwrap();
    assert_eq!(whole, busy.queue);
    let strangers = at.store().endpoint_activity(at.test_tenant(), asked, period).await.unwrap();
    assert!(strangers.iter().all(|activity| activity.last_success_at.is_none() && activity.queue.pending == 0));
}

#[tokio::test]
async fn two_nodes_count_together_what_the_log_holds() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let client = backend.client().await;
    let at = Fixture::new(backend).await;
    let other = at.another_node(at.clock.clone()).await;
    at.endpoints(3).await;
    let publish = async |node: &dyn Store| {
        for _ in 0..20 {
            node.accept_events(vec![at.event(), at.event()], None).await.unwrap();
        }
    };
    tokio::join!(publish(&**at.store()), publish(&*other), publish(&**at.store()));
    let deliver = async |node: &dyn Store| loop {
        let quota = std::sync::Arc::new(super::fixture::EachLane(usize::MAX));
        let claims = node.claim_due(20, limits::LEASE, quota).await.unwrap().claims;
        if claims.is_empty() {
            break;
        }
        let outcomes = claims.iter().map(|claim| at.delivered(claim)).collect();
        node.record_outcomes_if_claimed(outcomes).await.unwrap();
    };
    tokio::join!(deliver(&**at.store()), deliver(&*other), async {
        at.advance(HOUR * 2);
        tokio::join!(fold(&at), async { while other.fold_rollups(7).await.unwrap() {} });
    });
    at.advance(HOUR * 2);
    tokio::join!(fold(&at), async { while other.fold_rollups(7).await.unwrap() {} });
    assert_rollups_are_true(&LogDatabase::Postgres(&client)).await;
    let totals = totals(&at, at.tenant(), StatsScope::Workspace).await;
    assert_eq!((totals.events, totals.created), (Some(120), 360));
    assert_eq!(totals.ended_as(DeliveryStatus::Delivered), 360);
}
