//! The conditions of a query that is put together at run time, with their values. The text never holds a value.

use std::fmt::Write as _;

use rusqlite::ToSql;

/// Conditions joined by `AND`.
#[derive(Default)]
pub struct Conditions {
    pub text: String,
    pub values: Vec<Box<dyn ToSql>>,
}

impl Conditions {
    /// Adds a condition with one parameter, written `?`.
    pub fn and(&mut self, condition: &str, value: impl ToSql + 'static) {
        self.and_text(condition);
        self.values.push(Box::new(value));
    }

    /// Adds a condition without a parameter.
    pub fn and_text(&mut self, condition: &str) {
        let separator = if self.text.is_empty() { "" } else { " AND " };
        let _ = write!(self.text, "{separator}{condition}");
    }

    /// Adds the value of a parameter that follows the conditions.
    pub fn push(&mut self, value: impl ToSql + 'static) {
        self.values.push(Box::new(value));
    }
}
