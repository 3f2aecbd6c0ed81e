//! What a receiver gets.

use std::time::Duration;

use serde_json::json;

use crate::support::app::{App, text};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::verify::verify_signature;
use crate::{NOT_SAMPLED, SAMPLED, SPAN, TRACE, logged, on_each_store, parts, publish};

#[tokio::test]
async fn a_receiver_gets_the_trace_and_a_new_span_of_each_attempt() {
    for setup in on_each_store().await {
        let (app, receiver) = (setup.start().await, Receiver::start().await);
        let endpoint = app
            .endpoint(json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"], "retrySchedule": [1]}));
        let endpoint = endpoint.await;
        for (sent, flags) in [(SAMPLED, "01"), (NOT_SAMPLED, "00")] {
            receiver.then(Behaviour::status(500));
            let before = receiver.received().len();
            let event = publish(&app, &[("traceparent", sent), ("tracestate", "a=1"), ("baggage", "user=2")]).await;
            let first = receiver.wait_for(before + 1).await.remove(before);
            app.attempted(&event, 1).await;
            app.clock().advance(Duration::from_secs(60));
            let second = receiver.wait_for(before + 2).await.remove(before + 1);
            let (one, other) = (parts(&first), parts(&second));
            assert_eq!((one.0.as_str(), one.2.as_str()), (TRACE, flags));
            assert_eq!((other.0.as_str(), other.2.as_str()), (TRACE, flags));
            assert_ne!(one.1, other.1, "each attempt is a span of its own");
            assert!(one.1 != SPAN && other.1 != SPAN);
            for request in [&first, &second] {
                verify_signature(&endpoint.secret, request).expect("a signature that the header does not change");
                assert!(request.header("tracestate").is_none() && request.header("baggage").is_none());
            }
            let delivery = app.delivery_ended(&event, "delivered").await;
            let shown = delivery["attempts"].as_array().unwrap();
            let shown: Vec<_> = shown.iter().map(|attempt| logged(attempt, "traceparent").unwrap()).collect();
            assert_eq!(shown, [&first, &second].map(|request| request.header("traceparent").unwrap()));
        }
    }
}

#[tokio::test]
async fn an_event_without_a_trace_is_sent_without_one() {
    for setup in on_each_store().await {
        let (app, receiver) = (setup.start().await, Receiver::start().await);
        app.endpoint_to(&receiver, &["post.created"]).await;
        let upper = SAMPLED.to_uppercase();
        let invalid = [
            "",
            "00",
            "garbage",
            &upper,
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ];
        let none = publish(&app, &[]).await;
        app.delivery_ended(&none, "delivered").await;
        for header in invalid {
            let event = publish(&app, &[("traceparent", header)]).await;
            app.delivery_ended(&event, "delivered").await;
        }
        let received = receiver.received();
        assert_eq!(received.len(), invalid.len() + 1);
        assert!(received.iter().all(|request| request.header("traceparent").is_none()), "{received:?}");
    }
}

#[tokio::test]
async fn a_batch_and_a_retry_keep_the_trace_of_their_event() {
    for setup in on_each_store().await {
        let (app, receiver) = (setup.start().await, Receiver::start().await);
        app.endpoint_to(&receiver, &["post.created"]).await;
        let one = json!({"type": "post.created", "data": {}});
        let caller = app.caller().with("traceparent", SAMPLED);
        let receipts = caller.post("/v1/events/batch", json!({"events": [one, one]})).await.data(202);
        receiver.wait_for(2).await;
        let event = text(&receipts[0], "id");
        let delivery = app.delivery_ended(&event, "delivered").await;
        app.post(&format!("/v1/webhook-deliveries/{}/retry", text(&delivery, "id")), json!({})).await.data(202);
        receiver.wait_for(3).await;
        let received = receiver.received();
        assert!(received.iter().all(|request| parts(request).0 == TRACE), "{received:?}");
        let mut spans: Vec<_> = received.iter().map(|request| parts(request).1).collect();
        spans.sort_unstable();
        spans.dedup();
        assert_eq!(spans.len(), received.len());
    }
}

#[tokio::test]
async fn an_endpoint_says_whether_it_gets_traces() {
    for server in [true, false] {
        let setup = App::set_up().await.allow("127.0.0.0/8").change(|settings| settings.traces.are_forwarded = server);
        let app = setup.start().await;
        for (option, expected) in [(json!(null), server), (json!(true), true), (json!(false), false)] {
            let receiver = Receiver::start().await;
            let body = json!({
                "name": "A", "url": receiver.url("/"), "events": ["post.created"], "traceForwarding": option,
            });
            let endpoint = app.endpoint(body).await;
            let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
            assert_eq!(app.get(&path).await.data(200)["traceForwarding"], option);
            publish(&app, &[("traceparent", SAMPLED)]).await;
            let request = receiver.wait_for(1).await.remove(0);
            assert_eq!(request.header("traceparent").is_some(), expected, "{server} {option}");
            assert_eq!(app.caller().delete(&path).await.status, 204);
        }
    }
}

#[tokio::test]
async fn a_header_of_the_owner_takes_the_place_of_the_trace() {
    let (app, receiver) = (App::to_loopback().await, Receiver::start().await);
    let headers = json!({"traceparent": "mine"});
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"], "headers": headers});
    app.endpoint(body).await;
    let event = publish(&app, &[("traceparent", SAMPLED)]).await;
    let request = receiver.wait_for(1).await.remove(0);
    assert_eq!(request.header("traceparent"), Some("mine"));
    let delivery = app.delivery_ended(&event, "delivered").await;
    assert_eq!(logged(&delivery["attempts"][0], "traceparent").as_deref(), Some("[redacted]"));
}
