//! What a text is that should be a webhook secret.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use base64::{DecodeError, alphabet, engine};
use zeroize::Zeroizing;

use postrider_crypto::MacKey;

use super::Finding;

/// Something that is pasted in place of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherText {
    ApiKey,
    /// `whpk_…`: it verifies `v1a`, not `v1`.
    PublicKey,
    /// `whsk_…`.
    PrivateKey,
    /// A signature of a request.
    Signature,
    /// The id of an endpoint, an event or another thing.
    Id,
    Url,
    /// Dots or stars in place of its characters.
    Masked,
    Unknown,
}

/// What stood around a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    WhiteSpace,
    Quotes,
    /// `NAME=whsec_…`, or other text before or behind it.
    Text,
    /// `whsec_whsec_…`.
    SecondPrefix,
}

/// A secret whose key is known.
pub struct SecretText {
    /// As it was given.
    pub given: Zeroizing<String>,
    /// After `whsec_`.
    pub encoded: Zeroizing<String>,
    pub bytes: Zeroizing<Vec<u8>>,
}

impl SecretText {
    pub fn key(&self) -> MacKey {
        MacKey::new(&self.bytes)
    }
}

pub const PREFIX: &str = "whsec_";

/// The lengths of a key that Standard Webhooks allows.
const KEY_BYTES_MIN: usize = 24;
const KEY_BYTES_MAX: usize = 64;

/// Reads base64 that other decoders pass over the faults of: without padding, with bits left over.
pub const LENIENT: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The secret in a text, with what is wrong with the text. `None`: it has no key.
pub fn read(given: &str, findings: &mut Vec<Finding>) -> Option<SecretText> {
    let before = findings.len();
    let text = unwrapped(given, findings);
    if text.is_empty() {
        findings.truncate(before);
        findings.push(Finding::NoSecret);
        return None;
    }
    let Some(encoded) = text.strip_prefix(PREFIX) else {
        return without_prefix(given, text, findings);
    };
    if is_masked(encoded) {
        findings.push(Finding::SecretIsNot(OtherText::Masked));
        return None;
    }
    let bytes = decoded(encoded, findings)?;
    let is_cut = findings[before..].iter().any(|finding| matches!(finding, Finding::SecretCut { .. }));
    if !is_cut && !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) {
        findings.push(Finding::SecretLength { bytes: bytes.len() });
    }
    if findings.len() == before {
        findings.push(Finding::SecretReadable);
    }
    Some(SecretText { given: Zeroizing::new(given.to_owned()), encoded: Zeroizing::new(encoded.to_owned()), bytes })
}

/// The text without what stands around the secret.
fn unwrapped<'g>(given: &'g str, findings: &mut Vec<Finding>) -> &'g str {
    let mut note = |wrapping| findings.push(Finding::SecretWrapped(wrapping));
    let mut text = given.trim();
    // The two characters of an escape that a file kept, as in "whsec_…\n".
    let without_escapes = text.trim_end_matches("\\n").trim_end_matches("\\r");
    if text.len() != given.len() || without_escapes.len() != text.len() {
        note(Wrapping::WhiteSpace);
        text = without_escapes;
    }
    let quoted = ['"', '\'', '`'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    if let Some(inner) = quoted {
        note(Wrapping::Quotes);
        text = inner.trim();
    }
    if let Some(second) = text.strip_prefix(PREFIX).filter(|rest| rest.starts_with(PREFIX)) {
        note(Wrapping::SecondPrefix);
        text = second;
    }
    match text.find(PREFIX) {
        Some(at) if at > 0 => {
            note(Wrapping::Text);
            let from = &text[at..];
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '=');
            &from[..from.find(|c| !is_part(c)).unwrap_or(from.len())]
        }
        _ => text,
    }
}

/// A text without `whsec_`: a secret that lost it, or something else.
fn without_prefix(given: &str, text: &str, findings: &mut Vec<Finding>) -> Option<SecretText> {
    let is = |other| Some(Finding::SecretIsNot(other));
    let other = if text.starts_with("whpk_") {
        is(OtherText::PublicKey)
    } else if text.starts_with("whsk_") {
        is(OtherText::PrivateKey)
    } else if text.contains("_sk_live_") || text.contains("_sk_test_") {
        is(OtherText::ApiKey)
    } else if text.starts_with("v1,") || text.starts_with("v1a,") {
        is(OtherText::Signature)
    } else if text.contains("://") {
        is(OtherText::Url)
    } else if ["whe_", "evt_", "dlv_", "org_", "key_", "pts_", "req_"].iter().any(|prefix| text.starts_with(prefix)) {
        is(OtherText::Id)
    } else if is_masked(text) {
        is(OtherText::Masked)
    } else {
        None
    };
    let bytes =
        BASE64_STANDARD.decode(text).ok().filter(|bytes| (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()));
    match (other, bytes) {
        (None, Some(bytes)) => {
            findings.push(Finding::SecretWithoutPrefix);
            let (given, encoded) = (Zeroizing::new(given.to_owned()), Zeroizing::new(text.to_owned()));
            Some(SecretText { given, encoded, bytes: Zeroizing::new(bytes) })
        }
        (other, _) => {
            findings.push(other.unwrap_or(Finding::SecretIsNot(OtherText::Unknown)));
            None
        }
    }
}

fn is_masked(text: &str) -> bool {
    text.contains(['•', '…', '*', '●', '·']) || text.contains("...")
}

fn decoded(encoded: &str, findings: &mut Vec<Finding>) -> Option<Zeroizing<Vec<u8>>> {
    let fault = match BASE64_STANDARD.decode(encoded) {
        Ok(bytes) if !bytes.is_empty() => return Some(Zeroizing::new(bytes)),
        Ok(_) => {
            findings.push(Finding::SecretCut { characters: 0 });
            return None;
        }
        Err(fault) => fault,
    };
    if encoded.contains(['-', '_'])
        && let Ok(bytes) = BASE64_URL_SAFE.decode(encoded)
    {
        findings.push(Finding::SecretIsBase64Url);
        return Some(Zeroizing::new(bytes));
    }
    match fault {
        DecodeError::InvalidByte(at, byte) if byte != b'=' => {
            findings.push(Finding::SecretNotBase64 { position: PREFIX.len() + at + 1 });
            None
        }
        _ => {
            findings.push(Finding::SecretCut { characters: encoded.len() });
            // The rest may still be the key of a decoder that does not mind.
            LENIENT.decode(encoded).ok().filter(|bytes| !bytes.is_empty()).map(Zeroizing::new)
        }
    }
}
