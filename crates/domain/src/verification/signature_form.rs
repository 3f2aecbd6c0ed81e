//! What the header `webhook-signature` holds.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;

use super::secret_form::LENIENT;

/// One part of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its scheme, when that is not `v1`.
    pub scheme: Option<String>,
    /// The MAC, when it can be read, be it leniently.
    pub mac: Option<[u8; 32]>,
    pub fault: Option<SignatureFault>,
}

/// Why a library does not read a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureFault {
    /// No `v1,` before it.
    NoVersion,
    /// `v1=…` or `v1:…` in place of `v1,…`.
    Separator,
    /// `t=…,v1=…`: the form of another sender.
    OtherForm,
    Hexadecimal,
    Base64Url,
    NotBase64,
    /// The base64 of another number of bytes than 32: cut, or of another hash.
    Length {
        bytes: usize,
    },
}

/// The parts of the header, in their order.
pub fn read(header: &str) -> Vec<Signature> {
    header.split_whitespace().map(read_one).collect()
}

/// One signature, with or without `v1,`.
pub fn read_one(text: &str) -> Signature {
    if text.starts_with("t=") && text.contains(",v1=") {
        let hexadecimal = text.split(',').find_map(|part| part.strip_prefix("v1=")).unwrap_or_default();
        return Signature { scheme: None, mac: from_hex(hexadecimal), fault: Some(SignatureFault::OtherForm) };
    }
    let (value, prefix_fault) = match text.split_once(',') {
        Some(("v1", value)) => (value, None),
        Some((scheme, _)) if is_scheme(scheme) => {
            return Signature { scheme: Some(scheme.to_owned()), mac: None, fault: None };
        }
        _ => match ["v1=", "v1:"].iter().find_map(|prefix| text.strip_prefix(prefix)) {
            Some(value) => (value, Some(SignatureFault::Separator)),
            None => (text.strip_prefix("sha256=").unwrap_or(text), Some(SignatureFault::NoVersion)),
        },
    };
    let (mac, value_fault) = read_value(value);
    Signature { scheme: None, mac, fault: value_fault.or(prefix_fault) }
}

fn is_scheme(text: &str) -> bool {
    let mut letters = text.bytes();
    letters.next() == Some(b'v') && text.len() <= 8 && letters.all(|letter| letter.is_ascii_alphanumeric())
}

fn read_value(value: &str) -> (Option<[u8; 32]>, Option<SignatureFault>) {
    if let Some(mac) = from_hex(value) {
        return (Some(mac), Some(SignatureFault::Hexadecimal));
    }
    let (bytes, fault) = match LENIENT.decode(value) {
        Ok(bytes) => (bytes, None),
        Err(_) => match BASE64_URL_SAFE.decode(value) {
            Ok(bytes) => (bytes, Some(SignatureFault::Base64Url)),
            Err(_) => return (None, Some(SignatureFault::NotBase64)),
        },
    };
    match <[u8; 32]>::try_from(bytes) {
        Ok(mac) => (Some(mac), fault),
        Err(bytes) => (None, Some(SignatureFault::Length { bytes: bytes.len() })),
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    hex_bytes(text)?.try_into().ok()
}

/// The bytes that hexadecimal digits stand for.
pub fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
