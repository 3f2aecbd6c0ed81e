//! The list of endpoints: its filter, its order, its pages, and what it says when it is empty.

use serde_json::json;

use crate::support::app::{App, text};
use crate::support::receiver::{Answer, Receiver};
use crate::support::visitor::{EVERYTHING, READS, Visitor, attribute, attributes};

/// Endpoints by name, in the order of the page.
fn names(page: &str) -> Vec<&str> {
    let rows = page.split("<tbody id=\"endpoints\"").nth(1).unwrap_or_default();
    rows.split("</a><span class=\"sub\">")
        .filter_map(|part| part.rsplit('>').next())
        .filter(|it| !it.is_empty())
        .collect()
}

/// One endpoint of each kind, from the oldest on: disabled, off, two that are well.
async fn four(app: &App) -> Receiver {
    let receiver = Receiver::start().await;
    receiver.decide(|request| Answer::status(if request.path == "/gone" { 410 } else { 200 }).into());
    let body =
        |name: &str, path: &str, event: &str| json!({"name": name, "url": receiver.url(path), "events": [event]});
    app.endpoint(body("Left", "/gone", "job.failed")).await;
    let off = app.endpoint(body("Off", "/", "post.created")).await;
    app.caller().patch(&format!("/v1/webhook-endpoints/{}", off.id), json!({"isActive": false})).await.data(200);
    app.endpoint(body("Well", "/", "post.created")).await;
    app.endpoint(body("Ledger", "/", "post.updated")).await;
    let left = app.publish("job.failed", json!({})).await;
    app.attempted(&left, 1).await;
    receiver
}

#[tokio::test]
async fn endpoints_are_filtered_by_state_text_type_and_project() {
    let app = App::to_loopback().await;
    let _receiver = four(&app).await;
    let visitor = Visitor::of(&app, READS).await;
    let at = async |query: &str| visitor.page(&format!("/dashboard/endpoints{query}")).await;
    assert_eq!(names(&at("").await), ["Ledger", "Well", "Off", "Left"]);
    assert_eq!(names(&at("?state=disabled").await), ["Left"]);
    assert_eq!(names(&at("?state=off,ok&event=post.created").await), ["Well", "Off"]);
    assert_eq!(names(&at("?q=LED").await), ["Ledger"]);
    assert_eq!(names(&at("?isActive=true").await), ["Ledger", "Well"]);
    let page = at("?state=off%2Cdisabled&projectId=p").await;
    assert!(
        page.contains("No endpoint matches this filter") && page.contains("Every endpoint was searched."),
        "{page}"
    );
    assert!(page.contains("<option value=\"off,disabled\" selected>off or disabled</option>"), "{page}");
    assert!(page.contains("GET /v1/webhook-endpoints?projectId=p&amp;state=off%2Cdisabled"), "{page}");
    let faulty = visitor.get("/dashboard/endpoints?state=broken").await;
    assert_eq!(faulty.status, 400);
    assert!(faulty.text().contains("must be one of ok, failing, paused, disabled, off"), "{}", faulty.text());
}

#[tokio::test]
async fn the_overview_leads_to_the_endpoints_in_need() {
    let app = App::to_loopback().await;
    let _receiver = four(&app).await;
    let page = Visitor::of(&app, READS).await.page("/dashboard/endpoints?state=failing,paused,disabled").await;
    assert_eq!(names(&page), ["Left"]);
    let preset = page.split("<ul class=\"presets\"").nth(1).unwrap().split("</ul>").next().unwrap();
    assert!(preset.contains("aria-current=\"true\">Need attention</a>"), "{preset}");
}

/// Follows the links to older pages, to the end.
async fn walk(visitor: &Visitor, from: &str) -> Vec<String> {
    let (mut path, mut seen) = (from.to_owned(), Vec::new());
    loop {
        let page = visitor.page(&path).await;
        seen.extend(names(&page).into_iter().map(str::to_owned));
        let Some(next) = page.split("<a ").find(|link| attribute(&format!(" {link}"), "rel") == "next") else {
            assert!(page.contains("rel=\"prev\""), "{path} leads back to the first page");
            return seen;
        };
        path = attribute(&format!(" {next}"), "href").replace("&amp;", "&");
        assert!(path.contains("limit=1"), "the filter is kept: {path}");
        assert!(seen.len() < 10, "{seen:?}");
    }
}

#[tokio::test]
async fn pages_keep_filter_and_order_and_lose_none() {
    let app = App::to_loopback().await;
    let _receiver = four(&app).await;
    let visitor = Visitor::of(&app, READS).await;
    assert_eq!(walk(&visitor, "/dashboard/endpoints?limit=1").await, ["Ledger", "Well", "Off", "Left"]);
    let by_failures = walk(&visitor, "/dashboard/endpoints?limit=1&sort=failing").await;
    assert_eq!(by_failures, ["Left", "Ledger", "Well", "Off"]);
    let narrowed = walk(&visitor, "/dashboard/endpoints?limit=1&sort=failing&state=off%2Cdisabled").await;
    assert_eq!(narrowed, ["Left", "Off"]);
    let page = visitor.page("/dashboard/endpoints?sort=failing").await;
    assert!(page.contains("Endpoints, failing first"), "{page}");
    assert_eq!(names(&page), ["Left", "Ledger", "Well", "Off"]);
}

#[tokio::test]
async fn an_empty_list_has_the_form_of_the_first_endpoint() {
    let app = App::start().await;
    let page = Visitor::of(&app, EVERYTHING).await.page("/dashboard/endpoints").await;
    assert!(page.contains("No endpoint yet") && page.contains("action=\"/dashboard/endpoints/new\""), "{page}");
    let mut ids = attributes(&page, "id");
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids are unique");
    let page = Visitor::of(&app, READS).await.page("/dashboard/endpoints").await;
    assert!(page.contains("No endpoint yet") && !page.contains("endpoints/new"), "{page}");
}

#[tokio::test]
async fn a_customer_filters_only_the_own_endpoints() {
    let app = App::to_loopback().await;
    let receiver = four(&app).await;
    let own = json!({"name": "Till", "url": receiver.url("/"), "events": ["post.created"], "projectId": "p"});
    app.endpoint(own).await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p", "locale": "de"})).await;
    let page = customer.page(&format!("{base}/endpoints?sort=failing&state=ok")).await;
    assert_eq!(names(&page), ["Till"]);
    assert!(page.contains("die gestörten zuerst") && !page.contains("projectId"), "{page}");
    let page = customer.page(&format!("{base}/endpoints?state=disabled,ok&q=left")).await;
    assert!(page.contains("Alle Endpunkte wurden durchsucht."), "{page}");
    assert!(page.contains("abgeschaltet oder in Ordnung"), "{page}");
}

#[tokio::test]
async fn an_endpoint_shows_its_own_counts_of_a_period() {
    let app = App::to_loopback().await;
    let receiver = four(&app).await;
    let own = json!({"name": "Till", "url": receiver.url("/"), "events": ["note.created"], "projectId": "p"});
    let endpoint = app.endpoint(own).await;
    let event = json!({"type": "note.created", "data": {}, "projectId": "p"});
    let event = text(&app.post("/v1/events", event).await.data(202), "id");
    app.delivery_ended(&event, "delivered").await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let visitor = Visitor::of(&app, READS).await;
    for period in ["", "?period=1h", "?period=7d", "?period=30d"] {
        for (visitor, base) in [(&visitor, "/dashboard"), (&customer, base.as_str())] {
            let page = visitor.page(&format!("{base}/endpoints/{}{period}", endpoint.id)).await;
            assert!(page.contains("Attempts: 1, of which 1 delivered, 0 failed"), "{period} {page}");
            assert!(page.contains(&format!("{base}/endpoints/{}?period=7d#periods", endpoint.id)), "{page}");
            assert!(page.contains(&format!("href=\"{base}/verify\"")), "{page}");
        }
    }
}
