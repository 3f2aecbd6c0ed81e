//! Rows of deliveries.

use maud::{Markup, html};

use postrider_domain::delivery::{Delivery, DeliveryStatus};
use postrider_domain::endpoint::EndpointLabel;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::time::Timestamp;

use super::{outcome, state, time};
use crate::language::say;

/// The other deliveries of an event. `link` makes the URL of a path.
pub fn small_table(
    deliveries: &[&Delivery],
    schedule: &RetrySchedule,
    link: &dyn Fn(&str) -> String,
    now: Timestamp,
) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label=(say!("Deliveries of the event")) {
            table.stack {
                caption { (say!("Newest first")) }
                thead { tr { th scope="col" { (say!("Delivery")) } th scope="col" { (say!("State")) } th scope="col" { (say!("Endpoint")) } th scope="col" { (say!("Made by")) } th.number scope="col" { (say!("Attempts")) } th scope="col" { (say!("Created")) } } }
                tbody {
                    @for delivery in deliveries {
                        tr {
                            th scope="row" data-label=(say!("Delivery")) { a href=(link(&format!("/deliveries/{}", delivery.id))) { (delivery.id) } }
                            td data-label=(say!("State")) { (state_of(delivery)) }
                            td data-label=(say!("Endpoint")) { code { (delivery.endpoint_id) } }
                            td data-label=(say!("Made by")) { (outcome::cause(delivery.cause)) }
                            td.number data-label=(say!("Attempts")) { (attempts(delivery, schedule)) }
                            td data-label=(say!("Created")) { (time::relative(delivery.id.created_at(), now)) }
                        }
                    }
                }
            }
        }
    }
}

/// The state of a delivery, with the reason of its end.
pub fn state_of(delivery: &Delivery) -> Markup {
    html! {
        (state::delivery(delivery.status))
        @if delivery.is_blocking { span.sub { (say!("stops the order")) } }
        @else if let Some(reason) = delivery.reason.filter(|_| delivery.status != DeliveryStatus::Delivered) { span.sub { (outcome::short_reason(reason)) } }
    }
}

/// The attempts made, of those that there may be. `schedule` is that of endpoints without one of their own.
pub fn attempts(delivery: &Delivery, schedule: &RetrySchedule) -> Markup {
    let (made, most) = (delivery.attempt_count, delivery.attempts_max(schedule));
    let is_sent = !matches!(delivery.status, DeliveryStatus::Skipped | DeliveryStatus::Simulated);
    html! { @if is_sent && made <= most { (say!("{} of {}", made, most)) } @else { (made) } }
}

/// What rows need beside the deliveries.
pub struct Rows {
    /// The start of all links.
    pub base: String,
    /// The query that all links keep, with its question mark.
    pub kept: String,
    pub labels: Vec<EndpointLabel>,
    /// Of endpoints without one of their own.
    pub schedule: RetrySchedule,
    pub now: Timestamp,
    pub shows_project: bool,
}

/// The table of a list. `can_tick` adds a box to each row, for the form around the table.
pub fn table(deliveries: &[Delivery], rows: &Rows, can_tick: bool) -> Markup {
    let has_projects = rows.shows_project && deliveries.iter().any(|delivery| delivery.project_id.is_some());
    html! {
        div.table tabindex="0" role="region" aria-label=(say!("Deliveries")) {
            table.stack {
                caption { (say!("Newest first")) }
                thead {
                    tr {
                        @if can_tick { th.tick scope="col" { span.visually-hidden { (say!("Tick")) } } }
                        th scope="col" { (say!("State")) }
                        th scope="col" { (say!("Event")) }
                        th scope="col" { (say!("Endpoint")) }
                        @if has_projects { th scope="col" { (say!("Project")) } }
                        th.number scope="col" { (say!("Attempts")) }
                        th scope="col" { (say!("Last attempt")) }
                        th scope="col" { (say!("Created")) }
                        th scope="col" { (say!("Next or took")) }
                    }
                }
                tbody #deliveries data-live="rows" { @for delivery in deliveries { (row(delivery, rows, can_tick, has_projects)) } }
            }
        }
    }
}

fn row(delivery: &Delivery, rows: &Rows, can_tick: bool, has_projects: bool) -> Markup {
    let id = delivery.id.to_string();
    html! {
        tr #(id) {
            @if can_tick { td.tick data-label=(say!("Tick")) { input type="checkbox" name="id" value=(id) aria-label={ (say!("Tick")) " " (id) }; } }
            td data-label=(say!("State")) { (state_of(delivery)) }
            th scope="row" data-label=(say!("Event")) {
                a href=(rows.link(&format!("/deliveries/{id}"))) { (delivery.event_type) }
                code.sub { (delivery.event_id) }
                @if let Some(external_id) = &delivery.external_id { code.sub { (external_id) } }
            }
            td data-label=(say!("Endpoint")) { (rows.endpoint(delivery)) }
            @if has_projects { td data-label=(say!("Project")) { code { (delivery.project_id.as_deref().unwrap_or("–")) } } }
            td.number data-label=(say!("Attempts")) { (attempts(delivery, &rows.schedule)) }
            td data-label=(say!("Last attempt")) {
                @match delivery.last_outcome {
                    Some(outcome) => (outcome::attempt_state(outcome, delivery.last_response_status)),
                    None if delivery.status == DeliveryStatus::Pending => span.soft { (say!("none yet")) },
                    None => span.soft { (say!("none")) },
                }
            }
            td.nowrap data-label=(say!("Created")) { (time::relative(delivery.id.created_at(), rows.now)) }
            td.nowrap data-label=(say!("Next or took")) { (next_or_took(delivery, rows.now)) }
        }
    }
}

impl Rows {
    fn link(&self, path: &str) -> String {
        format!("{}{path}{}", self.base, self.kept)
    }

    fn endpoint(&self, delivery: &Delivery) -> Markup {
        let label = self.labels.iter().find(|label| label.id == delivery.endpoint_id);
        html! {
            @match label {
                Some(label) => {
                    @if label.is_deleted { (label.name) } @else { a href=(self.link(&format!("/endpoints/{}", label.id))) { (label.name) } }
                    span.sub { @if label.id.is_listener() { (say!("Listener")) } @else { (label.host()) } @if label.is_deleted { ", " (say!("deleted")) } }
                }
                None => code { (delivery.endpoint_id) },
            }
        }
    }
}

fn next_or_took(delivery: &Delivery, now: Timestamp) -> Markup {
    html! {
        @match (delivery.next_attempt_at, delivery.completed_at) {
            (Some(at), _) => (say!("next {}", time::due(at, now))),
            (None, Some(ended)) if delivery.attempt_count > 0 => (say!("took {}", time::rough(ended.since(delivery.id.created_at())))),
            (None, None) if delivery.status == DeliveryStatus::Pending => span.soft { (say!("waits")) },
            _ => "",
        }
    }
}
