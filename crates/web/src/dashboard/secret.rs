//! The secret of an endpoint: shown once, in the answer to the form that made it, and replaced.
//!
//! The plaintext is in no URL, no cookie and no page that can be opened again. The answer is kept sealed for a while,
//! so that a double click shows the same secret and makes no second one.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

use postrider_domain::endpoint::{Endpoint, SecretVersion};
use postrider_domain::id::EndpointId;
use postrider_domain::limits;
use postrider_domain::permission::Permission;
use postrider_service::{EndpointWithSecret, RotateSecret, ServiceError};

use crate::components::field::{self, Choice};
use crate::components::{code, icon};
use crate::failure::Failure;
use crate::form::Fields;
use crate::language::{Phrase, say};
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

/// How long both secrets may sign: seconds, and the words for it.
const OVERLAPS: [(&str, Phrase); 5] = [
    ("86400", Phrase::of("one day: deploy the new secret within a day")),
    ("0", Phrase::of("none: only the new secret signs new events")),
    ("3600", Phrase::of("one hour")),
    ("259200", Phrase::of("three days")),
    ("604800", Phrase::of("seven days")),
];

/// The answer that is kept sealed for a form that is sent twice.
pub fn sealed_text(made: &EndpointWithSecret) -> (u16, Bytes) {
    (200, Bytes::from(json!({"id": made.endpoint.id, "secret": made.secret.reveal()}).to_string()))
}

/// The page after an endpoint was created.
pub async fn show_created(visit: &Visit, sealed: &[u8], and_test: bool) -> Result<Response, Failure> {
    let (endpoint, secret) = opened(visit, sealed).await?;
    let test = match and_test && visit.may(Permission::EndpointsTest) {
        true => Some(super::endpoint::queue_test(visit, &endpoint, None).await?),
        false => None,
    };
    let test = test.map(|test| format!("?test={}", test.id)).unwrap_or_default();
    Ok(page(visit, &endpoint, &secret, say!("The endpoint is made. Copy its secret now"), &test))
}

/// The form that replaces a secret.
pub async fn show_rotate(visit: Visit) -> Result<Response, Failure> {
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let form = rotate_form(&visit, &endpoint).await?;
    let body = html! {
        h1 { (say!("Rotate the secret of {}", endpoint.name)) }
        p { (say!("A new secret is made and shown once. The present one ends in {}.", html! { code { (endpoint.secret_last4) } })) }
        (form)
        (visit.api_call("POST", &format!("/v1/webhook-endpoints/{}/rotate-secret", endpoint.id)))
    };
    Ok(visit.page(Section::Endpoints, say!("Rotate the secret"), body))
}

/// A secret cannot be opened again.
pub async fn show_gone(visit: Visit) -> Result<Response, Failure> {
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let body = html! {
        div.failure {
            p.failure-code { "410" }
            h1 { (say!("The secret was shown once")) }
            p { (say!("It is stored sealed and cannot be shown again. It ends in {}.", html! { code { (endpoint.secret_last4) } })) }
            @if visit.may(Permission::SecretsRotate) {
                p { (say!("If nobody has kept it, rotate it for a new one.")) }
                p { a.button.primary href=(visit.link(&format!("/endpoints/{}/rotate", endpoint.id))) { (say!("Rotate the secret")) } }
            }
            p { a href=(visit.link(&format!("/endpoints/{}", endpoint.id))) { (say!("Back to {}", endpoint.name)) } }
        }
    };
    Ok(visit.page_with(StatusCode::GONE, Section::Endpoints, say!("Secret"), body))
}

pub async fn rotate(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::SecretsRotate)?;
    let form = Fields::read(body).await?;
    let id = visit.id::<EndpointId>(1)?;
    let seconds: u64 = form.text("overlapSeconds").and_then(|text| text.parse().ok()).unwrap_or_default();
    let replaces = form.text("replaces").and_then(|text| text.parse().ok()).map(SecretVersion);
    // It is no form of ours, and a second copy of it would make a second secret.
    if replaces.is_none() {
        return Err(ServiceError::invalid("replaces", "is missing: load the page again").into());
    }
    let overlap = Duration::from_secs(seconds);
    if overlap > limits::SECRET_OVERLAP_MAX {
        return Err(ServiceError::invalid("overlapSeconds", "must be at most 604800").into());
    }
    let rotate = RotateSecret { overlap, revoke_queued: form.is_on("revokeQueued"), replaces };
    let (service, principal) = (Arc::clone(visit.service()), visit.principal.clone());
    let sealed = once::finish(&visit, &form, sealed_text, |idempotent| async move {
        service.rotate_secret_once(&principal, id, rotate, &idempotent).await
    })
    .await?;
    let (endpoint, secret) = opened(&visit, &sealed).await?;
    Ok(page(&visit, &endpoint, &secret, say!("The secret is rotated. Copy the new one now"), ""))
}

async fn opened(visit: &Visit, sealed: &[u8]) -> Result<(Endpoint, String), ServiceError> {
    let shown: Value = serde_json::from_slice(sealed).unwrap_or_default();
    let text = |name: &str| shown[name].as_str().unwrap_or_default();
    let id: EndpointId = text("id").parse().map_err(|_| ServiceError::NotFound)?;
    Ok((visit.service().get_endpoint(&visit.principal, id).await?, text("secret").to_owned()))
}

async fn rotate_form(visit: &Visit, endpoint: &Endpoint) -> Result<Markup, ServiceError> {
    let version = visit.service().secret_version(&visit.principal, endpoint.id).await?;
    Ok(html! {
        form.form.card action=(visit.link(&format!("/endpoints/{}/secret", endpoint.id))) method="post" {
            (once::token(visit))
            input type="hidden" name="replaces" value=(version.0);
            (field::select("overlapSeconds", say!("How long the old secret signs too"), &OVERLAPS.map(|(value, phrase)| (value, phrase.text())), "86400"))
            (Choice { id: "revokeQueued", name: "revokeQueued", value: "on", label: say!("Sign what is queued with the new secret"), hint: say!("If the old one has leaked. Otherwise what is queued keeps its signature."), is_on: false }.render())
            div.actions {
                button.primary type="submit" { (say!("Rotate")) }
                a.button href=(visit.link(&format!("/endpoints/{}", endpoint.id))) { (say!("Cancel")) }
            }
        }
    })
}

fn page(visit: &Visit, endpoint: &Endpoint, secret: &str, title: &str, query: &str) -> Response {
    let here = format!("/endpoints/{}", endpoint.id);
    let body = html! {
        // A reload must not send the form again: the script gives the page an address of its own.
        h1 data-address=(visit.link(&format!("{here}/secret"))) { (title) }
        p.warning role="note" { (icon::WARNING) (say!("This is the only time that the secret is shown. It is stored sealed.")) }
        div.card.secret {
            h2 #secret-of { (say!("Secret of {}", endpoint.name)) }
            (code::copyable(secret))
        }
        p { (say!("Put it where the receiver of {} reads it. A request is genuine if its signature verifies with it.", html! { code { (endpoint.url) } })) }
        div.actions { a.button.primary href=(visit.link(&format!("{here}{query}"))) { (say!("I have copied it")) } }
        h2 { (say!("Verify a request")) }
        p { (say!("Any Standard Webhooks library verifies these signatures. Give it the raw body, before any JSON parser.")) }
        @for (language, snippet) in SNIPPETS {
            details open[language == SNIPPETS[0].0] { summary { (language) } (code::block(language, snippet)) }
        }
        p { a href=(visit.link("/verify")) { (say!("Why does a signature not verify?")) } }
        @if let Some(key) = endpoint.options.shown_public_key() {
            h2 { (say!("Public key")) }
            p { (say!("Verifies the signatures that begin with {}.", html! { code { "v1a" } })) }
            (code::copyable(key))
        }
    };
    visit.page(Section::Endpoints, say!("Secret"), body)
}

const SNIPPETS: [(&str, &str); 4] = [
    (
        "JavaScript",
        "import { Webhook } from \"standardwebhooks\"; // npm install standardwebhooks\n\n\
         const webhook = new Webhook(process.env.WEBHOOK_SECRET);\n\
         const event = webhook.verify(rawBody, request.headers); // throws if it is not genuine",
    ),
    (
        "Python",
        "from standardwebhooks.webhooks import Webhook  # pip install standardwebhooks\n\n\
         webhook = Webhook(os.environ[\"WEBHOOK_SECRET\"])\n\
         event = webhook.verify(raw_body, request.headers)  # raises if it is not genuine",
    ),
    (
        "Go",
        "import standardwebhooks \"github.com/standard-webhooks/standard-webhooks/libraries/go\"\n\n\
         webhook, err := standardwebhooks.NewWebhook(os.Getenv(\"WEBHOOK_SECRET\"))\n\
         err = webhook.Verify(rawBody, request.Header) // nil if it is genuine",
    ),
    (
        "By hand",
        "key       = base64_decode(secret without \"whsec_\")\n\
         content   = headers[\"webhook-id\"] + \".\" + headers[\"webhook-timestamp\"] + \".\" + raw_body\n\
         expected  = \"v1,\" + base64_encode(hmac_sha256(key, content))\n\
         genuine   = one of headers[\"webhook-signature\"].split(\" \") equals expected, compared in constant time,\n            \
         and webhook-timestamp is at most 5 minutes old",
    ),
];
