//! `/v1/webhook-endpoints`.

use serde_json::json;

use crate::support::app::{App, text};

#[tokio::test]
async fn a_created_endpoint_is_answered_in_the_order_of_the_published_page() {
    let app = App::start().await;
    let body = json!({
        "name": "Production CRM",
        "url": "https://hooks.example.com/scripe",
        "events": ["post.created", "job.completed"],
        "projectId": "proj_a1b2c3d4e5f6g7h8",
    });
    let reply = app.post("/v1/webhook-endpoints", body).await;
    let data = reply.data(200);
    let (id, secret) = (text(&data, "id"), text(&data, "secret"));
    let last4 = &secret[secret.len() - 4..];
    assert_eq!(
        reply.text(),
        format!(
            "{{\"data\":{{\"id\":\"{id}\",\"url\":\"https://hooks.example.com/scripe\",\"name\":\"Production CRM\",\
             \"events\":[\"post.created\",\"job.completed\"],\"isActive\":true,\"disabledReason\":null,\
             \"projectId\":\"proj_a1b2c3d4e5f6g7h8\",\"secretLast4\":\"{last4}\",\
             \"createdAt\":\"2026-05-15T12:00:00.000Z\",\"secret\":\"{secret}\",\
             \"updatedAt\":\"2026-05-15T12:00:00.000Z\"}}}}"
        )
    );
}
