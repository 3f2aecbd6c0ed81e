//! Building blocks of schemas and examples, and the schemas that all nouns share.

use serde_json::{Value, json};

use postrider_domain::access::Scope;
use postrider_domain::event_type::{Catalogue, EventTypeName};
use postrider_domain::limits;

/// Schemas under `components`, in the order of the document.
pub type Schemas = Vec<(&'static str, Value)>;

pub fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object of an answer. All properties are required except the optional ones. It is open: a later server may add
/// properties, and a generated client must not refuse them. Generators take an object that says nothing for a closed
/// one.
pub fn object(properties: Value, optional: &[&str]) -> Value {
    object_that(true, properties, optional)
}

/// An object of a request body, with exactly these properties. All are required except the optional ones. It states no
/// `default`, because some generators would send it: the description says what an absent property means.
pub fn closed_object(properties: Value, optional: &[&str]) -> Value {
    object_that(false, properties, optional)
}

/// An object with properties that this document does not name.
pub fn any_object(description: &str) -> Value {
    json!({ "type": "object", "additionalProperties": true, "description": description })
}

fn object_that(is_open: bool, properties: Value, optional: &[&str]) -> Value {
    let names = properties.as_object().map(|properties| properties.keys().cloned().collect()).unwrap_or_default();
    let required: Vec<String> =
        Vec::into_iter(names).filter(|name: &String| !optional.contains(&name.as_str())).collect();
    let mut schema = json!({ "type": "object" });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema["properties"] = properties;
    schema["additionalProperties"] = is_open.into();
    schema
}

pub fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

/// The same or `null`. An enum and an object stay a schema of their own, because generators name them.
pub fn nullable(mut schema: Value) -> Value {
    if ["$ref", "enum", "properties"].iter().any(|member| schema.get(member).is_some()) {
        let described = schema.as_object_mut().and_then(|schema| schema.shift_remove("description"));
        let mut either = json!({ "anyOf": [schema, { "type": "null" }] });
        if let Some(description) = described {
            either["description"] = description;
        }
        return either;
    }
    if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
    }
    schema
}

/// One of a closed list: of a request, or of an answer whose values never become more.
pub fn one_of(values: &[&str]) -> Value {
    json!({ "type": "string", "enum": values })
}

/// One of a list of an answer to which later versions may add values. It is a string, so that a client that is
/// generated from this document takes a value that it does not know.
pub fn growing(values: &[&str]) -> Value {
    json!({ "type": "string", "x-extensible-enum": values })
}

/// Always this text.
pub fn always(text: &str) -> Value {
    json!({ "type": "string", "const": text })
}

pub fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

pub fn boolean() -> Value {
    json!({ "type": "boolean" })
}

pub fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// A character that does not steer a display, as a regular expression.
const PRINTABLE: &str = r"[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]";

/// Text for people: 1 to `chars_max` printable characters.
pub fn name(chars_max: usize) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": chars_max, "pattern": format!("^{PRINTABLE}+$") })
}

/// Text that a filter looks for, of any length.
pub fn sought_text() -> Value {
    json!({ "type": "string", "pattern": format!("^{PRINTABLE}*$") })
}

/// A time that a caller writes, with any offset and precision.
pub fn instant() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// A time in an answer.
pub fn timestamp(description: &str) -> Value {
    described(reference("Timestamp"), description)
}

/// `{"data": …}` around a component or an array of one, as a component of its own: generators name it after that, and
/// not after the operation. [`envelopes`] adds it to the document.
pub fn single(schema: Value) -> Value {
    match component_of(&schema["items"]) {
        Some(item) => reference(&format!("{item}{LIST_ENVELOPE}")),
        None => reference(&format!("{}{ENVELOPE}", component_of(&schema).expect("a component"))),
    }
}

/// `{"data": […], "pagination": {…}}` around a component, as a component of its own.
pub fn list(schema: Value) -> Value {
    reference(&format!("{}{PAGE}", component_of(&schema).expect("a component")))
}

const ENVELOPE: &str = "Envelope";
const LIST_ENVELOPE: &str = "ListEnvelope";
const PAGE: &str = "Page";

/// The component that a schema refers to.
fn component_of(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}

/// The components that [`single`] and [`list`] refer to in these schemas.
pub fn envelopes<'s>(schemas: impl Iterator<Item = &'s Value>) -> Vec<(String, Value)> {
    let mut envelopes: Vec<(String, Value)> = schemas.filter_map(envelope).collect();
    envelopes.sort_by(|a, b| a.0.cmp(&b.0));
    envelopes.dedup_by(|a, b| a.0 == b.0);
    envelopes
}

fn envelope(schema: &Value) -> Option<(String, Value)> {
    let name = component_of(schema)?;
    let properties = if let Some(item) = name.strip_suffix(LIST_ENVELOPE) {
        json!({ "data": array(reference(item)) })
    } else if let Some(one) = name.strip_suffix(ENVELOPE) {
        json!({ "data": reference(one) })
    } else {
        let item = name.strip_suffix(PAGE)?;
        json!({ "data": array(reference(item)), "pagination": reference("Pagination") })
    };
    Some((name.to_owned(), object(properties, &[])))
}

pub fn single_example(data: Value) -> Value {
    json!({ "data": data })
}

/// The last page.
pub fn list_example(items: &[Value]) -> Value {
    json!({ "data": items, "pagination": { "next_cursor": null, "has_more": false } })
}

/// A page that another page follows.
pub fn page_example(items: &[Value]) -> Value {
    json!({ "data": items, "pagination": { "next_cursor": CURSOR_EXAMPLE, "has_more": true } })
}

pub const CURSOR_EXAMPLE: &str = "AQM47J8fEABB";
pub const INSTANT_EXAMPLE: &str = "2026-05-15T08:21:00.000Z";
pub const LATER_EXAMPLE: &str = "2026-05-15T08:21:00.137Z";

/// `endpointId` and `invalid_request` as the name of a component: `EndpointId`, `InvalidRequest`.
pub fn pascal(name: &str) -> String {
    let upper = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    name.split(['_', '.', '-']).map(upper).collect()
}

/// A random id: 16 characters of `[a-z0-9]` after the prefix.
fn drawn(prefix: &str, description: &str) -> Value {
    let (pattern, example) = (format!("^{prefix}[a-z0-9]{{16}}$"), format!("{prefix}a1b2c3d4e5f6g7h8"));
    json!({ "type": "string", "pattern": pattern, "description": description, "examples": [example] })
}

/// A timed id: 20 characters of Crockford's base 32 after the prefix. The first is 0, because an id has only 96 bits.
fn timed(prefix: &str, description: &str) -> Value {
    let pattern = format!("^{prefix}0[0-9a-hjkmnp-tv-z]{{19}}$");
    json!({ "type": "string", "pattern": pattern, "description": description, "examples": [timed_example(prefix)] })
}

pub fn timed_example(prefix: &str) -> String {
    format!("{prefix}00cw4xjg7q2000n5r8k3")
}

/// Event names for examples: the preferred ones if the catalogue has them, else its first two.
pub fn example_events(catalogue: &Catalogue) -> Vec<String> {
    let wanted = ["post.created", "job.completed"].into_iter().filter(|name| catalogue.find(name).is_some());
    let names: Vec<String> = wanted.map(str::to_owned).collect();
    if names.is_empty() { catalogue.names().take(2).map(ToString::to_string).collect() } else { names }
}

pub fn example_event(catalogue: &Catalogue) -> String {
    example_events(catalogue).into_iter().next().unwrap_or_default()
}

/// The name of an event in a request, including retired names, which the log still shows. It is no component: Go
/// clients would get the constants of `EventName` twice.
pub fn known_event(catalogue: &Catalogue) -> Value {
    one_of(&known_events(catalogue))
}

fn known_events(catalogue: &Catalogue) -> Vec<&str> {
    catalogue.types().iter().map(|event| event.name.as_str()).collect()
}

pub fn schemas(catalogue: &Catalogue) -> Schemas {
    let subscribable: Vec<&str> = catalogue.names().map(EventTypeName::as_str).collect();
    let names = vec![
        (
            "EventName",
            described(
                one_of(&subscribable),
                "Closed list of subscribable events. Adding a new event name is a contract change — bump the docs + \
                 this enum in lockstep with the producer.",
            ),
        ),
        (
            "ShownEventName",
            described(growing(&known_events(catalogue)), "The name of an event in an answer, including retired names."),
        ),
        (
            "ProjectId",
            json!({
                "type": "string",
                "pattern": opaque_pattern(),
                "description": "A customer inside the workspace: an opaque id chosen by the publisher.",
                "examples": ["proj_a1b2c3d4e5f6g7h8"],
            }),
        ),
    ];
    names.into_iter().chain(ids()).chain(values()).collect()
}

fn ids() -> Schemas {
    vec![
        ("WorkspaceId", drawn("org_", "A workspace.")),
        ("ApiKeyId", drawn("key_", "The public id of an API key. The key itself is a secret.")),
        ("ParkedMessageId", drawn("pkm_", "A parked message.")),
        ("PortalSessionId", drawn("pts_", "A portal session.")),
        (
            "EndpointId",
            described(
                json!({
                    "type": "string",
                    "pattern": "^(whe|lst)_[a-z0-9]{16}$",
                    "examples": ["whe_a1b2c3d4e5f6g7h8"],
                }),
                "A webhook endpoint (`whe_`) or a listener (`lst_`).",
            ),
        ),
        ("ListenerId", drawn("lst_", "A listener.")),
        ("RequestId", drawn("req_", "One request to this API. The server's log shows it.")),
        ("EventId", timed("evt_", "A published event. Receivers get it as `webhook-id`.")),
        ("DeliveryId", timed("dlv_", "The delivery of one event to one endpoint.")),
        ("ReplayId", timed("rpl_", "A job that sends deliveries again.")),
        ("ErasureId", timed("era_", "A job that takes content out of the store.")),
        ("AuditId", timed("aud_", "One entry of the audit log.")),
    ]
}

fn values() -> Schemas {
    vec![
        (
            "Timestamp",
            json!({
                "type": "string",
                "format": "date-time",
                "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
                "description": "ISO 8601, in UTC, with milliseconds.",
                "examples": [INSTANT_EXAMPLE],
            }),
        ),
        (
            "Mode",
            described(
                one_of(&["live", "test"]),
                "The mode of the API key behind it. A key sees and changes only what has its own mode. In test mode nothing is sent.",
            ),
        ),
        ("Scope", described(one_of(&Scope::ALL.map(Scope::as_str)), "A permission of a key.")),
        ("ShownScope", described(growing(&Scope::ALL.map(Scope::as_str)), "A permission of a key, in an answer.")),
        ("Nothing", described(closed_object(json!({}), &[]), "An object without members. The body may be omitted.")),
        (
            "Pagination",
            object(
                json!({
                    "next_cursor": {
                        "type": ["string", "null"],
                        "description": "Send it as `cursor` to get the next page; null on the last page.",
                    },
                    "has_more": boolean(),
                    "searched_to": timestamp(
                        "Only when the page ended before it was full and before the end of the list, because its \
                         filter passes few items: the page holds all of them back to this instant, and `next_cursor` \
                         looks further. An empty page with `searched_to` does not mean that there are none.",
                    ),
                }),
                &["searched_to"],
            ),
        ),
    ]
}

pub fn opaque_pattern() -> String {
    format!("^[A-Za-z0-9_-]{{1,{}}}$", limits::OPAQUE_ID_CHARS)
}
