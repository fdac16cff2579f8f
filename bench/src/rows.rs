//! The rows that writes come to, as statements for pgbench. `{merchant}` stands for the merchant's id, which the caller puts in.

/// The idempotency key of a write, with what it came to.
pub(crate) const KEY: &str = include_str!("../sql/key.pgbench.sql");

/// An order of the SKUs with these numbers, but for their stock.
pub(crate) fn order(numbers: &[&str]) -> String {
    include_str!("../sql/order_rows.pgbench.sql").replace("{numbers}", &numbers.join(", "))
}

/// One more in this column of the stock of the SKU with this number. It goes last, so that the row's lock is held over nothing but the commit.
pub(crate) fn stock(column: &str, number: &str) -> String {
    format!(
        "update ceiling.inventory_levels as levels
set {column} = {column} + 1, version = version + 1, updated_at = now()
from ceiling.skus
where number = {number} and levels.merchant_id = '{{merchant}}' and levels.variant_id = skus.variant_id and levels.location_id = skus.location_id;
"
    )
}
