//! Reading the parameters of a query string.

use std::collections::BTreeMap;

use http::Uri;

use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::list_filter::ListFilter;
use postrider_domain::page::PageRequest;
use postrider_domain::visible::is_unprintable;
use postrider_service::fields::{UNKNOWN, cut};
use postrider_service::{ServiceError, known_event};

/// The parameters of a query string. Each is taken out once; `finish` reports all faults together.
pub struct Query {
    parameters: BTreeMap<String, String>,
    faults: Vec<(String, String)>,
}

pub const UNPRINTABLE: &str = "must not contain control characters, line separators or bidirectional overrides";

impl Query {
    pub fn parse(uri: &Uri) -> Self {
        let mut query = Self { parameters: BTreeMap::new(), faults: Vec::new() };
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            // `limit` and `cursor` have errors of their own, and their parsers let no such character through.
            let is_of_page = matches!(name.as_ref(), "limit" | "cursor");
            let fault = if !is_of_page && value.chars().any(is_unprintable) {
                // The value goes no further: one store could hold it, another could not.
                UNPRINTABLE
            } else if query.parameters.insert(name.to_string(), value.into_owned()).is_some() {
                "is given twice in the query"
            } else {
                continue;
            };
            if query.faults.len() < limits::UNKNOWN_FIELDS_SHOWN {
                query.faults.push((cut(&name), fault.to_owned()));
            }
        }
        query
    }

    /// `limit` and `cursor`.
    ///
    /// # Errors
    /// When one of them is out of range.
    pub fn page(&mut self) -> Result<PageRequest, ServiceError> {
        let (limit, cursor) = (self.parameters.remove("limit"), self.parameters.remove("cursor"));
        Ok(PageRequest::parse(limit.as_deref(), cursor.as_deref())?)
    }

    /// A parameter that may be absent.
    pub fn optional<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.parameters.remove(name)?;
        parse(&text).map_err(|error| self.faults.push((name.to_owned(), error.to_string()))).ok()
    }

    /// Refuses a parameter of a filter that the path sets.
    pub fn refuse(&mut self, name: &str) {
        if self.parameters.remove(name).is_some() {
            self.faults.push((name.to_owned(), UNKNOWN.to_owned()));
        }
    }

    /// The parameters of a filter.
    pub fn filter<F: ListFilter>(&mut self, catalogue: &Catalogue) -> F {
        let mut filter = F::default();
        for name in F::NAMES {
            let Some(text) = self.parameters.remove(*name) else { continue };
            if let Err(fault) = filter.set(name, &text, &|event| known_event(catalogue, event)) {
                self.faults.push(((*name).to_owned(), fault));
            }
        }
        filter
    }

    /// Call this after the last parameter was taken.
    ///
    /// # Errors
    /// All faults, including parameters that were not taken.
    pub fn finish(mut self) -> Result<(), ServiceError> {
        let unknown = self.parameters.into_keys().take(limits::UNKNOWN_FIELDS_SHOWN);
        self.faults.extend(unknown.map(|name| (cut(&name), UNKNOWN.to_owned())));
        if self.faults.is_empty() { Ok(()) } else { Err(ServiceError::InvalidRequest { parameters: self.faults }) }
    }
}
