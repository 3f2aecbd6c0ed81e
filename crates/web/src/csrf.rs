//! Which requests may change anything: those that a page of this server made.
//!
//! A browser says so itself. `Sec-Fetch-Site` cannot be set by a script; it is missing over plain http by name, where
//! `Origin` decides. A request with neither did not come from a form of ours.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName};

use crate::site::Site;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request may change nothing, for the visitor: the header, what it held, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossSite(pub String);

/// Checks a request that changes something.
///
/// # Errors
/// When another site made it, or nothing says that this one did.
pub fn check(site: &Site, headers: &HeaderMap) -> Result<(), CrossSite> {
    let text =
        |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let origin = text(&ORIGIN);
    if origin.as_deref() == Some("null") {
        return Err(CrossSite(
            "The header Origin held “null”. A frame with the attribute sandbox sends that: add allow-same-origin to it."
                .to_owned(),
        ));
    }
    match text(&SEC_FETCH_SITE).as_deref() {
        Some("same-origin" | "none") => return Ok(()),
        Some(other) if origin.as_deref() != Some(site.origin.as_str()) => {
            return Err(CrossSite(format!(
                "The header Sec-Fetch-Site held “{other}”; expected was “same-origin”. Another site made this request."
            )));
        }
        _ => {}
    }
    let Some(origin) = origin else {
        return Err(CrossSite(
            "The request has neither Sec-Fetch-Site nor Origin. A browser sends one of them.".to_owned(),
        ));
    };
    let of_host = text(&HOST).filter(|_| !site.has_public_url).map(|host| {
        let scheme = site.origin.split_once("://").map_or("http", |(scheme, _)| scheme);
        format!("{scheme}://{host}")
    });
    if origin == site.origin || Some(&origin) == of_host.as_ref() {
        return Ok(());
    }
    let expected = of_host.as_ref().unwrap_or(&site.origin);
    let advice = if site.has_public_url {
        "The pages are meant for the address of --public-url: open them there, or change the setting."
    } else {
        "Behind a proxy, set --public-url to the address in the browser."
    };
    Err(CrossSite(format!("The header Origin held “{origin}”; expected was “{expected}”. {advice}")))
}
