//! The table of the documentation, made from the registry.

use std::fmt::Write as _;

use super::register::Family;

/// A table in Markdown: a row for each family.
pub fn table(families: &[Family]) -> String {
    let mut text = "| name | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for Family { name, kind, labels, help } in families {
        let labels: Vec<String> = labels.iter().map(|(label, values)| label_text(name, label, values)).collect();
        let labels = labels.join("; ");
        writeln!(text, "| `{name}` | {kind} | {labels} | {help}. |").expect("a string takes whatever is written to it");
    }
    text
}

fn label_text(family: &str, label: &str, values: &[&str]) -> String {
    if family == "postrider_build_info" {
        return format!("`{label}`");
    }
    let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{label}`: {}", values.join(", "))
}
