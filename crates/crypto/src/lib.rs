//! Hashes, MACs, signatures, sealing and randomness. The only crate that names the cryptography library.
//!
//! It knows no noun of the product. The library or `zeroize` wipes keys on drop. `Debug` never prints a key.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use aws_lc_rs::{constant_time, digest, hkdf, hmac};
use zeroize::Zeroizing;

/// A random source: that of the operating system, unless a simulation replaces it.
#[derive(Clone, Debug)]
pub struct Random(Arc<dyn RandomSource>);

/// Where random bytes come from. A simulation passes a seeded source, so that it can be repeated.
pub trait RandomSource: fmt::Debug + Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

impl RandomSource for SystemRandom {
    /// # Panics
    /// When the operating system provides no randomness: nothing safe can be done without it.
    fn fill(&self, bytes: &mut [u8]) {
        SecureRandom::fill(self, bytes).expect("the system's random source works");
    }
}

impl Default for Random {
    fn default() -> Self {
        Self(Arc::new(SystemRandom::new()))
    }
}

impl Random {
    /// Draws from another source than the operating system's. Secrets of a server must not come from one.
    pub fn of(source: Arc<dyn RandomSource>) -> Self {
        Self(source)
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// `N` characters, drawn uniformly from `0-9a-z`.
    pub fn alphanumeric<const N: usize>(&self) -> [u8; N] {
        const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        const FAIR: u8 = 252; // the largest multiple of 36 in a byte; higher bytes would favour the first letters
        let mut out = [0; N];
        let mut filled = 0;
        while filled < N {
            for byte in self.bytes::<32>() {
                if byte < FAIR && filled < N {
                    out[filled] = ALPHABET[usize::from(byte % 36)];
                    filled += 1;
                }
            }
        }
        out
    }

    /// A uniform number in `[0, 1)`.
    pub fn unit(&self) -> f64 {
        const MANTISSA_BITS: u32 = 53;
        let bits = u64::from_le_bytes(self.bytes()) >> (64 - MANTISSA_BITS);
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let unit = bits as f64 / (1_u64 << MANTISSA_BITS) as f64;
        unit
    }
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// The SHA-256 of bytes that come in parts, such as those of a large file.
pub struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Sha256 {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256(…)")
    }
}

/// An HMAC-SHA-256 key. Its key schedule is computed once.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The MAC over the concatenated parts.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// An Ed25519 key pair (RFC 8032).
#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

impl SigningKey {
    pub const SEED_BYTES: usize = 32;
    pub const PUBLIC_BYTES: usize = 32;

    /// Derives the pair from its seed.
    ///
    /// # Panics
    /// Never: any 32 bytes are a valid seed.
    pub fn from_seed(seed: &[u8; Self::SEED_BYTES]) -> Self {
        Self(Arc::new(Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a valid seed")))
    }

    pub fn public_key(&self) -> [u8; Self::PUBLIC_BYTES] {
        let mut out = [0; Self::PUBLIC_BYTES];
        out.copy_from_slice(self.0.public_key().as_ref());
        out
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.0.sign(message).as_ref());
        out
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// Compares in a time that does not depend on where the two values differ.
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The sealed bytes belong to another key or another record, or were altered.
#[derive(Debug, thiserror::Error)]
#[error("cannot open sealed bytes: another key, another record, or altered bytes")]
pub struct Unsealable;

/// The master key. Every other key is derived from it.
pub struct MasterKey {
    /// Kept to seal the key itself under another one.
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    wrapping: LessSafeKey,
    derivation: hkdf::Prk,
    id: KeyId,
}

/// Identifies a master key. Reveals nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl KeyId {
    /// The key that sealed the bytes, if they are labelled with it. Does not prove that the key opens them.
    pub fn labelled_on(sealed: &[u8]) -> Option<Self> {
        let (&LABELLED_SEAL_VERSION, rest) = sealed.split_first()? else { return None };
        Some(Self(*rest.first_chunk()?))
    }

    /// Parses what `Display` prints: 16 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; KEY_ID_BYTES];
        if text.len() != 2 * KEY_ID_BYTES || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;
/// Without the id of the key. Written until the master key is changed for the first time, because earlier versions of
/// this program read only this form.
const SEAL_VERSION: u8 = 1;
/// With the id of the key after the version.
const LABELLED_SEAL_VERSION: u8 = 2;

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl MasterKey {
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let derivation = hkdf::Salt::new(hkdf::HKDF_SHA256, b"postrider master key v1").extract(bytes);
        let wrapping = derive::<KEY_BYTES>(&derivation, b"seal");
        let id = KeyId(*derive::<KEY_ID_BYTES>(&derivation, b"id"));
        Self { bytes: Zeroizing::new(*bytes), wrapping: aead_key(&wrapping), derivation, id }
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The bytes of a key for one purpose, independent of the keys for other purposes.
    pub fn derived(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        derive(&self.derivation, purpose.as_bytes())
    }

    /// Seals another master key under this one.
    pub fn seal_key(&self, random: &Random, record: &str, other: &Self) -> Vec<u8> {
        self.seal(random, record, other.bytes.as_slice())
    }

    /// Opens bytes that [`MasterKey::seal_key`] made for the same record.
    ///
    /// # Errors
    /// As [`MasterKey::open`].
    pub fn open_key(&self, record: &str, sealed: &[u8]) -> Result<Self, Unsealable> {
        let opened = self.open(record, sealed)?;
        Ok(Self::new(opened.as_slice().try_into().map_err(|_| Unsealable)?))
    }

    /// Seals `plain` with a fresh data key, which the master key wraps. `record` is the associated data: the bytes open
    /// for no other record.
    pub fn seal(&self, random: &Random, record: &str, plain: &[u8]) -> Vec<u8> {
        self.seal_after(vec![SEAL_VERSION], random, record, plain)
    }

    /// As [`MasterKey::seal`], and labels the bytes with the id of this key ([`KeyId::labelled_on`]).
    pub fn seal_labelled(&self, random: &Random, record: &str, plain: &[u8]) -> Vec<u8> {
        let mut head = vec![LABELLED_SEAL_VERSION];
        head.extend_from_slice(&self.id.0);
        self.seal_after(head, random, record, plain)
    }

    fn seal_after(&self, head: Vec<u8>, random: &Random, record: &str, plain: &[u8]) -> Vec<u8> {
        let data_key = Zeroizing::new(random.bytes::<KEY_BYTES>());
        let mut sealed = head;
        sealed.reserve_exact(WRAPPED_BYTES + NONCE_BYTES + plain.len() + TAG_BYTES);
        append_sealed(&self.wrapping, random, record, data_key.as_slice(), &mut sealed);
        append_sealed(&aead_key(&data_key), random, record, plain, &mut sealed);
        sealed
    }

    /// Opens bytes that [`MasterKey::seal`] or [`MasterKey::seal_labelled`] made for the same record.
    ///
    /// # Errors
    /// When the key or the record differ, or the bytes were altered.
    pub fn open(&self, record: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (&version, rest) = sealed.split_first().ok_or(Unsealable)?;
        let rest = match version {
            SEAL_VERSION => rest,
            LABELLED_SEAL_VERSION => rest.strip_prefix(&self.id.0).ok_or(Unsealable)?,
            _ => return Err(Unsealable),
        };
        let (wrapped, body) = rest.split_at_checked(WRAPPED_BYTES).ok_or(Unsealable)?;
        let data_key = open_one(&self.wrapping, record, wrapped)?;
        let data_key: &[u8; KEY_BYTES] = data_key.as_slice().try_into().map_err(|_| Unsealable)?;
        open_one(&aead_key(data_key), record, body)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

fn derive<const N: usize>(prk: &hkdf::Prk, purpose: &[u8]) -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    prk.expand(&[purpose], Length(N))
        .and_then(|okm| okm.fill(out.as_mut_slice()))
        .expect("the length is below the limit of HKDF");
    out
}

fn aead_key(bytes: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, bytes).expect("32 bytes are a key"))
}

fn append_sealed(key: &LessSafeKey, random: &Random, record: &str, plain: &[u8], out: &mut Vec<u8>) {
    let nonce = random.bytes::<NONCE_BYTES>();
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(record.as_bytes()), &mut body)
        .expect("the plaintext is below the limit of the cipher");
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
}

fn open_one(key: &LessSafeKey, record: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
    let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or(Unsealable)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealable)?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key.open_in_place(nonce, Aad::from(record.as_bytes()), &mut body).map_err(|_| Unsealable)?.len();
    body.truncate(length);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_open_only_with_their_key_and_record() {
        let random = Random::default();
        let key = MasterKey::new(&[7; 32]);
        let sealed = key.seal(&random, "whe_a/1", b"whsec_x");
        assert_eq!(key.open("whe_a/1", &sealed).unwrap().as_slice(), b"whsec_x");
        assert!(key.open("whe_b/1", &sealed).is_err());
        assert!(MasterKey::new(&[8; 32]).open("whe_a/1", &sealed).is_err());
        assert_nothing_altered_opens(&key, &sealed);
    }

    fn assert_nothing_altered_opens(key: &MasterKey, sealed: &[u8]) {
        for position in 0..sealed.len() {
            let mut altered = sealed.to_vec();
            altered[position] ^= 1;
            assert!(key.open("whe_a/1", &altered).is_err(), "byte {position}");
            assert!(key.open("whe_a/1", &sealed[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn labelled_bytes_name_their_key_and_open_only_with_it() {
        let (random, key) = (Random::default(), MasterKey::new(&[7; 32]));
        let sealed = key.seal_labelled(&random, "whe_a/1", b"whsec_x");
        assert_eq!(KeyId::labelled_on(&sealed), Some(key.id()));
        assert_eq!(KeyId::labelled_on(&key.seal(&random, "whe_a/1", b"whsec_x")), None);
        assert_eq!(KeyId::parse(&key.id().to_string()), Some(key.id()));
        assert_eq!(key.open("whe_a/1", &sealed).unwrap().as_slice(), b"whsec_x");
        assert!(MasterKey::new(&[8; 32]).open("whe_a/1", &sealed).is_err());
        assert_nothing_altered_opens(&key, &sealed);
    }

    #[test]
    fn a_key_sealed_under_another_is_the_same_key_when_opened() {
        let (random, key, other) = (Random::default(), MasterKey::new(&[7; 32]), MasterKey::new(&[8; 32]));
        let sealed = key.seal_key(&random, "next", &other);
        assert_eq!(key.open_key("next", &sealed).unwrap().id(), other.id());
        assert!(other.open_key("next", &sealed).is_err());
        assert!(key.open_key("next", &key.seal(&random, "next", &[1; 31])).is_err(), "not the bytes of a key");
    }

    #[test]
    fn sealing_the_same_text_twice_gives_different_bytes() {
        let (random, key) = (Random::default(), MasterKey::new(&[7; 32]));
        assert_ne!(key.seal(&random, "r", b"x"), key.seal(&random, "r", b"x"));
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_parts_are_joined() {
        let key = MasterKey::new(&[7; 32]);
        let (a, b) = (MacKey::new(&*key.derived("a")), MacKey::new(&*key.derived("b")));
        assert_ne!(a.sign(&[b"xy"]), b.sign(&[b"xy"]));
        assert_eq!(a.sign(&[b"xy"]), a.sign(&[b"x", b"", b"y"]));
    }

    #[test]
    fn debug_prints_no_key() {
        let key = MasterKey::new(&[7; 32]);
        let signing = SigningKey::from_seed(&[7; 32]);
        assert!(!format!("{key:?} {:?} {signing:?}", MacKey::new(&*key.derived("a"))).contains("07, 07"));
        assert_eq!(format!("{signing:?}"), "SigningKey(…)");
    }

    #[test]
    fn random_letters_cover_the_alphabet_and_units_are_below_one() {
        let random = Random::default();
        let letters = random.alphanumeric::<4096>();
        assert!(letters.iter().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase()));
        assert_eq!(letters.iter().collect::<std::collections::HashSet<_>>().len(), 36);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.unit())));
    }
}
