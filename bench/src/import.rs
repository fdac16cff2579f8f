//! `import`: a catalog streamed in until its summary has arrived, against COPY to a temporary table and an upsert of the same products and variants.
//!
//! Each round brings the catalog to a merchant that has none. Ours also writes a result a line and an event a product, and relays the events.

use std::time::Instant;

use tests::{ALL_SCOPES, Stoa};

use crate::{
    Options,
    ceiling::Ceiling,
    cpu::Cpu,
    figure::{Figure, Sample},
    world::{self, World},
};

const UPSERT: &str = include_str!("../sql/import.sql");

/// Measures.
pub(crate) async fn run(options: &Options) -> Figure {
    let world = World::start(None).await;
    let ceiling = Ceiling::new(&world.stoa);
    let catalog = world::catalog(options.products);
    let (products, variants) = (
        ceiling.directory().join("products"),
        ceiling.directory().join("variants"),
    );
    Figure::measure(
        "import",
        "products/s",
        "COPY to temporary tables and upsert, by psql",
        options,
        async || {
            let stoa: &Stoa = &world.stoa;
            let merchant = stoa.merchant();
            let client = stoa.client_of(&merchant, ALL_SCOPES, &[]).await;
            let (before, started) = (Cpu::of(stoa), Instant::now());
            world::import(&client, catalog.clone()).await;
            let elapsed = started.elapsed();
            ceiling.relayed().await;
            let cpu = Cpu::of(stoa) - before;
            Sample {
                operations: options.products,
                elapsed,
                cpu,
                ..Sample::default()
            }
        },
        async || {
            if !products.exists() {
                let latest = "(select id from public.merchants order by id desc limit 1)";
                ceiling.psql(&format!(
                    "\\copy (select * from public.products where merchant_id = {latest}) to '{}'
\\copy (select * from public.variants where merchant_id = {latest}) to '{}'",
                    products.display(),
                    variants.display(),
                ));
            }
            let statements = UPSERT
                .replace("{merchant}", &uuid::Uuid::now_v7().to_string())
                .replace("{products}", products.to_str().unwrap())
                .replace("{variants}", variants.to_str().unwrap());
            ceiling.timed(&statements, options.products)
        },
    )
    .await
}
