//! Relay connections over the domain's pages.

use async_graphql::{
    OutputType,
    connection::{Connection, Edge},
};
use kernel::{
    page::{self, InvalidCursor, LIMIT_DEFAULT, LIMIT_MAX, Page, PageRequest},
    problem::{FieldError, Problem},
};
use serde::{Serialize, de::DeserializeOwned};

/// Reads `first` and `after`; every fault at once.
pub(crate) fn page_request<Key: DeserializeOwned>(
    first: Option<i32>,
    after: Option<&str>,
) -> Result<PageRequest<Key>, Problem> {
    let limit = first.map_or(Ok(LIMIT_DEFAULT), |first| {
        u32::try_from(first)
            .ok()
            .filter(|first| (1..=LIMIT_MAX).contains(first))
            .ok_or_else(|| {
                FieldError::in_parameter(
                    "first",
                    "out_of_range",
                    format!("must be a number from 1 to {LIMIT_MAX}"),
                )
            })
    });
    let after = after.map(page::decode).transpose();
    let after = after.map_err(|InvalidCursor| {
        FieldError::in_parameter(
            "after",
            "invalid",
            "must be a cursor of this list, unchanged",
        )
    });
    match (limit, after) {
        (Ok(limit), Ok(after)) => Ok(PageRequest { limit, after }),
        (limit, after) => Err(Problem::invalid_fields(
            limit.err().into_iter().chain(after.err()).collect(),
        )),
    }
}

/// A page as a connection. `key` gives a row's sort key, of which its cursor is made; `node` gives the row as the schema has it. Pages run
/// forward only, so that before a page there is one if it is not the first.
pub(crate) fn connection<T, Key: Serialize, Node: OutputType>(
    page: Page<T>,
    request: &PageRequest<Key>,
    key: impl Fn(&T) -> Key,
    node: impl Fn(T) -> Node,
) -> Connection<String, Node> {
    let mut connection = Connection::new(request.after.is_some(), page.next_cursor.is_some());
    connection.edges.extend(
        page.data
            .into_iter()
            .map(|row| Edge::new(page::encode(&key(&row)), node(row))),
    );
    connection
}
