//! Looks for content in the files of SQLite.

use std::io;
use std::path::Path;

use crate::sim::files;

const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;

/// Where content was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In rows, freed rows, free pages or elsewhere.
    pub elsewhere: usize,
    /// In the unused bytes between the list of a page's cells and the cells. SQLite leaves copies there when it moves
    /// cells to another page, whatever `secure_delete` is set to.
    pub in_gaps: usize,
}

/// Searches the database and its log.
///
/// # Errors
/// When the database cannot be read.
pub fn search(directory: &Path, sought: &[u8]) -> io::Result<Found> {
    let [database, log] = files(directory);
    let content = std::fs::read(database)?;
    let page_bytes = usize::from(u16::from_be_bytes([content[16], content[17]]));
    let mut found = Found::default();
    let pages = content.chunks(page_bytes).enumerate();
    pages.for_each(|(index, page)| found.search_page(page, index == 0, sought));
    let log = std::fs::read(log).unwrap_or_default();
    let frames = log.get(LOG_HEADER_BYTES..).unwrap_or_default().chunks(FRAME_HEAD_BYTES + page_bytes);
    for frame in frames.filter(|frame| frame.len() > FRAME_HEAD_BYTES) {
        let (head, page) = frame.split_at(FRAME_HEAD_BYTES);
        found.search_page(page, head[..4] == [0, 0, 0, 1], sought);
    }
    Ok(found)
}

impl Found {
    fn search_page(&mut self, page: &[u8], is_first: bool, sought: &[u8]) {
        for at in occurrences(page, sought) {
            let is_in_gap = gap(page, is_first).is_some_and(|(from, to)| from <= at && at + sought.len() <= to);
            *(if is_in_gap { &mut self.in_gaps } else { &mut self.elsewhere }) += 1;
        }
    }
}

fn occurrences(content: &[u8], sought: &[u8]) -> impl Iterator<Item = usize> {
    (0..content.len()).filter(move |at| content[*at] == sought[0] && content[*at..].starts_with(sought))
}

/// The unused bytes of a page of a tree.
fn gap(page: &[u8], is_first: bool) -> Option<(usize, usize)> {
    let head = page.get(if is_first { 100 } else { 0 }..)?;
    let head_bytes = match head.first()? {
        2 | 5 => 12,
        10 | 13 => 8,
        _ => return None,
    };
    let number = |at: usize| Some(usize::from(u16::from_be_bytes([*head.get(at)?, *head.get(at + 1)?])));
    Some((page.len() - head.len() + head_bytes + 2 * number(3)?, number(5)?))
}
