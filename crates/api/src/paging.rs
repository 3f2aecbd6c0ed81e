//! Query strings and pages.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Uri;
use serde::Serialize;

use postrider_domain::id::RowKey;
use postrider_domain::page::{Page, PageRequest, encode_cursor};
use postrider_service::ServiceError;

/// A query string's parameters, taken out one by one.
pub struct Query {
    parameters: BTreeMap<String, String>,
    faults: Vec<(String, String)>,
}

impl Query {
    pub fn parse(uri: &Uri) -> Self {
        let mut query = Self { parameters: BTreeMap::new(), faults: Vec::new() };
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if query.parameters.insert(name.to_string(), value.into_owned()).is_some() {
                query.faults.push((name.into_owned(), "stands twice in the query".to_owned()));
            }
        }
        query
    }

    pub fn page(&mut self) -> Result<PageRequest, ServiceError> {
        let (limit, cursor) = (self.parameters.remove("limit"), self.parameters.remove("cursor"));
        Ok(PageRequest::parse(limit.as_deref(), cursor.as_deref())?)
    }

    pub fn optional<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.parameters.remove(name)?;
        parse(&text).map_err(|error| self.faults.push((name.to_owned(), error.to_string()))).ok()
    }

    /// Says what was wrong, parameters that nobody took included.
    pub fn finish(mut self) -> Result<(), ServiceError> {
        let unknown = self.parameters.into_keys().map(|name| (name, "is not a known parameter".to_owned()));
        self.faults.extend(unknown);
        if self.faults.is_empty() { Ok(()) } else { Err(ServiceError::InvalidRequest { parameters: self.faults }) }
    }
}

#[derive(Serialize)]
struct List<T> {
    data: Vec<T>,
    pagination: Pagination,
}

#[derive(Serialize)]
struct Pagination {
    next_cursor: Option<String>,
    has_more: bool,
}

#[derive(Serialize)]
struct Single<T> {
    data: T,
}

pub fn list<'p, T, V: Serialize>(page: &'p Page<T>, view: impl Fn(&'p T) -> V) -> Bytes {
    let next: Option<RowKey> = page.next;
    json(&List {
        data: page.items.iter().map(view).collect(),
        pagination: Pagination { next_cursor: next.map(encode_cursor), has_more: next.is_some() },
    })
}

pub fn single<T: Serialize>(data: T) -> Bytes {
    json(&Single { data })
}

/// Our own views always serialise: they hold no maps with other keys than strings.
pub fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}
