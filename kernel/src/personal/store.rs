//! The statements of data subjects' keys.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use sqlx::PgConnection;

use crate::{
    clock::Timestamp,
    db::Error,
    id::{DataSubjectId, MerchantId},
};

pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    subjects: &[DataSubjectId],
    wrapped: &[Vec<u8>],
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into data_subject_keys (merchant_id, subject_id, wrapped_key, created_at)
        select $1, subject_id, wrapped_key, $4
        from unnest($2::uuid[], $3::bytea[]) as new_key (subject_id, wrapped_key)
        returning subject_id",
        merchant as MerchantId,
        subjects as &[DataSubjectId],
        wrapped,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(())
}

pub(super) async fn select(
    tx: &mut PgConnection,
    merchant: MerchantId,
    subjects: &[DataSubjectId],
) -> Result<Vec<(DataSubjectId, Vec<u8>)>, Error> {
    let rows = sqlx::query!(
        r#"select subject_id as "subject_id: DataSubjectId", wrapped_key
        from data_subject_keys
        where merchant_id = $1
            and subject_id = any($2)"#,
        merchant as MerchantId,
        subjects as &[DataSubjectId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.subject_id, row.wrapped_key))
        .collect())
}

pub(super) async fn delete(
    tx: &mut PgConnection,
    merchant: MerchantId,
    subject: DataSubjectId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from data_subject_keys
        where merchant_id = $1
            and subject_id = $2",
        merchant as MerchantId,
        subject as DataSubjectId,
    )
    .execute(tx)
    .await?;
    Ok(())
}
