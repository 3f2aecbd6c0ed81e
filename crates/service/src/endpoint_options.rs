//! The secret options of an endpoint: checked, then sealed before the store sees them.

use postrider_domain::endpoint::{SecretVersion, signing_key_record};
use postrider_domain::endpoint_options::SealedPart;
use postrider_domain::id::EndpointId;
use postrider_domain::private_options::{ClientCertificate, GivenHeader, PrivateOptions};
use postrider_domain::secret::SigningSecret;
use postrider_store::{SealedCertificate, SealedHeader, SealedKind, SealedOptions, SealedSigningKey};

use crate::error::ServiceError;
use crate::service::Service;

impl Service {
    /// # Errors
    /// When a header name is reserved or occurs twice, or the certificate cannot be used.
    pub(crate) fn sealed_options(
        &self,
        id: EndpointId,
        private: &PrivateOptions,
    ) -> Result<SealedOptions, ServiceError> {
        let headers = private.headers.as_deref().map(|headers| self.sealed_headers(id, headers)).transpose()?;
        let client_certificate = match &private.client_certificate {
            None => None,
            Some(None) => Some(None),
            Some(Some(certificate)) => Some(Some(self.sealed_certificate(id, certificate)?)),
        };
        Ok(SealedOptions { headers, client_certificate, signing_key: None })
    }

    fn sealed_headers(&self, id: EndpointId, headers: &[GivenHeader]) -> Result<Vec<SealedHeader>, ServiceError> {
        let fault = |header: &GivenHeader, what: &str| {
            ServiceError::unprocessable("headers", &format!("{} {what}", header.name.as_str()))
        };
        for (index, header) in headers.iter().enumerate() {
            if header.name.is_reserved(&self.catalogue.brand) {
                return Err(fault(header, "is reserved and cannot be set"));
            }
            if headers[..index].iter().any(|earlier| earlier.name.is_alike(&header.name)) {
                return Err(fault(header, "occurs twice: names that differ only in case, - and _ are the same"));
            }
        }
        let sealed = |header: &GivenHeader| {
            let record = SealedPart::Header(header.name.clone()).record(id);
            let seal = |text: &str| self.keyring.seal(&record, text.as_bytes());
            let sealed = header.value.as_ref().map(|value| seal(value.reveal()));
            SealedHeader { name: header.name.clone(), sealed }
        };
        Ok(headers.iter().map(sealed).collect())
    }

    fn sealed_certificate(
        &self,
        id: EndpointId,
        certificate: &ClientCertificate,
    ) -> Result<SealedCertificate, ServiceError> {
        let facts = self.guard.vet_client_certificate(certificate);
        let facts = facts.map_err(|fault| ServiceError::unprocessable("clientCertificate", &fault))?;
        let record = SealedPart::Certificate.record(id);
        let sealed = self.keyring.seal(&record, certificate.to_stored().as_bytes());
        Ok(SealedCertificate { facts, sealed })
    }

    /// A fresh key for the `v1a` signatures of one secret version.
    pub(crate) fn sealed_signing_key(&self, id: EndpointId, version: SecretVersion) -> SealedSigningKey {
        let secret = SigningSecret::generate(&self.random);
        let record = signing_key_record(id, version);
        let sealed = self.keyring.seal(&record, secret.reveal().as_bytes());
        SealedSigningKey { sealed, public_key: secret.public_key() }
    }
}

pub(crate) fn sealed_for_other_origin(kind: SealedKind) -> ServiceError {
    match kind {
        SealedKind::Headers => ServiceError::unprocessable(
            "headers",
            "must be given anew, without [redacted], or removed with null when the scheme, host or port of url changes",
        ),
        SealedKind::ClientCertificate => ServiceError::unprocessable(
            "clientCertificate",
            "must be given anew or removed with null when the scheme, host or port of url changes",
        ),
    }
}

pub(crate) fn nothing_to_keep(header: &str) -> ServiceError {
    ServiceError::unprocessable("headers", &format!("{header} has no stored value that could be kept"))
}
