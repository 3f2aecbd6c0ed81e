//! The walls of the portal: what a customer cannot reach, change or learn.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_domain::access::{Mode, Scope};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::app::{ALL_SCOPES, App, PUBLIC_HOST, text};
use crate::support::caller::{Caller, Reply};
use crate::support::dns::Answer;
use crate::support::postgres::TestDatabase;
use crate::support::receiver::Receiver;
use crate::support::visitor::{Visitor, attributes};
use crate::support::wait::eventually;

const TYPES: [&str; 2] = ["post.created", "note.created"];

/// Something of each kind, of one project or of none.
struct Things {
    endpoint: String,
    delivery: String,
    replay: String,
}

async fn things(caller: &Caller, receiver: &Receiver, project: Option<&str>) -> Things {
    let body = json!({"name": "A receiver", "url": receiver.url("/hook"), "events": TYPES, "projectId": project});
    let endpoint = text(&caller.post("/v1/webhook-endpoints", body).await.data(200), "id");
    // An endpoint without a project gets the events of every project.
    let body = json!({"type": "post.created", "data": {"id": 1}, "projectId": project.unwrap_or("p")});
    caller.post("/v1/events", body).await.data(202);
    let path = format!("/v1/webhook-deliveries?endpointId={endpoint}");
    let ended = || async {
        let listed = caller.get(&path).await.data(200);
        listed[0]["completedAt"].is_string().then(|| text(&listed[0], "id"))
    };
    let delivery = eventually("a delivery that has ended", ended).await;
    let replay = json!({"since": "2020-01-01T00:00:00Z", "statuses": ["failed"]});
    let replay = caller.post(&format!("/v1/webhook-endpoints/{endpoint}/replay"), replay).await.data(202);
    Things { endpoint, delivery, replay: text(&replay, "id") }
}

/// The routes that the portal has, as its sources name them: the path below the session, and the methods.
fn routes() -> BTreeSet<(&'static str, String)> {
    let sources = ["portal/mod.rs", "dashboard/endpoints.rs", "dashboard/deliveries.rs"];
    let mut routes = BTreeSet::new();
    for source in sources {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/web/src").join(source);
        let text = std::fs::read_to_string(file).unwrap();
        for route in text.split(".route(&at(\"").skip(1) {
            let (path, rest) = route.split_once('"').unwrap();
            let handlers = rest.split(".route(").next().unwrap().lines().next().unwrap();
            for (method, call) in [("GET", "get("), ("POST", "post(")] {
                if handlers.contains(call) {
                    routes.insert((method, path.to_owned()));
                }
            }
        }
    }
    assert!(routes.len() > 25, "{routes:?}");
    for known in [("POST", "/endpoints/{id}/secret"), ("GET", "/deliveries/{id}/attempts/{number}/body")] {
        assert!(routes.contains(&(known.0, known.1.to_owned())), "{routes:?}");
    }
    routes
}

async fn ask(customer: &Visitor, method: &str, path: &str) -> Reply {
    // Enough for each form to be taken.
    let fields = [
        ("once", "a-token"),
        ("name", "A receiver"),
        ("url", "https://hooks.example.com/"),
        ("events", "post.created"),
        ("event", "post.created"),
        ("replaces", "1"),
        ("since", "2020-01-01T00:00"),
        ("statuses", "failed"),
        ("start", "yes"),
    ];
    if method == "GET" { customer.get(path).await } else { customer.post(path, &fields).await }
}

/// Every route with the ids of others answers as it does for ids that nobody has.
async fn walk(app: &App) {
    let receiver = Receiver::start().await;
    let own = things(app.caller(), &receiver, Some("p")).await;
    let test = app.caller_with(app.create_key("Acme", Mode::Test, ALL_SCOPES, None).await);
    let other = app.caller_of("Other", ALL_SCOPES).await;
    let strangers = [
        ("another project", things(app.caller(), &receiver, Some("q")).await),
        ("no project", things(app.caller(), &receiver, None).await),
        ("another workspace", things(&other, &receiver, Some("p")).await),
        ("another mode", things(&test, &receiver, Some("p")).await),
    ];
    let nobody = |id: &str| format!("{}_{}", &id[..3], id[4..].chars().rev().collect::<String>());
    let unknown =
        Things { endpoint: nobody(&own.endpoint), delivery: own.delivery.clone(), replay: nobody(&own.replay) };
    let unknown = Things { delivery: format!("{}0000", &own.delivery[..own.delivery.len() - 4]), ..unknown };
    let (customer, base) = Visitor::on_portal(app, json!({"projectId": "p"})).await;
    for (method, route) in routes().into_iter().filter(|(_, route)| route.contains("{id}")) {
        let with = |things: &Things| {
            let id = if route.starts_with("/endpoints") { &things.endpoint } else { &things.delivery };
            let path = route.replace("{id}", id).replace("{replay}", &things.replay).replace("{number}", "1");
            format!("{base}{path}")
        };
        let expected = ask(&customer, method, &with(&unknown)).await;
        // Nobody skips in the portal.
        let status = if route.ends_with("/skip") { 403 } else { 404 };
        assert_eq!(expected.status, status, "{method} {route}: {}", expected.text());
        for (whose, things) in &strangers {
            let reply = ask(&customer, method, &with(things)).await;
            assert_eq!((reply.status, &reply.body), (expected.status, &expected.body), "{method} {route} of {whose}");
        }
        if route.contains("{replay}") {
            for (whose, things) in &strangers {
                let mixed =
                    Things { endpoint: own.endpoint.clone(), replay: things.replay.clone(), delivery: String::new() };
                let reply = ask(&customer, method, &with(&mixed)).await;
                assert_eq!((reply.status, &reply.body), (404, &expected.body), "{method} {route} of {whose}");
            }
        }
    }
    let shown = |reply: &Reply, things: &Things| {
        assert_eq!(reply.status, 200, "{}", reply.text());
        // How long ago something was changes while the test runs.
        let parts = reply.text().split("<time").map(|part| part.split_once("</time>").map_or(part, |(_, rest)| rest));
        parts.collect::<String>().replace(&things.delivery, "").replace(&things.endpoint, "")
    };
    let queries = async |things: &Things| {
        let retry = [("once", "a-token"), ("id", things.delivery.as_str())];
        let test = format!("{base}/endpoints/{}?test={}", own.endpoint, things.delivery);
        [
            shown(&customer.get(&format!("{base}/deliveries?endpointId={}", things.endpoint)).await, things),
            shown(&customer.get(&test).await, things),
            shown(&customer.post(&format!("{base}/deliveries/retry"), &retry).await, things),
        ]
    };
    // The page of the own endpoint shows how its replay stands: it is stopped, unless it has ended.
    let stop = app.caller().post(&format!("/v1/replays/{}/stop", own.replay), json!({})).await;
    assert!([200, 409].contains(&stop.status), "{}", stop.text());
    let expected = queries(&unknown).await;
    for (whose, things) in &strangers {
        assert_eq!(queries(things).await, expected, "{whose}");
    }
    // The customer's own things are there, and nothing else in any list.
    let list = customer.page(&base).await;
    assert_eq!(list.matches("data-label=\"Endpoint\"").count(), 1, "{list}");
    let list = customer.page(&format!("{base}/deliveries")).await;
    assert!(list.contains(&own.delivery), "{list}");
    for (whose, things) in &strangers {
        assert!(!list.contains(&things.delivery) && !list.contains(&things.endpoint), "{whose}: {list}");
    }
}

#[tokio::test]
async fn no_route_of_the_portal_crosses_its_walls() {
    walk(&App::to_loopback().await).await;
}

#[tokio::test]
async fn no_route_of_the_portal_crosses_its_walls_on_postgres() {
    if let Some(database) = TestDatabase::new().await.map(Arc::new) {
        walk(&App::set_up().await.allow("127.0.0.0/8").on(&database).start().await).await;
    }
}

/// Asks for a thing of another project and for one that nobody has, in turns, and compares the medians: what else the
/// machine does concerns both alike. A row that is read and left out costs some microseconds; a page that is made, or a
/// second question to the store, would show.
#[tokio::test]
async fn foreign_and_unknown_ids_take_the_same_time() {
    const PAIRS: usize = 150;
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let foreign = things(app.caller(), &receiver, Some("q")).await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let nobody = |id: &str| format!("{}{}", &id[..4], id[4..].chars().rev().collect::<String>());
    let delivery = &foreign.delivery;
    for (kind, foreign, unknown) in [
        ("endpoints", foreign.endpoint.clone(), nobody(&foreign.endpoint)),
        ("deliveries", delivery.clone(), format!("{}0000", &delivery[..delivery.len() - 4])),
    ] {
        let time = async |id: &str| {
            // A session may ask for 600 pages a minute.
            app.clock().advance(Duration::from_millis(150));
            let since = Instant::now();
            assert_eq!(customer.get(&format!("{base}/{kind}/{id}")).await.status, 404);
            since.elapsed()
        };
        let (mut there, mut nowhere) = (Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            if pair % 2 == 0 {
                there.push(time(&foreign).await);
                nowhere.push(time(&unknown).await);
            } else {
                nowhere.push(time(&unknown).await);
                there.push(time(&foreign).await);
            }
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[PAIRS / 2].as_secs_f64()
        };
        let ratio = median(there) / median(nowhere);
        assert!((0.6..=1.6).contains(&ratio), "{kind}: the foreign one took {ratio:.2} times as long");
    }
}

/// All pages that links lead to, with their paths.
pub async fn all_pages(customer: &Visitor, base: &str, start: &[String]) -> Vec<(String, String)> {
    let mut open = start.to_vec();
    open.push(base.to_owned());
    let (mut seen, mut pages) = (BTreeSet::new(), Vec::new());
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let reply = customer.get(&path).await;
        if reply.status == 200 && reply.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
            let links = attributes(reply.text(), "href").into_iter().filter(|link| link.starts_with(base));
            open.extend(links.map(|link| link.split('#').next().unwrap().replace("&amp;", "&")));
            pages.push((path, reply.text().to_owned()));
        }
    }
    pages
}

#[tokio::test]
async fn a_session_that_only_reads_has_no_button_and_no_post() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let own = things(app.caller(), &receiver, Some("p")).await;
    let (reader, base) = Visitor::on_portal(&app, json!({"projectId": "p", "readOnly": true})).await;
    let pages = all_pages(&reader, &base, &[]).await;
    assert!(pages.iter().any(|(path, _)| path.contains(&own.delivery)), "{pages:?}");
    for (path, page) in &pages {
        assert!(!page.contains("method=\"post\"") && !page.contains("type=\"checkbox\""), "{path}: {page}");
        for verb in ["edit", "rotate", "delete", "replay", "new", "secret"] {
            assert!(!page.contains(&format!("/{verb}\"")), "{path} leads to {verb}");
        }
        assert!(!page.contains("Client certificate") && !page.contains("values are not shown"), "{path}");
    }
    for (method, route) in routes().into_iter().filter(|(method, _)| *method == "POST") {
        let id = if route.starts_with("/endpoints") { &own.endpoint } else { &own.delivery };
        let path = format!("{base}{}", route.replace("{id}", id).replace("{replay}", &own.replay));
        let reply = ask(&reader, method, &path).await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text());
        assert!(!reply.text().contains("webhooks:manage"), "a customer has no scopes: {}", reply.text());
        assert_eq!(reader.post(&path, &[]).await.status, 403, "{path} with an empty form");
    }
    for page in
        ["endpoints/new", &format!("endpoints/{}/edit", own.endpoint), &format!("endpoints/{}/delete", own.endpoint)]
    {
        assert_eq!(reader.get(&format!("{base}/{page}")).await.status, 403, "{page}");
    }
}

#[tokio::test]
async fn payloads_need_their_own_capability() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let own = things(app.caller(), &receiver, Some("p")).await;
    let page = format!("/deliveries/{}", own.delivery);
    let (plain, base) = Visitor::on_portal(&app, json!({"projectId": "p", "capabilities": ["deliveries:read"]})).await;
    assert!(!plain.page(&format!("{base}{page}")).await.contains("&quot;projectId&quot;"));
    assert_eq!(plain.get(&format!("{base}{page}/body")).await.status, 403);
    assert_eq!(plain.get(&format!("{base}/endpoints")).await.status, 403);
    assert!(plain.page(&base).await.contains(&own.delivery), "the first page is one that it may see");
    let body = json!({"projectId": "p", "capabilities": ["payloads:read"]});
    let (reader, base) = Visitor::on_portal(&app, body).await;
    assert!(reader.page(&format!("{base}{page}")).await.contains("&quot;projectId&quot;"));
    let raw = reader.get(&format!("{base}{page}/body")).await;
    assert_eq!((raw.status, raw.header("content-type")), (200, Some("text/plain; charset=utf-8")));
}

#[tokio::test]
async fn a_hidden_type_is_nowhere() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let own = things(app.caller(), &receiver, Some("p")).await;
    let body = json!({"type": "note.created", "data": {}, "projectId": "p"});
    let event = text(&app.post("/v1/events", body).await.data(202), "id");
    let hidden = text(&app.delivery_ended(&event, "delivered").await, "id");
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p", "eventTypes": ["post.created"]})).await;
    for (path, page) in all_pages(&customer, &base, &[]).await {
        assert!(!page.contains("note.created") && !page.contains(&hidden), "{path}: {page}");
    }
    assert_eq!(customer.get(&format!("{base}/events/post.created")).await.status, 200);
    let fields =
        |name| [("once", "t"), ("name", "A"), ("url", "https://hooks.example.com/"), ("events", name), ("event", name)];
    let same = async |path: &str| {
        let [hidden, unknown] = ["note.created", "none.created"];
        let get = async |name: &str| customer.get(&format!("{base}{}", path.replace("{name}", name))).await;
        (get(hidden).await, get(unknown).await)
    };
    for path in ["/events/{name}", "/endpoints?event={name}", "/deliveries?eventType={name}"] {
        let (hidden, unknown) = same(path).await;
        assert_eq!(hidden.status, unknown.status, "{path}");
        assert_eq!(hidden.text().replace("note.created", ""), unknown.text().replace("none.created", ""), "{path}");
    }
    let endpoint = format!("{base}/endpoints/{}", own.endpoint);
    for path in [format!("{base}/endpoints/new"), format!("{endpoint}/edit"), format!("{endpoint}/test")] {
        let hidden = customer.post(&path, &fields("note.created")).await;
        let unknown = customer.post(&path, &fields("none.created")).await;
        assert_eq!((hidden.status, unknown.status), (400, 400), "{path}: {}", hidden.text());
        assert!(!hidden.text().contains("job.failed"), "{path} names other types");
    }
    for path in ["", "/body"] {
        assert_eq!(customer.get(&format!("{base}/deliveries/{hidden}{path}")).await.status, 404, "{path}");
    }
    assert_eq!(customer.post(&format!("{base}/deliveries/{hidden}/retry"), &[("once", "t")]).await.status, 404);
    // An endpoint keeps the hidden types that it had.
    let edit = [("name", "B"), ("url", receiver.url("/hook").as_str()), ("events", "post.created")]
        .map(|(a, b)| (a, b.to_owned()));
    let edit: Vec<(&str, &str)> = edit.iter().map(|(name, value)| (*name, value.as_str())).collect();
    customer.send(&format!("{endpoint}/edit"), &edit).await;
    let stored = app.get(&format!("/v1/webhook-endpoints/{}", own.endpoint)).await.data(200);
    assert_eq!((&stored["name"], stored["events"].as_array().unwrap().len()), (&json!("B"), 2), "{stored}");
}

#[tokio::test]
async fn a_customer_learns_nothing_about_the_network() {
    let app = App::set_up().await.allow("127.0.0.0/8").real_time().start().await;
    let receiver = Receiver::start().await;
    app.dns().set(PUBLIC_HOST, Answer::addresses(&["127.0.0.1"]));
    // It speaks no TLS, and the host name leads inside.
    let url = receiver.url_at(PUBLIC_HOST, "/hook").replace("http:", "https:");
    let body = json!({"name": "A", "url": url, "events": ["post.created"], "projectId": "p", "rateLimit": 7, "ordering": "strict"});
    let endpoint = app.endpoint(body).await;
    let event = app.post("/v1/events", json!({"type": "post.created", "data": {}, "projectId": "p"})).await.data(202);
    let delivery = text(&app.attempted(&text(&event, "id"), 1).await, "id");
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let page = customer.page(&format!("{base}/deliveries/{delivery}")).await;
    assert!(page.contains("The TLS handshake failed"), "{page}");
    for (path, page) in all_pages(&customer, &base, &[]).await {
        for word in ["127.0.0.1", "proxy", "Proxy", "Address", "7 a second", "/v1/", "Audit", "every project"] {
            assert!(!page.contains(word), "{path} holds {word}: {page}");
        }
    }
    let page = customer.page(&format!("{base}/endpoints/{}", endpoint.id)).await;
    assert!(!page.contains("strict") && !page.contains("Project"), "{page}");
    app.dns().set("inside.example.com", Answer::addresses(&["10.1.2.3"]));
    let form = [("once", "t"), ("name", "A"), ("url", "https://inside.example.com/"), ("events", "post.created")];
    let refused = customer.post(&format!("{base}/endpoints/new"), &form).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("inside.example.com may not be called"), "{}", refused.text());
    assert!(!refused.text().contains("private network") && !refused.text().contains("10.1.2.3"), "{}", refused.text());
}

#[tokio::test]
async fn no_get_of_the_portal_changes_anything() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    things(app.caller(), &receiver, Some("p")).await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let audit = app.caller_of("Acme", &[Scope::AuditRead]).await;
    let entries = async || audit.get("/v1/audit-log").await.data(200).as_array().map(Vec::len);
    let before = entries().await;
    let pages = all_pages(&customer, &base, &[]).await;
    assert!(pages.len() > 12, "{pages:?}");
    for (method, route) in routes().into_iter().filter(|(method, _)| *method == "POST") {
        let path = route.replace("{id}", "whe_0000000000000000").replace("{replay}", "rpl_0000000000000000");
        if !routes().contains(&("GET", route.clone())) && !route.starts_with("/deliveries/retry") {
            assert_eq!(customer.get(&format!("{base}{path}")).await.status, 405, "{method} {route}");
        }
    }
    assert_eq!(entries().await, before);
}

#[tokio::test]
async fn what_a_customer_does_is_audited_as_the_session() {
    let app = App::start().await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let form = [("once", "t"), ("name", "Mine"), ("url", "https://hooks.example.com/a"), ("events", "post.created")];
    // A double click makes one endpoint, of the session's project, and shows one secret.
    let path = format!("{base}/endpoints/new");
    let (first, second) = tokio::join!(customer.post(&path, &form), customer.post(&path, &form));
    assert_eq!((first.status, second.status), (200, 200), "{}", first.text());
    assert_eq!(super::endpoints::secret_in(first.text()), super::endpoints::secret_in(second.text()));
    let made = app.get("/v1/webhook-endpoints").await.data(200);
    assert_eq!((made.as_array().unwrap().len(), &made[0]["projectId"]), (1, &json!("p")), "{made}");
    let audit = app.caller_of("Acme", &[Scope::AuditRead]).await.get("/v1/audit-log").await.data(200);
    let entry = audit.as_array().unwrap().iter().find(|entry| entry["action"] == "endpoint.created");
    let session = base.rsplit('/').next().unwrap();
    assert_eq!(entry.map(|entry| entry["actor"]["id"].clone()), Some(Value::from(session)), "{audit}");
    // The same token of another session is another form.
    let (other, other_base) = Visitor::on_portal(&app, json!({"projectId": "q"})).await;
    let reply = other.post(&format!("{other_base}/endpoints/new"), &form).await;
    assert_eq!(reply.status, 200);
    assert_ne!(super::endpoints::secret_in(reply.text()), super::endpoints::secret_in(first.text()));
}
