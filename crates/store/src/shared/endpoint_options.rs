//! What is asked of an endpoint's options, and what they become by it.

use crate::SealedOptions;
use postrider_domain::endpoint::SecretVersion;
use postrider_domain::endpoint_options::{EndpointOptions, OptionsChange};
use postrider_domain::private_options::HeaderName;

/// Why options were not changed.
pub enum OptionsRefusal {
    /// Nothing is stored of this header that could be kept.
    NothingToKeep(HeaderName),
    /// The key for `v1a` came for another version of the secret.
    Outrun,
}

/// What is asked of an endpoint's options.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub change: &'a OptionsChange,
    pub sealed: &'a SealedOptions,
    /// The version of the secret that signs now.
    pub secret_version: SecretVersion,
}

impl Asked<'_> {
    /// What the options become. Nothing is written yet.
    pub fn of(&self, now: &EndpointOptions) -> Result<EndpointOptions, OptionsRefusal> {
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
                _ => return Err(OptionsRefusal::Outrun),
            }
        }
        Ok(options)
    }
}
