//! The event catalogue: what may be published and subscribed to.

use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use postrider_domain::endpoint::{Endpoint, EndpointFilter};
use postrider_domain::event_type::{EventType, Validation};
use postrider_domain::page::PageRequest;
use postrider_domain::permission::Permission;
use postrider_domain::stats::BucketSize;
use postrider_service::{ServiceError, StatsQuery};

use crate::components::{body, code, list, state};
use crate::failure::Failure;
use crate::language::{say, say_text};
use crate::layout::Section;
use crate::visit::Visit;

/// How many subscribers the page of a type names.
const SUBSCRIBERS: &str = "50";

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let volumes = volumes(&visit).await?;
    let body = html! {
        h1 { (say!("Event types")) }
        @if visit.is_operator() {
            p { "What this server delivers. The list is the event catalogue, version " (visit.service().catalogue().version) "." }
        } @else {
            p { (say!("What can happen, and what your endpoints can be told about.")) }
        }
        div.table tabindex="0" role="region" aria-label=(say!("Event types")) {
            table.stack {
                caption { (say!("In the order of the catalogue")) }
                thead { tr { th scope="col" { (say!("Type")) } th scope="col" { (say!("Description")) } @if volumes.is_some() { th.number scope="col" { (say!("Events in 24 h")) } } } }
                tbody {
                    @for event in visit.event_types() {
                        tr {
                            th scope="row" data-label=(say!("Type")) {
                                a href=(visit.link(&format!("{}/{}", visit.event_types_path(), event.name))) { (event.name) }
                                @if event.retired { span.sub { (say!("retired")) } }
                            }
                            td data-label=(say!("Description")) { (code::prose(&event.description)) }
                            @if let Some(volumes) = &volumes { td.number data-label=(say!("Events in 24 h")) { (volume_of(volumes, event)) } }
                        }
                    }
                }
            }
        }
        (visit.api_call("GET", "/v1/event-types"))
    };
    Ok(visit.page(Section::EventTypes, "", body))
}

type Volumes = Vec<(String, u64)>;

/// Events of the last 24 hours by type, for a visitor who may see counts.
async fn volumes(visit: &Visit) -> Result<Option<Volumes>, ServiceError> {
    if !visit.may(Permission::DeliveriesRead) {
        return Ok(None);
    }
    visit.service().events_by_type(&visit.principal, &StatsQuery::default()).await.map(Some)
}

/// Events of a type that were accepted although their data did not fit its schema.
struct Misfits {
    in_day: u64,
    in_month: u64,
}

impl Misfits {
    /// For an operator who may see counts. A type whose misfits are refused has none.
    async fn read(visit: &Visit, event: &EventType) -> Result<Option<Self>, ServiceError> {
        let is_counted = event.validation == Validation::Record;
        if !is_counted || !visit.is_operator() || !visit.may(Permission::DeliveriesRead) {
            return Ok(None);
        }
        let of = async |bucket| {
            let query = StatsQuery { bucket: Some(bucket), ..StatsQuery::default() };
            let found = visit.service().misfits_by_type(&visit.principal, &query).await?;
            Ok::<_, ServiceError>(volume_of(&found, event))
        };
        Ok(Some(Self { in_day: of(BucketSize::Hour).await?, in_month: of(BucketSize::Day).await? }))
    }
}

fn volume_of(volumes: &Volumes, event: &EventType) -> u64 {
    volumes.iter().find(|(name, _)| name == event.name.as_str()).map_or(0, |(_, count)| *count)
}

pub async fn show_one(visit: Visit) -> Result<Response, Failure> {
    let name = visit.segment(1);
    let event = visit.event_types().find(|event| event.name.as_str() == name).ok_or(ServiceError::NotFound)?;
    let volumes = volumes(&visit).await?;
    let misfits = Misfits::read(&visit, event).await?;
    let subscribers = subscribers(&visit, event).await?;
    let body = html! {
        h1 { (event.name) }
        p.lead { (code::prose(&event.description)) }
        (facts(&visit, event, volumes.as_ref(), misfits.as_ref()))
        h2 { (say!("Data")) }
        (schema(event.schema.get()))
        h2 { (say!("Example")) }
        (code::block(say!("Example of the data"), &indented(event.example.get())))
        @if visit.may(Permission::EndpointsRead) {
            h2 { @if visit.is_operator() { "Who gets it" } @else { (say!("Your endpoints that get it")) } }
            (subscriber_list(&visit, event, &subscribers))
        }
        (visit.api_call("GET", "/v1/event-types"))
    };
    Ok(visit.page(Section::EventTypes, event.name.as_str(), body))
}

fn facts(visit: &Visit, event: &EventType, volumes: Option<&Volumes>, misfits: Option<&Misfits>) -> Markup {
    let state = match (event.retired, visit.is_operator()) {
        (true, true) => "retired: no new subscription, no publish",
        (true, false) => say!("retired: no new subscription"),
        (false, _) => say!("in use"),
    };
    let mut facts = vec![(say!("State"), html! { (state) })];
    if visit.is_operator() {
        let validation =
            if event.validation == Validation::Reject { "is refused" } else { "is delivered, and counted" };
        facts.push(("Data that does not fit", html! { (validation) }));
    }
    if let Some(volumes) = volumes {
        facts.push((say!("Events in 24 h"), html! { (volume_of(volumes, event)) }));
    }
    if let Some(Misfits { in_day, in_month }) = misfits {
        facts.push(("Misfits recorded", html! { (in_day) " in 24 h, " (in_month) " in 30 days" }));
    }
    list::facts(&facts)
}

async fn subscribers(visit: &Visit, event: &EventType) -> Result<Vec<Endpoint>, ServiceError> {
    if !visit.may(Permission::EndpointsRead) {
        return Ok(Vec::new());
    }
    let filter = EndpointFilter { event_types: vec![event.name.clone()], ..EndpointFilter::default() };
    let page = PageRequest::parse(Some(SUBSCRIBERS), None)?;
    Ok(visit.service().list_endpoints(&visit.principal, filter, page).await?.items)
}

fn subscriber_list(visit: &Visit, event: &EventType, subscribers: &[Endpoint]) -> Markup {
    html! {
        @if subscribers.is_empty() {
            p.soft { (say!("No endpoint is subscribed to it.")) }
        } @else {
            ul.plain {
                @for endpoint in subscribers {
                    li { (state::endpoint(endpoint)) " " a href=(visit.link(&format!("/endpoints/{}", endpoint.id))) { (endpoint.name) } }
                }
            }
            p.alone { a href=(visit.link(&format!("/endpoints?event={}", event.name))) { (say!("All in the list of endpoints")) } }
        }
    }
}

/// The properties of an object's JSON Schema as a table. Whatever else it says is in the schema itself, below.
fn schema(text: &str) -> Markup {
    let schema: Value = serde_json::from_str(text).unwrap_or_default();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    html! {
        @if let Some(properties) = schema["properties"].as_object().filter(|it| !it.is_empty()) {
            div.table tabindex="0" role="region" aria-label=(say!("Fields of the data")) {
                table.stack {
                    caption { (say!("Fields of {}", html! { code { "data" } })) }
                    thead { tr { th scope="col" { (say!("Field")) } th scope="col" { (say!("Type")) } th scope="col" { (say!("Required")) } th scope="col" { (say!("Description")) } } }
                    tbody {
                        @for (name, property) in properties {
                            tr {
                                th scope="row" data-label=(say!("Field")) { code { (name) } }
                                td data-label=(say!("Type")) { (type_of(property)) }
                                td data-label=(say!("Required")) { @if required.contains(&name.as_str()) { (say!("yes")) } @else { (say!("no")) } }
                                td data-label=(say!("Description")) { (code::prose(property["description"].as_str().unwrap_or_default())) }
                            }
                        }
                    }
                }
            }
        }
        details { summary { (say!("The JSON Schema")) } (code::block(say!("JSON Schema"), &indented(text))) }
    }
}

fn type_of(property: &Value) -> String {
    let of = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(types) => {
            types.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(&format!(" {} ", say!("or")))
        }
        _ => String::new(),
    };
    let mut text = of(&property["type"]);
    if let Some(values) = property["enum"].as_array() {
        let values: Vec<String> =
            values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        text = [text, say_text!("one of {}", &values.join(", "))]
            .into_iter()
            .filter(|it| !it.is_empty())
            .collect::<Vec<_>>()
            .join(": ");
    }
    if let Some(format) = property["format"].as_str() {
        text = format!("{text} ({format})");
    }
    if text.is_empty() { say!("any").to_owned() } else { text }
}

/// JSON on several lines, its tokens as they stand in the catalogue.
fn indented(text: &str) -> String {
    body::indent(text).unwrap_or_else(|| text.to_owned())
}
