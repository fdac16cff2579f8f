//! What benchmarks measure on: a server, a merchant, and a catalog with stock.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use tests::{Client, Stoa, StoaOptions, new_key};

use crate::{cpu::Cpu, figure::Sample, load};

/// Pieces of each SKU: more than any run sells.
const STOCK: i64 = 100_000_000;

/// Entries of one call that sets stock.
const ENTRIES_MAX: usize = 500;

/// Where cargo builds to: `stoa` lies beside this program, and `bench.json` goes there.
pub(crate) fn target_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().to_owned()
}

/// The release binary that was built with this program.
pub(crate) fn binary() -> PathBuf {
    let binary = std::env::current_exe().unwrap().with_file_name("stoa");
    assert!(
        binary.exists(),
        "{} is missing: run `make bench`",
        binary.display()
    );
    binary
}

/// A server with one merchant's client.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) stoa: Stoa,
    pub(crate) client: Client,
}

impl World {
    /// A server with this role; `None` is all of it.
    pub(crate) async fn start(role: Option<&str>) -> Self {
        let options = StoaOptions {
            role: role.map(str::to_owned),
            ..StoaOptions::default()
        };
        let stoa = Stoa::start_with(binary().to_str().unwrap(), options).await;
        let client = stoa.client().await;
        Self { stoa, client }
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.stoa
            .base_url()
            .trim_start_matches("http://")
            .parse()
            .unwrap()
    }

    /// The header that shows the client's token.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.client.token())
    }

    /// Sends requests as [`load::send`] does, and takes the CPU time of it.
    pub(crate) async fn load(
        &self,
        connections: u32,
        duration: Duration,
        expected: u16,
        first: u64,
        make: impl Fn(u64) -> load::Message + Send + Sync + 'static,
    ) -> (Sample, u64) {
        let expected = http::StatusCode::from_u16(expected).unwrap();
        let before = Cpu::of(&self.stoa);
        let (sample, next) =
            load::send(self.address(), connections, duration, expected, first, make).await;
        (
            Sample {
                cpu: Cpu::of(&self.stoa) - before,
                ..sample
            },
            next,
        )
    }

    /// Brings in so many generated products.
    pub(crate) async fn import(&self, count: u64) {
        import(&self.client, catalog(count)).await;
    }

    /// All products.
    pub(crate) async fn products(&self) -> Vec<Value> {
        products(&self.client).await
    }

    /// So many variants with stock at one location: the ids of both.
    pub(crate) async fn stocked(&self, count: usize) -> (Vec<String>, String) {
        stocked(&self.client, count).await
    }

    /// Sets the stock of these variants; an event each.
    pub(crate) async fn set_stock(&self, variants: &[String], location: &str, on_hand: i64) {
        set_stock(&self.client, variants, location, on_hand).await;
    }
}

async fn products(client: &Client) -> Vec<Value> {
    let mut products = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client
            .get(&format!("/v1/products?limit=250{cursor}"))
            .await
            .expect(200);
        products.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return products,
        }
    }
}

/// So many variants of this client's merchant with stock at one location: the ids of both.
pub(crate) async fn stocked(client: &Client, count: usize) -> (Vec<String>, String) {
    // A product has two variants or more on average.
    import(client, catalog(count as u64 / 2)).await;
    let products = products(client).await;
    let variants = products
        .iter()
        .flat_map(|product| product["variants"].as_array().unwrap());
    let variants: Vec<String> = variants
        .map(|variant| variant["id"].as_str().unwrap().to_owned())
        .take(count)
        .collect();
    assert_eq!(variants.len(), count, "the generated catalog is too small");
    let location = client.location("main").await;
    set_stock(client, &variants, &location, STOCK).await;
    (variants, location)
}

/// Sets the stock of these variants of this client's merchant; an event each.
pub(crate) async fn set_stock(client: &Client, variants: &[String], location: &str, on_hand: i64) {
    for variants in variants.chunks(ENTRIES_MAX) {
        let entries = variants
            .iter()
            .map(|variant| json!({"variantId": variant, "locationId": location, "onHand": on_hand}))
            .collect::<Vec<_>>();
        client
            .post("/v1/inventory-levels/set", &json!({"entries": entries}))
            .await
            .expect(200);
    }
}

/// So many generated products as NDJSON.
pub(crate) fn catalog(count: u64) -> Bytes {
    let mut lines = Vec::new();
    for row in gateway::feed::generated::rows(count) {
        lines.extend_from_slice(&row.json);
        lines.push(b'\n');
    }
    Bytes::from(lines)
}

/// Streams a catalog in, and reads the results to the summary.
pub(crate) async fn import(client: &Client, catalog: Bytes) {
    let lines = catalog.split(|&byte| byte == b'\n').count() - 1;
    let mut answer = client
        .request(reqwest::Method::POST, "/v1/catalog-imports")
        .header("idempotency-key", new_key())
        .header("content-type", "application/x-ndjson")
        .body(catalog)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let mut results = Vec::new();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        results.extend_from_slice(&chunk);
    }
    let summary = results
        .trim_ascii_end()
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap();
    let summary: Value = serde_json::from_slice(summary).unwrap();
    let counted = results.split(|&byte| byte == b'\n').count() - 1;
    assert_eq!(
        counted,
        lines + 1,
        "a result is missing; the summary is {summary}"
    );
    let (status, failed) = (
        &summary["summary"]["status"],
        &summary["summary"]["failedCount"],
    );
    assert_eq!(
        (status.as_str(), failed.as_i64()),
        (Some("completed"), Some(0)),
        "{summary}"
    );
}
