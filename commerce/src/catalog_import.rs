//! Catalog imports: products streamed in, a line of NDJSON each.
//!
//! An import is a resource under an idempotency key. What is sent is split into lines, gathered into batches, and each batch is committed with
//! its results and the checkpoint in one transaction. A request that sends the same body under the same key continues from the checkpoint, so
//! that each line has its effect and its result once, however often the connection breaks.
//!
//! - The key's fingerprint is the import's parameters, not its body. Another parameter under the same key is refused.
//! - Every request that takes an import over raises its attempt; a batch of an older attempt commits nothing.
//! - Results are read from what is committed, never from the writer: a client that sends all before it reads can't stall the import, and a client
//!   that reads while it sends sees a line soon after it was committed.
//! - A broken line harms no other. A blank line is no line: it is counted so that line numbers stay right, and has no result.
//!
//! The stream of results has one JSON object a line: a [`LineResult`] for each line of input that is not blank, in their order, and at last one
//! [`SummaryLine`], told apart by its only member `summary`. A stream without a summary has been cut off. A summary whose status is
//! `interrupted` says why; sending the same body under the same key continues.

use std::time::Duration;

use async_graphql::{Enum, InputObject, SimpleObject};
use kernel::{
    actor::Actor,
    clock::Timestamp,
    id::{Id, Kind},
    idempotency::{self, Key},
    page::{Page, PageRequest},
    problem::FieldError,
    scope::Scope,
    validation::{self, Faults, Validate},
    version::Version,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::{Error, product::ProductId};

mod batch;
mod lines;
mod results;
mod session;
mod store;
#[cfg(test)]
mod tests;

pub use lines::LINE_BYTES_MAX;
pub use session::{Importer, Interruption, InterruptionReason, Session};

impl Kind for CatalogImport {
    const PREFIX: &'static str = "imp";
}

/// The id of a [`CatalogImport`]: `imp_…`.
pub type CatalogImportId = Id<CatalogImport>;

/// Lines of one batch at most: enough that a commit costs little per line, few enough that its locks are short.
const BATCH_LINES_MAX: usize = 500;

/// Bytes of input that fill a batch, so that long lines make small batches: with [`LINE_BYTES_MAX`] it bounds what is held in memory.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How long the first line of a batch waits for others: a client that sends line by line and waits for results gets them after this.
const BATCH_FILLED_FOR: Duration = Duration::from_millis(100);

/// Characters of an import's label.
const LABEL_CHARACTERS_MAX: usize = 255;

/// An import of products.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct CatalogImport {
    /// Its id.
    #[schema(value_type = CatalogImportId)]
    pub id: CatalogImportId,
    /// What the client calls it.
    #[schema(required)]
    pub label: Option<String>,
    /// How far it has come.
    pub status: CatalogImportStatus,
    /// Lines of input that are dealt with, blank ones included. An import that is continued skips as many.
    pub lines_done: i64,
    /// Lines that made a product.
    pub created_count: i64,
    /// Lines that changed a product.
    pub updated_count: i64,
    /// Lines that said what was there already.
    pub unchanged_count: i64,
    /// Lines that came to nothing, each for reasons that its result names.
    pub failed_count: i64,
    /// Raised with every change; the `ETag`.
    pub version: Version,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was completed; null until then.
    #[schema(required)]
    pub completed_at: Option<Timestamp>,
}

/// How far an import has come.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, Enum, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[graphql(rename_items = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum CatalogImportStatus {
    /// The end of its input has not been reached. Whether somebody is sending just now is not known here; the same key continues it.
    Running,
    /// All of its input is dealt with.
    Completed,
}

/// What an import is begun with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CatalogImportParameters {
    /// What to call it, at most 255 characters: `nightly sync`.
    #[serde(default)]
    pub label: Option<String>,
}

impl Validate for CatalogImportParameters {
    fn validate(&self, faults: &mut Faults) {
        faults.optional_text("/label", self.label.as_deref(), LABEL_CHARACTERS_MAX);
    }
}

/// What a line of input came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"line": 1, "status": "created", "externalId": "SHIRT-1", "productId": "prod_01jd3x5k8vfm7b2c9q0r4t6w8y", "errors": []}))]
pub struct LineResult {
    /// The line's number in the input, from 1.
    pub line: i64,
    /// What it came to.
    pub status: LineStatus,
    /// The product's external id, as far as it could be read.
    #[schema(required)]
    pub external_id: Option<String>,
    /// The product; null if the line failed.
    #[schema(required, value_type = Option<ProductId>)]
    pub product_id: Option<ProductId>,
    /// Why it failed: every field that is wrong by its pointer, or what is wrong with the line as a whole (an empty pointer) under one of the
    /// codes `malformed_json`, `line_too_long` and `internal_error`.
    pub errors: Vec<FieldError>,
}

/// What a line of input came to, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineStatus {
    /// It made a product.
    Created,
    /// It changed a product.
    Updated,
    /// The product was already what it says.
    Unchanged,
    /// It came to nothing.
    Failed,
}

/// The last line of a stream of results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SummaryLine {
    /// What the import has come to.
    pub summary: Summary,
}

/// What an import has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The import.
    #[schema(value_type = CatalogImportId)]
    pub import_id: CatalogImportId,
    /// Whether it is complete.
    pub status: SummaryStatus,
    /// Lines of input that are dealt with, blank ones included.
    pub lines_done: i64,
    /// Lines that made a product.
    pub created_count: i64,
    /// Lines that changed a product.
    pub updated_count: i64,
    /// Lines that said what was there already.
    pub unchanged_count: i64,
    /// Lines that came to nothing.
    pub failed_count: i64,
    /// Why it was interrupted; null if it was not.
    #[schema(required)]
    pub interruption: Option<Interruption>,
}

/// Whether an import is complete, as its summary says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SummaryStatus {
    /// All input is dealt with; this was the last result.
    Completed,
    /// The request that these results belong to has ended early. The same body under the same key continues the import.
    Interrupted,
    /// These are the results so far; the import is not complete.
    Running,
}

/// An import that a request has begun or taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The import with its checkpoint.
    pub import: CatalogImport,
    /// The number of this request among those that worked on it; what an older one does no longer counts.
    pub attempt: i64,
    /// Whether the import was there already.
    pub continued: bool,
    batches_done: i64,
}

/// Begins the import of this key, or takes it over from an earlier request. A completed one is given as it is.
pub async fn begin(
    tx: &mut PgConnection,
    actor: &Actor,
    key: &Key,
    parameters: &CatalogImportParameters,
    now: Timestamp,
) -> Result<Begun, Error> {
    actor.access.require(Scope::CatalogWrite)?;
    validation::check(parameters).map_err(Error::Invalid)?;
    let json = serde_json::to_vec(parameters).map_err(idempotency::Error::Input)?;
    let fingerprint: [u8; 32] = Sha256::digest(json).into();
    let new = store::NewImport {
        id: CatalogImportId::new(now),
        fingerprint: &fingerprint,
        label: parameters.label.as_deref(),
    };
    if let Some(begun) = store::insert(tx, actor, key, &new, now).await? {
        return Ok(begun);
    }
    if let Some(begun) = store::take_over(tx, actor, key, &fingerprint, now).await? {
        return Ok(begun);
    }
    // It is there, and it is completed or has other parameters.
    let completed = store::find_completed(tx, actor, key, &fingerprint).await?;
    completed.ok_or_else(|| idempotency::Error::KeyReused.into())
}

/// The import of this id.
pub async fn get(
    tx: &mut PgConnection,
    actor: &Actor,
    id: CatalogImportId,
) -> Result<CatalogImport, Error> {
    actor.access.require(Scope::CatalogRead)?;
    let begun = store::get(tx, actor.merchant, id).await?;
    begun
        .map(|begun| begun.import)
        .ok_or_else(|| Error::not_found("catalog import", id))
}

/// A page of imports, the latest first.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    request: &PageRequest<CatalogImportId>,
) -> Result<Page<CatalogImport>, Error> {
    actor.access.require(Scope::CatalogRead)?;
    let rows = store::list(tx, actor.merchant, request).await?;
    Ok(Page::from_rows(rows, request, |import| import.id))
}

impl CatalogImport {
    fn summary(&self, status: SummaryStatus, interruption: Option<Interruption>) -> Summary {
        Summary {
            import_id: self.id,
            status,
            lines_done: self.lines_done,
            created_count: self.created_count,
            updated_count: self.updated_count,
            unchanged_count: self.unchanged_count,
            failed_count: self.failed_count,
            interruption,
        }
    }
}
