//! One JSON text in the forms that parsing and writing again make of it.
//!
//! Numbers keep their digits: a program that rounds them cannot be undone.

use super::super::json;
use super::super::limits;

/// How a JSON text was written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonForm {
    pub order: KeyOrder,
    pub spacing: Spacing,
    pub escapes: Escapes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    AsGiven,
    /// By name, at each level.
    Sorted,
    /// That of the sender's envelopes at the top level, where there is no white space either. The spacing is then that
    /// of `data`, which stays as its publisher wrote it.
    Envelope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// No white space: `JSON.stringify`, most libraries.
    Compact,
    /// `", "` and `": "`: Python's `json.dumps`.
    Spaced,
    /// A line for each value, indented by this many spaces.
    Indented(usize),
}

/// How characters in strings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    AsGiven,
    /// As themselves, where JSON allows it.
    Plain,
    /// `\u00e9` for everything but ASCII: Python.
    Ascii,
    /// The same, and `\/`: PHP.
    AsciiAndSlashes,
    /// `\u003c` for what has a meaning in HTML: Go, Rails.
    Html,
}

impl JsonForm {
    const ORDERS: [KeyOrder; 3] = [KeyOrder::AsGiven, KeyOrder::Sorted, KeyOrder::Envelope];
    const SPACINGS: [Spacing; 4] = [Spacing::Compact, Spacing::Spaced, Spacing::Indented(2), Spacing::Indented(4)];
    const ESCAPES: [Escapes; 5] =
        [Escapes::AsGiven, Escapes::Plain, Escapes::Ascii, Escapes::AsciiAndSlashes, Escapes::Html];

    /// All forms; one that changes less comes first.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ORDERS.into_iter().flat_map(|order| {
            Self::ESCAPES.into_iter().flat_map(move |escapes| {
                Self::SPACINGS.into_iter().map(move |spacing| Self { order, spacing, escapes })
            })
        })
    }
}

/// The names of an envelope, in the order of the sender.
const ENVELOPE: [&str; 7] =
    ["\"id\"", "\"type\"", "\"timestamp\"", "\"apiVersion\"", "\"workspaceId\"", "\"projectId\"", "\"data\""];

/// A JSON text, read with its tokens as they are.
pub struct JsonText<'t>(Node<'t>);

enum Node<'t> {
    /// A number, `true`, `false` or `null`.
    Word(&'t str),
    /// With its quotes.
    Text(&'t str),
    Array(Vec<Self>),
    Object(Vec<(&'t str, Self)>),
}

impl<'t> JsonText<'t> {
    /// `None` when it is no JSON that the sender would accept.
    pub fn read(bytes: &'t [u8]) -> Option<Self> {
        json::canonicalise(bytes, limits::JSON_DEPTH).ok()?;
        let text = std::str::from_utf8(bytes).ok()?;
        Some(Self(Reader { text, position: 0 }.node()))
    }

    pub fn write(&self, form: JsonForm) -> Vec<u8> {
        let mut writer = Writer { form, out: String::new() };
        writer.node(&self.0, 0);
        writer.out.into_bytes()
    }

    /// The member `data` of the object.
    pub fn data(&self) -> Option<Vec<u8>> {
        let Node::Object(members) = &self.0 else { return None };
        let data = members.iter().find(|(name, _)| *name == "\"data\"").map(|(_, value)| value)?;
        let form = JsonForm { order: KeyOrder::AsGiven, spacing: Spacing::Compact, escapes: Escapes::AsGiven };
        let mut writer = Writer { form, out: String::new() };
        writer.node(data, 0);
        Some(writer.out.into_bytes())
    }
}

/// Reads a text whose grammar and depth were checked.
struct Reader<'t> {
    text: &'t str,
    position: usize,
}

impl<'t> Reader<'t> {
    fn node(&mut self) -> Node<'t> {
        match self.next_byte() {
            b'{' => {
                let mut members = Vec::new();
                self.items(b'}', |reader| {
                    reader.next_byte();
                    let name = reader.string();
                    reader.next_byte();
                    reader.position += 1;
                    members.push((name, reader.node()));
                });
                Node::Object(members)
            }
            b'[' => {
                let mut items = Vec::new();
                self.items(b']', |reader| items.push(reader.node()));
                Node::Array(items)
            }
            b'"' => Node::Text(self.string()),
            _ => {
                let rest = &self.text[self.position..];
                let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                self.position += end.max(1).min(rest.len());
                Node::Word(&rest[..end])
            }
        }
    }

    /// Reads the items of an array or the members of an object, brackets included.
    fn items(&mut self, close: u8, mut read: impl FnMut(&mut Self)) {
        self.position += 1;
        while self.position < self.text.len() {
            match self.next_byte() {
                b',' => self.position += 1,
                found if found == close => {
                    self.position += 1;
                    return;
                }
                _ => read(self),
            }
        }
    }

    fn string(&mut self) -> &'t str {
        let start = self.position;
        let bytes = self.text.as_bytes();
        self.position += 1;
        while self.position < bytes.len() && bytes[self.position] != b'"' {
            self.position += if bytes[self.position] == b'\\' { 2 } else { 1 };
        }
        self.position = (self.position + 1).min(bytes.len());
        &self.text[start..self.position]
    }

    /// The next byte that is no white space. It is not consumed.
    fn next_byte(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.position), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.position += 1;
        }
        bytes.get(self.position).copied().unwrap_or_default()
    }
}

struct Writer {
    form: JsonForm,
    out: String,
}

impl Writer {
    fn node(&mut self, node: &Node<'_>, depth: usize) {
        match node {
            Node::Word(word) => self.out.push_str(word),
            Node::Text(token) => self.string(token),
            Node::Array(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.before(index, depth + 1);
                    self.node(item, depth + 1);
                }
                self.close(']', items.is_empty(), depth);
            }
            Node::Object(members) => {
                self.out.push('{');
                for (index, (name, value)) in self.ordered(members, depth).into_iter().enumerate() {
                    self.before(index, depth + 1);
                    self.string(name);
                    self.out.push_str(if self.spacing(depth) == Spacing::Compact { ":" } else { ": " });
                    self.node(value, depth + 1);
                }
                self.close('}', members.is_empty(), depth);
            }
        }
    }

    fn ordered<'n, 't>(&self, members: &'n [(&'t str, Node<'t>)], depth: usize) -> Vec<&'n (&'t str, Node<'t>)> {
        let mut ordered: Vec<_> = members.iter().collect();
        match self.form.order {
            KeyOrder::Sorted => ordered.sort_by_key(|(name, _)| *name),
            KeyOrder::Envelope if depth == 0 => {
                ordered.sort_by_key(|(name, _)| ENVELOPE.iter().position(|known| known == name));
            }
            KeyOrder::AsGiven | KeyOrder::Envelope => {}
        }
        ordered
    }

    /// The spacing between the members of a value at this depth.
    fn spacing(&self, depth: usize) -> Spacing {
        if depth == 0 && self.form.order == KeyOrder::Envelope { Spacing::Compact } else { self.form.spacing }
    }

    /// Before an item of a value, whose own depth is one more.
    fn before(&mut self, index: usize, depth: usize) {
        match self.spacing(depth - 1) {
            Spacing::Compact if index > 0 => self.out.push(','),
            Spacing::Spaced if index > 0 => self.out.push_str(", "),
            Spacing::Compact | Spacing::Spaced => {}
            Spacing::Indented(_) => {
                if index > 0 {
                    self.out.push(',');
                }
                self.line(depth);
            }
        }
    }

    fn close(&mut self, bracket: char, is_empty: bool, depth: usize) {
        if !is_empty && matches!(self.spacing(depth), Spacing::Indented(_)) {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        self.out.push('\n');
        if let Spacing::Indented(spaces) = self.form.spacing {
            self.out.extend(std::iter::repeat_n(' ', spaces * depth));
        }
    }

    fn string(&mut self, token: &str) {
        let decoded: Option<String> = match self.form.escapes {
            Escapes::AsGiven => None,
            // A lone surrogate is no text, so its token stays.
            _ => serde_json::from_str(token).ok(),
        };
        let Some(decoded) = decoded else { return self.out.push_str(token) };
        let plain = serde_json::to_string(&decoded).unwrap_or_default();
        for character in plain.chars() {
            self.character(character);
        }
    }

    /// A character of a string that is written in its plain form.
    fn character(&mut self, character: char) {
        let is_escaped = match self.form.escapes {
            Escapes::Ascii | Escapes::AsciiAndSlashes => !character.is_ascii(),
            Escapes::Html => matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'),
            Escapes::AsGiven | Escapes::Plain => false,
        };
        if is_escaped {
            for unit in character.encode_utf16(&mut [0; 2]) {
                self.out.push_str(&format!("\\u{unit:04x}"));
            }
        } else if character == '/' && self.form.escapes == Escapes::AsciiAndSlashes {
            self.out.push_str("\\/");
        } else {
            self.out.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, order: KeyOrder, spacing: Spacing, escapes: Escapes) -> String {
        String::from_utf8(JsonText::read(text.as_bytes()).unwrap().write(JsonForm { order, spacing, escapes })).unwrap()
    }

    #[test]
    fn tokens_stay_and_only_the_form_changes() {
        let text = " {\"b\" : [1.0, 9007199254740993 ,true,[],{}],\"a\":\"x\\\"\\\\ é\" } ";
        let (given, as_is) = (KeyOrder::AsGiven, Escapes::AsGiven);
        assert_eq!(
            written(text, given, Spacing::Compact, as_is),
            r#"{"b":[1.0,9007199254740993,true,[],{}],"a":"x\"\\ é"}"#
        );
        assert_eq!(
            written(text, KeyOrder::Sorted, Spacing::Spaced, as_is),
            r#"{"a": "x\"\\ é", "b": [1.0, 9007199254740993, true, [], {}]}"#
        );
        assert_eq!(
            written(r#"{"b":[1,{}],"a":{"c":2}}"#, given, Spacing::Indented(2), as_is),
            "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": {\n    \"c\": 2\n  }\n}"
        );
    }

    #[test]
    fn each_writer_escapes_its_own_characters() {
        let text = r#"{"a":"é</x>😀\n"}"#;
        let escaped = |escapes| written(text, KeyOrder::AsGiven, Spacing::Compact, escapes);
        assert_eq!(escaped(Escapes::Ascii), r#"{"a":"\u00e9</x>\ud83d\ude00\n"}"#);
        assert_eq!(escaped(Escapes::AsciiAndSlashes), r#"{"a":"\u00e9<\/x>\ud83d\ude00\n"}"#);
        assert_eq!(escaped(Escapes::Html), r#"{"a":"é\u003c/x\u003e😀\n"}"#);
        let back = written(&escaped(Escapes::AsciiAndSlashes), KeyOrder::AsGiven, Spacing::Compact, Escapes::Plain);
        assert_eq!(back, text);
        let lone = r#"{"a":"\ud83d"}"#;
        assert_eq!(written(lone, KeyOrder::AsGiven, Spacing::Compact, Escapes::Plain), lone);
    }

    #[test]
    fn the_order_of_an_envelope_is_found_again_after_sorting() {
        let sorted = r#"{"apiVersion":"v","data":{"z":1,"b":2},"id":"evt_x","projectId":null,"timestamp":"t","type":"a.b","workspaceId":"w"}"#;
        assert_eq!(
            written(sorted, KeyOrder::Envelope, Spacing::Compact, Escapes::AsGiven),
            r#"{"id":"evt_x","type":"a.b","timestamp":"t","apiVersion":"v","workspaceId":"w","projectId":null,"data":{"z":1,"b":2}}"#
        );
        assert_eq!(
            written(r#"{"data":{"z":1,"b":2},"id":"evt_x"}"#, KeyOrder::Envelope, Spacing::Spaced, Escapes::AsGiven),
            r#"{"id":"evt_x","data":{"z": 1, "b": 2}}"#
        );
    }

    #[test]
    fn what_is_no_json_has_no_form() {
        for text in ["", "{", "{'a':1}", "a=1", "{\"a\":1}x", "{\"a\":1,\"a\":2}"] {
            assert!(JsonText::read(text.as_bytes()).is_none(), "{text}");
        }
        assert!(JsonText::read("[".repeat(10_000).as_bytes()).is_none());
        assert_eq!(JsonText::read(br#"{"id":1,"data":{"a": 1}}"#).unwrap().data().unwrap(), br#"{"a":1}"#);
    }
}
