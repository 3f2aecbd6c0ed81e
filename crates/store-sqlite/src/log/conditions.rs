//! The conditions of a query that is put together at run time, with their values. The text never holds a value.

use std::fmt::Write as _;

use rusqlite::ToSql;

use postrider_domain::delivery::ResponseStatuses;
use postrider_store::log::last_attempt::is_answer;

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

    /// Adds the condition that a column has one of these values, unless there are none.
    pub fn and_any<T: ToSql + 'static>(&mut self, column: &str, values: impl IntoIterator<Item = T>) {
        let before = self.values.len();
        self.values.extend(values.into_iter().map(|value| Box::new(value) as Box<dyn ToSql>));
        let count = self.values.len() - before;
        if count > 0 {
            let marks = vec!["?"; count].join(", ");
            self.and_text(&format!("{column} IN ({marks})"));
        }
    }

    /// Adds the condition that one of these values satisfies `condition`, which marks it with `?`, unless there are
    /// none.
    pub fn and_one<T: ToSql + 'static>(&mut self, condition: &str, values: impl IntoIterator<Item = T>) {
        let before = self.values.len();
        self.values.extend(values.into_iter().map(|value| Box::new(value) as Box<dyn ToSql>));
        let count = self.values.len() - before;
        if count > 0 {
            let any = vec![condition; count].join(" OR ");
            self.and_text(&format!("({any})"));
        }
    }

    /// Adds the condition that an expression is one of these response statuses, unless there are none.
    pub fn and_answers(&mut self, expression: &str, answers: &[ResponseStatuses]) {
        if let Some(condition) = is_answer(expression, answers) {
            self.and_text(&condition);
        }
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
