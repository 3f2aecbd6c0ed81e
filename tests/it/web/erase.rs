//! The page that erases the content of an event.

use std::time::Duration;

use serde_json::json;

use crate::support::app::App;
use crate::support::visitor::{EVERYTHING, READS, Visitor, attributes};
use crate::support::wait::eventually;

#[tokio::test]
async fn an_event_is_erased_after_a_question() {
    let app = App::start().await;
    let event = app.publish("post.created", json!({"name": "Ada"})).await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let here = format!("/dashboard/events/{event}");
    let page = visitor.page(&here).await;
    assert!(page.contains("Ada") && attributes(&page, "href").contains(&format!("{here}/erase").as_str()), "{page}");
    let question = visitor.page(&format!("{here}/erase")).await;
    assert!(question.contains("nothing can bring it back"), "{question}");
    let once = attributes(&question, "value").into_iter().find(|value| value.len() == 32).unwrap().to_owned();
    let fields = [("once", once.as_str()), ("pending", "cancel")];
    for _ in 0..2 {
        let reply = visitor.post(&format!("{here}/erase"), &fields).await;
        assert_eq!((reply.status, reply.header("location")), (303, Some(format!("{here}?done=erasing").as_str())));
    }
    let erased = || async {
        app.clock().advance(Duration::from_secs(1));
        let page = visitor.page(&here).await;
        page.contains("Payload erased").then_some(page)
    };
    let page = eventually("the erased event", erased).await;
    assert!(!page.contains("Ada") && !page.contains("/erase\""), "{page}");
    let wrong = visitor.post(&format!("{here}/erase"), &[("once", "a-token"), ("pending", "stop")]).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(visitor.get("/dashboard/events/evt_0zzzzzzzzzzzzzzzzzzz/erase").await.status, 404);
}

#[tokio::test]
async fn a_reader_has_no_button_that_erases() {
    let app = App::start().await;
    let event = app.publish("post.created", json!({})).await;
    let reader = Visitor::of(&app, READS).await;
    let here = format!("/dashboard/events/{event}");
    assert!(!reader.page(&here).await.contains("/erase\""));
    assert_eq!(reader.get(&format!("{here}/erase")).await.status, 403);
    assert_eq!(reader.post(&format!("{here}/erase"), &[("once", "a-token")]).await.status, 403);
    assert_eq!(app.get(&format!("/v1/events/{event}")).await.data(200)["payload"], "kept");
}
