//! The forms of a body that usual mistakes make, and undo.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::json_form::{JsonForm, JsonText};
use super::secret_form::LENIENT;

/// A body made from the given one. Its bytes are those that the signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    AsGiven,
    /// Without the line break at its end.
    WithoutFinalLineBreak,
    WithFinalLineBreak,
    WithoutSpaceAround,
    /// With `\n` in place of `\r\n`.
    LineFeeds,
    /// With `\r\n` in place of `\n`.
    CarriageReturns,
    WithoutByteOrderMark,
    WithByteOrderMark,
    /// Parsed as JSON and written again.
    Json(JsonForm),
    /// The text inside a JSON string.
    StringContent,
    /// The body as one JSON string.
    AsString,
    /// The bytes that Python shows as `b'…'`.
    PythonContent,
    /// `b'…'`, as Python shows bytes.
    AsPython,
    /// `[object Object]`, as JavaScript shows an object.
    AsObjectText,
    Base64Content,
    AsBase64,
    /// Percent signs and plus signs decoded, as of a form.
    FormContent,
    /// Read as UTF-8 and not as Latin-1.
    Utf8Content,
    /// Read as Latin-1 and written as UTF-8.
    AsLatin1,
    /// Only the member `data`.
    Data,
    /// Nothing.
    Empty,
}

/// Every form of a body that differs from the body, the likeliest first.
pub fn of(body: &[u8]) -> Vec<(BodyForm, Vec<u8>)> {
    let mut forms: Vec<(BodyForm, Vec<u8>)> = Vec::new();
    let mut add = |form, bytes: Option<Vec<u8>>| {
        if let Some(bytes) = bytes
            && bytes != body
            && forms.iter().all(|(_, known)| *known != bytes)
        {
            forms.push((form, bytes));
        }
    };
    add(BodyForm::WithoutFinalLineBreak, Some(without_final_line_break(body).to_vec()));
    add(BodyForm::WithFinalLineBreak, Some([body, b"\n"].concat()));
    add(BodyForm::WithoutSpaceAround, Some(body.trim_ascii().to_vec()));
    add(BodyForm::LineFeeds, Some(with_lf(body)));
    add(BodyForm::CarriageReturns, Some(with_crlf(body)));
    add(BodyForm::WithoutByteOrderMark, body.strip_prefix(BYTE_ORDER_MARK).map(<[u8]>::to_vec));
    add(BodyForm::WithByteOrderMark, Some([BYTE_ORDER_MARK, body].concat()));
    add(BodyForm::Empty, Some(Vec::new()));
    add(BodyForm::AsObjectText, Some(b"[object Object]".to_vec()));
    let json = JsonText::read(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body));
    if let Some(json) = &json {
        for form in JsonForm::all() {
            add(BodyForm::Json(form), Some(json.write(form)));
        }
        add(BodyForm::Data, json.data());
    }
    add(BodyForm::StringContent, serde_json::from_slice::<String>(body).ok().map(String::into_bytes));
    add(BodyForm::AsString, as_text(body).and_then(|text| serde_json::to_vec(text).ok()));
    add(BodyForm::PythonContent, python_content(body));
    add(BodyForm::AsPython, Some(as_python(body)));
    add(BodyForm::Base64Content, LENIENT.decode(body.trim_ascii()).ok());
    add(BodyForm::AsBase64, Some(BASE64_STANDARD.encode(body).into_bytes()));
    add(BodyForm::FormContent, form_content(body));
    add(BodyForm::Utf8Content, as_text(body).and_then(latin1_bytes));
    add(BodyForm::AsLatin1, Some(body.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes()));
    forms
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

pub fn with_crlf(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    for byte in with_lf(body) {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

fn with_lf(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    for (index, byte) in body.iter().enumerate() {
        if !(*byte == b'\r' && body.get(index + 1) == Some(&b'\n')) {
            out.push(*byte);
        }
    }
    out
}

fn without_final_line_break(body: &[u8]) -> &[u8] {
    body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n")).unwrap_or(body)
}

fn as_text(body: &[u8]) -> Option<&str> {
    std::str::from_utf8(body).ok()
}

/// The bytes of a text whose characters are all in Latin-1. `None` for plain ASCII, which is the same in both.
fn latin1_bytes(text: &str) -> Option<Vec<u8>> {
    if text.is_ascii() { None } else { text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect() }
}

/// As `repr` of Python writes bytes.
fn as_python(body: &[u8]) -> Vec<u8> {
    let quote = if body.contains(&b'\'') && !body.contains(&b'"') { b'"' } else { b'\'' };
    let mut out = vec![b'b', quote];
    for &byte in body {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b' '..=b'~' if byte != quote => out.push(byte),
            _ if byte == quote => out.extend_from_slice(&[b'\\', byte]),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(quote);
    out
}

/// The bytes that `b'…'` stands for.
fn python_content(body: &[u8]) -> Option<Vec<u8>> {
    let inner = body.trim_ascii().strip_prefix(b"b")?;
    let inner = [b"'", b"\""].iter().find_map(|quote| inner.strip_prefix(*quote)?.strip_suffix(*quote))?;
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first()?;
        rest = after;
        out.push(match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits = rest.get(..2)?;
                rest = &rest[2..];
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(out)
}

/// A body that was percent-encoded, alone or as the first name of a form.
fn form_content(body: &[u8]) -> Option<Vec<u8>> {
    if !body.contains(&b'%') {
        return None;
    }
    let (name, value) = url::form_urlencoded::parse(body.trim_ascii()).next()?;
    // A form takes JSON for a name without a value, or puts it into a field of its own.
    Some(if value.is_empty() { name.into_owned().into_bytes() } else { value.into_owned().into_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &[u8], form: BodyForm) -> Option<Vec<u8>> {
        of(body).into_iter().find(|(found, _)| *found == form).map(|(_, bytes)| bytes)
    }

    #[test]
    fn bytes_as_python_shows_them_are_read_back() {
        for bytes in [&b"{\"a\": \"it's\"}\n"[..], b"it's", b"\\ \t\r\x00\xff", "é😀".as_bytes()] {
            let shown = as_python(bytes);
            assert_eq!(python_content(&shown).as_deref(), Some(bytes), "{}", String::from_utf8_lossy(&shown));
        }
        assert_eq!(as_python(br#"{"a":"it's"}"#), br#"b'{"a":"it\'s"}'"#);
        assert_eq!(as_python(b"it's"), br#"b"it's""#);
        assert_eq!(python_content(b"b'\\x4'"), None);
        assert_eq!(python_content(b"'a'"), None);
    }

    #[test]
    fn a_form_is_listed_once_and_never_equals_the_body() {
        for body in [&b""[..], b"{}", b"{\"a\":1}\r\n", b"\xff\xfe", b"b''", b"%7B%22a%22%3A1%7D=", b"\xef\xbb\xbf{}"] {
            let forms = of(body);
            assert!(forms.iter().all(|(_, bytes)| bytes != body));
            let mut bytes: Vec<_> = forms.iter().map(|(_, bytes)| bytes).collect();
            bytes.sort();
            bytes.dedup();
            assert_eq!(bytes.len(), forms.len());
        }
    }

    #[test]
    fn what_a_mistake_made_is_undone() {
        let body = br#"{"a":"b c"}"#;
        assert_eq!(form(b"%7B%22a%22%3A%22b+c%22%7D=", BodyForm::FormContent).unwrap(), body);
        assert_eq!(form(b"payload=%7B%22a%22%3A%22b+c%22%7D", BodyForm::FormContent).unwrap(), body);
        assert_eq!(form(b"eyJhIjoiYiBjIn0=", BodyForm::Base64Content).unwrap(), body);
        assert_eq!(form(br#""{\"a\":\"b c\"}""#, BodyForm::StringContent).unwrap(), body);
        assert_eq!(form(b"\xef\xbb\xbf{}", BodyForm::WithoutByteOrderMark).unwrap(), b"{}");
        assert_eq!(form("{\"a\":\"Ã©\"}".as_bytes(), BodyForm::Utf8Content).unwrap(), "{\"a\":\"é\"}".as_bytes());
        assert_eq!(form("é".as_bytes(), BodyForm::AsLatin1).unwrap(), "Ã©".as_bytes());
        assert_eq!(form(b"a\r\nb", BodyForm::LineFeeds).unwrap(), b"a\nb");
        assert_eq!(form(b"a\nb", BodyForm::CarriageReturns).unwrap(), b"a\r\nb");
    }
}
