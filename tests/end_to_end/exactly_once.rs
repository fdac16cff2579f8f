//! A key stands for one change, however often, however concurrently and by whichever door it is sent.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Answer, Client, Stoa, new_key, order_of, wait_for};

use crate::STOA;

/// Equal requests that are sent at once.
const TWINS: usize = 64;

/// The whole of an order, so that it can be compared with REST's.
const ORDER_PLACE: &str = "mutation Place($input: OrderInput!, $key: String!) {
  orderPlace(input: $input, idempotencyKey: $key) {
    replayed
    order {
      id externalId status currency total { amount currency }
      lines { line variantId sku title quantity fulfilledQuantity unitPrice { amount currency } total { amount currency } locationId }
      customerId customer { name email phone }
      shippingAddress { name company line1 line2 postalCode city region country }
      version placedAt updatedAt
    }
  }
}";

/// An order as a client was shown it, and whether that was said to be a replay.
struct Shown {
    order: Value,
    replayed: bool,
}

/// Places an order by REST. A twin that is still at work in another process makes it ask again, as it makes any client.
async fn place_by_rest(client: &Client, input: &Value, key: &str) -> Shown {
    wait_for("an answer by REST", async || {
        let answer = client.post_with_key("/v1/orders", input, key).await;
        if answer.slug() == "idempotency_key_in_progress" {
            return None;
        }
        let replayed = answer.is_replayed();
        Some(Shown {
            order: answer.expect(201),
            replayed,
        })
    })
    .await
}

/// Places an order by GraphQL, likewise.
async fn place_by_graphql(client: &Client, input: &Value, key: &str) -> Shown {
    wait_for("an answer by GraphQL", async || {
        let answer = client
            .graphql(ORDER_PLACE, json!({"input": input, "key": key}))
            .await;
        if graphql_code(&answer) == "idempotency_key_in_progress" {
            return None;
        }
        let payload = &answer.expect(200)["data"]["orderPlace"];
        Some(Shown {
            order: payload["order"].clone(),
            replayed: payload["replayed"].as_bool().unwrap(),
        })
    })
    .await
}

fn graphql_code(answer: &Answer) -> &str {
    answer.json["errors"][0]["extensions"]["code"]
        .as_str()
        .unwrap_or_default()
}

fn order_with_customer(variant: &str) -> Value {
    let mut order = order_of(variant, 2);
    order["customer"] = json!({"name": "Ada Lovelace", "email": "ada@example.com"});
    order["shippingAddress"] = json!({"line1": "12 St James's Square", "city": "London", "postalCode": "SW1Y 4JH", "country": "GB"});
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_equal_requests_through_rest_graphql_and_two_processes_place_one_order() {
    let first = Stoa::start(STOA).await;
    let second = first.start_beside().await;
    let client = first.client().await;
    let (_, variant) = first.stocked(&client, 1_000).await;
    let elsewhere = client.at(&second.base_url());
    let (input, key) = (order_with_customer(&variant), new_key());

    let twins = (0..TWINS).map(|number| {
        let process = if number % 2 == 0 { &client } else { &elsewhere };
        let (input, key) = (&input, &key);
        async move {
            if number % 4 < 2 {
                place_by_rest(process, input, key).await
            } else {
                place_by_graphql(process, input, key).await
            }
        }
    });
    let shown = join_all(twins).await;

    assert_eq!(shown.len(), TWINS);
    for Shown { order, .. } in &shown {
        assert_eq!(*order, shown[0].order);
    }
    assert_eq!(shown[0].order["customer"]["name"], "Ada Lovelace");
    assert_eq!(
        shown.iter().filter(|shown| !shown.replayed).count(),
        1,
        "exactly one answer is not a replay"
    );
    assert_eq!(first.count_rows("orders").await, 1);
    assert_eq!(client.all("/v1/orders").await, [shown[0].order.clone()]);
    assert_eq!(client.checked_ledger(&variant).await["reserved"], 2);
    let placed = wait_for("the order's event", async || {
        let feed = client.feed().await;
        let placed = feed
            .iter()
            .filter(|event| event["type"] == "order.placed")
            .count();
        (placed > 0 && first.count_rows("outbox").await == 0).then_some(placed)
    })
    .await;
    assert_eq!(placed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_input_under_a_key_is_refused_by_rest_and_graphql() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let (_, variant) = stoa.stocked(&client, 10).await;
    let key = new_key();
    let placed = client
        .post_with_key("/v1/orders", &order_of(&variant, 1), &key)
        .await
        .expect(201);

    let other = order_of(&variant, 2);
    let refused = client.post_with_key("/v1/orders", &other, &key).await;
    assert_eq!(
        (refused.status.as_u16(), refused.slug()),
        (422, "idempotency_key_reused")
    );
    let refused = client
        .graphql(ORDER_PLACE, json!({"input": other, "key": key}))
        .await;
    assert_eq!(
        graphql_code(&refused),
        "idempotency_key_reused",
        "{}",
        refused.text
    );

    assert_eq!(client.all("/v1/orders").await, [placed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_kept_like_a_success() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let (location, variant) = stoa.stocked(&client, 1).await;
    let key = new_key();
    let refused = client
        .post_with_key("/v1/orders", &order_of(&variant, 2), &key)
        .await;
    assert_eq!(
        (refused.status.as_u16(), refused.slug()),
        (409, "insufficient_stock")
    );
    assert!(!refused.is_replayed());

    client.set_stock(&variant, &location, 10).await;
    let again = client
        .post_with_key("/v1/orders", &order_of(&variant, 2), &key)
        .await;
    assert_eq!(
        (again.status.as_u16(), again.slug()),
        (409, "insufficient_stock")
    );
    assert!(again.is_replayed());
    assert_eq!(again.json["errors"], refused.json["errors"]);
    client.place(&variant, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_creation_of_an_endpoint_gives_no_secret() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let (body, key) = (json!({"eventTypes": ["order.placed"]}), new_key());
    let mut created = client
        .post_with_key("/v1/webhook-endpoints", &body, &key)
        .await
        .expect(201);
    assert!(created["secret"].as_str().unwrap().starts_with("whsec_"));

    let replayed = client
        .post_with_key("/v1/webhook-endpoints", &body, &key)
        .await;
    assert!(replayed.is_replayed());
    created["secret"] = Value::Null;
    assert_eq!(replayed.expect(201), created);
    assert_eq!(client.all("/v1/webhook-endpoints").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_grant_replays_nothing_that_it_may_no_longer_see() {
    const SCOPES: &str =
        "catalog:write inventory:write locations:write orders:write orders.pii:read";
    let stoa = Stoa::shared(STOA).await;
    let client = stoa
        .client_of(&stoa.merchant(), SCOPES, &["--personal-data"])
        .await;
    let (here, variant) = stoa.stocked(&client, 10).await;
    let there = client.location("elsewhere").await;
    let (input, key) = (order_with_customer(&variant), new_key());
    let placed = client
        .post_with_key("/v1/orders", &input, &key)
        .await
        .expect(201);
    let replay = async || {
        client.refresh().await;
        client.post_with_key("/v1/orders", &input, &key).await
    };
    let replayed = replay().await;
    assert!(replayed.is_replayed());
    assert_eq!(replayed.expect(201), placed);

    // Without personal data, a replay has none either.
    stoa.regrant(&client, SCOPES, &["--location", &here]);
    let replayed = wait_for("the narrowed grant to be felt", async || {
        let answer = replay().await;
        (answer.json["customer"] == Value::Null).then_some(answer)
    })
    .await;
    assert!(replayed.is_replayed());
    assert!(
        !replayed.text.contains("Ada") && !replayed.text.contains("James"),
        "{}",
        replayed.text
    );
    assert_eq!(replayed.expect(201)["id"], placed["id"]);

    // At another location, there is no such order.
    stoa.regrant(&client, SCOPES, &["--location", &there, "--personal-data"]);
    let refused = wait_for("the moved grant to be felt", async || {
        let answer = replay().await;
        (answer.status != 201 && answer.status != 401).then_some(answer)
    })
    .await;
    assert_eq!(
        (refused.status.as_u16(), refused.slug()),
        (404, "not_found"),
        "{}",
        refused.text
    );
    assert!(
        !refused.text.contains(placed["id"].as_str().unwrap()),
        "{}",
        refused.text
    );

    // Without the scope, nothing is said about the key at all.
    stoa.regrant(&client, "catalog:write", &["--personal-data"]);
    let refused = wait_for("the smaller grant to be felt", async || {
        let answer = replay().await;
        (answer.status != 404 && answer.status != 401).then_some(answer)
    })
    .await;
    assert_eq!(
        (refused.status.as_u16(), refused.slug()),
        (403, "insufficient_scope"),
        "{}",
        refused.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_is_refused_by_every_process() {
    let first = Stoa::start(STOA).await;
    let second = first.start_beside().await;
    let client = first.client().await;
    let elsewhere = client.at(&second.base_url());
    client.get("/v1/orders").await.expect(200);
    elsewhere.get("/v1/orders").await.expect(200);

    first.revoke(&client);
    for process in [&client, &elsewhere] {
        wait_for("the revoked grant to be refused", async || {
            let answer = process.get("/v1/orders").await;
            if answer.status == 200 {
                return None;
            }
            assert_eq!(
                (answer.status.as_u16(), answer.slug()),
                (401, "invalid_token"),
                "{}",
                answer.text
            );
            Some(())
        })
        .await;
        let refused = process.request_token(&[]).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.json["error"].is_string(), "{}", refused.text);
        let mutation = process
            .graphql("{ orders(first: 1) { nodes { id } } }", json!({}))
            .await;
        assert_eq!(mutation.status, 401, "{}", mutation.text);
    }
}
