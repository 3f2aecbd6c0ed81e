//! Tables on standard output.

use postrider_domain::visible::Visible;

use super::output::{self, OutputError};
use super::paint::{Look, Tone, terminal_width};

/// What a column does where the terminal is too narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Give {
    /// Stays whole: somebody copies it.
    Nothing,
    /// Its cells are cut.
    Text,
    /// It is left out.
    Column,
}

/// A column of a table that fits the terminal.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    head: &'static str,
    give: Give,
}

#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
}

pub type Row = Vec<Cell>;

impl Column {
    /// An id, which is never cut.
    pub const fn id(head: &'static str) -> Self {
        Self { head, give: Give::Nothing }
    }

    /// Short words, which are never cut either.
    pub const fn fixed(head: &'static str) -> Self {
        Self { head, give: Give::Nothing }
    }

    /// Text that may be cut.
    pub const fn text(head: &'static str) -> Self {
        Self { head, give: Give::Text }
    }

    /// What may be left out.
    pub const fn spare(head: &'static str) -> Self {
        Self { head, give: Give::Column }
    }
}

impl Cell {
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

/// Prints a table that fits the terminal. Where standard output is none, nothing is cut or left out.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_table(columns: &[Column], rows: Vec<Row>, look: Look) -> Result<(), OutputError> {
    for line in laid_out(columns, rows, terminal_width(), look) {
        output::painted_line(line)?;
    }
    Ok(())
}

/// A cut text has at least so many characters.
const TEXT_MIN: usize = 8;
const GAP: usize = 2;

fn laid_out(columns: &[Column], mut rows: Vec<Row>, width: Option<usize>, look: Look) -> Vec<String> {
    rows.insert(0, columns.iter().map(|column| Cell::toned(Tone::Soft, column.head)).collect());
    for cell in rows.iter_mut().flatten() {
        cell.text = if cell.text.is_empty() { "-".to_owned() } else { Visible(cell.text.as_str()).to_string() };
    }
    let widest = |at: usize| rows.iter().map(|row| row[at].text.chars().count()).max().unwrap_or_default();
    let widths = fitted(columns, (0..columns.len()).map(widest).collect(), width.unwrap_or(usize::MAX));
    let line = |row: &Row| {
        let mut line = String::new();
        let mut shown = row.iter().zip(&widths).filter_map(|(cell, width)| Some((cell, (*width)?))).peekable();
        while let Some((cell, width)) = shown.next() {
            let text = cut(&cell.text, width);
            let padding = if shown.peek().is_some() { width + GAP - text.chars().count() } else { 0 };
            line.push_str(&look.painted(cell.tone, text));
            line.push_str(&" ".repeat(padding));
        }
        line
    };
    rows.iter().map(line).collect()
}

/// The widths of the columns; `None` for those that are left out, the last ones first.
fn fitted(columns: &[Column], widths: Vec<usize>, most: usize) -> Vec<Option<usize>> {
    let mut fitted: Vec<Option<usize>> = widths.into_iter().map(Some).collect();
    let total = |fitted: &[Option<usize>]| fitted.iter().flatten().map(|width| width + GAP).sum::<usize>() - GAP;
    let smallest = |fitted: &[Option<usize>]| {
        let cut = |(width, column): (&Option<usize>, &Column)| {
            width.map(|width| if column.give == Give::Text { width.min(TEXT_MIN) } else { width })
        };
        total(&fitted.iter().zip(columns).map(cut).collect::<Vec<_>>())
    };
    for at in (0..columns.len()).rev() {
        if columns[at].give == Give::Column && smallest(&fitted) > most {
            fitted[at] = None;
        }
    }
    while total(&fitted) > most {
        let texts = (0..columns.len()).filter(|&at| columns[at].give == Give::Text);
        let widest = texts.max_by_key(|&at| fitted[at]).filter(|&at| fitted[at] > Some(TEXT_MIN));
        match widest {
            Some(at) => fitted[at] = fitted[at].map(|width| width - 1),
            None => break,
        }
    }
    fitted
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look { is_json: false, is_coloured: false, is_quiet: false };
    const COLUMNS: [Column; 4] =
        [Column::id("id"), Column::text("name"), Column::spare("created"), Column::fixed("status")];

    fn table(width: Option<usize>, look: Look) -> Vec<String> {
        let row = |name: &str, tone| {
            vec![
                Cell::plain("whe_a1b2c3d4e5f6g7h8"),
                Cell::plain(name),
                Cell::plain("2026-05-15"),
                Cell::toned(tone, "ok"),
            ]
        };
        laid_out(&COLUMNS, vec![row("A name of some length", Tone::Good), row("", Tone::Good)], width, look)
    }

    #[test]
    fn a_table_fits_the_terminal_and_keeps_ids_whole() {
        let wide = table(None, LOOK);
        assert_eq!(wide[1], "whe_a1b2c3d4e5f6g7h8  A name of some length  2026-05-15  ok");
        assert_eq!(wide[2], "whe_a1b2c3d4e5f6g7h8  -                      2026-05-15  ok");
        for width in [60, 55, 50, 49, 45, 40, 38] {
            let lines = table(Some(width), LOOK);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
            assert!(lines[1].starts_with("whe_a1b2c3d4e5f6g7h8"), "{lines:?}");
        }
        assert_eq!(table(Some(50), LOOK)[1], "whe_a1b2c3d4e5f6g7h8  A name …  2026-05-15  ok".to_owned());
        assert_eq!(table(Some(45), LOOK)[1], "whe_a1b2c3d4e5f6g7h8  A name of some…  ok");
        assert_eq!(table(Some(10), LOOK)[1], "whe_a1b2c3d4e5f6g7h8  A name …  ok", "an id is not cut");
    }

    #[test]
    fn a_cell_steers_no_terminal_and_colours_shift_no_column() {
        let look = Look { is_coloured: true, ..LOOK };
        let rows = vec![vec![Cell::toned(Tone::Bad, "a\u{1b}]52;c;x\u{7}\u{202e}"), Cell::plain("b")]];
        let lines = laid_out(&[Column::text("one"), Column::text("two")], rows, None, look);
        assert_eq!(lines[1], "\u{1b}[31ma\\u{1b}]52;c;x\\u{7}\\u{202e}\u{1b}[0m  b");
    }
}
