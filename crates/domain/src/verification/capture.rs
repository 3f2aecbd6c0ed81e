//! A request out of a file: raw HTTP, an entry of a HAR file, a line of NDJSON, or a delivery as the API shows it.
//!
//! The body stays the bytes that the file holds. It must not be put into another form here: the search does that.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::WEBHOOK_SIGNATURE;
use super::request;

/// The headers and the body of a captured request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    pub headers: Vec<(String, String)>,
    /// `None`: the file holds no body.
    pub body: Option<Vec<u8>>,
}

/// Why a file holds no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCapture {
    #[error("is empty")]
    Empty,
    #[error("holds no headers: expected raw HTTP, an entry of a HAR file, or a line of NDJSON")]
    NoHeaders,
    #[error("holds {0} requests with a webhook-signature: leave only one of them")]
    Several(usize),
    #[error("its body is not base64")]
    Body,
}

/// Reads the request that a file holds.
///
/// # Errors
/// When there is none, or several.
pub fn read_capture(bytes: &[u8]) -> Result<Captured, InvalidCapture> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).ok_or(InvalidCapture::Empty)?;
    if matches!(bytes[start], b'{' | b'[') {
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(bytes).into_iter().collect();
        if let Ok(values) = values {
            return of_json(values);
        }
    }
    of_http(&bytes[start..])
}

/// A request as HTTP writes it. What `curl -v` prints in front of a line is left out.
fn of_http(bytes: &[u8]) -> Result<Captured, InvalidCapture> {
    let gaps: [&[u8]; 2] = [b"\r\n\r\n", b"\n\n"];
    let found = |gap: &&[u8]| bytes.windows(gap.len()).position(|window| window == *gap).map(|at| (at, at + gap.len()));
    let end = gaps.iter().filter_map(found).min();
    let (head, body) = end.map_or((bytes, None), |(head, body)| (&bytes[..head], Some(&bytes[body..])));
    let headers = request::read_headers(&String::from_utf8_lossy(head));
    if headers.is_empty() {
        return Err(InvalidCapture::NoHeaders);
    }
    // An editor ends a file with a line break, which is no part of the body.
    let length = value_of(&headers, "content-length").and_then(|length| length.trim().parse().ok());
    let body = body.map(|body| length.and_then(|length: usize| body.get(..length)).unwrap_or(body).to_vec());
    Ok(Captured { headers, body })
}

fn of_json(values: Vec<Value>) -> Result<Captured, InvalidCapture> {
    let mut found: Vec<Captured> = Vec::new();
    for value in &values {
        for candidate in candidates(value) {
            found.extend(captured(candidate)?);
        }
    }
    let signed = found.iter().filter(|one| value_of(&one.headers, WEBHOOK_SIGNATURE).is_some()).count();
    if signed > 1 {
        return Err(InvalidCapture::Several(signed));
    }
    let is_wanted = |one: &Captured| signed == 0 || value_of(&one.headers, WEBHOOK_SIGNATURE).is_some();
    found.into_iter().find(is_wanted).ok_or(InvalidCapture::NoHeaders)
}

/// The objects in a document that may be requests: the entries of a HAR file, the items of a list.
fn candidates(value: &Value) -> Vec<&Value> {
    if let Some(entries) = value["log"]["entries"].as_array() {
        return entries.iter().collect();
    }
    match value {
        Value::Array(items) => items.iter().collect(),
        other => vec![other],
    }
}

fn captured(value: &Value) -> Result<Option<Captured>, InvalidCapture> {
    let value = if value["data"]["attempts"].is_array() { &value["data"] } else { value };
    // A delivery: the last attempt that sent a request.
    if let Some(attempts) = value["attempts"].as_array() {
        let sent = attempts.iter().rev().map(|attempt| headers_of(&attempt["requestHeaders"]));
        return Ok(sent
            .into_iter()
            .find(|headers| !headers.is_empty())
            .map(|headers| Captured { headers, body: None }));
    }
    let request = if value["request"].is_object() { &value["request"] } else { value };
    let headers = headers_of(&request["headers"]);
    if headers.is_empty() {
        return Ok(None);
    }
    let text = |member: &Value| member.as_str().map(str::to_owned);
    let (encoded, plain) = if let Some(post_data) = request.get("postData") {
        let is_encoded = post_data["encoding"] == "base64";
        let content = text(&post_data["text"]);
        if is_encoded { (content, None) } else { (None, content) }
    } else if request.get("leaseToken").is_some() {
        (text(&request["body"]), None)
    } else {
        (text(&request["body_b64"]).or_else(|| text(&request["bodyBase64"])), text(&request["body"]))
    };
    let body = match encoded {
        Some(encoded) => Some(BASE64_STANDARD.decode(encoded.trim()).map_err(|_| InvalidCapture::Body)?),
        None => plain.map(String::into_bytes),
    };
    Ok(Some(Captured { headers, body }))
}

/// `[{"name": …, "value": …}]`, `[["name", "value"]]` or `{"name": "value"}`.
fn headers_of(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Array(items) => items.iter().filter_map(pair_of).collect(),
        Value::Object(_) => request::read_headers(&value.to_string()),
        _ => Vec::new(),
    }
}

fn pair_of(item: &Value) -> Option<(String, String)> {
    let (name, value) = match item {
        Value::Array(pair) => (pair.first()?, pair.get(1)?),
        other => (&other["name"], &other["value"]),
    };
    Some((name.as_str()?.to_owned(), value.as_str()?.to_owned()))
}

fn value_of<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn signed() -> Vec<(String, String)> {
        [("webhook-id", "evt_1"), ("webhook-signature", "v1,a")].map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec()
    }

    fn read(text: &str) -> Result<Captured, InvalidCapture> {
        read_capture(text.as_bytes())
    }

    fn captured_as(body: &str) -> Result<Captured, InvalidCapture> {
        Ok(Captured { headers: signed(), body: Some(body.as_bytes().to_vec()) })
    }

    #[test]
    fn raw_http_keeps_the_bytes_of_its_body() {
        let http = "POST /hooks HTTP/1.1\r\nwebhook-id: evt_1\r\nwebhook-signature: v1,a\r\n\r\n{\"a\":1}\r\n";
        assert_eq!(read(http), captured_as("{\"a\":1}\r\n"));
        let curl = "> POST /hooks HTTP/1.1\n> webhook-id: evt_1\n> webhook-signature: v1,a\n\n{\n\n}";
        assert_eq!(read(curl), captured_as("{\n\n}"));
        let bytes = [&b"webhook-id: evt_1\nwebhook-signature: v1,a\n\n"[..], &[0xff, 0, 0xfe]].concat();
        assert_eq!(read_capture(&bytes).unwrap().body.unwrap(), [0xff, 0, 0xfe]);
    }

    #[test]
    fn a_stated_length_ends_the_body() {
        let read = |length: &str| read(&format!("a: b\ncontent-length: {length}\n\n{{}}\n")).unwrap().body.unwrap();
        assert_eq!(read("2"), b"{}");
        assert_eq!((read("9"), read("x")), (b"{}\n".to_vec(), b"{}\n".to_vec()));
    }

    #[test]
    fn an_entry_of_a_har_file_is_read() {
        let headers = json!([{"name": "webhook-id", "value": "evt_1"}, {"name": "webhook-signature", "value": "v1,a"}]);
        let entry = json!({"request": {"headers": headers, "postData": {"text": "{}"}}, "response": {"headers": []}});
        assert_eq!(read(&entry.to_string()), captured_as("{}"));
        let other = json!({"request": {"headers": [{"name": "accept", "value": "*"}]}});
        let file = json!({"log": {"entries": [other, entry]}});
        assert_eq!(read(&format!("{file:#}")), captured_as("{}"));
        let file = json!({"log": {"entries": [entry, entry]}});
        assert_eq!(read(&file.to_string()), Err(InvalidCapture::Several(2)));
        let encoded = json!({"request": {"headers": headers, "postData": {"text": "e30=", "encoding": "base64"}}});
        assert_eq!(read(&encoded.to_string()), captured_as("{}"));
    }

    #[test]
    fn a_line_of_ndjson_has_its_body_in_base64() {
        let headers = json!({"webhook-id": "evt_1", "webhook-signature": "v1,a"});
        let line = json!({"kind": "event", "headers": headers, "body_b64": "e30="});
        assert_eq!(read(&format!("{{\"kind\":\"ready\"}}\n{line}\n")), captured_as("{}"));
        assert_eq!(read(&format!("{line}\n{line}\n")), Err(InvalidCapture::Several(2)));
        let pairs = json!({"headers": [["webhook-id", "evt_1"], ["webhook-signature", "v1,a"]], "body": "{}"});
        assert_eq!(read(&pairs.to_string()), captured_as("{}"));
        let bad = json!({"headers": headers, "body_b64": "!"});
        assert_eq!(read(&bad.to_string()), Err(InvalidCapture::Body));
        let leased = json!({"leaseToken": "t", "headers": headers, "body": "e30="});
        assert_eq!(read(&leased.to_string()), captured_as("{}"));
    }

    #[test]
    fn a_delivery_has_the_headers_of_its_last_request() {
        let headers = |id: &str| json!([{"name": "webhook-id", "value": id}]);
        let attempts =
            json!([{"requestHeaders": headers("first")}, {"requestHeaders": headers("evt_1")}, {"error": "x"}]);
        let expected = Captured { headers: vec![("webhook-id".to_owned(), "evt_1".to_owned())], body: None };
        let delivery = json!({"id": "dlv_1", "attempts": attempts});
        assert_eq!(read(&delivery.to_string()), Ok(expected.clone()));
        assert_eq!(read(&json!({"data": delivery}).to_string()), Ok(expected));
    }

    #[test]
    fn a_file_without_a_request_is_refused() {
        assert_eq!(read(" \n"), Err(InvalidCapture::Empty));
        assert_eq!(read("hello"), Err(InvalidCapture::NoHeaders));
        assert_eq!(read("{\"a\":1}"), Err(InvalidCapture::NoHeaders));
    }
}
