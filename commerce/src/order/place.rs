//! Placing orders, in groups.
//!
//! A group is decided in the order of arrival, in memory, under one lock of the rows of stock that it touches, and written by arrays: a constant number of
//! statements whatever its size. So concurrent orders of the same goods share a transaction instead of waiting for one another's commits.
//! Whatever is refused is decided before anything is written.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kernel::{
    event::{self, NewEvent},
    id::{LocationId, MerchantId, RequestId},
    idempotency::{self, Call},
    keyring::Keyring,
    money::Money,
    problem::FieldError,
    scope::Scope,
    validation,
    version::Version,
};
use sqlx::PgConnection;

use super::{
    Order, OrderId, OrderInput, OrderLine, OrderTransition, allocation,
    personal::{self, Sealed},
    store,
    transition::{self, Command},
};
use crate::{
    Error, Refusal,
    inventory::{
        MovementReason,
        ledger::{Ledger, Movement},
    },
    location,
    product::{self, SaleVariant, VariantId},
};

/// `order.place`: places an order.
#[derive(Debug)]
pub struct Place {
    input: OrderInput,
    keyring: Arc<Keyring>,
}

impl Place {
    /// Checks the input.
    pub fn new(input: OrderInput, keyring: Arc<Keyring>) -> Result<Self, Error> {
        validation::check(&input).map_err(Error::Invalid)?;
        Ok(Self { input, keyring })
    }
}

impl idempotency::Operation for Place {
    const NAME: &'static str = "order.place";
    const SCOPE: Scope = Scope::OrdersWrite;
    type Input = OrderInput;
    type Output = Order;
    type Error = Error;

    fn input(&self) -> &OrderInput {
        &self.input
    }

    fn weight(&self) -> usize {
        self.input.lines.len()
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Order, Error> {
        place(tx, &self.keyring, &self.input, call).await
    }

    async fn run_many<'m>(
        tx: &'m mut PgConnection,
        members: &'m [(&'m Self, Call<'m>)],
    ) -> Result<Vec<Result<Order, Error>>, Error> {
        let Some((first, _)) = members.first() else {
            return Ok(Vec::new());
        };
        let inputs: Vec<_> = members
            .iter()
            .map(|(operation, call)| (&operation.input, *call))
            .collect();
        place_many(tx, &first.keyring, &inputs).await
    }
}

/// Places one order: a group of one.
pub async fn place(
    tx: &mut PgConnection,
    keyring: &Keyring,
    input: &OrderInput,
    call: Call<'_>,
) -> Result<Order, Error> {
    let mut results = place_many(tx, keyring, &[(input, call)]).await?;
    results
        .pop()
        .unwrap_or_else(|| Err(Error::not_found("order", "in an empty group")))
}

/// Places several orders of one merchant, in the order of arrival. Each is placed or refused as if it had come alone after those before it; an error of
/// the whole means that nothing may be committed.
pub async fn place_many(
    tx: &mut PgConnection,
    keyring: &Keyring,
    members: &[(&OrderInput, Call<'_>)],
) -> Result<Vec<Result<Order, Error>>, Error> {
    let Some((_, first)) = members.first() else {
        return Ok(Vec::new());
    };
    let merchant = first.actor.merchant;
    let now = members
        .iter()
        .map(|(_, call)| call.now)
        .max()
        .unwrap_or(first.now);

    let mut external_ids =
        store::lock_external_ids(tx, merchant, &wanted_external_ids(members)).await?;
    let priced = price(tx, merchant, members).await?;
    let mut ledger = lock_stock(tx, merchant, &priced).await?;

    let mut results: Vec<Option<Result<Order, Error>>> = Vec::with_capacity(members.len());
    let mut accepted: Vec<(&OrderInput, Call<'_>, Order)> = Vec::new();
    for ((input, call), priced) in members.iter().zip(priced) {
        match priced.and_then(|priced| decide(&mut ledger, &mut external_ids, input, *call, priced))
        {
            Ok(order) => {
                accepted.push((input, *call, order));
                results.push(None);
            }
            Err(error) => results.push(Some(Err(error))),
        }
    }
    if !accepted.is_empty() {
        let inputs: Vec<&OrderInput> = accepted.iter().map(|(input, _, _)| *input).collect();
        let sealed = personal::seal(tx, keyring, merchant, &inputs, now).await?;
        write(tx, merchant, &mut accepted, sealed, ledger, now).await?;
    }
    let mut orders = accepted.into_iter().map(|(_, _, order)| order);
    Ok(results
        .into_iter()
        .map(|result| {
            result.unwrap_or_else(|| {
                orders
                    .next()
                    .ok_or_else(|| Error::not_found("order", "in this group"))
            })
        })
        .collect())
}

fn wanted_external_ids<'m>(members: &'m [(&OrderInput, Call<'_>)]) -> Vec<&'m str> {
    members
        .iter()
        .filter_map(|(input, _)| input.external_id.as_deref())
        .collect()
}

/// An order whose lines have their prices, and that may be taken from these locations.
struct Priced<'i> {
    lines: Vec<PricedLine>,
    total: Money,
    allowed: Option<std::borrow::Cow<'i, [LocationId]>>,
}

struct PricedLine {
    variant: SaleVariant,
    quantity: i32,
    total: Money,
}

/// What the catalog and the merchant's locations have to say about each order.
async fn price<'m>(
    tx: &mut PgConnection,
    merchant: MerchantId,
    members: &[(&'m OrderInput, Call<'m>)],
) -> Result<Vec<Result<Priced<'m>, Error>>, Error> {
    let mut variant_ids: Vec<VariantId> = members
        .iter()
        .flat_map(|(input, _)| input.lines.iter().map(|line| line.variant_id))
        .collect();
    variant_ids.sort_unstable();
    variant_ids.dedup();
    let variants = product::find_for_sale(tx, merchant, &variant_ids).await?;
    let named: Vec<LocationId> = members
        .iter()
        .filter_map(|(input, _)| input.location_id)
        .collect();
    let locations = match members.first() {
        Some((_, call)) => location::known(tx, call.actor, &named).await?,
        None => HashSet::new(),
    };
    Ok(members
        .iter()
        .map(|(input, call)| {
            call.actor.access.require(Scope::OrdersWrite)?;
            price_one(input, call, &variants, &locations).map_err(Error::Invalid)
        })
        .collect())
}

fn price_one<'m>(
    input: &'m OrderInput,
    call: &Call<'m>,
    variants: &HashMap<VariantId, SaleVariant>,
    locations: &HashSet<LocationId>,
) -> Result<Priced<'m>, Vec<FieldError>> {
    let mut errors = Vec::new();
    let access = &call.actor.access;
    let allowed = match input.location_id {
        Some(location) => {
            if !locations.contains(&location) || !access.sees_location(location) {
                errors.push(FieldError::at(
                    "/locationId",
                    "not_found",
                    format!("there is no location {location}"),
                ));
            }
            Some(std::borrow::Cow::Owned(vec![location]))
        }
        None => access.locations.as_deref().map(std::borrow::Cow::Borrowed),
    };
    let mut lines: Vec<PricedLine> = Vec::with_capacity(input.lines.len());
    let mut total: Option<Money> = None;
    for (index, line) in input.lines.iter().enumerate() {
        let pointer = format!("/lines/{index}/variantId");
        let Some(variant) = variants.get(&line.variant_id) else {
            errors.push(FieldError::at(
                pointer,
                "not_found",
                format!("there is no variant {}", line.variant_id),
            ));
            continue;
        };
        if !variant.is_for_sale() {
            errors.push(FieldError::at(
                pointer,
                "not_for_sale",
                format!("the variant {} is not for sale", line.variant_id),
            ));
            continue;
        }
        let sum = total.unwrap_or(Money::zero(variant.price.currency()));
        if sum.currency() != variant.price.currency() {
            let detail = format!(
                "costs {}, while the lines before it cost {}",
                variant.price.currency(),
                sum.currency()
            );
            errors.push(FieldError::at(pointer, "mixed_currencies", detail));
            continue;
        }
        let line_total = variant.price.checked_mul(i64::from(line.quantity));
        match line_total.and_then(|line_total| Ok((line_total, sum.checked_add(line_total)?))) {
            Ok((line_total, sum)) => {
                total = Some(sum);
                lines.push(PricedLine {
                    variant: variant.clone(),
                    quantity: line.quantity,
                    total: line_total,
                });
            }
            Err(error) => errors.push(FieldError::at(
                format!("/lines/{index}/quantity"),
                "out_of_range",
                error.to_string(),
            )),
        }
    }
    match total {
        Some(total) if errors.is_empty() => Ok(Priced {
            lines,
            total,
            allowed,
        }),
        _ => Err(errors),
    }
}

/// One lock of every row of stock that the group may touch, sorted.
async fn lock_stock(
    tx: &mut PgConnection,
    merchant: MerchantId,
    priced: &[Result<Priced<'_>, Error>],
) -> Result<Ledger, Error> {
    let mut variants: Vec<VariantId> = Vec::new();
    let mut locations: Option<Vec<LocationId>> = Some(Vec::new());
    for order in priced.iter().flatten() {
        variants.extend(order.lines.iter().map(|line| line.variant.id));
        locations = locations
            .zip(order.allowed.as_deref())
            .map(|(mut locations, allowed)| {
                locations.extend_from_slice(allowed);
                locations
            });
    }
    variants.sort_unstable();
    variants.dedup();
    Ledger::lock_variants(tx, merchant, &variants, locations.as_deref()).await
}

/// Places an order in memory: reserves its stock in the ledger, or refuses it and leaves the ledger as it was.
fn decide(
    ledger: &mut Ledger,
    external_ids: &mut HashSet<String>,
    input: &OrderInput,
    call: Call<'_>,
    priced: Priced<'_>,
) -> Result<Order, Error> {
    let status = transition::next(None, Command::Place)?;
    if let Some(external_id) = input
        .external_id
        .as_ref()
        .filter(|external_id| external_ids.contains(*external_id))
    {
        let external_id = external_id.clone();
        return Err(Refusal::ExternalIdTaken {
            noun: "order".to_owned(),
            external_id,
        }
        .into());
    }
    let wanted = priced
        .lines
        .iter()
        .map(|line| (line.variant.id, line.quantity));
    let places = allocation::allocate(ledger, wanted, priced.allowed.as_deref())
        .map_err(|lines| Refusal::InsufficientStock { lines })?;
    external_ids.extend(input.external_id.clone());
    let id = OrderId::new(call.now);
    let mut lines = Vec::with_capacity(priced.lines.len());
    for (number, (line, location)) in (1..).zip(priced.lines.into_iter().zip(places)) {
        let movement = Movement {
            variant: line.variant.id,
            location,
            reason: MovementReason::Reserved,
            on_hand_delta: 0,
            reserved_delta: line.quantity,
            order: Some(id),
            app: call.actor.app,
            request: call.actor.request,
            note: None,
        };
        ledger.record(&movement, call.now);
        lines.push(OrderLine {
            line: number,
            variant_id: line.variant.id,
            sku: line.variant.sku,
            title: line.variant.title,
            quantity: line.quantity,
            fulfilled_quantity: 0,
            unit_price: line.variant.price,
            total: line.total,
            location_id: location,
        });
    }
    Ok(Order {
        id,
        external_id: input.external_id.clone(),
        status,
        currency: priced.total.currency().code().to_owned(),
        total: priced.total,
        lines,
        customer_id: None,
        customer: None,
        shipping_address: None,
        version: Version::FIRST,
        placed_at: call.now,
        updated_at: call.now,
    })
}

/// Writes a group that has been decided.
async fn write(
    tx: &mut PgConnection,
    merchant: MerchantId,
    accepted: &mut [(&OrderInput, Call<'_>, Order)],
    sealed: Vec<Option<Sealed>>,
    ledger: Ledger,
    now: kernel::clock::Timestamp,
) -> Result<(), Error> {
    let mut bodies: Vec<Option<Vec<u8>>> = Vec::with_capacity(accepted.len());
    for ((_, _, order), sealed) in accepted.iter_mut().zip(sealed) {
        order.customer_id = sealed.as_ref().map(|sealed| sealed.customer);
        bodies.push(sealed.map(|sealed| sealed.bytes));
    }
    let orders: Vec<&Order> = accepted.iter().map(|(_, _, order)| order).collect();
    let transitions: Vec<(OrderId, OrderTransition)> = accepted
        .iter()
        .map(|(_, call, order)| {
            (
                order.id,
                OrderTransition::made(order, None, Command::Place, None, *call),
            )
        })
        .collect();
    store::insert(tx, merchant, &orders, &bodies).await?;
    store::insert_lines(tx, merchant, &orders).await?;
    store::insert_transitions(tx, merchant, &transitions).await?;
    let mut told: Vec<(RequestId, NewEvent)> = Vec::with_capacity(accepted.len());
    for ((_, call, order), body) in accepted.iter().zip(bodies) {
        told.push((
            call.actor.request,
            super::event("order.placed", order, body)?,
        ));
    }
    told.extend(ledger.write(tx, merchant).await?);
    let (requests, events): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    event::append_for(tx, merchant, &requests, now, &events).await?;
    Ok(())
}
