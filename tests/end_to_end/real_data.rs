//! Real catalogs: what an import of them comes to is what an independent script counts. Run by `make test-real-data`; `STOA_REAL_DATA` names the folder.

use std::process::Command;

use serde_json::Value;
use tests::Stoa;

use crate::STOA;

/// Imports a feed by the command line, as a merchant would, and counts it by the script.
async fn imports_as_counted(feed: &str) {
    let folder = std::env::var_os("STOA_REAL_DATA")
        .expect("STOA_REAL_DATA must name the folder of real catalogs");
    let folder = folder.into_string().unwrap();
    let feed = format!("{folder}/{feed}");
    let stoa = Stoa::start(STOA).await;
    let client = stoa.client().await;
    let report = stoa.data_dir().join("report.json");
    let imported = Command::new(STOA)
        .args(["import", &feed, "--json"])
        .arg(&report)
        .env("STOA_URL", stoa.base_url())
        .env("STOA_CLIENT_ID", &client.credentials.client_id)
        .env("STOA_CLIENT_SECRET", &client.credentials.client_secret)
        .env("STOA_RESOURCE", client.resource())
        .status()
        .unwrap();
    assert!(imported.success(), "{imported}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/real_data/count_feed.py"
    );
    let counted = Command::new("python3")
        .args([script, &feed])
        .output()
        .unwrap();
    assert!(
        counted.status.success(),
        "{}",
        String::from_utf8_lossy(&counted.stderr)
    );
    let counted: Value = serde_json::from_slice(&counted.stdout).unwrap();
    for count in ["rows", "created", "updated", "unchanged", "failed"] {
        assert_eq!(report[count], counted[count], "{feed}: {count}");
    }
    let reasons: serde_json::Map<String, Value> = report["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| {
            let pointer = reason["pointer"].as_str().unwrap().replace('*', "0");
            (
                format!("{} {pointer}", reason["code"].as_str().unwrap()),
                reason["rows"].clone(),
            )
        })
        .collect();
    assert_eq!(
        Value::Object(reasons),
        counted["reasons"],
        "{feed}: reasons"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes real catalogs: make test-real-data"]
async fn real_data_barcodes_import_as_counted() {
    imports_as_counted("barcodes-297k.google.tsv.gz").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes real catalogs: make test-real-data"]
async fn real_data_flipkart_imports_as_counted() {
    imports_as_counted("flipkart-20k.google.tsv.gz").await;
}
