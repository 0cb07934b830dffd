//! Lists in pages: an answer has a bound, and says where the next one begins.

use std::fmt::Display;

use rackferry_proto::{Reason, refuse};
use tonic::Status;

/// The most rows that one answer has.
pub const ROWS: usize = 10_000;

/// The part of a list that a client asks for.
pub struct Page<K> {
    size: usize,
    after: Option<K>,
}

impl<K: Ord + Display> Page<K> {
    /// Reads what a client asks for; without a size it gets as many rows as one answer may have.
    ///
    /// # Errors
    /// If the token is none.
    pub fn new(
        size: u32,
        token: &str,
        key: impl FnOnce(&str) -> Option<K>,
    ) -> Result<Self, Status> {
        let size = if size == 0 { ROWS } else { (size as usize).min(ROWS) };
        if token.is_empty() {
            return Ok(Self { size, after: None });
        }
        let after = key(token)
            .ok_or_else(|| refuse(Reason::InvalidArgument, "page_token is none of this list"))?;
        Ok(Self { size, after: Some(after) })
    }

    /// Rows that are asked for, of all by their keys, and the token of the next page. A row that weighs more than one
    /// counts as so many.
    pub fn cut<T>(
        &self,
        rows: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> K,
        weight: impl Fn(&T) -> usize,
    ) -> (Vec<T>, String) {
        let behind = |row: &T| self.after.as_ref().is_none_or(|after| key(row) > *after);
        let mut rows = rows.into_iter().filter(behind).peekable();
        let (mut page, mut weighs) = (Vec::new(), 0);
        while let Some(row) = rows.peek() {
            weighs += weight(row);
            if page.len() == self.size || (weighs > ROWS && !page.is_empty()) {
                break;
            }
            page.extend(rows.next());
        }
        let more = rows.peek().is_some();
        let next = page.last().filter(|_| more).map(|row| key(row).to_string());
        (page, next.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(size: u32, token: &str) -> Page<u32> {
        Page::new(size, token, |token| token.parse().ok()).unwrap()
    }

    #[test]
    fn every_row_is_on_one_page() {
        let (mut token, mut all) = (String::new(), Vec::new());
        loop {
            let (rows, next) = page(3, &token).cut(0..10_u32, |row| *row, |_| 1);
            assert!(rows.len() <= 3);
            all.extend(rows);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_size_there_is_a_bound() {
        let (rows, next) = page(0, "").cut(0..20_000_u32, |row| *row, |_| 1);
        assert_eq!((rows.len(), next.as_str()), (ROWS, "9999"));
        let (rows, next) = page(u32::MAX, &next).cut(0..20_000_u32, |row| *row, |_| 1);
        assert_eq!((rows.len(), next.as_str()), (ROWS, ""));
    }

    #[test]
    fn heavy_rows_are_fewer_but_one_at_least() {
        let (rows, next) = page(0, "").cut(0..5_u32, |row| *row, |_| 6_000);
        assert_eq!((rows, next.as_str()), (vec![0], "0"));
        let (rows, _) = page(0, "0").cut(0..5_u32, |row| *row, |_| 60_000);
        assert_eq!(rows, [1]);
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        assert!(Page::<u32>::new(1, "mig-7", |token| token.parse().ok()).is_err());
    }
}
