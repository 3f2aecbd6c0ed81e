//! Looks into the files of a data directory.

use std::path::Path;

/// How often a text stands in the files of a directory and of those below it.
pub fn count_in_files(directory: &Path, text: &str) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            count += count_in_files(&path, text);
        } else if let Ok(bytes) = std::fs::read(&path) {
            count += memchr_count(&bytes, text.as_bytes());
        }
    }
    count
}

fn memchr_count(bytes: &[u8], text: &[u8]) -> usize {
    let first = text[0];
    let mut count = 0;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(text) {
            count += 1;
        }
        from += at + 1;
    }
    count
}
