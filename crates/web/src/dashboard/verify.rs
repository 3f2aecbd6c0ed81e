//! Why a signature does not verify: a request is pasted with its secret, and the page says what is wrong.
//!
//! Nothing of it is stored, logged or sent elsewhere. The answer shows the form again with what was typed.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use maud::{Markup, PreEscaped, Render, html};
use tokio::sync::Semaphore;

use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_domain::verification::text::{self, Argument, FRAMEWORKS, Said};
use postrider_domain::verification::{Finding, Presented, Verdict, Verification, Weight, request, verify};
use postrider_domain::visible::is_unprintable;
use postrider_service::ServiceError;

use crate::components::icon;
use crate::components::state::{self, Tone};
use crate::failure::Failure;
use crate::form::Fields;
use crate::language::{fill, say, translated};
use crate::layout::Section;
use crate::visit::Visit;

/// The search for a cause keeps a core busy. Customers must not keep all of them busy, so one search runs at a time.
static ONE_SEARCH: Semaphore = Semaphore::const_new(1);

/// The page below `base`.
pub fn routes(base: &str) -> Router {
    Router::new().route(&format!("{base}/verify"), get(show).post(check))
}

async fn show(visit: Visit) -> Response {
    page(&visit, StatusCode::OK, &Fields::default(), None)
}

async fn check(visit: Visit, body: Body) -> Result<Response, Failure> {
    let form = Arc::new(Fields::read_up_to(body, limits::VERIFICATION_FORM_BYTES).await?);
    let (typed, now) = (Arc::clone(&form), visit.now());
    let _permit = ONE_SEARCH.acquire().await;
    let verified = tokio::task::spawn_blocking(move || verify_typed(&typed, now)).await;
    let verification = verified.map_err(|error| ServiceError::Internal { source: Box::new(error) })?;
    Ok(page(&visit, StatusCode::OK, &form, Some(&verification)))
}

fn verify_typed(form: &Fields, now: Timestamp) -> Verification {
    let head = form.raw("headers").unwrap_or_default();
    // A browser sends each line break of a text field as CRLF, whatever was pasted.
    let typed_body = form.raw("body").unwrap_or_default().replace("\r\n", "\n");
    let (headers, following) = request::read_request(head);
    let following = following.map(|body| body.replace("\r\n", "\n"));
    let body = following.filter(|_| typed_body.is_empty()).unwrap_or(typed_body);
    let others: Vec<&str> = form.text("otherSecret").into_iter().collect();
    let presented = Presented {
        secret: form.raw("secret").unwrap_or_default(),
        other_secrets: &others,
        headers: &headers,
        body: body.as_bytes(),
        is_pasted: true,
        computed: form.text("computed"),
        tolerance: limits::TIMESTAMP_TOLERANCE,
    };
    verify(&presented, now)
}

fn page(visit: &Visit, status: StatusCode, form: &Fields, verification: Option<&Verification>) -> Response {
    let title = say!("Why does a signature not verify?");
    let body = html! {
        h1 { (title) }
        @if let Some(verification) = verification { (result(verification)) }
        @else {
            p.lead { (say!("Paste a request that your receiver refused, and the secret that it verified with.")) }
            p { (say!("Nothing of it is stored or sent elsewhere. The answer to the form shows it once more.")) }
        }
        (form_of(visit, form))
    };
    visit.page_with(status, Section::Endpoints, title, body)
}

fn form_of(visit: &Visit, form: &Fields) -> Markup {
    html! {
        form.form.verify action=(visit.link("/verify")) method="post" autocomplete="off" {
            (area("headers", say!("Headers"), say!("As raw HTTP, as curl -v prints them, or as an object. The body may follow after an empty line."), form))
            (area("body", say!("Body"), say!("The bytes that your code verifies. A text field does not keep the kind of line breaks, so both kinds are tried."), form))
            (secret("secret", say!("Secret"), say!("What your code verifies with, whsec_… if it is right."), true, form))
            details.more open[form.text("otherSecret").is_some() || form.text("computed").is_some()] {
                summary { (say!("More")) }
                (secret("otherSecret", say!("Another secret"), say!("That of before a rotation, or of another endpoint. It is tried as well."), false, form))
                div.field {
                    label for="field-computed" { (say!("What your code computed")) span.optional { " (" (say!("optional")) ")" } }
                    p.hint #field-computed-hint { (say!("The signature that your code compares with the header. The page finds out how it was made.")) }
                    input #field-computed name="computed" type="text" value=(form.raw("computed").unwrap_or_default()) aria-describedby="field-computed-hint" autocomplete="off" spellcheck="false";
                }
            }
            div.actions { button.primary type="submit" { (say!("Find out why")) } }
        }
    }
}

fn area(name: &str, label: &str, hint: &str, form: &Fields) -> Markup {
    let (id, hint_id) = (format!("field-{name}"), format!("field-{name}-hint"));
    html! {
        div.field {
            label for=(id) { (label) }
            p.hint #(hint_id) { (hint) }
            textarea #(id) name=(name) rows="6" aria-describedby=(hint_id) autocomplete="off" autocapitalize="off" spellcheck="false" {
                (verbatim(form.raw(name).unwrap_or_default()))
            }
        }
    }
}

fn secret(name: &str, label: &str, hint: &str, required: bool, form: &Fields) -> Markup {
    let (id, hint_id) = (format!("field-{name}"), format!("field-{name}-hint"));
    html! {
        div.field {
            label for=(id) { (label) @if !required { span.optional { " (" (say!("optional")) ")" } } }
            p.hint #(hint_id) { (hint) }
            div.with-button {
                input #(id) name=(name) type="password" value=(form.raw(name).unwrap_or_default()) aria-describedby=(hint_id) autocomplete="off" spellcheck="false";
                button.needs-script type="button" data-reveal=(id) aria-pressed="false" hidden { (say!("Show")) span.visually-hidden { " " (label) } }
            }
        }
    }
}

/// A text inside a text field. Pages show characters that steer text as escapes; here they must come back unchanged, so
/// they are written as references.
fn verbatim(text: &str) -> Markup {
    // The parser drops a line break that comes first.
    let mut html = String::from("\n");
    for character in text.replace("\r\n", "\n").chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '\n' => html.push('\n'),
            other if is_unprintable(other) => html.push_str(&format!("&#{};", u32::from(other))),
            other => html.push(other),
        }
    }
    PreEscaped(html)
}

fn result(verification: &Verification) -> Markup {
    let tone = match verification.verdict {
        Verdict::Verifies => "answer answer-good",
        Verdict::OnlyTime | Verdict::OnlyForm => "answer answer-waiting",
        Verdict::CauseFound | Verdict::Unexplained | Verdict::Incomplete => "answer answer-bad",
    };
    let findings = &verification.findings;
    html! {
        div class=(tone) role="status" tabindex="-1" data-focus {
            p { strong { (translated(text::headline(verification.verdict))) } }
            @for finding in findings.iter().filter(|finding| finding.is_cause()) { p { (said(&text::sentence(finding))) } }
        }
        h2 { (say!("What was checked")) }
        ol.checks {
            @for finding in findings {
                li { (mark(finding)) span { strong { (translated(text::step(finding.step()))) ": " } (said(&text::sentence(finding))) } }
            }
        }
        (advice(findings))
    }
}

/// A sentence in the reader's language.
fn said(said: &Said) -> Markup {
    let arguments: Vec<Markup> = said.arguments.iter().map(argument).collect();
    let shown: Vec<&dyn Render> = arguments.iter().map(|argument| argument as &dyn Render).collect();
    fill(&translated(said.template), &shown)
}

fn argument(argument: &Argument) -> Markup {
    match argument {
        Argument::Text(text) => html! { (text) },
        Argument::Said(part) => said(part),
    }
}

fn mark(finding: &Finding) -> Markup {
    match finding.weight() {
        Weight::Good => state::state(Tone::Good, icon::CHECK, say!("good")),
        Weight::Note => state::state(Tone::Neutral, icon::ARROW, say!("note")),
        Weight::Fault => state::state(Tone::Bad, icon::CROSS, say!("wrong")),
    }
}

fn advice(findings: &[Finding]) -> Markup {
    let mut given = Vec::new();
    for advice in findings.iter().filter_map(text::advice) {
        if !given.contains(&advice) {
            given.push(advice);
        }
    }
    html! {
        @for advice in given {
            h2 { (translated(advice.title())) }
            dl.advice {
                @for (framework, line) in FRAMEWORKS.iter().zip(advice.code()) {
                    dt { (framework) }
                    dd { code { (line) } }
                }
            }
        }
        @if !findings.is_empty() {
            p.soft { (say!("A library of Standard Webhooks does all of it, once it gets the raw body and the headers.")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_field_gives_back_what_was_typed() {
        assert_eq!(
            verbatim("\ta</textarea>&lt;\u{202e}\r\nb").into_string(),
            "\n&#9;a&lt;/textarea>&amp;lt;&#8238;\nb"
        );
    }
}
