//! The conditions of a query that is put together at run time, with their values.

use std::fmt::Write as _;

use crate::machinery::session::Parameter;

/// Conditions joined by `AND`, and their values. Each condition marks the position of its value with `?`.
#[derive(Default)]
pub struct Conditions {
    text: String,
    values: Vec<Box<dyn Parameter + Send>>,
}

impl Conditions {
    pub fn and(&mut self, condition: &str, value: impl Parameter + Send + 'static) {
        let placeholder = self.value(value);
        self.and_text(&condition.replacen('?', &placeholder, 1));
    }

    /// Adds the condition that an expression is one of these numbers, unless there are none. They stand in the text, so
    /// that the planner sees which partial index fits.
    pub fn and_any(&mut self, expression: &str, numbers: impl IntoIterator<Item = i64>) {
        let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
        if !numbers.is_empty() {
            self.and_text(&format!("{expression} IN ({})", numbers.join(", ")));
        }
    }

    /// Adds the condition that an expression is one of these texts, unless there are none.
    pub fn and_any_text(&mut self, expression: &str, texts: impl IntoIterator<Item = String>) {
        let texts: Vec<String> = texts.into_iter().collect();
        if !texts.is_empty() {
            self.and(&format!("{expression} = ANY (?)"), texts);
        }
    }

    /// Adds a condition without a value.
    pub fn and_text(&mut self, condition: &str) {
        let separator = if self.text.is_empty() { "" } else { " AND " };
        let _ = write!(self.text, "{separator}{condition}");
    }

    /// Adds a value used outside the conditions. Returns its placeholder.
    pub fn value(&mut self, value: impl Parameter + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn values(&self) -> Vec<&dyn Parameter> {
        self.values.iter().map(|value| value.as_ref() as &dyn Parameter).collect()
    }
}
