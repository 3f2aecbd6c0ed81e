//! Which other key, text or body a signature fits.
//!
//! A recipe that differs from the right one in one part is tried first, then those that differ in two. Each try hashes
//! the body once, so the work is bounded in bytes.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use zeroize::Zeroizing;

use postrider_crypto::MacKey;

use super::super::limits;
use super::body_form::{self, BodyForm};
use super::secret_form::{LENIENT, PREFIX, SecretText};
use super::signature_form::hex_bytes;

/// How a signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub key: KeyForm,
    pub content: ContentForm,
    pub body: BodyForm,
}

impl Recipe {
    pub const STANDARD: Self = Self { key: KeyForm::Decoded, content: ContentForm::Standard, body: BodyForm::AsGiven };
}

/// The bytes of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// What follows `whsec_`, decoded from base64: the right one.
    Decoded,
    /// That of another secret, by its place in the list.
    Other(usize),
    /// The text with `whsec_`.
    WholeText,
    /// The text after `whsec_`, not decoded.
    EncodedText,
    /// The text with what was pasted around it: white space, quotes, a name.
    GivenText,
    /// What follows `whsec_`, read as hexadecimal digits.
    Hexadecimal,
    /// The text with `whsec_`, decoded from base64 as Node does: `_` counts as `/`.
    DecodedWithPrefix,
    /// The text with a line break behind it.
    WithLineBreak,
    Empty,
}

/// The text that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentForm {
    /// `id.timestamp.body`: the right one.
    Standard,
    BodyOnly,
    /// `timestamp.body`.
    WithoutId,
    /// `id.body`.
    WithoutTimestamp,
    /// `timestamp.id.body`.
    Exchanged,
    /// `idtimestampbody`.
    WithoutDots,
    /// `id:timestamp:body`.
    Colons,
    /// A line for each.
    Lines,
    /// The timestamp in milliseconds.
    Milliseconds,
}

impl ContentForm {
    const OTHERS: [Self; 8] = [
        Self::BodyOnly,
        Self::WithoutId,
        Self::WithoutTimestamp,
        Self::Exchanged,
        Self::WithoutDots,
        Self::Colons,
        Self::Lines,
        Self::Milliseconds,
    ];
}

/// What the headers say is signed beside the body.
#[derive(Clone, Copy)]
pub struct SignedParts<'p> {
    pub id: &'p str,
    pub timestamp: &'p str,
}

/// What is to be tried, and how much of it was.
pub struct Search<'p> {
    keys: Vec<(KeyForm, MacKey)>,
    parts: SignedParts<'p>,
    /// The given body first.
    bodies: Vec<(BodyForm, Vec<u8>)>,
    tried: usize,
    bytes_left: usize,
    is_complete: bool,
}

impl<'p> Search<'p> {
    pub fn new(secret: &SecretText, others: &[&str], parts: SignedParts<'p>, body: &[u8]) -> Self {
        let mut bodies = vec![(BodyForm::AsGiven, body.to_vec())];
        bodies.extend(body_form::of(body));
        let bytes_left = limits::VERIFICATION_BYTES;
        Self { keys: keys(secret, others), parts, bodies, tried: 0, bytes_left, is_complete: true }
    }

    /// How many recipes the last search tried.
    pub fn tried(&self) -> usize {
        self.tried
    }

    /// Whether the last search tried all of them.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The first recipe, other than the right one, that makes one of the MACs.
    pub fn find(&mut self, macs: &[[u8; 32]]) -> Option<Recipe> {
        (self.tried, self.bytes_left, self.is_complete) = (0, limits::VERIFICATION_BYTES, true);
        let (keys, bodies) = (self.keys.len(), self.bodies.len());
        let contents = || ContentForm::OTHERS.into_iter();
        let standard = ContentForm::Standard;
        // One difference, …
        let one = (1..keys)
            .map(|key| (key, standard, 0))
            .chain(contents().map(|content| (0, content, 0)))
            .chain((1..bodies).map(|body| (0, standard, body)));
        // … two, with what goes wrong together most often first.
        let two = (1..keys)
            .flat_map(|key| contents().map(move |content| (key, content, 0)))
            .chain((1..bodies).flat_map(|body| (1..keys).map(move |key| (key, standard, body))))
            .chain((1..bodies).flat_map(|body| contents().map(move |content| (0, content, body))));
        one.chain(two).find_map(|(key, content, body)| self.try_one(macs, key, content, body))
    }

    /// As [`Self::find`], the right recipe included.
    pub fn find_any(&mut self, macs: &[[u8; 32]]) -> Option<Recipe> {
        self.try_one(macs, 0, ContentForm::Standard, 0).or_else(|| self.find(macs))
    }

    fn try_one(&mut self, macs: &[[u8; 32]], key: usize, content: ContentForm, body: usize) -> Option<Recipe> {
        let (key_form, key) = &self.keys[key];
        let (body_form, body) = &self.bodies[body];
        let Some(left) = self.bytes_left.checked_sub(body.len()) else {
            self.is_complete = false;
            return None;
        };
        self.bytes_left = left;
        self.tried += 1;
        let mac = sign(key, content, self.parts, body);
        macs.contains(&mac).then_some(Recipe { key: *key_form, content, body: *body_form })
    }
}

fn sign(key: &MacKey, content: ContentForm, parts: SignedParts<'_>, body: &[u8]) -> [u8; 32] {
    let (id, timestamp) = (parts.id.as_bytes(), parts.timestamp.as_bytes());
    match content {
        ContentForm::Standard => key.sign(&[id, b".", timestamp, b".", body]),
        ContentForm::BodyOnly => key.sign(&[body]),
        ContentForm::WithoutId => key.sign(&[timestamp, b".", body]),
        ContentForm::WithoutTimestamp => key.sign(&[id, b".", body]),
        ContentForm::Exchanged => key.sign(&[timestamp, b".", id, b".", body]),
        ContentForm::WithoutDots => key.sign(&[id, timestamp, body]),
        ContentForm::Colons => key.sign(&[id, b":", timestamp, b":", body]),
        ContentForm::Lines => key.sign(&[id, b"\n", timestamp, b"\n", body]),
        ContentForm::Milliseconds => key.sign(&[id, b".", timestamp, b"000.", body]),
    }
}

/// The right key first, then those of usual mistakes. Keys with equal bytes are listed once.
fn keys(secret: &SecretText, others: &[&str]) -> Vec<(KeyForm, MacKey)> {
    let encoded = secret.encoded.as_str();
    let whole = Zeroizing::new(format!("{PREFIX}{encoded}"));
    let mut found: Vec<(KeyForm, Zeroizing<Vec<u8>>)> = vec![(KeyForm::Decoded, secret.bytes.clone())];
    for (index, other) in others.iter().enumerate() {
        if let Some(other) = super::secret_form::read(other, &mut Vec::new()) {
            found.push((KeyForm::Other(index), other.bytes));
        }
    }
    let text = |form, text: &str| (form, Zeroizing::new(text.as_bytes().to_vec()));
    found.push(text(KeyForm::WholeText, &whole));
    found.push(text(KeyForm::EncodedText, encoded));
    found.push(text(KeyForm::GivenText, &secret.given));
    found.push(text(KeyForm::WithLineBreak, &Zeroizing::new(format!("{}\n", *whole))));
    found.push(text(KeyForm::WithLineBreak, &Zeroizing::new(format!("{encoded}\n"))));
    found.push(text(KeyForm::Empty, ""));
    if let Some(bytes) = hex_bytes(encoded) {
        found.push((KeyForm::Hexadecimal, Zeroizing::new(bytes)));
    }
    if let Some(bytes) = decoded_by_node(&whole) {
        found.push((KeyForm::DecodedWithPrefix, Zeroizing::new(bytes)));
    }
    let mut keys: Vec<(KeyForm, MacKey)> = Vec::new();
    for (index, (form, bytes)) in found.iter().enumerate() {
        if found[..index].iter().all(|(_, known)| known != bytes) {
            keys.push((*form, MacKey::new(bytes)));
        }
    }
    keys
}

/// As `Buffer.from(text, "base64")` decodes: both alphabets, and a rest of one character is dropped.
fn decoded_by_node(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    let whole = if text.len() % 4 == 1 { &text[..text.len() - 1] } else { &text };
    LENIENT.decode(whole).or_else(|_| BASE64_URL_SAFE.decode(whole)).ok()
}
