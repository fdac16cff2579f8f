//! Pages: lists by keyset, stable under writes.
//!
//! A cursor is opaque to clients: base64url of the JSON of the last row's sort key. It carries no secret and grants nothing; a tampered one
//! either fails to parse or starts at another place of the same merchant's list.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    clock::Timestamp,
    problem::{FieldError, Problem},
};

/// Rows on a page if the client does not say.
pub const LIMIT_DEFAULT: u32 = 50;

/// Rows on a page at most: a page of products with variants stays below a few megabytes.
pub const LIMIT_MAX: u32 = 250;

/// How long a change may take from the time that it bears to its commit: longer than any statement may run, and than clocks differ.
const COMMITTED_WITHIN: Duration = Duration::from_mins(1);

/// From when on a list looks for what was changed after `updated_after`. A change bears the time at which it began, and one that began earlier may be
/// committed later; so that a sync which goes on from the newest time that it has seen misses none, the minute before is shown again.
pub fn overlapped(updated_after: Option<Timestamp>) -> Option<Timestamp> {
    updated_after.map(|time| time.minus(COMMITTED_WITHIN))
}

/// What a client asks of a list: how many rows, after which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest<Key> {
    /// Rows at most, 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// The sort key of the last row that the client has; from the beginning if `None`.
    pub after: Option<Key>,
}

impl<Key: DeserializeOwned> PageRequest<Key> {
    /// Reads `limit` and `cursor` as REST has them; every fault at once.
    pub fn parse(limit: Option<&str>, cursor: Option<&str>) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let limit = limit.map_or(Ok(LIMIT_DEFAULT), |text| {
            text.parse()
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| {
                    FieldError::in_parameter(
                        "limit",
                        "out_of_range",
                        format!("must be a number from 1 to {LIMIT_MAX}"),
                    )
                })
        });
        let after = cursor.map(decode).transpose();
        let after = after.map_err(|InvalidCursor| {
            FieldError::in_parameter(
                "cursor",
                "invalid",
                "must be a `nextCursor` of this list, unchanged",
            )
        });
        match (limit, after) {
            (Ok(limit), Ok(after)) => Ok(Self { limit, after }),
            (limit, after) => {
                errors.extend(limit.err());
                errors.extend(after.err());
                Err(Problem::invalid_fields(errors))
            }
        }
    }
}

impl<Key> PageRequest<Key> {
    /// The bind for `limit`: one row more than asked for, which tells whether another page follows.
    pub fn fetch_count(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

/// Some rows of a list, and where the next begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// What to send as `cursor` for the next page; null on the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of rows fetched with [`PageRequest::fetch_count`]; `key` gives a row's sort key.
    pub fn from_rows<Key: Serialize>(
        mut rows: Vec<T>,
        request: &PageRequest<Key>,
        key: impl FnOnce(&T) -> Key,
    ) -> Self {
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(&key(last)));
        Self {
            data: rows,
            next_cursor,
        }
    }

    /// The same page of something else.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(change).collect(),
            next_cursor: self.next_cursor,
        }
    }
}

/// A cursor that is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct InvalidCursor;

/// The cursor of a sort key.
pub fn encode(key: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(key).unwrap_or_default())
}

/// The sort key of a cursor.
pub fn decode<Key: DeserializeOwned>(cursor: &str) -> Result<Key, InvalidCursor> {
    let json = BASE64_URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .ok_or(InvalidCursor)?;
    serde_json::from_slice(&json).ok().ok_or(InvalidCursor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_row_beyond_the_limit_makes_the_cursor() {
        let request = PageRequest::<u32> {
            limit: 2,
            after: None,
        };
        let page = Page::from_rows(vec![1, 2, 3], &request, |&row| row);
        assert_eq!(page.data, [1, 2]);
        assert_eq!(decode::<u32>(&page.next_cursor.unwrap()), Ok(2));
        assert_eq!(
            Page::from_rows(vec![1, 2], &request, |&row| row).next_cursor,
            None
        );
    }

    #[test]
    fn a_bad_limit_and_a_bad_cursor_are_named_together() {
        let problem = PageRequest::<u32>::parse(Some("0"), Some("%")).unwrap_err();
        let names: Vec<_> = problem
            .errors
            .iter()
            .filter_map(|error| error.parameter.as_deref())
            .collect();
        assert_eq!(names, ["limit", "cursor"]);
    }
}
