//! Test events: `/v1/webhook-endpoints/{endpointId}/test-events`.

use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::endpoint::{
    Endpoint, EndpointId,
    test_event::{SendTest, SendTestInput, SentTest, TestEventInput},
};

use super::{Services, parameters::KeyHeader};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, PathId, answer::Done, fault::FaultOfOperation,
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new().routes(routes!(send_test_event))
}

/// Send a test event of a type
///
/// An event as this document's section `webhooks` shows it, with `test: true` and data that nobody has: to this endpoint alone, whatever types it asks for,
/// numbered, signed and retried like any other. The merchant's feed does not show it.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{endpointId}/test-events", operation_id = "sendTestEvent", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), KeyHeader),
    request_body = TestEventInput,
    responses((status = 200, description = "The event is on its way.", body = SentTest)),
    extensions(("x-problem-types" = json!(["endpoint_disabled"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn send_test_event(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    key: IdempotencyKey,
    Body(TestEventInput { kind }): Body<TestEventInput>,
) -> Result<Done<SentTest>, FaultOfOperation> {
    let send = SendTest {
        input: SendTestInput { id, kind },
        example: crate::openapi::example_event,
    };
    Ok(services.once(&actor, &key, &send).await?.into())
}
