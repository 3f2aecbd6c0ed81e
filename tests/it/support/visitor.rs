//! A visitor of the dashboard: signs in with a key, keeps the cookie, and sends forms as a browser does.

use http::Method;
use postrider_domain::access::{Mode, Scope};

use super::app::App;
use super::caller::{Caller, Reply};

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
        let browser = Caller::stranger(app.server().address())
            .with("content-type", "application/x-www-form-urlencoded")
            .with("sec-fetch-site", "same-origin");
        let signed_in = browser.send(Method::POST, "/dashboard/login", form).await;
        assert_eq!(signed_in.status, 303, "{}", signed_in.text());
        let cookie = signed_in.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie");
        Self(browser.with("cookie", cookie))
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.0.get(path).await
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
