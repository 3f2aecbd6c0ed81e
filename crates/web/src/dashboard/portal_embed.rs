//! How to show the portal in a page of the product: what to send and what to paste, and a preview in a frame.
//!
//! This page alone shows another one of this server in a frame. Only sessions that it makes allow that.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

use postrider_domain::access::Mode;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::limits;
use postrider_domain::permission::{Capabilities, Capability, Permission};
use postrider_domain::portal::{FrameAncestor, Locale, PortalTerms, Theme};
use postrider_service::{CreatePortalSession, CreatedPortalSession};

use crate::answer::Framing;
use crate::components::field::{self, Choice, Faults, TextField};
use crate::components::{code, curl, icon};
use crate::failure::{self, Failure};
use crate::form::Fields;
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

const PATH: &str = "/portal-embed";

/// What the form asks for.
struct Wanted {
    project_id: Option<ProjectId>,
    theme: Theme,
    locale: Option<Locale>,
    is_read_only: bool,
    /// `None`: every origin of the setting.
    ancestors: Option<Vec<FrameAncestor>>,
}

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::PortalCreate)?;
    let mut faults = Faults::default();
    let form = visit.query.clone();
    let wanted = read(&visit, &form, &mut faults);
    let status = if faults.0.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Ok(page(visit, status, &form, &faults, &wanted, None))
}

/// Makes a session and shows it.
pub async fn create(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::PortalCreate)?;
    let form = Fields::read(body).await?;
    let mut faults = Faults::default();
    let wanted = read(&visit, &form, &mut faults);
    if wanted.project_id.is_none() && faults.0.is_empty() {
        faults.0.push(("projectId".to_owned(), "is needed: the portal shows one project".to_owned()));
    }
    let Some(project_id) = wanted.project_id.filter(|_| faults.0.is_empty()) else {
        return Ok(page(visit, StatusCode::BAD_REQUEST, &form, &faults, &wanted, None));
    };
    let create = CreatePortalSession {
        project_id,
        lasts: limits::PORTAL_SESSION_DEFAULT,
        terms: terms(&wanted),
        frame_ancestors: wanted.ancestors.clone(),
        // The link stays on this server, under whatever name the visitor knows it.
        portal_url: format!("{}/portal", visit.site.prefix),
    };
    let (service, principal) = (Arc::clone(visit.service()), visit.principal.clone());
    let made = once::finish(&visit, &form, sealed_link, |idempotent| async move {
        service.create_portal_session(&principal, create, &idempotent).await
    })
    .await;
    match made {
        Ok(sealed) => Ok(page(visit, StatusCode::OK, &form, &faults, &wanted, Some(&sealed))),
        Err(error) => match Faults::of(&error) {
            Some(faults) => Ok(page(visit, failure::status_of(&error), &form, &faults, &wanted, None)),
            None => Err(error.into()),
        },
    }
}

fn terms(wanted: &Wanted) -> PortalTerms {
    let capabilities = if wanted.is_read_only { &Capability::READ_ONLY[..] } else { &Capability::ALL[..] };
    PortalTerms {
        capabilities: Capabilities::of(capabilities),
        event_types: None,
        locale: wanted.locale,
        theme: wanted.theme,
        next: None,
        return_url: None,
        frame_ancestors: Vec::new(),
        is_preview: true,
    }
}

/// The answer that is kept sealed for a form that is sent twice.
fn sealed_link(made: &CreatedPortalSession) -> (u16, Bytes) {
    (200, Bytes::from(json!({"id": made.session.id.to_string(), "url": made.url}).to_string()))
}

fn read(visit: &Visit, form: &Fields, faults: &mut Faults) -> Wanted {
    let project_id = form.text("projectId").and_then(|text| faults.read("projectId", ProjectId::parse(text)));
    let ticked: Vec<&str> = form.all("frameAncestors").collect();
    let allowed = visit.service().portal_frame_ancestors();
    // Before the form was sent all are ticked.
    let chosen: Vec<FrameAncestor> =
        allowed.iter().filter(|origin| ticked.contains(&origin.as_str())).cloned().collect();
    let is_all = !form.is_on("chosen") || chosen.len() == allowed.len();
    Wanted {
        project_id,
        theme: form.text("theme").and_then(Theme::parse).unwrap_or_default(),
        locale: form.text("locale").and_then(Locale::parse),
        is_read_only: form.is_on("readOnly"),
        ancestors: (!is_all).then_some(chosen),
    }
}

fn page(
    visit: Visit,
    status: StatusCode,
    form: &Fields,
    faults: &Faults,
    wanted: &Wanted,
    sealed: Option<&[u8]>,
) -> Response {
    let visit = Visit { framing: Framing { frames_own: true, ..visit.framing.clone() }, ..visit };
    let body = html! {
        h1 { "Show the portal in your product" }
        (faults.summary())
        p { "The portal is where your customer manages the endpoints of one project. Your server asks for a session and gets a link; your page shows the link in a frame." }
        @if visit.service().portal_frame_ancestors().is_empty() { (no_ancestors(&visit)) }
        @if !visit.site.is_https() { (plain_http(&visit)) }
        @if let Some(sealed) = sealed { (preview(&visit, sealed)) }
        (choices(&visit, form, faults, wanted))
        h2 { "1. On your server: ask for a session" }
        (code::block("The request for a session", &request(&visit, wanted)))
        p {
            "The key needs the scope " code { "portal:create" } ". "
            @if visit.may(Permission::ApiKeysManage) { a href=(visit.link("/keys/new")) { "Make a key" } " and keep it on your server." }
        }
        p { "The answer holds the link as " code { "data.url" } ". It can be opened for 5 minutes, so ask when your customer opens the page, and not before." }
        h2 { "2. In your page: show it" }
        (code::block("The frame", &frame(&visit)))
        p { "The script fits the height and renews the session. " code { "/webhooks-session" } " is an address of your own server: it does step 1 and answers " code { "{\"url\": \"…\"}" } "." }
        p { a href=(visit.link("/portal-sessions")) { "All sessions of the portal" } }
        (code::api_call("POST", "/v1/portal-sessions"))
    };
    visit.page_with(status, Section::Portal, "", body)
}

fn no_ancestors(visit: &Visit) -> Markup {
    let product = if visit.site.is_https() { "https://app.example.com".to_owned() } else { product_beside(visit) };
    html! {
        p.warning role="note" {
            (icon::WARNING)
            span {
                "No page may show the portal in a frame yet. Start the server with "
                code { "--portal-frame-ancestors " (product) } ", the origin of your product. In the settings file it is "
                code { "frame_ancestors" } " in the table " code { "[portal]" } ". The preview here works without."
            }
        }
    }
}

/// A browser drops the portal's cookie in a frame of another site, unless both use https.
fn plain_http(visit: &Visit) -> Markup {
    html! {
        p.warning role="note" {
            (icon::WARNING)
            span {
                "This server is reached over plain http. To try the frame, open your page on the same host name, as in "
                code { (product_beside(visit)) } ": a browser takes 127.0.0.1 and localhost for two sites. Use https for both in production."
            }
        }
    }
}

/// The origin of a product on the host of this server.
fn product_beside(visit: &Visit) -> String {
    let host = visit.site.host();
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    format!("http://{name}:3000")
}

fn choices(visit: &Visit, form: &Fields, faults: &Faults, wanted: &Wanted) -> Markup {
    let path = visit.link(PATH);
    let is_ticked = |origin: &FrameAncestor| wanted.ancestors.as_ref().is_none_or(|chosen| chosen.contains(origin));
    let themes: Vec<(&str, &str)> = Theme::ALL.iter().map(|theme| (theme.as_str(), theme.as_str())).collect();
    let languages = [("", "that of the browser"), ("en", "English"), ("de", "German")];
    let allowed = visit.service().portal_frame_ancestors();
    html! {
        form.form action=(path) method="post" {
            (once::token(visit))
            input type="hidden" name="chosen" value="yes";
            (TextField { name: "projectId", label: "Project", hint: "The id that your product gives to the customer's project.", value: form.raw("projectId").unwrap_or_default(), kind: "text", required: true }.render(faults))
            div.row {
                (field::select("theme", "Colours", &themes, wanted.theme.as_str()))
                (field::select("locale", "Language", &languages, wanted.locale.map_or("", Locale::as_str)))
            }
            (Choice { id: "readOnly", name: "readOnly", value: "on", label: "Read only", hint: "The customer sees endpoints and deliveries and changes nothing.", is_on: wanted.is_read_only }.render())
            @if !allowed.is_empty() {
                (field::group("frameAncestors", "Pages that may show it", "The origins of the setting. A session may have fewer.", faults, &html! {
                    @for (index, origin) in allowed.iter().enumerate() {
                        (Choice { id: &format!("ancestor-{index}"), name: "frameAncestors", value: origin.as_str(), label: origin.as_str(), hint: "", is_on: is_ticked(origin) }.render())
                    }
                }))
            }
            div.actions {
                button.primary type="submit" { "Make a session and show it" }
                button type="submit" formmethod="get" formaction=(path) formnovalidate { "Only write the lines below" }
            }
        }
    }
}

fn preview(visit: &Visit, sealed: &[u8]) -> Markup {
    let shown: Value = serde_json::from_slice(sealed).unwrap_or_default();
    let text = |name: &str| shown[name].as_str().unwrap_or_default();
    html! {
        h2 data-address=(visit.link(PATH)) { "Preview" }
        p {
            "Session " code { (text("id")) } " lasts an hour. "
            a href=(text("url")) target="_blank" rel="noopener" { "Open it in a new tab" }
        }
        iframe.preview src=(text("url")) title="The portal" allow="clipboard-write" {}
    }
}

/// The request as a command. The key is the reader's own.
fn request(visit: &Visit, wanted: &Wanted) -> String {
    let mut body = json!({"projectId": wanted.project_id.as_ref().map_or("YOUR-PROJECT", ProjectId::as_str)});
    let mut add = |name: &str, value: Value| body[name] = value;
    if wanted.theme != Theme::Auto {
        add("theme", wanted.theme.as_str().into());
    }
    if let Some(locale) = wanted.locale {
        add("locale", locale.as_str().into());
    }
    if wanted.is_read_only {
        add("readOnly", true.into());
    }
    if let Some(origins) = &wanted.ancestors {
        add("frameAncestors", origins.iter().map(FrameAncestor::as_str).collect());
    }
    let mode = if visit.principal.tenant.mode == Mode::Test { Mode::Test } else { Mode::Live };
    let key = format!("Bearer {}YOUR-KEY", visit.service().catalogue().brand.key_prefix(mode));
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    curl::command("POST", &format!("{}/v1/portal-sessions", public_url(visit)), &headers, Some(&body.to_string()))
}

fn public_url(visit: &Visit) -> String {
    format!("{}{}", visit.site.origin, visit.site.prefix)
}

fn frame(visit: &Visit) -> String {
    FRAME.replace("ORIGIN", &visit.site.origin)
}

/// What stands in the page of the product.
const FRAME: &str = r#"<iframe id="webhooks" title="Webhooks" src="the link: data.url of the answer"
  style="width: 100%; height: 600px; border: 0" allow="clipboard-write"></iframe>
<script>
  const frame = document.getElementById("webhooks");
  addEventListener("message", async ({ source, origin, data }) => {
    if (source !== frame.contentWindow || origin !== "ORIGIN") return;
    if (data.type === "postrider:height") frame.style.height = `${data.height}px`;
    if (data.type === "postrider:expiring" || data.type === "postrider:expired") {
      const answer = await fetch("/webhooks-session", { method: "POST" });
      const { url } = await answer.json();
      frame.contentWindow.postMessage({ type: "postrider:renew", url }, origin);
    }
  });
</script>"#;
