//! The statements of stock. Rows are always locked in the order of variant and location.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, LocationId, MerchantId, RequestId},
    page,
    version::Version,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    InventoryFilter, InventoryLevel, InventoryMovement, InventoryMovementId, MovementReason,
};
use crate::{order::OrderId, product::VariantId};

pub(super) async fn lock_variants(
    tx: &mut PgConnection,
    merchant: MerchantId,
    variants: &[VariantId],
    locations: Option<&[LocationId]>,
) -> Result<Vec<InventoryLevel>, Error> {
    Ok(sqlx::query_as!(
        InventoryLevel,
        r#"select
            variant_id as "variant_id: VariantId", location_id as "location_id: LocationId",
            on_hand::integer as "on_hand!", reserved::integer as "reserved!", (on_hand - reserved)::integer as "available!",
            version as "version: Version", updated_at as "updated_at: Timestamp"
        from inventory_levels
        where merchant_id = $1
            and variant_id = any($2)
            and ($3::uuid[] is null or location_id = any($3))
        order by variant_id, location_id
        for update"#,
        merchant as MerchantId,
        variants as &[VariantId],
        locations as Option<&[LocationId]>,
    )
    .fetch_all(tx)
    .await?)
}

pub(super) async fn lock_pairs(
    tx: &mut PgConnection,
    merchant: MerchantId,
    pairs: &[(VariantId, LocationId)],
) -> Result<Vec<InventoryLevel>, Error> {
    let (variants, locations): (Vec<VariantId>, Vec<LocationId>) = pairs.iter().copied().unzip();
    Ok(sqlx::query_as!(
        InventoryLevel,
        r#"select
            variant_id as "variant_id: VariantId", location_id as "location_id: LocationId",
            on_hand::integer as "on_hand!", reserved::integer as "reserved!", (on_hand - reserved)::integer as "available!",
            version as "version: Version", updated_at as "updated_at: Timestamp"
        from inventory_levels
        where merchant_id = $1
            and (variant_id, location_id) in (
                select variant, location
                from unnest($2::uuid[], $3::uuid[]) as wanted (variant, location)
            )
        order by variant_id, location_id
        for update"#,
        merchant as MerchantId,
        &variants as &[VariantId],
        &locations as &[LocationId],
    )
    .fetch_all(tx)
    .await?)
}

/// Makes levels. They are sorted: two who make the same ones wait in the same order. [`Error::Overtaken`] if somebody else has made one of them meanwhile.
pub(super) async fn insert_levels(
    tx: &mut PgConnection,
    merchant: MerchantId,
    levels: &[&InventoryLevel],
) -> Result<(), Error> {
    if levels.is_empty() {
        return Ok(());
    }
    let Columns {
        variants,
        locations,
        on_hand,
        reserved,
        versions,
        updated,
    } = Columns::of(levels);
    let inserted = sqlx::query!(
        "insert into inventory_levels (merchant_id, variant_id, location_id, on_hand, reserved, version, updated_at)
        select $1, variant_id, location_id, on_hand, reserved, version, updated_at
        from unnest($2::uuid[], $3::uuid[], $4::integer[], $5::integer[], $6::bigint[], $7::timestamptz[])
            as level (variant_id, location_id, on_hand, reserved, version, updated_at)
        on conflict (merchant_id, variant_id, location_id) do nothing",
        merchant as MerchantId,
        &variants as &[VariantId],
        &locations as &[LocationId],
        &on_hand,
        &reserved,
        &versions,
        &updated as &[Timestamp],
    )
    .execute(tx)
    .await?
    .rows_affected();
    if usize::try_from(inserted) == Ok(levels.len()) {
        Ok(())
    } else {
        Err(Error::Overtaken {
            table: "inventory_levels",
        })
    }
}

pub(super) async fn update_levels(
    tx: &mut PgConnection,
    merchant: MerchantId,
    levels: &[&InventoryLevel],
) -> Result<(), Error> {
    if levels.is_empty() {
        return Ok(());
    }
    let Columns {
        variants,
        locations,
        on_hand,
        reserved,
        versions,
        updated,
    } = Columns::of(levels);
    sqlx::query!(
        "update inventory_levels
        set on_hand = changed.on_hand, reserved = changed.reserved, version = changed.version, updated_at = changed.updated_at
        from unnest($2::uuid[], $3::uuid[], $4::integer[], $5::integer[], $6::bigint[], $7::timestamptz[])
            as changed (variant_id, location_id, on_hand, reserved, version, updated_at)
        where inventory_levels.merchant_id = $1
            and inventory_levels.variant_id = changed.variant_id
            and inventory_levels.location_id = changed.location_id",
        merchant as MerchantId,
        &variants as &[VariantId],
        &locations as &[LocationId],
        &on_hand,
        &reserved,
        &versions,
        &updated as &[Timestamp],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Levels as arrays.
struct Columns {
    variants: Vec<VariantId>,
    locations: Vec<LocationId>,
    on_hand: Vec<i32>,
    reserved: Vec<i32>,
    versions: Vec<i64>,
    updated: Vec<Timestamp>,
}

impl Columns {
    fn of(levels: &[&InventoryLevel]) -> Self {
        Self {
            variants: levels.iter().map(|level| level.variant_id).collect(),
            locations: levels.iter().map(|level| level.location_id).collect(),
            on_hand: levels.iter().map(|level| level.on_hand).collect(),
            reserved: levels.iter().map(|level| level.reserved).collect(),
            versions: levels.iter().map(|level| level.version.number()).collect(),
            updated: levels.iter().map(|level| level.updated_at).collect(),
        }
    }
}

pub(super) async fn insert_movements(
    tx: &mut PgConnection,
    merchant: MerchantId,
    movements: &[InventoryMovement],
) -> Result<(), Error> {
    if movements.is_empty() {
        return Ok(());
    }
    let ids: Vec<InventoryMovementId> = movements.iter().map(|movement| movement.id).collect();
    let variants: Vec<VariantId> = movements
        .iter()
        .map(|movement| movement.variant_id)
        .collect();
    let locations: Vec<LocationId> = movements
        .iter()
        .map(|movement| movement.location_id)
        .collect();
    let reasons: Vec<&str> = movements
        .iter()
        .map(|movement| movement.reason.name())
        .collect();
    let on_hand: Vec<i32> = movements
        .iter()
        .map(|movement| movement.on_hand_delta)
        .collect();
    let reserved: Vec<i32> = movements
        .iter()
        .map(|movement| movement.reserved_delta)
        .collect();
    let versions: Vec<i64> = movements
        .iter()
        .map(|movement| movement.level_version.number())
        .collect();
    let orders: Vec<Option<Uuid>> = movements
        .iter()
        .map(|movement| movement.order_id.map(OrderId::uuid))
        .collect();
    let apps: Vec<AppId> = movements.iter().map(|movement| movement.app_id).collect();
    let requests: Vec<RequestId> = movements
        .iter()
        .map(|movement| movement.request_id)
        .collect();
    let notes: Vec<Option<&str>> = movements
        .iter()
        .map(|movement| movement.note.as_deref())
        .collect();
    let times: Vec<Timestamp> = movements
        .iter()
        .map(|movement| movement.occurred_at)
        .collect();
    sqlx::query!(
        "insert into inventory_movements
            (merchant_id, id, variant_id, location_id, reason, on_hand_delta, reserved_delta, level_version, order_id, app_id, request_id,
             note, occurred_at)
        select
            $1, id, variant_id, location_id, reason, on_hand_delta, reserved_delta, level_version, order_id, app_id, request_id,
            note, occurred_at
        from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::integer[], $7::integer[], $8::bigint[], $9::uuid[],
                $10::uuid[], $11::uuid[], $12::text[], $13::timestamptz[])
            as movement
                (id, variant_id, location_id, reason, on_hand_delta, reserved_delta, level_version, order_id, app_id, request_id,
                 note, occurred_at)
        on conflict (merchant_id, id) do nothing",
        merchant as MerchantId,
        &ids as &[InventoryMovementId],
        &variants as &[VariantId],
        &locations as &[LocationId],
        &reasons as &[&str],
        &on_hand,
        &reserved,
        &versions,
        &orders as &[Option<Uuid>],
        &apps as &[AppId],
        &requests as &[RequestId],
        &notes as &[Option<&str>],
        &times as &[Timestamp],
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_of_variants(
    tx: &mut PgConnection,
    merchant: MerchantId,
    visible: Option<&[Uuid]>,
    variants: &[VariantId],
) -> Result<Vec<InventoryLevel>, Error> {
    Ok(sqlx::query_as!(
        InventoryLevel,
        r#"select
            variant_id as "variant_id: VariantId", location_id as "location_id: LocationId",
            on_hand::integer as "on_hand!", reserved::integer as "reserved!", (on_hand - reserved)::integer as "available!",
            version as "version: Version", updated_at as "updated_at: Timestamp"
        from inventory_levels
        where merchant_id = $1
            and variant_id = any($2)
            and ($3::uuid[] is null or location_id = any($3))
        order by variant_id, location_id"#,
        merchant as MerchantId,
        variants as &[VariantId],
        visible,
    )
    .fetch_all(tx)
    .await?)
}

pub(super) async fn list(
    tx: &mut PgConnection,
    merchant: MerchantId,
    visible: Option<&[Uuid]>,
    filter: &InventoryFilter,
    after: Option<(Timestamp, VariantId, LocationId)>,
    count: i64,
) -> Result<Vec<InventoryLevel>, Error> {
    let (after_time, after_variant, after_location) = after
        .map_or((None, None, None), |(time, variant, location)| {
            (Some(time), Some(variant), Some(location))
        });
    Ok(sqlx::query_as!(
        InventoryLevel,
        r#"select
            variant_id as "variant_id: VariantId", location_id as "location_id: LocationId",
            on_hand::integer as "on_hand!", reserved::integer as "reserved!", (on_hand - reserved)::integer as "available!",
            version as "version: Version", updated_at as "updated_at: Timestamp"
        from inventory_levels
        where merchant_id = $1
            and ($2::uuid[] is null or location_id = any($2))
            and ($3::uuid is null or variant_id = $3)
            and ($4::uuid is null or location_id = $4)
            and ($5::timestamptz is null or updated_at > $5)
            and ($6::timestamptz is null or (updated_at, variant_id, location_id) > ($6, $7::uuid, $8::uuid))
        order by updated_at, variant_id, location_id
        limit $9"#,
        merchant as MerchantId,
        visible,
        filter.variant as Option<VariantId>,
        filter.location as Option<LocationId>,
        page::overlapped(filter.updated_after) as Option<Timestamp>,
        after_time as Option<Timestamp>,
        after_variant as Option<VariantId>,
        after_location as Option<LocationId>,
        count,
    )
    .fetch_all(tx)
    .await?)
}

pub(super) async fn list_movements(
    tx: &mut PgConnection,
    merchant: MerchantId,
    variant: VariantId,
    location: LocationId,
    after: Option<i64>,
    count: i64,
) -> Result<Vec<InventoryMovement>, Error> {
    Ok(sqlx::query_as!(
        InventoryMovement,
        r#"select
            id as "id: InventoryMovementId", variant_id as "variant_id: VariantId", location_id as "location_id: LocationId",
            reason as "reason: MovementReason", on_hand_delta::integer as "on_hand_delta!", reserved_delta::integer as "reserved_delta!",
            level_version as "level_version: Version", order_id as "order_id: OrderId", app_id as "app_id: AppId",
            request_id as "request_id: RequestId", note, occurred_at as "occurred_at: Timestamp"
        from inventory_movements
        where merchant_id = $1
            and variant_id = $2
            and location_id = $3
            and ($4::bigint is null or level_version > $4)
        order by level_version
        limit $5"#,
        merchant as MerchantId,
        variant as VariantId,
        location as LocationId,
        after,
        count,
    )
    .fetch_all(tx)
    .await?)
}
