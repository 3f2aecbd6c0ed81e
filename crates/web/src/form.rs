//! The fields of a form and of a query.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};

use postrider_domain::limits;
use postrider_service::ServiceError;

/// Fields by name. A name may be there several times: check boxes of one name.
#[derive(Clone, Debug, Default)]
pub struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    pub fn parse(encoded: &[u8]) -> Self {
        let mut fields = Self::default();
        for (name, value) in url::form_urlencoded::parse(encoded) {
            fields.0.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        fields
    }

    /// The same fields and one more: what a form shows before anything was typed.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.entry(name.to_owned()).or_default().push(value.into());
        self
    }

    /// The same fields without one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// Reads the body of a form, at most as large as any body.
    ///
    /// # Errors
    /// When it is larger, or breaks off.
    pub async fn read(body: Body) -> Result<Self, ServiceError> {
        Self::read_up_to(body, limits::BODY_BYTES).await
    }

    /// As [`Self::read`], with another limit in bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_up_to(body: Body, limit: usize) -> Result<Self, ServiceError> {
        let refused =
            |_| ServiceError::PayloadTooLarge(format!("The form is larger than {} KB, or broke off.", limit / 1024));
        Ok(Self::parse(&to_bytes(body, limit).await.map_err(refused)?))
    }

    /// The value of a field, without white space around it. `None` when it is absent or empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.raw(name).map(str::trim).filter(|text| !text.is_empty())
    }

    /// The value of a field as it was typed.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|values| values.first()).map(String::as_str)
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Whether a check box was ticked.
    pub fn is_on(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            fields.0.entry((*name).to_owned()).or_default().push((*value).to_owned());
        }
        fields
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())))
    }

    /// As a query, with one field changed or, for `None`, taken out: the filter is the URL.
    pub fn query_with(&self, name: &str, value: Option<&str>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (other, text) in self.iter().filter(|(other, text)| *other != name && !text.is_empty()) {
            query.append_pair(other, text);
        }
        if let Some(value) = value {
            query.append_pair(name, value);
        }
        query.finish()
    }
}
