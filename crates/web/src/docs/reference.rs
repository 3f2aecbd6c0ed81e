//! `/docs`: the guide, each operation, what receivers get, and the schemas.

use maud::{Markup, html};
use serde_json::Value;

use super::document::{Document, items, members, text};
use super::layout::{self, Page};
use super::{badge, curl, prose, schema};

pub fn page(document: Document<'_>) -> Markup {
    let info = document.at("/info");
    let page = Page {
        title: "API reference".to_owned(),
        path: "/docs",
        contents: contents(document),
        body: html! {
            h1 { (text(info, "title")) }
            p.lead { (text(info, "summary")) }
            p { "Server: " code { (document.server_url()) } }
            (prose::blocks(text(info, "description")))
            h2 #keys { "API keys" }
            (prose::blocks(text(document.at("/components/securitySchemes/apiKey"), "description")))
            @for tag in items(document.at("/tags")) {
                section {
                    h2 id=(prose::anchor(text(tag, "name"))) { (text(tag, "name")) }
                    (prose::blocks(text(tag, "description")))
                    @for (method, path, operation) in of_tag(document, tag) {
                        (self::operation(document, method, path, operation))
                    }
                }
            }
            (webhooks(document))
            (schemas(document))
        },
    };
    layout::page(document, &page)
}

fn contents(document: Document<'_>) -> Markup {
    html! {
        p.head { "Guide" }
        ul {
            @for title in prose::headings(text(document.at("/info"), "description")) {
                li { a href={ "#" (prose::anchor(title)) } { (title) } }
            }
        }
        @for tag in items(document.at("/tags")) {
            p.head { a href={ "#" (prose::anchor(text(tag, "name"))) } { (text(tag, "name")) } }
            ul {
                @for (method, _, operation) in of_tag(document, tag) {
                    @let (id, summary) = (text(operation, "operationId"), text(operation, "summary"));
                    li { a href={ "#" (id) } { (summary) " " (badge::method(method)) } }
                }
            }
        }
        p.head { a href="#webhooks" { "Webhooks" } }
        p.head { a href="#schemas" { "Schemas" } }
    }
}

fn of_tag<'d>(document: Document<'d>, tag: &'d Value) -> impl Iterator<Item = (&'d str, &'d str, &'d Value)> {
    document.operations().filter(|(_, _, operation)| operation["tags"][0] == tag["name"])
}

fn operation(document: Document<'_>, method: &str, path: &str, operation: &Value) -> Markup {
    let id = text(operation, "operationId");
    html! {
        article.operation id=(id) {
            h3 { a.anchor href={ "#" (id) } { (text(operation, "summary")) } }
            p.route { (badge::method(method)) " " code { (path) } }
            (prose::blocks(text(operation, "description")))
            (parameters(document, operation))
            (request_body(document, operation))
            details.example open {
                summary { "curl" }
                pre tabindex="0" role="group" aria-label="Request" { code { (curl::sample(document, method, path, operation)) } }
            }
            h4 { "Answers" }
            @for (status, response) in members(&operation["responses"]) { (self::response(document, status, response)) }
        }
    }
}

fn parameters(document: Document<'_>, operation: &Value) -> Markup {
    let parameters: Vec<&Value> =
        items(&operation["parameters"]).map(|parameter| document.resolve(parameter)).collect();
    html! {
        @if !parameters.is_empty() {
            h4 { "Parameters" }
            table.fields aria-label="Parameters" {
                thead { tr { th { "Name" } th { "Type" } th { "Meaning" } } }
                tbody {
                    @for parameter in parameters {
                        tr {
                            td {
                                code { (text(parameter, "name")) }
                                " " span.place { (text(parameter, "in")) }
                                @if parameter["required"] == true { " " span.required { "required" } }
                            }
                            td.kind { (schema::kind(document, &parameter["schema"])) }
                            td {
                                (prose::blocks(text(parameter, "description")))
                                @if text(parameter, "description").is_empty() || text(parameter, "in") != "path" {
                                    (schema::meaning(document, &parameter["schema"]))
                                }
                                @if !parameter["example"].is_null() {
                                    p.rule { "Example: " code { (parameter["example"]) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn request_body(document: Document<'_>, operation: &Value) -> Markup {
    let body = &operation["requestBody"];
    let media = &body["content"]["application/json"];
    html! {
        @if body.is_object() {
            h4 { "Body" @if body["required"] != true { " " span.place { "may be left out" } } }
            (schema::table(document, &media["schema"]))
        }
    }
}

/// Errors are collapsed, because most operations have the same ones.
fn response(document: Document<'_>, status: &str, response: &Value) -> Markup {
    let response = document.resolve(response);
    let media = &response["content"]["application/json"];
    let is_error = !status.starts_with('2');
    html! {
        details.answer open[!is_error] {
            summary { (badge::status(status)) " " (prose::inline(text(response, "description"))) }
            @if !is_error && media.is_object() { (schema::table(document, &media["schema"])) }
            (headers(document, response))
            @for (name, example) in members(&media["examples"]) {
                @if is_error && example["value"]["error"].is_object() {
                    p { a href={ "/docs/errors#" (name) } { code { (name) } } }
                }
                (schema::example(if is_error { name } else { "Example" }, &example["value"]))
            }
        }
    }
}

fn headers(document: Document<'_>, response: &Value) -> Markup {
    html! {
        @if response["headers"].is_object() {
            p.rule {
                "Headers: "
                @for (index, (name, header)) in members(&response["headers"]).enumerate() {
                    @if index > 0 { ", " }
                    code title=(text(document.resolve(header), "description")) { (name) }
                }
            }
        }
    }
}

fn webhooks(document: Document<'_>) -> Markup {
    let first = members(document.at("/webhooks")).next().map(|(_, item)| &item["post"]);
    html! {
        section {
            h2 #webhooks { "Webhooks" }
            p {
                "What a receiver gets: a POST for each event of the " a href="/docs/events" { "catalogue" }
                ", with the same bytes on every attempt and replay."
            }
            @if let Some(operation) = first {
                article.operation {
                    h3 { "The request" }
                    (parameters(document, operation))
                    h4 { "What the receiver's answer means" }
                    @for (status, response) in members(&operation["responses"]) {
                        p { (badge::status(status)) " " (text(response, "description")) }
                    }
                }
            }
        }
    }
}

/// Whether a schema only wraps another one, as each answer does.
fn is_envelope(name: &str) -> bool {
    name.ends_with("Envelope") || name.ends_with("Page")
}

fn schemas(document: Document<'_>) -> Markup {
    let shown = members(document.at("/components/schemas"))
        .filter(|(name, schema)| schema::links(schema) && !is_envelope(name));
    html! {
        section {
            h2 #schemas { "Schemas" }
            @for (name, schema) in shown {
                article.schema id={ "schema-" (name) } {
                    h3 { a.anchor href={ "#schema-" (name) } { (name) } }
                    (prose::blocks(text(schema, "description")))
                    (schema::table(document, schema))
                }
            }
        }
    }
}
