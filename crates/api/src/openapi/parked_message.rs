//! The operations and schemas of `/parked-messages`.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::event_type::Catalogue;
use postrider_domain::source::ParkReason;

use super::event::receipt_example;
use super::info::SOURCES;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, array, boolean, count, described, growing, list, nullable, object, page_example,
    reference, single, single_example, timestamp,
};

const ID_EXAMPLE: &str = "pkm_a1b2c3d4e5f6g7h8";

pub fn index(_: &Catalogue) -> Operation {
    Operation::new(SOURCES, "listParkedMessages", "List parked messages")
        .describe("Messages of sources that cannot become events. They are not lost: retry them, or discard them.")
        .query("source", reference("SourceName"), "Only messages of this source.")
        .paged()
        .answers(
            200,
            "A page of parked messages without headers and bodies, newest first.",
            list(reference("ParkedMessage")),
            page_example(&[example()]),
        )
}

pub fn show(_: &Catalogue) -> Operation {
    let mut detail = example();
    detail["headers"] = json!([{ "name": "Nats-Msg-Id", "value": "42" }]);
    detail["body"] = "bm90IEpTT04=".into();
    Operation::new(SOURCES, "getParkedMessage", "Get parked message").answers(
        200,
        "The message with its headers and body.",
        single(reference("ParkedMessageDetail")),
        single_example(detail),
    )
}

pub fn retry(catalogue: &Catalogue) -> Operation {
    let receipt = || single_example(receipt_example(catalogue));
    Operation::new(SOURCES, "retryParkedMessage", "Retry parked message")
        .describe(
            "Reads the message again by the rules of its source. Use it after the reason is gone: the event type was \
             added, the schema or the settings were mended. A message that becomes an event is parked no longer.",
        )
        .idempotent()
        .answers(200, "The event was accepted before.", single(reference("EventReceipt")), receipt())
        .answers(202, "The message is an event now.", single(reference("EventReceipt")), receipt())
        .fails(&[ErrorCode::Unprocessable, ErrorCode::Conflict])
}

pub fn discard(_: &Catalogue) -> Operation {
    Operation::new(SOURCES, "discardParkedMessage", "Discard parked message")
        .idempotent()
        .answers_without_body(204, "The message is gone.")
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let header = json!({ "name": { "type": "string" }, "value": { "type": "string" } });
    let mut detail = view();
    detail["headers"] = array(object(header, &[]));
    detail["body"] = json!({
        "type": "string", "contentEncoding": "base64",
        "description": "The bytes of the body, in base64; only the first 256 KB of a larger one.",
    });
    vec![
        (
            "ParkedMessage",
            described(object(view(), &[]), "A message of a source that cannot become an event, without its content."),
        ),
        ("ParkedMessageDetail", described(object(detail, &[]), "A parked message with its headers and body.")),
    ]
}

fn view() -> Value {
    let text = || nullable(json!({ "type": "string" }));
    json!({
        "id": reference("ParkedMessageId"),
        "source": described(reference("SourceName"), "The source that it came from."),
        "mode": reference("Mode"),
        "projectId": nullable(reference("ProjectId")),
        "reason": growing(&ParkReason::ALL.map(ParkReason::as_str)),
        "detail": { "type": "string", "description": "What is wrong with it, for people." },
        "subject": described(text(), "The subject of NATS, the routing key of RabbitMQ."),
        "sequence": described(text(), "The number that the broker or the table gave it."),
        "messageId": described(text(), "The id that the producer gave it."),
        "bodyBytes": described(count(), "Bytes of the whole body."),
        "truncated": described(boolean(), "Only the beginning of the body was kept. Such a message cannot be retried."),
        "parkedAt": timestamp("When it was parked."),
    })
}

fn example() -> Value {
    json!({
        "id": ID_EXAMPLE,
        "source": "orders",
        "mode": "live",
        "projectId": null,
        "reason": "not_json",
        "detail": "malformed JSON: expected a value at byte 0",
        "subject": "events.posts",
        "sequence": "4711",
        "messageId": null,
        "bodyBytes": 8,
        "truncated": false,
        "parkedAt": INSTANT_EXAMPLE,
    })
}
