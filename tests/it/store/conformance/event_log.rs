//! The event log: events are found, listed and filtered within one workspace.

use std::time::Duration;

use postrider_domain::delivery::EndReason;
use postrider_domain::endpoint::{DisabledReason, OpaqueId, ProjectId};
use postrider_domain::event::EventFilter;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EventId, RowKey, StoreTag};
use postrider_domain::page::PageRequest;

use crate::store::fixture::{Fixture, START, tenant_of};

on_each_backend! {
    an_event_reads_back_with_its_envelope_bytes,
    an_event_counts_the_endpoints_it_matched,
    an_event_lists_skipped_endpoints_with_their_reason,
    events_are_paged_newest_first_without_repeat,
    each_filter_narrows_the_list,
    an_event_is_invisible_to_another_workspace,
}

async fn list(at: &Fixture, filter: EventFilter) -> Vec<EventId> {
    let page = PageRequest::parse(None, None).unwrap();
    let page = at.store().list_events(at.tenant(), filter, page).await.unwrap();
    page.items.iter().map(|event| event.id).collect()
}

async fn an_event_reads_back_with_its_envelope_bytes(mut at: Fixture) {
    let new = at.event_with("ext", 1);
    at.accept(vec![new.clone()]).await;
    at.reopen().await;
    let found = at.store().find_event(at.tenant(), new.id).await.unwrap().expect("the event was accepted");
    assert_eq!(found.envelope, new.envelope);
    assert_eq!((found.event.id, found.event.mode, found.event.occurred_at), (new.id, new.tenant.mode, new.occurred_at));
    assert_eq!(found.event.event_type, new.event_type);
    assert_eq!(found.event.external_id.as_deref(), Some("ext"));
    let elsewhere = EventId::new(new.id.key(), StoreTag::from_u32(!new.id.tag().as_u32()));
    assert!(at.store().find_event(at.tenant(), elsewhere).await.unwrap().is_none());
}

async fn an_event_counts_the_endpoints_it_matched(at: Fixture) {
    let alone = at.accept(vec![at.event()]).await[0].id;
    at.endpoint().await;
    let matched = at.accept(vec![at.event()]).await[0].id;
    let page = PageRequest::parse(None, None).unwrap();
    let page = at.store().list_events(at.tenant(), EventFilter::default(), page).await.unwrap();
    let counted: Vec<_> = page.items.iter().map(|event| (event.id, event.deliveries, event.matched_none)).collect();
    assert_eq!(counted, [(matched, 1, false), (alone, 0, true)]);
}

async fn an_event_lists_skipped_endpoints_with_their_reason(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.disable_by_outcome(DisabledReason::Gone).await;
    let id = at.accept(vec![at.event()]).await[0].id;
    let found = at.store().find_event(at.tenant(), id).await.unwrap().unwrap();
    assert_eq!((found.event.deliveries, found.event.matched_none), (0, false));
    assert_eq!(found.skipped.len(), 1);
    assert_eq!((found.skipped[0].endpoint_id, found.skipped[0].reason), (endpoint.id, EndReason::DisabledGone));
    let (delivery, _) = at.delivery(found.skipped[0].delivery_id).await;
    assert_eq!(delivery.event_id, id);
}

async fn events_are_paged_newest_first_without_repeat(at: Fixture) {
    let mut published: Vec<EventId> = at.publish(5).await.iter().map(|receipt| receipt.id).collect();
    published.sort_unstable_by_key(|id| std::cmp::Reverse(id.key()));
    let (mut seen, mut cursor): (Vec<EventId>, Option<RowKey>) = (Vec::new(), None);
    loop {
        let cursor_text = cursor.map(postrider_domain::page::encode_cursor);
        let request = PageRequest::parse(Some("2"), cursor_text.as_deref()).unwrap();
        let page = at.store().list_events(at.tenant(), EventFilter::default(), request).await.unwrap();
        seen.extend(page.items.iter().map(|event| event.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, published);
}

async fn each_filter_narrows_the_list(at: Fixture) {
    let first = at.accept(vec![at.event_of("a.b", Some("p"))]).await[0].id;
    at.advance(Duration::from_secs(10));
    let second = at.accept(vec![at.event_with("ext", 1)]).await[0].id;
    let ten = START.plus(Duration::from_secs(10));
    let none = EventFilter::default;
    let named = |name| Some(EventTypeName::from_stored(name));
    for (filter, expected) in [
        (none(), vec![second, first]),
        (EventFilter { event_types: named("a.b").into_iter().collect(), ..none() }, vec![first]),
        (EventFilter { project_ids: ProjectId::parse("p").ok().into_iter().collect(), ..none() }, vec![first]),
        (EventFilter { external_ids: OpaqueId::parse("ext").ok().into_iter().collect(), ..none() }, vec![second]),
        (EventFilter { external_ids: OpaqueId::parse("other").ok().into_iter().collect(), ..none() }, vec![]),
        (EventFilter { since: Some(ten), ..none() }, vec![second]),
        (EventFilter { until: Some(ten), ..none() }, vec![first]),
        (EventFilter { event_types: named("a.b").into_iter().collect(), since: Some(ten), ..none() }, vec![]),
    ] {
        assert_eq!(list(&at, filter.clone()).await, expected, "{filter:?}");
    }
}

async fn an_event_is_invisible_to_another_workspace(at: Fixture) {
    let id = at.accept(vec![at.event_with("ext", 1)]).await[0].id;
    let other = tenant_of(at.other_workspace().await.key);
    let page = || PageRequest::parse(None, None).unwrap();
    assert!(at.store().find_event(other, id).await.unwrap().is_none());
    let by_external_id =
        EventFilter { external_ids: OpaqueId::parse("ext").ok().into_iter().collect(), ..EventFilter::default() };
    for filter in [EventFilter::default(), by_external_id] {
        assert!(at.store().list_events(other, filter, page()).await.unwrap().items.is_empty());
    }
}
