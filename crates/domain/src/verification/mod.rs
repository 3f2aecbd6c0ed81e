//! Why a webhook does not verify: the steps of every receiver, and what would have made a signature fit.
//!
//! Pure: secret, headers, body and time are arguments, and nothing of them is kept. The result is data; `text.rs` puts
//! it into English, so that pages and the command line can say it in their own words.
//!
//! | file | what it decides |
//! |---|---|
//! | `secret_form.rs` | what a text is that should be a secret |
//! | `signature_form.rs` | what the header `webhook-signature` holds |
//! | `request.rs` | the headers and the body of a pasted request |
//! | `capture.rs` | the same of a file: raw HTTP, an entry of a HAR, a line of NDJSON, a delivery |
//! | `search.rs` | which other key, text or body a signature fits |
//! | `body_form.rs`, `json_form.rs` | the forms of a body that usual mistakes make |
//! | `text.rs` | all of it in English |

mod body_form;
pub mod capture;
mod json_form;
pub mod request;
mod search;
mod secret_form;
mod signature_form;
#[cfg(test)]
mod tests;
pub mod text;

use std::time::Duration;

use super::time::Timestamp;

pub use body_form::BodyForm;
pub use json_form::{Escapes, JsonForm, KeyOrder, Spacing};
pub use search::{ContentForm, KeyForm, Recipe};
pub use secret_form::{OtherText, Wrapping};
pub use signature_form::SignatureFault;

use search::{Search, SignedParts};
use secret_form::SecretText;
use signature_form::Signature;

pub const WEBHOOK_ID: &str = "webhook-id";
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// What a receiver got, and what it verified with.
#[derive(Clone, Copy)]
pub struct Presented<'p> {
    pub secret: &'p str,
    /// Secrets that the sender may have used instead: that before a rotation, those of other endpoints.
    pub other_secrets: &'p [&'p str],
    pub headers: &'p [(String, String)],
    pub body: &'p [u8],
    /// The body went through a text field, which does not keep its line breaks. They are `\n` here.
    pub is_pasted: bool,
    /// The signature that the receiver's own code computed, if it is known.
    pub computed: Option<&'p str>,
    /// How far the timestamp may be from the receiver's clock. Libraries use [`crate::limits::TIMESTAMP_TOLERANCE`].
    pub tolerance: Duration,
}

/// What was found, in the order of the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    pub findings: Vec<Finding>,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A library of Standard Webhooks accepts it now.
    Verifies,
    /// A signature fits; a library refuses it only for the time in its headers.
    OnlyTime,
    /// A signature fits after something was read leniently that a library does not read: the findings say what.
    OnlyForm,
    /// No signature fits what was presented, but one fits what a usual mistake makes of it.
    CauseFound,
    /// No signature fits, and nothing that was tried explains it.
    Unexplained,
    /// A secret, a header or a signature is missing or unreadable, so nothing could be compared.
    Incomplete,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    NoSecret,
    /// The text is something else. Nothing can be compared.
    SecretIsNot(OtherText),
    /// It stands in something else, and was taken out of it.
    SecretWrapped(Wrapping),
    /// It has no `whsec_`; it was read as if it had.
    SecretWithoutPrefix,
    /// A character that is in no base64, counted from 1 in the whole secret.
    SecretNotBase64 {
        position: usize,
    },
    /// Its base64 is written with `-` and `_`.
    SecretIsBase64Url,
    /// Its base64 breaks off.
    SecretCut {
        characters: usize,
    },
    /// The key is shorter or longer than Standard Webhooks allows.
    SecretLength {
        bytes: usize,
    },
    SecretReadable,

    /// `instead` is a header that seems to be meant, and was read.
    HeaderMissing {
        name: &'static str,
        instead: Option<String>,
    },
    HeaderRepeated {
        name: &'static str,
    },
    HeadersThere,

    TimestampUnreadable(TimestampForm),
    TimestampTooOld {
        age: Duration,
        tolerance: Duration,
    },
    TimestampTooNew {
        ahead: Duration,
        tolerance: Duration,
    },
    TimestampFits {
        tolerance: Duration,
    },

    /// `position` counts from 1 among the signatures of the header.
    SignatureUnreadable {
        position: usize,
        fault: SignatureFault,
    },
    /// A scheme other than `v1`. Libraries pass it over.
    SignatureOfScheme {
        position: usize,
        scheme: String,
    },
    SignatureFits {
        position: usize,
        of: usize,
    },
    NoSignatureFits {
        of: usize,
    },

    /// A signature of the header fits this recipe, and not that of Standard Webhooks.
    SignedAs(Recipe),
    /// The header names another event than the body.
    BodyOfOtherEvent {
        header: String,
        body: String,
    },
    /// The body begins as JSON and is none: it is cut or changed.
    BodyNotJson,
    BodyEmpty,
    /// None of the usual mistakes explains it.
    NothingFits {
        tried: usize,
        /// Whether every combination was tried: a large body leaves some out.
        is_complete: bool,
    },

    /// The receiver's own code computed the right signature.
    ComputedRight,
    /// It computed this instead.
    ComputedAs(Recipe),
    ComputedUnreadable(SignatureFault),
    ComputedUnexplained,
}

/// What a timestamp is that is no whole number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampForm {
    Milliseconds,
    Date,
    Fraction,
    Other,
}

/// The steps of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Secret,
    Headers,
    Timestamp,
    Signatures,
    Cause,
    Computed,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Good,
    /// Worth knowing. It does not make the verification fail.
    Note,
    Fault,
}

impl Finding {
    pub const fn step(&self) -> Step {
        match self {
            Self::NoSecret
            | Self::SecretIsNot(_)
            | Self::SecretWrapped(_)
            | Self::SecretWithoutPrefix
            | Self::SecretNotBase64 { .. }
            | Self::SecretIsBase64Url
            | Self::SecretCut { .. }
            | Self::SecretLength { .. }
            | Self::SecretReadable => Step::Secret,
            Self::HeaderMissing { .. } | Self::HeaderRepeated { .. } | Self::HeadersThere => Step::Headers,
            Self::TimestampUnreadable(_)
            | Self::TimestampTooOld { .. }
            | Self::TimestampTooNew { .. }
            | Self::TimestampFits { .. } => Step::Timestamp,
            Self::SignatureUnreadable { .. }
            | Self::SignatureOfScheme { .. }
            | Self::SignatureFits { .. }
            | Self::NoSignatureFits { .. } => Step::Signatures,
            Self::SignedAs(_)
            | Self::BodyOfOtherEvent { .. }
            | Self::BodyNotJson
            | Self::BodyEmpty
            | Self::NothingFits { .. } => Step::Cause,
            Self::ComputedRight | Self::ComputedAs(_) | Self::ComputedUnreadable(_) | Self::ComputedUnexplained => {
                Step::Computed
            }
        }
    }

    /// Whether it says why the signature does not fit, or why nothing could be compared.
    pub const fn is_cause(&self) -> bool {
        matches!(self.step(), Step::Cause | Step::Computed)
    }

    pub const fn weight(&self) -> Weight {
        match self {
            Self::SecretReadable
            | Self::HeadersThere
            | Self::TimestampFits { .. }
            | Self::SignatureFits { .. }
            | Self::ComputedRight => Weight::Good,
            Self::SignatureOfScheme { .. }
            | Self::SecretWithoutPrefix
            | Self::SecretLength { .. }
            | Self::HeaderRepeated { .. } => Weight::Note,
            _ => Weight::Fault,
        }
    }
}

/// Compares what was presented, at the receiver's time.
pub fn verify(presented: &Presented<'_>, now: Timestamp) -> Verification {
    let mut findings = Vec::new();
    let secret = secret_form::read(presented.secret, &mut findings);
    let [id, timestamp, signature] = read_headers(presented.headers, &mut findings);
    if let Some(timestamp) = timestamp {
        findings.push(judge_timestamp(timestamp, now, presented.tolerance));
    }
    let signatures = signature.map(signature_form::read).unwrap_or_default();
    note_unreadable(&signatures, &mut findings);
    let is_comparable = signatures.iter().any(|signature| signature.mac.is_some());
    let verdict = match (secret, id, timestamp) {
        (Some(secret), Some(id), Some(timestamp)) if is_comparable => {
            compare(presented, &secret, id, timestamp, &signatures, &mut findings)
        }
        _ => Verdict::Incomplete,
    };
    Verification { findings, verdict }
}

fn compare(
    presented: &Presented<'_>,
    secret: &SecretText,
    id: &str,
    timestamp: &str,
    signatures: &[Signature],
    findings: &mut Vec<Finding>,
) -> Verdict {
    let parts = SignedParts { id, timestamp };
    let mut body = std::borrow::Cow::Borrowed(presented.body);
    let fits = |body: &[u8]| {
        let right = secret.key().sign(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
        signatures.iter().position(|signature| signature.mac == Some(right))
    };
    let mut found = fits(&body);
    if found.is_none() && presented.is_pasted && body.contains(&b'\n') {
        // The text field may have changed the line breaks, so both kinds are what was presented.
        let crlf = body_form::with_crlf(&body);
        if let Some(position) = fits(&crlf) {
            (found, body) = (Some(position), crlf.into());
        }
    }
    let of = signatures.len();
    let mut search = Search::new(secret, presented.other_secrets, parts, &body);
    let verdict = if let Some(position) = found {
        findings.push(Finding::SignatureFits { position: position + 1, of });
        verdict_of_fit(findings)
    } else {
        findings.push(Finding::NoSignatureFits { of });
        let macs: Vec<[u8; 32]> = signatures.iter().filter_map(|signature| signature.mac).collect();
        explain(&mut search, &macs, id, &body, findings)
    };
    if let Some(computed) = presented.computed {
        findings.push(judge_computed(&mut search, computed));
    }
    verdict
}

/// What a library says to a request whose signature fits.
fn verdict_of_fit(findings: &[Finding]) -> Verdict {
    let faults = || findings.iter().filter(|finding| finding.weight() == Weight::Fault);
    if faults().next().is_none() {
        Verdict::Verifies
    } else if faults().all(|fault| matches!(fault, Finding::TimestampTooOld { .. } | Finding::TimestampTooNew { .. })) {
        Verdict::OnlyTime
    } else {
        Verdict::OnlyForm
    }
}

/// Looks for the mistake that makes a signature of the header fit.
fn explain(search: &mut Search<'_>, macs: &[[u8; 32]], id: &str, body: &[u8], findings: &mut Vec<Finding>) -> Verdict {
    if let Some(recipe) = search.find(macs) {
        findings.push(Finding::SignedAs(recipe));
        return Verdict::CauseFound;
    }
    if body.is_empty() {
        findings.push(Finding::BodyEmpty);
    } else if let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) {
        if let Some(other) = json["id"].as_str().filter(|other| *other != id && !id.is_empty()) {
            findings.push(Finding::BodyOfOtherEvent { header: id.to_owned(), body: other.to_owned() });
        }
    } else {
        findings.push(Finding::BodyNotJson);
    }
    findings.push(Finding::NothingFits { tried: search.tried(), is_complete: search.is_complete() });
    Verdict::Unexplained
}

fn judge_computed(search: &mut Search<'_>, computed: &str) -> Finding {
    let signature = signature_form::read_one(computed.trim());
    let Some(mac) = signature.mac else {
        return Finding::ComputedUnreadable(signature.fault.unwrap_or(SignatureFault::NotBase64));
    };
    match search.find_any(&[mac]) {
        Some(recipe) if recipe == Recipe::STANDARD => {
            // A library compares with `v1,` in front, but code that strips it is right as well.
            match signature.fault {
                Some(fault) if fault != SignatureFault::NoVersion => Finding::ComputedUnreadable(fault),
                _ => Finding::ComputedRight,
            }
        }
        Some(recipe) => Finding::ComputedAs(recipe),
        None => Finding::ComputedUnexplained,
    }
}

/// The values of the three headers. One under another name is read, with its finding.
fn read_headers<'h>(headers: &'h [(String, String)], findings: &mut Vec<Finding>) -> [Option<&'h str>; 3] {
    let before = findings.len();
    let values = [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE].map(|name| {
        let mut exact = headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        if let Some((_, value)) = exact.next() {
            if exact.next().is_some() {
                findings.push(Finding::HeaderRepeated { name });
            }
            if !value.trim().is_empty() {
                return Some(value.trim());
            }
        }
        let meant = headers.iter().find(|(found, value)| is_meant(found, name) && !value.trim().is_empty());
        findings.push(Finding::HeaderMissing { name, instead: meant.map(|(found, _)| found.clone()) });
        meant.map(|(_, value)| value.trim())
    });
    if findings[before..].iter().all(|finding| finding.weight() != Weight::Fault) {
        findings.push(Finding::HeadersThere);
    }
    values
}

/// Whether a header's name is another spelling of `name`: `HTTP_WEBHOOK_ID`, `X-Webhook-Id`, `svix-id`.
fn is_meant(found: &str, name: &str) -> bool {
    let spelled = found.to_ascii_lowercase().replace('_', "-");
    let spelled = spelled.strip_prefix("http-").unwrap_or(&spelled);
    let spelled = spelled.strip_prefix("x-").unwrap_or(spelled);
    let part = name.strip_prefix("webhook-").unwrap_or(name);
    spelled == name || spelled.replace('-', "") == name.replace('-', "") || spelled.strip_prefix("svix-") == Some(part)
}

fn judge_timestamp(text: &str, now: Timestamp, tolerance: Duration) -> Finding {
    // Seconds have ten digits until the year 2286, milliseconds had twelve in 1973.
    const SECONDS_MAX: i64 = 99_999_999_999;
    let Ok(seconds) = text.parse::<i64>() else {
        let form = if text.parse::<f64>().is_ok() {
            TimestampForm::Fraction
        } else if Timestamp::parse(text).is_ok() || httpdate::parse_http_date(text).is_ok() {
            TimestampForm::Date
        } else {
            TimestampForm::Other
        };
        return Finding::TimestampUnreadable(form);
    };
    if seconds > SECONDS_MAX {
        return Finding::TimestampUnreadable(TimestampForm::Milliseconds);
    }
    let away = Duration::from_secs(now.seconds().abs_diff(seconds));
    match away > tolerance {
        false => Finding::TimestampFits { tolerance },
        true if seconds < now.seconds() => Finding::TimestampTooOld { age: away, tolerance },
        true => Finding::TimestampTooNew { ahead: away, tolerance },
    }
}

fn note_unreadable(signatures: &[Signature], findings: &mut Vec<Finding>) {
    for (index, signature) in signatures.iter().enumerate() {
        let position = index + 1;
        match (&signature.scheme, signature.fault) {
            (Some(scheme), _) => {
                findings.push(Finding::SignatureOfScheme { position, scheme: scheme.clone() });
            }
            (None, Some(fault)) => findings.push(Finding::SignatureUnreadable { position, fault }),
            (None, None) => {}
        }
    }
}
