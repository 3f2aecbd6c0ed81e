//! Erasing the content of an event: the question, and the start.

use axum::body::Body;
use axum::response::Response;
use maud::{Markup, html};

use postrider_domain::erasure::{Erasure, ErasureTarget, PendingDeliveries};
use postrider_domain::event::Event;
use postrider_domain::id::EventId;
use postrider_domain::payload::PayloadState;
use postrider_domain::permission::Permission;
use postrider_service::ServiceError;

use crate::components::{code, icon};
use crate::failure::Failure;
use crate::form::Fields;
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

/// The link of an event's page to the question. None when the content is gone or the visitor may not erase it.
pub fn button(visit: &Visit, event: &Event) -> Markup {
    html! {
        @if event.payload != PayloadState::Erased && visit.may(Permission::EventsErase) {
            a.button href=(visit.link(&format!("/events/{}/erase", event.id))) { "Erase" }
        }
    }
}

/// What goes, what stays, and whether that is wanted.
pub async fn ask(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::EventsErase)?;
    let event = visit.service().get_event(&visit.principal, visit.id::<EventId>(1)?).await?.event;
    let here = format!("/events/{}", event.id);
    let body = html! {
        h1 { "Erase the content of this event?" }
        p.warning role="note" {
            (icon::WARNING)
            span { "The content goes from the server's files, and nothing can bring it back. The event cannot be sent again." }
        }
        dl.facts {
            dt { "Event" } dd { (code::copyable(&event.id.to_string())) }
            dt { "Type" } dd { (event.event_type) }
            dt { "Goes" } dd { "Its data and its externalId, what was sent to receivers, and what they answered." }
            dt { "Stays" } dd { "The event and its deliveries in the log, with their times and results." }
        }
        form.card action=(visit.link(&format!("{here}/erase"))) method="post" {
            (once::token(&visit))
            fieldset {
                legend { "Deliveries that have not ended" }
                (choice(PendingDeliveries::Cancel, "Cancel them", "The result of an attempt under way is not recorded."))
                (choice(PendingDeliveries::Finish, "Finish them first", "The content stays until the last one has ended."))
            }
            div.actions {
                button.danger type="submit" { "Erase the content" }
                a.button href=(visit.link(&here)) { "Cancel" }
            }
        }
        (code::api_call("DELETE", &format!("/v1/events/{}", event.id)))
    };
    Ok(visit.page(Section::Events, "Erase", body))
}

fn choice(pending: PendingDeliveries, label: &str, hint: &str) -> Markup {
    let (value, is_default) = (pending.as_str(), pending == PendingDeliveries::default());
    html! {
        div.choice {
            input type="radio" id=(format!("pending-{value}")) name="pending" value=(value) checked[is_default];
            label for=(format!("pending-{value}")) { (label) span.sub { (hint) } }
        }
    }
}

pub async fn start(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::EventsErase)?;
    let form = Fields::read(body).await?;
    let id = visit.id::<EventId>(1)?;
    let pending = form.text("pending").map(PendingDeliveries::parse).transpose();
    let pending = pending.map_err(|fault| ServiceError::invalid("pending", fault))?.unwrap_or_default();
    let (service, target) = (visit.service(), ErasureTarget::Event(id));
    let page = once::write(&visit, &form, page_of, async |idempotent| {
        service.erase(&visit.principal, target, pending, idempotent).await
    })
    .await?;
    Ok(visit.done(&page, "erasing"))
}

fn page_of(erasure: &Erasure) -> (u16, bytes::Bytes) {
    once::page(match &erasure.target {
        ErasureTarget::Event(id) => format!("/events/{id}"),
        ErasureTarget::Project(_) | ErasureTarget::Endpoint(_) => "/events".to_owned(),
    })
}
