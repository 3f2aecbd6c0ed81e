//! Pages of a list: newest first, delimited by row keys.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::id::RowKey;
use super::limits;
use super::time::Timestamp;

/// How many items, and older than which row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    limit: u32,
    before: Option<RowKey>,
}

/// One page, and the start of the next.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The key of the last item if there are more.
    pub next: Option<RowKey>,
    /// Set when the search ended before the page was full and before the end of the list: it looked at everything back
    /// to this instant, and `next` continues from there.
    pub searched_to: Option<Timestamp>,
}

impl<T> Page<T> {
    /// A list that fits into one page.
    pub const fn all(items: Vec<T>) -> Self {
        Self { items, next: None, searched_to: None }
    }

    /// The same page with other items.
    pub fn map<U>(self, map: impl FnMut(T) -> U) -> Page<U> {
        let Self { items, next, searched_to } = self;
        Page { items: items.into_iter().map(map).collect(), next, searched_to }
    }

    /// The page of a search that looked at rows from `cut` on. `None`: it looked at all rows.
    #[must_use]
    pub fn searched_from(self, cut: Option<RowKey>) -> Self {
        match (self.next, cut) {
            (None, Some(cut)) => Self { next: Some(cut), searched_to: Some(cut.created_at()), ..self },
            _ => self,
        }
    }
}

/// How many rows match a filter, counted up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedCount {
    pub count: u32,
    /// Whether that is all. Otherwise there are at least so many.
    pub is_exact: bool,
    /// The count stopped at the bound on rows looked at, and knows of everything back to this instant.
    pub searched_to: Option<Timestamp>,
}

impl BoundedCount {
    /// The start of a count over rows from `cut` on. `None`: over all rows.
    pub fn searched_from(cut: Option<RowKey>) -> Self {
        Self { count: 0, is_exact: cut.is_none(), searched_to: cut.map(RowKey::created_at) }
    }

    /// Adds `rows` found, of which at most `max` count.
    pub fn add(&mut self, rows: u32, max: u32) {
        let sum = self.count.saturating_add(rows);
        self.is_exact &= sum <= max;
        self.count = sum.min(max);
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidPage {
    #[error("limit must be a whole number from 1 to {max}", max = limits::PAGE_MAX)]
    Limit,
    #[error("the cursor is not one that this list has given")]
    Cursor,
}

/// The first byte of a cursor, so that its format can change.
const CURSOR_VERSION: u8 = 1;

impl PageRequest {
    /// The first page of the usual size.
    pub const FIRST: Self = Self { limit: limits::PAGE_DEFAULT, before: None };

    /// Reads the page parameters of a query string.
    ///
    /// # Errors
    /// When `limit` is not 1 to 200, or `cursor` was not made by [`encode_cursor`].
    pub fn parse(limit: Option<&str>, cursor: Option<&str>) -> Result<Self, InvalidPage> {
        let limit = match limit {
            None => limits::PAGE_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=limits::PAGE_MAX).contains(limit))
                .filter(|_| text.bytes().all(|c| c.is_ascii_digit()))
                .ok_or(InvalidPage::Limit)?,
        };
        let before = cursor.map(decode_cursor).transpose()?;
        Ok(Self { limit, before })
    }

    /// The same start, with another number of items.
    #[must_use]
    pub const fn with_limit(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    /// As many items, from the start of the list.
    #[must_use]
    pub const fn from_start(self) -> Self {
        Self { before: None, ..self }
    }

    pub const fn limit(self) -> u32 {
        self.limit
    }

    /// Only rows with smaller keys belong to the page; every row if there is no cursor.
    pub fn before(self) -> RowKey {
        self.before.unwrap_or(RowKey::from_i64(i64::MAX))
    }

    /// Makes a page of `items`, which the query fetched with a limit one higher than `limit`.
    pub fn cut<T>(self, mut items: Vec<T>, key_of: impl Fn(&T) -> RowKey) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(key_of) } else { None };
        Page { items, next, searched_to: None }
    }
}

pub fn encode_cursor(key: RowKey) -> String {
    let mut bytes = [CURSOR_VERSION; 9];
    bytes[1..].copy_from_slice(&key.as_i64().to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn decode_cursor(text: &str) -> Result<RowKey, InvalidPage> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidPage::Cursor)?;
    match bytes.as_slice() {
        [CURSOR_VERSION, key @ ..] => {
            let key: [u8; 8] = key.try_into().map_err(|_| InvalidPage::Cursor)?;
            Ok(RowKey::from_i64(i64::from_be_bytes(key)))
        }
        _ => Err(InvalidPage::Cursor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_1_to_200_and_never_clamped() {
        let limit = |text| PageRequest::parse(text, None).map(PageRequest::limit);
        assert_eq!(limit(None), Ok(50));
        assert_eq!(limit(Some("1")), Ok(1));
        assert_eq!(limit(Some("200")), Ok(200));
        for bad in ["0", "201", "-1", "+5", "ten", "", "1.0", "99999999999"] {
            assert_eq!(limit(Some(bad)), Err(InvalidPage::Limit), "{bad}");
        }
    }

    #[test]
    fn a_cursor_parses_back_and_any_other_text_is_refused() {
        let key = RowKey::from_i64(1_234_567_890_123);
        let request = PageRequest::parse(None, Some(&encode_cursor(key))).unwrap();
        assert_eq!(request.before(), key);
        for bad in ["", "x", "AAAA", "!!!!", "AgAAAAAAAAAB", &encode_cursor(key)[1..]] {
            assert_eq!(PageRequest::parse(None, Some(bad)), Err(InvalidPage::Cursor), "{bad}");
        }
    }

    #[test]
    fn a_search_that_was_cut_short_says_how_far_it_looked() {
        let request = PageRequest::parse(Some("2"), None).unwrap();
        let (key, cut) = (|n: &i64| RowKey::from_i64(*n), RowKey::first_at(Timestamp::from_millis(5)));
        let empty = request.cut(Vec::new(), key).searched_from(Some(cut));
        assert_eq!((empty.next, empty.searched_to), (Some(cut), Some(Timestamp::from_millis(5))));
        let full = request.cut(vec![9, 8, 7], key).searched_from(Some(cut));
        assert_eq!((full.next, full.searched_to), (Some(RowKey::from_i64(8)), None));
        let complete = request.cut(vec![9], key).searched_from(None);
        assert_eq!((complete.next, complete.searched_to), (None, None));
    }

    #[test]
    fn a_page_has_a_next_key_only_if_more_rows_follow() {
        let request = PageRequest::parse(Some("2"), None).unwrap();
        let key = |n: &i64| RowKey::from_i64(*n);
        assert_eq!(request.cut(vec![9, 8, 7], key).next, Some(RowKey::from_i64(8)));
        assert_eq!(request.cut(vec![9, 8], key).next, None);
        assert_eq!(request.cut(Vec::new(), key).next, None);
    }
}
