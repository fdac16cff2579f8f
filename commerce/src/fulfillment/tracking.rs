//! Changing how a fulfilment can be followed.

use kernel::{
    event::{self, NewEvent, ResourceRef},
    idempotency::{self, Call},
    scope::Scope,
    validation,
    version::Version,
};
use serde::Serialize;
use sqlx::PgConnection;

use super::{Fulfillment, FulfillmentId, TrackingInput, store};
use crate::{Error, order::to_json};

/// `fulfillment.update`: changes carrier, tracking number or tracking URL.
#[derive(Debug)]
pub struct UpdateTracking {
    request: TrackingRequest,
}

/// What a change of tracking asks for, as its idempotency key remembers it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackingRequest {
    fulfillment_id: FulfillmentId,
    expected_version: Option<Version>,
    #[serde(flatten)]
    input: TrackingInput,
}

impl UpdateTracking {
    /// Checks the input. `expected_version` is what `If-Match` says.
    pub fn new(
        fulfillment: FulfillmentId,
        expected_version: Option<Version>,
        input: TrackingInput,
    ) -> Result<Self, Error> {
        validation::check(&input).map_err(Error::Invalid)?;
        Ok(Self {
            request: TrackingRequest {
                fulfillment_id: fulfillment,
                expected_version,
                input,
            },
        })
    }
}

impl idempotency::Operation for UpdateTracking {
    const NAME: &'static str = "fulfillment.update";
    const SCOPE: Scope = Scope::FulfillmentsWrite;
    type Input = TrackingRequest;
    type Output = Fulfillment;
    type Error = Error;

    fn input(&self) -> &TrackingRequest {
        &self.request
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Fulfillment, Error> {
        let TrackingRequest {
            fulfillment_id,
            expected_version,
            input,
        } = &self.request;
        update_tracking(tx, call, *fulfillment_id, *expected_version, input).await
    }
}

/// Changes how a fulfilment can be followed; what is left out or already so changes nothing.
pub async fn update_tracking(
    tx: &mut PgConnection,
    call: Call<'_>,
    id: FulfillmentId,
    expected_version: Option<Version>,
    input: &TrackingInput,
) -> Result<Fulfillment, Error> {
    let Call { actor, now } = call;
    actor.access.require(Scope::FulfillmentsWrite)?;
    let found = store::lock(tx, actor.merchant, id).await?;
    let mut fulfillment = found
        .filter(|fulfillment| actor.access.sees_location(fulfillment.location_id))
        .ok_or_else(|| Error::not_found("fulfillment", id))?;
    if let Some(expected) = expected_version.filter(|&expected| expected != fulfillment.version) {
        return Err(Error::VersionMismatch {
            expected: expected.number(),
            current: fulfillment.version.number(),
        });
    }
    let before = fulfillment.clone();
    for (field, given) in [
        (&mut fulfillment.carrier, &input.carrier),
        (&mut fulfillment.tracking_number, &input.tracking_number),
        (&mut fulfillment.tracking_url, &input.tracking_url),
    ] {
        if given.is_some() {
            field.clone_from(given);
        }
    }
    if fulfillment == before {
        return Ok(fulfillment);
    }
    fulfillment.version = fulfillment.version.next();
    fulfillment.updated_at = fulfillment.updated_at.max(now);
    store::update(tx, actor.merchant, &fulfillment).await?;
    let event = event("fulfillment.tracking_updated", &fulfillment)?;
    event::append(tx, actor.merchant, actor.request, now, &[event]).await?;
    Ok(fulfillment)
}

pub(super) fn event(kind: &'static str, fulfillment: &Fulfillment) -> Result<NewEvent, Error> {
    Ok(NewEvent {
        kind,
        resource: ResourceRef {
            kind: "fulfillment",
            id: fulfillment.id.to_string(),
            version: fulfillment.version.number(),
        },
        scope: Scope::FulfillmentsRead,
        locations: vec![fulfillment.location_id],
        data: to_json(fulfillment)?,
        personal: None,
    })
}
