//! The delivery log: lists, filters, pages, and isolation between workspaces.

use std::time::Duration;

use postrider_domain::delivery::{Delivery, DeliveryFilter, DeliveryStatus};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, StoreTag};
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_domain::time::Timestamp;
use postrider_store::NewEndpoint;

use crate::store::fixture::{EVENT_TYPE, Fixture, START, tenant_of};

on_each_backend! {
    a_list_is_newest_first,
    pages_follow_each_other_without_repeat_or_gap,
    new_deliveries_do_not_disturb_a_walk_over_pages,
    a_filter_lists_only_matching_deliveries,
    a_time_range_includes_its_start_and_excludes_its_end,
    filters_narrow_each_other,
    a_time_range_may_lie_beyond_all_rows,
    a_delivery_is_invisible_to_another_workspace,
    an_id_of_another_store_is_not_found,
    an_unknown_delivery_is_not_found,
}

fn ids(deliveries: &[Delivery]) -> Vec<DeliveryId> {
    deliveries.iter().map(|delivery| delivery.id).collect()
}

async fn listed(at: &Fixture, filter: DeliveryFilter) -> Vec<DeliveryId> {
    ids(&at.deliveries_of(at.tenant(), filter).await)
}

async fn a_list_is_newest_first(at: Fixture) {
    at.endpoint().await;
    let mut events = Vec::new();
    for _ in 0..3 {
        events.extend(at.publish(2).await.into_iter().map(|receipt| receipt.id));
        at.advance(Duration::from_millis(1));
    }
    events.reverse();
    let listed = at.deliveries().await;
    assert_eq!(listed.iter().map(|delivery| delivery.event_id).collect::<Vec<_>>(), events);
    assert!(listed.windows(2).all(|pair| pair[0].id.key() > pair[1].id.key()));
}

/// Pages through all deliveries of the workspace. Calls `between` after each page but the last.
async fn walk(at: &Fixture, limit: usize, mut between: impl AsyncFnMut()) -> Vec<DeliveryId> {
    let mut walked = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = PageRequest::parse(Some(&limit.to_string()), cursor.as_deref()).unwrap();
        let page = at.store().list_deliveries(at.tenant(), DeliveryFilter::default(), page).await.unwrap();
        assert!(page.items.len() <= limit);
        walked.extend(ids(&page.items));
        match page.next {
            Some(key) => {
                assert_eq!(page.items.len(), limit, "only the last page is short");
                cursor = Some(encode_cursor(key));
            }
            None => return walked,
        }
        between().await;
    }
}

async fn pages_follow_each_other_without_repeat_or_gap(at: Fixture) {
    at.endpoints(3).await;
    at.publish(4).await;
    let all = ids(&at.deliveries().await);
    assert_eq!(all.len(), 12);
    for limit in [1, 4, 5, 12, 13] {
        assert_eq!(walk(&at, limit, async || {}).await, all, "pages of {limit}");
    }
}

async fn new_deliveries_do_not_disturb_a_walk_over_pages(at: Fixture) {
    at.endpoint().await;
    at.publish(7).await;
    let all = ids(&at.deliveries().await);
    let walked = walk(&at, 2, async || drop(at.publish(1).await)).await;
    assert_eq!(walked, all);
}

async fn a_filter_lists_only_matching_deliveries(at: Fixture) {
    let first = at.endpoint().await;
    let types = ["post.created", "job.failed"].map(EventTypeName::from_stored).to_vec();
    let second = at.create(NewEndpoint { events: types, ..at.new_endpoint() }).await;
    let posts = at.publish(2).await;
    at.accept(vec![at.event_of("job.failed", None)]).await;
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    let all = at.deliveries().await;
    assert_eq!(all.len(), 5);
    let expect = |matches: &dyn Fn(&Delivery) -> bool| {
        let expected: Vec<_> = all.iter().filter(|delivery| matches(delivery)).map(|delivery| delivery.id).collect();
        assert!(!expected.is_empty());
        expected
    };
    let any = DeliveryFilter::default;
    for endpoint in [&first, &second] {
        let by_endpoint = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..any() };
        assert_eq!(listed(&at, by_endpoint).await, expect(&|delivery| delivery.endpoint_id == endpoint.id));
    }
    let by_event = DeliveryFilter { event_ids: vec![posts[1].id], ..any() };
    assert_eq!(listed(&at, by_event).await, expect(&|delivery| delivery.event_id == posts[1].id));
    for name in [EVENT_TYPE, "job.failed"] {
        let by_type = DeliveryFilter { event_types: vec![EventTypeName::from_stored(name)], ..any() };
        assert_eq!(listed(&at, by_type).await, expect(&|delivery| delivery.event_type.as_str() == name));
    }
    let by_status = DeliveryFilter { statuses: vec![DeliveryStatus::Delivered], ..any() };
    assert_eq!(listed(&at, by_status).await, [claim.delivery_id]);
    let pending = DeliveryFilter { statuses: vec![DeliveryStatus::Pending], ..any() };
    assert_eq!(listed(&at, pending).await, expect(&|delivery| delivery.id != claim.delivery_id));
    let unknown = DeliveryFilter { event_types: vec![EventTypeName::from_stored("a.b")], ..any() };
    assert!(listed(&at, unknown).await.is_empty());
}

async fn a_time_range_includes_its_start_and_excludes_its_end(at: Fixture) {
    at.endpoint().await;
    let mut created = Vec::new();
    for _ in 0..4 {
        at.publish(1).await;
        created.insert(0, at.deliveries().await[0].id);
        at.advance(Duration::from_millis(1));
    }
    let after = |millis| Some(START.plus(Duration::from_millis(millis)));
    for (since, until, expected) in [
        (None, None, &created[..]),
        (after(1), None, &created[..3]),
        (None, after(1), &created[3..]),
        (after(1), after(3), &created[1..3]),
        (after(3), after(3), &[]),
        (after(3), after(1), &[]),
    ] {
        let filter = DeliveryFilter { since, until, ..DeliveryFilter::default() };
        assert_eq!(listed(&at, filter).await, expected, "{since:?} to {until:?}");
    }
}

async fn filters_narrow_each_other(at: Fixture) {
    let endpoints = at.endpoints(2).await;
    let event = at.publish(2).await[0].id;
    let filter = DeliveryFilter {
        endpoint_ids: vec![endpoints[1].id],
        event_ids: vec![event],
        event_types: vec![EventTypeName::from_stored(EVENT_TYPE)],
        statuses: vec![DeliveryStatus::Pending],
        since: Some(START),
        until: Some(START.plus(Duration::from_secs(1))),
        ..DeliveryFilter::default()
    };
    let found = at.deliveries_of(at.tenant(), filter.clone()).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].endpoint_id, found[0].event_id), (endpoints[1].id, event));
    assert!(listed(&at, DeliveryFilter { statuses: vec![DeliveryStatus::Failed], ..filter }).await.is_empty());
}

async fn a_time_range_may_lie_beyond_all_rows(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let far = Timestamp::parse("9999-12-30T00:00:00Z").unwrap();
    let until = DeliveryFilter { until: Some(far), ..DeliveryFilter::default() };
    assert_eq!(listed(&at, until).await.len(), 1);
    let since = DeliveryFilter { since: Some(far), ..DeliveryFilter::default() };
    assert!(listed(&at, since).await.is_empty());
    let from_the_start = DeliveryFilter { since: Some(Timestamp::default()), ..DeliveryFilter::default() };
    assert_eq!(listed(&at, from_the_start).await.len(), 1);
}

async fn a_delivery_is_invisible_to_another_workspace(at: Fixture) {
    let endpoint = at.endpoint().await;
    let event = at.publish(1).await[0].id;
    let delivery = at.deliveries().await[0].id;
    let other = at.other_workspace().await;
    let by_endpoint = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..DeliveryFilter::default() };
    let by_event = DeliveryFilter { event_ids: vec![event], ..DeliveryFilter::default() };
    for filter in [DeliveryFilter::default(), by_endpoint, by_event] {
        assert!(at.deliveries_of(tenant_of(other.key), filter).await.is_empty());
    }
    assert!(at.store().find_delivery(tenant_of(other.key), delivery).await.unwrap().is_none());
}

async fn an_id_of_another_store_is_not_found(at: Fixture) {
    at.endpoint().await;
    let event = at.publish(1).await[0].id;
    let delivery = at.deliveries().await[0].id;
    let elsewhere = StoreTag::from_u32(at.store().tag().as_u32() ^ 1);
    let foreign = DeliveryId::new(delivery.key(), elsewhere);
    assert!(at.store().find_delivery(at.tenant(), foreign).await.unwrap().is_none());
    let foreign = EventId::new(event.key(), elsewhere);
    let filter = DeliveryFilter { event_ids: vec![foreign], ..DeliveryFilter::default() };
    assert!(listed(&at, filter).await.is_empty());
}

async fn an_unknown_delivery_is_not_found(at: Fixture) {
    let id = DeliveryId::new(at.store().next_key(), at.store().tag());
    assert!(at.store().find_delivery(at.tenant(), id).await.unwrap().is_none());
    assert!(at.deliveries().await.is_empty());
}
