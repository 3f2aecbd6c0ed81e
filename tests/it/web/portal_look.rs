//! The look of the portal: the style sheet and the logo of the settings.

use postrider_domain::portal_look::{Colour, PAGE_DARK, PAGE_LIGHT, PortalBrand, Radius};
use serde_json::json;

use crate::support::app::{App, Setup};
use crate::support::visitor::{Visitor, browser, cookie_of, path_of, portal_link};

const SVG: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";

fn with_logo(setup: Setup, bytes: &[u8]) -> Setup {
    setup.change(|settings| {
        let file = settings.data_dir.with_file_name("logo");
        std::fs::write(&file, bytes).unwrap();
        settings.portal.logo_file = Some(file);
    })
}

/// The value of the attribute that holds `part`.
fn url_with<'p>(page: &'p str, part: &str) -> &'p str {
    page.split('"').find(|text| text.contains(part)).unwrap_or_else(|| panic!("no {part} in {page}"))
}

#[tokio::test]
async fn the_settings_change_the_look_of_the_portal_alone() {
    let setup = App::set_up().await.change(|settings| {
        settings.public_url = Some("https://hooks.example.com/sub".to_owned());
        let look = &mut settings.portal.look;
        look.brand = PortalBrand::parse("Acme & Co.").ok();
        look.accent_light = Colour::parse_accent("#008000", PAGE_LIGHT).ok();
        look.accent_dark = Colour::parse_accent("#90ee90", PAGE_DARK).ok();
        look.radius = Radius::parse("6").ok();
    });
    let app = with_logo(setup, SVG.as_bytes()).start().await;
    let link = path_of(&portal_link(&app, json!({"projectId": "p"})).await);
    let opened = browser(&app).get(&link).await;
    let base = link.split("/open").next().unwrap();
    let page = browser(&app).with("cookie", cookie_of(&opened)).get(&format!("{base}/")).await.text().to_owned();
    assert!(page.contains("Acme &amp; Co.</title>"), "{page}");

    let style = browser(&app).get(url_with(&page, "/sub/portal/theme.")).await;
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    assert!(style.header("cache-control").unwrap().contains("immutable"));
    for rule in ["--accent-light: #008000;", "--accent-dark: #90ee90;", "--radius-m: 6px;"] {
        assert!(style.text().contains(rule), "{}", style.text());
    }
    let ended = browser(&app).get(&format!("{base}/ended")).await.text().to_owned();
    assert_eq!(url_with(&ended, "/portal/theme."), url_with(&page, "/portal/theme."), "pages without a session too");

    let dashboard = Visitor::of(&app, crate::support::visitor::READS).await.page("/dashboard").await;
    assert!(!dashboard.contains("/portal/theme.") && !dashboard.contains("Acme &amp; Co."), "{dashboard}");
}

#[tokio::test]
async fn a_logo_is_an_image_and_no_document() {
    let app = with_logo(App::set_up().await, SVG.as_bytes()).start().await;
    let link = path_of(&portal_link(&app, json!({"projectId": "p"})).await);
    let page = browser(&app).get(&format!("{}/ended", link.split("/open").next().unwrap())).await.text().to_owned();
    let path = url_with(&page, "/portal/logo.").to_owned();
    assert!(path.ends_with(".svg") && page.contains(&format!("<img src=\"{path}\" alt=\"\">")), "{page}");
    for asked in [browser(&app), browser(&app).with("sec-fetch-dest", "image")] {
        let logo = asked.get(&path).await;
        assert_eq!((logo.status, logo.text()), (200, SVG));
        assert_eq!(logo.header("content-type"), Some("image/svg+xml"));
        assert_eq!(logo.header("x-content-type-options"), Some("nosniff"));
        let policy = logo.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.ends_with("sandbox"), "{policy}");
    }
    for dest in ["document", "iframe", "object", "script"] {
        assert_eq!(browser(&app).with("sec-fetch-dest", dest).get(&path).await.status, 403, "{dest}");
    }
    assert!(!page.contains("/portal/theme."), "nothing else was set: {page}");
}

#[tokio::test]
async fn a_file_that_is_no_logo_stops_the_start() {
    for (bytes, fault) in [(&b"GIF89a"[..], "is neither a PNG nor an SVG"), (&[0; 65_537][..], "more than 65536 bytes")]
    {
        let error = with_logo(App::set_up().await, bytes).start_server().await.map(|_| ()).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(error.to_string().contains("--portal-logo") && cause.contains(fault), "{error}: {cause}");
    }
    let missing = App::set_up().await.change(|settings| settings.portal.logo_file = Some("/nowhere/logo.png".into()));
    let error = missing.start_server().await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the logo /nowhere/logo.png (--portal-logo)");
}
