//! Upserts: making products what the input says, in groups.
//!
//! A group is decided in memory and written by arrays, so that it takes the same few statements whatever its size. Its steps are ordered so
//! that groups which touch the same products wait for each other and never in a circle:
//!
//! 1. Read, without locks, which products are known and the hash of their content. What is known and equal is unchanged, and done with, unless
//!    the products themselves are wanted: those are shown as they are under the lock.
//! 2. Insert what is not known, sorted by external id. What somebody else has inserted meanwhile joins the known.
//! 3. Lock the known that differ, sorted by external id, and decide them by what the locked rows say.
//! 4. Write products, variants and events.
//!
//! Several inputs for one product are decided one after the other: each gets its own answer, version and event, and the last wins.

use std::collections::{BTreeMap, HashMap, HashSet};

use kernel::{
    actor::Actor,
    clock::Timestamp,
    event::{self, NewEvent, ResourceRef},
    id::{MerchantId, RequestId},
    idempotency::{self, Call, Operation},
    scope::Scope,
    validation,
    version::Version,
};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{
    Product, ProductId, ProductInput, ProductStatus, UpsertOutcome, Upserted, Variant, VariantId,
    store::{self, Aggregate},
};
use crate::Error;

/// A valid upsert; `product.upsert` as an operation.
#[derive(Debug, Clone)]
pub struct Upsert {
    input: UpsertInput,
    content_sha256: [u8; 32],
}

/// What an upsert asks for.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpsertInput {
    /// The product, in its normal form.
    pub product: ProductInput,
    /// The version that the client expects (`If-Match`).
    pub expected_version: Option<Version>,
}

impl Upsert {
    /// Checks the input. With an expected version, a product at another version (none is 0) is left as it is.
    pub fn new(product: ProductInput, expected_version: Option<Version>) -> Result<Self, Error> {
        validation::check(&product).map_err(Error::Invalid)?;
        Self::of_valid(product, expected_version)
    }

    /// For input that has been checked already.
    pub(crate) fn of_valid(
        product: ProductInput,
        expected_version: Option<Version>,
    ) -> Result<Self, Error> {
        let product = product.normalized();
        let content_sha256 = content_sha256(&product)?;
        Ok(Self {
            input: UpsertInput {
                product,
                expected_version,
            },
            content_sha256,
        })
    }

    /// The merchant's id of the product.
    pub fn external_id(&self) -> &str {
        &self.input.product.external_id
    }
}

/// The hash of an input in its normal form.
pub(super) fn content_sha256(normal: &ProductInput) -> Result<[u8; 32], Error> {
    let json = serde_json::to_vec(normal).map_err(idempotency::Error::Input)?;
    Ok(Sha256::digest(json).into())
}

impl Operation for Upsert {
    const NAME: &'static str = "product.upsert";
    const SCOPE: Scope = Scope::CatalogWrite;
    type Input = UpsertInput;
    type Output = Upserted;
    type Error = Error;

    fn input(&self) -> &Self::Input {
        &self.input
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Upserted, Error> {
        upsert(tx, call.actor, self, call.now).await
    }

    async fn run_many(
        tx: &mut PgConnection,
        members: &[(&Self, Call<'_>)],
    ) -> Result<Vec<Result<Upserted, Error>>, Error> {
        let Some(merchant) = members.first().map(|(_, call)| call.actor.merchant) else {
            return Ok(Vec::new());
        };
        for (_, call) in members {
            call.actor.access.require(Scope::CatalogWrite)?;
        }
        let items: Vec<_> = members
            .iter()
            .map(|&(upsert, call)| Item {
                upsert,
                request: call.actor.request,
                now: call.now,
            })
            .collect();
        upsert_group(tx, merchant, &items).await
    }
}

/// Makes a product what the input says.
pub async fn upsert(
    tx: &mut PgConnection,
    actor: &Actor,
    upsert: &Upsert,
    now: Timestamp,
) -> Result<Upserted, Error> {
    actor.access.require(Scope::CatalogWrite)?;
    let item = Item {
        upsert,
        request: actor.request,
        now,
    };
    let mut upserted = upsert_group(tx, actor.merchant, &[item]).await?;
    upserted
        .pop()
        .unwrap_or_else(|| Err(Error::not_found("product", upsert.external_id())))
}

/// Decides a group and shows each member the product as its own upsert left it.
async fn upsert_group(
    tx: &mut PgConnection,
    merchant: MerchantId,
    items: &[Item<'_>],
) -> Result<Vec<Result<Upserted, Error>>, Error> {
    let decided = decide(tx, merchant, items, Show::Products).await?;
    let finish = |decided: Decided| {
        let product = decided
            .product
            .ok_or_else(|| Error::not_found("product", decided.id))?;
        Ok(Upserted {
            outcome: decided.outcome,
            product,
        })
    };
    Ok(decided
        .into_iter()
        .map(|decided| decided.and_then(finish))
        .collect())
}

/// Makes many products what the inputs say; the results are in the inputs' order. Some six statements, however many. Refuses an input alone for
/// its expected version; any other error is the whole group's. Its events are a flood's: they let all others pass.
pub async fn upsert_many(
    tx: &mut PgConnection,
    actor: &Actor,
    upserts: &[Upsert],
    now: Timestamp,
) -> Result<Vec<Result<Decided, Error>>, Error> {
    actor.access.require(Scope::CatalogWrite)?;
    let items: Vec<_> = upserts
        .iter()
        .map(|upsert| Item {
            upsert,
            request: actor.request,
            now,
        })
        .collect();
    decide(tx, actor.merchant, &items, Show::Ids).await
}

/// What an upsert of a group came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// What it came to.
    pub outcome: UpsertOutcome,
    /// The product.
    pub id: ProductId,
    /// The product as this upsert left it, if that was asked for.
    product: Option<Product>,
}

/// One member of a group.
#[derive(Clone, Copy)]
struct Item<'i> {
    upsert: &'i Upsert,
    request: RequestId,
    now: Timestamp,
}

/// Whether the products as they were changed are wanted, or only their ids.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Products,
    Ids,
}

/// The items of one product with their places in the group, in the order of arrival.
type Group<'i> = Vec<(usize, Item<'i>)>;

async fn decide(
    tx: &mut PgConnection,
    merchant: MerchantId,
    items: &[Item<'_>],
    show: Show,
) -> Result<Vec<Result<Decided, Error>>, Error> {
    // Sorted by external id: the order in which rows are inserted and locked.
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for (place, item) in items.iter().enumerate() {
        groups
            .entry(item.upsert.external_id())
            .or_default()
            .push((place, *item));
    }
    let external_ids: Vec<&str> = groups.keys().copied().collect();
    let known = store::known(tx, merchant, &external_ids).await?;
    let mut work = Work::new(items.len());
    let mut differing = BTreeMap::new();
    let mut inserting = Vec::new();
    for (external_id, group) in groups {
        match known.get(external_id) {
            Some(known)
                if show == Show::Ids && group.iter().all(|(_, item)| known.equals(item.upsert)) =>
            {
                work.unchanged(known.id, &group);
            }
            Some(_) => drop(differing.insert(external_id, group)),
            None => {
                let folded = fold(None, &group, show)?;
                inserting.push((external_id, group, folded));
            }
        }
    }

    let new: Vec<_> = inserting
        .iter()
        .filter_map(|(_, _, folded)| folded.written.as_ref())
        .collect();
    let inserted = if new.is_empty() {
        Vec::new()
    } else {
        store::insert(tx, merchant, &new).await?
    };
    let inserted: HashSet<_> = inserted.into_iter().collect();
    for (external_id, group, folded) in inserting {
        let overtaken = folded
            .written
            .as_ref()
            .is_some_and(|written| !inserted.contains(&written.product.id));
        if overtaken {
            differing.insert(external_id, group);
        } else {
            work.take(folded);
        }
    }

    if !differing.is_empty() {
        let external_ids: Vec<&str> = differing.keys().copied().collect();
        let mut changed = Vec::new();
        for aggregate in store::lock(tx, merchant, &external_ids).await? {
            if let Some(group) = differing.remove(aggregate.product.external_id.as_str()) {
                let folded = fold(Some(aggregate), &group, show)?;
                changed.push(folded);
            }
        }
        let written: Vec<_> = changed
            .iter()
            .filter_map(|folded| folded.written.as_ref())
            .collect();
        if !written.is_empty() {
            store::update(tx, merchant, &written).await?;
        }
        for folded in changed {
            work.take(folded);
        }
    }

    if !work.variants.is_empty() {
        store::upsert_variants(tx, merchant, &work.variants).await?;
    }
    for (request, (now, events)) in work.events {
        match show {
            Show::Products => event::append(tx, merchant, request, now, &events).await?,
            Show::Ids => event::append_bulk(tx, merchant, request, now, &events).await?,
        };
    }
    let missing = |place: usize| {
        let external_id = items
            .get(place)
            .map_or("", |item| item.upsert.external_id());
        Err(Error::not_found("product", external_id))
    };
    Ok(work
        .results
        .into_iter()
        .enumerate()
        .map(|(place, result)| result.unwrap_or_else(|| missing(place)))
        .collect())
}

/// What a group's products add up to.
struct Work {
    results: Vec<Option<Result<Decided, Error>>>,
    variants: Vec<Variant>,
    /// By request, as each statement appends the events of one.
    events: HashMap<RequestId, (Timestamp, Vec<NewEvent>)>,
}

impl Work {
    fn new(count: usize) -> Self {
        let results = std::iter::repeat_with(|| None).take(count).collect();
        Self {
            results,
            variants: Vec::new(),
            events: HashMap::new(),
        }
    }

    fn unchanged(&mut self, id: ProductId, group: &Group<'_>) {
        for &(place, _) in group {
            self.answer(
                place,
                Ok(Decided {
                    outcome: UpsertOutcome::Unchanged,
                    id,
                    product: None,
                }),
            );
        }
    }

    fn answer(&mut self, place: usize, result: Result<Decided, Error>) {
        if let Some(slot) = self.results.get_mut(place) {
            *slot = Some(result);
        }
    }

    fn take(&mut self, folded: Folded) {
        for (place, result) in folded.results {
            self.answer(place, result);
        }
        for (request, now, event) in folded.events {
            self.events
                .entry(request)
                .or_insert_with(|| (now, Vec::new()))
                .1
                .push(event);
        }
        self.variants.extend(folded.variants);
    }
}

/// What the inputs for one product come to.
struct Folded {
    results: Vec<(usize, Result<Decided, Error>)>,
    events: Vec<(RequestId, Timestamp, NewEvent)>,
    /// The product to write; none if nothing changed.
    written: Option<Written>,
    /// The variants to write: those that are new or differ.
    variants: Vec<Variant>,
}

/// A product to write, and the hash of its content.
pub(super) struct Written {
    pub(super) product: Product,
    pub(super) content_sha256: [u8; 32],
}

/// Decides the inputs for one product, one after the other.
fn fold(stored: Option<Aggregate>, group: &Group<'_>, show: Show) -> Result<Folded, Error> {
    let before: HashMap<VariantId, Variant> = stored
        .iter()
        .flat_map(Aggregate::variants)
        .map(|variant| (variant.id, variant.clone()))
        .collect();
    let mut results = Vec::with_capacity(group.len());
    let mut events = Vec::new();
    let mut written_sha256 = None;
    let mut state = stored;
    for &(place, item) in group {
        let current = state
            .as_ref()
            .map_or(0, |aggregate| aggregate.product.version.number());
        let expected = item
            .upsert
            .input
            .expected_version
            .map(Version::number)
            .filter(|&expected| expected != current);
        if let Some(expected) = expected {
            results.push((place, Err(Error::VersionMismatch { expected, current })));
            continue;
        }
        let input = &item.upsert.input.product;
        let (outcome, aggregate) = match state.take() {
            Some(aggregate) if aggregate.product.to_input() == *input => {
                (UpsertOutcome::Unchanged, aggregate)
            }
            Some(aggregate) => {
                let changed = aggregate.changed(input, item.now);
                events.extend(
                    changed
                        .events()?
                        .into_iter()
                        .map(|event| (item.request, item.now, event)),
                );
                written_sha256 = Some(item.upsert.content_sha256);
                (UpsertOutcome::Updated, changed.after)
            }
            None => {
                let product = create(input, item.now);
                events.push((
                    item.request,
                    item.now,
                    product_event("product.created", &product)?,
                ));
                written_sha256 = Some(item.upsert.content_sha256);
                (
                    UpsertOutcome::Created,
                    Aggregate {
                        product,
                        archived: Vec::new(),
                    },
                )
            }
        };
        let product = (show == Show::Products).then(|| aggregate.product.clone());
        results.push((
            place,
            Ok(Decided {
                outcome,
                id: aggregate.product.id,
                product,
            }),
        ));
        state = Some(aggregate);
    }
    let (written, variants) = match (state, written_sha256) {
        (Some(aggregate), Some(content_sha256)) => {
            let variants = aggregate
                .variants()
                .filter(|variant| before.get(&variant.id) != Some(variant))
                .cloned()
                .collect();
            (
                Some(Written {
                    product: aggregate.product,
                    content_sha256,
                }),
                variants,
            )
        }
        _ => (None, Vec::new()),
    };
    Ok(Folded {
        results,
        events,
        written,
        variants,
    })
}

fn create(input: &ProductInput, now: Timestamp) -> Product {
    let nothing = Product {
        id: ProductId::new(now),
        external_id: input.external_id.clone(),
        title: String::new(),
        description: None,
        brand: None,
        category: None,
        status: input.status,
        tags: Vec::new(),
        options: Vec::new(),
        attributes: Vec::new(),
        media: Vec::new(),
        variants: Vec::new(),
        version: Version::new(0),
        created_at: now,
        updated_at: now,
    };
    Aggregate {
        product: nothing,
        archived: Vec::new(),
    }
    .changed(input, now)
    .after
    .product
}

/// A change that an input made to a product.
struct Changed {
    after: Aggregate,
    newly_archived: bool,
    repriced: Vec<VariantId>,
}

impl Aggregate {
    /// All variants, archived ones last.
    fn variants(&self) -> impl Iterator<Item = &Variant> {
        self.product.variants.iter().chain(&self.archived)
    }

    /// The next version, as a normal input wants it.
    fn changed(self, input: &ProductInput, now: Timestamp) -> Changed {
        let Self {
            product: before,
            archived,
        } = self;
        let listed = before.variants.into_iter().chain(archived);
        let mut known: BTreeMap<String, Variant> = listed
            .map(|variant| (variant.external_id.clone(), variant))
            .collect();
        let mut repriced = Vec::new();
        let mut variants = Vec::with_capacity(input.variants.len());
        for (position, wanted) in (1..).zip(&input.variants) {
            let external_id = wanted
                .external_id
                .clone()
                .unwrap_or_else(|| input.external_id.clone());
            let known = known.remove(&external_id);
            if let Some(known) = &known
                && (known.price, known.compare_at_price) != (wanted.price, wanted.compare_at_price)
            {
                repriced.push(known.id);
            }
            variants.push(Variant {
                id: known.map_or_else(|| VariantId::new(now), |variant| variant.id),
                product_id: before.id,
                external_id,
                sku: wanted.sku.clone(),
                barcode: wanted.barcode.clone(),
                price: wanted.price,
                compare_at_price: wanted.compare_at_price,
                weight_grams: wanted.weight_grams,
                option_values: wanted.option_values.clone(),
                attributes: wanted.attributes.clone(),
                position,
                archived: false,
            });
        }
        let archived = known
            .into_values()
            .map(|variant| Variant {
                archived: true,
                ..variant
            })
            .collect();
        let newly_archived =
            input.status == ProductStatus::Archived && before.status != ProductStatus::Archived;
        let product = Product {
            id: before.id,
            external_id: before.external_id,
            title: input.title.clone(),
            description: input.description.clone(),
            brand: input.brand.clone(),
            category: input.category.clone(),
            status: input.status,
            tags: input.tags.clone(),
            options: input.options.clone(),
            attributes: input.attributes.clone(),
            media: input.media.clone(),
            variants,
            version: before.version.next(),
            created_at: before.created_at,
            // Another process may have written by a clock that is ahead.
            updated_at: before.updated_at.max(now),
        };
        Changed {
            after: Self { product, archived },
            newly_archived,
            repriced,
        }
    }
}

impl Changed {
    /// What the change announces: one event of the product, and one of each variant that has another price.
    fn events(&self) -> Result<Vec<NewEvent>, Error> {
        let product = &self.after.product;
        let kind = if self.newly_archived {
            "product.archived"
        } else {
            "product.updated"
        };
        let repriced = product
            .variants
            .iter()
            .filter(|variant| self.repriced.contains(&variant.id));
        std::iter::once(product_event(kind, product))
            .chain(repriced.map(|variant| {
                let resource = ResourceRef {
                    kind: "variant",
                    id: variant.id.to_string(),
                    version: product.version.number(),
                };
                new_event("variant.price_changed", resource, variant)
            }))
            .collect()
    }
}

/// An event about a product as it is now.
pub(super) fn product_event(kind: &'static str, product: &Product) -> Result<NewEvent, Error> {
    let resource = ResourceRef {
        kind: "product",
        id: product.id.to_string(),
        version: product.version.number(),
    };
    new_event(kind, resource, product)
}

fn new_event(
    kind: &'static str,
    resource: ResourceRef,
    data: &impl Serialize,
) -> Result<NewEvent, Error> {
    let data: Box<RawValue> =
        serde_json::value::to_raw_value(data).map_err(idempotency::Error::Input)?;
    Ok(NewEvent {
        kind,
        resource,
        scope: Scope::CatalogRead,
        locations: Vec::new(),
        data,
        personal: None,
    })
}

impl store::Known {
    fn equals(&self, upsert: &Upsert) -> bool {
        upsert.input.expected_version.is_none() && self.content_sha256 == upsert.content_sha256
    }
}
