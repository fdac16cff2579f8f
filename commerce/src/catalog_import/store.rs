//! The statements of imports.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    actor::Actor, clock::Timestamp, db, id::MerchantId, idempotency::Key, page::PageRequest,
    version::Version,
};
use sqlx::PgConnection;

use super::{Begun, CatalogImport, CatalogImportId, CatalogImportStatus};

pub(super) struct NewImport<'n> {
    pub(super) id: CatalogImportId,
    pub(super) fingerprint: &'n [u8],
    pub(super) label: Option<&'n str>,
}

struct Row {
    id: CatalogImportId,
    label: Option<String>,
    status: CatalogImportStatus,
    attempt: i64,
    lines_done: i64,
    batches_done: i64,
    created_count: i64,
    updated_count: i64,
    unchanged_count: i64,
    failed_count: i64,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    completed_at: Option<Timestamp>,
}

impl From<Row> for Begun {
    fn from(row: Row) -> Self {
        let import = CatalogImport {
            id: row.id,
            label: row.label,
            status: row.status,
            lines_done: row.lines_done,
            created_count: row.created_count,
            updated_count: row.updated_count,
            unchanged_count: row.unchanged_count,
            failed_count: row.failed_count,
            version: Version::new(row.version),
            created_at: row.created_at,
            updated_at: row.updated_at,
            completed_at: row.completed_at,
        };
        Self {
            import,
            attempt: row.attempt,
            continued: true,
            batches_done: row.batches_done,
        }
    }
}

/// Makes an import, unless there is one of this key.
pub(super) async fn insert(
    tx: &mut PgConnection,
    actor: &Actor,
    key: &Key,
    new: &NewImport<'_>,
    now: Timestamp,
) -> Result<Option<Begun>, db::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"insert into catalog_imports
            (merchant_id, id, app_id, idempotency_key, fingerprint, label, status, attempt, lines_done, batches_done,
             created_count, updated_count, unchanged_count, failed_count, version, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, 'running', 1, 0, 0, 0, 0, 0, 0, 1, $7, $7)
        on conflict (merchant_id, app_id, idempotency_key) do nothing
        returning id as "id: CatalogImportId", label, status as "status: CatalogImportStatus", attempt, lines_done, batches_done,
            created_count, updated_count, unchanged_count, failed_count, version, created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp", completed_at as "completed_at: Timestamp""#,
        actor.merchant as MerchantId,
        new.id as CatalogImportId,
        actor.app as kernel::id::AppId,
        key.as_str(),
        new.fingerprint,
        new.label,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Begun {
        continued: false,
        ..Begun::from(row)
    }))
}

/// Raises the attempt of a running import of this key and fingerprint.
pub(super) async fn take_over(
    tx: &mut PgConnection,
    actor: &Actor,
    key: &Key,
    fingerprint: &[u8],
    now: Timestamp,
) -> Result<Option<Begun>, db::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"update catalog_imports
        set attempt = attempt + 1, version = version + 1, updated_at = $5
        where merchant_id = $1
            and app_id = $2
            and idempotency_key = $3
            and fingerprint = $4
            and status = 'running'
        returning id as "id: CatalogImportId", label, status as "status: CatalogImportStatus", attempt, lines_done, batches_done,
            created_count, updated_count, unchanged_count, failed_count, version, created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp", completed_at as "completed_at: Timestamp""#,
        actor.merchant as MerchantId,
        actor.app as kernel::id::AppId,
        key.as_str(),
        fingerprint,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Begun::from))
}

pub(super) async fn find_completed(
    tx: &mut PgConnection,
    actor: &Actor,
    key: &Key,
    fingerprint: &[u8],
) -> Result<Option<Begun>, db::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select id as "id: CatalogImportId", label, status as "status: CatalogImportStatus", attempt, lines_done, batches_done,
            created_count, updated_count, unchanged_count, failed_count, version, created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp", completed_at as "completed_at: Timestamp"
        from catalog_imports
        where merchant_id = $1
            and app_id = $2
            and idempotency_key = $3
            and fingerprint = $4
            and status = 'completed'"#,
        actor.merchant as MerchantId,
        actor.app as kernel::id::AppId,
        key.as_str(),
        fingerprint,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Begun::from))
}

pub(super) async fn get(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: CatalogImportId,
) -> Result<Option<Begun>, db::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select id as "id: CatalogImportId", label, status as "status: CatalogImportStatus", attempt, lines_done, batches_done,
            created_count, updated_count, unchanged_count, failed_count, version, created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp", completed_at as "completed_at: Timestamp"
        from catalog_imports
        where merchant_id = $1
            and id = $2"#,
        merchant as MerchantId,
        id as CatalogImportId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Begun::from))
}

pub(super) async fn list(
    tx: &mut PgConnection,
    merchant: MerchantId,
    request: &PageRequest<CatalogImportId>,
) -> Result<Vec<CatalogImport>, db::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id as "id: CatalogImportId", label, status as "status: CatalogImportStatus", attempt, lines_done, batches_done,
            created_count, updated_count, unchanged_count, failed_count, version, created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp", completed_at as "completed_at: Timestamp"
        from catalog_imports
        where merchant_id = $1
            and ($2::uuid is null or id < $2)
        order by id desc
        limit $3"#,
        merchant as MerchantId,
        request.after as Option<CatalogImportId>,
        request.fetch_count(),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Begun::from(row).import)
        .collect())
}

/// A batch's results and what they add up to.
#[derive(Debug, Default)]
pub(super) struct NewBatch {
    pub(super) after_line: i64,
    pub(super) last_line: i64,
    pub(super) created: i64,
    pub(super) updated: i64,
    pub(super) unchanged: i64,
    pub(super) failed: i64,
    /// A line of NDJSON each.
    pub(super) text: String,
}

/// Moves the checkpoint past a batch and keeps its results; nothing if this attempt is no longer the one, or the batch is in already.
pub(super) async fn advance(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: CatalogImportId,
    attempt: i64,
    batch: &NewBatch,
    now: Timestamp,
) -> Result<Option<Begun>, db::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"update catalog_imports
        set lines_done = $5, batches_done = batches_done + 1, created_count = created_count + $6,
            updated_count = updated_count + $7, unchanged_count = unchanged_count + $8, failed_count = failed_count + $9,
            version = version + 1, updated_at = $10
        where merchant_id = $1
            and id = $2
            and attempt = $3
            and lines_done = $4
            and status = 'running'
        returning id as "id: CatalogImportId", label, status as "status: CatalogImportStatus", attempt, lines_done, batches_done,
            created_count, updated_count, unchanged_count, failed_count, version, created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp", completed_at as "completed_at: Timestamp""#,
        merchant as MerchantId,
        id as CatalogImportId,
        attempt,
        batch.after_line,
        batch.last_line,
        batch.created,
        batch.updated,
        batch.unchanged,
        batch.failed,
        now as Timestamp,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(begun) = row.map(Begun::from) else {
        return Ok(None);
    };
    sqlx::query!(
        "insert into catalog_import_batches (merchant_id, import_id, batch, first_line, last_line, results)
        values ($1, $2, $3, $4, $5, $6)",
        merchant as MerchantId,
        id as CatalogImportId,
        begun.batches_done,
        batch.after_line + 1,
        batch.last_line,
        batch.text,
    )
    .execute(tx)
    .await?;
    Ok(Some(begun))
}

/// Completes an import whose input had so many lines; nothing if this attempt is no longer the one, or the import is complete already.
pub(super) async fn complete(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: CatalogImportId,
    attempt: i64,
    lines: i64,
    now: Timestamp,
) -> Result<Option<CatalogImport>, db::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"update catalog_imports
        set status = 'completed', lines_done = $4, version = version + 1, updated_at = $5, completed_at = $5
        where merchant_id = $1
            and id = $2
            and attempt = $3
            and lines_done <= $4
            and status = 'running'
        returning id as "id: CatalogImportId", label, status as "status: CatalogImportStatus", attempt, lines_done, batches_done,
            created_count, updated_count, unchanged_count, failed_count, version, created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp", completed_at as "completed_at: Timestamp""#,
        merchant as MerchantId,
        id as CatalogImportId,
        attempt,
        lines,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Begun::from(row).import))
}

/// The results of one batch.
pub(super) struct KeptBatch {
    pub(super) batch: i64,
    pub(super) results: String,
}

/// The first batch after `after_batch` that has lines after `after_line`.
pub(super) async fn next_batch(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: CatalogImportId,
    after_batch: i64,
    after_line: i64,
) -> Result<Option<KeptBatch>, db::Error> {
    let batch = sqlx::query_as!(
        KeptBatch,
        "select batch, results
        from catalog_import_batches
        where merchant_id = $1
            and import_id = $2
            and batch > $3
            and last_line > $4
        order by batch
        limit 1",
        merchant as MerchantId,
        id as CatalogImportId,
        after_batch,
        after_line,
    )
    .fetch_optional(tx)
    .await?;
    Ok(batch)
}
