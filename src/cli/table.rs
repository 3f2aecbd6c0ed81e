//! Tables on standard output.

use postrider_domain::visible::Visible;

use super::output::{self, OutputError};

/// Prints a table with columns as wide as their content. An empty cell is shown as a dash.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_rows<const COLUMNS: usize>(
    heads: &[&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> Result<(), OutputError> {
    let mut table = vec![heads.map(str::to_owned)];
    table.extend(rows);
    let mut widths = [0; COLUMNS];
    for row in &mut table {
        for (cell, width) in row.iter_mut().zip(&mut widths) {
            *cell = if cell.is_empty() { "-".to_owned() } else { Visible(cell.as_str()).to_string() };
            *width = cell.chars().count().max(*width);
        }
    }
    for row in table {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        output::line(line.trim_end())?;
    }
    Ok(())
}
