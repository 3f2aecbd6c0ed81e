//! A visitor of the dashboard or of a portal: signs in with a key or opens a link, keeps the cookie, and sends forms as
//! a browser does.

use http::Method;
use postrider_domain::access::{Mode, Scope};

use serde_json::Value;

use super::app::{App, text};
use super::caller::{Caller, Opened, Reply};

/// What an operator's sign-in may do.
pub const EVERYTHING: &[Scope] = &[
    Scope::Dashboard,
    Scope::WebhooksManage,
    Scope::WebhooksRead,
    Scope::EventsWrite,
    Scope::EventsRead,
    Scope::KeysManage,
    Scope::AuditRead,
    Scope::PortalCreate,
];

/// What a sign-in that changes nothing may do.
pub const READS: &[Scope] = &[Scope::Dashboard, Scope::WebhooksRead, Scope::EventsRead];

pub struct Visitor(Caller);

impl Visitor {
    /// Signs in to the workspace `Acme`.
    pub async fn of(app: &App, scopes: &[Scope]) -> Self {
        let key = app.create_key("Acme", Mode::Live, scopes, None).await;
        Self::with_key(app, key.secret.reveal()).await
    }

    pub async fn with_key(app: &App, key: &str) -> Self {
        let form = form(&[("key", key)]);
        let browser = browser(app);
        let signed_in = browser.send(Method::POST, "/dashboard/login", form).await;
        assert_eq!(signed_in.status, 303, "{}", signed_in.text());
        Self(browser.with("cookie", cookie_of(&signed_in)))
    }

    /// Opens the link of a portal session. Also returns the start of its paths.
    pub async fn at_link(app: &App, link: &str) -> (Self, String) {
        let browser = browser(app);
        let opened = browser.get(&path_of(link)).await;
        assert_eq!(opened.status, 303, "{}", opened.text());
        let base = path_of(link).split("/open").next().expect("a path").to_owned();
        (Self(browser.with("cookie", cookie_of(&opened))), base)
    }

    /// A customer on the portal: opens a new session with these members.
    pub async fn on_portal(app: &App, body: Value) -> (Self, String) {
        Self::at_link(app, &portal_link(app, body).await).await
    }

    /// Sends another header, or another value of it.
    pub fn with(&self, name: &str, value: &str) -> Self {
        Self(self.0.with(name, value))
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.0.get(path).await
    }

    /// A stream, or why there is none.
    pub async fn try_stream(&self, path: &str) -> Opened {
        self.0.open(path).await
    }

    /// A stream that must be there.
    pub async fn stream(&self, path: &str) -> Opened {
        let opened = self.try_stream(path).await;
        assert_eq!(opened.head.status, 200, "{path}");
        opened
    }

    /// A page that must be there.
    pub async fn page(&self, path: &str) -> String {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.text().to_owned()
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.0.send(Method::POST, path, form(fields)).await
    }

    /// Sends a form that must be taken. Returns where it leads.
    pub async fn send(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let reply = self.post(path, fields).await;
        assert_eq!(reply.status, 303, "{path}: {}", reply.text());
        reply.header("location").expect("a location").to_owned()
    }

    /// Sends the form of a page whose action is `path`, with its hidden fields and these.
    pub async fn submit(&self, page: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        let form = page.split("<form").find(|form| form.contains(&format!("action=\"{path}\"")));
        let form = form.unwrap_or_else(|| panic!("no form to {path} in {page}"));
        let form = form.split("</form>").next().unwrap_or_default();
        let hidden = form
            .split("<input type=\"hidden\"")
            .skip(1)
            .map(|input| (attribute(input, "name"), attribute(input, "value")));
        let mut all: Vec<(&str, &str)> = hidden.collect();
        all.extend(fields);
        self.post(path, &all).await
    }
}

/// A browser without a cookie.
pub fn browser(app: &App) -> Caller {
    Caller::stranger(app.server().address())
        .with("content-type", "application/x-www-form-urlencoded")
        .with("sec-fetch-site", "same-origin")
}

/// The link of a new portal session of the workspace `Acme`.
pub async fn portal_link(app: &App, body: Value) -> String {
    let caller = app.caller_of("Acme", &[Scope::PortalCreate]).await;
    text(&caller.post("/v1/portal-sessions", body).await.data(200), "url")
}

/// Path and query of a URL.
pub fn path_of(url: &str) -> String {
    url.split('/').skip(3).fold(String::new(), |path, part| format!("{path}/{part}"))
}

/// Name and value of the cookie that an answer sets.
pub fn cookie_of(reply: &Reply) -> &str {
    reply.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie")
}

/// The value of the first attribute of this name.
pub fn attribute<'h>(html: &'h str, name: &str) -> &'h str {
    let start = format!(" {name}=\"");
    html.split_once(start.as_str()).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    form.finish()
}

/// The values of an attribute in a page.
pub fn attributes<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
    let start = format!(" {name}=\"");
    page.split(start.as_str()).skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect()
}

/// The value of a hidden field.
pub fn hidden<'p>(page: &'p str, name: &str) -> &'p str {
    let start = format!("name=\"{name}\" value=\"");
    let rest = page.split(start.as_str()).nth(1).unwrap_or_else(|| panic!("no field {name}"));
    rest.split('"').next().unwrap_or_default()
}
