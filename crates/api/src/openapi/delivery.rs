//! The operations and schemas of `/webhook-deliveries`.

use serde_json::{Value, json};

use postrider_domain::attempt::{AttemptOutcome, Fault};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::event_type::Catalogue;
use postrider_domain::explanation::{NextStep, StateCause, WhyThen};
use postrider_domain::limits;
use postrider_domain::payload::PayloadState;
use postrider_domain::sent_request::HttpVersion;

use super::info::DELIVERIES;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, LATER_EXAMPLE, Schemas, array, closed_object, count, described, example_event, growing, instant,
    known_event, list, list_example, nullable, object, one_of, page_example, reference, single, single_example,
    timed_example, timestamp,
};

pub fn index(catalogue: &Catalogue) -> Operation {
    let operation = Operation::new(DELIVERIES, "listWebhookDeliveries", "List deliveries").query_any(
        "endpointId",
        reference("EndpointId"),
        "Only deliveries to this endpoint.",
    );
    filters(catalogue, operation).paged().answers(
        200,
        "A page of deliveries, newest first, without their attempts.",
        list(reference("Delivery")),
        page_example(&[example(catalogue, "event")]),
    )
}

pub fn index_of_endpoint(catalogue: &Catalogue) -> Operation {
    let operation = Operation::new(DELIVERIES, "listEndpointDeliveries", "List deliveries of an endpoint");
    filters(catalogue, operation).paged().answers(
        200,
        "A page of the endpoint's deliveries, newest first, without their attempts.",
        list(reference("Delivery")),
        list_example(&[example(catalogue, "event")]),
    )
}

fn filters(catalogue: &Catalogue, operation: Operation) -> Operation {
    operation
        .query_any("eventId", reference("EventId"), "Only deliveries of this event.")
        .query_any("eventType", known_event(catalogue), "Only deliveries of events with this name.")
        .query_any("projectId", reference("ProjectId"), "Only deliveries of events of this project.")
        .query_any("status", reference("DeliveryStatus"), "Only deliveries with this status.")
        .query_any("cause", one_of(&DeliveryCause::ALL.map(DeliveryCause::as_str)), "Only deliveries with this cause.")
        .query_any(
            "outcome",
            one_of(&AttemptOutcome::ALL.map(AttemptOutcome::as_str)),
            "Only deliveries whose last attempt ended so.",
        )
        .query_any(
            "responseStatus",
            response_statuses(),
            "Only deliveries whose last attempt was answered with this status (`503`) or class of statuses (`5xx`).",
        )
        .query("since", instant(), "Only deliveries created at this instant or later.")
        .query("until", instant(), "Only deliveries created before this instant.")
}

pub fn response_statuses() -> Value {
    json!({ "type": "string", "pattern": "^(?:[1-9][0-9]{2}|[1-9]xx)$", "examples": ["503", "5xx"] })
}

pub fn show(catalogue: &Catalogue) -> Operation {
    Operation::new(DELIVERIES, "getWebhookDelivery", "Get delivery").answers(
        200,
        "The delivery with all its attempts, oldest first.",
        single(reference("DeliveryWithAttempts")),
        single_example(with_attempts_example(catalogue)),
    )
}

pub fn retry(catalogue: &Catalogue) -> Operation {
    Operation::new(DELIVERIES, "retryWebhookDelivery", "Retry delivery")
        .describe(
            "Creates a new delivery of the same event, with the same bytes, to the same endpoint. It is signed with \
             the current secret and has the full retry schedule. If the delivery blocks the endpoint's strict order, \
             the new one takes its place in the order.",
        )
        .idempotent()
        .optional_body("Nothing", json!({}))
        .answers(
            202,
            "The new delivery is on disk. Get it to see its result.",
            single(reference("Delivery")),
            single_example(example(catalogue, "retry")),
        )
}

pub fn retry_all(catalogue: &Catalogue) -> Operation {
    let (queued, gone) = (example(catalogue, "retry"), "dlv_0d1vzq8fw8dg021jwvfz");
    let body = json!({ "ids": [queued["retryOf"], gone] });
    let refused = json!({ "code": "not_found", "message": "There is no such resource." });
    let results = json!([
        { "id": queued["retryOf"], "delivery": queued, "error": null },
        { "id": gone, "delivery": null, "error": refused },
    ]);
    Operation::new(DELIVERIES, "retryWebhookDeliveries", "Retry several deliveries")
        .describe(
            "Retries each of up to 200 deliveries, as the retry of one does. The refusal of one does not concern the \
             others. Send an `Idempotency-Key`, so that a repeated request retries nothing twice.",
        )
        .idempotent()
        .body("RetryDeliveries", body)
        .answers(
            200,
            "A result for each id, in the order of the request. Repeated ids count once.",
            single(array(reference("RetriedDelivery"))),
            single_example(results),
        )
}

pub fn skip(catalogue: &Catalogue) -> Operation {
    let mut skipped = example(catalogue, "event");
    skipped["status"] = "failed".into();
    skipped["reason"] = "exhausted".into();
    skipped["attemptCount"] = 10.into();
    skipped["lastOutcome"] = "http_error".into();
    skipped["lastResponseStatus"] = 503.into();
    skipped["nextAttemptAt"] = Value::Null;
    skipped["completedAt"] = LATER_EXAMPLE.into();
    Operation::new(DELIVERIES, "skipWebhookDelivery", "Skip delivery")
        .describe(
            "Skips a failed delivery that blocks its endpoint's strict order (`isBlocking`), so that the deliveries \
             behind it continue. It stays `failed`.",
        )
        .idempotent()
        .optional_body("Nothing", json!({}))
        .answers(
            200,
            "The delivery, which no longer blocks the order.",
            single(reference("Delivery")),
            single_example(skipped),
        )
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let mut with_attempts = view();
    with_attempts["attempts"] = array(reference("Attempt"));
    with_attempts["explanation"] = reference("Explanation");
    vec![
        (
            "DeliveryStatus",
            described(
                one_of(&DeliveryStatus::ALL.map(DeliveryStatus::as_str)),
                "`pending` until the delivery ends, then one of the other values for good.",
            ),
        ),
        ("Delivery", described(object(view(), &[]), "The delivery of one event to one endpoint.")),
        ("DeliveryWithAttempts", described(object(with_attempts, &[]), "A delivery with all its attempts.")),
        (
            "Attempt",
            described(
                object(attempt(), &["requestHeaders", "httpVersion", "remoteAddress"]),
                "One attempt at a delivery.",
            ),
        ),
        ("RetryDeliveries", closed_object(json!({ "ids": retried_ids() }), &[])),
        ("RetriedDelivery", described(object(retried(), &[]), "The result of one of several retries.")),
        ("RefusedRetry", described(object(refused(), &[]), "Why a retry was refused.")),
        ("Explanation", described(object(explanation(), &[]), "How a delivery stands, for a program or a page.")),
        (
            "AttemptPhases",
            described(
                object(phases(), &[]),
                "How long each phase of an attempt took; null for a phase that did not happen or did not end. A reused \
                 connection has no DNS, connect and TLS phase.",
            ),
        ),
        (
            "Header",
            described(
                object(json!({ "name": { "type": "string" }, "value": { "type": "string" } }), &[]),
                "A header may come more than once, so headers are a list.",
            ),
        ),
    ]
}

fn causes() -> Value {
    growing(&DeliveryCause::ALL.map(DeliveryCause::as_str))
}

fn outcomes() -> Value {
    growing(&AttemptOutcome::ALL.map(AttemptOutcome::as_str))
}

fn view() -> Value {
    let reasons = growing(&EndReason::ALL.map(EndReason::as_str));
    let mut attempt_count = count();
    attempt_count["description"] = "How many attempts have started.".into();
    json!({
        "id": reference("DeliveryId"),
        "eventId": reference("EventId"),
        "eventType": reference("ShownEventName"),
        "endpointId": reference("EndpointId"),
        "projectId": nullable(reference("ProjectId")),
        "mode": reference("Mode"),
        "status": reference("DeliveryStatus"),
        "reason": nullable(described(reasons, "Why it ended, unless it was delivered.")),
        "cause": described(causes(), "What created it: the event, or a manual retry, replay or test."),
        "retryOf": nullable(described(reference("DeliveryId"), "The delivery that this one retries or replays.")),
        "attemptCount": attempt_count,
        "nextAttemptAt": nullable(timestamp("When the next attempt is due; null when no attempt will follow, during \
            an attempt, and while the endpoint is not active or paused or the delivery waits in a strict order. \
            `explanation` of a single delivery says what it waits for.")),
        "createdAt": reference("Timestamp"),
        "completedAt": nullable(timestamp("When it ended.")),
        "isBlocking": {
            "type": "boolean",
            "description": "Whether it failed and blocks its endpoint's strict order until it is skipped or retried.",
        },
        "lastOutcome": nullable(described(outcomes(), "How its last recorded attempt ended; null before the first.")),
        "lastResponseStatus": {
            "type": ["integer", "null"],
            "minimum": 100,
            "maximum": 999,
            "description": "The status that the receiver answered to that attempt; null when no response arrived.",
        },
    })
}

fn retried_ids() -> Value {
    let mut ids = array(reference("DeliveryId"));
    ids["minItems"] = 1.into();
    ids["maxItems"] = limits::RETRIES_PER_REQUEST.into();
    ids
}

fn retried() -> Value {
    json!({
        "id": described(reference("DeliveryId"), "The delivery to retry."),
        "delivery": nullable(described(reference("Delivery"), "The new delivery, if it was queued.")),
        "error": nullable(described(reference("RefusedRetry"), "Why it was not queued.")),
    })
}

fn refused() -> Value {
    json!({
        "code": described(growing(&["not_found", "conflict"]), "As the error code of a single retry."),
        "message": { "type": "string" },
    })
}

fn explanation() -> Value {
    let reasons = EndReason::ALL.map(EndReason::as_str);
    let causes: Vec<&str> = StateCause::NAMES.into_iter().chain(reasons).collect();
    let part = |text: &str| json!({ "type": ["integer", "null"], "minimum": 1, "description": text });
    json!({
        "state": reference("DeliveryStatus"),
        "cause": described(growing(&causes), "Why it is in this state; the `reason` of a delivery that ended without \
            success."),
        "next": described(growing(&NextStep::ALL.map(NextStep::as_str)), "What happens next. `probe`: the paused \
            endpoint gets this delivery or another one that waits. `activation`: the endpoint must be activated."),
        "nextAt": nullable(timestamp("When the next step is due, if that is known.")),
        "whyThen": nullable(described(growing(&WhyThen::NAMES), "Why the next attempt is when it is. `overloaded`: the \
            endpoint gets a break because it reported overload.")),
        "step": part("The wait of the retry schedule that runs now, if `whyThen` is `schedule`."),
        "steps": part("How many waits the schedule has."),
        "givesUpAt": nullable(timestamp("About when it fails, if all further attempts fail or what it waits for does \
            not come.")),
        "waitsFor": nullable(described(reference("DeliveryId"), "The head of the strict order that it waits behind.")),
    })
}

fn attempt() -> Value {
    json!({
        "number": { "type": "integer", "minimum": 1, "description": "Counts from 1 without gaps." },
        "startedAt": reference("Timestamp"),
        "durationMs": count(),
        "outcome": described(outcomes(), "How it ended. Only `delivered` is a success. `abandoned` means that the server \
                                        stopped during the attempt, which is not the receiver's fault."),
        "fault": described(growing(&Fault::ALL.map(Fault::as_str)), "Who is responsible for the outcome: the receiver, \
            the sender (this server, its proxy or its name servers), or nobody. Only the receiver's own failures count \
            against its endpoint."),
        "requestHeaders": described(array(reference("Header")), "The headers as they were sent, in their order. The \
            values of custom headers are `[redacted]`. HTTP/2 has `:authority` in place of `host`. A simulated attempt \
            has the headers that would have been sent, without those that the connection adds. Absent when no request \
            was sent."),
        "httpVersion": described(growing(&HttpVersion::ALL.map(HttpVersion::as_str)), "The version of HTTP that carried \
            the request. Absent when no request was sent."),
        "remoteAddress": { "type": "string", "description": "The address of the last connection: the receiver's, or \
            that of the server's proxy. Only for keys with the scope `workspaces:manage`." },
        "responseStatus": {
            "type": ["integer", "null"],
            "minimum": 100,
            "maximum": 999,
            "description": "null when no response arrived.",
        },
        "responseHeaders": array(reference("Header")),
        "responseBody": {
            "type": ["string", "null"],
            "description": "The first 4 KiB of the response. Bytes that are not UTF-8 are shown as the replacement \
                            character.",
        },
        "error": { "type": ["string", "null"], "description": "Why no response arrived, for people." },
        "nextAttemptAt": nullable(timestamp("When the next attempt became due.")),
        "phases": nullable(described(reference("AttemptPhases"), "Phase times; null when no exchange started.")),
        "payload": described(growing(&PayloadState::ALL.map(PayloadState::as_str)), "Whether headers and bodies are \
            still stored: `expired` when they are older than the server keeps payloads, `erased` when somebody had them \
            erased."),
    })
}

fn phases() -> Value {
    let part = |text: &str| json!({ "type": ["integer", "null"], "minimum": 0, "description": text });
    json!({
        "dnsMs": part("The DNS lookup; null when an earlier result was reused."),
        "connectMs": part("From the lookup until a connection to one of the addresses was open."),
        "tlsMs": part("The TLS handshake."),
        "firstByteMs": part("From the start of the request until the head of the response."),
        "bodyMs": part("From the head of the response until its end, or until the last byte that is read."),
        "connectionReused": {
            "type": "boolean",
            "description": "Whether the connection had carried a request before.",
        },
    })
}

/// A delivery that waits for its first attempt.
pub fn example(catalogue: &Catalogue, cause: &str) -> Value {
    let retry_of = (cause == "retry").then(|| timed_example("dlv_").replace("8k3", "7zz"));
    json!({
        "id": timed_example("dlv_"),
        "eventId": timed_example("evt_"),
        "eventType": example_event(catalogue),
        "endpointId": "whe_a1b2c3d4e5f6g7h8",
        "projectId": "proj_a1b2c3d4e5f6g7h8",
        "mode": "live",
        "status": "pending",
        "reason": null,
        "cause": cause,
        "retryOf": retry_of,
        "attemptCount": 0,
        "nextAttemptAt": INSTANT_EXAMPLE,
        "createdAt": INSTANT_EXAMPLE,
        "completedAt": null,
        "isBlocking": false,
        "lastOutcome": null,
        "lastResponseStatus": null,
    })
}

fn with_attempts_example(catalogue: &Catalogue) -> Value {
    let mut delivery = example(catalogue, "event");
    delivery["status"] = "delivered".into();
    delivery["attemptCount"] = 1.into();
    delivery["nextAttemptAt"] = Value::Null;
    delivery["completedAt"] = LATER_EXAMPLE.into();
    delivery["attempts"] = json!([{
        "number": 1,
        "startedAt": INSTANT_EXAMPLE,
        "durationMs": 137,
        "outcome": "delivered",
        "fault": "nobody",
        "requestHeaders": [
            { "name": "content-type", "value": "application/json" },
            { "name": "webhook-id", "value": timed_example("evt_") },
        ],
        "httpVersion": "1.1",
        "responseStatus": 204,
        "responseHeaders": [{ "name": "date", "value": "Fri, 15 May 2026 08:21:00 GMT" }],
        "responseBody": "",
        "error": null,
        "nextAttemptAt": null,
        "phases": { "dnsMs": null, "connectMs": 21, "tlsMs": 44, "firstByteMs": 71, "bodyMs": 0, "connectionReused": false },
        "payload": "kept",
    }]);
    delivery["explanation"] = json!({
        "state": "delivered",
        "cause": "received",
        "next": "nothing",
        "nextAt": null,
        "whyThen": null,
        "step": null,
        "steps": null,
        "givesUpAt": null,
        "waitsFor": null,
    });
    delivery
}
