//! A strict JSON reader: refuses ambiguous input and returns the canonical form.
//!
//! The canonical form serves to compare bodies. Object keys are sorted by UTF-16 unit, insignificant white space is
//! removed, number and string tokens are kept verbatim. So `9007199254740993` and `9007199254740992` stay different,
//! and so do `1.0` and `1`. A general library would round numbers and keep the last of two equal keys.
//!
//! A string may hold any `\u` escape, unpaired surrogates included: RFC 8259 allows them, and published `data` goes out
//! as the bytes that came in. A field that becomes text of ours refuses them, because no Unicode text has them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use super::limits;

/// Why a text is refused, and at which byte offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonFault {
    pub kind: JsonFaultKind,
    pub offset: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonFaultKind {
    /// The text violates the grammar of RFC 8259. Contains what was expected.
    Syntax(&'static str),
    NotUtf8,
    TooDeep {
        limit: usize,
    },
    /// The objects that are open at this place have too many members.
    TooManyMembers,
    DuplicateKey(String),
}

impl fmt::Display for JsonFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(expected) => write!(f, "malformed JSON: expected {expected}"),
            Self::NotUtf8 => f.write_str("malformed JSON: not UTF-8"),
            Self::TooDeep { limit } => write!(f, "JSON nests deeper than {limit} levels"),
            Self::TooManyMembers => write!(f, "JSON objects have more than {} members", limits::JSON_OPEN_MEMBERS),
            Self::DuplicateKey(key) => write!(f, "the key {key:?} stands twice in one object"),
        }
    }
}

/// Checks `bytes` and returns the canonical form.
///
/// # Errors
/// When the bytes are not exactly one JSON value in UTF-8, nest deeper than `depth_limit`, or contain an object with
/// two equal keys.
pub fn canonicalise(bytes: &[u8], depth_limit: usize) -> Result<Vec<u8>, JsonFault> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JsonFault { kind: JsonFaultKind::NotUtf8, offset: error.valid_up_to() })?;
    let mut reader = Reader {
        text: text.as_bytes(),
        position: 0,
        depth_limit,
        open_members: 0,
        canonical: Vec::with_capacity(text.len()),
    };
    reader.skip_space();
    reader.value(0)?;
    reader.skip_space();
    if reader.position == reader.text.len() { Ok(reader.canonical) } else { Err(reader.expected("the end")) }
}

/// Replaces each escape of an unpaired surrogate by `\ufffd`, in JSON that was checked before. For readers that need
/// Unicode text.
pub fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut whole = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = json[at..].find('\\') {
        at += found;
        let unit = unit_at(json, at);
        let is_pair =
            || matches!(unit, Some(0xd800..=0xdbff)) && matches!(unit_at(json, at + 6), Some(0xdc00..=0xdfff));
        match unit {
            None => at += 2,
            Some(_) if is_pair() => at += 12,
            Some(0xd800..=0xdfff) => {
                whole.push_str(&json[copied..at]);
                whole.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            Some(_) => at += 6,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    whole.push_str(&json[copied..]);
    Cow::Owned(whole)
}

/// The unit of the `\uXXXX` at `position`, if there is one.
fn unit_at(text: &str, position: usize) -> Option<u16> {
    let digits = text.get(position..position + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

/// The UTF-16 units of the inside of a string token that was checked before.
fn units_of(token: &str) -> Vec<u16> {
    let mut units = Vec::with_capacity(token.len());
    let mut rest = token;
    while let Some(first) = rest.chars().next() {
        let length = match (first, unit_at(rest, 0)) {
            ('\\', Some(unit)) => {
                units.push(unit);
                6
            }
            ('\\', None) => {
                let escaped: Option<String> = serde_json::from_str(&format!("\"{}\"", &rest[..2])).ok();
                units.extend(escaped.unwrap_or_default().encode_utf16());
                2
            }
            _ => {
                units.extend(first.encode_utf16(&mut [0; 2]).iter());
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    units
}

struct Reader<'t> {
    text: &'t [u8],
    position: usize,
    depth_limit: usize,
    /// Members of all objects that are not closed yet. Each takes memory.
    open_members: usize,
    canonical: Vec<u8>,
}

/// A decoded key, and the position of its `"key":value` in the canonical bytes.
struct Member<'t> {
    key: Key<'t>,
    position: Range<usize>,
}

#[derive(Debug)]
enum Key<'t> {
    Text(Cow<'t, str>),
    /// UTF-16 units with an unpaired surrogate.
    Units(Vec<u16>),
}

impl Key<'_> {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.encode_utf16().cmp(b.encode_utf16()),
            (Self::Units(a), Self::Units(b)) => a.cmp(b),
            (Self::Text(a), Self::Units(b)) => a.encode_utf16().cmp(b.iter().copied()),
            (Self::Units(a), Self::Text(b)) => a.iter().copied().cmp(b.encode_utf16()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.chars().take(limits::DUPLICATE_KEY_CHARS).collect(),
            Self::Units(units) => String::from_utf16_lossy(units).chars().take(limits::DUPLICATE_KEY_CHARS).collect(),
        }
    }
}

impl<'t> Reader<'t> {
    fn value(&mut self, depth: usize) -> Result<(), JsonFault> {
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => {
                let token = self.string()?;
                self.canonical.extend_from_slice(&self.text[token]);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(self.expected("a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonFault> {
        self.enter(depth)?;
        let start = self.canonical.len();
        let mut members: Vec<Member<'t>> = Vec::new();
        self.skip_space();
        if self.take(b'}') {
            self.canonical.extend_from_slice(b"{}");
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key in double quotes"));
            }
            let member_start = self.canonical.len();
            let token = self.string()?;
            let key = self.unescape(&token);
            self.canonical.extend_from_slice(&self.text[token]);
            self.skip_space();
            if !self.take(b':') {
                return Err(self.expected("a colon"));
            }
            self.canonical.push(b':');
            self.skip_space();
            self.value(depth)?;
            self.open_members += 1;
            if self.open_members > limits::JSON_OPEN_MEMBERS {
                return Err(self.fault(JsonFaultKind::TooManyMembers));
            }
            members.push(Member { key, position: member_start..self.canonical.len() });
            self.skip_space();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(self.expected("a comma or a closing brace"));
            }
            self.skip_space();
        }
        self.open_members -= members.len();
        self.close_object(start, members)
    }

    /// Writes the members in the order of their keys, with braces and commas.
    fn close_object(&mut self, start: usize, mut members: Vec<Member<'t>>) -> Result<(), JsonFault> {
        members.sort_by(|a, b| a.key.compare(&b.key));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].key.compare(&pair[1].key).is_eq()) {
            let key = pair[0].key.shown();
            return Err(JsonFault { kind: JsonFaultKind::DuplicateKey(key), offset: self.position });
        }
        let unsorted = self.canonical.split_off(start);
        self.canonical.push(b'{');
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                self.canonical.push(b',');
            }
            self.canonical.extend_from_slice(&unsorted[member.position.start - start..member.position.end - start]);
        }
        self.canonical.push(b'}');
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonFault> {
        self.enter(depth)?;
        self.canonical.push(b'[');
        self.skip_space();
        if self.take(b']') {
            self.canonical.push(b']');
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.skip_space();
            if self.take(b']') {
                self.canonical.push(b']');
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("a comma or a closing bracket"));
            }
            self.canonical.push(b',');
            self.skip_space();
        }
    }

    /// Consumes the opening bracket.
    fn enter(&mut self, depth: usize) -> Result<(), JsonFault> {
        if depth > self.depth_limit {
            return Err(self.fault(JsonFaultKind::TooDeep { limit: self.depth_limit }));
        }
        self.position += 1;
        Ok(())
    }

    /// Consumes a string and returns the range of its token, with quotes.
    fn string(&mut self) -> Result<Range<usize>, JsonFault> {
        let start = self.position;
        self.position += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(start..self.position);
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) | None => return Err(self.expected("a closing quote")),
                Some(_) => self.position += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        match self.text.get(self.position + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.position += 2;
                Ok(())
            }
            Some(b'u') => {
                self.hex_unit(self.position)?;
                self.position += 6;
                Ok(())
            }
            _ => Err(self.expected("an escape that JSON knows")),
        }
    }

    /// The code unit of the `\uXXXX` at `position`.
    fn hex_unit(&self, position: usize) -> Result<u16, JsonFault> {
        let digits = match self.text.get(position..position + 6) {
            Some([b'\\', b'u', digits @ ..]) if digits.iter().all(u8::is_ascii_hexdigit) => digits,
            _ => return Err(self.expected("four hexadecimal digits after \\u")),
        };
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        u16::from_str_radix(digits, 16).map_err(|_| self.expected("four hexadecimal digits after \\u"))
    }

    /// Decodes a key token that was checked before.
    fn unescape(&self, token: &Range<usize>) -> Key<'t> {
        let inner = &self.text[token.start + 1..token.end - 1];
        let verbatim = std::str::from_utf8(inner).unwrap_or_default();
        if !inner.contains(&b'\\') {
            return Key::Text(Cow::Borrowed(verbatim));
        }
        match serde_json::from_slice(&self.text[token.clone()]) {
            Ok(text) => Key::Text(Cow::Owned(text)),
            // The grammar was checked, so only an unpaired surrogate is left.
            Err(_) => Key::Units(units_of(verbatim)),
        }
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        let start = self.position;
        self.take(b'-');
        match self.peek() {
            Some(b'0') => self.position += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.expected("a digit")),
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        self.canonical.extend_from_slice(&self.text[start..self.position]);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let start = self.position;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
        if self.position > start { Ok(()) } else { Err(self.expected("a digit")) }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), JsonFault> {
        if !self.text[self.position..].starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.position += word.len();
        self.canonical.extend_from_slice(word);
        Ok(())
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.position += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    fn expected(&self, what: &'static str) -> JsonFault {
        self.fault(JsonFaultKind::Syntax(what))
    }

    fn fault(&self, kind: JsonFaultKind) -> JsonFault {
        JsonFault { kind, offset: self.position }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Result<String, JsonFaultKind> {
        canonicalise(text.as_bytes(), 64).map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|fault| fault.kind)
    }

    #[test]
    fn keys_are_sorted_space_is_removed_tokens_stay_verbatim() {
        assert_eq!(
            canonical(" { \"b\" : [ 1.0 , 1e2 ],\n\"a\": {\"d\":\"\\u0041\", \"c\":null} } ").unwrap(),
            r#"{"a":{"c":null,"d":"\u0041"},"b":[1.0,1e2]}"#
        );
    }

    #[test]
    fn numbers_beyond_the_precision_of_a_double_stay_different() {
        assert_ne!(canonical("9007199254740993"), canonical("9007199254740992"));
        assert_ne!(canonical("1.0"), canonical("1"));
    }

    #[test]
    fn keys_sort_by_utf16_unit_not_by_code_point() {
        // U+10000 is D800 DC00 in UTF-16, below U+FFFD; by code point it would be above.
        assert_eq!(canonical("{\"\u{fffd}\":1,\"\u{10000}\":2}").unwrap(), "{\"\u{10000}\":2,\"\u{fffd}\":1}");
    }

    #[test]
    fn a_duplicate_key_is_refused_at_any_depth_and_spelling() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"b":2,"\u0061":3}}]"#] {
            assert_eq!(canonical(text), Err(JsonFaultKind::DuplicateKey("a".into())), "{text}");
        }
        assert!(canonical(r#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn anything_but_exactly_one_value_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "tru",
            "nul",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "1 2",
            "{\"a\" 1}",
            "[1 2]",
            "NaN",
            "'a'",
            "\u{feff}1",
            "{\"a\":}",
            "\"",
        ] {
            assert!(matches!(canonical(text), Err(JsonFaultKind::Syntax(_))), "{text:?}");
        }
        assert_eq!(canonicalise(b"\"\xff\"", 64).unwrap_err().kind, JsonFaultKind::NotUtf8);
    }

    #[test]
    fn a_string_may_hold_any_escape_and_stays_verbatim() {
        for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\u0041""#, r#""\ud83d\ude00""#, r#""\u0000""#] {
            assert_eq!(canonical(text).as_deref(), Ok(text));
        }
        for text in [r#""\ud80""#, r#""\ud800\u00""#] {
            assert!(matches!(canonical(text), Err(JsonFaultKind::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn keys_with_unpaired_surrogates_are_compared_by_unit() {
        let text = r#"{"\udc00":1,"\ud800\n":2,"\uD800":3,"z":4}"#;
        assert_eq!(canonical(text).unwrap(), r#"{"z":4,"\uD800":3,"\ud800\n":2,"\udc00":1}"#);
        assert_eq!(canonical(r#"{"é\ud800":1,"é\uD800":2}"#), Err(JsonFaultKind::DuplicateKey("é\u{fffd}".into())));
        assert!(canonical(r#"{"\ud800":1,"\ud801":2,"\ufffd":3}"#).is_ok());
    }

    #[test]
    fn unpaired_surrogates_are_replaced_and_nothing_else() {
        for (json, replaced) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#"["a\udc00b","\uD800\uD800\udc00"]"#, r#"["a\ufffdb","\ufffd\uD800\udc00"]"#),
            (r#""\ud83d\ude00 \\ud800 \" \u0000 é""#, r#""\ud83d\ude00 \\ud800 \" \u0000 é""#),
        ] {
            assert_eq!(without_lone_surrogates(json), replaced);
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(canonical(&nested(64)).is_ok());
        assert_eq!(canonical(&nested(65)), Err(JsonFaultKind::TooDeep { limit: 64 }));
        assert_eq!(canonical(&"[".repeat(1_000_000)), Err(JsonFaultKind::TooDeep { limit: 64 }));
    }

    #[test]
    fn open_objects_have_a_limited_number_of_members_together() {
        let object = |count: usize, last: &str| {
            let members: Vec<String> = (0..count).map(|number| format!("\"{number}\":0")).collect();
            format!("{{{}{last}}}", members.join(","))
        };
        let limit = limits::JSON_OPEN_MEMBERS;
        assert!(canonical(&object(limit, "")).is_ok());
        assert_eq!(canonical(&object(limit + 1, "")), Err(JsonFaultKind::TooManyMembers));
        let nested = |inner: usize| object(limit / 2, &format!(",\"last\":{}", object(inner, "")));
        assert!(canonical(&nested(limit / 2 - 1)).is_ok());
        assert_eq!(canonical(&nested(limit / 2 + 1)), Err(JsonFaultKind::TooManyMembers));
        let full = object(limit - 1, "");
        assert!(canonical(&format!("[{full},{full},{full}]")).is_ok(), "closed objects do not count");
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_equivalent_and_idempotent(value in any_json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let once = canonical(&pretty).unwrap();
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&once).unwrap(), value);
            prop_assert_eq!(canonical(&once).unwrap(), once);
        }

        #[test]
        fn no_input_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = canonicalise(&bytes, 8);
        }
    }
}
