//! A request as a command that can be pasted into a shell.
//!
//! Texts of others stand in it. Each is one word for the shell, whatever it holds, and no word is taken for an option
//! or for the name of a file.

use postrider_domain::visible::is_unprintable;

/// The command that sends a request. `body` is sent as these bytes.
pub fn command(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>) -> String {
    // `--globoff`: brackets and braces in a URL are text.
    let mut command = format!("curl --globoff --request {method} --url {}", word(url));
    for (name, value) in headers {
        // A header without a value is written with a semicolon.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        command.push_str(" \\\n  --header ");
        command.push_str(&word(&header));
    }
    if let Some(body) = body {
        // `--data` would read the file that is named after a leading @.
        command.push_str(" \\\n  --data-raw ");
        command.push_str(&word(body));
    }
    command
}

/// A text as one word of a POSIX shell. What steers a terminal or the direction of text is written as bytes, in the
/// form `$'…'` that bash, zsh and ksh read.
fn word(text: &str) -> String {
    if !text.chars().any(is_unprintable) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = String::from("$'");
    for character in text.chars() {
        match character {
            '\'' => word.push_str(r"\'"),
            '\\' => word.push_str(r"\\"),
            '\n' => word.push_str(r"\n"),
            other if is_unprintable(other) => {
                // Three octal digits: a hexadecimal escape would take in digits that follow it.
                for byte in other.encode_utf8(&mut [0; 4]).bytes() {
                    word.push_str(&format!(r"\{byte:03o}"));
                }
            }
            other => word.push(other),
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_whatever_it_holds() {
        for (text, expected) in [
            ("plain", "'plain'"),
            ("it's", r"'it'\''s'"),
            ("$(rm -rf ~) `id` \"x\" \\", "'$(rm -rf ~) `id` \"x\" \\'"),
            ("@/etc/passwd", "'@/etc/passwd'"),
            ("-o/tmp/x", "'-o/tmp/x'"),
            ("two\nlines's", r"$'two\nlines\'s'"),
            ("\u{1b}]52;1\u{7}\\", r"$'\033]52;1\007\\'"),
            ("\u{202e}x", r"$'\342\200\256x'"),
        ] {
            assert_eq!(word(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_shell_reads_the_words_back() {
        let hostile = "a'b\"c$(touch x)`id`\\\n\\n$HOME!! \u{e9}\u{202e}\u{1b}[31m@-x7";
        let script = format!("printf '%s' {}", word(hostile));
        let read = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(read.stdout).unwrap(), hostile);
    }

    #[test]
    fn nothing_of_a_request_becomes_an_option_or_a_file() {
        let shown = command("POST", "https://a.example/[1-9]{x}?-d", &[("x-empty", ""), ("x-a", "@b")], Some("@c"));
        assert_eq!(
            shown,
            "curl --globoff --request POST --url 'https://a.example/[1-9]{x}?-d' \\\n  --header 'x-empty;' \\\n  \
             --header 'x-a: @b' \\\n  --data-raw '@c'"
        );
    }
}
