//! Webhooks: signed, numbered, retried, given up on, replayed, and shown to nobody who may not see them.

use std::{collections::HashSet, time::Duration};

use kernel::clock::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{ALL_SCOPES, Client, Receiver, Stoa, StoaOptions, new_key, order_of, wait_for};

use crate::STOA;

/// Attempts that the shared server makes.
const ATTEMPTS: usize = 3;

/// A merchant with stock on the shared server, and an app that may do everything.
async fn shop(stoa: &Stoa) -> (Client, String) {
    let client = stoa.client().await;
    let (_, variant) = stoa.stocked(&client, 1_000).await;
    (client, variant)
}

/// Waits for an endpoint's dead letters to be so many, and gives them, the newest first.
async fn dead_letters(client: &Client, endpoint: &str, count: usize) -> Vec<Value> {
    wait_for("dead letters", async || {
        let letters = client
            .all(&format!("/v1/webhook-endpoints/{endpoint}/dead-letters"))
            .await;
        (letters.len() >= count).then_some(letters)
    })
    .await
}

async fn replay(client: &Client, letter: &Value) -> Value {
    let path = format!("/v1/dead-letters/{}/replay", letter["id"].as_str().unwrap());
    client.post(&path, &Value::Null).await.expect(200)
}

/// The numbers of a stream, which is to have no gaps.
fn sequences(events: &[Value]) -> Vec<i64> {
    events
        .iter()
        .map(|event| event["sequence"].as_i64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_signed_as_standard_webhooks_has_it() {
    let stoa = Stoa::shared(STOA).await;
    let (client, variant) = shop(&stoa).await;
    let receiver = Receiver::start().await;
    let (_, secret) = client
        .endpoint(Some(receiver.url()), &["order.placed"])
        .await;
    let (_, other_secret) = client.endpoint(None, &["order.placed"]).await;
    let order = client.place(&variant, 2).await;

    let delivery = receiver
        .wait_until("the order's event", |deliveries| !deliveries.is_empty())
        .await
        .remove(0);
    assert!(delivery.is_signed_by(&secret));
    assert!(!delivery.is_signed_by(&other_secret));
    let mut forged = delivery.clone();
    forged.body = String::from_utf8(delivery.body.to_vec())
        .unwrap()
        .replace("placed", "played")
        .into();
    assert!(!forged.is_signed_by(&secret));
    assert_eq!(delivery.headers["webhook-id"], delivery.id());
    assert_eq!(delivery.headers["content-type"], "application/json");
    assert_eq!(delivery.sequence(), 1);
    assert_eq!(delivery.json["type"], "order.placed");
    assert_eq!(
        delivery.json["merchantId"],
        client.credentials.merchant.as_str()
    );
    assert_eq!(
        delivery.json["resource"],
        json!({"type": "order", "id": order["id"], "version": order["version"]})
    );
    assert_eq!(
        delivery.json["data"], order,
        "an event's data is what REST shows"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_endpoint_is_retried_given_up_on_and_replayed_under_its_number() {
    let stoa = Stoa::shared(STOA).await;
    let (client, variant) = shop(&stoa).await;
    let receiver = Receiver::start().await;
    let (endpoint, secret) = client
        .endpoint(Some(receiver.url()), &["order.placed"])
        .await;
    receiver.answer_with(500);
    let order = client.place(&variant, 1).await;

    let letter = dead_letters(&client, &endpoint, 1).await.remove(0);
    assert_eq!(letter["reason"], "attempts_exhausted");
    assert_eq!(letter["sequence"], 1);
    assert_eq!(letter["event"]["data"]["id"], order["id"]);
    let attempts = letter["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), ATTEMPTS);
    for (attempt, number) in attempts.iter().zip(1..) {
        assert_eq!(
            (&attempt["number"], &attempt["status"]),
            (&json!(number), &json!(500)),
            "{letter}"
        );
    }
    let tried = receiver.deliveries();
    assert_eq!(tried.len(), ATTEMPTS);
    assert!(
        tried
            .iter()
            .all(|delivery| delivery.json == tried[0].json && delivery.is_signed_by(&secret))
    );

    // The stream goes on meanwhile, and the replay keeps its place in it.
    receiver.answer_with(200);
    let next = client.place(&variant, 1).await;
    let delivered = receiver
        .wait_until("the next event", |deliveries| deliveries.len() > ATTEMPTS)
        .await;
    assert_eq!(
        (
            delivered[ATTEMPTS].sequence(),
            &delivered[ATTEMPTS].json["data"]["id"]
        ),
        (2, &next["id"])
    );
    let replayed = replay(&client, &letter).await;
    assert_eq!(
        (&replayed["sequence"], &replayed["eventId"]),
        (&json!(1), &letter["event"]["id"])
    );
    let delivered = receiver
        .wait_until("the replay", |deliveries| deliveries.len() > ATTEMPTS + 1)
        .await;
    let again = &delivered[ATTEMPTS + 1];
    assert!(again.is_signed_by(&secret));
    assert_eq!(again.json, tried[0].json);
    let letter = dead_letters(&client, &endpoint, 1).await.remove(0);
    assert_eq!(letter["replayedAt"], replayed["replayedAt"]);
    assert_eq!(sequences(&client.stream(&endpoint).await), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_disabled_until_somebody_enables_it() {
    let stoa = Stoa::shared(STOA).await;
    let (client, variant) = shop(&stoa).await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = client
        .endpoint(Some(receiver.url()), &["order.placed"])
        .await;
    let path = format!("/v1/webhook-endpoints/{endpoint}");
    receiver.answer_with(410);
    client.place(&variant, 1).await;
    let letter = dead_letters(&client, &endpoint, 1).await.remove(0);
    assert_eq!(letter["reason"], "endpoint_gone");
    assert_eq!(letter["attempts"].as_array().unwrap().len(), 1);
    let shown = client.get(&path).await.expect(200);
    assert_eq!(
        (&shown["status"], &shown["disabledReason"]),
        (&json!("disabled"), &json!("gone"))
    );
    let ping = client.post(&format!("{path}/ping"), &Value::Null).await;
    assert_eq!(
        (ping.status.as_u16(), ping.slug()),
        (409, "endpoint_disabled")
    );

    // What happens meanwhile is in the stream, and is not sent.
    client.place(&variant, 1).await;
    wait_for("the stream to go on", async || {
        (client.stream(&endpoint).await.len() == 2).then_some(())
    })
    .await;
    receiver.answer_with(200);
    let enabled = client
        .patch(&path, &json!({"status": "enabled"}))
        .await
        .expect(200);
    assert_eq!(
        (&enabled["status"], &enabled["disabledReason"]),
        (&json!("enabled"), &Value::Null)
    );
    client.place(&variant, 1).await;
    let deliveries = receiver
        .wait_until("the event after enabling", |deliveries| {
            deliveries.len() > 1
        })
        .await;
    assert_eq!(
        deliveries
            .iter()
            .map(tests::Delivery::sequence)
            .collect::<Vec<_>>(),
        [1, 3]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_puts_the_next_attempt_off() {
    /// What the receiver asks for; without it the shared server's schedule has no pause at all.
    const PAUSE_S: u64 = 2;
    let stoa = Stoa::shared(STOA).await;
    let (client, variant) = shop(&stoa).await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = client
        .endpoint(Some(receiver.url()), &["order.placed"])
        .await;
    receiver.answer_retry_after(PAUSE_S);
    client.place(&variant, 1).await;

    let letter = dead_letters(&client, &endpoint, 1).await.remove(0);
    let attempts = letter["attempts"].as_array().unwrap();
    let times: Vec<Timestamp> = attempts
        .iter()
        .map(|attempt| serde_json::from_value(attempt["startedAt"].clone()).unwrap())
        .collect();
    assert_eq!(times.len(), ATTEMPTS);
    let pause = Duration::from_secs(PAUSE_S);
    assert!(
        times.windows(2).all(|pair| pair[1].since(pair[0]) >= pause),
        "{letter}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_a_url_is_read_by_its_numbers() {
    let stoa = Stoa::shared(STOA).await;
    let (client, variant) = shop(&stoa).await;
    let (endpoint, secret) = client
        .endpoint(None, &["order.placed", "order.cancelled"])
        .await;
    assert!(secret.starts_with("whsec_"));
    let path = format!("/v1/webhook-endpoints/{endpoint}");
    let empty = client.get(&format!("{path}/events")).await.expect(200);
    assert_eq!(
        empty,
        json!({"data": [], "nextAfter": 0, "lastSequence": 0})
    );

    let mut orders = Vec::new();
    for _ in 0..4 {
        orders.push(client.place(&variant, 1).await["id"].clone());
    }
    let cancel = format!("/v1/orders/{}/cancel", orders[0].as_str().unwrap());
    client.post(&cancel, &json!({})).await.expect(200);
    let stream = wait_for("five events", async || {
        let stream = client.stream(&endpoint).await;
        (stream.len() >= 5).then_some(stream)
    })
    .await;
    assert_eq!(sequences(&stream), [1, 2, 3, 4, 5]);
    // By versions, whatever was relayed first: a cancellation never comes before its order.
    let kinds = |kind: &str| {
        stream
            .iter()
            .filter(|event| event["type"] == kind)
            .map(|event| event["data"]["id"].clone())
            .collect::<HashSet<_>>()
    };
    assert_eq!(kinds("order.placed"), orders.iter().cloned().collect());
    assert_eq!(kinds("order.cancelled"), HashSet::from([orders[0].clone()]));
    let of_first: Vec<_> = stream
        .iter()
        .filter(|event| event["data"]["id"] == orders[0])
        .map(|event| event["type"].clone())
        .collect();
    assert_eq!(of_first, ["order.placed", "order.cancelled"]);

    let page = client
        .get(&format!("{path}/events?after=1&limit=2"))
        .await
        .expect(200);
    assert_eq!(page["data"], json!(stream[1..3]));
    assert_eq!(
        (&page["nextAfter"], &page["lastSequence"]),
        (&json!(3), &json!(5))
    );
    let page = client
        .get(&format!("{path}/events?after=5"))
        .await
        .expect(200);
    assert_eq!((&page["data"], &page["nextAfter"]), (&json!([]), &json!(5)));
    // Nothing is sent, so nothing can be given up on.
    assert!(client.all(&format!("{path}/dead-letters")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_when_given_and_when_dialled() {
    let options = StoaOptions {
        retry_schedule: Some("0".to_owned()),
        log: Some("off".to_owned()),
        ..StoaOptions::default()
    };
    let mut stoa = Stoa::start_with(STOA, options).await;
    let (client, variant) = shop(&stoa).await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = client
        .endpoint(Some(receiver.url()), &["order.placed"])
        .await;
    client.place(&variant, 1).await;
    receiver
        .wait_until("what is allowed", |deliveries| deliveries.len() == 1)
        .await;

    // The same data under a stricter configuration: what was allowed once is not dialled any more.
    stoa.kill();
    stoa.options_mut().refuse_private_targets = true;
    stoa.restart().await;
    for url in [
        "https://127.0.0.1/hook",
        "https://127.1/hook",
        "https://0x7f000001/hook",
        "https://[::1]/hook",
        "https://[::ffff:127.0.0.1]/hook",
        "https://10.0.0.1/hook",
        "https://192.168.1.1/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/hook",
        "https://0.0.0.0/hook",
    ] {
        let refused = client
            .post("/v1/webhook-endpoints", &json!({"url": url}))
            .await;
        assert_eq!(
            (refused.status.as_u16(), refused.slug()),
            (422, "invalid_fields"),
            "{url}: {}",
            refused.text
        );
        let fault = &refused.json["errors"][0];
        assert_eq!(
            (&fault["pointer"], &fault["code"]),
            (&json!("/url"), &json!("refused_address")),
            "{url}"
        );
    }
    let plain = client
        .post(
            "/v1/webhook-endpoints",
            &json!({"url": "http://example.com/hook"}),
        )
        .await;
    assert_eq!(plain.json["errors"][0]["code"], "scheme", "{}", plain.text);

    client.place(&variant, 1).await;
    let letter = dead_letters(&client, &endpoint, 1).await.remove(0);
    for attempt in letter["attempts"].as_array().unwrap() {
        assert_eq!(
            (&attempt["error"], &attempt["status"]),
            (&json!("refused_address"), &Value::Null),
            "{letter}"
        );
    }
    assert_eq!(receiver.deliveries().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_goes_to_its_endpoint_alone_whatever_types_it_wants() {
    let stoa = Stoa::shared(STOA).await;
    let (client, variant) = shop(&stoa).await;
    let (pinged, other) = (Receiver::start().await, Receiver::start().await);
    let (endpoint, secret) = client.endpoint(Some(pinged.url()), &["order.placed"]).await;
    let all = client
        .post("/v1/webhook-endpoints", &json!({"url": other.url()}))
        .await
        .expect(201);
    let (path, key) = (format!("/v1/webhook-endpoints/{endpoint}/ping"), new_key());
    for _ in 0..2 {
        // Under one key, one ping.
        client
            .post_with_key(&path, &Value::Null, &key)
            .await
            .expect(200);
    }
    let order = client.place(&variant, 1).await;

    let deliveries = pinged
        .wait_until("ping and order", |deliveries| deliveries.len() >= 2)
        .await;
    let mut kinds: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.json["type"].clone())
        .collect();
    kinds.sort_by_key(Value::to_string);
    assert_eq!(kinds, ["order.placed", "ping"]);
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.is_signed_by(&secret))
    );
    let deliveries = other
        .wait_until("the order", |deliveries| {
            deliveries
                .iter()
                .any(|delivery| delivery.json["data"]["id"] == order["id"])
        })
        .await;
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.json["type"] != "ping")
    );
    let stream = client.stream(all["id"].as_str().unwrap()).await;
    assert!(stream.iter().all(|event| event["type"] != "ping"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_shows_a_cursor_every_event_once_while_more_come() {
    let stoa = Stoa::shared(STOA).await;
    let (client, variant) = shop(&stoa).await;
    let placing = async {
        let mut placed = HashSet::new();
        for _ in 0..15 {
            placed.insert(client.place(&variant, 1).await["id"].clone());
        }
        placed
    };
    // Reads from the beginning, in small pages, while orders are placed, and on until it has met fifteen.
    let reading = async {
        let (mut ids, mut orders, mut cursor) = (HashSet::new(), HashSet::new(), String::new());
        wait_for("fifteen orders in the feed", async || {
            let page = client
                .get(&format!("/v1/events?limit=2{cursor}"))
                .await
                .expect(200);
            for event in page["data"].as_array().unwrap() {
                assert!(ids.insert(event["id"].clone()), "{event} came twice");
                assert!(
                    event.get("sequence").is_none(),
                    "the feed's numbers are nobody's business"
                );
                if event["type"] == "order.placed" {
                    orders.insert(event["data"]["id"].clone());
                }
            }
            cursor = format!("&cursor={}", page["nextCursor"].as_str().unwrap());
            (orders.len() == 15).then_some(())
        })
        .await;
        (ids, orders, cursor)
    };
    let (placed, (mut ids, orders, cursor)) = tokio::join!(placing, reading);
    assert_eq!(orders, placed);

    // What is left after the last order's event is the movement of its stock.
    let rest = client
        .get(&format!("/v1/events?limit=250{cursor}"))
        .await
        .expect(200);
    for event in rest["data"].as_array().unwrap() {
        assert!(ids.insert(event["id"].clone()), "{event} came twice");
    }
    assert!(
        client
            .feed()
            .await
            .iter()
            .all(|event| ids.contains(&event["id"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grants_endpoint_gets_nothing_more() {
    let stoa = Stoa::shared(STOA).await;
    let (owner, variant) = shop(&stoa).await;
    let app = stoa
        .client_of(
            &owner.credentials.merchant,
            "orders:read webhooks:write",
            &[],
        )
        .await;
    let (revoked, living) = (Receiver::start().await, Receiver::start().await);
    let (endpoint, _) = app.endpoint(Some(revoked.url()), &["order.placed"]).await;
    owner.endpoint(Some(living.url()), &["order.placed"]).await;
    owner.place(&variant, 1).await;
    revoked
        .wait_until("the first order", |deliveries| deliveries.len() == 1)
        .await;

    stoa.revoke(&app);
    wait_for("the revocation to be felt", async || {
        (app.get("/v1/orders").await.status == 401).then_some(())
    })
    .await;
    for _ in 0..3 {
        owner.place(&variant, 1).await;
    }
    // One transaction relays an event to all of a merchant's endpoints: what the living one has been sent, the other's stream would have too.
    living
        .wait_until("the other orders", |deliveries| deliveries.len() == 4)
        .await;
    assert_eq!(sequences(&owner.stream(&endpoint).await), [1]);
    assert_eq!(revoked.deliveries().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_grant_may_no_longer_see_is_withheld_under_its_number() {
    let stoa = Stoa::shared(STOA).await;
    let (owner, variant) = shop(&stoa).await;
    let app = stoa
        .client_of(
            &owner.credentials.merchant,
            "orders:read webhooks:write",
            &[],
        )
        .await;
    let receiver = Receiver::start().await;
    let (endpoint, secret) = app.endpoint(Some(receiver.url()), &["order.placed"]).await;
    receiver.answer_with(500);
    let order = owner.place(&variant, 1).await;
    let letter = dead_letters(&app, &endpoint, 1).await.remove(0);
    assert_eq!(letter["event"]["data"]["id"], order["id"]);

    stoa.regrant(&app, "catalog:read webhooks:write", &[]);
    receiver.answer_with(200);
    // Replays come until the change is felt by whoever sends them; one that is asked for while another is on its way is that one.
    let withheld = wait_for("a replay that is withheld", async || {
        replay(&owner, &letter).await;
        let mut deliveries = receiver.deliveries().into_iter();
        deliveries.find(|delivery| delivery.json["type"] != "order.placed")
    })
    .await;
    assert!(withheld.is_signed_by(&secret));
    let event = letter["event"]["id"].as_str().unwrap();
    assert_eq!((withheld.id(), withheld.sequence()), (event, 1));
    assert_eq!(withheld.json["type"], "event.withheld");
    assert!(
        withheld.json.get("data").is_none() && withheld.json.get("resource").is_none(),
        "{}",
        withheld.json
    );
    let stream = owner.stream(&endpoint).await;
    assert_eq!(
        (&stream[0]["type"], sequences(&stream)),
        (&json!("event.withheld"), vec![1])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn personal_data_goes_only_to_endpoints_whose_grant_includes_it() {
    let stoa = Stoa::shared(STOA).await;
    let (owner, variant) = shop(&stoa).await;
    // The scope alone is not enough, nor is the grant's consent alone.
    let merchant = &owner.credentials.merchant;
    let without_consent = stoa.client_of(merchant, ALL_SCOPES, &[]).await;
    let without_scope = stoa
        .client_of(merchant, "orders:read webhooks:write", &["--personal-data"])
        .await;
    let mut receivers = Vec::new();
    for client in [&owner, &without_consent, &without_scope] {
        let receiver = Receiver::start().await;
        client
            .endpoint(Some(receiver.url()), &["order.placed"])
            .await;
        receivers.push(receiver);
    }
    let mut order = order_of(&variant, 1);
    order["customer"] = json!({"name": "Ada Lovelace", "email": "ada@example.com"});
    order["shippingAddress"] =
        json!({"line1": "12 St James's Square", "city": "London", "country": "GB"});
    let placed = owner.post("/v1/orders", &order).await.expect(201);

    let mut bodies = Vec::new();
    for receiver in &receivers {
        bodies.push(
            receiver
                .wait_until("the order", |deliveries| !deliveries.is_empty())
                .await
                .remove(0),
        );
    }
    assert_eq!(bodies[0].json["data"], placed);
    assert_eq!(
        bodies[0].json["data"]["customer"]["email"],
        "ada@example.com"
    );
    for body in &bodies[1..] {
        assert_eq!(body.json["data"]["id"], placed["id"]);
        assert_eq!(body.json["data"]["customer"], Value::Null);
        let text = String::from_utf8_lossy(&body.body);
        assert!(
            !text.contains("Ada") && !text.contains("ada@") && !text.contains("James"),
            "{text}"
        );
    }
    for client in [&without_consent, &without_scope] {
        let shown = client
            .get(&format!("/v1/orders/{}", placed["id"].as_str().unwrap()))
            .await;
        assert!(
            !shown.text.contains("Ada") && !shown.text.contains("ada@"),
            "{}",
            shown.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_sent_its_types_alone_and_nothing_once_deleted() {
    let stoa = Stoa::shared(STOA).await;
    let (client, variant) = shop(&stoa).await;
    let (receiver, witness) = (Receiver::start().await, Receiver::start().await);
    let (endpoint, _) = client
        .endpoint(Some(receiver.url()), &["order.cancelled"])
        .await;
    client
        .endpoint(Some(witness.url()), &["order.placed", "order.cancelled"])
        .await;
    let order = client.place(&variant, 1).await;
    let cancel = format!("/v1/orders/{}/cancel", order["id"].as_str().unwrap());
    client
        .post(&cancel, &json!({"reason": "changed their mind"}))
        .await
        .expect(200);
    let deliveries = receiver
        .wait_until("the cancellation", |deliveries| !deliveries.is_empty())
        .await;
    assert_eq!(
        (deliveries.len(), &deliveries[0].json["type"]),
        (1, &json!("order.cancelled"))
    );
    assert_eq!(
        deliveries[0].sequence(),
        1,
        "what it is not sent leaves no hole"
    );

    let path = format!("/v1/webhook-endpoints/{endpoint}");
    let deleted = client
        .request(Method::DELETE, &path)
        .header("idempotency-key", new_key())
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), 200);
    client.get(&path).await.expect(404);
    let order = client.place(&variant, 1).await;
    let cancel = format!("/v1/orders/{}/cancel", order["id"].as_str().unwrap());
    client.post(&cancel, &json!({})).await.expect(200);
    witness
        .wait_until("everything", |deliveries| deliveries.len() >= 4)
        .await;
    assert_eq!(receiver.deliveries().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_can_not_wait_for_events_that_there_are_not() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let types = json!(["order.placed", "order.shipped"]);
    let input = json!({"url": null, "eventTypes": types});
    let refused = client.post("/v1/webhook-endpoints", &input).await;
    let problem = refused.expect(422);
    assert_eq!(
        problem["errors"][0]["pointer"], "/eventTypes/1",
        "{problem}"
    );
    let (endpoint, _) = client.endpoint(None, &["order.placed"]).await;
    let path = format!("/v1/webhook-endpoints/{endpoint}");
    let refused = client.patch(&path, &json!({"eventTypes": types})).await;
    assert_eq!(refused.slug(), "invalid_fields");
}
