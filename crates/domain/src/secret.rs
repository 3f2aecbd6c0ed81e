//! Plaintext secrets: webhook secrets and API keys. Short-lived, wiped on drop, never printed.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use postrider_crypto::{MacKey, Random, SigningKey};

use super::access::Mode;
use super::event_type::Brand;

/// An endpoint's signing secret: `whsec_` and base64. Generated ones have 64 lowercase hex digits, which are valid
/// base64.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<String>);

/// The text is not a prefix followed by the base64 of a key.
#[derive(Debug, thiserror::Error)]
#[error("a webhook secret is whsec_ or whsk_ followed by base64")]
pub struct InvalidSecret;

const PREFIX: &str = "whsec_";
const RANDOM_BYTES: usize = 32;

impl WebhookSecret {
    pub fn generate(random: &Random) -> Self {
        let bytes = Zeroizing::new(random.bytes::<RANDOM_BYTES>());
        Self(Zeroizing::new(format!("{PREFIX}{}", hex(bytes.as_slice()))))
    }

    /// # Errors
    /// When the text is not `whsec_` followed by base64.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The plaintext, for the one answer that shows it and for sealing.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn last4(&self) -> String {
        last4(&self.0)
    }

    /// The signing key: the decoded base64 after `whsec_`.
    pub fn mac_key(&self) -> MacKey {
        let encoded = self.0.strip_prefix(PREFIX).unwrap_or_default();
        let key = Zeroizing::new(BASE64_STANDARD.decode(encoded).unwrap_or_default());
        MacKey::new(&key)
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// The private key of an endpoint's `v1a` signatures: `whsk_` and the base64 of seed and public key. It is drawn
/// independently of the shared `v1` secret.
#[derive(Clone)]
pub struct SigningSecret(Zeroizing<[u8; SigningKey::SEED_BYTES]>);

const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

impl SigningSecret {
    pub fn generate(random: &Random) -> Self {
        Self(Zeroizing::new(random.bytes()))
    }

    /// # Errors
    /// When the text is not `whsk_` followed by the base64 of a seed and its own public key.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PRIVATE_PREFIX).ok_or(InvalidSecret)?;
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret)?);
        let (seed, public) = bytes.split_at_checked(SigningKey::SEED_BYTES).ok_or(InvalidSecret)?;
        let seed = Self(Zeroizing::new(seed.try_into().map_err(|_| InvalidSecret)?));
        if seed.key().public_key() == public { Ok(seed) } else { Err(InvalidSecret) }
    }

    /// The plaintext, for sealing.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend_from_slice(&self.key().public_key());
        Zeroizing::new(format!("{PRIVATE_PREFIX}{}", *Zeroizing::new(BASE64_STANDARD.encode(&*bytes))))
    }

    /// The public key that verifies its signatures: `whpk_` and base64. Not a secret.
    pub fn public_key(&self) -> String {
        format!("{PUBLIC_PREFIX}{}", BASE64_STANDARD.encode(self.key().public_key()))
    }

    pub fn key(&self) -> SigningKey {
        SigningKey::from_seed(&self.0)
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// A plaintext API key: `<brand>_sk_live_` or `<brand>_sk_test_` and 40 random letters and digits.
#[derive(Clone)]
pub struct ApiKeySecret(Zeroizing<String>);

impl ApiKeySecret {
    const LETTERS: usize = 40;

    /// Whether [`Self::generate`] can return this text.
    pub fn has_form_of_key(text: &str, brand: &Brand) -> bool {
        [Mode::Live, Mode::Test].iter().any(|mode| {
            text.strip_prefix(&brand.key_prefix(*mode)).is_some_and(|letters| {
                letters.len() == Self::LETTERS && letters.bytes().all(|letter| letter.is_ascii_alphanumeric())
            })
        })
    }

    pub fn generate(random: &Random, brand: &Brand, mode: Mode) -> Self {
        let letters = Zeroizing::new(random.alphanumeric::<{ Self::LETTERS }>());
        let letters = std::str::from_utf8(letters.as_slice()).unwrap_or_default();
        Self(Zeroizing::new(format!("{}{letters}", brand.key_prefix(mode))))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn last4(&self) -> String {
        last4(&self.0)
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeySecret(…)")
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn last4(text: &str) -> String {
    text[text.len().saturating_sub(4)..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_has_the_published_form() {
        let secret = WebhookSecret::generate(&Random::default());
        let letters = secret.reveal().strip_prefix("whsec_").unwrap();
        assert_eq!(letters.len(), 64);
        assert!(letters.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)));
        assert_eq!(BASE64_STANDARD.decode(letters).unwrap().len(), 48);
        assert!(letters.ends_with(&secret.last4()));
        assert!(WebhookSecret::parse(secret.reveal()).is_ok());
    }

    /// The key pair of the examples of Standard Webhooks.
    #[test]
    fn a_private_key_parses_back_and_has_its_public_key() {
        let text = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
        let secret = SigningSecret::parse(text).unwrap();
        assert_eq!(secret.public_key(), "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
        assert_eq!(*secret.reveal(), text);
        for bad in ["", "whsk_", "whsk_AAAA", "whsec_AAAA", &text.replace("6Xb", "6Xc"), &text[..50]] {
            assert!(SigningSecret::parse(bad).is_err(), "{bad}");
        }
        let (one, other) = (SigningSecret::generate(&Random::default()), SigningSecret::generate(&Random::default()));
        assert_ne!(one.public_key(), other.public_key());
    }

    #[test]
    fn debug_never_prints_a_secret() {
        let secret = WebhookSecret::generate(&Random::default());
        let key = ApiKeySecret::generate(&Random::default(), &Brand::default(), Mode::Test);
        assert!(ApiKeySecret::has_form_of_key(key.reveal(), &Brand::default()));
        for other in ["", "scripe_sk_test_", &format!("{}x", key.reveal()), &key.reveal()[1..]] {
            assert!(!ApiKeySecret::has_form_of_key(other, &Brand::default()), "{other}");
        }
        assert!(key.reveal().starts_with("scripe_sk_test_"));
        let signing = SigningSecret::generate(&Random::default());
        assert_eq!(format!("{signing:?}"), "SigningSecret(…)");
        let printed = format!("{secret:?} {key:?}");
        assert!(!printed.contains(&secret.last4()) && !printed.contains(&key.last4()), "{printed}");
    }
}
