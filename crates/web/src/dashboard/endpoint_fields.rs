//! The fields of an endpoint's form: how they are shown, and how they are read. The names are those of the API.

use maud::{Markup, html};

use postrider_domain::endpoint::{Endpoint, EndpointName, EndpointUrl, ProjectId};
use postrider_domain::endpoint_options::{DeliveryOrder, DeliveryRate, OptionsChange, SignatureSchemes, parse_timeout};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::limits;
use postrider_domain::private_options::{ClientCertificate, GivenHeader, HeaderName, HeaderValue, PrivateOptions};
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::target::{RefusalReason, TargetRefusal};
use postrider_service::{CreateEndpoint, ServiceError};

use crate::components::field::{self, Choice, Faults, TextArea, TextField};
use crate::form::Fields;
use crate::language::{say, say_text};
use crate::visit::Visit;

/// How many headers can be added at once.
const NEW_HEADERS: usize = 3;

/// The faults of an answer of the service that belong to fields of this form.
pub fn faults_of(visit: &Visit, error: &ServiceError) -> Option<Faults> {
    match error {
        ServiceError::SsrfBlocked(refusal) => Some(Faults(vec![("url".to_owned(), why_refused(visit, refusal))])),
        error => Faults::of(error),
    }
}

/// Why a URL may not be called, with the class of its address. A customer does not learn the class: it would tell how
/// the operator's network resolves names.
fn why_refused(visit: &Visit, refusal: &TargetRefusal) -> String {
    let TargetRefusal { host, reason, .. } = refusal;
    if !visit.is_operator() {
        return why_refused_to_customer(host, *reason);
    }
    let why = match reason {
        RefusalReason::Loopback => "leads back to the server itself (loopback)",
        RefusalReason::Private => "is in a private network (RFC 1918 or fc00::/7)",
        RefusalReason::LinkLocal => "is a link-local address, where clouds keep their metadata",
        RefusalReason::Cgnat => "is in the shared space of carriers (100.64.0.0/10)",
        RefusalReason::Multicast => "is a multicast address",
        RefusalReason::Unspecified => "is the unspecified address",
        RefusalReason::Reserved => "is a reserved address",
        RefusalReason::Unresolvable => {
            return format!(
                "{host} has no address, or no name server answered in time. Check the spelling, or try again (unresolvable)."
            );
        }
        RefusalReason::Port => return "has a port on which no webhook receiver listens (port).".to_owned(),
        RefusalReason::PlainHttp => return "must use https (plain_http).".to_owned(),
        RefusalReason::Denied => "is denied by the operator",
    };
    format!("{host} {why}. Only public addresses can be called ({reason}).")
}

fn why_refused_to_customer(host: &str, reason: RefusalReason) -> String {
    match reason {
        RefusalReason::Unresolvable => {
            say_text!("{} has no address, or no name server answered in time. Check the spelling, or try again.", host)
        }
        RefusalReason::Port => say_text!("{} has a port on which no webhook receiver listens.", host),
        RefusalReason::PlainHttp => say_text!("{} must be called by https.", host),
        _ => say_text!("{} may not be called. Only public addresses can be called.", host),
    }
}

/// Reads the fields. `before` is the endpoint that is changed.
///
/// # Errors
/// The faults, by field.
pub fn parse(visit: &Visit, form: &Fields, before: Option<&Endpoint>) -> Result<CreateEndpoint, Faults> {
    let mut faults = Faults::default();
    let name = faults.read("name", EndpointName::parse(form.text("name").unwrap_or_default()));
    let url = faults.read("url", EndpointUrl::parse(form.text("url").unwrap_or_default()));
    let events = faults.read("events", events(visit, form, before));
    let of_operator = |name: &str| form.text(name).filter(|_| visit.is_operator());
    let project_id = of_operator("projectId").and_then(|text| faults.read("projectId", ProjectId::parse(text)));
    let rate = of_operator("rateLimit").and_then(|text| faults.read("rateLimit", rate(text)));
    let order = of_operator("ordering").and_then(|text| faults.read("ordering", DeliveryOrder::parse(text)));
    let forwarding = of_operator("traceForwarding").and_then(|text| faults.read("traceForwarding", forwarding(text)));
    let schedule = form.text("retrySchedule").and_then(|text| faults.read("retrySchedule", schedule(text)));
    let timeout = form.text("timeoutSeconds").and_then(|text| faults.read("timeoutSeconds", timeout(text)));
    let headers = faults.read("headers", headers(form, before));
    let certificate = faults.read("clientCertificate", certificate(form));
    let schemes = if form.is_on("signatureV1a") { SignatureSchemes::V1AndV1a } else { SignatureSchemes::V1 };
    let (Some(name), Some(url), Some(events), true) = (name, url, events, faults.0.is_empty()) else {
        return Err(faults);
    };
    let options = OptionsChange {
        retry_schedule: Some(schedule),
        timeout: Some(timeout),
        signature_schemes: Some(schemes),
        rate_limit: visit.is_operator().then_some(rate),
        ordering: order,
        trace_forwarding: visit.is_operator().then_some(forwarding.flatten()),
    };
    let private = PrivateOptions { headers: headers.flatten(), client_certificate: certificate.flatten() };
    Ok(CreateEndpoint { name, url, events, project_id, options, private })
}

/// At least one type. A retired one that the endpoint has already may stay.
fn events(visit: &Visit, form: &Fields, before: Option<&Endpoint>) -> Result<Vec<EventTypeName>, String> {
    let mut events: Vec<EventTypeName> = Vec::new();
    for name in form.all("events") {
        let has = before.is_some_and(|endpoint| endpoint.events.iter().any(|event| event.as_str() == name));
        let event = if has { visit.known_event(name)? } else { visit.subscribable_event(name)? };
        if !events.contains(&event) {
            events.push(event);
        }
    }
    if events.is_empty() { Err(say!("Choose at least one event type.").to_owned()) } else { Ok(events) }
}

fn rate(text: &str) -> Result<DeliveryRate, String> {
    DeliveryRate::parse(text.parse().unwrap_or_default()).map_err(|fault| fault.to_string())
}

/// `None`: as the server is set.
fn forwarding(text: &str) -> Result<Option<bool>, String> {
    match text {
        "server" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        _ => Err("must be server, on or off".to_owned()),
    }
}

/// As [`forwarding`] reads it.
pub const fn forwarding_text(forwarding: Option<bool>) -> &'static str {
    match forwarding {
        None => "server",
        Some(true) => "on",
        Some(false) => "off",
    }
}

fn timeout(text: &str) -> Result<std::time::Duration, String> {
    parse_timeout(text.parse().unwrap_or_default()).map_err(|fault| fault.to_string())
}

/// Waits such as `5s, 5m, 2h`, each of whole seconds.
fn schedule(text: &str) -> Result<RetrySchedule, String> {
    let given: RetrySchedule = text
        .parse()
        .map_err(|_| say!("must be 1 to 32 waits like 5s, 5m, 30m, 2h, each of at most 7 days").to_owned())?;
    let seconds: Vec<u64> = given.seconds().collect();
    let whole = RetrySchedule::from_seconds(&seconds).map_err(|fault| fault.to_string())?;
    if whole == given { Ok(whole) } else { Err(say!("must be waits of whole seconds").to_owned()) }
}

/// The complete list of headers. `None` keeps all as they are.
fn headers(form: &Fields, before: Option<&Endpoint>) -> Result<Option<Vec<GivenHeader>>, String> {
    let mut headers = Vec::new();
    let mut changes = false;
    for name in before.map(|endpoint| endpoint.options.headers.clone()).unwrap_or_default() {
        match form.text(&format!("header-{}", name.as_str())) {
            Some("remove") => changes = true,
            Some("replace") => {
                changes = true;
                let value = form.raw(&format!("value-{}", name.as_str())).unwrap_or_default();
                headers.push(GivenHeader { value: Some(header_value(&name, value)?), name });
            }
            _ => headers.push(GivenHeader { name, value: None }),
        }
    }
    for (name, value) in form.all("newHeaderName").zip(form.all("newHeaderValue")) {
        if name.trim().is_empty() && value.is_empty() {
            continue;
        }
        changes = true;
        let name = HeaderName::parse(name.trim()).map_err(|fault| format!("A header {fault}."))?;
        headers.push(GivenHeader { value: Some(header_value(&name, value)?), name });
    }
    if headers.len() > limits::CUSTOM_HEADERS {
        return Err(format!("must be at most {} headers", limits::CUSTOM_HEADERS));
    }
    Ok(changes.then_some(headers))
}

fn header_value(name: &HeaderName, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::parse(value).map_err(|fault| format!("{} {fault}", name.as_str()))
}

fn certificate(form: &Fields) -> Result<Option<Option<ClientCertificate>>, String> {
    match (form.text("certificate"), form.text("privateKey")) {
        (None, None) => Ok(form.is_on("removeCertificate").then_some(None)),
        (chain, key) => {
            let [chain, key] = [chain, key].map(|text| text.unwrap_or_default().to_owned());
            ClientCertificate::parse(chain, key).map(Some).map(Some).map_err(|fault| fault.to_string())
        }
    }
}

/// The fields as they were typed or stored.
pub fn render(visit: &Visit, form: &Fields, faults: &Faults, before: Option<&Endpoint>) -> Markup {
    let text = |name, label, hint, kind, required| {
        TextField { name, label, hint, value: form.raw(name).unwrap_or_default(), kind, required }.render(faults)
    };
    let more = ["retrySchedule", "timeoutSeconds", "rateLimit", "ordering", "headers", "clientCertificate"];
    let is_open = more.iter().any(|name| faults.at(name).is_some());
    html! {
        (text("name", say!("Name"), say!("What people call it. 1 to 128 characters."), "text", true))
        (text("url", say!("URL"), say!("Where events are sent, by POST. https, and a public address."), "url", true))
        (field::group("events", say!("Event types"), "", faults, &types(visit, form, before)))
        @if visit.is_operator() {
            (text("projectId", "Project", "The customer whose events it gets. Empty: those of every project.", "text", false))
        }
        details.more open[is_open] {
            summary { (say!("More: headers, retries, signatures, client certificate")) }
            (field::group("headers", say!("Headers"), say!("Sent with each request, for a receiver that asks for a token. Values are stored sealed and are never shown."), faults, &header_fields(form, before)))
            (text("retrySchedule", say!("Retry schedule"), say!("Waits after the first attempt, the second, and so on: 5s, 5m, 30m, 2h. Empty: the server's."), "text", false))
            (text("timeoutSeconds", say!("Timeout"), say!("Whole seconds of one attempt, 1 to 45. Empty: the server's."), "number", false))
            @if visit.is_operator() {
                (text("rateLimit", "Rate", "Most deliveries a second, 1 to 1000. Empty: no limit.", "number", false))
                (field::select("ordering", "Order", &[("none", "none: several at once, as they become due"), ("strict", "strict: one at a time, in the order of the events")], form.text("ordering").unwrap_or("none")))
                (field::select("traceForwarding", "Traces", &[("server", "as the server is set"), ("on", "on: requests carry traceparent if the event has one"), ("off", "off: requests never carry traceparent")], form.text("traceForwarding").unwrap_or("server")))
            }
            fieldset {
                legend { (say!("Signatures")) }
                (Choice { id: "signatureV1a", name: "signatureV1a", value: "on", label: say!("Also sign with Ed25519 (v1a)"), hint: say!("Besides HMAC-SHA-256 (v1). The receiver verifies with a public key and holds no secret."), is_on: form.is_on("signatureV1a") }.render())
            }
            (field::group("clientCertificate", say!("Client certificate"), say!("For a receiver that asks for one (mutual TLS). Stored sealed; only its fingerprint is shown."), faults, &certificate_fields(form, before)))
        }
    }
}

fn types(visit: &Visit, form: &Fields, before: Option<&Endpoint>) -> Markup {
    let has = |name: &str| before.is_some_and(|endpoint| endpoint.events.iter().any(|event| event.as_str() == name));
    html! {
        @for event in visit.event_types().filter(|event| !event.retired || has(event.name.as_str())) {
            @let name = event.name.as_str();
            @let hint = if event.retired { format!("{} {}", say!("Retired."), event.description) } else { event.description.clone() };
            (Choice { id: &format!("event-{name}"), name: "events", value: name, label: name, hint: &hint, is_on: form.all("events").any(|typed| typed == name) }.render())
        }
    }
}

fn header_fields(form: &Fields, before: Option<&Endpoint>) -> Markup {
    let stored = before.map(|endpoint| endpoint.options.headers.as_slice()).unwrap_or_default();
    let room = limits::CUSTOM_HEADERS.saturating_sub(stored.len()).min(NEW_HEADERS);
    let typed: Vec<&str> = form.all("newHeaderName").collect();
    html! {
        @for (index, header) in stored.iter().enumerate() {
            @let (action, value) = (format!("header-{}", header.as_str()), format!("value-{}", header.as_str()));
            div.row {
                div.field {
                    label for={ "header-" (index) } { code { (header.as_str()) } }
                    select id={ "header-" (index) } name=(action) {
                        @for (value, text) in [("keep", say!("keep its value")), ("replace", say!("replace its value")), ("remove", say!("remove it"))] {
                            option value=(value) selected[form.text(&action) == Some(value)] { (text) }
                        }
                    }
                }
                div.field {
                    label for={ "value-" (index) } { (say!("New value of {}", header.as_str())) span.optional { " (" (say!("when replaced")) ")" } }
                    input id={ "value-" (index) } name=(value) type="password" autocomplete="off";
                }
            }
        }
        @for index in 0..room {
            div.row {
                div.field {
                    label for={ "new-header-" (index) } { (say!("New header")) span.optional { " (" (say!("optional")) ")" } }
                    input id={ "new-header-" (index) } name="newHeaderName" value=(typed.get(index).copied().unwrap_or_default()) autocomplete="off" spellcheck="false";
                }
                div.field {
                    label for={ "new-value-" (index) } { (say!("Its value")) }
                    input id={ "new-value-" (index) } name="newHeaderValue" type="password" autocomplete="off";
                }
            }
        }
    }
}

fn certificate_fields(form: &Fields, before: Option<&Endpoint>) -> Markup {
    let stored = before.and_then(|endpoint| endpoint.options.client_certificate.as_ref());
    let none = Faults::default();
    html! {
        @if let Some(facts) = stored {
            p { (say!("Stored: SHA-256 {}", html! { code { (facts.sha256) } })) }
            (Choice { id: "removeCertificate", name: "removeCertificate", value: "on", label: say!("Remove the certificate"), hint: "", is_on: form.is_on("removeCertificate") }.render())
        }
        (TextArea { name: "certificate", label: say!("Certificate"), hint: say!("PEM, the chain with the leaf first."), value: form.raw("certificate").unwrap_or_default() }.render(&none))
        (TextArea { name: "privateKey", label: say!("Private key"), hint: say!("PEM. It is not sent back to the browser."), value: "" }.render(&none))
    }
}
