//! Lists of the API, page by page, with every token of an item as the server wrote it.

use serde::Deserialize;
use serde_json::value::RawValue;
use url::form_urlencoded::Serializer;

use super::client::{ApiFailure, Client};

/// A list and its filters.
#[derive(Clone, Debug)]
pub struct List {
    path: String,
    filters: Vec<(String, String)>,
}

/// One page.
#[derive(Debug, Deserialize)]
pub struct Page {
    pub data: Vec<Box<RawValue>>,
    #[serde(default)]
    pagination: Pagination,
}

#[derive(Debug, Default, Deserialize)]
struct Pagination {
    next_cursor: Option<String>,
}

impl List {
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), filters: Vec::new() }
    }

    /// Narrows the list by a filter of the API. An empty value is left out.
    #[must_use]
    pub fn filter(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.filters.push((name.to_owned(), value));
        }
        self
    }

    /// The path of one page.
    pub fn path(&self, limit: u32, cursor: Option<&str>) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(&self.filters).append_pair("limit", &limit.to_string());
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        format!("{}?{}", self.path, query.finish())
    }

    /// Fetches one page.
    ///
    /// # Errors
    /// As [`Client::get_raw`].
    pub async fn page(&self, client: &mut Client, limit: u32, cursor: Option<&str>) -> Result<Page, ApiFailure> {
        Page::read(&client.get_raw(&self.path(limit, cursor)).await?)
    }
}

impl Page {
    /// # Errors
    /// When the answer is no list of the API.
    pub fn read(answer: &RawValue) -> Result<Self, ApiFailure> {
        serde_json::from_str(answer.get())
            .map_err(|source| ApiFailure::Unreadable { status: http::StatusCode::OK, source })
    }

    /// The cursor of the next page. `None`: this is the last one.
    pub fn next_cursor(&self) -> Option<&str> {
        self.pagination.next_cursor.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_encoded_and_empty_ones_left_out() {
        let list = List::new("/v1/events").filter("type", "a,b").filter("projectId", "").filter("q", "é &");
        assert_eq!(list.path(50, None), "/v1/events?type=a%2Cb&q=%C3%A9+%26&limit=50");
        assert_eq!(List::new("/v1/events").path(1, Some("a=")), "/v1/events?limit=1&cursor=a%3D");
    }
}
