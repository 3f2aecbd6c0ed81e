//! The operations and schemas of `/listeners`.

use serde_json::{Map, Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::endpoint::DisabledReason;
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;

use super::info::LISTENERS;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, LATER_EXAMPLE, Schemas, array, boolean, closed_object, described, example_events, growing, list,
    list_example, name, nullable, object, one_of, reference, single, single_example, timed_example, timestamp,
};
use super::{delivery, endpoint, replay};

const TOKEN_EXAMPLE: &str = "0000c9ae2f53a41b";

pub fn create(catalogue: &Catalogue) -> Operation {
    Operation::new(LISTENERS, "createListener", "Create a listener")
        .describe(
            "A listener is an endpoint without a URL. It matches, queues, retries, orders and logs as an endpoint \
             does, but its deliveries wait until a consumer leases them. One that is not `durable` is removed 24 \
             hours after a consumer last used it.",
        )
        .idempotent()
        .body(
            "CreateListener",
            json!({ "name": "Billing worker", "events": example_events(catalogue), "durable": true }),
        )
        .answers(
            200,
            "The listener. The answer carries its plaintext secret.",
            single(reference("ListenerWithSecret")),
            single_example(with_secret_example(catalogue)),
        )
}

pub fn index(catalogue: &Catalogue) -> Operation {
    Operation::new(LISTENERS, "listListeners", "List listeners").paged().answers(
        200,
        "A page of listeners, newest first.",
        list(reference("Listener")),
        list_example(&[example(catalogue)]),
    )
}

pub fn show(catalogue: &Catalogue) -> Operation {
    Operation::new(LISTENERS, "getListener", "Get listener").answers(
        200,
        "The listener.",
        single(reference("Listener")),
        single_example(example(catalogue)),
    )
}

pub fn update(catalogue: &Catalogue) -> Operation {
    Operation::new(LISTENERS, "updateListener", "Update listener")
        .describe(
            "Changes the given fields and keeps the rest. While `isActive` is false, queued deliveries wait, nothing \
             is leased, and matching events are recorded as `skipped`.",
        )
        .idempotent()
        .body("UpdateListener", json!({ "events": example_events(catalogue), "isActive": true }))
        .answers(200, "The changed listener.", single(reference("Listener")), single_example(example(catalogue)))
}

pub fn remove(catalogue: &Catalogue) -> Operation {
    Operation {
        id: "deleteListener",
        tag: LISTENERS,
        summary: "Delete listener",
        description: "Deletes the listener and its secrets and cancels its undelivered deliveries. Nothing is leased \
                      after the answer. Its log stays until retention removes it."
            .to_owned(),
        ..endpoint::remove(catalogue)
    }
}

pub fn rotate_secret(catalogue: &Catalogue) -> Operation {
    Operation::new(LISTENERS, "rotateListenerSecret", "Rotate a listener's signing secret")
        .describe(
            "Creates a new secret and shows it once. Queued deliveries are still signed with the old secret unless \
             `revokeQueued` is true. Not idempotent: each call creates another secret.",
        )
        .optional_body("RotateSecret", json!({ "overlapSeconds": 3600 }))
        .answers(
            200,
            "The secret is rotated. The answer carries the plaintext secret.",
            single(reference("ListenerWithSecret")),
            single_example(with_secret_example(catalogue)),
        )
        .fails(&[ErrorCode::Conflict])
}

pub fn start_replay(catalogue: &Catalogue) -> Operation {
    Operation { id: "replayListener", tag: LISTENERS, ..replay::create(catalogue) }
}

pub fn deliveries(catalogue: &Catalogue) -> Operation {
    Operation {
        id: "listListenerDeliveries",
        tag: LISTENERS,
        summary: "List deliveries of a listener",
        ..delivery::index_of_endpoint(catalogue)
    }
}

pub fn lease(catalogue: &Catalogue) -> Operation {
    Operation::new(LISTENERS, "leaseDeliveries", "Lease deliveries")
        .describe(
            "Gives out deliveries that are due, exactly as a receiver would get them. A lease lasts 60 seconds and \
             belongs to its `leaseToken`. Several consumers may lease from one listener: each delivery is leased to \
             one at a time. Settle each lease, or it lapses and the delivery goes out again. With `waitSeconds` the \
             request waits for the first delivery. An empty answer means that there was none. Fewer than `max` come \
             when they have more than about 2 MB. An `Idempotency-Key` is ignored.",
        )
        .optional_body("LeaseDeliveries", json!({ "max": 10, "waitSeconds": 20 }))
        .answers(
            200,
            "The leased deliveries, possibly none.",
            single(array(reference("LeasedDelivery"))),
            single_example(json!([lease_example(catalogue)])),
        )
}

pub fn renew(_: &Catalogue) -> Operation {
    Operation::new(LISTENERS, "renewLeases", "Renew leases")
        .describe(
            "Lets leases last 60 seconds from now. For a lease that is lost, the result is `lease_lost`; when all are \
             lost, the answer is 409. An `Idempotency-Key` is ignored.",
        )
        .body("RenewLeases", json!({ "leases": [held_example()] }))
        .answers(
            200,
            "A result for each lease, in order.",
            single(array(reference("RenewedLease"))),
            single_example(json!([{
                "deliveryId": timed_example("dlv_"), "result": "renewed", "leaseExpiresAt": LATER_EXAMPLE,
            }])),
        )
        .fails(&[ErrorCode::Conflict])
}

pub fn settle(_: &Catalogue) -> Operation {
    let mut result = held_example();
    result["status"] = 200.into();
    result["durationMs"] = 23.into();
    Operation::new(LISTENERS, "settleLeases", "Settle leases")
        .describe(
            "Reports what became of leased deliveries. A `status` or an `error` is an attempt and is judged as that \
             of a receiver: 2xx delivers, anything else is retried by the schedule. 410 is a failure and does not \
             switch the listener off. With `release` the delivery is due again at once, and no attempt is recorded. \
             For a lease that is lost, the result is `lease_lost` and nothing is done; when all are lost, the answer \
             is 409. An `Idempotency-Key` is ignored: a result counts once, however often it is sent.",
        )
        .body("SettleLeases", json!({ "results": [result] }))
        .answers(
            200,
            "A result for each lease, in order.",
            single(array(reference("SettledLease"))),
            single_example(json!([{ "deliveryId": timed_example("dlv_"), "result": "recorded" }])),
        )
        .fails(&[ErrorCode::Conflict])
}

pub fn schemas(_: &Catalogue) -> Schemas {
    vec![
        ("CreateListener", closed_object(created(), &["projectId", "ordering", "durable"])),
        ("UpdateListener", update_schema()),
        ("Listener", object(view(None), &[])),
        ("ListenerWithSecret", object(view(Some(())), &[])),
        ("LeaseDeliveries", closed_object(asked(), &["max", "waitSeconds"])),
        ("LeasedDelivery", leased_schema()),
        ("LeasedHeader", object(json!({ "name": { "type": "string" }, "value": { "type": "string" } }), &[])),
        ("RenewLeases", closed_object(json!({ "leases": several("HeldLease") }), &[])),
        ("HeldLease", closed_object(held().into(), &[])),
        ("RenewedLease", renewed_schema()),
        ("SettleLeases", closed_object(json!({ "results": several("LeaseResult") }), &[])),
        ("LeaseResult", result_schema()),
        ("SettledLease", settled_schema()),
    ]
}

fn events_field() -> Value {
    json!({
        "type": "array",
        "minItems": 1,
        "items": reference("EventName"),
        "description": "The events that it subscribes to.",
    })
}

fn ordering_field() -> Value {
    let orders = DeliveryOrder::ALL.map(DeliveryOrder::as_str);
    nullable(described(
        one_of(&orders),
        "`strict`: one delivery at a time, as their events were accepted. Default: `none`.",
    ))
}

fn created() -> Value {
    json!({
        "name": name(limits::ENDPOINT_NAME_CHARS),
        "events": events_field(),
        "projectId": {
            "type": ["string", "null"],
            "pattern": super::schema::opaque_pattern(),
            "description": "Only events of this project. Absent or null: events of every project.",
        },
        "ordering": ordering_field(),
        "durable": {
            "type": ["boolean", "null"],
            "description": "Whether it stays when no consumer uses it. Default: false.",
        },
    })
}

fn update_schema() -> Value {
    let fields = json!({
        "name": name(limits::ENDPOINT_NAME_CHARS),
        "events": events_field(),
        "isActive": described(boolean(), "Whether deliveries are queued and leased."),
    });
    described(closed_object(fields, &["name", "events", "isActive"]), "Absent fields keep their value.")
}

fn view(secret: Option<()>) -> Value {
    let reason = growing(&DisabledReason::ALL.map(DisabledReason::as_str));
    let mut view = json!({
        "id": reference("ListenerId"),
        "name": { "type": "string" },
        "events": array(reference("ShownEventName")),
        "isActive": boolean(),
        "disabledReason": nullable(described(reason, "Why the service disabled it.")),
        "projectId": nullable(reference("ProjectId")),
        "secretLast4": { "type": "string", "minLength": 4, "maxLength": 4 },
        "createdAt": reference("Timestamp"),
    });
    if secret.is_some() {
        view["secret"] = json!({
            "type": "string",
            "pattern": "^whsec_[0-9a-f]{64}$",
            "description": "The plaintext signing secret. It is shown only in this answer.",
            "examples": [endpoint::SECRET_EXAMPLE],
        });
    }
    view["updatedAt"] = timestamp("When it was last changed.");
    view["durable"] = described(boolean(), "Whether it stays when no consumer uses it.");
    view["lastSeenAt"] = timestamp("When a consumer last used it, within 5 minutes.");
    let orders = growing(&DeliveryOrder::ALL.map(DeliveryOrder::as_str));
    view["ordering"] = described(orders, "Whether its deliveries keep the order of their events.");
    view["mode"] = described(reference("Mode"), "The mode of the key that made it. It gets events of this mode.");
    view
}

fn asked() -> Value {
    json!({
        "max": {
            "type": "integer",
            "minimum": 1,
            "maximum": limits::LEASES_PER_REQUEST,
            "description": "The most deliveries to lease. Default: 1.",
        },
        "waitSeconds": {
            "type": "integer",
            "minimum": 0,
            "maximum": limits::LEASE_WAIT_MAX.as_secs(),
            "description": "How long to wait for the first delivery. Default: 0.",
        },
    })
}

fn token() -> Value {
    json!({ "type": "string", "pattern": "^[0-9a-f]{16}$", "description": "Names this lease.", "examples": [TOKEN_EXAMPLE] })
}

fn leased_schema() -> Value {
    let properties = json!({
        "deliveryId": reference("DeliveryId"),
        "attempt": { "type": "integer", "minimum": 1, "description": "The number of the attempt." },
        "leaseToken": token(),
        "leaseExpiresAt": timestamp("When the lease lapses."),
        "headers": described(array(reference("LeasedHeader")), "What a receiver would get, `webhook-signature` included."),
        "body": {
            "type": "string",
            "contentEncoding": "base64",
            "description": "The bytes of the envelope in base64. The signature is over these bytes.",
        },
    });
    object(properties, &[])
}

fn held() -> Map<String, Value> {
    let held = json!({ "deliveryId": reference("DeliveryId"), "leaseToken": token() });
    held.as_object().cloned().unwrap_or_default()
}

fn several(item: &str) -> Value {
    json!({ "type": "array", "minItems": 1, "maxItems": limits::LEASES_PER_REQUEST, "items": reference(item) })
}

fn result_schema() -> Value {
    let mut fields = held();
    let more = json!({
        "status": {
            "type": "integer",
            "minimum": 100,
            "maximum": 599,
            "description": "The status of an attempt: 2xx delivers.",
        },
        "error": {
            "type": "string",
            "minLength": 1,
            "maxLength": limits::SETTLED_ERROR_CHARS,
            "description": "Why the attempt had no status.",
        },
        "release": { "type": "boolean", "description": "`true`: no attempt was made." },
        "durationMs": { "type": "integer", "minimum": 0, "maximum": u32::MAX, "description": "How long the attempt took." },
    });
    fields.extend(more.as_object().cloned().unwrap_or_default());
    let schema = closed_object(fields.into(), &["status", "error", "release", "durationMs"]);
    described(schema, "Exactly one of `status`, `error` and `release`.")
}

fn renewed_schema() -> Value {
    let properties = json!({
        "deliveryId": reference("DeliveryId"),
        "result": growing(&["renewed", "lease_lost"]),
        "leaseExpiresAt": nullable(timestamp("null when the lease is lost.")),
    });
    object(properties, &[])
}

fn settled_schema() -> Value {
    let properties = json!({
        "deliveryId": reference("DeliveryId"),
        "result": growing(&["recorded", "released", "lease_lost"]),
    });
    object(properties, &[])
}

fn held_example() -> Value {
    json!({ "deliveryId": timed_example("dlv_"), "leaseToken": TOKEN_EXAMPLE })
}

fn lease_example(_: &Catalogue) -> Value {
    let mut example = held_example();
    example["attempt"] = 1.into();
    example["leaseExpiresAt"] = LATER_EXAMPLE.into();
    example["headers"] = json!([
        { "name": "content-type", "value": "application/json" },
        { "name": "webhook-id", "value": timed_example("evt_") },
        { "name": "webhook-timestamp", "value": "1778833260" },
        { "name": "webhook-signature", "value": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" },
    ]);
    example["body"] = "eyJpZCI6ICIuLi4ifQ==".into();
    example
}

fn example(catalogue: &Catalogue) -> Value {
    let mut example = with_secret_example(catalogue);
    if let Some(members) = example.as_object_mut() {
        members.shift_remove("secret");
    }
    example
}

fn with_secret_example(catalogue: &Catalogue) -> Value {
    json!({
        "id": "lst_a1b2c3d4e5f6g7h8",
        "name": "Billing worker",
        "events": example_events(catalogue),
        "isActive": true,
        "disabledReason": null,
        "projectId": null,
        "secretLast4": &endpoint::SECRET_EXAMPLE[endpoint::SECRET_EXAMPLE.len() - 4..],
        "createdAt": INSTANT_EXAMPLE,
        "secret": endpoint::SECRET_EXAMPLE,
        "updatedAt": INSTANT_EXAMPLE,
        "durable": true,
        "lastSeenAt": INSTANT_EXAMPLE,
        "ordering": "none",
        "mode": "live",
    })
}
