//! What a collector gets, and what happens when it does not take it.

use std::time::Duration;

use serde_json::json;

use crate::collector::{Collector, Span, attribute, hex};
use crate::support::app::{App, text};
use crate::support::receiver::{Behaviour, Receiver, ReservedPort};
use crate::support::wait::eventually;
use crate::{NOT_SAMPLED, SAMPLED, SPAN, TRACE, on_each_store, parts, publish};

const PRODUCER: i32 = 4;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

fn of(span: &Span, name: &str) -> Option<String> {
    attribute(&span.attributes, name)
}

#[tokio::test]
async fn a_sampled_publish_and_its_attempt_are_spans_of_one_trace() {
    for setup in on_each_store().await {
        let (collector, receiver) = (Collector::start().await, Receiver::start().await);
        let app = collector.of(setup).start().await;
        let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
        let event = publish(&app, &[("traceparent", SAMPLED)]).await;
        let request = receiver.wait_for(1).await.remove(0);
        let publish = collector.spans_named("publish", 1).await.remove(0);
        assert_eq!((hex(&publish.trace_id), hex(&publish.parent_span_id)), (TRACE.to_owned(), SPAN.to_owned()));
        assert_eq!(publish.kind, PRODUCER);
        assert_eq!(of(&publish, "postrider.event_id"), Some(event.clone()));
        assert_eq!(of(&publish, "postrider.event_type").as_deref(), Some("post.created"));
        assert_eq!(of(&publish, "postrider.deliveries").as_deref(), Some("1"));
        let attempt = collector.spans_named("attempt", 1).await.remove(0);
        let (trace, span, _) = parts(&request);
        assert_eq!((hex(&attempt.trace_id), hex(&attempt.span_id)), (trace, span));
        assert_eq!(attempt.parent_span_id, publish.span_id);
        assert_eq!((attempt.kind, attempt.links.len()), (CLIENT, 0));
        let delivery = app.delivery_ended(&event, "delivered").await;
        for (name, value) in [
            ("http.request.method", "POST".to_owned()),
            ("http.response.status_code", "200".to_owned()),
            ("server.address", "127.0.0.1".to_owned()),
            ("server.port", receiver.address().port().to_string()),
            ("network.protocol.version", "1.1".to_owned()),
            ("postrider.endpoint_id", endpoint.id),
            ("postrider.event_id", event),
            ("postrider.delivery_id", text(&delivery, "id")),
            ("postrider.cause", "event".to_owned()),
            ("postrider.attempt", "1".to_owned()),
        ] {
            assert_eq!(of(&attempt, name), Some(value), "{name}");
        }
        assert_eq!(of(&attempt, "error.type"), None);
        let events: Vec<&str> = attempt.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(events, ["connect", "first_byte", "body"]);
        assert!(attempt.start_time_unix_nano <= attempt.end_time_unix_nano);
        assert_eq!(attribute(&collector.resource(), "service.name").as_deref(), Some("postrider"));
        let all = format!("{:?}", collector.spans());
        assert!(!all.contains("/hook"), "the path of a URL may be a secret: {all}");
    }
}

#[tokio::test]
async fn a_late_attempt_starts_a_trace_with_a_link() {
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let app = collector.of(App::set_up().await.allow("127.0.0.0/8")).start().await;
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"], "retrySchedule": [300, 600]});
    app.endpoint(body).await;
    receiver.then(Behaviour::status(500)).then(Behaviour::status(500));
    let event = publish(&app, &[("traceparent", SAMPLED)]).await;
    for (attempts, wait) in [(1, 400), (2, 800)] {
        app.attempted(&event, attempts).await;
        app.clock().advance(Duration::from_secs(wait));
    }
    app.delivery_ended(&event, "delivered").await;
    let publish = collector.spans_named("publish", 1).await.remove(0);
    let attempts = collector.spans_named("attempt", 3).await;
    for early in &attempts[..2] {
        assert_eq!((&early.trace_id, &early.parent_span_id), (&publish.trace_id, &publish.span_id));
        assert_eq!(of(early, "error.type").as_deref(), Some("http_error"));
        assert_eq!(early.status.as_ref().map(|status| status.code), Some(ERROR));
    }
    let late = &attempts[2];
    assert_ne!(late.trace_id, publish.trace_id);
    assert!(late.parent_span_id.is_empty());
    assert_eq!((&late.links[0].trace_id, &late.links[0].span_id), (&publish.trace_id, &publish.span_id));
    assert_eq!(parts(&receiver.received()[2]).0, hex(&late.trace_id), "the receiver is in the new trace");
}

#[tokio::test]
async fn only_failed_attempts_are_exported_without_sampling() {
    for exports_failures in [false, true] {
        let (collector, receiver) = (Collector::start().await, Receiver::start().await);
        let setup = App::set_up().await.allow("127.0.0.0/8");
        let setup = setup.change(|settings| settings.traces.exports_failures = exports_failures);
        let mut app = collector.of(setup).start().await;
        app.endpoint_to(&receiver, &["post.created"]).await;
        for headers in [&[("traceparent", NOT_SAMPLED)][..], &[]] {
            receiver.then(Behaviour::status(500));
            let failed = publish(&app, headers).await;
            app.attempted(&failed, 1).await;
            let good = publish(&app, headers).await;
            app.delivery_ended(&good, "delivered").await;
        }
        app.stop().await;
        let spans = collector.spans();
        assert!(spans.iter().all(|span| span.name == "attempt" && of(span, "error.type").is_some()), "{spans:?}");
        let traces: Vec<String> = spans.iter().map(|span| hex(&span.trace_id)).collect();
        match &traces[..] {
            [] => assert!(!exports_failures),
            [of_publisher, own] => assert!(exports_failures && of_publisher == TRACE && own != TRACE, "{traces:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_ratio_traces_what_has_no_trace() {
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let setup = App::set_up().await.allow("127.0.0.0/8");
    let setup = setup.change(|settings| settings.traces.sampler.ratio = "1".parse().unwrap());
    let app = collector.of(setup).start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let one = json!({"type": "post.created", "data": {}});
    app.post("/v1/events/batch", json!({"events": [one, one, one]})).await.data(202);
    let requests = receiver.wait_for(3).await;
    let publish = collector.spans_named("publish", 1).await.remove(0);
    assert_eq!(of(&publish, "postrider.events").as_deref(), Some("3"));
    assert!(publish.parent_span_id.is_empty());
    let attempts = collector.spans_named("attempt", 3).await;
    assert!(attempts.iter().all(|attempt| attempt.parent_span_id == publish.span_id));
    assert!(requests.iter().all(|request| parts(request).0 == hex(&publish.trace_id)));
    assert_eq!(collector.spans().len(), 4, "a batch is one publish");
}

/// How a collector fails.
enum Trouble {
    Answers(Behaviour),
    Refuses,
}

#[tokio::test]
async fn a_collector_in_trouble_costs_spans_and_nothing_else() {
    let troubles = [
        Trouble::Answers(Behaviour::status(500)),
        Trouble::Answers(Behaviour::status(400)),
        Trouble::Answers(Behaviour::StallBeforeHeaders),
        Trouble::Answers(Behaviour::EndlessBody),
        Trouble::Answers(Behaviour::NotHttp),
        Trouble::Refuses,
    ];
    for trouble in troubles {
        let (collector, receiver, closed) =
            (Collector::start().await, Receiver::start().await, ReservedPort::reserve());
        let setup = collector.of(App::set_up().await.allow("127.0.0.0/8")).measured();
        let is_stalled = matches!(trouble, Trouble::Answers(Behaviour::StallBeforeHeaders));
        let setup = match trouble {
            Trouble::Answers(behaviour) => {
                collector.0.otherwise(behaviour);
                setup
            }
            Trouble::Refuses => {
                let endpoint = format!("http://{}", closed.address());
                setup.change(|settings| settings.traces.endpoint = Some(endpoint))
            }
        };
        let mut app = setup.start().await;
        app.endpoint_to(&receiver, &["post.created"]).await;
        for _ in 0..20 {
            let event = publish(&app, &[("traceparent", SAMPLED)]).await;
            app.delivery_ended(&event, "delivered").await;
        }
        // One that stalls holds the first request until its deadline.
        if !is_stalled {
            let failed = || async {
                let failed = app.scrape().await.value("postrider_trace_spans_total{result=\"failed\"}");
                (failed > 0.0).then_some(())
            };
            eventually("a count of the spans that were not taken", failed).await;
        }
        app.stop().await;
    }
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_spans_again() {
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let app = collector.of(App::set_up().await.allow("127.0.0.0/8")).measured().start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    collector.0.otherwise(Behaviour::status(400));
    publish(&app, &[("traceparent", SAMPLED)]).await;
    let failed = || async {
        let failed = app.scrape().await.value("postrider_trace_spans_total{result=\"failed\"}");
        (failed > 0.0).then_some(())
    };
    eventually("a count of the spans that were not taken", failed).await;
    collector.0.otherwise(Behaviour::status(200));
    publish(&app, &[("traceparent", SAMPLED)]).await;
    let exported = || async {
        let exported = app.scrape().await.value("postrider_trace_spans_total{result=\"exported\"}");
        (exported >= 2.0).then_some(())
    };
    eventually("a count of the spans that were taken", exported).await;
}
