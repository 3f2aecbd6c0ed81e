//! Rows of deliveries.

use maud::{Markup, html};

use postrider_domain::delivery::{Delivery, DeliveryStatus};
use postrider_domain::time::Timestamp;

use super::{outcome, state, time};

/// The other deliveries of an event. `link` makes the URL of a path.
pub fn small_table(deliveries: &[&Delivery], link: &dyn Fn(&str) -> String, now: Timestamp) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Deliveries of the event" {
            table.stack {
                caption { "Newest first" }
                thead { tr { th scope="col" { "Delivery" } th scope="col" { "State" } th scope="col" { "Endpoint" } th scope="col" { "Made by" } th.number scope="col" { "Attempts" } th scope="col" { "Created" } } }
                tbody {
                    @for delivery in deliveries {
                        tr {
                            th scope="row" data-label="Delivery" { a href=(link(&format!("/deliveries/{}", delivery.id))) { (delivery.id) } }
                            td data-label="State" { (state_of(delivery)) }
                            td data-label="Endpoint" { code { (delivery.endpoint_id) } }
                            td data-label="Made by" { (outcome::cause(delivery.cause)) }
                            td.number data-label="Attempts" { (delivery.attempt_count) }
                            td data-label="Created" { (time::relative(delivery.id.created_at(), now)) }
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
        @if delivery.is_blocking { span.sub { "stops the order" } }
        @else if let Some(reason) = delivery.reason.filter(|_| delivery.status != DeliveryStatus::Delivered) { span.sub { (reason.as_str().replace('_', " ")) } }
    }
}
