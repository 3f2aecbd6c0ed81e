//! The form of an endpoint: new, and changed.
//!
//! Values of headers and private keys are never sent to the browser, not even back after a fault.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::endpoint::{Endpoint, EndpointChange};
use postrider_domain::endpoint_options::{DeliveryOrder, DeliveryRate};
use postrider_domain::id::EndpointId;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_service::{CreateEndpoint, Idempotent, ServiceError, UpdateEndpoint, WriteError};

use super::endpoint_fields;
use super::secret;
use crate::components::field::Faults;
use crate::failure::{self, Failure};
use crate::form::Fields;
use crate::language::say;
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

pub async fn show_new(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::EndpointsWrite)?;
    Ok(new_page(&visit, StatusCode::OK, &Fields::default(), &Faults::default()))
}

pub async fn create(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::EndpointsWrite)?;
    let form = Fields::read(body).await?;
    let create = match endpoint_fields::parse(&visit, &form, None) {
        Ok(create) => create,
        Err(faults) => return Ok(new_page(&visit, StatusCode::BAD_REQUEST, &form, &faults)),
    };
    let (service, principal) = (Arc::clone(visit.service()), visit.principal.clone());
    let created = once::finish(&visit, &form, secret::sealed_text, |idempotent| async move {
        service.create_endpoint(&principal, create, &idempotent).await
    })
    .await;
    match created {
        Ok(shown) => secret::show_created(&visit, &shown, form.is_on("andTest")).await,
        Err(error) => match endpoint_fields::faults_of(&visit, &error) {
            Some(faults) => Ok(new_page(&visit, failure::status_of(&error), &form, &faults)),
            None => Err(error.into()),
        },
    }
}

fn new_page(visit: &Visit, status: StatusCode, form: &Fields, faults: &Faults) -> Response {
    let body = html! {
        h1 { (say!("New endpoint")) }
        (faults.summary())
        (new_form(visit, form, faults))
        (visit.api_call("POST", "/v1/webhook-endpoints"))
    };
    visit.page_with(status, Section::Endpoints, say!("New"), body)
}

/// The form of a new endpoint. The list shows it too while it is empty.
pub fn new_form(visit: &Visit, form: &Fields, faults: &Faults) -> Markup {
    html! {
        form.form action=(visit.link("/endpoints/new")) method="post" {
            (once::token(visit))
            (endpoint_fields::render(visit, form, faults, None))
            (buttons(visit, say!("Create"), say!("Create and test")))
        }
    }
}

pub async fn show_edit(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::EndpointsWrite)?;
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    if endpoint.listener.is_some() {
        return Err(ServiceError::NotFound.into());
    }
    let form = stored(&endpoint);
    Ok(edit_page(&visit, StatusCode::OK, &endpoint, &form, &Faults::default(), &html! {}))
}

pub async fn save(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::EndpointsWrite)?;
    let form = Fields::read(body).await?;
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let parsed = match endpoint_fields::parse(&visit, &form, Some(&endpoint)) {
        Ok(parsed) => parsed,
        Err(faults) => {
            return Ok(edit_page(&visit, StatusCode::BAD_REQUEST, &endpoint, &form, &faults, &html! {}));
        }
    };
    let update = change(&visit, &endpoint, parsed, seen(&form));
    let saved = visit.service().update_endpoint(&visit.principal, endpoint.id, update, &Idempotent::default()).await;
    match saved {
        Ok(saved) if form.is_on("andTest") => super::endpoint::send_test(&visit, &saved, None).await,
        Ok(saved) => Ok(visit.done(&format!("/endpoints/{}", saved.id), "saved")),
        Err(WriteError::Refused(conflict @ ServiceError::Conflict(_))) => {
            let now = visit.service().get_endpoint(&visit.principal, endpoint.id).await?;
            if seen(&form).is_none_or(|seen| seen == now.updated_at) {
                return Err(conflict.into());
            }
            let both = both_versions(&visit, &now, &form);
            Ok(edit_page(&visit, StatusCode::CONFLICT, &now, &form, &Faults::default(), &both))
        }
        Err(WriteError::Refused(error)) => match endpoint_fields::faults_of(&visit, &error) {
            Some(faults) => Ok(edit_page(&visit, failure::status_of(&error), &endpoint, &form, &faults, &html! {})),
            None => Err(error.into()),
        },
        Err(WriteError::AnsweredBefore { .. }) => Ok(visit.done(&format!("/endpoints/{}", endpoint.id), "saved")),
    }
}

/// The change of a form. A URL or project that stays is left out: the same URL again would clear the failure history.
fn change(visit: &Visit, endpoint: &Endpoint, parsed: CreateEndpoint, seen: Option<Timestamp>) -> UpdateEndpoint {
    let CreateEndpoint { name, url, events, project_id, options, private } = parsed;
    let moves = visit.is_operator() && project_id.as_ref().map(|it| it.as_str()) != endpoint.project_id.as_deref();
    let change = EndpointChange {
        name: Some(name),
        url: Some(url).filter(|url| url.as_str() != endpoint.url),
        events: Some(events),
        project_id: moves.then_some(project_id),
        is_active: None,
        options,
        seen,
    };
    UpdateEndpoint { change, private }
}

/// When the endpoint that the visitor has seen was last changed.
fn seen(form: &Fields) -> Option<Timestamp> {
    form.text("seen").and_then(|text| text.parse().ok()).map(Timestamp::from_millis)
}

/// The fields of the form as they are stored.
fn stored(endpoint: &Endpoint) -> Fields {
    let options = &endpoint.options;
    let number = |number: Option<u64>| number.map(|it| it.to_string()).unwrap_or_default();
    let mut form = Fields::default()
        .with("name", &endpoint.name)
        .with("url", &endpoint.url)
        .with("projectId", endpoint.project_id.clone().unwrap_or_default())
        .with("retrySchedule", options.retry_schedule.as_ref().map(ToString::to_string).unwrap_or_default())
        .with("timeoutSeconds", number(options.timeout.map(|it| it.as_secs())))
        .with("rateLimit", number(options.rate_limit.map(DeliveryRate::per_second).map(u64::from)))
        .with("ordering", options.ordering.as_str())
        .with("traceForwarding", endpoint_fields::forwarding_text(options.trace_forwarding))
        .with("seen", endpoint.updated_at.millis().to_string());
    for event in &endpoint.events {
        form = form.with("events", event.as_str());
    }
    if options.signature_schemes.has_v1a() { form.with("signatureV1a", "on") } else { form }
}

fn edit_page(
    visit: &Visit,
    status: StatusCode,
    endpoint: &Endpoint,
    form: &Fields,
    faults: &Faults,
    above: &Markup,
) -> Response {
    let here = format!("/endpoints/{}", endpoint.id);
    let body = html! {
        h1 { (say!("Edit {}", endpoint.name)) }
        (faults.summary())
        (above)
        form.form action=(visit.link(&format!("{here}/edit"))) method="post" {
            // After a conflict the visitor has seen the stored version, and may replace it.
            @let seen = if status == StatusCode::CONFLICT { None } else { form.text("seen").map(str::to_owned) };
            input type="hidden" name="seen" value=(seen.unwrap_or_else(|| endpoint.updated_at.millis().to_string()));
            (endpoint_fields::render(visit, form, faults, Some(endpoint)))
            (buttons(visit, say!("Save"), say!("Save and test")))
            p { a href=(visit.link(&here)) { (say!("Cancel")) } }
        }
        (visit.api_call("PATCH", &format!("/v1/webhook-endpoints/{}", endpoint.id)))
    };
    visit.page_with(status, Section::Endpoints, say!("Edit"), body)
}

fn buttons(visit: &Visit, word: &str, and_test: &str) -> Markup {
    html! {
        div.actions {
            button.primary type="submit" { (word) }
            @if visit.may(Permission::EndpointsTest) {
                button type="submit" name="andTest" value="yes" { (and_test) }
            }
        }
    }
}

/// What is stored now beside what was typed, where they differ.
fn both_versions(visit: &Visit, now: &Endpoint, form: &Fields) -> Markup {
    let joined = |fields: &Fields| fields.all("events").collect::<Vec<_>>().join(", ");
    let stored = stored(now);
    let order = form.text("ordering").unwrap_or(DeliveryOrder::None.as_str());
    let mut names = vec![
        ("name", say!("Name")),
        ("url", say!("URL")),
        ("retrySchedule", say!("Retry schedule")),
        ("timeoutSeconds", say!("Timeout")),
    ];
    if visit.is_operator() {
        names.extend([("projectId", "Project"), ("rateLimit", "Rate")]);
    }
    let text = |fields: &Fields, name: &str| fields.text(name).unwrap_or("–").to_owned();
    let mut rows: Vec<(&str, String, String)> =
        names.into_iter().map(|(name, label)| (label, text(&stored, name), text(form, name))).collect();
    rows.push((say!("Event types"), joined(&stored), joined(form)));
    if visit.is_operator() {
        rows.push(("Order", now.options.ordering.as_str().to_owned(), order.to_owned()));
        let traces = endpoint_fields::forwarding_text(now.options.trace_forwarding);
        let typed = form.text("traceForwarding").unwrap_or(endpoint_fields::forwarding_text(None));
        rows.push(("Traces", traces.to_owned(), typed.to_owned()));
    }
    html! {
        div.error-summary role="alert" tabindex="-1" data-focus {
            h2 { (say!("Somebody else has changed this endpoint meanwhile")) }
            p { (say!("Nothing of yours is saved yet. Compare the two versions, correct the form, and save again to replace what is stored.")) }
        }
        div.table tabindex="0" role="region" aria-label=(say!("Both versions")) {
            table.stack {
                caption { (say!("Fields that differ")) }
                thead { tr { th scope="col" { (say!("Field")) } th scope="col" { (say!("Stored now")) } th scope="col" { (say!("Yours")) } } }
                tbody {
                    @for (label, stored, typed) in rows.iter().filter(|(_, stored, typed)| stored != typed) {
                        tr {
                            th scope="row" data-label=(say!("Field")) { (label) }
                            td data-label=(say!("Stored now")) { (stored) }
                            td data-label=(say!("Yours")) { (typed) }
                        }
                    }
                }
            }
        }
    }
}
