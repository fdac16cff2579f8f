//! Stock can't be oversold, however many ask at once.

use futures_util::future::join_all;
use tests::{Stoa, new_key, order_of};

use crate::STOA;

/// Orders that come at once.
const ORDERS: usize = 500;

/// Pieces that are there.
const PIECES: i64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_orders_for_a_hundred_pieces_sell_exactly_these() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let (_, variant) = stoa.stocked(&client, PIECES).await;
    let order = order_of(&variant, 1);
    let keys: Vec<String> = (0..ORDERS).map(|_| new_key()).collect();

    let orders = keys
        .iter()
        .map(|key| client.post_with_key("/v1/orders", &order, key));
    let answers = join_all(orders).await;

    let mut placed = 0;
    let mut refused = 0;
    for answer in &answers {
        match (answer.status.as_u16(), answer.slug()) {
            (201, _) => placed += 1,
            (409, "insufficient_stock") => refused += 1,
            _ => panic!("{}", answer.text),
        }
    }
    assert_eq!((placed, refused), (100, 400));
    let level = client.checked_ledger(&variant).await;
    assert_eq!(
        (&level["onHand"], &level["reserved"], &level["available"]),
        (&100.into(), &100.into(), &0.into())
    );
    assert_eq!(client.all("/v1/orders").await.len(), placed);

    // Who missed the answer gets it again, and nobody a second order.
    for (key, answer) in keys.iter().zip(&answers).take(20) {
        let again = client.post_with_key("/v1/orders", &order, key).await;
        assert!(again.is_replayed());
        assert_eq!(
            (again.status, &again.json["id"]),
            (answer.status, &answer.json["id"])
        );
    }
    assert_eq!(client.level(&variant).await, level);
}
