//! The story: token, catalog, stock, orders, webhooks, failure, dead letter, replay.

use std::{path::Path, sync::Arc, time::Duration};

use commerce::{
    inventory::InventoryChange,
    location::Location,
    order::{Order, OrderStatus},
};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::receiver::Receiver;
use crate::{
    cli::say,
    client::{
        Client,
        catalog_import::{Report, Rows, Source, import_stream},
    },
    feed::{self, BytesRead, Feed, generated},
};

type Fell<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Products of the generated catalog.
const PRODUCTS: u64 = 2_000;

/// Orders placed for the good receiver.
const ORDERS: usize = 25;

/// Pieces that lie there of each variant.
const ON_HAND: i64 = 100;

/// Attempts that the demo's schedule makes.
const ATTEMPTS: usize = 3;

/// How long the demo waits for a dead letter.
const PATIENCE: Duration = Duration::from_mins(1);

/// The good receiver's endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its id.
    pub(super) id: String,
    /// Its signing secret.
    pub(super) secret: String,
}

/// What a list gives, as far as the demo reads it.
#[derive(Debug, Deserialize)]
struct List<T> {
    data: Vec<T>,
}

/// Fails the demo with a sentence.
fn expect(holds: bool, sentence: impl FnOnce() -> String) -> Fell<()> {
    if holds {
        Ok(())
    } else {
        Err(sentence().into())
    }
}

/// A key for a change that nobody has made yet.
fn key() -> String {
    uuid::Uuid::from_bytes(rand::random()).to_string()
}

/// Tells all of it, and leaves the good endpoint for the reader to play with.
pub(super) async fn tell(client: &Client, catalog: Option<&Path>) -> Fell<Endpoint> {
    let begun = Instant::now();
    client.token().await?;
    step(1, "An app gets a token");
    say(format_args!(
        "   client credentials for one merchant, signed ES256, good for ten minutes ({} ms)",
        begun.elapsed().as_millis()
    ));

    step(2, "Endpoints subscribe to orders");
    let good = Receiver::start().await?;
    let endpoint = subscribe(client, &good).await?;
    say(format_args!(
        "   {} sends the events of orders to {}",
        endpoint.id,
        good.url()
    ));

    step(3, "A catalog streams in");
    let variants = import(client, catalog).await?;

    step(4, "Stock is counted");
    let location = stock(client, &variants).await?;

    step(5, "Orders are placed");
    let orders = place_orders(client, &variants).await?;

    step(6, "The ERP receives signed webhooks");
    let fulfilled = ship_and_cancel(client, &orders).await?;
    receive(&good, orders.len(), fulfilled).await?;

    step(7, "An endpoint fails, is retried, and given up on");
    fail_and_replay(client, &variants).await?;

    let levels: List<Value> = client
        .get(&format!(
            "/v1/inventory-levels?locationId={location}&limit=1"
        ))
        .await?;
    expect(levels.data.len() == 1, || {
        "the stock level is gone".to_owned()
    })?;
    say(format_args!(
        "\nAll steps done in {:.1} s.",
        begun.elapsed().as_secs_f64()
    ));
    Ok(endpoint)
}

fn step(number: u32, title: &str) {
    say(format_args!("\n{number}. {title}"));
}

async fn subscribe(client: &Client, receiver: &Receiver) -> Fell<Endpoint> {
    let types = [
        "order.placed",
        "order.fulfilled",
        "order.partially_fulfilled",
        "order.cancelled",
    ];
    let body = json!({"url": receiver.url(), "description": "demo", "eventTypes": types});
    let created: Value = client.post("/v1/webhook-endpoints", &key(), &body).await?;
    let text = |name: &str| {
        created
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let endpoint = Endpoint {
        id: text("id"),
        secret: text("secret"),
    };
    expect(endpoint.secret.starts_with("whsec_"), || {
        "the endpoint came without a secret".to_owned()
    })?;
    receiver.trust(&endpoint.secret);
    Ok(endpoint)
}

/// Streams the catalog in, and gives some variants to sell.
async fn import(client: &Client, catalog: Option<&Path>) -> Fell<Vec<String>> {
    let source: Arc<dyn Source> = match catalog {
        Some(path) => {
            let path = path.to_owned();
            Arc::new(move || -> Result<Rows, feed::Error> {
                Ok(Box::new(Feed::open(&path, &BytesRead::default())?))
            })
        }
        None => Arc::new(|| -> Result<Rows, feed::Error> {
            Ok(Box::new(generated::rows(PRODUCTS).map(Ok)))
        }),
    };
    let report = import_stream(client, &key(), source, &()).await?;
    let Report {
        rows,
        created,
        updated,
        unchanged,
        failed,
        elapsed_ms,
        rows_per_second,
        ..
    } = &report;
    say(format_args!(
        "   {rows} rows in {:.1} s ({rows_per_second}/s): {created} created, {updated} updated, {unchanged} unchanged, {failed} failed",
        Duration::from_millis(*elapsed_ms).as_secs_f64()
    ));
    for reason in &report.reasons {
        let lines: Vec<String> = reason.first_lines.iter().map(u64::to_string).collect();
        say(format_args!(
            "   {:>8} failed: {} {} ({}), first at line {}",
            reason.rows,
            reason.pointer,
            reason.code,
            reason.detail,
            lines.join(", ")
        ));
    }
    if catalog.is_none() {
        expect(*created == PRODUCTS && *failed == 0, || {
            format!("{PRODUCTS} products were to be created")
        })?;
    }
    let list: List<Value> = client.get("/v1/products?status=active&limit=20").await?;
    let variants: Vec<String> = list
        .data
        .iter()
        .filter_map(|product| {
            product
                .pointer("/variants/0/id")
                .and_then(Value::as_str)
                .map(str::to_owned)
        })
        .collect();
    expect(variants.len() >= 3, || {
        "the catalog has too few products to sell".to_owned()
    })?;
    Ok(variants)
}

async fn stock(client: &Client, variants: &[String]) -> Fell<String> {
    let input = json!({"externalId": "oslo", "name": "Oslo warehouse", "country": "NO"});
    let location: Location = client.post("/v1/locations", &key(), &input).await?;
    let entries: Vec<Value> = variants
        .iter()
        .map(|variant| json!({"variantId": variant, "locationId": location.id, "onHand": ON_HAND}))
        .collect();
    let change: InventoryChange = client
        .post(
            "/v1/inventory-levels/set",
            &key(),
            &json!({"entries": entries}),
        )
        .await?;
    expect(change.levels.len() == variants.len(), || {
        "some levels were not set".to_owned()
    })?;
    say(format_args!(
        "   {ON_HAND} pieces of {} variants in {}",
        variants.len(),
        location.name
    ));
    Ok(location.id.to_string())
}

fn order_of(variants: &[String], number: usize) -> Value {
    let variant = |offset: usize| {
        variants
            .get((number + offset) % variants.len())
            .cloned()
            .unwrap_or_default()
    };
    json!({
        "lines": [{"variantId": variant(0), "quantity": 1}, {"variantId": variant(1), "quantity": 2}],
        "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
        "shippingAddress": {"line1": "12 St James's Square", "city": "London", "postalCode": "SW1Y 4JH", "country": "GB"},
    })
}

async fn place_orders(client: &Client, variants: &[String]) -> Fell<Vec<Order>> {
    let begun = Instant::now();
    let first_key = key();
    let first: Order = client
        .post("/v1/orders", &first_key, &order_of(variants, 0))
        .await?;
    let placing = (1..ORDERS).map(|number| async move {
        client
            .post::<Order>("/v1/orders", &key(), &order_of(variants, number))
            .await
    });
    let mut orders = vec![first];
    for placed in futures_util::future::join_all(placing).await {
        orders.push(placed?);
    }
    say(format_args!(
        "   {} orders in {} ms, each with its stock reserved and its event written",
        orders.len(),
        begun.elapsed().as_millis()
    ));

    let retried = client
        .call(
            Method::POST,
            "/v1/orders",
            Some(&first_key),
            Some(&order_of(variants, 0)),
        )
        .await?;
    let again: Order = retried.json()?;
    let same = orders.first().is_some_and(|first| first.id == again.id);
    expect(same && retried.is_replayed(), || {
        "a retry under the same key was to give the same order".to_owned()
    })?;
    say(
        "   the same request under the same Idempotency-Key: the same order, Idempotent-Replayed: true",
    );

    let variant = variants.first().cloned().unwrap_or_default();
    let too_many = json!({"lines": [{"variantId": variant, "quantity": ON_HAND + 1}]});
    let refused = client
        .call(Method::POST, "/v1/orders", Some(&key()), Some(&too_many))
        .await?;
    expect(refused.status.as_u16() == 409, || {
        format!("an order for too much was answered {}", refused.status)
    })?;
    let problem: Value = serde_json::from_slice(&refused.body)?;
    say(format_args!(
        "   an order for more than there is: 409, {}",
        problem
            .pointer("/errors/0/detail")
            .and_then(Value::as_str)
            .unwrap_or("insufficient stock")
    ));
    Ok(orders)
}

/// Ships one order and cancels another; gives the events that this makes for the endpoint.
async fn ship_and_cancel(client: &Client, orders: &[Order]) -> Fell<usize> {
    let [first, second, ..] = orders else {
        return Err("there are too few orders".into());
    };
    let tracking = json!({"carrier": "Posten", "trackingNumber": "370000000012345678"});
    let _: Value = client
        .post(
            &format!("/v1/orders/{}/fulfillments", first.id),
            &key(),
            &tracking,
        )
        .await?;
    let reason = json!({"reason": "changed my mind"});
    let cancelled: Order = client
        .post(&format!("/v1/orders/{}/cancel", second.id), &key(), &reason)
        .await?;
    expect(cancelled.status == OrderStatus::Cancelled, || {
        "the order was not cancelled".to_owned()
    })?;
    Ok(2)
}

async fn receive(receiver: &Receiver, placed: usize, changed: usize) -> Fell<()> {
    let wanted = placed + changed;
    let seen = receiver
        .wait_until("every event", |seen| seen.verified.len() >= wanted)
        .await?;
    expect(seen.forged == 0, || {
        format!("{} signatures did not verify", seen.forged)
    })?;
    let gapless = (1..)
        .zip(seen.verified.keys())
        .all(|(expected, &sequence)| expected == sequence);
    expect(gapless && seen.verified.len() == wanted, || {
        "the stream has gaps".to_owned()
    })?;
    say(format_args!(
        "   {wanted} events verified by an independent implementation of Standard Webhooks, sequence 1 to {wanted} without gaps"
    ));
    Ok(())
}

async fn fail_and_replay(client: &Client, variants: &[String]) -> Fell<()> {
    let bad = Receiver::start().await?;
    bad.fail(true);
    let endpoint = subscribe(client, &bad).await?;
    let order: Order = client
        .post("/v1/orders", &key(), &order_of(variants, 0))
        .await?;
    bad.wait_until("the last attempt", |seen| seen.requests >= ATTEMPTS)
        .await?;
    let letter = dead_letter(client, &endpoint.id).await?;
    let attempts = letter
        .pointer("/attempts")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    expect(attempts == ATTEMPTS, || {
        format!("the dead letter was to have {ATTEMPTS} attempts, and has {attempts}")
    })?;
    let text = |pointer: &str| {
        letter
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let id = text("/id");
    say(format_args!(
        "   {attempts} attempts, each answered 500, then dead letter {id} ({})",
        text("/reason")
    ));

    bad.fail(false);
    let _: Value = post_without_body(client, &format!("/v1/dead-letters/{id}/replay")).await?;
    let seen = bad
        .wait_until("the replay", |seen| !seen.verified.is_empty())
        .await?;
    let event = seen
        .verified
        .get(&1)
        .ok_or("the replay did not carry the original sequence")?;
    let same =
        event.pointer("/data/id").and_then(Value::as_str) == Some(order.id.to_string().as_str());
    expect(same, || "the replay carried another event".to_owned())?;
    say(
        "   the receiver is mended, the dead letter replayed: the same event arrives under its original sequence 1",
    );
    Ok(())
}

async fn post_without_body<T: DeserializeOwned>(client: &Client, path: &str) -> Fell<T> {
    let answer = client
        .call(Method::POST, path, Some(&key()), None::<&()>)
        .await?;
    Ok(answer.json()?)
}

/// Waits for the endpoint's first dead letter.
async fn dead_letter(client: &Client, endpoint: &str) -> Fell<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list: List<Value> = client
            .get(&format!("/v1/webhook-endpoints/{endpoint}/dead-letters"))
            .await?;
        if let Some(letter) = list.data.into_iter().next() {
            return Ok(letter);
        }
        expect(Instant::now() < deadline, || {
            "no dead letter was made".to_owned()
        })?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
