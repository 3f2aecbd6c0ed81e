//! "Replay all these", the page of the job, and the retry of ticked rows.

use std::time::Duration;

use serde_json::json;

use crate::support::app::{App, text};
use crate::support::receiver::{Answer, Receiver};
use crate::support::visitor::{EVERYTHING, READS, Visitor, attribute, hidden};
use crate::support::wait::eventually;

const LIST: &str = "/dashboard/deliveries?status=failed";

/// Two endpoints that have refused one event each, and a third that took it. The receivers are well again.
async fn with_failed() -> (App, [Receiver; 2]) {
    let app = App::to_loopback().await;
    let receivers = [Receiver::start().await, Receiver::start().await];
    let types = json!(["post.created", "note.created"]);
    for receiver in &receivers {
        receiver.otherwise(Answer::status(503));
        let body = json!({"name": "n", "url": receiver.url("/"), "events": types, "retrySchedule": [1]});
        app.endpoint(body).await;
    }
    let event = app.publish("post.created", json!({})).await;
    eventually("the failure of both", || async {
        app.clock().advance(Duration::from_secs(1));
        (app.deliveries(&format!("eventId={event}&status=failed")).await.len() == 2).then_some(())
    })
    .await;
    for receiver in &receivers {
        receiver.otherwise(Answer::status(200));
    }
    (app, receivers)
}

/// The link with this text.
fn link<'p>(page: &'p str, words: &str) -> &'p str {
    let end = format!(">{words}</a>");
    let before = page.split(end.as_str()).next().filter(|before| before.len() < page.len());
    let before = before.unwrap_or_else(|| panic!("no link {words} in {page}"));
    attribute(before.rsplit("<a").next().unwrap_or_default(), "href")
}

#[tokio::test]
async fn all_of_a_filtered_list_are_counted_replayed_and_watched() {
    let (app, receivers) = with_failed().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let ask = link(&visitor.page(LIST).await, "Replay all these").replace("&amp;", "&");
    let page = visitor.page(&ask).await;
    assert!(page.contains("2 deliveries would be sent again."), "{page}");
    assert_eq!(
        (hidden(&page, "status"), hidden(&page, "until").is_empty()),
        ("failed", false),
        "what is confirmed is fixed"
    );
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let started = visitor.submit(&page, "/dashboard/deliveries/replay", &[]).await;
        assert_eq!(started.status, 303, "{}", started.text());
        jobs.push(started.header("location").unwrap().to_owned());
    }
    assert_eq!(jobs[0], jobs[1], "a second click starts nothing");
    let shown = visitor.page(&jobs[0]).await;
    for words in ["It is running.", "0 of 2 are through", "2 are left", ">failed<"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    app.clock().advance(Duration::from_secs(2));
    app.deliveries_when("cause=replay&status=delivered", "have arrived", |all| all.len() == 2).await;
    let shown = visitor.page(&jobs[0]).await;
    assert!(shown.contains("It is complete.") && shown.contains("2 of 2 are through"), "{shown}");
    let again = visitor.page(&link(&shown, "Again").replace("&amp;", "&")).await;
    assert!(again.contains("There is nothing to send again"), "{again}");
    let all = visitor.page("/dashboard/replays").await;
    assert!(all.contains("2 of 2") && all.contains(jobs[0].split('?').next().unwrap()), "{all}");
    assert_eq!(receivers.map(|receiver| receiver.counts().requests), [3, 3]);
}

#[tokio::test]
async fn a_job_is_stopped_on_its_page() {
    let (app, _receivers) = with_failed().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let body = json!({"filter": {"status": "failed"}});
    let id = text(&app.post("/v1/webhook-deliveries/replay", body).await.data(202), "id");
    let here = format!("/dashboard/replays/{id}");
    let page = visitor.page(&here).await;
    let stopped = visitor.submit(&page, &format!("{here}/stop"), &[]).await;
    assert_eq!(stopped.status, 303, "{}", stopped.text());
    let page = visitor.page(&here).await;
    assert!(page.contains("It was stopped.") && !page.contains(">Stop<"), "{page}");
    assert_eq!(visitor.get("/dashboard/replays/rpl_0zzzzzzzzzzzzzzzzzzz").await.status, 404);
}

#[tokio::test]
async fn a_reader_watches_a_job_and_neither_starts_nor_stops_one() {
    let (app, _receivers) = with_failed().await;
    let reader = Visitor::of(&app, READS).await;
    let body = json!({"filter": {"status": "failed"}});
    let id = text(&app.post("/v1/webhook-deliveries/replay", body).await.data(202), "id");
    let page = reader.page(LIST).await;
    assert!(!page.contains("Replay all these") && !page.contains("Retry the ticked ones"), "{page}");
    let page = reader.page(&format!("/dashboard/replays/{id}")).await;
    assert!(!page.contains(">Stop<") && !page.contains(">Again<"), "{page}");
    assert_eq!(reader.get("/dashboard/deliveries/replay?status=failed").await.status, 403);
    for path in ["/dashboard/deliveries/replay".to_owned(), format!("/dashboard/replays/{id}/stop")] {
        let refused = reader.post(&path, &[("status", "failed"), ("once", "t")]).await;
        assert_eq!(refused.status, 403, "{path}: {}", refused.text());
    }
    assert_eq!(app.get("/v1/replays").await.data(200).as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_button_is_there_only_for_what_can_be_sent_again() {
    let (app, _receivers) = with_failed().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    for (query, is_offered) in
        [("", false), ("?status=failed", true), ("?eventType=post.created", true), ("?cause=test", false)]
    {
        let page = visitor.page(&format!("/dashboard/deliveries{query}")).await;
        assert_eq!(page.contains("Replay all these"), is_offered, "{query}");
    }
    let page = visitor.get("/dashboard/deliveries/replay?status=pending").await;
    assert_eq!(page.status, 400, "{}", page.text());
    let page = visitor.get("/dashboard/deliveries/replay?status=%3Cscript%3E").await;
    assert!(page.status == 400 && !page.text().contains("<script>"), "{}", page.text());
}

#[tokio::test]
async fn ticked_rows_are_retried_once_in_one_request() {
    let (app, _receivers) = with_failed().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let ids: Vec<String> = app.deliveries("status=failed").await.iter().map(|one| text(one, "id")).collect();
    let page = visitor.page(LIST).await;
    let gone = "dlv_0zzzzzzzzzzzzzzzzzzz";
    for _ in 0..2 {
        let retried = visitor.submit(&page, "/dashboard/deliveries/retry", &[("id", &ids[0]), ("id", gone)]).await;
        assert_eq!(retried.status, 200, "{}", retried.text());
        assert!(retried.text().contains("1 are queued again, 1 are not") && retried.text().contains(gone));
    }
    let retried = visitor.submit(&page, "/dashboard/deliveries/retry", &[("id", &ids[1])]).await;
    assert_eq!(retried.status, 303, "other rows of the same page: {}", retried.text());
    let made = app.deliveries("cause=retry").await;
    assert_eq!(made.len(), 2, "{made:?}");
}
