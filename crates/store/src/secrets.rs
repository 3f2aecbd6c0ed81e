//! Sealed secrets and options of an endpoint, as the engine reads them to sign and send. Nothing here is plain text.

use async_trait::async_trait;

use postrider_domain::endpoint::SecretVersion;
use postrider_domain::id::RowKey;
use postrider_domain::private_options::HeaderName;

use crate::StoreError;

/// The sealed options of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedParts {
    /// As in [`EndpointOptions`](postrider_domain::endpoint_options::EndpointOptions).
    pub version: u32,
    /// The endpoint's URL at this version. The parts are for its origin alone.
    pub url: String,
    /// In the order in which the caller gave them.
    pub headers: Vec<(HeaderName, Vec<u8>)>,
    pub client_certificate: Option<Vec<u8>>,
}

#[async_trait]
pub trait Secrets: Send + Sync + 'static {
    /// The sealed secret of this version. `None` once it is erased.
    async fn find_secret(&self, endpoint_key: RowKey, version: SecretVersion) -> Result<Option<Vec<u8>>, StoreError>;

    /// The sealed private key for `v1a` signatures of this version. `None` if it has none or it is erased.
    async fn find_signing_key(
        &self,
        endpoint_key: RowKey,
        version: SecretVersion,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// The sealed options of an endpoint. `None` once it is deleted.
    async fn find_sealed_parts(&self, endpoint_key: RowKey) -> Result<Option<SealedParts>, StoreError>;
}
