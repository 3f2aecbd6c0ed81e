//! Pages of a list: newest first, cut at a row key.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::id::RowKey;
use super::limits;

/// How many, and older than what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    limit: u32,
    before: Option<RowKey>,
}

/// One page and where the next begins.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The key of the last item when there are more.
    pub next: Option<RowKey>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidPage {
    #[error("limit must be a whole number from 1 to {max}", max = limits::PAGE_MAX)]
    Limit,
    #[error("the cursor is not one that this list has given")]
    Cursor,
}

/// The first byte of a cursor, so that its form can change.
const CURSOR_FORM: u8 = 1;

impl PageRequest {
    /// Reads what a query string says of the page.
    ///
    /// # Errors
    /// When `limit` is not 1 to 200, or `cursor` is not one of ours.
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

    pub const fn limit(self) -> u32 {
        self.limit
    }

    /// Rows with smaller keys only; every row when there is no cursor.
    pub fn before(self) -> RowKey {
        self.before.unwrap_or(RowKey::from_i64(i64::MAX))
    }

    /// Cuts a page out of rows of which one more than `limit` was asked for.
    pub fn cut<T>(self, mut items: Vec<T>, key_of: impl Fn(&T) -> RowKey) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(key_of) } else { None };
        Page { items, next }
    }
}

pub fn encode_cursor(key: RowKey) -> String {
    let mut bytes = [CURSOR_FORM; 9];
    bytes[1..].copy_from_slice(&key.as_i64().to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn decode_cursor(text: &str) -> Result<RowKey, InvalidPage> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidPage::Cursor)?;
    match bytes.as_slice() {
        [CURSOR_FORM, key @ ..] => {
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
    fn a_limit_counts_from_1_to_200_and_nothing_is_clamped() {
        let limit = |text| PageRequest::parse(text, None).map(PageRequest::limit);
        assert_eq!(limit(None), Ok(50));
        assert_eq!(limit(Some("1")), Ok(1));
        assert_eq!(limit(Some("200")), Ok(200));
        for bad in ["0", "201", "-1", "+5", "ten", "", "1.0", "99999999999"] {
            assert_eq!(limit(Some(bad)), Err(InvalidPage::Limit), "{bad}");
        }
    }

    #[test]
    fn a_cursor_reads_back_and_any_other_text_is_refused() {
        let key = RowKey::from_i64(1_234_567_890_123);
        let request = PageRequest::parse(None, Some(&encode_cursor(key))).unwrap();
        assert_eq!(request.before(), key);
        for bad in ["", "x", "AAAA", "!!!!", "AgAAAAAAAAAB", &encode_cursor(key)[1..]] {
            assert_eq!(PageRequest::parse(None, Some(bad)), Err(InvalidPage::Cursor), "{bad}");
        }
    }

    #[test]
    fn a_page_says_where_the_next_begins_only_when_there_is_one() {
        let request = PageRequest::parse(Some("2"), None).unwrap();
        let key = |n: &i64| RowKey::from_i64(*n);
        assert_eq!(request.cut(vec![9, 8, 7], key).next, Some(RowKey::from_i64(8)));
        assert_eq!(request.cut(vec![9, 8], key).next, None);
        assert_eq!(request.cut(Vec::new(), key).next, None);
    }
}
