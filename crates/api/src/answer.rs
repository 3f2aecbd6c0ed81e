//! The form of answers: one resource, a page of resources, or bare JSON.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use postrider_domain::page::{Page, encode_cursor};
use postrider_domain::time::Timestamp;

#[derive(Serialize)]
struct List<T> {
    data: Vec<T>,
    pagination: Pagination,
}

#[derive(Serialize)]
struct Pagination {
    next_cursor: Option<String>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    searched_to: Option<Timestamp>,
}

#[derive(Serialize)]
struct Single<T> {
    data: T,
}

/// A response with a JSON body, or without a body when `body` is empty.
pub fn answer(status: u16, body: Bytes) -> Response {
    let has_body = !body.is_empty();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if has_body {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

/// `{"data": […], "pagination": {…}}`.
pub fn list<'p, T, V: Serialize>(page: &'p Page<T>, view: impl Fn(&'p T) -> V) -> Bytes {
    json(&List {
        data: page.items.iter().map(view).collect(),
        pagination: Pagination {
            next_cursor: page.next.map(encode_cursor),
            has_more: page.next.is_some(),
            searched_to: page.searched_to,
        },
    })
}

/// `{"data": …}`.
pub fn single<T: Serialize>(data: T) -> Bytes {
    json(&Single { data })
}

/// Our views always serialise: their maps have only strings as keys.
pub fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}
