//! The page that says why a signature does not verify.

use postrider_domain::access::Scope;

use crate::support::app::App;
use crate::support::visitor::{READS, Visitor};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const HEADERS: &str = "POST /hooks HTTP/1.1\r\nwebhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek\r\n\
    webhook-timestamp: 1614265330\r\nwebhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n";
const BODY: &str = "{\"test\": 2432232314}";

async fn checked(visitor: &Visitor, fields: &[(&str, &str)]) -> String {
    let reply = visitor.post("/dashboard/verify", fields).await;
    assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")), "{}", reply.text());
    reply.text().to_owned()
}

#[tokio::test]
async fn a_pasted_request_is_explained() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, READS).await;
    let empty = visitor.page("/dashboard/verify").await;
    assert!(empty.contains("type=\"password\"") && empty.contains("Nothing of it is stored"), "{empty}");

    let right = checked(&visitor, &[("headers", HEADERS), ("body", BODY), ("secret", SECRET)]).await;
    assert!(right.contains("The signature fits. Only the time is refused."), "{right}");
    assert!(right.contains("The request is ") && right.contains(" days old."), "{right}");

    let whole = format!("{HEADERS}\r\n{BODY}");
    let pasted = checked(&visitor, &[("headers", &whole), ("body", ""), ("secret", SECRET)]).await;
    assert!(pasted.contains("The signature fits. Only the time is refused."), "{pasted}");

    let changed = "{\r\n  \"test\": 2432232314\r\n}";
    let parsed = checked(&visitor, &[("headers", HEADERS), ("body", changed), ("secret", SECRET)]).await;
    assert!(parsed.contains("It does not verify, and the cause is known."), "{parsed}");
    assert!(parsed.contains("a space after commas and colons") && parsed.contains("express.raw"), "{parsed}");

    let quoted = checked(&visitor, &[("headers", HEADERS), ("body", BODY), ("secret", "'whe_a1b2c3d4e5f6g7h8'")]).await;
    assert!(quoted.contains("This is an id.") && quoted.contains("nothing could be compared"), "{quoted}");
}

#[tokio::test]
async fn what_was_pasted_comes_back_as_text_and_is_kept_nowhere() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, READS).await;
    let hostile = "</textarea><script>alert(1)</script>\t\u{202e}";
    let page = checked(
        &visitor,
        &[("headers", hostile), ("body", hostile), ("secret", "\"><b>"), ("computed", "\"><i>"), ("otherSecret", "x")],
    )
    .await;
    assert!(!page.contains("<script>alert") && !page.contains("\"><b>") && !page.contains("<i>"), "{page}");
    assert!(page.contains("&lt;/textarea>&lt;script>alert(1)&lt;/script>&#9;&#8238;"), "{page}");
    let audit = app.caller_of("Acme", &[Scope::AuditRead]).await.get("/v1/audit-log").await;
    assert!(audit.status == 200 && !audit.text().contains("verify"), "{}", audit.text());
    let fresh = visitor.page("/dashboard/verify").await;
    assert!(!fresh.contains("alert(1)"), "{fresh}");

    let large = "x".repeat(1024 * 1024);
    let refused = visitor.post("/dashboard/verify", &[("body", &large)]).await;
    assert_eq!(refused.status, 413, "{}", refused.text());
}
