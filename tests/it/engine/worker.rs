//! One attempt: the request, the possible answers, and the recorded outcome.

use std::time::Duration;

use postrider_domain::limits;
use postrider_domain::proxy::ProxyUrl;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::time::Timestamp;
use serde_json::{Value, json};

use crate::support::app::{App, Endpoint, NOON, instant, text};
use crate::support::dns::Answer as DnsAnswer;
use crate::support::proxy::{Habit, Proxy};
use crate::support::receiver::{Answer, Behaviour, GZIP_BOMB_BYTES, Receiver, ReservedPort};
use crate::support::tls::TestCa;
use crate::support::verify::{verify_as_integrator, verify_signature};

/// The only attempt of a delivery.
#[track_caller]
fn only_attempt(delivery: &Value) -> Value {
    match &delivery["attempts"].as_array().unwrap()[..] {
        [only] => only.clone(),
        others => panic!("{} attempts: {delivery:#}", others.len()),
    }
}

async fn endpoint_shown(app: &App, endpoint: &Endpoint) -> Value {
    app.get(&format!("/v1/webhook-endpoints/{}", endpoint.id)).await.data(200)
}

#[tokio::test]
async fn a_receiver_gets_the_envelope_headers_and_a_valid_signature() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_at(&receiver.url("/hook?team=a"), &["post.created"]).await;
    let body = json!({
        "type": "post.created",
        "data": {"id": "post_1"},
        "projectId": "proj_a",
        "occurredAt": "2026-05-14T23:59:59.999Z"
    });
    let event = text(&app.post("/v1/events", body).await.data(202), "id");
    let delivery = app.delivery_ended(&event, "delivered").await;
    let received = receiver.wait_for(1).await.remove(0);
    assert_eq!((&*received.method, &*received.path), ("POST", "/hook?team=a"));
    let workspace = app.create_key("Acme", postrider_domain::access::Mode::Live, &[], None).await.key.workspace_id;
    assert_eq!(
        String::from_utf8(received.body.clone()).unwrap(),
        format!(
            "{{\"id\":\"{event}\",\"type\":\"post.created\",\"timestamp\":\"2026-05-14T23:59:59.999Z\",\
             \"apiVersion\":\"2026-08-01\",\"workspaceId\":\"{workspace}\",\"projectId\":\"proj_a\",\
             \"data\":{{\"id\":\"post_1\"}}}}"
        )
    );
    let host = receiver.address().to_string();
    let length = received.body.len().to_string();
    let expected = [
        ("content-type", "application/json"),
        ("content-length", &*length),
        ("host", &*host),
        ("user-agent", concat!("Postrider/", env!("CARGO_PKG_VERSION"))),
        ("webhook-id", &*event),
        ("webhook-timestamp", "1778846400"),
        ("scripe-delivery-id", delivery["id"].as_str().unwrap()),
        ("scripe-delivery-attempt", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(received.header(name), Some(value), "{name}");
    }
    assert_eq!(received.header("scripe-replay"), None);
    assert!(received.header("webhook-signature").unwrap().starts_with("v1,"));
    verify_signature(&endpoint.secret, &received).unwrap();
}

#[tokio::test]
async fn the_standardwebhooks_library_accepts_a_webhook_in_real_time() {
    let app = App::set_up().await.allow("127.0.0.1").real_time().start().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["job.completed"]).await;
    app.publish("job.completed", json!({"id": "job_1"})).await;
    verify_as_integrator(&endpoint.secret, &receiver.wait_for(1).await[0]).unwrap();
}

#[tokio::test]
async fn data_arrives_as_the_bytes_that_were_published() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let verbatim = [
        "{\"n\":1.0,\"big\":9007199254740993,\"e\":1E+2,\"minus\":-0}",
        "{ \"spaced\" :\t[ 1 ,2 ],\n \"z\":1, \"a\":2 }",
        "{\"escaped\":\"\\u00e9\\/\\ud83d\\udcee\",\"plain\":\"é/📮\"}",
        "{}",
    ];
    for (index, data) in verbatim.into_iter().enumerate() {
        let body = format!("{{\"data\": {data} ,\"type\":\"post.created\"}}");
        app.caller().post_text("/v1/events", &body).await.data(202);
        let received = receiver.wait_for(index + 1).await.remove(index);
        let envelope = String::from_utf8(received.body.clone()).unwrap();
        assert!(envelope.ends_with(&format!(",\"data\":{data}}}")), "{envelope}");
        verify_signature(&endpoint.secret, &received).unwrap();
    }
}

#[tokio::test]
async fn an_attempt_records_the_duration_of_each_phase() {
    let ca = TestCa::new();
    let app = App::set_up().await.allow("127.0.0.0/8").trust(&ca).start().await;
    app.dns().set("hooks.test", DnsAnswer::addresses(&["127.0.0.1"]));
    let receiver = Receiver::start_tls(&ca.leaf(&["hooks.test"])).await;
    app.endpoint_at(&receiver.url_at("hooks.test", "/in"), &["post.created"]).await;
    let mut phases = Vec::new();
    for _ in 0..2 {
        let event = app.publish("post.created", json!({})).await;
        phases.push(only_attempt(&app.delivery_ended(&event, "delivered").await)["phases"].clone());
    }
    let (first, second) = (&phases[0], &phases[1]);
    assert!(first["connectMs"].is_u64() && first["tlsMs"].is_u64() && first["firstByteMs"].is_u64(), "{first}");
    assert_eq!(
        (&first["dnsMs"], &first["connectionReused"]),
        (&Value::Null, &json!(false)),
        "resolved at registration"
    );
    let first_byte = &second["firstByteMs"];
    let kept = json!({"dnsMs": null, "connectMs": null, "tlsMs": null, "firstByteMs": first_byte, "bodyMs": second["bodyMs"], "connectionReused": true});
    assert!(second["bodyMs"].is_u64(), "{second}");
    assert_eq!((second, first_byte.is_u64()), (&kept, true));

    let closed = ReservedPort::reserve();
    app.endpoint_at(&format!("http://{}/", closed.address()), &["note.created"]).await;
    let event = app.publish("note.created", json!({})).await;
    let nothing = json!({"dnsMs": null, "connectMs": null, "tlsMs": null, "firstByteMs": null, "bodyMs": null, "connectionReused": false});
    assert_eq!(only_attempt(&app.attempted(&event, 1).await)["phases"], nothing);
}

#[tokio::test]
async fn every_2xx_is_a_success_and_its_answer_is_kept() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    for status in [200, 201, 202, 204, 299] {
        receiver.then(Answer::status(status).header("x-trace", "abc"));
        let event = app.publish("post.created", json!({})).await;
        let delivery = app.delivery_ended(&event, "delivered").await;
        assert_eq!(delivery["completedAt"], "2026-05-15T12:00:00.000Z");
        let attempt = only_attempt(&delivery);
        assert_eq!((&attempt["outcome"], &attempt["responseStatus"]), (&json!("delivered"), &json!(status)));
        assert_eq!(attempt["startedAt"], "2026-05-15T12:00:00.000Z");
        assert_eq!(attempt["responseHeaders"][0], json!({"name": "x-trace", "value": "abc"}));
        assert_eq!((&attempt["error"], &attempt["nextAttemptAt"]), (&Value::Null, &Value::Null));
        assert!(attempt["durationMs"].is_u64());
    }
}

#[tokio::test]
async fn a_failed_attempt_shows_the_answer_and_the_next_due_time() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.otherwise(Answer::status(500).header("x-trace", "abc").body("out of order"));
    let event = app.publish("post.created", json!({})).await;
    let delivery = app.attempted(&event, 1).await;
    assert_eq!((&delivery["status"], &delivery["attemptCount"]), (&json!("pending"), &json!(1)));
    let attempt = only_attempt(&delivery);
    let members: Vec<&str> = attempt.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "number",
        "startedAt",
        "durationMs",
        "outcome",
        "fault",
        "requestHeaders",
        "httpVersion",
        "responseStatus",
        "responseHeaders",
        "responseBody",
        "error",
        "nextAttemptAt",
        "phases",
        "payload",
    ];
    assert_eq!(members, expected);
    assert_eq!((&attempt["outcome"], &attempt["responseStatus"]), (&json!("http_error"), &json!(500)));
    assert_eq!(attempt["responseBody"], "out of order");
    assert_eq!(attempt["nextAttemptAt"], delivery["nextAttemptAt"]);
    let wait = instant(&attempt, "nextAttemptAt").since(NOON);
    assert!((4_000..=6_000).contains(&wait.as_millis()), "{wait:?}");
}

#[tokio::test]
async fn an_answer_is_kept_up_to_4_kib_and_read_up_to_64_kib() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let kept = async |behaviour: Behaviour| {
        receiver.then(behaviour);
        let event = app.publish("post.created", json!({})).await;
        text(&only_attempt(&app.delivery_ended(&event, "delivered").await), "responseBody")
    };
    assert_eq!(kept(Answer::status(200).body("a".repeat(4096)).into()).await, "a".repeat(4096));
    assert_eq!(kept(Answer::status(200).body("a".repeat(4097)).into()).await, "a".repeat(4096));
    assert_eq!(kept(Behaviour::EndlessBody).await, "a".repeat(4096));
    assert_eq!(kept(Behaviour::GzipBomb).await, "\0".repeat(4096));
    assert!(receiver.counts().bytes_sent < GZIP_BOMB_BYTES, "the endless answer was left early");
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let app = App::to_loopback().await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    app.endpoint_to(&receiver, &["post.created"]).await;
    for status in [301, 302, 303, 307, 308] {
        receiver.then(Answer::status(status).header("location", &elsewhere.url("/")));
        let event = app.publish("post.created", json!({})).await;
        let attempt = only_attempt(&app.attempted(&event, 1).await);
        assert_eq!((&attempt["outcome"], &attempt["responseStatus"]), (&json!("redirect"), &json!(status)));
    }
    assert_eq!(elsewhere.counts().connections, 0);
}

#[tokio::test]
async fn a_410_disables_the_endpoint_and_later_events_are_skipped() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.otherwise(Behaviour::status(410));
    let event = app.publish("post.created", json!({})).await;
    let attempt = only_attempt(&app.attempted(&event, 1).await);
    assert_eq!((&attempt["outcome"], &attempt["responseStatus"]), (&json!("gone"), &json!(410)));
    let shown = endpoint_shown(&app, &endpoint).await;
    assert_eq!((&shown["isActive"], &shown["disabledReason"]), (&json!(false), &json!("gone")));

    let published = app.post("/v1/events", json!({"type": "post.created", "data": {}})).await.data(202);
    assert_eq!(published["deliveries"], 0);
    let skipped = app.delivery_ended(&text(&published, "id"), "skipped").await;
    assert_eq!((&skipped["reason"], &skipped["attempts"]), (&json!("gone"), &json!([])));
    app.clock().advance(Duration::from_secs(3600));
    app.clock().until_asleep(2).await;
    assert_eq!(receiver.counts().requests, 1, "nothing more is sent");
}

#[tokio::test]
async fn retry_after_in_both_forms_is_a_minimum_of_at_most_a_day() {
    let app = App::to_loopback().await;
    let wait_after = async |status: u16, value: &str| {
        // Each case has its own endpoint, because `Retry-After` holds back all deliveries of an endpoint.
        let receiver = Receiver::start().await;
        let project = receiver.address().port().to_string();
        let url = receiver.url("/hook");
        let events = ["post.created"];
        app.endpoint(json!({"name": "busy", "url": url, "events": events, "projectId": project})).await;
        receiver.then(Answer::status(status).header("retry-after", value));
        let event = json!({"type": "post.created", "data": {}, "projectId": project});
        let event = text(&app.post("/v1/events", event).await.data(202), "id");
        instant(&app.attempted(&event, 1).await, "nextAttemptAt").since(NOON).as_secs()
    };
    assert_eq!(wait_after(429, "3600").await, 3600);
    assert_eq!(wait_after(503, "Fri, 15 May 2026 12:10:00 GMT").await, 600);
    assert_eq!(wait_after(500, "999999").await, 24 * 3600);
    assert_eq!(wait_after(429, "Fri, 15 May 2026 12:30:00 GMT").await, 1800);
    assert_eq!(wait_after(429, "Friday, 15-May-26 12:30:00 GMT").await, 1800);
    assert_eq!(wait_after(429, "Fri May 15 12:30:00 2026").await, 1800);
    assert_eq!(wait_after(429, "Sat, 15 May 2027 12:00:00 GMT").await, 24 * 3600);
    assert!((4..=6).contains(&wait_after(429, "Fri, 15 May 2026 11:00:00 GMT").await), "what is over is no wish");
    assert!((4..=6).contains(&wait_after(429, "-5").await));
    assert!((4..=6).contains(&wait_after(429, "1").await), "a wish below the schedule changes nothing");
    assert!((4..=6).contains(&wait_after(429, "soon").await));
}

#[tokio::test]
async fn an_exchange_past_its_deadline_is_a_timeout() {
    let deadline = Duration::from_millis(300);
    let app = App::set_up().await.allow("127.0.0.0/8").change(|settings| settings.attempt_deadline = deadline);
    let app = app.start().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let stalls = [
        (Behaviour::StallBeforeHeaders, json!(null), "headers"),
        (Behaviour::StallMidBody, json!(200), "body"),
        (Behaviour::DripHeaders(Duration::from_millis(20)), json!(null), "headers"),
        (Behaviour::DripBody(Duration::from_millis(20)), json!(200), "body"),
    ];
    for (stall, status, phase) in stalls {
        receiver.then(stall);
        let event = app.publish("post.created", json!({})).await;
        let attempt = only_attempt(&app.attempted(&event, 1).await);
        assert_eq!((&attempt["outcome"], &attempt["responseStatus"]), (&json!("timeout"), &status), "{attempt}");
        let expected = format!("no complete answer in time; the time was up during {phase}");
        assert_eq!(attempt["error"], expected);
        assert!(attempt["durationMs"].as_u64().unwrap() >= 300);
    }
    let half = Receiver::start_half_handshake().await;
    app.endpoint_at(&format!("https://{}/", half.address()), &["note.created"]).await;
    let event = app.publish("note.created", json!({})).await;
    let attempt = only_attempt(&app.attempted(&event, 1).await);
    assert_eq!(attempt["outcome"], "timeout");
    assert_eq!(attempt["error"], "no complete answer in time; the time was up during tls");
    assert!(attempt["phases"]["connectMs"].is_u64() && attempt["phases"]["tlsMs"].is_null(), "{attempt}");
}

#[tokio::test]
async fn a_connection_closed_on_reuse_costs_no_attempt() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.otherwise(Behaviour::KeepAliveThenClose);
    for _ in 0..5 {
        let event = app.publish("post.created", json!({})).await;
        let attempt = only_attempt(&app.delivery_ended(&event, "delivered").await);
        assert_eq!((&attempt["outcome"], &attempt["phases"]["connectionReused"]), (&json!("delivered"), &json!(false)));
    }
    assert_eq!(receiver.counts().connections, 5);
}

#[tokio::test]
async fn each_kind_of_failure_has_its_outcome_in_the_log() {
    let app = App::to_loopback().await;
    let outcome = async |receiver: &Receiver, behaviour: Behaviour| {
        // Each case has its own endpoint, because an endpoint that only fails is paused.
        let project = format!("{behaviour:?}").chars().filter(char::is_ascii_alphanumeric).collect::<String>();
        let url = receiver.url("/hook");
        app.endpoint(json!({"name": "x", "url": url, "events": ["post.created"], "projectId": project})).await;
        receiver.then(behaviour);
        let event = json!({"type": "post.created", "data": {}, "projectId": project});
        let event = text(&app.post("/v1/events", event).await.data(202), "id");
        let attempt = only_attempt(&app.attempted(&event, 1).await);
        assert!(attempt["error"].is_string(), "{attempt}");
        text(&attempt, "outcome")
    };
    let receiver = Receiver::start().await;
    assert_eq!(outcome(&receiver, Behaviour::CloseWithoutAnswer).await, "connection_closed");
    assert_eq!(outcome(&receiver, Behaviour::Reset).await, "connection_closed");
    assert_eq!(outcome(&receiver, Behaviour::CutMidBody).await, "connection_closed");
    assert_eq!(outcome(&receiver, Behaviour::NotHttp).await, "invalid_response");
    assert_eq!(outcome(&receiver, Behaviour::EndlessInterim).await, "invalid_response");
    assert_eq!(outcome(&receiver, Behaviour::HugeHeader).await, "invalid_response");
    assert_eq!(outcome(&receiver, Behaviour::EndlessHeaders).await, "invalid_response");
    assert_eq!(outcome(&receiver, Behaviour::ManyHeaders).await, "invalid_response");

    let closed = ReservedPort::reserve();
    app.endpoint_at(&format!("http://{}/", closed.address()), &["note.created"]).await;
    let event = app.publish("note.created", json!({})).await;
    assert_eq!(only_attempt(&app.attempted(&event, 1).await)["outcome"], "connect_failed");

    app.dns().set("fading.example", DnsAnswer::addresses(&["127.0.0.1"]));
    app.endpoint_at(&receiver.url_at("fading.example", "/"), &["source.created"]).await;
    app.dns().remove("fading.example");
    app.clock().advance(Duration::from_secs(25 * 3600));
    let event = app.publish("source.created", json!({})).await;
    assert_eq!(only_attempt(&app.attempted(&event, 1).await)["outcome"], "dns_failed");
}

#[tokio::test]
async fn a_proxy_failure_is_named_and_not_charged_to_the_receiver() {
    let proxy = Proxy::start(Habit::Status(407)).await;
    let url = ProxyUrl::parse(&proxy.url()).unwrap();
    let app = App::set_up().await.allow("127.0.0.0/8").change(|settings| settings.egress_proxy = Some(url));
    let app = app.start().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let event = app.publish("post.created", json!({})).await;
    // A failure of the proxy uses no step of the schedule, so the wait stays at 5 s.
    for made in 1..=3 {
        let delivery = app.attempted(&event, made).await;
        let attempt = &delivery["attempts"][made - 1];
        assert_eq!(attempt["outcome"], "proxy_failed");
        assert_eq!(attempt["error"], "the egress proxy failed: it refuses our credentials");
        let next = instant(&delivery, "nextAttemptAt");
        assert!((4..=6).contains(&next.since(instant(attempt, "startedAt")).as_secs()));
        if made == 3 {
            proxy.now(Habit::Tunnel);
        }
        app.clock().set(next);
    }
    app.delivery_ended(&event, "delivered").await;

    let elsewhere = Receiver::start().await;
    app.endpoint_to(&elsewhere, &["note.created"]).await;
    proxy.now(Habit::Status(403));
    let event = app.publish("note.created", json!({})).await;
    assert_eq!(only_attempt(&app.attempted(&event, 1).await)["outcome"], "proxy_refused");
    assert_eq!(elsewhere.counts().connections, 0);
}

#[tokio::test]
async fn a_delivery_over_tls_proves_the_receivers_name() {
    let ca = TestCa::new();
    let app = App::set_up().await.allow("127.0.0.0/8").trust(&ca).start().await;
    for host in ["hooks.test", "other.test"] {
        app.dns().set(host, DnsAnswer::addresses(&["127.0.0.1"]));
    }
    let receiver = Receiver::start_tls(&ca.leaf(&["hooks.test"])).await;
    let endpoint = app.endpoint_at(&receiver.url_at("hooks.test", "/in"), &["post.created"]).await;
    app.endpoint_at(&receiver.url_at("other.test", "/in"), &["note.created"]).await;

    let event = app.publish("post.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    let received = receiver.wait_for(1).await.remove(0);
    assert_eq!(received.tls.as_ref().unwrap().server_name.as_deref(), Some("hooks.test"));
    assert_eq!(received.header("host"), Some(&*format!("hooks.test:{}", receiver.address().port())));
    verify_signature(&endpoint.secret, &received).unwrap();

    let event = app.publish("note.created", json!({})).await;
    let attempt = only_attempt(&app.attempted(&event, 1).await);
    assert_eq!(attempt["outcome"], "tls_failed");
    assert_eq!(attempt["error"], "the TLS handshake failed: the certificate is for another name");
    assert_eq!(receiver.counts().requests, 1);
}

#[tokio::test]
async fn a_name_turned_private_disables_the_endpoint_after_its_pin() {
    let not_public = ["10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "100.64.0.1"];
    for address in not_public {
        let app = App::to_loopback().await;
        let receiver = Receiver::start().await;
        // A kept-alive connection would outlast the pin, because the clock jumps but the sockets do not age.
        receiver.otherwise(Answer::status(200).header("connection", "close"));
        app.dns().set("turning.example", DnsAnswer::addresses(&["127.0.0.1"]));
        let endpoint = app.endpoint_at(&receiver.url_at("turning.example", "/"), &["post.created"]).await;
        app.dns().set("turning.example", DnsAnswer::addresses(&["127.0.0.1", address]));
        app.clock().advance(Duration::from_secs(24 * 3600 - 1));
        let event = app.publish("post.created", json!({})).await;
        app.delivery_ended(&event, "delivered").await;
        assert!(endpoint_shown(&app, &endpoint).await["isActive"] == true, "the pin holds");

        app.clock().advance(Duration::from_secs(2));
        let event = app.publish("post.created", json!({})).await;
        let attempt = only_attempt(&app.attempted(&event, 1).await);
        assert_eq!(attempt["outcome"], "ssrf_blocked", "{address}");
        let error = text(&attempt, "error");
        assert!(error.contains("turning.example") && !error.contains(address), "{error}");
        let shown = endpoint_shown(&app, &endpoint).await;
        assert_eq!((&shown["isActive"], &shown["disabledReason"]), (&json!(false), &json!("ssrf_blocked")));
        let next = app.publish("post.created", json!({})).await;
        assert_eq!(app.delivery_ended(&next, "skipped").await["reason"], "ssrf_blocked");
        assert_eq!(receiver.counts().requests, 1, "nothing went out after the pin had ended");
    }
}

#[tokio::test]
async fn a_rebound_name_is_called_at_its_pin_and_not_after_a_restart() {
    let mut app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.dns().set("turning.example", DnsAnswer::addresses(&["127.0.0.1"]).with_ttl_seconds(0));
    let endpoint = app.endpoint_at(&receiver.url_at("turning.example", "/"), &["post.created"]).await;
    app.dns().set("turning.example", DnsAnswer::addresses(&["169.254.169.254"]));
    let event = app.publish("post.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    app.restart().await;
    let event = app.publish("post.created", json!({})).await;
    assert_eq!(only_attempt(&app.attempted(&event, 1).await)["outcome"], "ssrf_blocked");
    assert_eq!(endpoint_shown(&app, &endpoint).await["disabledReason"], "ssrf_blocked");
    assert_eq!(receiver.counts().requests, 1);
}

#[tokio::test]
async fn a_name_found_private_disables_all_endpoints_with_it() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(Answer::status(200).header("connection", "close"));
    app.dns().set("turning.example", DnsAnswer::addresses(&["127.0.0.1"]));
    let url = receiver.url_at("turning.example", "/");
    let mut endpoints = Vec::new();
    for events in ["post.created", "note.created"] {
        endpoints.push((events, app.endpoint_at(&url, &[events]).await));
        let event = app.publish(events, json!({})).await;
        app.delivery_ended(&event, "delivered").await;
    }
    app.dns().set("turning.example", DnsAnswer::addresses(&["127.0.0.1", "10.0.0.1"]));
    let another = json!({"name": "Another", "url": url, "events": ["job.failed"]});
    app.post("/v1/webhook-endpoints", another).await.error(422, "ssrf_blocked");
    app.clock().advance(limits::PIN_LIFETIME);
    for (events, endpoint) in &endpoints {
        let event = app.publish(events, json!({})).await;
        assert_eq!(only_attempt(&app.attempted(&event, 1).await)["outcome"], "ssrf_blocked");
        let shown = endpoint_shown(&app, endpoint).await;
        assert_eq!((&shown["isActive"], &shown["disabledReason"]), (&json!(false), &json!("ssrf_blocked")));
    }
    assert_eq!(receiver.counts().requests, 2);
}

#[tokio::test]
async fn retries_follow_the_operators_schedule() {
    let schedule: RetrySchedule = "100s,200s".parse().unwrap();
    let app = App::set_up().await.allow("127.0.0.0/8").change(|settings| settings.retry_schedule = schedule);
    let app = app.start().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.otherwise(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    for (made, seconds) in [(1, 100), (2, 200)] {
        let delivery = app.attempted(&event, made).await;
        let started: Timestamp = instant(&delivery["attempts"][made - 1], "startedAt");
        let next = instant(&delivery, "nextAttemptAt");
        let wait = next.since(started).as_secs_f64() / f64::from(seconds);
        assert!((0.8..=1.2).contains(&wait), "{wait}");
        app.clock().set(next);
    }
    let delivery = app.delivery_ended(&event, "failed").await;
    assert_eq!((&delivery["reason"], &delivery["attemptCount"]), (&json!("exhausted"), &json!(3)));
}
