//! As much Rust as the tidy test has to understand: where code ends and text begins, and which paths it names.

/// A path as it stands in the code, a `use` tree taken apart: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    pub line: usize,
    pub segments: Vec<String>,
}

/// The code with comments and the insides of literals blanked, every line where it was.
pub fn strip(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let (end, is_text) = piece(&chars, at);
        for character in &chars[at..end] {
            code.push(if is_text && *character != '\n' { ' ' } else { *character });
        }
        at = end;
    }
    code
}

/// All paths with at least two segments, and what stands alone behind `use`.
pub fn names(code: &str) -> Vec<Name> {
    let tokens = tokens(code);
    let mut names = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let follows_segment = at >= 2 && tokens[at - 1].text == "::" && tokens[at - 2].is_segment_end();
        if !tokens[at].is_identifier() || follows_segment {
            at += 1;
            continue;
        }
        let mut paths = Vec::new();
        let end = path_tree(&tokens, at, &[], &mut paths);
        let is_used = at > 0 && tokens[at - 1].text == "use";
        let found = paths.into_iter().filter(|(_, segments)| segments.len() > 1 || is_used);
        names.extend(found.map(|(line, segments)| Name { line, segments }));
        at = end.max(at + 1);
    }
    names
}

/// The line of a byte position, counted from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Whether the character may stand in a word of code.
pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Where the piece that begins at `at` ends, and whether it is text rather than code.
fn piece(chars: &[char], at: usize) -> (usize, bool) {
    let starts = |what: &str| what.chars().enumerate().all(|(offset, wanted)| chars.get(at + offset) == Some(&wanted));
    let after_word = at > 0 && is_word(chars[at - 1]);
    if starts("//") {
        let end = chars[at..].iter().position(|character| *character == '\n');
        return (end.map_or(chars.len(), |length| at + length), true);
    }
    if starts("/*") {
        return (block_comment_end(chars, at), true);
    }
    if chars[at] == 'r'
        && (!after_word || chars[at - 1] == 'b')
        && let Some(end) = raw_string_end(chars, at)
    {
        return (end, true);
    }
    if chars[at] == '"' {
        return (quoted_end(chars, at), true);
    }
    let is_char = chars[at] == '\'' && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\''));
    if is_char {
        return (quoted_end(chars, at), true);
    }
    (at + 1, false)
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (1, at + 2);
    while end < chars.len() && depth > 0 {
        match (chars[end], chars.get(end + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                end += 1;
            }
            ('*', Some('/')) => {
                depth -= 1;
                end += 1;
            }
            _ => {}
        }
        end += 1;
    }
    end.min(chars.len())
}

/// `r"…"`, `r#"…"#`; nothing when the `r` begins something else, like `r#type`.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|character| **character == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes =
        |end: usize| chars[end] == '"' && chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    let close = (open + 1..chars.len()).find(|end| closes(*end));
    Some(close.map_or(chars.len(), |end| end + 1 + hashes))
}

fn quoted_end(chars: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != chars[at] {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    (end + 1).min(chars.len())
}

#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_identifier(&self) -> bool {
        self.text.starts_with(is_word)
    }

    fn is_segment_end(&self) -> bool {
        self.text == ">" || (self.is_identifier() && !["use", "return", "in", "as"].contains(&self.text.as_str()))
    }
}

fn tokens(code: &str) -> Vec<Token> {
    let chars: Vec<char> = code.chars().collect();
    let mut tokens = Vec::new();
    let (mut line, mut at) = (1, 0);
    while at < chars.len() {
        let length = match chars[at] {
            character if is_word(character) => chars[at..].iter().take_while(|next| is_word(**next)).count(),
            ':' if chars.get(at + 1) == Some(&':') => 2,
            _ => 1,
        };
        let text: String = chars[at..at + length].iter().collect();
        if text == "\n" {
            line += 1;
        }
        if !text.starts_with(char::is_whitespace) {
            tokens.push(Token { text, line });
        }
        at += length;
    }
    tokens
}

/// Collects the paths of the tree that begins at `at`, and returns where it ends.
fn path_tree(tokens: &[Token], mut at: usize, prefix: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        if token.is_identifier() || token.text == "*" {
            segments.push(token.text.clone());
            at += 1;
        } else if token.text == "{" {
            return group(tokens, at, &segments, paths);
        } else {
            break;
        }
        let continues = tokens.get(at).is_some_and(|next| next.text == "::");
        let leads_on = tokens.get(at + 1).is_some_and(|next| next.is_identifier() || ["{", "*"].contains(&&*next.text));
        if !(continues && leads_on) {
            break;
        }
        at += 1;
    }
    paths.push((line, segments));
    at
}

/// The branches between `{` and `}`, of which each is a tree.
fn group(tokens: &[Token], open: usize, prefix: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut at = open + 1;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "}" => return at + 1,
            "," => at += 1,
            // The new name of a branch is no path.
            "as" => at += 2,
            _ => at = path_tree(tokens, at, prefix, paths).max(at + 1),
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        names(code).into_iter().map(|name| name.segments.join("::")).collect()
    }

    #[test]
    fn texts_are_blanked_and_lines_stay() {
        let source = "a(\"b \\\" // c\"); // d\n/* e /* f */ g */ h('\"'); i::<'j>(r#\"k \" l\"#, b\"m\");\nn";
        let code = strip(source);
        assert_eq!(code.lines().count(), 3);
        let kept: String = code.chars().filter(|character| character.is_alphabetic()).collect();
        assert_eq!(kept, "ahijbn");
    }

    #[test]
    fn a_use_tree_is_taken_apart() {
        assert_eq!(
            paths("use a::{b, c::{d, e as f}, self, g::*};"),
            ["a::b", "a::c::d", "a::c::e", "a::self", "a::g::*"]
        );
        assert_eq!(paths("use a; fn b(c: d::E, e: ::f::G) { h::<i::J>() }"), ["a", "d::E", "f::G", "i::J"]);
        assert_eq!(names("\n\nuse a::{\n  b::c,\n};")[0].line, 4);
    }
}
