//! Test events: what an endpoint would be sent of something that has not happened.
//!
//! A test event has the type and the form of a real one, so that a receiver's own code deals with it, and says of itself that it is none: `test: true`. It
//! goes to the endpoint that it was asked for and to no other, numbered, signed and retried as any event; the merchant's feed does not show it. Kept, it
//! is an event of the type [`TEST`](crate::event::TEST) about its endpoint, which no reader can take for a real one.

use kernel::{
    actor::Access,
    event::{self, NewEvent, ResourceRef},
    id::EventId,
    idempotency::{Call, Kept, Operation},
    problem::FieldError,
    scope::Scope,
    validation::{Faults, Validate},
};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use sqlx::PgConnection;

use super::{EndpointId, Status, Visible, store};
use crate::{
    error::{Error, Refusal},
    event::{ENDPOINT_RESOURCE, TEST, TestData},
};

/// What is to be tested.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = TestEventInput)]
pub struct TestEventInput {
    /// The type of the event: one that the section `webhooks` of this document lists with data.
    #[serde(rename = "type")]
    #[schema(example = "order.placed")]
    pub kind: String,
}

impl Validate for TestEventInput {
    fn validate(&self, _: &mut Faults) {}
}

/// Sends a test event to one endpoint.
#[derive(Debug)]
pub struct SendTest {
    /// To which, and of which type.
    pub input: SendTestInput,
    /// What an event of the type looks like; `None` if there are none of that type.
    pub example: fn(&str) -> Option<TestData>,
}

/// Which endpoint is to be sent what.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SendTestInput {
    /// The endpoint.
    pub id: EndpointId,
    /// The type of the event.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A test event that is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SentTestEvent)]
pub struct SentTest {
    /// The event's id.
    pub event_id: EventId,
    /// Its type.
    #[serde(rename = "type")]
    #[schema(example = "order.placed")]
    pub kind: String,
    /// The endpoint that is sent it.
    pub endpoint_id: EndpointId,
}

impl Kept for SentTest {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::WebhooksRead).is_ok()
    }
}

impl Operation for SendTest {
    const NAME: &'static str = "webhook_endpoint.send_test";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = SendTestInput;
    type Output = SentTest;
    type Error = Error;

    fn input(&self) -> &SendTestInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<SentTest, Error> {
        let SendTestInput { id, kind } = &self.input;
        let endpoint = store::find(&mut *tx, Visible::to(actor), *id)
            .await?
            .ok_or(Error::EndpointNotFound(*id))?;
        let example = (self.example)(kind).ok_or_else(|| {
            Error::InvalidFields(vec![FieldError::at(
                "/type",
                "unknown",
                "must be a type of event that the API's description lists with data, such as order.placed",
            )])
        })?;
        if endpoint.status == Status::Disabled {
            return Err(Refusal::EndpointDisabled.into());
        }
        let event = NewEvent {
            kind: TEST,
            resource: ResourceRef {
                kind: ENDPOINT_RESOURCE,
                id: id.to_string(),
                version: endpoint.version,
            },
            scope: Scope::WebhooksRead,
            locations: Vec::new(),
            data: to_raw_value(&example)?,
            personal: None,
        };
        let ids = event::append(tx, actor.merchant, actor.request, now, &[event]).await?;
        Ok(SentTest {
            event_id: ids.into_iter().next().unwrap_or_else(|| EventId::new(now)),
            kind: kind.clone(),
            endpoint_id: *id,
        })
    }
}
