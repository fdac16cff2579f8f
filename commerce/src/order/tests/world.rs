//! A merchant with two locations, products, and whatever stock a test puts there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kernel::{
    actor::{Access, Actor},
    clock::{Clock, Timestamp},
    db::{Database, Transaction},
    event::Announcer,
    id::{AppId, GrantId, LocationId, MerchantId, RequestId},
    idempotency::{Answer, Failed, Idempotency, Key, Operation},
    keyring::Keyring,
    scope::ScopeSet,
    test_database::{TestDatabase, keyring},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};

use crate::{
    Error,
    inventory::{InventoryLevel, InventorySetInput, Set},
    location::{self, LocationInput},
    order::{Order, OrderInput, Place},
    product::{self, ProductInput, VariantId},
};

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) api: Database,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) idempotency: Idempotency,
    pub(crate) clock: Clock,
    pub(crate) actor: Actor,
    /// Sorted by id: a line without a location is taken from the first that has enough.
    pub(crate) locations: Vec<LocationId>,
    keys: std::sync::atomic::AtomicU64,
}

pub(crate) fn actor_of(merchant: MerchantId, now: Timestamp) -> Actor {
    Actor {
        merchant,
        app: AppId::new(now),
        grant: GrantId::new(now),
        access: Access::full(),
        request: RequestId::new(now),
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_unix_millis(1_800_000_000_000));
        let database = TestDatabase::create().await.unwrap();
        let keyring = Arc::new(keyring().unwrap());
        let merchant = database.merchant(&keyring, clock.now()).await.unwrap();
        let api = database.api();
        let idempotency = Idempotency::new(
            api.clone(),
            clock.clone(),
            Arc::clone(&keyring),
            Announcer::default(),
        );
        let actor = actor_of(merchant, clock.now());
        let mut world = Self {
            database,
            api,
            keyring,
            idempotency,
            clock,
            actor,
            locations: Vec::new(),
            keys: std::sync::atomic::AtomicU64::new(0),
        };
        let (north, south) = (world.location("north").await, world.location("south").await);
        world.locations = vec![north, south];
        world.locations.sort_unstable();
        world
    }

    /// Another merchant of the same database and key ring.
    pub(crate) async fn stranger(&self) -> Actor {
        let merchant = self
            .database
            .merchant(&self.keyring, self.now())
            .await
            .unwrap();
        actor_of(merchant, self.now())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn tx(&self) -> Transaction {
        self.api.enter(self.actor.merchant).await.unwrap()
    }

    pub(crate) async fn location(&self, external_id: &str) -> LocationId {
        let input = LocationInput {
            external_id: external_id.to_owned(),
            name: external_id.to_owned(),
            country: None,
        };
        let mut tx = self.tx().await;
        let location = location::upsert(&mut tx, &self.actor, &input, self.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        location.id
    }

    /// The same app, seeing and doing only this.
    pub(crate) fn limited(
        &self,
        scopes: &str,
        locations: Option<Vec<LocationId>>,
        personal_data: bool,
    ) -> Actor {
        let access = Access {
            scopes: scopes.parse::<ScopeSet>().unwrap(),
            locations,
            personal_data,
        };
        Actor {
            access,
            ..self.actor.clone()
        }
    }

    /// A product with one variant at this price.
    pub(crate) async fn variant(&self, name: &str, amount: &str, currency: &str) -> VariantId {
        self.variant_of_status(name, amount, currency, "active")
            .await
    }

    pub(crate) async fn variant_of_status(
        &self,
        name: &str,
        amount: &str,
        currency: &str,
        status: &str,
    ) -> VariantId {
        let input: ProductInput = serde_json::from_value(json!({
            "externalId": name, "title": name, "status": status,
            "variants": [{"externalId": name, "sku": name, "price": {"amount": amount, "currency": currency}}],
        }))
        .unwrap();
        let upsert = product::Upsert::new(input, None).unwrap();
        let mut tx = self.tx().await;
        let upserted = product::upsert(&mut tx, &self.actor, &upsert, self.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        upserted.product.variants[0].id
    }

    pub(crate) async fn stock(&self, variant: VariantId, location: LocationId, on_hand: i32) {
        let input: InventorySetInput = serde_json::from_value(
            json!({"entries": [{"variantId": variant, "locationId": location, "onHand": on_hand}]}),
        )
        .unwrap();
        self.run(&Set::new(input).unwrap()).await.unwrap();
    }

    /// A variant of which so many pieces lie at the first location.
    pub(crate) async fn stocked(&self, name: &str, on_hand: i32) -> VariantId {
        let variant = self.variant(name, "10.00", "EUR").await;
        self.stock(variant, self.locations[0], on_hand).await;
        variant
    }

    pub(crate) fn key(&self) -> Key {
        let number = self.keys.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        format!("key-{number}").parse().unwrap()
    }

    /// Runs an operation under a new key.
    pub(crate) async fn run<O: Operation<Error = Error>>(
        &self,
        operation: &O,
    ) -> Result<O::Output, Error> {
        self.run_as(&self.actor, operation).await
    }

    pub(crate) async fn run_as<O: Operation<Error = Error>>(
        &self,
        actor: &Actor,
        operation: &O,
    ) -> Result<O::Output, Error> {
        match self.idempotency.once(actor, &self.key(), operation).await {
            Ok(Answer { value, .. }) => Ok(value),
            Err(Failed { error, .. }) => Err(error),
        }
    }

    pub(crate) fn order(&self, input: Value) -> Place {
        let input: OrderInput = serde_json::from_value(input).unwrap();
        Place::new(input, Arc::clone(&self.keyring)).unwrap()
    }

    pub(crate) async fn place(&self, input: Value) -> Result<Order, Error> {
        self.run(&self.order(input)).await
    }

    pub(crate) async fn place_line(
        &self,
        variant: VariantId,
        quantity: i32,
    ) -> Result<Order, Error> {
        self.place(json!({"lines": [{"variantId": variant, "quantity": quantity}]}))
            .await
    }

    pub(crate) async fn level(&self, variant: VariantId, location: LocationId) -> InventoryLevel {
        let mut tx = self.tx().await;
        let levels = crate::inventory::levels_of(&mut tx, &self.actor, &[variant])
            .await
            .unwrap();
        levels[&variant]
            .iter()
            .find(|level| level.location_id == location)
            .unwrap()
            .clone()
    }

    /// Rows of any statement, as the API role sees them in the merchant.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<sqlx::postgres::PgRow> {
        let mut tx = self.tx().await;
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut *tx)
            .await
            .unwrap()
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.rows(&format!("select count(*) from {table}")).await[0].get(0)
    }

    /// The ledger must sum to the levels, its versions must run without a gap, and reserved must be what open orders hold.
    pub(crate) async fn check_books(&self) {
        let rows = self
            .rows(
                "select l.variant_id, l.on_hand, l.reserved, coalesce(sum(m.on_hand_delta), 0)::bigint,
                    coalesce(sum(m.reserved_delta), 0)::bigint, l.version, coalesce(max(m.level_version), l.version), count(m.id),
                    count(distinct m.level_version), coalesce(min(m.level_version), 1)
                from inventory_levels l
                left join inventory_movements m on m.variant_id = l.variant_id and m.location_id = l.location_id
                group by l.variant_id, l.location_id, l.on_hand, l.reserved, l.version",
            )
            .await;
        for row in rows {
            let number = |place: usize| row.get::<i64, _>(place);
            assert_eq!(
                (number(1), number(2)),
                (number(3), number(4)),
                "the ledger sums to the level"
            );
            assert_eq!(number(5), number(6), "the last movement made the version");
            assert_eq!(number(7), number(8), "no version twice");
            if number(7) > 0 {
                assert_eq!(number(6) - number(9) + 1, number(7), "no version left out");
            }
            assert!(
                number(2) >= 0 && number(1) >= number(2),
                "nothing is oversold"
            );
        }
        let wrong = self
            .rows(
                "select l.variant_id
                from inventory_levels l
                where l.reserved <> (
                    select coalesce(sum(n.quantity - n.fulfilled_quantity), 0)
                    from order_lines n
                    join orders o on o.id = n.order_id
                    where o.status <> 'cancelled' and n.variant_id = l.variant_id and n.location_id = l.location_id
                )",
            )
            .await;
        assert!(wrong.is_empty(), "reserved is what open orders hold");
    }

    /// How many events of each type wait in the outbox.
    pub(crate) async fn event_counts(&self) -> BTreeMap<String, i64> {
        let rows = self
            .rows("select type, count(*) from outbox group by type")
            .await;
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Versions and data of the events of a resource, oldest first.
    pub(crate) async fn events_of(
        &self,
        resource: impl std::fmt::Display,
    ) -> Vec<(String, i64, Value)> {
        let sql = format!(
            "select type, resource_version, data from outbox where resource_id = '{resource}' order by resource_version, type"
        );
        self.rows(&sql)
            .await
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    }
}

/// What became of many calls: how many succeeded, and how many failed with each slug.
pub(crate) fn tally<T>(
    results: impl IntoIterator<Item = Result<T, Error>>,
) -> HashMap<&'static str, usize> {
    let mut tally = HashMap::new();
    for result in results {
        let slug = match result {
            Ok(_) => "ok",
            Err(error) => kernel::problem::Problem::from(error).kind.slug,
        };
        *tally.entry(slug).or_insert(0) += 1;
    }
    tally
}
