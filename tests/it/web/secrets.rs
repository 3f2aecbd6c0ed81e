//! What is shown once.

use postrider_domain::access::Scope;

use super::endpoints::secret_in;
use crate::support::app::{App, PUBLIC_HOST};
use crate::support::visitor::{Visitor, hidden};

#[tokio::test]
async fn a_double_click_rotates_once_and_the_secret_is_shown_once() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, &[Scope::Dashboard, Scope::WebhooksManage]).await;
    let endpoint = app.endpoint_at(&format!("https://{PUBLIC_HOST}/"), &["post.created"]).await;
    let (form, secret) = (
        format!("/dashboard/endpoints/{}/rotate", endpoint.id),
        format!("/dashboard/endpoints/{}/secret", endpoint.id),
    );
    let page = visitor.page(&form).await;
    let fields = [("once", hidden(&page, "once")), ("replaces", hidden(&page, "replaces")), ("overlapSeconds", "3600")];
    let (first, second) = tokio::join!(visitor.post(&secret, &fields), visitor.post(&secret, &fields));
    assert_eq!((first.status, second.status), (200, 200), "{}", second.text());
    let made = secret_in(first.text());
    assert_eq!(secret_in(second.text()), made, "the second click shows the same secret");
    assert_ne!(made, endpoint.secret);
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let again = visitor.get(&secret).await;
    assert_eq!(again.status, 410);
    assert!(again.text().contains("/rotate") && !again.text().contains("whsec_"), "{}", again.text());
    assert!(app.files_holding(made.as_bytes()).is_empty(), "the plaintext is on disk");
    // Another form for the same secret, opened before: it means to replace what is not there any more.
    let late = [("once", "another"), ("replaces", fields[1].1)];
    assert_eq!(visitor.post(&secret, &late).await.status, 409);
    assert_eq!(visitor.post(&secret, &[("overlapSeconds", "0")]).await.status, 400, "a form without its token");
}
