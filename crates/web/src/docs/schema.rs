//! Schemas as tables: a row for each property, with its type, its rules and its meaning.

use maud::{Markup, html};
use serde_json::Value;

use super::document::{Document, items, members, pretty, text};
use super::prose;

/// A table of the properties of an object.
pub fn table(document: Document<'_>, schema: &Value) -> Markup {
    let schema = document.resolve(schema);
    let required = |name: &str| items(&schema["required"]).any(|item| item == name);
    if members(&schema["properties"]).next().is_none() {
        return html! { p.kind { (kind(document, schema)) } (rules(document, schema)) };
    }
    html! {
        table.fields aria-label="Fields" {
            thead { tr { th { "Name" } th { "Type" } th { "Meaning" } } }
            tbody {
                @for (name, property) in members(&schema["properties"]) {
                    tr {
                        td { code { (name) } @if required(name) { " " span.required { "required" } } }
                        td.kind { (kind(document, property)) }
                        td { (meaning(document, property)) }
                    }
                }
            }
        }
    }
}

/// The description of a schema, and the rules for its values.
pub fn meaning(document: Document<'_>, schema: &Value) -> Markup {
    let own = text(schema, "description");
    let resolved = resolved(document, schema);
    // An object with its own section is described there.
    let inherited = if links(resolved) { "" } else { text(resolved, "description") };
    html! {
        (prose::blocks(if own.is_empty() { inherited } else { own }))
        @if !links(resolved) { (rules(document, resolved)) }
    }
}

/// The type: `string<uri>`, `enum<string>[]`, `string | null`, or a link to an object.
pub fn kind(document: Document<'_>, schema: &Value) -> Markup {
    if let Some(name) = text(schema, "$ref").strip_prefix("#/components/schemas/") {
        let target = document.resolve(schema);
        return if links(target) {
            html! { a href={ "/docs#schema-" (name) } { (name) } }
        } else {
            kind(document, target)
        };
    }
    if let Some(options) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        return html! {
            @for (index, option) in options.iter().enumerate() { @if index > 0 { " | " } (kind(document, option)) }
        };
    }
    if schema["items"].is_object() {
        let null = if is_nullable(schema) { " | null" } else { "" };
        return html! { (kind(document, &schema["items"])) "[]" (null) };
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ if schema["const"].is_boolean() => vec!["boolean"],
        _ if !schema["const"].is_null() => vec!["string"],
        _ => vec!["any"],
    };
    let has_values = schema["enum"].is_array() || schema["x-extensible-enum"].is_array();
    let one = |name: &str| match (name, text(schema, "format")) {
        ("null", _) | (_, "") if has_values && name != "null" => format!("enum<{name}>"),
        ("null", _) | (_, "") => name.to_owned(),
        (_, format) => format!("{name}<{format}>"),
    };
    html! { (names.into_iter().map(one).collect::<Vec<_>>().join(" | ")) }
}

fn is_nullable(schema: &Value) -> bool {
    items(&schema["type"]).any(|name| name == "null")
}

/// Whether a schema has its own section that can be linked.
pub fn links(schema: &Value) -> bool {
    schema["properties"].is_object()
}

/// Follows references and `anyOf [x, null]` to the schema that holds the rules and the description.
fn resolved<'d>(document: Document<'d>, schema: &'d Value) -> &'d Value {
    let target = document.resolve(schema);
    let either = items(&target["anyOf"]).find(|option| text(option, "type") != "null");
    either.map_or(target, |option| document.resolve(option))
}

fn rules(document: Document<'_>, schema: &Value) -> Markup {
    let length = bounds(&schema["minLength"], &schema["maxLength"], "characters");
    let count = bounds(&schema["minItems"], &schema["maxItems"], "items");
    let range = bounds(&schema["minimum"], &schema["maximum"], "");
    let (options, may_grow) = options(document, schema);
    html! {
        @for rule in [length, count, range].into_iter().flatten() { p.rule { (rule) } }
        @if let Some(pattern) = schema["pattern"].as_str() { p.rule { "Pattern: " code { (pattern) } } }
        @if !options.is_empty() {
            p.rule {
                "One of "
                @for (index, option) in options.iter().enumerate() { @if index > 0 { ", " } code { (option) } }
                @if may_grow { "; later versions may add values" }
            }
        }
        @if !schema["const"].is_null() { p.rule { "Always " code { (schema["const"]) } } }
        @if !schema["default"].is_null() { p.rule { "Default: " code { (schema["default"]) } } }
        @if let Some(example) = schema["examples"].get(0) { p.rule { "Example: " code { (example) } } }
    }
}

/// The values of a schema or of an array's items, and whether later versions may add some.
fn options(document: Document<'_>, schema: &Value) -> (Vec<String>, bool) {
    let of = if schema["items"].is_object() { document.resolve(&schema["items"]) } else { schema };
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let growing = &of["x-extensible-enum"];
    let values = if growing.is_array() { growing } else { &of["enum"] };
    (items(values).filter(|value| !value.is_null()).map(shown).collect(), growing.is_array())
}

fn bounds(least: &Value, most: &Value, unit: &str) -> Option<String> {
    let text = match (least.as_u64(), most.as_u64()) {
        (None, None) => return None,
        (Some(least), None) => format!("At least {least}"),
        (None, Some(most)) => format!("At most {most}"),
        (Some(least), Some(most)) if least == most => format!("Exactly {most}"),
        (Some(least), Some(most)) => format!("{least} to {most}"),
    };
    Some(format!("{text} {unit}").trim_end().to_owned())
}

/// An example in JSON, collapsed when it is long.
pub fn example(title: &str, value: &Value) -> Markup {
    let json = pretty(value);
    let is_long = json.lines().count() > 24;
    html! {
        details.example open[!is_long] {
            summary { (title) }
            pre tabindex="0" role="group" aria-label="Example" { code { (json) } }
        }
    }
}
