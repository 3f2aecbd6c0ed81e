//! Tables on standard output.

/// Prints a table with columns as wide as their content. An empty cell is shown as a dash.
pub fn print_rows<const COLUMNS: usize>(heads: &[&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) {
    let mut table = vec![heads.map(str::to_owned)];
    table.extend(rows);
    let mut widths = [0; COLUMNS];
    for row in &mut table {
        for (cell, width) in row.iter_mut().zip(&mut widths) {
            if cell.is_empty() {
                "-".clone_into(cell);
            }
            *width = cell.chars().count().max(*width);
        }
    }
    for row in table {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        println!("{}", line.trim_end());
    }
}
