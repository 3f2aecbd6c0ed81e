//! A JSON document that a caller sent: the body of a request, or the payload of a message.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use postrider_domain::json::canonicalise;

use crate::error::ServiceError;
use crate::fields::Fields;

/// A body that is exactly one unambiguous JSON value.
#[derive(Clone)]
pub struct JsonBody {
    bytes: Bytes,
    canonical: Bytes,
}

impl JsonBody {
    /// `depth` is how deeply arrays and objects may nest.
    ///
    /// # Errors
    /// When the bytes are not one JSON value in UTF-8, nest too deeply, or repeat a key in an object.
    pub fn parse(bytes: Bytes, depth: usize) -> Result<Self, ServiceError> {
        let canonical =
            canonicalise(&bytes, depth).map_err(|fault| ServiceError::invalid("body", fault.to_string()))?;
        Ok(Self { bytes, canonical: canonical.into() })
    }

    /// Bytes, as they came.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The items of the array under this name, in canonical form. Empty when there is no such array.
    pub fn canonical_items(&self, name: &str) -> Vec<&[u8]> {
        let members: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_slice(&self.canonical);
        let array = members.ok().and_then(|members| members.get(name).copied());
        let items: Option<Vec<&RawValue>> = array.and_then(|array| serde_json::from_str(array.get()).ok());
        items.unwrap_or_default().into_iter().map(|item| item.get().as_bytes()).collect()
    }

    /// SHA-256 of the canonical form.
    pub fn hash(&self) -> [u8; 32] {
        postrider_domain::idempotency::body_hash(&self.canonical)
    }

    /// The members of the object.
    ///
    /// # Errors
    /// When the body is not an object.
    pub fn fields(&self) -> Result<Fields<'_>, ServiceError> {
        Fields::of_body(&self.bytes)
    }
}
