//! An endpoint's options: their sealed parts, and how a change applies to them.

use postrider_domain::endpoint::SecretVersion;
use postrider_domain::endpoint_options::{CertificateFacts, EndpointOptions, OptionsChange};
use postrider_domain::private_options::HeaderName;

use crate::{CreateEndpointError, StoreError, UpdateEndpointError};

/// The sealed options of a change. A `None` field keeps the stored value.
#[derive(Clone, Debug, Default)]
pub struct SealedOptions {
    /// The complete list of headers.
    pub headers: Option<Vec<SealedHeader>>,
    pub client_certificate: Option<Option<SealedCertificate>>,
    /// A key for the newest version of the secret, should it need one. Required whenever `v1a` is asked for.
    pub signing_key: Option<(SecretVersion, SealedSigningKey)>,
}

impl SealedOptions {
    /// Whether these change nothing.
    pub const fn is_empty(&self) -> bool {
        self.headers.is_none() && self.client_certificate.is_none()
    }
}

#[derive(Clone, Debug)]
pub struct SealedHeader {
    pub name: HeaderName,
    /// `None` keeps the stored value of this name.
    pub sealed: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub struct SealedCertificate {
    pub facts: CertificateFacts,
    pub sealed: Vec<u8>,
}

/// The sealed private key for `v1a` signatures, and the public key that verifies them.
#[derive(Clone, Debug)]
pub struct SealedSigningKey {
    pub sealed: Vec<u8>,
    pub public_key: String,
}

/// Why options were not changed.
#[derive(Debug, PartialEq, Eq)]
pub enum OptionsRefusal {
    /// The header was to keep its stored value, but has none.
    NothingToKeep(HeaderName),
    /// The key for `v1a` was made for another version of the secret.
    SecretVersionChanged,
    /// The endpoint gets another origin, and would keep what was sealed for the one before.
    SealedForOtherOrigin(SealedKind),
}

/// A kind of sealed options, by which a refusal names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedKind {
    Headers,
    ClientCertificate,
}

impl From<OptionsRefusal> for CreateEndpointError {
    fn from(refusal: OptionsRefusal) -> Self {
        match refusal {
            OptionsRefusal::NothingToKeep(name) => Self::NothingToKeep(name.as_str().to_owned()),
            OptionsRefusal::SecretVersionChanged => {
                Self::Store(StoreError::Broken("v1a was asked for without a key of the first version".into()))
            }
            OptionsRefusal::SealedForOtherOrigin(_) => {
                Self::Store(StoreError::Broken("a new endpoint cannot change its origin".into()))
            }
        }
    }
}

impl From<OptionsRefusal> for UpdateEndpointError {
    fn from(refusal: OptionsRefusal) -> Self {
        match refusal {
            OptionsRefusal::NothingToKeep(name) => Self::NothingToKeep(name.as_str().to_owned()),
            OptionsRefusal::SecretVersionChanged => Self::SecretVersionChanged,
            OptionsRefusal::SealedForOtherOrigin(kind) => Self::SealedForOtherOrigin(kind),
        }
    }
}

/// A change to the options of one endpoint.
#[derive(Clone, Copy)]
pub struct OptionsUpdate<'a> {
    pub change: &'a OptionsChange,
    pub sealed: &'a SealedOptions,
    /// The version of the secret that signs now.
    pub secret_version: SecretVersion,
    /// Whether the same change moves the endpoint to another origin.
    pub changes_origin: bool,
}

impl OptionsUpdate<'_> {
    /// The options after the change. Writes nothing.
    pub fn apply_to(&self, now: &EndpointOptions) -> Result<EndpointOptions, OptionsRefusal> {
        if let Some(kind) = self.kept_for_other_origin(now) {
            return Err(OptionsRefusal::SealedForOtherOrigin(kind));
        }
        let mut options = now.clone();
        options.apply(self.change);
        if let Some(headers) = &self.sealed.headers {
            let mut kept = headers.iter().filter(|header| header.sealed.is_none());
            if let Some(missing) = kept.find(|header| !now.headers.contains(&header.name)) {
                return Err(OptionsRefusal::NothingToKeep(missing.name.clone()));
            }
            options.headers = headers.iter().map(|header| header.name.clone()).collect();
        }
        if let Some(certificate) = &self.sealed.client_certificate {
            options.client_certificate = certificate.as_ref().map(|certificate| certificate.facts.clone());
        }
        if !self.sealed.is_empty() {
            options.sealed_version += 1;
        }
        if options.signature_schemes.has_v1a() && options.public_key.is_none() {
            match &self.sealed.signing_key {
                Some((version, key)) if *version == self.secret_version => {
                    options.public_key = Some(key.public_key.clone());
                }
                _ => return Err(OptionsRefusal::SecretVersionChanged),
            }
        }
        Ok(options)
    }

    /// A receiver must never get a credential that was given for another one. So a change of the origin replaces or
    /// removes every sealed option.
    fn kept_for_other_origin(&self, now: &EndpointOptions) -> Option<SealedKind> {
        let keeps_headers = match &self.sealed.headers {
            None => !now.headers.is_empty(),
            Some(headers) => headers.iter().any(|header| header.sealed.is_none() && now.headers.contains(&header.name)),
        };
        let keeps_certificate = self.sealed.client_certificate.is_none() && now.client_certificate.is_some();
        match self.changes_origin {
            true if keeps_headers => Some(SealedKind::Headers),
            true if keeps_certificate => Some(SealedKind::ClientCertificate),
            _ => None,
        }
    }
}
