//! The query of a list's page: its filter, its page and its period. The filter is the URL, so a link to it can be kept.
//!
//! A filter bears the names of the API. A page also takes a relative `period` such as `24h`, several fields of one name
//! (check boxes), and the times of a form, which are in UTC.

use std::time::Duration;

use postrider_domain::list_filter::ListFilter;
use postrider_domain::page::PageRequest;
use postrider_domain::time::Timestamp;

use crate::components::field::Faults;
use crate::language::{Phrase, say};
use crate::visit::Visit;

/// The relative periods that a page offers.
pub const PERIODS: [(&str, Phrase, Duration); 4] = [
    ("1h", Phrase::of("Last hour"), Duration::from_secs(3_600)),
    ("24h", Phrase::of("Last 24 hours"), Duration::from_secs(24 * 3_600)),
    ("7d", Phrase::of("Last 7 days"), Duration::from_secs(7 * 24 * 3_600)),
    ("30d", Phrase::of("Last 30 days"), Duration::from_secs(30 * 24 * 3_600)),
];

/// What the query of a list asks for.
pub struct ListQuery<F> {
    pub filter: F,
    pub page: PageRequest,
    pub faults: Faults,
    /// Whether it asks for less than everything.
    pub is_narrowed: bool,
    /// Whether it is a page after the first.
    pub is_continued: bool,
}

impl<F: ListFilter> ListQuery<F> {
    pub fn read(visit: &Visit) -> Self {
        let query = &visit.query;
        let (mut filter, mut faults) = (F::default(), Vec::new());
        let mut is_narrowed = false;
        for name in F::NAMES {
            let given: Vec<&str> = query.all(name).map(str::trim).filter(|text| !text.is_empty()).collect();
            if given.is_empty() {
                continue;
            }
            is_narrowed = true;
            let text = match *name {
                "since" | "until" => utc(given[0]),
                _ => given.join(","),
            };
            if let Err(fault) = filter.set(name, &text, &|event| visit.known_event(event)) {
                faults.push(((*name).to_owned(), fault));
            }
        }
        if let Some(period) = query.text("period").filter(|_| query.text("since").is_none()) {
            is_narrowed = true;
            match PERIODS.iter().find(|(word, ..)| *word == period) {
                Some((.., length)) => {
                    let since = visit.now().minus(*length).to_string();
                    if let Err(fault) = filter.set("since", &since, &|_| Err(String::new())) {
                        faults.push(("period".to_owned(), fault));
                    }
                }
                None => faults.push(("period".to_owned(), say!("must be 1h, 24h, 7d or 30d").to_owned())),
            }
        }
        let cursor = query.text("cursor");
        let page = PageRequest::parse(query.text("limit"), cursor).unwrap_or_else(|fault| {
            faults.push(("cursor".to_owned(), fault.to_string()));
            PageRequest::FIRST
        });
        Self { filter, page, faults: Faults(faults), is_narrowed, is_continued: cursor.is_some() }
    }
}

/// A time of a form, `2026-05-15T08:21` or with seconds, as an instant in UTC. Anything else stays as it is.
fn utc(text: &str) -> String {
    match text.len() {
        16 if !text.ends_with('Z') => format!("{text}:00Z"),
        19 if !text.ends_with('Z') => format!("{text}Z"),
        _ => text.to_owned(),
    }
}

/// An instant as a form's field shows it. Empty for what is no instant.
pub fn field_time(text: &str) -> String {
    let iso = Timestamp::parse(&utc(text)).map(|at| at.to_string()).unwrap_or_default();
    iso.get(..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_a_form_is_in_utc_and_shown_again() {
        for (text, field) in [
            ("2026-05-15T08:21", "2026-05-15T08:21:00"),
            ("2026-05-15T08:21:03", "2026-05-15T08:21:03"),
            ("2026-05-15T08:21:03.250Z", "2026-05-15T08:21:03"),
            ("2026-05-15T08:21:03+02:00", "2026-05-15T06:21:03"),
            ("2026-05-15T08:21Z", "2026-05-15T08:21:00"),
            ("yesterday", ""),
            ("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", ""),
        ] {
            assert_eq!(field_time(text), field, "{text}");
        }
    }
}
