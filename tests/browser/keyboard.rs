//! The whole way with the keyboard alone: sign in, find out why an endpoint fails, retry, rotate its secret, show the
//! portal.

use crate::support::desk::Desk;
use crate::support::tab::{Loaded, Tab, View};

/// Presses Tab until the focus is on an element that matches.
async fn reach(tab: &Tab, selector: &str) {
    for _ in 0..200 {
        tab.press("Tab").await;
        if tab.eval(&format!("document.activeElement?.matches({selector:?}) ?? false")).await == true {
            return;
        }
    }
    panic!("no {selector} within 200 stops of {}", tab.text("location.href").await);
}

/// Reaches a link or a button, presses Enter, and waits for the next page.
async fn enter(tab: &Tab, selector: &str) -> Loaded {
    reach(tab, selector).await;
    tab.go_by(tab.press("Enter")).await
}

/// What stands in the main part, which a reader comes to by the link that skips the bar.
async fn content(tab: &Tab) -> String {
    tab.text("document.querySelector('main').innerText").await
}

#[tokio::test]
async fn the_keyboard_alone_leads_from_a_failure_to_the_portal() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let failed = desk.delivery(&format!("endpointId={}&eventId={}", world.failing.id, world.event)).await;
    for view in [View::WIDE, View::NARROW.without_script()] {
        let tab = desk.browser.tab(view).await;
        tab.go(&desk.url("/dashboard")).await;
        reach(&tab, "input[name=key]").await;
        tab.write(&desk.key).await;
        let inside = tab.go_by(tab.press("Enter")).await;
        assert_eq!((inside.status, inside.url), (200, desk.url("/dashboard")));

        // Why does it fail?
        enter(&tab, "header nav a[href$='/endpoints']").await;
        enter(&tab, &format!("main a[href$='/endpoints/{}']", world.failing.id)).await;
        assert!(content(&tab).await.contains("failed"), "{}", content(&tab).await);
        enter(&tab, &format!("#deliveries a[href$='/deliveries/{failed}']")).await;
        let delivery = content(&tab).await;
        assert!(delivery.contains("503"), "{delivery}");
        let retried = enter(&tab, "form[action$='/retry'] button").await;
        assert!(retried.url.ends_with("?done=retried"), "{}", retried.url);
        assert!(tab.text("document.querySelector('[role=status]').innerText").await.contains("Queued again"));

        // Rotate its secret.
        enter(&tab, &format!("main a[href$='/endpoints/{}']", world.failing.id)).await;
        enter(&tab, "main a[href$='/rotate']").await;
        enter(&tab, "main form button.primary").await;
        assert!(tab.text("document.querySelector('.secret .copy-text').textContent").await.starts_with("whsec_"));
        if view.script {
            reach(&tab, ".secret [data-copy]").await;
            tab.watch_label(".secret [data-copy]").await;
            tab.press(" ").await;
            tab.said_copied().await;
        }
        enter(&tab, "main .actions a.primary").await;

        // Show the portal.
        enter(&tab, "header nav a[href$='/portal-embed']").await;
        reach(&tab, "#field-projectId").await;
        tab.write("proj_demo").await;
        let shown = tab.go_by(tab.press("Enter")).await;
        assert_eq!(shown.status, 200);
        tab.when("document.querySelector('iframe.preview').contentDocument?.readyState === 'complete'").await;
        reach(&tab, "iframe.preview").await;
        let within = "document.querySelector('iframe.preview').contentDocument.activeElement.closest('a')?.hash";
        assert_eq!(tab.text(within).await, "#content", "the first stop in the frame skips its bar");
        tab.go(&desk.url("/dashboard")).await;
        let outside = enter(&tab, ".sign-out button").await;
        assert!(outside.url.ends_with("/dashboard/login"), "{}", outside.url);
        assert_eq!(tab.console(), [""; 0]);
    }
}
