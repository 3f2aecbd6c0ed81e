//! Leases: the claims of consumers on the deliveries of a listener.

use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint::{Endpoint, EndpointFilter, EndpointUrl};
use postrider_domain::endpoint_options::{DeliveryOrder, OptionsChange};
use postrider_domain::id::EndpointId;
use postrider_domain::limits;
use postrider_domain::tenant::Tenant;
use postrider_store::gauges::StatePart;
use postrider_store::{ClaimToken, Destination, HeldLease, Lease, NewEndpoint, Recorded};

use crate::store::fixture::{Fixture, outline};
use crate::support::wait::bounded;

on_each_backend! {
    the_engine_claims_nothing_of_a_listener,
    a_delivery_is_leased_to_one_consumer_at_a_time,
    a_lapsed_lease_goes_out_again_as_the_next_attempt,
    a_lease_with_another_token_is_lost,
    a_renewed_lease_lasts_from_then_on,
    a_released_delivery_is_due_with_the_same_number,
    a_failed_attempt_is_leased_again_at_its_time,
    a_strict_listener_leases_one_at_a_time,
    a_listener_that_is_off_leases_nothing,
    a_deleted_listener_leases_nothing_and_leaves_nothing,
    a_listener_of_test_mode_leases_test_deliveries,
    a_lease_outlives_the_process_that_made_it,
    a_waiting_consumer_is_woken,
    an_unseen_listener_is_removed_unless_it_is_durable,
    a_delivery_that_nobody_leases_expires,
    a_lease_has_a_bounded_number_of_bytes,
    lists_tell_listeners_from_endpoints,
    a_waiting_delivery_is_no_backlog_of_the_engine,
}

impl Fixture {
    fn new_listener(&self) -> NewEndpoint {
        let id = EndpointId::listener(self.letters());
        NewEndpoint { id, destination: Destination::Consumers { durable: false }, ..self.new_endpoint() }
    }

    async fn listener(&self) -> Endpoint {
        self.create(self.new_listener()).await
    }

    async fn strict_listener(&self) -> Endpoint {
        let options = OptionsChange { ordering: Some(DeliveryOrder::Strict), ..OptionsChange::default() };
        self.create(NewEndpoint { options, ..self.new_listener() }).await
    }

    async fn lease(&self, listener: &Endpoint, max: usize) -> Vec<Lease> {
        self.lease_in(self.tenant(), listener, max).await.expect("the listener is there")
    }

    async fn lease_in(&self, tenant: Tenant, listener: &Endpoint, max: usize) -> Option<Vec<Lease>> {
        self.store().lease_due(tenant, listener.id, max).await.unwrap()
    }

    async fn holds(&self, listener: &Endpoint, held: HeldLease) -> bool {
        let found = self.store().find_leases(self.tenant(), listener.id, vec![held]).await.unwrap().unwrap();
        found[0].is_some()
    }

    async fn due_in(&self, listener: &Endpoint) -> Option<Duration> {
        let queue = self.store().look_at_listener(self.tenant(), listener.id).await.unwrap();
        queue.expect("the listener is there").next_due_in
    }
}

fn held(lease: &Lease) -> HeldLease {
    HeldLease { delivery_id: lease.claim.delivery_id, token: lease.claim.token }
}

async fn the_engine_claims_nothing_of_a_listener(at: Fixture) {
    let listener = at.listener().await;
    at.publish(1).await;
    let none = at.claim(10).await;
    assert!(none.claims.is_empty() && none.next_due_in.is_none(), "the engine need not wake for a listener: {none:?}");
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let claimed = at.claim(10).await;
    assert!(claimed.claims.iter().all(|claim| claim.endpoint.id == endpoint.id), "{claimed:?}");
    assert_eq!(claimed.claims.len(), 2);
    for claim in &claimed.claims {
        at.record(at.delivered(claim)).await;
    }
    at.switch(&listener, false).await;
    at.switch(&listener, true).await;
    assert!(at.claim(10).await.claims.is_empty());
    assert_eq!(at.lease(&listener, 10).await.len(), 3);
}

async fn a_delivery_is_leased_to_one_consumer_at_a_time(at: Fixture) {
    let listener = at.listener().await;
    at.publish(3).await;
    let (one, two) = (at.lease(&listener, 2).await, at.lease(&listener, 2).await);
    let leased: std::collections::HashSet<_> = one.iter().chain(&two).map(|lease| lease.claim.delivery_id).collect();
    assert_eq!((one.len(), two.len(), leased.len()), (2, 1, 3));
    assert!(at.lease(&listener, 2).await.is_empty());
    let lease = &one[0];
    assert_eq!((lease.claim.attempt, lease.claimed_at), (1, at.clock_now()));
    assert_eq!(lease.ends_at, at.clock_now().plus(limits::LEASE));
    assert_eq!(at.record(at.delivered(&lease.claim)).await, Recorded::Done);
    let (delivery, attempts) = at.delivery(lease.claim.delivery_id).await;
    assert_eq!(delivery.status, DeliveryStatus::Delivered);
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Delivered)]);
}

async fn a_lapsed_lease_goes_out_again_as_the_next_attempt(at: Fixture) {
    let listener = at.listener().await;
    at.publish(1).await;
    let first = at.lease(&listener, 1).await.remove(0);
    at.advance(limits::LEASE + Duration::from_millis(1));
    assert!(at.holds(&listener, held(&first)).await, "until it is leased again");
    let second = at.lease(&listener, 1).await.remove(0);
    assert_eq!((second.claim.delivery_id, second.claim.attempt), (first.claim.delivery_id, 2));
    assert!(!at.holds(&listener, held(&first)).await);
    assert_eq!(at.record(at.delivered(&first.claim)).await, Recorded::ClaimLost);
    assert_eq!(at.record(at.delivered(&second.claim)).await, Recorded::Done);
    let (_, attempts) = at.delivery(first.claim.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned), (2, AttemptOutcome::Delivered)]);
}

async fn a_lease_with_another_token_is_lost(at: Fixture) {
    let (listener, other) = (at.listener().await, at.listener().await);
    at.publish(1).await;
    let lease = at.lease(&listener, 1).await.remove(0);
    let wrong = HeldLease { token: ClaimToken(lease.claim.token.0 + 1), ..held(&lease) };
    assert!(!at.holds(&listener, wrong).await);
    assert!(!at.holds(&other, held(&lease)).await, "a lease belongs to its listener");
    let renewed = at.store().renew_leases(at.tenant(), other.id, vec![held(&lease)]).await.unwrap().unwrap();
    assert_eq!(renewed, [None]);
    let elsewhere = at.store().find_leases(at.test_tenant(), listener.id, vec![held(&lease)]).await.unwrap();
    assert!(elsewhere.is_none(), "the modes are apart");
    assert!(at.lease_in(at.test_tenant(), &listener, 1).await.is_none());
}

async fn a_renewed_lease_lasts_from_then_on(at: Fixture) {
    let listener = at.listener().await;
    at.publish(1).await;
    let lease = at.lease(&listener, 1).await.remove(0);
    at.advance(Duration::from_secs(50));
    let lost = HeldLease { token: ClaimToken(7), ..held(&lease) };
    let renewed = at.store().renew_leases(at.tenant(), listener.id, vec![held(&lease), lost]).await.unwrap().unwrap();
    assert_eq!(renewed[0], Some(at.clock_now().plus(limits::LEASE)));
    at.advance(Duration::from_secs(50));
    assert!(at.lease(&listener, 1).await.is_empty());
    let found = at.store().find_leases(at.tenant(), listener.id, vec![held(&lease)]).await.unwrap().unwrap();
    let found = found[0].as_ref().unwrap();
    assert_eq!((found.claimed_at, found.claim.attempt), (lease.claimed_at, 1), "the attempt stays what it is");
    assert_eq!(found.claim.envelope, lease.claim.envelope);
    assert_eq!(at.record(at.delivered(&lease.claim)).await, Recorded::Done);
}

async fn a_released_delivery_is_due_with_the_same_number(at: Fixture) {
    let listener = at.listener().await;
    at.publish(1).await;
    let lease = at.lease(&listener, 1).await.remove(0);
    at.give_back(&lease.claim).await;
    let again = at.lease(&listener, 1).await.remove(0);
    assert_eq!((again.claim.delivery_id, again.claim.attempt), (lease.claim.delivery_id, 1));
    assert_ne!(again.claim.token, lease.claim.token);
    assert!(at.delivery(lease.claim.delivery_id).await.1.is_empty());
    assert!(at.claim(10).await.claims.is_empty());
}

async fn a_failed_attempt_is_leased_again_at_its_time(at: Fixture) {
    let listener = at.listener().await;
    at.publish(1).await;
    let lease = at.lease(&listener, 1).await.remove(0);
    assert_eq!(at.record(at.retry(&lease.claim, Duration::from_secs(300))).await, Recorded::Done);
    assert_eq!(at.due_in(&listener).await, Some(Duration::from_secs(300)));
    assert!(at.lease(&listener, 1).await.is_empty());
    at.advance(Duration::from_secs(300));
    assert!(at.claim(10).await.claims.is_empty(), "the engine leaves retries to the consumers, too");
    let again = at.lease(&listener, 1).await.remove(0);
    assert_eq!((again.claim.attempt, again.claim.step), (2, 1));
}

async fn a_strict_listener_leases_one_at_a_time(at: Fixture) {
    let listener = at.strict_listener().await;
    at.publish(3).await;
    let mut order = Vec::new();
    for _ in 0..3 {
        let lease = at.lease(&listener, 10).await;
        assert_eq!(lease.len(), 1);
        assert!(at.lease(&listener, 10).await.is_empty());
        order.push(lease[0].claim.delivery_id);
        assert_eq!(at.record(at.delivered(&lease[0].claim)).await, Recorded::Done);
    }
    assert!(order.is_sorted());
    at.publish(2).await;
    let failed = at.lease(&listener, 10).await.remove(0);
    at.record(at.failed(&failed.claim)).await;
    assert!(at.lease(&listener, 10).await.is_empty(), "a head that failed stops the order");
    at.skip(failed.claim.delivery_id).await;
    assert_eq!(at.lease(&listener, 10).await.len(), 1);
}

async fn a_listener_that_is_off_leases_nothing(at: Fixture) {
    let listener = at.listener().await;
    at.publish(2).await;
    let under_way = at.lease(&listener, 1).await.remove(0);
    at.switch(&listener, false).await;
    assert!(at.lease(&listener, 10).await.is_empty());
    assert_eq!(at.due_in(&listener).await, None);
    assert_eq!(at.record(at.delivered(&under_way.claim)).await, Recorded::Done, "what is under way is recorded");
    at.switch(&listener, true).await;
    assert_eq!(at.lease(&listener, 10).await.len(), 1);
}

async fn a_deleted_listener_leases_nothing_and_leaves_nothing(at: Fixture) {
    let listener = at.listener().await;
    at.publish(2).await;
    let under_way = at.lease(&listener, 1).await.remove(0);
    at.delete(&listener).await;
    assert!(at.lease_in(at.tenant(), &listener, 1).await.is_none());
    assert!(at.store().look_at_listener(at.tenant(), listener.id).await.unwrap().is_none());
    let held = vec![held(&under_way)];
    assert!(at.store().find_leases(at.tenant(), listener.id, held).await.unwrap().is_none());
    at.advance(limits::LEASE + Duration::from_millis(1));
    assert!(at.claim(10).await.claims.is_empty(), "this cancels what the holder left");
    for delivery in at.deliveries().await {
        assert_eq!((delivery.status, delivery.reason), (DeliveryStatus::Cancelled, Some(EndReason::EndpointDeleted)));
    }
    let lanes = at.store().count_states(StatePart::Lanes, i64::MIN, 100).await.unwrap();
    assert_eq!(lanes.counts.iter().sum::<u64>(), 0);
}

async fn a_listener_of_test_mode_leases_test_deliveries(at: Fixture) {
    let listener = at.create_in(at.test_tenant(), at.new_listener()).await;
    at.accept(vec![at.test_event(), at.event()]).await;
    let leased = at.lease_in(at.test_tenant(), &listener, 10).await.unwrap();
    assert_eq!(leased.len(), 1);
    assert_eq!(at.record(at.delivered(&leased[0].claim)).await, Recorded::Done);
}

async fn a_lease_outlives_the_process_that_made_it(mut at: Fixture) {
    let listener = at.listener().await;
    at.publish(1).await;
    let lease = at.lease(&listener, 1).await.remove(0);
    at.reopen().await;
    assert!(at.lease(&listener, 1).await.is_empty(), "the consumer may be at work");
    assert!(at.holds(&listener, held(&lease)).await);
    assert_eq!(at.record(at.delivered(&lease.claim)).await, Recorded::Done);
    at.publish(1).await;
    assert!(at.claim(10).await.claims.is_empty());
    assert_eq!(at.lease(&listener, 1).await.len(), 1);
}

async fn a_waiting_consumer_is_woken(at: Fixture) {
    let (listener, other) = (at.strict_listener().await, at.endpoint().await);
    let mut wait = at.store().listener_waker().wait_for(listener.key);
    let mut never = at.store().listener_waker().wait_for(other.key);
    at.publish(2).await;
    bounded("a wake-up by an event", wait.woken()).await;
    let lease = at.lease(&listener, 1).await.remove(0);
    at.give_back(&lease.claim).await;
    bounded("a wake-up by a release", wait.woken()).await;
    let lease = at.lease(&listener, 1).await.remove(0);
    at.record(at.delivered(&lease.claim)).await;
    bounded("a wake-up by the end of the head", wait.woken()).await;
    let lease = at.lease(&listener, 1).await.remove(0);
    at.record(at.retry(&lease.claim, Duration::from_secs(5))).await;
    bounded("a wake-up by a retry", wait.woken()).await;
    at.switch(&listener, false).await;
    at.switch(&listener, true).await;
    bounded("a wake-up by the switch", wait.woken()).await;
    assert!(tokio::time::timeout(Duration::ZERO, never.woken()).await.is_err(), "an endpoint has no consumers");
}

async fn an_unseen_listener_is_removed_unless_it_is_durable(at: Fixture) {
    let unseen = at.listener().await;
    let seen = at.listener().await;
    let durable = Destination::Consumers { durable: true };
    let durable = at.create(NewEndpoint { destination: durable, ..at.new_listener() }).await;
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.advance(limits::LISTENER_KEPT);
    assert_eq!(at.lease(&seen, 10).await.len(), 1);
    let removed = at.store().remove_unseen_listeners(limits::LISTENER_KEPT, 10).await.unwrap();
    assert_eq!(removed, 1);
    assert!(at.found(&unseen).await.is_none());
    for kept in [&seen, &durable, &endpoint] {
        assert!(at.found(kept).await.is_some());
    }
    let pending = at.deliveries().await;
    let of_unseen = pending.iter().find(|delivery| delivery.endpoint_id == unseen.id).unwrap();
    assert_eq!(of_unseen.reason, Some(EndReason::EndpointDeleted));
    assert_eq!(at.store().remove_unseen_listeners(limits::LISTENER_KEPT, 10).await.unwrap(), 0);
}

async fn a_delivery_that_nobody_leases_expires(at: Fixture) {
    at.listener().await;
    at.strict_listener().await;
    at.publish(2).await;
    at.advance(limits::WAITING_MAX - Duration::from_millis(1));
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.advance(Duration::from_millis(1));
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 4);
    for delivery in at.deliveries().await {
        assert_eq!((delivery.status, delivery.reason), (DeliveryStatus::Failed, Some(EndReason::Expired)));
    }
}

async fn a_lease_has_a_bounded_number_of_bytes(at: Fixture) {
    let listener = at.listener().await;
    let large = limits::LEASED_BYTES / 4;
    for _ in 0..20 {
        let envelope = bytes::Bytes::from(vec![b'x'; large]);
        at.accept(vec![postrider_domain::event::NewEvent { envelope, ..at.event() }]).await;
    }
    let leased = at.lease(&listener, 100).await;
    assert_eq!(leased.len(), limits::LEASED_AT_ONCE, "the first look is over the limit");
    assert_eq!(at.lease(&listener, 1).await.len(), 1, "the rest goes to the next request");
}

async fn lists_tell_listeners_from_endpoints(at: Fixture) {
    let (listener, endpoint) = (at.listener().await, at.endpoint().await);
    assert!(listener.url.is_empty() && listener.id.is_listener());
    assert_eq!(listener.listener.map(|listener| listener.last_seen_at), Some(at.clock_now()));
    for (are_listeners, expected) in
        [(Some(true), vec![listener.id]), (Some(false), vec![endpoint.id]), (None, vec![endpoint.id, listener.id])]
    {
        let filter = EndpointFilter { are_listeners, ..EndpointFilter::default() };
        let page = at.store().list_endpoints(at.tenant(), filter, Fixture::page()).await.unwrap();
        assert_eq!(page.items.iter().map(|item| item.id).collect::<Vec<_>>(), expected);
    }
    assert!(at.lease_in(at.tenant(), &endpoint, 1).await.is_none(), "an endpoint is no listener");
    assert!(EndpointUrl::parse("").is_err());
}

async fn a_waiting_delivery_is_no_backlog_of_the_engine(at: Fixture) {
    at.listener().await;
    at.publish(3).await;
    at.advance(Duration::from_secs(3600));
    assert_eq!(at.store().oldest_due().await.unwrap(), None);
    let states = at.store().count_states(StatePart::Deliveries, i64::MIN, 100).await.unwrap();
    assert_eq!(states.counts, [0, 0, 3, 0, 0], "they are held");
}
