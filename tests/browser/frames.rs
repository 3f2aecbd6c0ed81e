//! Pages in frames of other sites.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::server::receiver::{Answer, Receiver};
use crate::support::server::tls::TestCa;
use crate::support::tab::View;

/// The rules of the browser that the portal has to live with, so that a later release that changes them is noticed.
#[tokio::test]
async fn a_frame_of_another_site_gets_back_only_partitioned_cookies() {
    let Some(browser) = Browser::open().await else { return };
    let ca = TestCa::new();
    let framed = Receiver::start_tls(&ca.leaf(&["hooks.test"])).await;
    let page = Answer::status(200)
        .header("content-type", "text/html")
        .header("set-cookie", "plain=1; Secure; SameSite=None")
        .header("set-cookie", "kept=1; Secure; SameSite=None; Partitioned")
        .body("<!DOCTYPE html><title>Framed</title><link rel=icon href=data:,><p>Framed</p>");
    framed.otherwise(page);
    let shop = Receiver::start_tls(&ca.leaf(&["shop.test"])).await;
    let frame = format!("<iframe src={:?}></iframe>", framed.url_at("hooks.test", "/"));
    let page = Answer::status(200).header("content-type", "text/html");
    shop.otherwise(page.body(format!("<!DOCTYPE html><title>Shop</title><link rel=icon href=data:,>{frame}")));

    let tab = browser.tab(View::WIDE).await;
    tab.go(&shop.url_at("shop.test", "/")).await;
    tab.go(&shop.url_at("shop.test", "/again")).await;
    let inside = tab.frame(&framed.url_at("hooks.test", "/")).await;
    assert_eq!(inside.text("document.body.innerText").await, "Framed");
    let cookies: Vec<Option<String>> =
        framed.received().iter().map(|request| request.header("cookie").map(str::to_owned)).collect();
    assert_eq!(json!(cookies), json!([null, "kept=1"]));
}
