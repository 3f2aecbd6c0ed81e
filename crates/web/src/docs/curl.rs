//! Samples that a reader can paste into a shell.

use serde_json::Value;

use super::document::{Document, items, members, pretty, text};

/// A call of an operation with its example body.
pub fn sample(document: Document<'_>, method: &str, path: &str, operation: &Value) -> String {
    let mut lines = vec![format!("curl --request {}", method.to_ascii_uppercase())];
    lines.push(format!("--url {}", quoted(&format!("{}{}", document.server_url(), filled(document, path)))));
    if operation["security"].as_array().is_none_or(|alternatives| !alternatives.is_empty()) {
        lines.push("--header 'Authorization: Bearer <token>'".to_owned());
    }
    if items(&operation["parameters"]).any(|parameter| text(document.resolve(parameter), "name") == "Idempotency-Key") {
        lines.push("--header 'Idempotency-Key: <a new one for each write>'".to_owned());
    }
    let media = &operation["requestBody"]["content"]["application/json"];
    if let Some((_, example)) = members(&media["examples"]).next() {
        lines.push("--header 'Content-Type: application/json'".to_owned());
        lines.push(format!("--data {}", quoted(&pretty(&example["value"]))));
    }
    lines.join(" \\\n  ")
}

/// The path with example values for its parameters.
fn filled(document: Document<'_>, path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
        None => segment,
        Some(name) => {
            let parameters = members(document.at("/components/parameters"));
            let parameter =
                parameters.map(|(_, parameter)| parameter).find(|parameter| text(parameter, "name") == name);
            let schema = parameter.map(|parameter| document.resolve(&parameter["schema"]));
            schema.and_then(|schema| schema["examples"][0].as_str()).unwrap_or(segment)
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

/// In single quotes, for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_an_example_does_not_end_the_argument() {
        assert_eq!(quoted("Tuesday's"), r"'Tuesday'\''s'");
    }
}
