//! The rule for names of all kinds: text that people give and read, and that every store can hold.

use super::invalid_field::InvalidField;
use super::visible::is_unprintable;

const LENGTH: InvalidField = InvalidField("must be 1 to 128 characters");
const CHARACTERS: InvalidField =
    InvalidField("must not contain control characters, line separators or bidirectional overrides");

/// Checks a name of 1 to `chars_max` characters. It may not contain what steers a display ([`is_unprintable`]), which
/// includes U+0000: PostgreSQL cannot store it in a text. Joiners are part of names in many scripts.
///
/// # Errors
/// When the text is empty, too long, or contains such a character.
pub fn check(text: &str, chars_max: usize) -> Result<(), InvalidField> {
    match (1..=chars_max).contains(&text.chars().count()) {
        false => Err(LENGTH),
        true if text.chars().any(is_unprintable) => Err(CHARACTERS),
        true => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_characters_and_steers_no_display() {
        for good in ["a", "é".repeat(128).as_str(), "می‌خواهم", "👩‍👩‍👧", " a\u{a0}b "] {
            assert!(check(good, 128).is_ok(), "{good:?}");
        }
        assert!(check("", 128).is_err() && check(&"é".repeat(129), 128).is_err());
        for bad in "\0\t\n\r\u{1b}\u{7f}\u{80}\u{85}\u{9f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}".chars() {
            assert!(check(&format!("a{bad}b"), 128).is_err(), "{bad:?}");
        }
    }
}
