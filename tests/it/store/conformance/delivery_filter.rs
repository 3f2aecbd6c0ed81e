//! The filters of the delivery log and of events: by the last attempt, the cause and the project, with several values,
//! over pages while deliveries arrive, and counts.

use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{Delivery, DeliveryCause, EndReason};
use postrider_domain::endpoint::{EndpointFilter, EndpointState, SoughtText};
use postrider_domain::event::EventFilter;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::DeliveryId;
use postrider_domain::list_filter::{ListFilter, filter_from_pairs};
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_store::{Claim, OutcomeRecord};

use crate::store::fixture::{EVENT_TYPE, Fixture};

on_each_backend! {
    a_list_shows_how_the_last_attempt_ended,
    a_filter_takes_the_last_attempt_the_cause_and_the_project,
    several_values_pass_what_each_of_them_passes,
    pages_of_several_walks_hold_while_deliveries_arrive,
    a_count_is_exact_up_to_its_bound,
    events_that_matched_nothing_are_listed_alone,
    endpoints_are_filtered_by_state_and_text,
    labels_name_deleted_endpoints_too,
    an_endpoint_is_found_by_its_host_alone,
}

fn filter<F: ListFilter>(pairs: &[(&str, &str)]) -> F {
    filter_from_pairs(pairs.iter().copied(), &|name| Ok(EventTypeName::from_stored(name))).unwrap()
}

async fn listed(at: &Fixture, pairs: &[(&str, &str)]) -> Vec<DeliveryId> {
    at.deliveries_of(at.tenant(), filter(pairs)).await.iter().map(|delivery| delivery.id).collect()
}

async fn shown(at: &Fixture, id: DeliveryId) -> (Option<AttemptOutcome>, Option<u16>) {
    let (delivery, _) = at.delivery(id).await;
    let in_list: Vec<Delivery> = at.deliveries().await.into_iter().filter(|listed| listed.id == id).collect();
    let last = |delivery: &Delivery| (delivery.last_outcome, delivery.last_response_status);
    assert_eq!(last(&in_list[0]), last(&delivery));
    last(&delivery)
}

/// No answer arrived in time.
fn timed_out(mut outcome: OutcomeRecord) -> OutcomeRecord {
    outcome.attempt.outcome = AttemptOutcome::Timeout;
    outcome.attempt.response_status = None;
    outcome
}

async fn a_list_shows_how_the_last_attempt_ended(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    assert_eq!(shown(&at, claim.delivery_id).await, (None, None), "before the first attempt has ended");
    at.record(at.retry(&claim, Duration::ZERO)).await;
    assert_eq!(shown(&at, claim.delivery_id).await, (Some(AttemptOutcome::HttpError), Some(503)));
    let claim = at.claim_one().await;
    assert_eq!(shown(&at, claim.delivery_id).await.1, Some(503), "while the next one is under way");
    at.record(timed_out(at.failed(&claim))).await;
    assert_eq!(shown(&at, claim.delivery_id).await, (Some(AttemptOutcome::Timeout), None));

    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    assert_eq!(shown(&at, claim.delivery_id).await, (Some(AttemptOutcome::Delivered), Some(200)));

    at.publish(1).await;
    let waiting = at.claim_one().await;
    at.record(at.retry(&waiting, Duration::from_secs(60))).await;
    at.delete(&endpoint).await;
    let (delivery, _) = at.delivery(waiting.delivery_id).await;
    assert_eq!(delivery.reason, Some(EndReason::EndpointDeleted));
    let last = (delivery.last_outcome, delivery.last_response_status);
    assert_eq!(last, (Some(AttemptOutcome::HttpError), Some(503)), "a cancelled one keeps what its attempt said");
    assert_eq!(listed(&at, &[("outcome", "http_error")]).await, [waiting.delivery_id]);
}

/// One delivery of each kind: timed out for good, failed with 500, waiting after 503, delivered, not yet tried.
async fn one_of_each(at: &Fixture) -> [Claim; 4] {
    at.accept((0..5).map(|_| at.event_of(EVENT_TYPE, Some("p"))).collect()).await;
    let claims: [Claim; 4] = [at.claim_one().await, at.claim_one().await, at.claim_one().await, at.claim_one().await];
    at.record(timed_out(at.failed(&claims[0]))).await;
    at.record(at.failed(&claims[1])).await;
    at.record(at.retry(&claims[2], Duration::from_secs(60))).await;
    at.record(at.delivered(&claims[3])).await;
    claims
}

async fn a_filter_takes_the_last_attempt_the_cause_and_the_project(at: Fixture) {
    at.endpoint().await;
    let [timed_out, failed, waiting, delivered] = one_of_each(&at).await.map(|claim| claim.delivery_id);
    let retried = at.retry_by_hand(failed).await.id;
    for (pairs, expected) in [
        (vec![("outcome", "timeout")], vec![timed_out]),
        (vec![("outcome", "http_error")], vec![failed, waiting]),
        (vec![("outcome", "http_error"), ("status", "pending")], vec![waiting]),
        (vec![("outcome", "delivered")], vec![delivered]),
        (vec![("outcome", "gone")], vec![]),
        (vec![("outcome", "timeout"), ("status", "delivered")], vec![]),
        (vec![("responseStatus", "503")], vec![waiting]),
        (vec![("responseStatus", "5xx")], vec![failed, waiting]),
        (vec![("responseStatus", "200")], vec![delivered]),
        (vec![("responseStatus", "2xx,500")], vec![failed, delivered]),
        (vec![("cause", "retry")], vec![retried]),
        (vec![("cause", "replay,test")], vec![]),
        (vec![("cause", "retry"), ("status", "failed")], vec![]),
        (vec![("projectId", "q")], vec![]),
        (vec![("projectId", "p,q"), ("outcome", "timeout")], vec![timed_out]),
    ] {
        let mut found = listed(&at, &pairs).await;
        found.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(found, expected, "{pairs:?}");
    }
    assert_eq!(listed(&at, &[("projectId", "p")]).await.len(), 6);
}

async fn several_values_pass_what_each_of_them_passes(at: Fixture) {
    let endpoints = at.endpoints(3).await;
    one_of_each(&at).await;
    let all = at.deliveries().await;
    let any_of = |wanted: &[&str], value: &dyn Fn(&Delivery) -> String| {
        all.iter().filter(|it| wanted.contains(&value(it).as_str())).map(|it| it.id).collect::<Vec<_>>()
    };
    let status = |delivery: &Delivery| delivery.status.as_str().to_owned();
    for wanted in [&["failed", "pending"][..], &["delivered", "failed"], &["pending", "failed", "delivered"]] {
        let expected = any_of(wanted, &status);
        assert!(!expected.is_empty());
        assert_eq!(listed(&at, &[("status", &wanted.join(","))]).await, expected, "{wanted:?}");
    }
    let ids = [endpoints[0].id.to_string(), endpoints[2].id.to_string()];
    let expected = any_of(&[&ids[0], &ids[1]], &|delivery| delivery.endpoint_id.to_string());
    assert_eq!(listed(&at, &[("endpointId", &ids.join(","))]).await, expected);
    let [one, other] = [0, 4].map(|at| all[at].event_id.to_string());
    let expected = any_of(&[&one, &other], &|delivery| delivery.event_id.to_string());
    assert_eq!(listed(&at, &[("eventId", &[one, other].join(","))]).await, expected);
    let causes = [DeliveryCause::Event, DeliveryCause::Retry].map(DeliveryCause::as_str).join(",");
    assert_eq!(listed(&at, &[("cause", &causes)]).await.len(), all.len());
}

async fn pages_of_several_walks_hold_while_deliveries_arrive(at: Fixture) {
    at.endpoints(2).await;
    for _ in 0..3 {
        one_of_each(&at).await;
        at.advance(Duration::from_millis(1));
    }
    for pairs in [&[("status", "pending,failed")][..], &[("outcome", "http_error,timeout")], &[("projectId", "p")]] {
        let all = listed(&at, pairs).await;
        assert!(all.len() > 5);
        let (mut walked, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = PageRequest::parse(Some("2"), cursor.as_deref()).unwrap();
            let page = at.store().list_deliveries(at.tenant(), filter(pairs), page).await.unwrap();
            assert_eq!(page.searched_to, None, "a short log is searched to its end");
            walked.extend(page.items.iter().map(|delivery| delivery.id));
            let Some(next) = page.next else { break };
            cursor = Some(encode_cursor(next));
            at.advance(Duration::from_millis(1));
            at.accept(vec![at.event_of(EVENT_TYPE, Some("p"))]).await;
        }
        assert_eq!(walked, all, "none twice and none lost: {pairs:?}");
    }
}

async fn a_count_is_exact_up_to_its_bound(at: Fixture) {
    at.endpoint().await;
    one_of_each(&at).await;
    for (pairs, max, expected) in [
        (&[("status", "failed")][..], 10, (2, true)),
        (&[("status", "failed,pending")], 10, (4, true)),
        (&[("status", "failed,pending")], 4, (4, true)),
        (&[("status", "failed,pending")], 3, (3, false)),
        (&[("outcome", "gone")], 3, (0, true)),
        (&[], 5, (5, true)),
        (&[], 4, (4, false)),
    ] {
        let count = at.store().count_deliveries(at.tenant(), filter(pairs), max).await.unwrap();
        assert_eq!((count.count, count.is_exact), expected, "{pairs:?} up to {max}");
        assert_eq!(count.searched_to, None);
    }
}

async fn events_that_matched_nothing_are_listed_alone(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let unheard = at.accept(vec![at.event_of("job.failed", Some("p"))]).await[0].id;
    at.switch(&endpoint, false).await;
    at.publish(1).await;
    let found = async |pairs: &[(&str, &str)]| {
        let page = at.store().list_events(at.tenant(), filter::<EventFilter>(pairs), Fixture::page()).await.unwrap();
        page.items.iter().map(|event| event.id).collect::<Vec<_>>()
    };
    assert_eq!(found(&[]).await.len(), 3);
    assert_eq!(found(&[("deliveries", "none")]).await, [unheard], "a skipped endpoint matched");
    assert_eq!(found(&[("deliveries", "none"), ("projectId", "q,p")]).await, [unheard]);
    assert!(found(&[("deliveries", "none"), ("type", EVENT_TYPE)]).await.is_empty());
    assert_eq!(found(&[("type", "job.failed,a.b")]).await, [unheard]);
}

async fn endpoints_are_filtered_by_state_and_text(at: Fixture) {
    let endpoints = at.endpoints(2).await;
    at.switch(&endpoints[0], false).await;
    let states = async |states: &[EndpointState]| {
        let filter = EndpointFilter { states: states.to_vec(), ..EndpointFilter::default() };
        let page = at.store().list_endpoints(at.tenant(), filter, Fixture::page()).await.unwrap();
        page.items.iter().map(|endpoint| (endpoint.id, endpoint.state())).collect::<Vec<_>>()
    };
    assert_eq!(states(&[EndpointState::Ok]).await, [(endpoints[1].id, EndpointState::Ok)]);
    assert_eq!(states(&[EndpointState::Off]).await, [(endpoints[0].id, EndpointState::Off)]);
    assert_eq!(states(&[EndpointState::Off, EndpointState::Ok]).await.len(), 2);
    assert!(states(&[EndpointState::Disabled, EndpointState::Failing, EndpointState::Paused]).await.is_empty());
    let host = endpoints[0].url.split('/').nth(2).unwrap().to_ascii_uppercase();
    for (text, count) in [(&*host, 2), (&endpoints[0].name.to_ascii_uppercase(), 2), ("https", 0), ("%", 0)] {
        let filter = EndpointFilter { text: SoughtText::parse(text).ok(), ..EndpointFilter::default() };
        let page = at.store().list_endpoints(at.tenant(), filter, Fixture::page()).await.unwrap();
        assert_eq!(page.items.len(), count, "{text}");
    }
}

async fn labels_name_deleted_endpoints_too(at: Fixture) {
    let endpoints = at.endpoints(2).await;
    at.delete(&endpoints[0]).await;
    let ids = vec![endpoints[0].id, endpoints[1].id];
    let mut labels = at.store().endpoint_labels(at.tenant(), ids.clone()).await.unwrap();
    labels.sort_by_key(|label| !label.is_deleted);
    let labels: Vec<_> = labels.into_iter().map(|label| (label.id, label.name, label.is_deleted)).collect();
    let expected = [(true, &endpoints[0]), (false, &endpoints[1])].map(|(gone, it)| (it.id, it.name.clone(), gone));
    assert_eq!(labels, expected);
    let other = crate::store::fixture::tenant_of(at.other_workspace().await.key);
    assert!(at.store().endpoint_labels(other, ids).await.unwrap().is_empty());
    assert!(at.store().endpoint_labels(at.tenant(), Vec::new()).await.unwrap().is_empty());
}

async fn an_endpoint_is_found_by_its_host_alone(at: Fixture) {
    let endpoint = at.endpoint().await;
    let host = endpoint.url.split('/').nth(2).unwrap().to_owned();
    let found = async |host: &str| {
        let labels = at.store().endpoints_of_host(at.tenant(), host.to_owned(), 10).await.unwrap();
        labels.into_iter().map(|label| label.id).collect::<Vec<_>>()
    };
    assert_eq!(found(&host).await, [endpoint.id]);
    assert_eq!(found(&host.to_ascii_uppercase()).await, [endpoint.id]);
    assert!(found(&host[..host.len() - 1]).await.is_empty(), "part of a host is no host");
    assert!(found(&format!("{host}.example")).await.is_empty());
    at.delete(&endpoint).await;
    assert!(found(&host).await.is_empty());
}
