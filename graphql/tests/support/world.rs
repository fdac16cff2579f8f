//! A merchant with a schema over a database of its own.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use commerce::{
    fulfillment::{Fulfill, FulfillmentInput},
    inventory::{self, InventorySetEntry, InventorySetInput},
    location::{self, Location, LocationInput},
    order::{Order, OrderInput, Place},
    product::{self, Product, ProductInput},
};
use graphql::{Answer, Request, Schema, Services};
use kernel::{
    actor::{Access, Actor},
    clock::{Clock, Timestamp},
    event::Announcer,
    id::{AppId, GrantId, MerchantId, RequestId},
    idempotency::{Groups, Idempotency, Key, Operation},
    keyring::Keyring,
    scope::Scope,
    test_database::{TestDatabase, keyring},
};
use serde_json::{Value, json};

/// A merchant, an app that may do everything, and the schema.
pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) schema: Schema,
    pub(crate) idempotency: Idempotency,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) actor: Actor,
    keys: AtomicU64,
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_800_000_000_000)
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let keyring = Arc::new(keyring().unwrap());
        let merchant = database.merchant(&keyring, now()).await.unwrap();
        let idempotency = Idempotency::new(
            database.api(),
            Clock::manual(now()),
            Arc::clone(&keyring),
            Announcer::default(),
        );
        let services = Services {
            database: database.api(),
            keyring: Arc::clone(&keyring),
            placing: Groups::new(idempotency.clone()),
            idempotency: idempotency.clone(),
        };
        Self {
            database,
            schema: graphql::schema(services),
            idempotency,
            keyring,
            actor: actor_of(merchant),
            keys: AtomicU64::new(0),
        }
    }

    /// Runs an operation as REST does.
    pub(crate) async fn run<O: Operation>(&self, operation: O) -> O::Output
    where
        O::Error: std::fmt::Debug,
    {
        let key: Key = format!("world-{}", self.keys.fetch_add(1, Ordering::Relaxed))
            .parse()
            .unwrap();
        self.idempotency
            .once(&self.actor, &key, &operation)
            .await
            .unwrap()
            .value
    }

    pub(crate) async fn product(&self, external_id: &str, variants: usize) -> Product {
        let input: ProductInput =
            serde_json::from_value(product_json(external_id, variants)).unwrap();
        self.run(product::Upsert::new(input, None).unwrap())
            .await
            .product
    }

    pub(crate) async fn location(&self, external_id: &str) -> Location {
        let input: LocationInput =
            serde_json::from_value(json!({"externalId": external_id, "name": external_id}))
                .unwrap();
        self.run(location::Upsert::new(input).unwrap()).await
    }

    pub(crate) async fn stock(&self, product: &Product, location: &Location, on_hand: i32) {
        let entries = product.variants.iter().map(|variant| InventorySetEntry {
            variant_id: variant.id,
            location_id: location.id,
            on_hand,
        });
        self.run(
            inventory::Set::new(InventorySetInput {
                entries: entries.collect(),
                note: None,
            })
            .unwrap(),
        )
        .await;
    }

    pub(crate) async fn order(&self, product: &Product, quantity: i32) -> Order {
        let input: OrderInput = serde_json::from_value(order_json(product, quantity)).unwrap();
        self.run(Place::new(input, Arc::clone(&self.keyring)).unwrap())
            .await
    }

    pub(crate) async fn fulfill(&self, order: &Order) {
        self.run(Fulfill::new(order.id, FulfillmentInput::default()).unwrap())
            .await;
    }

    pub(crate) async fn ask(&self, query: &str, variables: Value) -> Value {
        self.ask_as(&self.actor, query, variables).await
    }

    pub(crate) async fn ask_as(&self, actor: &Actor, query: &str, variables: Value) -> Value {
        let Value::Object(variables) = variables else {
            panic!("variables are an object")
        };
        let answer: Answer = self
            .schema
            .execute(
                actor,
                Request {
                    query: query.to_owned(),
                    operation_name: None,
                    variables,
                },
            )
            .await;
        serde_json::to_value(&answer).unwrap()
    }

    /// The actor, but with these scopes alone.
    pub(crate) fn with_scopes(&self, scopes: &[Scope]) -> Actor {
        let access = Access {
            scopes: scopes.iter().copied().collect(),
            ..Access::full()
        };
        Actor {
            access,
            ..self.actor.clone()
        }
    }
}

pub(crate) fn actor_of(merchant: MerchantId) -> Actor {
    Actor {
        merchant,
        app: AppId::new(now()),
        grant: GrantId::new(now()),
        access: Access::full(),
        request: RequestId::new(now()),
    }
}

pub(crate) fn product_json(external_id: &str, variants: usize) -> Value {
    let sizes: Vec<String> = (0..variants).map(|place| format!("S{place}")).collect();
    let variants: Vec<Value> = sizes
        .iter()
        .map(|size| {
            json!({"externalId": format!("{external_id}-{size}"), "sku": format!("{external_id}-{size}"), "optionValues": [size],
                   "price": {"amount": "49.00", "currency": "EUR"}})
        })
        .collect();
    json!({"externalId": external_id, "title": format!("Shirt {external_id}"), "options": [{"name": "Size", "values": sizes}], "variants": variants})
}

pub(crate) fn order_json(product: &Product, quantity: i32) -> Value {
    let lines: Vec<Value> = product
        .variants
        .iter()
        .map(|variant| json!({"variantId": variant.id, "quantity": quantity}))
        .collect();
    json!({"lines": lines, "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
           "shippingAddress": {"line1": "12 St James's Square", "city": "London", "country": "GB"}})
}
