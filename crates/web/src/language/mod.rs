//! The language of a page: English, or German in the portal.
//!
//! English is written where it is shown, in [`say!`]; the German of a phrase stands in a table of `german/`. A phrase
//! that is in no table does not compile. The gate of the portal sets the language of a request; the dashboard is in
//! English.

mod german;

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::sync::LazyLock;

use maud::{Markup, PreEscaped, Render};

use postrider_domain::portal::Locale;

/// The text of a phrase in the reader's language: `say!("Edit")`. With arguments it is markup, each `{}` replaced by
/// the next argument: `say!("Attempt {}", number)`. German may take them in another order: `{1} … {0}`.
macro_rules! say {
    ($english:literal) => {
        const { $crate::language::Phrase::of($english) }.text()
    };
    ($english:literal, $($argument:expr),+ $(,)?) => {
        $crate::language::fill(const { $crate::language::Phrase::of($english) }.text(), &[$(&$argument),+])
    };
}
pub(crate) use say;

/// As [`say!`], for a place where only text can stand: an attribute, a fault.
macro_rules! say_text {
    ($english:literal, $($argument:expr),+ $(,)?) => {
        $crate::language::fill_text(const { $crate::language::Phrase::of($english) }.text(), &[$($argument),+])
    };
}
pub(crate) use say_text;

tokio::task_local! {
    static LOCALE: Locale;
}

/// Answers a request in a language.
pub async fn speak<F: Future>(locale: Locale, answer: F) -> F::Output {
    LOCALE.scope(locale, answer).await
}

/// The language of the request that is being answered.
pub fn locale() -> Locale {
    LOCALE.try_with(|locale| *locale).unwrap_or(Locale::En)
}

/// A phrase of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Phrase {
    table: usize,
    row: usize,
}

impl Phrase {
    /// # Panics
    /// When the phrase is in no table. It is called while compiling.
    pub const fn of(english: &str) -> Self {
        let mut table = 0;
        while table < german::TABLES.len() {
            let mut row = 0;
            while row < german::TABLES[table].len() {
                if is_same(german::TABLES[table][row].0, english) {
                    return Self { table, row };
                }
                row += 1;
            }
            table += 1;
        }
        panic!("a phrase lacks its German: add it to language/german/")
    }

    pub fn text(self) -> &'static str {
        let (english, german) = german::TABLES[self.table][self.row];
        match locale() {
            Locale::En => english,
            Locale::De => german,
        }
    }
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A text that comes from below the pages, such as the fault of a field, in the reader's language if it is in a table.
/// What varies in it stands as `{}` in the table.
pub fn translated(english: &str) -> Cow<'_, str> {
    static BY_ENGLISH: LazyLock<HashMap<&str, &str>> =
        LazyLock::new(|| german::TABLES.iter().flat_map(|table| table.iter().copied()).collect());
    if locale() == Locale::En {
        return Cow::Borrowed(english);
    }
    if let Some(german) = BY_ENGLISH.get(english) {
        return Cow::Borrowed(german);
    }
    let mut templates = german::FAULTS.iter();
    let found = templates.find_map(|(template, german)| Some((arguments_of(template, english)?, german)));
    found.map_or(Cow::Borrowed(english), |(arguments, german)| Cow::Owned(fill_text(german, &arguments)))
}

/// What stands in the places of a template, when the text is made of it.
fn arguments_of<'t>(template: &str, text: &'t str) -> Option<Vec<&'t str>> {
    let mut fixed = template.split("{}");
    let mut rest = text.strip_prefix(fixed.next()?)?;
    let mut arguments = Vec::new();
    let mut fixed = fixed.peekable();
    while let Some(part) = fixed.next() {
        let (argument, after) = match fixed.peek() {
            Some(_) => rest.split_once(part)?,
            None => (rest.strip_suffix(part)?, ""),
        };
        arguments.push(argument);
        rest = after;
    }
    (!arguments.is_empty() && rest.is_empty()).then_some(arguments)
}

/// A template with its arguments. The template is ours and is escaped like any text.
pub fn fill(template: &str, arguments: &[&dyn Render]) -> Markup {
    let mut html = String::with_capacity(template.len() + 16 * arguments.len());
    let mut rest = template;
    let mut next = 0;
    while let Some((before, after)) = rest.split_once('{') {
        before.render_to(&mut html);
        let (place, after) = after.split_once('}').unwrap_or((after, ""));
        let index = place.parse().unwrap_or(next);
        if let Some(argument) = arguments.get(index) {
            argument.render_to(&mut html);
        }
        next += 1;
        rest = after;
    }
    rest.render_to(&mut html);
    PreEscaped(html)
}

/// As [`fill`], for texts.
pub fn fill_text(template: &str, arguments: &[&str]) -> String {
    let mut text = String::with_capacity(template.len() + 16 * arguments.len());
    let mut rest = template;
    let mut next = 0;
    while let Some((before, after)) = rest.split_once('{') {
        let (place, after) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(before);
        text.push_str(arguments.get(place.parse().unwrap_or(next)).copied().unwrap_or_default());
        next += 1;
        rest = after;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_take_their_places_and_are_escaped() {
        let count = 3;
        let name = "<b>";
        assert_eq!(fill("{} of {} & more", &[&count, &name]).into_string(), "3 of &lt;b&gt; &amp; more");
        assert_eq!(fill_text("{1} vor {0}", &["3", "<b>"]), "<b> vor 3");
        assert_eq!(fill("{1} vor {0}", &[&count, &name]).into_string(), "&lt;b&gt; vor 3");
    }

    #[test]
    fn every_phrase_stands_once_and_has_its_arguments() {
        let mut seen = std::collections::HashSet::new();
        for (english, german) in german::TABLES.iter().flat_map(|table| table.iter()) {
            assert!(seen.insert(english), "{english} stands twice");
            assert!(!german.is_empty(), "{english} has no German");
            assert_eq!(english.matches('{').count(), german.matches('{').count(), "{english}: {german}");
        }
    }

    #[tokio::test]
    async fn a_request_speaks_its_own_language() {
        assert_eq!(say!("Endpoints"), "Endpoints");
        speak(Locale::De, async {
            assert_eq!(say!("Endpoints"), "Endpunkte");
            assert_eq!(translated("Deliveries"), "Zustellungen");
            assert_eq!(translated("in no table"), "in no table");
            let full = "The project has 50 endpoints, the most it may have.";
            assert_eq!(translated(full), "Das Projekt hat 50 Endpunkte, mehr darf es nicht haben.");
            assert_eq!(
                translated("X-A is reserved and cannot be set"),
                "X-A ist vergeben und kann nicht gesetzt werden"
            );
        })
        .await;
    }
}
