//! Fields of forms, with their faults.
//!
//! A form that was refused comes back with what was typed, a summary of the faults on top that links to the fields, and
//! each fault at its field.

use maud::{Markup, html};

use postrider_service::{ParameterFault, ServiceError};

use super::code::prose;
use crate::language::{say, translated};

/// The faults of a form, by field.
#[derive(Clone, Debug, Default)]
pub struct Faults(pub Vec<ParameterFault>);

impl Faults {
    /// The faults that belong to fields. `None` when the error is of another kind and gets a page of its own.
    pub fn of(error: &ServiceError) -> Option<Self> {
        match error {
            ServiceError::InvalidRequest { parameters } | ServiceError::Unprocessable { parameters, .. } => {
                Some(Self(parameters.clone()))
            }
            _ => None,
        }
    }

    /// The value of a field, or `None` with its fault noted.
    pub fn read<T, E: std::fmt::Display>(&mut self, name: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|fault| self.0.push((name.to_owned(), fault.to_string()))).ok()
    }

    pub fn at(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, fault)| fault.as_str())
    }

    /// The summary on top of the form.
    pub fn summary(&self) -> Markup {
        html! {
            @if !self.0.is_empty() {
                div.error-summary role="alert" tabindex="-1" data-focus {
                    h2 { (say!("There is a problem")) }
                    ul { @for (name, fault) in &self.0 { li { a href={ "#field-" (name) } { (name) ": " (translated(fault)) } } } }
                }
            }
        }
    }
}

/// A field of one line.
pub struct TextField<'f> {
    pub name: &'f str,
    pub label: &'f str,
    pub hint: &'f str,
    pub value: &'f str,
    /// The `type` of the input: `text`, `url`, `password`, `number`, `datetime-local`.
    pub kind: &'f str,
    pub required: bool,
}

impl TextField<'_> {
    pub fn render(&self, faults: &Faults) -> Markup {
        let (id, fault) = (format!("field-{}", self.name), faults.at(self.name));
        let (hint_id, fault_id) = (format!("{id}-hint"), format!("{id}-fault"));
        let described = [(!self.hint.is_empty()).then_some(&hint_id), fault.map(|_| &fault_id)];
        let described: Vec<&str> = described.into_iter().flatten().map(String::as_str).collect();
        html! {
            div.field.field-faulty[fault.is_some()] {
                label for=(id) { (self.label) @if !self.required { span.optional { " (" (say!("optional")) ")" } } }
                @if !self.hint.is_empty() { p.hint #(hint_id) { (self.hint) } }
                @if let Some(fault) = fault { p.fault #(fault_id) { (translated(fault)) } }
                input #(id) name=(self.name) type=(self.kind) value=(self.value) required[self.required]
                    aria-invalid=[fault.map(|_| "true")] aria-describedby=[(!described.is_empty()).then(|| described.join(" "))]
                    autocomplete="off" spellcheck="false";
            }
        }
    }
}

/// A field of several lines.
pub struct TextArea<'f> {
    pub name: &'f str,
    pub label: &'f str,
    pub hint: &'f str,
    pub value: &'f str,
}

impl TextArea<'_> {
    pub fn render(&self, faults: &Faults) -> Markup {
        let (id, fault) = (format!("field-{}", self.name), faults.at(self.name));
        let described = format!("{id}-hint{}", fault.map_or_else(String::new, |_| format!(" {id}-fault")));
        html! {
            div.field.field-faulty[fault.is_some()] {
                label for=(id) { (self.label) span.optional { " (" (say!("optional")) ")" } }
                p.hint id={ (id) "-hint" } { (self.hint) }
                @if let Some(fault) = fault { p.fault id={ (id) "-fault" } { (translated(fault)) } }
                textarea #(id) name=(self.name) aria-describedby=(described) aria-invalid=[fault.map(|_| "true")]
                    autocomplete="off" spellcheck="false" { (self.value) }
            }
        }
    }
}

/// A check box with its label. `id` is unique on the page.
pub struct Choice<'f> {
    pub id: &'f str,
    pub name: &'f str,
    pub value: &'f str,
    pub label: &'f str,
    pub hint: &'f str,
    pub is_on: bool,
}

impl Choice<'_> {
    pub fn render(&self) -> Markup {
        html! {
            div.choice {
                input #(self.id) type="checkbox" name=(self.name) value=(self.value) checked[self.is_on];
                label for=(self.id) {
                    (self.label)
                    @if !self.hint.is_empty() { span.hint { (prose(self.hint)) } }
                }
            }
        }
    }
}

/// Fields under one heading, with a fault that concerns them together. `name` is the field that the summary links to.
pub fn group(name: &str, legend: &str, hint: &str, faults: &Faults, fields: &Markup) -> Markup {
    let fault = faults.at(name);
    html! {
        fieldset.field-faulty[fault.is_some()] id={ "field-" (name) } tabindex="-1" {
            legend { (legend) }
            @if !hint.is_empty() { p.hint { (hint) } }
            @if let Some(fault) = fault { p.fault { (translated(fault)) } }
            (fields)
        }
    }
}

/// A choice of one among few.
pub fn select(name: &str, label: &str, options: &[(&str, &str)], chosen: &str) -> Markup {
    html! {
        div.field {
            label for={ "field-" (name) } { (label) }
            select id={ "field-" (name) } name=(name) {
                @for (value, text) in options { option value=(value) selected[*value == chosen] { (text) } }
            }
        }
    }
}

/// A form of one button, for an action of the page. `fields` go with it unseen.
pub fn action(path: &str, button: &str, class: &str, fields: &[(&str, &str)]) -> Markup {
    html! {
        form.action action=(path) method="post" {
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            button class=(class) type="submit" { (button) }
        }
    }
}
