//! The example of a receiver: whatever happens to it, its books end equal to the stream.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tests::{Client, Stoa, wait_for};

use crate::STOA;

/// The example that lies beside the binary; cargo builds it with all other targets.
fn example() -> PathBuf {
    let path = Path::new(STOA)
        .with_file_name("examples")
        .join("erp_receiver");
    assert!(
        path.exists(),
        "cargo test -p gateway builds {}",
        path.display()
    );
    path
}

/// The example at work; killed when dropped.
struct Erp {
    child: Child,
    url: String,
}

impl Erp {
    fn start(client: &Client, (endpoint, secret): &(String, String), books: &Path) -> Self {
        let credentials = &client.credentials;
        let mut child = Command::new(example())
            .args(["127.0.0.1:0".as_ref(), books.as_os_str()])
            .env("STOA_URL", &credentials.base_url)
            .env("STOA_RESOURCE", client.resource())
            .env("STOA_CLIENT_ID", &credentials.client_id)
            .env("STOA_CLIENT_SECRET", &credentials.client_secret)
            .env("STOA_ENDPOINT", endpoint)
            .env("STOA_WEBHOOK_SECRET", secret)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        // What it says further is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let url = first.strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }
}

impl Drop for Erp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(books: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(books).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erp_that_was_away_and_was_killed_has_every_event_once_and_in_order() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let (_, variant) = stoa.stocked(&client, 1_000).await;
    let endpoint = client
        .endpoint(None, &["order.placed", "order.cancelled"])
        .await;
    let books = std::env::temp_dir().join(format!("stoa-erp-{}.ndjson", tests::new_key()));
    let entered = async |count: usize| {
        wait_for("the books", async || {
            let entered = read(&books);
            (entered.len() >= count).then_some(entered)
        })
        .await
    };

    // Before it was ever there.
    for _ in 0..3 {
        client.place(&variant, 1).await;
    }
    let erp = Erp::start(&client, &endpoint, &books);
    entered(3).await;

    // While it listens: deliveries overtake one another, and only some of them are needed.
    let path = format!("/v1/webhook-endpoints/{}", endpoint.0);
    client
        .patch(&path, &json!({"url": erp.url}))
        .await
        .expect(200);
    let mut placing = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, variant) = (client.clone(), variant.clone());
        placing.spawn(async move { client.place(&variant, 1).await });
    }
    let orders = placing.join_all().await;
    entered(23).await;

    // Killed in the middle of a line, and away while more happens.
    drop(erp);
    let mut torn = std::fs::read_to_string(&books).unwrap();
    torn.truncate(torn.len() - 10);
    std::fs::write(&books, torn).unwrap();
    let cancel = format!("/v1/orders/{}/cancel", orders[0]["id"].as_str().unwrap());
    client.post(&cancel, &json!({})).await.expect(200);
    let _erp = Erp::start(&client, &endpoint, &books);
    let books_of_erp = entered(24).await;
    assert_eq!(books_of_erp, client.stream(&endpoint.0).await);
    std::fs::remove_file(&books).unwrap();
}
