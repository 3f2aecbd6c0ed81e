//! Prints a list of the API: a table, or NDJSON while its pages arrive.

use std::path::Path;

use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;

use postrider_domain::limits;
use postrider_local::pages::List;

use super::super::output;
use super::super::table::{Column, Row, print_table};
use super::session::Session;

#[derive(Debug, Args)]
pub struct LimitOption {
    /// Print at most so many, the newest.
    #[arg(long, default_value_t = limits::PAGE_DEFAULT, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl LimitOption {
    /// Prints the items of a list, up to the limit.
    pub async fn print(
        &self,
        session: &mut Session,
        list: &List,
        kind: &str,
        columns: &[Column],
        row: impl Fn(&Value) -> Row,
    ) -> anyhow::Result<()> {
        let (mut rows, mut left, mut cursor) = (Vec::new(), self.limit, None::<String>);
        let mut shown = 0;
        while left > 0 {
            let page = session.page(list, left.min(limits::PAGE_MAX), cursor.as_deref()).await?;
            cursor = page.next_cursor().map(str::to_owned);
            for item in &page.data {
                if session.look.is_json {
                    if !output::streamed_json_line(&with_kind(kind, item))? {
                        return Ok(());
                    }
                } else {
                    rows.push(row(&serde_json::from_str(item.get())?));
                }
            }
            let count = u32::try_from(page.data.len()).unwrap_or(u32::MAX);
            left = left.saturating_sub(count);
            shown += count;
            if cursor.is_none() {
                break;
            }
        }
        if !session.look.is_json {
            if rows.is_empty() {
                session.look.note("nothing found");
                return Ok(());
            }
            print_table(columns, rows, session.look)?;
        }
        if cursor.is_some() {
            session.look.note(format_args!("there are more than these {shown}: raise --limit"));
        }
        Ok(())
    }
}

/// The object with its kind as the first member.
pub fn with_kind(kind: &str, object: &RawValue) -> String {
    match object.get().trim_start().strip_prefix('{') {
        Some(rest) if rest.trim_start().starts_with('}') => format!("{{\"kind\":\"{kind}\"}}"),
        Some(rest) => format!("{{\"kind\":\"{kind}\",{rest}"),
        None => object.get().to_owned(),
    }
}

/// Prints one object as JSON.
pub fn print_object(kind: &str, object: &RawValue) -> anyhow::Result<()> {
    Ok(output::json_line(&with_kind(kind, object))?)
}

/// Several values of a filter as the API takes them.
pub fn joined(values: &[String]) -> String {
    values.join(",")
}

/// Writes text that must be read by its owner alone to a new file.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    use anyhow::Context as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create the file {}", path.display()))?;
    writeln!(file, "{text}").with_context(|| format!("cannot write the file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_the_first_member() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(with_kind("event", &raw("{\"id\": 1.0}")), "{\"kind\":\"event\",\"id\": 1.0}");
        assert_eq!(with_kind("event", &raw("{ }")), "{\"kind\":\"event\"}");
    }
}
