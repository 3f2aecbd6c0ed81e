//! How the portal reads: its languages, and what links keep of the URL.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::portal_walls::all_pages;
use crate::support::app::{App, text};
use crate::support::receiver::{Answer, Receiver};
use crate::support::visitor::{Visitor, attributes, browser, path_of, portal_link};

/// Words that are the same in both languages, and texts that are not ours.
const SAME: &[&str] = &[
    "Name",
    "URL",
    "replaces",
    "TLS",
    "Rest",
    "24 h",
    "JavaScript",
    "Python",
    "Go",
    "By hand",
    "Axum",
    "Express",
    "Flask",
    "Rails",
    "Spring",
    "whe_…",
    "evt_…",
    "JSON",
    "v1",
    "v1a",
    "English",
    "HTTP/1.1",
    "string",
    "null",
    "array",
    "object",
    "integer",
    "boolean",
    "number",
    "failed",
    "Filter",
];

/// The texts of a page and of its labels, without code, times and what the reader typed.
fn texts(page: &str) -> BTreeSet<String> {
    let mut page = page.to_owned();
    for tag in ["code", "pre", "time", "script", "textarea"] {
        while let Some(start) = page.find(&format!("<{tag}>")).or_else(|| page.find(&format!("<{tag} "))) {
            let end = page[start..].find(&format!("</{tag}>")).map_or(page.len(), |at| start + at + tag.len() + 3);
            page.replace_range(start..end, " ");
        }
    }
    let nodes = page.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text.to_owned());
    let labels = [
        "aria-label",
        "data-label",
        "placeholder",
        "data-copied",
        "data-select",
        "data-ended-text",
        "data-signed-out",
        "data-upgraded",
    ];
    let labels = labels.iter().flat_map(|name| attributes(&page, name)).map(str::to_owned);
    let texts: Vec<String> = nodes.chain(labels).map(|text| text.trim().to_owned()).collect();
    // Three letters in a row are a word.
    let is_word = |text: &String| text.as_bytes().windows(3).any(|pair| pair.iter().all(u8::is_ascii_alphabetic));
    texts.into_iter().filter(is_word).collect()
}

/// A project with an endpoint that fails and one that is off. Returns their ids.
async fn endpoints(app: &App, receiver: &Receiver) -> [String; 2] {
    receiver.then(Answer::status(503).body("oops"));
    let body = json!({"name": "Kasse", "url": receiver.url("/hook"), "events": ["post.created"], "projectId": "p",
        "headers": {"x-token": "1"}, "signatureSchemes": ["v1", "v1a"]});
    let endpoint = app.endpoint(body).await.id;
    let off = json!({"name": "Kasse", "url": receiver.url("/off"), "events": ["post.created"], "projectId": "p"});
    let off = app.endpoint(off).await.id;
    let path = format!("/v1/webhook-endpoints/{off}");
    app.caller().patch(&path, json!({"isActive": false})).await.data(200);
    let event = json!({"type": "post.created", "data": {"id": 1}, "projectId": "p"});
    let event = text(&app.post("/v1/events", event).await.data(202), "id");
    let of_endpoint = format!("eventId={event}&endpointId={endpoint}");
    app.deliveries_when(&of_endpoint, "was tried", |it| it.iter().any(|delivery| delivery["attemptCount"] == 1)).await;
    let replay = json!({"since": "2020-01-01T00:00:00Z", "statuses": ["failed"]});
    app.post(&format!("/v1/webhook-endpoints/{endpoint}/replay"), replay).await.data(202);
    [endpoint, off]
}

/// Every page that a customer can come to, those of faults too.
async fn pages(app: &App, customer: &Visitor, base: &str, [endpoint, off]: &[String; 2]) -> Vec<(String, String)> {
    let at = |path: &str| format!("{base}{path}");
    let start =
        [at("/nowhere"), at("/deliveries?status=skipped"), at("/deliveries?period=x"), at("/endpoints?event=x")];
    let mut seen = all_pages(customer, base, &start).await;
    let here = format!("/endpoints/{endpoint}");
    let forms: [(String, &[(&str, &str)]); 7] = [
        (
            at("/endpoints/new"),
            &[("name", "Kasse"), ("url", "http://x"), ("once", "t"), ("retrySchedule", "x"), ("timeoutSeconds", "0")],
        ),
        (at(&format!("{here}/delete")), &[("name", "x")]),
        (at(&format!("{here}/replay")), &[("since", "2020-01-01T00:00"), ("statuses", "failed"), ("once", "t")]),
        (at(&format!("{here}/replay")), &[("since", "x"), ("once", "t")]),
        (at(&format!("{here}/secret")), &[("once", "t")]),
        (at("/deliveries/retry"), &[]),
        (
            at(&format!("/endpoints/{off}/replay")),
            &[("since", "2020-01-01T00:00"), ("statuses", "skipped"), ("once", "s"), ("start", "y")],
        ),
    ];
    for (path, fields) in forms {
        seen.push((format!("POST {path}"), customer.post(&path, fields).await.text().to_owned()));
    }
    for (index, fields) in pasted().iter().enumerate() {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let checked = customer.post(&at("/verify"), &fields).await;
        assert_eq!(checked.status, 200, "{}", checked.text());
        seen.push((format!("POST {base}/verify {index}"), checked.text().to_owned()));
    }
    for path in ["/nowhere", "/verify", "/deliveries?period=x", &format!("{here}/secret")] {
        seen.push((path.to_owned(), customer.get(&at(path)).await.text().to_owned()));
    }
    seen.push(("/ended".to_owned(), browser(app).get(&at("/ended")).await.text().to_owned()));
    seen.push(("/no-cookie".to_owned(), browser(app).get(&at("/no-cookie")).await.text().to_owned()));
    seen
}

/// Requests for the page that explains why a signature does not verify: one for each kind of answer.
fn pasted() -> Vec<Vec<(&'static str, String)>> {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (id, time) = ("webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek\r\n", "webhook-timestamp: 1614265330\r\n");
    let signature = "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n";
    let head = format!("POST /hooks HTTP/1.1\r\n{id}{time}{signature}");
    let body = "{\"test\": 2432232314}";
    let form = |headers: &str, body: &str, secret: &str, more: &[(&'static str, &str)]| {
        let fields = [("headers", headers), ("body", body), ("secret", secret)];
        fields.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    vec![
        form(&head, body, secret, &[]),
        form(&head, "{\n  \"test\": 2432232314\n}", secret, &[]),
        form(&head, "{\"other\": 1}", secret, &[]),
        form(&head, "", secret, &[]),
        form(&head, body, "'whe_a1b2c3d4e5f6g7h8'", &[]),
        form(&head, body, "", &[]),
        form(&head, body, "whsec_", &[]),
        form(&head, body, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", &[("otherSecret", secret)]),
        form(&format!("{id}{time}"), body, secret, &[]),
        form(&format!("{id}webhook-timestamp: 1614265330000\r\n{signature}"), body, secret, &[]),
        form(&format!("{id}{time}webhook-signature: sha256=abcdef\r\n"), body, secret, &[]),
        form(&head, body, secret, &[("computed", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")]),
        form(&head, body, secret, &[("computed", "v1;abc")]),
    ]
}

/// Whether a text is none of ours: what others chose, and words that are the same in both languages.
fn is_foreign(text: &str, types: &Value) -> bool {
    // Code is left out of the texts of a page.
    let described = |event: &Value| {
        let parts = event["description"].as_str().unwrap_or_default().split('`').enumerate();
        let words: Vec<&str> = parts.map(|(index, part)| if index % 2 == 0 { part } else { " " }).collect();
        words.concat().trim().to_owned()
    };
    let is_of_type = types
        .as_array()
        .unwrap()
        .iter()
        .any(|event| described(event) == text || event["name"].as_str().is_some_and(|name| text.contains(name)));
    let starts = ["http", "Rest ", "string"];
    let parts = ["Kasse", "Scripe", "_"];
    is_of_type
        || SAME.contains(&text)
        || starts.iter().any(|start| text.starts_with(start))
        || parts.iter().any(|part| text.contains(part))
}

#[tokio::test]
async fn every_page_of_the_portal_is_in_german_too() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let ids = endpoints(&app, &receiver).await;
    let types = app.get("/v1/event-types").await.data(200);
    let mut seen = Vec::new();
    for locale in ["en", "de"] {
        let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p", "locale": locale})).await;
        let pages = pages(&app, &customer, &base, &ids).await;
        assert!(pages.len() > 25, "{}", pages.len());
        assert!(pages.iter().all(|(_, page)| page.contains(&format!("<html lang=\"{locale}\""))));
        seen.push(pages.into_iter().map(|(path, page)| (path.replace(&base, ""), texts(&page))).collect::<Vec<_>>());
    }
    let english: BTreeSet<&String> = seen[0].iter().flat_map(|(_, texts)| texts).collect();
    let mut left = BTreeSet::new();
    for (path, texts) in &seen[1] {
        for text in texts.iter().filter(|text| english.contains(text) && !is_foreign(text, &types)) {
            left.insert(format!("{path}: {text}"));
        }
    }
    assert!(left.is_empty(), "in English on a German page:\n{}", left.into_iter().collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn without_a_locale_the_browser_decides() {
    let app = App::start().await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    for (header, lang) in [("de-AT,de;q=0.9,en;q=0.5", "de"), ("fr, en-GB", "en"), ("fr", "en"), ("fr,de", "de")] {
        let page = customer.with("accept-language", header).page(&base).await;
        assert!(page.contains(&format!("<html lang=\"{lang}\">")), "{header}: {page}");
    }
    let (fixed, base) = Visitor::on_portal(&app, json!({"projectId": "p", "locale": "en"})).await;
    assert!(fixed.with("accept-language", "de").page(&base).await.contains("<html lang=\"en\">"));
}

#[tokio::test]
async fn links_and_forms_keep_the_look_of_the_url() {
    let app = App::start().await;
    let body = json!({"name": "A", "url": "https://hooks.example.com/", "events": ["post.created"], "projectId": "p"});
    app.endpoint(body).await;
    let link = portal_link(&app, json!({"projectId": "p", "theme": "dark"})).await;
    let opened = browser(&app).get(&format!("{}&gutters=0&nav=0", path_of(&link))).await;
    let base = path_of(&link).split("/open").next().unwrap().to_owned();
    let location = opened.header("location").unwrap().split('#').next().unwrap();
    assert_eq!(location, format!("{base}/?gutters=0&nav=0&opened=1"));
    let (customer, _) = Visitor::at_link(&app, &link).await;
    let mut open: Vec<String> =
        ["/", "/deliveries", "/events"].map(|path| format!("{base}{path}?gutters=0&nav=0")).to_vec();
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        assert!(path.contains("gutters=0&nav=0") && path.matches("nav=0").count() == 1, "{path}");
        let page = customer.page(&path).await;
        assert!(page.contains("data-theme=\"dark\"") && page.contains("<body class=\"flush\""), "{path}: {page}");
        assert!(!page.contains("<nav class=\"sections\""), "{path}");
        let targets = [attributes(&page, "href"), attributes(&page, "action")].concat();
        let targets = targets.into_iter().filter(|target| target.starts_with(&base));
        let targets: Vec<String> = targets.map(|it| it.split('#').next().unwrap().replace("&amp;", "&")).collect();
        for form in page.split("<form").skip(1) {
            let form = form.split("</form>").next().unwrap();
            let keeps = form.contains("method=\"post\"") || form.contains("name=\"nav\" value=\"0\"");
            assert!(keeps, "{path}: {form}");
        }
        open.extend(
            targets.into_iter().filter(|it| !page.contains(&format!("action=\"{}\"", it.replace('&', "&amp;")))),
        );
    }
    assert!(seen.len() > 10, "{seen:?}");
    let off = seen.iter().find(|path| path.contains("/edit")).unwrap().replace("/edit", "/off");
    let done = customer.send(&off, &[]).await;
    assert!(done.contains("done=disabled") && done.contains("gutters=0&nav=0"), "{done}");
}
