//! The headers and the body of a request, from what people copy: raw HTTP, the output of curl, an object that a program
//! printed.

use serde_json::Value;

/// The headers in a text, in their order. Lines that are no header are left out.
pub fn read_headers(text: &str) -> Vec<(String, String)> {
    if let Some(headers) = as_object(text) {
        return headers;
    }
    text.lines().filter_map(header_of).collect()
}

/// A whole request: its headers, and what follows the first empty line.
pub fn read_request(text: &str) -> (Vec<(String, String)>, Option<&str>) {
    let text = text.trim_start();
    let end = ["\r\n\r\n", "\n\n"].iter().filter_map(|gap| text.find(gap).map(|at| (at, at + gap.len()))).min();
    match end {
        // An object may hold empty lines, and has no body behind it.
        Some((head, body)) if !text.starts_with('{') => (read_headers(&text[..head]), Some(&text[body..])),
        _ => (read_headers(text), None),
    }
}

/// `{"webhook-id": "…"}` of JavaScript, Python or Ruby.
fn as_object(text: &str) -> Option<Vec<(String, String)>> {
    let text = text.trim();
    if !text.starts_with('{') {
        return None;
    }
    let object = serde_json::from_str(text).or_else(|_| serde_json::from_str(&text.replace('\'', "\"")));
    let Ok(Value::Object(members)) = object else { return None };
    let mut headers = Vec::new();
    for (name, value) in members {
        match value {
            Value::String(value) => headers.push((name, value)),
            Value::Array(values) => {
                let values = values.into_iter().filter_map(|value| value.as_str().map(str::to_owned));
                headers.extend(values.map(|value| (name.clone(), value)));
            }
            Value::Number(value) => headers.push((name, value.to_string())),
            _ => {}
        }
    }
    Some(headers)
}

/// `name: value`, also as an option of curl, as a line of its output, or as a member of an object.
fn header_of(line: &str) -> Option<(String, String)> {
    let line = line.trim().trim_end_matches(['\\', ',']).trim_end();
    let line = ["> ", "< ", "-H ", "--header "].iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(line);
    // An option is quoted whole, a member of an object in two parts.
    let whole = ['\'', '"'].iter().find_map(|quote| line.strip_prefix(*quote)?.strip_suffix(*quote));
    let line = whole.filter(|inner| !inner.contains(['"', '\''])).unwrap_or(line);
    let (name, value) = line.split_once("=>").or_else(|| line.split_once(':'))?;
    let plain = |text: &str| text.trim().trim_matches(['"', '\'', '`']).to_owned();
    let name = plain(name);
    let is_name = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    is_name.then(|| (name, plain(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: [(&str, &str); 3] =
        [("webhook-id", "evt_a"), ("webhook-timestamp", "1614265330"), ("webhook-signature", "v1,AAA= v1,BBB=")];

    #[test]
    fn headers_are_read_from_what_people_copy() {
        for text in [
            "POST /hooks HTTP/1.1\r\nwebhook-id: evt_a\r\nwebhook-timestamp: 1614265330\r\nwebhook-signature: v1,AAA= v1,BBB=",
            "> POST /hooks HTTP/1.1\n> webhook-id: evt_a\n> webhook-timestamp: 1614265330\n> webhook-signature: v1,AAA= v1,BBB=\n>",
            "curl https://a.example \\\n -H 'webhook-id: evt_a' \\\n --header \"webhook-timestamp: 1614265330\" \\\n -H 'webhook-signature: v1,AAA= v1,BBB='",
            "{\n  'webhook-id': 'evt_a',\n  'webhook-timestamp': '1614265330',\n  'webhook-signature': 'v1,AAA= v1,BBB='\n}",
            "{'webhook-id': 'evt_a',\n  'webhook-timestamp': '1614265330', 'webhook-signature': 'v1,AAA= v1,BBB='\n}",
            "{\"webhook-id\":[\"evt_a\"],\"webhook-timestamp\":1614265330,\"webhook-signature\":\"v1,AAA= v1,BBB=\"}",
            "\"webhook-id\" => \"evt_a\",\n\"webhook-timestamp\" => \"1614265330\",\n\"webhook-signature\" => \"v1,AAA= v1,BBB=\",",
        ] {
            let mut headers = read_headers(text);
            headers.retain(|(name, _)| name.starts_with("webhook"));
            headers.sort();
            let mut expected = NAMED.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            expected.sort();
            assert_eq!(headers, expected, "{text}");
        }
        assert_eq!(read_headers("no header\n\n: x\n"), []);
    }

    #[test]
    fn the_body_follows_the_first_empty_line() {
        let (headers, body) = read_request("\nPOST / HTTP/1.1\nwebhook-id: a\n\n{\"a\":\n\n1}");
        assert_eq!((headers.len(), body), (1, Some("{\"a\":\n\n1}")));
        assert_eq!(read_request("webhook-id: a\r\n\r\n{}").1, Some("{}"));
        assert_eq!(read_request("webhook-id: a\n").1, None);
    }
}
