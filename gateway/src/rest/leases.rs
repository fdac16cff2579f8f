//! Leases of pull consumers: `/v1/webhook-endpoints/{endpointId}/lease`, `/acknowledge` and `/release`.

use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::{
    endpoint::{Endpoint, EndpointId},
    pull::{self, AcknowledgeInput, Lease, LeaseInput, LeaseSettled, Of, ReleaseInput},
};

use super::{Services, parameters::KeyHeader};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, Mutated, PathId,
    answer::Done,
    authenticate::Pass,
    fault::{Fault, FaultOfOperation},
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(lease_webhook_endpoint))
        .routes(routes!(acknowledge_leased_events))
        .routes(routes!(release_leased_events))
}

/// Lease an endpoint's events
///
/// For an endpoint without a URL whose settings have `pull: lease`. What is handed out is held for `leaseSeconds`; what is not acknowledged by then is due
/// again, and after the endpoint's schedule of attempts a dead letter. With `waitSeconds` the answer waits until something is due.
///
/// A retry under the same key is given the same lease, with what it still holds, for as long as it lasts; later it is told `lease_expired`. That
/// nothing was due (`leaseId: null`) is not kept: the same request may lease something when it is made again.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{endpointId}/lease", operation_id = "leaseWebhookEndpoint", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), KeyHeader),
    request_body = LeaseInput,
    responses((status = 200, description = "The lease and its events; `leaseId: null` if nothing is due.", body = Lease)),
    extensions(("x-problem-types" = json!(["endpoint_disabled", "endpoint_not_leased", "lease_expired", "too_many_streams"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn lease_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    pass: Pass,
    PathId(id): PathId<Endpoint>,
    key: IdempotencyKey,
    Body(input): Body<LeaseInput>,
) -> Result<Done<Lease>, FaultOfOperation> {
    let leased = services
        .leasing
        .lease(&actor, &pass, &key.0, id, &input)
        .await;
    Ok(Mutated::ok(leased.map_err(Fault::of_operation)?).into())
}

/// Acknowledge leased events
///
/// They were dealt with, and will not come again. Where the lease is over, nothing is changed: the events are leased again by whoever asks.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{endpointId}/acknowledge", operation_id = "acknowledgeLeasedEvents", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), KeyHeader),
    request_body(content = AcknowledgeInput, example = json!({"leaseId": "lea_01jd3x5k8vfm7b2c9q0r4t6w8y"})),
    responses((status = 200, description = "What it counted for.", body = LeaseSettled)),
    extensions(("x-problem-types" = json!(["lease_expired"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn acknowledge_leased_events(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    key: IdempotencyKey,
    Body(input): Body<AcknowledgeInput>,
) -> Result<Done<LeaseSettled>, FaultOfOperation> {
    let acknowledge = pull::Acknowledge {
        input: Of { id, input },
    };
    services.settle_lease(&actor, &key, &acknowledge).await
}

/// Give leased events back
///
/// They were not dealt with, and are due again at once or after `delaySeconds`. The attempt counts.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{endpointId}/release", operation_id = "releaseLeasedEvents", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), KeyHeader),
    request_body(content = ReleaseInput, example = json!({"leaseId": "lea_01jd3x5k8vfm7b2c9q0r4t6w8y", "delaySeconds": 30})),
    responses((status = 200, description = "What it counted for.", body = LeaseSettled)),
    extensions(("x-problem-types" = json!(["lease_expired"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn release_leased_events(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    key: IdempotencyKey,
    Body(input): Body<ReleaseInput>,
) -> Result<Done<LeaseSettled>, FaultOfOperation> {
    let release = pull::Release {
        input: Of { id, input },
    };
    services.settle_lease(&actor, &key, &release).await
}

impl Services {
    /// Settles a part of a lease, and wakes those who wait for what that made due.
    async fn settle_lease<O>(
        &self,
        actor: &kernel::actor::Actor,
        key: &IdempotencyKey,
        operation: &O,
    ) -> Result<Done<LeaseSettled>, FaultOfOperation>
    where
        O: kernel::idempotency::Operation<Output = LeaseSettled, Error = webhooks::Error>,
    {
        let settled = self.once(actor, key, operation).await?;
        self.leasing.hub.wake(actor.merchant);
        Ok(settled.into())
    }
}
