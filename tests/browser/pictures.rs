//! The pictures of the documents: a workspace as an operator has one, and the portal inside a product. They are written
//! to `target/browser/pictures/`; `just pictures` makes them small and puts them into `docs/images/`.

use std::time::Duration;

use postrider_domain::portal::FrameAncestor;
use serde_json::{Value, json};

use crate::support::desk::Desk;
use crate::support::server::app::text;
use crate::support::server::dns::Answer as Addresses;
use crate::support::server::receiver::{Answer, Receiver};
use crate::support::server::tls::TestCa;
use crate::support::tab::{Tab, View};

const TYPES: [&str; 4] = ["post.created", "post.updated", "job.completed", "note.created"];
const PROJECT: &str = "proj_a1b2";
const HOSTS: [&str; 3] = ["crm.example.com", "search.example.com", "erp.example.com"];
/// The minutes that the charts show.
const MINUTES: usize = 58;

/// A workspace that is an hour old, and a product that shows the portal.
struct Scene {
    desk: Desk,
    shop: Receiver,
    /// Of [`HOSTS`]. The last one fails in the end.
    receivers: Vec<Receiver>,
    _files: tempfile::TempDir,
}

impl Scene {
    async fn open() -> Option<Self> {
        let (ca, files) = (TestCa::new(), tempfile::tempdir().expect("a directory"));
        let mut receivers = Vec::new();
        for host in HOSTS {
            receivers.push(Receiver::start_tls(&ca.leaf(&[host])).await);
        }
        let ca_file = files.path().join("ca.pem");
        std::fs::write(&ca_file, ca.pem()).expect("a file");
        // On the host of the server, so that a frame over plain http keeps its cookie.
        let shop = Receiver::start().await;
        let ancestor = FrameAncestor::parse(shop.url("/").trim_end_matches('/')).expect("an origin");
        let desk = Desk::open_with(|settings| {
            settings.ca_file = Some(ca_file);
            settings.portal.frame_ancestors = vec![ancestor];
        });
        let desk = desk.await?;
        for host in HOSTS {
            desk.app.dns().set(host, Addresses::addresses(&["127.0.0.1"]));
        }
        let scene = Self { desk, shop, receivers, _files: files };
        scene.pass_an_hour().await;
        Some(scene)
    }

    async fn endpoint(&self, name: &str, receiver: usize, path: &str, more: Value) -> String {
        let url = self.receivers[receiver].url_at(HOSTS[receiver], path);
        let mut body = json!({"name": name, "url": url, "events": TYPES, "projectId": PROJECT});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.desk.app.endpoint(body).await.id
    }

    /// Events of each minute, and their outcomes. In the end a receiver begins to fail.
    async fn pass_an_hour(&self) {
        let app = &self.desk.app;
        let healthy = [
            self.endpoint("CRM", 0, "/webhooks", json!({})).await,
            self.endpoint("Search index", 1, "/hooks/posts", json!({"ordering": "strict"})).await,
        ];
        self.endpoint("ERP", 2, "/api/inbox", json!({})).await;
        for minute in 0..MINUTES {
            if minute == MINUTES - 14 {
                let body = r#"{"error": "maintenance", "until": "13:30"}"#;
                let answer = Answer::status(503).header("content-type", "application/json").body(body);
                self.receivers[2].otherwise(answer);
            }
            let count = [3, 5, 4, 7, 6, 9, 5, 4][minute % 8] + minute / 12;
            let event = |at: usize| {
                let id = format!("post_{}", minute * 16 + at);
                let data = json!({"id": id, "title": "Spring catalogue", "author": "editorial"});
                let event_type = TYPES[(minute + at) % TYPES.len()];
                json!({"type": event_type, "data": data, "externalId": format!("{id}-1"), "projectId": PROJECT})
            };
            let events: Vec<Value> = (0..count).map(event).collect();
            app.post("/v1/events/batch", json!({ "events": events })).await.data(202);
            for endpoint in &healthy {
                let pending = format!("status=pending&endpointId={endpoint}&limit=1");
                app.deliveries_when(&pending, "have arrived", |waiting| waiting.is_empty()).await;
            }
            self.receivers[2].wait_until("nothing under way", |counts| counts.under_way == 0).await;
            app.clock().advance(Duration::from_mins(1));
        }
    }

    /// The product's page with the portal in a frame.
    async fn show_in_product(&self, link: &str) {
        let page = format!(
            "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Webhooks · Example app</title><link rel=icon href=data:,>
            <style>body {{ margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1d2430; background: #f4f5f8; display: grid;
                grid-template-columns: 220px 1fr; min-height: 100vh }}
            nav {{ background: #22304a; color: #dfe6f3; padding: 24px }} nav b {{ display: block; margin-bottom: 24px; color: #fff }}
            nav p {{ margin: 0 0 12px }} nav .here {{ color: #fff; font-weight: 600 }} main {{ padding: 24px 32px }}
            h1 {{ font-size: 24px; margin: 0 0 16px }} iframe {{ width: 100%; height: 660px; border: 0; border-radius: 8px; background: #fff }}
            </style><nav><b>Example app</b><p>Posts<p>Jobs<p>Team<p class=here>Webhooks</nav>
            <main><h1>Webhooks</h1><iframe title=Webhooks src={link:?}></iframe></main></html>"
        );
        self.shop.otherwise(Answer::status(200).header("content-type", "text/html; charset=utf-8").body(page));
    }
}

/// Leaves the ports of this run out of what is seen, so that a picture changes only with its page.
async fn photograph(tab: &Tab, name: &str) {
    let tidy = r"(() => { const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) walk.currentNode.data = walk.currentNode.data.replace(/(example\.com):\d+/g, '$1');
        document.activeElement?.blur(); scrollTo(0, 0); })()";
    // Each document of the tab, that of a frame too.
    for created in tab.events().named("Runtime.executionContextCreated", 0) {
        let params = json!({"expression": tidy, "contextId": created["context"]["id"]});
        // Documents that have gone answer with an error.
        drop(tab.try_call("Runtime.evaluate", params).await);
    }
    tab.picture_of(&format!("pictures/{name}"), 800).await;
}

#[tokio::test]
async fn the_pictures_of_the_documents_show_their_pages() {
    let Some(scene) = Scene::open().await else { return };
    let tab = scene.desk.visitor(View::WIDE).await;
    tab.go(&scene.desk.url("/dashboard?period=1h")).await;
    let page = tab.text("document.querySelector('main').innerText").await;
    assert!(page.contains("ERP") && page.contains("paused"), "{page}");
    photograph(&tab, "dashboard").await;

    let failing = scene.desk.app.deliveries("status=pending&outcome=http_error&limit=50").await;
    let oldest = failing.last().map(|delivery| text(delivery, "id")).expect("a delivery that failed");
    tab.go(&scene.desk.url(&format!("/dashboard/deliveries/{oldest}"))).await;
    assert!(tab.text("document.querySelector('#answer').innerText").await.contains("paused"));
    photograph(&tab, "delivery").await;

    let body = json!({"projectId": PROJECT});
    let link = text(&scene.desk.caller.post("/v1/portal-sessions", body).await.data(200), "url");
    scene.show_in_product(&link).await;
    let shop = scene.desk.browser.tab(View::WIDE).await;
    shop.go(&scene.shop.url("/")).await;
    let base = link.split("/open").next().expect("a base").to_owned();
    let is_portal = |params: &Value| {
        let response = &params["response"];
        response["status"] == 200 && response["url"].as_str().is_some_and(|url| url.starts_with(&format!("{base}/?")))
    };
    shop.events().wait("Network.responseReceived", 0, is_portal).await;
    photograph(&shop, "portal").await;
    assert_eq!([tab.console(), shop.console()], [const { Vec::<String>::new() }; 2]);
}
