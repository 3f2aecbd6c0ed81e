//! The parts of an exchange as a bar: where the time of an attempt went.

use maud::{Markup, html};

use postrider_domain::attempt::AttemptPhases;

use crate::language::say;

/// The width of the bar in its own units; it is stretched to the page.
const WIDTH: u64 = 1_000;

struct Part {
    name: &'static str,
    class: &'static str,
    millis: u32,
    /// Where it begins.
    start: u32,
}

/// The bar, with its parts in words beneath. `duration_ms` is the whole attempt.
pub fn bar(phases: &AttemptPhases, duration_ms: u32) -> Markup {
    let parts = parts(phases, duration_ms);
    let sum: u64 = parts.iter().map(|part| u64::from(part.millis)).sum();
    let whole = sum.max(u64::from(duration_ms)).max(1);
    let scaled = |millis: u32| u64::from(millis) * WIDTH / whole;
    let words: Vec<String> = parts.iter().map(|part| format!("{} {} ms", part.name, part.millis)).collect();
    html! {
        figure.phases {
            svg.phase-bar viewBox={ "0 0 " (WIDTH) " 10" } preserveAspectRatio="none" role="img" aria-label=(words.join(", ")) {
                rect.phase-none x="0" y="0" width=(WIDTH) height="10" {}
                @for part in &parts {
                    rect class=(part.class) x=(scaled(part.start)) y="0" width=(scaled(part.millis).max(2)) height="10" {}
                }
            }
            figcaption {
                @for part in &parts { span.phase-name { span class={ "phase-mark " (part.class) } aria-hidden="true" {} (part.name) " " (part.millis) " ms" } }
                @if phases.connection_reused { span.phase-name { (say!("kept connection")) } }
            }
        }
    }
}

fn parts(phases: &AttemptPhases, duration_ms: u32) -> Vec<Part> {
    let known = [
        (say!("Look-up"), "phase-dns", phases.dns_ms),
        (say!("Connect"), "phase-connect", phases.connect_ms),
        (say!("TLS"), "phase-tls", phases.tls_ms),
        (say!("First byte"), "phase-wait", phases.first_byte_ms),
        (say!("Body"), "phase-body", phases.body_ms),
    ];
    let mut parts: Vec<Part> = Vec::new();
    let mut start = 0;
    let mut add = |name, class, millis: u32| {
        parts.push(Part { name, class, millis, start });
        start += millis;
    };
    for (name, class, millis) in known {
        if let Some(millis) = millis {
            add(name, class, millis);
        }
    }
    let rest = known.iter().fold(duration_ms, |rest, (.., millis)| rest.saturating_sub(millis.unwrap_or_default()));
    if rest > 0 {
        add(if phases.first_byte_ms.is_some() { say!("Rest") } else { say!("Until it ended") }, "phase-rest", rest);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_the_attempt() {
        let phases = AttemptPhases { dns_ms: Some(3), tls_ms: Some(20), first_byte_ms: Some(70), ..Default::default() };
        let shown = bar(&phases, 100).into_string();
        assert!(shown.contains(r#"aria-label="Look-up 3 ms, TLS 20 ms, First byte 70 ms, Rest 7 ms""#), "{shown}");
        assert!(shown.contains(r#"class="phase-tls" x="30" y="0" width="200""#), "{shown}");
    }

    #[test]
    fn an_attempt_that_ended_early_shows_what_it_waited_for() {
        let phases = AttemptPhases { dns_ms: Some(1), ..Default::default() };
        let shown = bar(&phases, 3_001).into_string();
        assert!(shown.contains("Look-up 1 ms, Until it ended 3000 ms"), "{shown}");
        assert!(!bar(&AttemptPhases::default(), 0).into_string().contains("NaN"));
    }
}
