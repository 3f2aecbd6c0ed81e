//! A portal session from which event types are hidden: what it reads about an endpoint that has them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::portal_walls::all_pages;
use crate::support::app::{App, text};
use crate::support::postgres::TestDatabase;
use crate::support::receiver::{Behaviour, Gate, Receiver};
use crate::support::visitor::Visitor;
use crate::support::wait::eventually;

const TYPES: [&str; 2] = ["post.created", "note.created"];

/// A customer who sees `post.created` alone, and the start of the paths.
async fn narrowed(app: &App) -> (Visitor, String) {
    Visitor::on_portal(app, json!({"projectId": "p", "eventTypes": ["post.created"]})).await
}

async fn publish(app: &App, event_type: &str) -> String {
    let body = json!({"type": event_type, "data": {}, "projectId": "p"});
    text(&app.post("/v1/events", body).await.data(202), "id")
}

async fn endpoint(app: &App, receiver: &Receiver, more: Value) -> String {
    let mut body = json!({"name": "Till", "url": receiver.url("/"), "events": TYPES, "projectId": "p"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    app.endpoint(body).await.id
}

/// The value of a term in the list of numbers.
fn number<'p>(page: &'p str, term: &str) -> Option<&'p str> {
    let (_, rest) = page.split_once(&format!("<dt>{term}</dt><dd>"))?;
    rest.split("</dd>").next()
}

async fn run_on_both(test: impl AsyncFn(App)) {
    test(App::set_up().await.allow("127.0.0.0/8").real_time().start().await).await;
    if let Some(database) = TestDatabase::new().await.map(Arc::new) {
        test(App::set_up().await.allow("127.0.0.0/8").on(&database).start().await).await;
    }
}

#[tokio::test]
async fn hidden_types_count_in_no_number_of_an_endpoint() {
    run_on_both(async |app| {
        let receiver = Receiver::start().await;
        let id = endpoint(&app, &receiver, json!({})).await;
        for event_type in ["note.created", "post.created", "note.created"] {
            let event = publish(&app, event_type).await;
            app.delivery_ended(&event, "delivered").await;
        }
        let ((customer, base), (whole, whole_base)) =
            (narrowed(&app).await, Visitor::on_portal(&app, json!({"projectId": "p"})).await);
        let page = whole.page(&format!("{whole_base}/endpoints/{id}")).await;
        assert!(number(&page, "Attempts in 24 h").is_some_and(|it| it.contains("3 delivered")), "{page}");
        let page = customer.page(&format!("{base}/endpoints/{id}")).await;
        assert_eq!((number(&page, "Waiting"), number(&page, "Attempts in 24 h")), (Some("0"), None), "{page}");
        assert!(number(&page, "Last success").is_some_and(|it| it.contains("<time")), "{page}");
        let list = customer.page(&format!("{base}/endpoints")).await;
        assert!(list.contains(&id) && !list.contains("24 h") && !list.contains("3 delivered"), "{list}");

        let gate = Gate::closed();
        receiver.otherwise(Behaviour::hold(&gate));
        publish(&app, "note.created").await;
        publish(&app, "post.created").await;
        let page = whole.page(&format!("{whole_base}/endpoints/{id}")).await;
        assert_eq!(number(&page, "Waiting"), Some("2"), "{page}");
        let page = customer.page(&format!("{base}/endpoints/{id}")).await;
        assert_eq!(number(&page, "Waiting"), Some("1"), "{page}");
        gate.open();
    })
    .await;
}

#[tokio::test]
async fn a_replay_counts_and_repeats_no_hidden_type() {
    run_on_both(async |app| {
        let receiver = Receiver::start().await;
        let id = endpoint(&app, &receiver, json!({})).await;
        let path = format!("/v1/webhook-endpoints/{id}");
        app.caller().patch(&path, json!({"isActive": false})).await.data(200);
        for event_type in ["note.created", "post.created", "note.created"] {
            publish(&app, event_type).await;
        }
        app.caller().patch(&path, json!({"isActive": true})).await.data(200);
        let ((customer, base), (whole, whole_base)) =
            (narrowed(&app).await, Visitor::on_portal(&app, json!({"projectId": "p"})).await);
        let range = [("once", "t"), ("since", "2020-01-01T00:00"), ("statuses", "skipped")];
        let counted = whole.post(&format!("{whole_base}/endpoints/{id}/replay"), &range).await;
        assert!(counted.text().contains("3 deliveries would be sent again"), "{}", counted.text());
        let form = format!("{base}/endpoints/{id}/replay");
        let counted = customer.post(&form, &range).await;
        assert!(counted.text().contains("1 delivery would be sent again"), "{}", counted.text());

        // The replay of the operator counts all types, so a customer does not find it.
        let all = json!({"since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z", "statuses": ["skipped"]});
        let foreign = text(&app.post(&format!("{path}/replay"), all).await.data(202), "id");
        let foreign = format!("{base}/endpoints/{id}/replays/{foreign}");
        assert_eq!(customer.get(&foreign).await.status, 404);
        assert_eq!(customer.post(&format!("{foreign}/stop"), &[]).await.status, 404);

        let start = [&range[..], &[("start", "yes")]].concat();
        let job = customer.send(&form, &start).await;
        assert_eq!(customer.send(&form, &start).await, job, "a second click starts nothing");
        assert!(job.starts_with(&format!("{base}/endpoints/{id}/replays/")), "{job}");
        let complete = async || {
            let page = customer.page(&job).await;
            page.contains("It is complete.").then_some(page)
        };
        let page = eventually("the end of the replay", complete).await;
        assert!(page.contains("1 of 1 are through") && page.contains("skipped"), "{page}");
        let page = customer.page(&format!("{base}/endpoints/{id}")).await;
        assert!(page.contains(job.split('?').next().unwrap()) && !page.contains(&foreign), "{page}");
        let sent = app.deliveries_when("cause=replay&status=delivered", "have arrived", |all| !all.is_empty()).await;
        assert_eq!((sent.len(), &sent[0]["eventType"]), (1, &json!("post.created")), "{sent:?}");
        for (path, page) in all_pages(&customer, &base, &[]).await {
            assert!(!page.contains("note.created"), "{path}: {page}");
        }
        app.caller().patch(&format!("/v1/webhook-endpoints/{id}"), json!({"isActive": false})).await.data(200);
        let again = [("once", "u"), ("since", "2020-01-01T00:00"), ("statuses", "delivered"), ("start", "yes")];
        let refused = customer.post(&form, &again).await;
        assert_eq!(refused.status, 409, "an endpoint that is off is not replayed: {}", refused.text());
    })
    .await;
}

#[tokio::test]
async fn a_waiting_delivery_does_not_name_a_hidden_head() {
    run_on_both(async |app| {
        let receiver = Receiver::start().await;
        receiver.otherwise(Behaviour::status(500));
        let strict = json!({"ordering": "strict", "retrySchedule": [86400]});
        endpoint(&app, &receiver, strict).await;
        let head = publish(&app, "note.created").await;
        let head = text(&app.attempted(&head, 1).await, "id");
        let event = publish(&app, "post.created").await;
        let waiting = text(&app.deliveries(&format!("eventId={event}")).await[0], "id");
        let (whole, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
        let page = whole.page(&format!("{base}/deliveries/{waiting}")).await;
        assert!(page.contains("and another one comes first") && page.contains(&head), "{page}");
        let (customer, base) = narrowed(&app).await;
        let page = customer.page(&format!("{base}/deliveries/{waiting}")).await;
        assert!(page.contains("and another one comes first.") && !page.contains(&head), "{page}");
        let both = json!({"projectId": "p", "eventTypes": TYPES});
        let (customer, base) = Visitor::on_portal(&app, both).await;
        let page = customer.page(&format!("{base}/deliveries/{waiting}")).await;
        assert!(page.contains(&head), "a head of a type that the customer sees is named: {page}");
    })
    .await;
}
