#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests look behind the scenes")]

use std::collections::{HashMap, HashSet};

use kernel::{
    actor::Access,
    db::Database,
    id::{AppId, GrantId, RequestId},
    idempotency::Operation,
    scope::ScopeSet,
    test_database::{TestDatabase, keyring},
    version::Version,
};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};

use super::{
    UpsertOutcome::{Created, Unchanged, Updated},
    *,
};

struct World {
    database: TestDatabase,
    api: Database,
    actor: Actor,
}

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_800_000_000_000)
}

fn later(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_800_000_000_000 + millis)
}

/// The one product of this external id.
async fn of_external_id(tx: &mut PgConnection, actor: &Actor, external_id: &str) -> Product {
    let filter = ProductFilter {
        external_id: Some(external_id.to_owned()),
        ..ProductFilter::default()
    };
    let page = PageRequest {
        limit: 2,
        after: None,
    };
    let [product] = list(tx, actor, &filter, &page)
        .await
        .unwrap()
        .data
        .try_into()
        .unwrap();
    product
}

fn actor_of(merchant: MerchantId) -> Actor {
    Actor {
        merchant,
        app: AppId::new(now()),
        grant: GrantId::new(now()),
        access: Access::full(),
        request: RequestId::new(now()),
    }
}

impl World {
    async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let api = database.api();
        let merchant = database.merchant(&keyring().unwrap(), now()).await.unwrap();
        Self {
            database,
            api,
            actor: actor_of(merchant),
        }
    }

    async fn upsert(&self, input: Value) -> Result<Upserted, Error> {
        self.upsert_at(input, None, now()).await
    }

    async fn upsert_at(
        &self,
        input: Value,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Upserted, Error> {
        let wanted = Upsert::new(
            serde_json::from_value(input).unwrap(),
            version.map(Version::new),
        )?;
        let mut tx = self.api.enter(self.actor.merchant).await?;
        let upserted = upsert(&mut tx, &self.actor, &wanted, now).await?;
        tx.commit().await?;
        Ok(upserted)
    }

    /// Type, resource, version and data of the events so far, in the order of versions.
    async fn events(&self) -> Vec<(String, String, i64, Value)> {
        let mut tx = self.database.worker().begin().await.unwrap();
        sqlx::query("select type, resource_id, resource_version, data from outbox order by resource_version, type, resource_id")
            .fetch_all(&mut *tx)
            .await
            .unwrap()
            .into_iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
            .collect()
    }
}

fn shirt(price: &str) -> Value {
    json!({
        "externalId": "SHIRT-1",
        "title": "Linen shirt",
        "description": "<p>Cool</p>",
        "brand": "Arden",
        "category": "Apparel > Shirts",
        "tags": ["summer", "ماركة"],
        "options": [{"name": "Size", "values": ["M", "L"]}],
        "attributes": [{"name": "material", "value": "linen"}],
        "media": [{"url": "https://shop.example/1.jpg", "alt": "front"}],
        "variants": [
            {"externalId": "M", "sku": "LS-M", "barcode": "12345", "price": {"amount": price, "currency": "EUR"},
             "compareAtPrice": {"amount": "59.00", "currency": "EUR"}, "weightGrams": 180, "optionValues": ["M"]},
            {"externalId": "L", "sku": "", "price": {"amount": "49.00", "currency": "EUR"}, "optionValues": ["L"]}
        ]
    })
}

fn simple(external_id: &str, title: &str) -> Value {
    json!({"externalId": external_id, "title": title, "variants": [{"sku": format!("SKU-{external_id}"), "price": {"amount": "1", "currency": "EUR"}}]})
}

fn input(value: Value) -> Upsert {
    Upsert::new(serde_json::from_value(value).unwrap(), None).unwrap()
}

#[tokio::test]
async fn an_upsert_creates_then_changes_nothing_then_updates() {
    let world = World::new().await;
    let created = world.upsert(shirt("49.00")).await.unwrap();
    assert_eq!(
        (created.outcome, created.product.version.number()),
        (UpsertOutcome::Created, 1)
    );
    assert_eq!(
        created.product.variants[1].sku, None,
        "an empty SKU counts as none"
    );

    // The same content, spelled otherwise.
    let mut same = shirt("49");
    same["status"] = json!("active");
    same["variants"][1]["barcode"] = json!("");
    let unchanged = world.upsert_at(same, None, later(1)).await.unwrap();
    assert_eq!(
        unchanged,
        Upserted {
            outcome: UpsertOutcome::Unchanged,
            product: created.product.clone()
        }
    );

    let mut retitled = shirt("45.00");
    retitled["title"] = json!("Shirt");
    let updated = world.upsert_at(retitled, None, later(2)).await.unwrap();
    assert_eq!(
        (updated.outcome, updated.product.version.number()),
        (UpsertOutcome::Updated, 2)
    );
    assert_eq!(updated.product.id, created.product.id);
    assert_eq!(
        updated.product.variants[0].id,
        created.product.variants[0].id
    );
    assert_eq!(
        (updated.product.created_at, updated.product.updated_at),
        (now(), later(2))
    );

    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    assert_eq!(
        get(&mut tx, &world.actor, updated.product.id)
            .await
            .unwrap(),
        updated.product
    );
    assert_eq!(
        of_external_id(&mut tx, &world.actor, "SHIRT-1").await,
        updated.product
    );

    let events = world.events().await;
    let seen: Vec<_> = events
        .iter()
        .map(|(kind, resource, version, _)| (kind.as_str(), resource.clone(), *version))
        .collect();
    let product = created.product.id.to_string();
    let variant = created.product.variants[0].id.to_string();
    assert_eq!(
        seen,
        [
            ("product.created", product.clone(), 1),
            ("product.updated", product, 2),
            ("variant.price_changed", variant, 2)
        ]
    );
    assert_eq!(events[0].3, serde_json::to_value(&created.product).unwrap());
    assert_eq!(events[1].3, serde_json::to_value(&updated.product).unwrap());
    assert_eq!(
        events[2].3,
        serde_json::to_value(&updated.product.variants[0]).unwrap()
    );
}

#[tokio::test]
async fn a_variant_that_is_left_out_is_archived_and_comes_back_as_itself() {
    let world = World::new().await;
    let full = world.upsert(shirt("49.00")).await.unwrap().product;
    let large = full.variants[1].id;
    let mut without = shirt("49.00");
    without["variants"].as_array_mut().unwrap().pop();
    let reduced = world.upsert(without).await.unwrap().product;
    assert_eq!(reduced.variants.len(), 1);

    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    let for_sale = find_for_sale(&mut tx, world.actor.merchant, &[large, full.variants[0].id])
        .await
        .unwrap();
    assert!(!for_sale[&large].is_for_sale() && for_sale[&full.variants[0].id].is_for_sale());
    assert_eq!(for_sale[&large].title, "Linen shirt (L)");
    assert!(variants(&mut tx, &world.actor, &[large]).await.unwrap()[&large].archived);
    tx.commit().await.unwrap();

    let mut back = shirt("49.00");
    back["variants"].as_array_mut().unwrap().reverse();
    let back = world.upsert(back).await.unwrap().product;
    let order: Vec<_> = back
        .variants
        .iter()
        .map(|variant| (variant.id, variant.position))
        .collect();
    assert_eq!(order, [(large, 1), (full.variants[0].id, 2)]);
    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    assert_eq!(get(&mut tx, &world.actor, back.id).await.unwrap(), back);
    // Whoever asks twice is answered once.
    assert_eq!(
        get_many(&mut tx, &world.actor, &[back.id, back.id])
            .await
            .unwrap()[&back.id],
        back
    );
    assert_eq!(
        variants_of(&mut tx, &world.actor, &[back.id, back.id])
            .await
            .unwrap()[&back.id],
        back.variants
    );
}

#[tokio::test]
async fn an_expected_version_guards_upserts_and_archiving() {
    let world = World::new().await;
    let mismatch = |result: Result<Upserted, Error>| match result {
        Err(Error::VersionMismatch { expected, current }) => (expected, current),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        mismatch(world.upsert_at(shirt("1"), Some(1), now()).await),
        (1, 0)
    );
    let product = world
        .upsert_at(shirt("1"), Some(0), now())
        .await
        .unwrap()
        .product;
    assert_eq!(
        mismatch(world.upsert_at(shirt("1"), Some(2), now()).await),
        (2, 1),
        "even where nothing would change"
    );
    assert_eq!(
        world
            .upsert_at(shirt("1"), Some(1), now())
            .await
            .unwrap()
            .outcome,
        UpsertOutcome::Unchanged
    );
    assert_eq!(
        world
            .upsert_at(shirt("2"), Some(1), now())
            .await
            .unwrap()
            .product
            .version
            .number(),
        2
    );

    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    let refused = archive(
        &mut tx,
        &world.actor,
        product.id,
        Some(Version::FIRST),
        now(),
    )
    .await;
    assert!(matches!(
        refused,
        Err(Error::VersionMismatch {
            expected: 1,
            current: 2
        })
    ));
    let archived = archive(
        &mut tx,
        &world.actor,
        product.id,
        Some(Version::new(2)),
        now(),
    )
    .await
    .unwrap();
    assert_eq!(
        (archived.status, archived.version.number()),
        (ProductStatus::Archived, 3)
    );
    assert_eq!(
        archive(&mut tx, &world.actor, product.id, None, now())
            .await
            .unwrap(),
        archived,
        "twice is once"
    );
    tx.commit().await.unwrap();
    let kinds: Vec<_> = world
        .events()
        .await
        .into_iter()
        .map(|(kind, ..)| kind)
        .collect();
    assert_eq!(
        kinds,
        [
            "product.created",
            "product.updated",
            "variant.price_changed",
            "product.archived"
        ]
    );

    let mut same = shirt("2");
    same["status"] = json!("archived");
    assert_eq!(
        world.upsert(same).await.unwrap().outcome,
        UpsertOutcome::Unchanged,
        "the hash follows the archiving"
    );
    assert_eq!(
        world.upsert(shirt("2")).await.unwrap().product.status,
        ProductStatus::Active
    );
}

#[tokio::test]
async fn duplicates_in_a_batch_are_decided_in_their_order() {
    let world = World::new().await;
    world.upsert(simple("B", "old")).await.unwrap();
    let inputs: Vec<_> = [
        ("B", "old"),
        ("A", "1"),
        ("B", "new"),
        ("A", "1"),
        ("A", "2"),
        ("B", "old"),
        ("C", "1"),
    ]
    .map(|(external_id, title)| input(simple(external_id, title)))
    .into();
    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    let decided = upsert_many(&mut tx, &world.actor, &inputs, later(1))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let outcomes: Vec<_> = decided
        .iter()
        .map(|decided| decided.as_ref().unwrap().outcome)
        .collect();
    assert_eq!(
        outcomes,
        [
            Unchanged, Created, Updated, Unchanged, Updated, Updated, Created
        ]
    );

    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    for (external_id, title, version) in [("A", "2", 2), ("B", "old", 3), ("C", "1", 1)] {
        let product = of_external_id(&mut tx, &world.actor, external_id).await;
        assert_eq!(
            (product.title.as_str(), product.version.number()),
            (title, version)
        );
        let seen: Vec<_> = world
            .events()
            .await
            .into_iter()
            .filter(|(_, resource, ..)| *resource == product.id.to_string())
            .map(|(_, _, version, data)| (version, data["version"].as_i64().unwrap()))
            .collect();
        assert_eq!(
            seen,
            (1..=version)
                .map(|version| (version, version))
                .collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_group_of_operations_answers_each_member_with_its_own_product() {
    let world = World::new().await;
    let known = world.upsert(simple("A", "1")).await.unwrap().product;
    let operations = [
        input(simple("A", "1")),
        input(simple("B", "1")),
        Upsert::new(
            serde_json::from_value(simple("A", "2")).unwrap(),
            Some(Version::new(9)),
        )
        .unwrap(),
        input(simple("B", "2")),
    ];
    let other = Actor {
        request: RequestId::new(now()),
        ..world.actor.clone()
    };
    let members: Vec<_> = operations
        .iter()
        .zip([&world.actor, &other, &world.actor, &world.actor])
        .map(|(operation, actor)| (operation, kernel::idempotency::Call { actor, now: now() }))
        .collect();
    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    let results = Upsert::run_many(&mut tx, &members).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().product, known);
    assert_eq!(results[1].as_ref().unwrap().product.title, "1");
    assert!(matches!(
        results[2],
        Err(Error::VersionMismatch {
            expected: 9,
            current: 1
        })
    ));
    assert_eq!(results[3].as_ref().unwrap().product.title, "2");
    let requests = world
        .database
        .count("select count(distinct request_id) from outbox")
        .await
        .unwrap();
    assert_eq!(requests, 2);
}

#[tokio::test]
async fn concurrent_upserts_of_the_same_products_end_without_gaps() {
    const WRITERS: usize = 12;
    const ROUNDS: usize = 5;
    let world = std::sync::Arc::new(World::new().await);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let world = std::sync::Arc::clone(&world);
            tokio::spawn(async move {
                let mut changes = HashMap::new();
                for round in 0..ROUNDS {
                    // Each writer has the products in another order, some of them twice.
                    let inputs: Vec<_> = (0..20)
                        .map(|place| {
                            let product = (place * (writer + 1) + writer) % 15;
                            input(simple(
                                &format!("P{product}"),
                                &format!("{writer} {round} {place}"),
                            ))
                        })
                        .collect();
                    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
                    // No retry: groups wait for each other, and never in a circle.
                    let decided = upsert_many(&mut tx, &world.actor, &inputs, now())
                        .await
                        .unwrap();
                    tx.commit().await.unwrap();
                    for decided in decided {
                        let decided = decided.unwrap();
                        if decided.outcome != UpsertOutcome::Unchanged {
                            *changes.entry(decided.id).or_insert(0) += 1;
                        }
                    }
                }
                changes
            })
        })
        .collect();
    let mut changes: HashMap<ProductId, i64> = HashMap::new();
    for writer in writers {
        for (product, count) in writer.await.unwrap() {
            *changes.entry(product).or_default() += count;
        }
    }
    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    let ids: Vec<_> = changes.keys().copied().collect();
    let products = get_many(&mut tx, &world.actor, &ids).await.unwrap();
    let mut versions: HashMap<String, Vec<i64>> = HashMap::new();
    for (_, resource, version, _) in world.events().await {
        versions.entry(resource).or_default().push(version);
    }
    assert!(products.len() == ids.len() && ids.len() >= 10);
    for (id, product) in products {
        assert_eq!(
            product.version.number(),
            changes[&id],
            "each change raised the version by one"
        );
        assert_eq!(
            versions[&id.to_string()],
            (1..=product.version.number()).collect::<Vec<_>>(),
            "and has its event"
        );
    }
}

#[tokio::test]
async fn a_list_shows_each_product_once_while_they_are_written() {
    let world = World::new().await;
    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    let mut ids = HashSet::new();
    for number in 0..25 {
        let inputs = [input(simple(&format!("P{number}"), "old"))];
        let decided = upsert_many(&mut tx, &world.actor, &inputs, later(number))
            .await
            .unwrap();
        ids.insert(decided[0].as_ref().unwrap().id);
    }
    tx.commit().await.unwrap();
    let mut seen = Vec::new();
    let mut request = PageRequest {
        limit: 4,
        after: None,
    };
    loop {
        let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
        let page = list(&mut tx, &world.actor, &ProductFilter::default(), &request)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        seen.extend(page.data.iter().map(|product| product.id));
        // Everything is written over between two pages, seen or not.
        for number in [0, 7, 24] {
            world
                .upsert_at(
                    simple(&format!("P{number}"), &format!("new {}", seen.len())),
                    None,
                    later(100),
                )
                .await
                .unwrap();
        }
        let Some(cursor) = page.next_cursor else {
            break;
        };
        request = PageRequest::parse(Some("4"), Some(&cursor)).unwrap();
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), ids);
}

#[tokio::test]
async fn a_list_is_filtered_by_what_is_asked() {
    let world = World::new().await;
    world.upsert(shirt("49.00")).await.unwrap();
    world.upsert(simple("A", "1")).await.unwrap();
    let mut draft = simple("B", "1");
    draft["status"] = json!("draft");
    world.upsert_at(draft, None, later(100_000)).await.unwrap();
    let mut gone = shirt("49.00");
    gone["externalId"] = json!("SHIRT-2");
    world.upsert(gone.clone()).await.unwrap();
    gone["variants"].as_array_mut().unwrap().remove(0);
    world.upsert(gone).await.unwrap();

    let cases = [
        (
            ProductFilter {
                status: Some(ProductStatus::Draft),
                ..Default::default()
            },
            vec!["B"],
        ),
        (
            ProductFilter {
                sku: Some("LS-M".into()),
                ..Default::default()
            },
            vec!["SHIRT-1"],
        ),
        (
            ProductFilter {
                barcode: Some("12345".into()),
                ..Default::default()
            },
            vec!["SHIRT-1"],
        ),
        (
            ProductFilter {
                barcode: Some("12345".into()),
                sku: Some("other".into()),
                ..Default::default()
            },
            vec![],
        ),
        (
            ProductFilter {
                brand: Some("Arden".into()),
                ..Default::default()
            },
            vec!["SHIRT-1", "SHIRT-2"],
        ),
        (
            ProductFilter {
                updated_after: Some(later(61_000)),
                ..Default::default()
            },
            vec!["B"],
        ),
        // Shown again: what was committed late may bear a time before it.
        (
            ProductFilter {
                updated_after: Some(later(159_000)),
                ..Default::default()
            },
            vec!["B"],
        ),
        (
            ProductFilter {
                updated_after: Some(later(160_000)),
                ..Default::default()
            },
            vec![],
        ),
    ];
    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    for (filter, expected) in cases {
        let request = PageRequest {
            limit: 50,
            after: None,
        };
        let page = list(&mut tx, &world.actor, &filter, &request)
            .await
            .unwrap();
        let mut found: Vec<_> = page
            .data
            .iter()
            .map(|product| product.external_id.as_str())
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{filter:?}");
    }
    let by_sku = variants_by_sku(
        &mut tx,
        &world.actor,
        &["LS-M".into(), "SKU-A".into(), "none".into()],
    )
    .await
    .unwrap();
    assert_eq!((by_sku.len(), by_sku["LS-M"].len()), (2, 1));
}

#[tokio::test]
async fn another_merchant_sees_and_touches_nothing() {
    let world = World::new().await;
    let product = world.upsert(shirt("49.00")).await.unwrap().product;
    let stranger = world
        .database
        .merchant(&keyring().unwrap(), now())
        .await
        .unwrap();
    let actor = actor_of(stranger);
    let mut tx = world.api.enter(stranger).await.unwrap();
    assert!(matches!(
        get(&mut tx, &actor, product.id).await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        archive(&mut tx, &actor, product.id, None, now()).await,
        Err(Error::NotFound { .. })
    ));
    assert!(
        find_for_sale(&mut tx, stranger, &[product.variants[0].id])
            .await
            .unwrap()
            .is_empty()
    );
    let own = upsert(&mut tx, &actor, &input(shirt("49.00")), now())
        .await
        .unwrap();
    assert_eq!(
        own.outcome,
        UpsertOutcome::Created,
        "external ids are the merchant's own"
    );
    // Even where a statement asks for the other merchant by name.
    assert!(
        find_for_sale(&mut tx, world.actor.merchant, &[product.variants[0].id])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn each_function_asks_for_its_scope() {
    let world = World::new().await;
    let actor = Actor {
        access: Access {
            scopes: [Scope::OrdersWrite].into_iter().collect::<ScopeSet>(),
            ..Access::full()
        },
        ..world.actor.clone()
    };
    let id = ProductId::new(now());
    let page = PageRequest {
        limit: 1,
        after: None,
    };
    let mut tx = world.api.enter(actor.merchant).await.unwrap();
    let tx = &mut *tx;
    let refused = [
        get(tx, &actor, id).await.map(drop),
        get_many(tx, &actor, &[id]).await.map(drop),
        variants_of(tx, &actor, &[id]).await.map(drop),
        variants(tx, &actor, &[]).await.map(drop),
        variants_by_sku(tx, &actor, &[]).await.map(drop),
        list(tx, &actor, &ProductFilter::default(), &page)
            .await
            .map(drop),
        upsert(tx, &actor, &input(shirt("1")), now())
            .await
            .map(drop),
        upsert_many(tx, &actor, &[], now()).await.map(drop),
        archive(tx, &actor, id, None, now()).await.map(drop),
    ];
    assert!(
        refused
            .iter()
            .all(|result| matches!(result, Err(Error::MissingScope(_)))),
        "{refused:?}"
    );
}
