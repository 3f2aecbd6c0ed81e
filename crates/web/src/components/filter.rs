//! The form of a list's filter. It is a plain GET form: what it asks for stands in the URL.

use maud::{Markup, html};

use crate::form::Fields;
use crate::language::say;
use crate::list_query::{PERIODS, field_time};

/// A choice of one. What the URL holds beyond the choices, such as several values, is kept as a choice of its own.
pub fn choice(query: &Fields, name: &str, label: &str, any: &str, options: &[(&str, &str)]) -> Markup {
    let given: Vec<&str> = query.all(name).filter(|text| !text.is_empty()).collect();
    let given = given.join(",");
    let is_known = given.is_empty() || options.iter().any(|(value, _)| *value == given);
    let words = given.split(',').map(|part| {
        let known = options.iter().find(|(value, _)| *value == part);
        known.map_or_else(|| part.replace('_', " "), |(_, text)| (*text).to_owned())
    });
    let words = words.collect::<Vec<_>>().join(&format!(" {} ", say!("or")));
    html! {
        div.field {
            label for={ "field-" (name) } { (label) }
            select id={ "field-" (name) } name=(name) {
                option value="" selected[given.is_empty()] { (any) }
                @if !is_known { option value=(given) selected { (words) } }
                @for (value, text) in options { option value=(value) selected[*value == given] { (text) } }
            }
        }
    }
}

pub fn text(query: &Fields, name: &str, label: &str, placeholder: &str) -> Markup {
    html! {
        div.field {
            label for={ "field-" (name) } { (label) }
            input id={ "field-" (name) } name=(name) type="text" value=(query.all(name).collect::<Vec<_>>().join(",")) placeholder=(placeholder) autocomplete="off" spellcheck="false";
        }
    }
}

/// A period that ends now.
pub fn period(query: &Fields) -> Markup {
    let options = PERIODS.map(|(value, words, _)| (value, words.text()));
    choice(query, "period", say!("Created"), say!("At any time"), &options)
}

/// A period by its ends.
pub fn between(query: &Fields) -> Markup {
    let end = |name: &str, label: &str| {
        html! {
            div.field {
                label for={ "field-" (name) } { (label) }
                input id={ "field-" (name) } name=(name) type="datetime-local" step="1" value=(field_time(query.text(name).unwrap_or_default()));
            }
        }
    };
    html! {
        (end("since", say!("From (UTC)")))
        (end("until", say!("Before (UTC)")))
    }
}

/// Fields that are wanted seldom, behind a summary. It is open when one of them is set.
pub fn more(query: &Fields, names: &[&str], fields: Markup) -> Markup {
    let is_set = names.iter().any(|name| query.text(name).is_some());
    html! { details.more-filters open[is_set] { summary { (say!("More filters")) } div.filters { (fields) } } }
}

/// The form around its fields. `path` is the page of the list.
pub fn form(path: &str, is_narrowed: bool, fields: Markup) -> Markup {
    html! {
        form.filters action=(path) method="get" role="search" aria-label=(say!("Filter")) {
            (fields)
            button.primary type="submit" { (say!("Filter")) }
            @if is_narrowed { a href=(path) { (say!("Show all")) } }
        }
    }
}

/// Links to filters that people often want. Each is a name and a query, which `link` makes a URL.
pub fn presets(link: &dyn Fn(&str) -> String, query: &Fields, presets: &[(&str, &str)]) -> Markup {
    let here: Vec<(&str, &str)> = query
        .iter()
        .filter(|(name, text)| !text.is_empty() && !["cursor", "done", "gutters", "nav"].contains(name))
        .collect();
    let is_here = |preset: &str| {
        let fields = Fields::parse(preset.as_bytes());
        let wanted: Vec<(&str, &str)> = fields.iter().collect();
        wanted == here
    };
    html! {
        ul.presets aria-label=(say!("Often wanted")) {
            @for (name, preset) in presets {
                @let href = if preset.is_empty() { link("") } else { link(&format!("?{preset}")) };
                li { a href=(href) aria-current=[is_here(preset).then_some("true")] { (name) } }
            }
        }
    }
}
