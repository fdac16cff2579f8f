//! An event, and what one receiver is given of it: a pure function of the event and of what the receiver's grant allows.
//!
//! The relay asks it before it numbers an event for an endpoint, the worker again before each attempt, and the reads of streams and of the
//! feed for each row. Nothing here knows what an order is: an event says itself which scope it takes and which locations it touches.

use chrono::{DateTime, Utc};
use kernel::{
    actor::Access,
    clock::Timestamp,
    id::{DataSubjectId, EventId, LocationId, MerchantId, RequestId},
    scope::Scope,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

mod store;

pub(crate) use store::{select, select_personal};

/// The version of the API whose forms `data` has.
pub const API_VERSION: &str = "2026-11-01";

/// The type under which an event is sent that its receiver may no longer see.
pub const WITHHELD: &str = "event.withheld";

/// The type of a test event, which goes to the endpoint that it names and to no other.
pub const PING: &str = "ping";

/// The type of a test event in the history. Whoever is sent it sees the type that was asked for; see [`TestData`].
pub const TEST: &str = "test";

/// What a test event is to look like: kept as its `data`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestData {
    /// The type that it shows.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it seems to have happened to.
    pub resource: Resource,
    /// The resource's data.
    pub data: Value,
}

/// The `resource.type` of events about endpoints themselves, which go to endpoints of the same app and of the merchant.
pub const ENDPOINT_RESOURCE: &str = "webhook_endpoint";

/// An event as the history keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) id: EventId,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) resource: Resource,
    pub(crate) scope: String,
    pub(crate) locations: Vec<LocationId>,
    pub(crate) data: Box<RawValue>,
    pub(crate) request: Option<RequestId>,
    pub(crate) occurred_at: Timestamp,
    /// The personal part of `data`, which dead letters keep in columns of their own.
    #[serde(skip)]
    pub(crate) personal: Option<Sealed>,
    /// The trace that its attempts belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace_parent: Option<String>,
}

impl Event {
    /// What stands for an event of which no more can be read than that there is one: it is withheld from everybody.
    pub(crate) fn unreadable(id: EventId, now: Timestamp) -> Self {
        Self {
            id,
            kind: WITHHELD.to_owned(),
            resource: Resource {
                kind: "unknown".to_owned(),
                id: String::new(),
                version: 0,
            },
            // No receiver has such a scope.
            scope: String::new(),
            locations: Vec::new(),
            data: RawValue::NULL.to_owned(),
            request: None,
            occurred_at: now,
            personal: None,
            trace_parent: None,
        }
    }
}

/// The personal part of an event, under its subject's key.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) subject: DataSubjectId,
    pub(crate) bytes: Vec<u8>,
}

/// What an event happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EventResource)]
pub struct Resource {
    /// The kind of resource: `order`.
    #[serde(rename = "type")]
    #[schema(example = "order")]
    pub kind: String,
    /// Its id: `ord_…`.
    #[schema(example = "ord_01jd3x5k8vfm7b2c9q0r4t6w8y")]
    pub id: String,
    /// The version that the change made. Orders a resource's events.
    pub version: i64,
}

/// An event as a receiver gets it: as a webhook's body, from a stream and from the feed.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventEnvelope)]
pub struct Envelope {
    /// The event's id, the same for every receiver, attempt and replay.
    pub id: EventId,
    /// What happened: `order.placed`; or `event.withheld`, when the receiver may no longer see it.
    #[serde(rename = "type")]
    #[schema(example = "order.placed")]
    pub kind: String,
    /// The number in the endpoint's stream: 1, 2, 3 … without gaps. Absent in the merchant's feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// True for a test event, which looks like a real one and tells of nothing that happened; absent for all others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false, default = false)]
    pub test: bool,
    /// The merchant at which it happened.
    pub merchant_id: MerchantId,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The version of the API whose forms `data` has.
    #[schema(example = "2026-11-01")]
    pub api_version: String,
    /// What it happened to; absent if withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// The resource as the API shows it to this receiver; absent if withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
    /// The request that caused it; absent if withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

/// What a grant allows right now: nothing once it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receiver(pub(crate) Option<Access>);

impl Receiver {
    /// The merchant itself.
    pub(crate) fn merchant() -> Self {
        Self(Some(Access::full()))
    }

    /// The same, for somebody who reads what the receiver is sent: no more than their own token lets them see.
    pub(crate) fn read_by(self, reader: &Access) -> Self {
        Self(self.0.map(|access| access.shared_with(reader)))
    }

    pub(crate) fn may_see(&self, scope: &str, locations: &[LocationId]) -> bool {
        let Some(access) = &self.0 else { return false };
        // A scope that this binary does not know was written by a newer one: better withheld than shown.
        scope
            .parse::<Scope>()
            .is_ok_and(|scope| access.scopes.allows(scope))
            && access.sees_any_location(locations)
    }

    /// Whether the personal part of this event, if it has one, is to be opened for this receiver.
    pub(crate) fn wants_personal(&self, event: &Event) -> bool {
        event.personal.is_some()
            && self.may_see(&event.scope, &event.locations)
            && self.0.as_ref().is_some_and(Access::sees_personal_data)
    }
}

/// A grant's row, as far as it decides what is seen. All null: the merchant's own.
#[derive(Debug)]
pub(crate) struct GrantRow {
    pub(crate) is_granted: bool,
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) locations: Option<Vec<LocationId>>,
    pub(crate) personal_data: Option<bool>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
}

impl GrantRow {
    /// What the owner of an endpoint may see at `now`.
    pub(crate) fn receiver(self, now: Timestamp) -> Receiver {
        if !self.is_granted {
            return Receiver::merchant();
        }
        let ended = self.revoked_at.is_some()
            || self
                .expires_at
                .is_some_and(|end| Timestamp::from(end) <= now);
        match self.scopes {
            // A grant that is not there any more has ended too.
            None => Receiver(None),
            Some(_) if ended => Receiver(None),
            Some(scopes) => Receiver(Some(Access {
                scopes: scopes
                    .iter()
                    .filter_map(|scope| scope.parse::<Scope>().ok())
                    .collect(),
                locations: self.locations,
                personal_data: self.personal_data.unwrap_or(false),
            })),
        }
    }
}

/// What `receiver` is given of `event`. `personal` is the opened personal part, brought only if [`Receiver::wants_personal`] said so; one
/// that is missing has been erased.
pub(crate) fn envelope(
    event: &Event,
    merchant: MerchantId,
    sequence: Option<i64>,
    receiver: &Receiver,
    personal: Option<&Value>,
) -> Result<Envelope, serde_json::Error> {
    let seen = receiver.may_see(&event.scope, &event.locations);
    if seen && event.kind == TEST {
        return test_envelope(event, merchant, sequence);
    }
    let data = match personal.filter(|_| receiver.wants_personal(event)) {
        Some(personal) => with_personal(&event.data, personal)?,
        None => event.data.clone(),
    };
    Ok(Envelope {
        id: event.id,
        kind: if seen {
            event.kind.clone()
        } else {
            WITHHELD.to_owned()
        },
        sequence,
        test: false,
        merchant_id: merchant,
        occurred_at: event.occurred_at,
        api_version: API_VERSION.to_owned(),
        resource: seen.then(|| event.resource.clone()),
        data: seen.then_some(data),
        request_id: event.request.filter(|_| seen),
    })
}

/// A test event as what it is to look like.
fn test_envelope(
    event: &Event,
    merchant: MerchantId,
    sequence: Option<i64>,
) -> Result<Envelope, serde_json::Error> {
    let TestData {
        kind,
        resource,
        data,
    } = serde_json::from_str(event.data.get())?;
    Ok(Envelope {
        id: event.id,
        kind,
        sequence,
        test: true,
        merchant_id: merchant,
        occurred_at: event.occurred_at,
        api_version: API_VERSION.to_owned(),
        resource: Some(resource),
        data: Some(serde_json::value::to_raw_value(&data)?),
        request_id: event.request,
    })
}

fn with_personal(data: &RawValue, personal: &Value) -> Result<Box<RawValue>, serde_json::Error> {
    let mut data: Value = serde_json::from_str(data.get())?;
    merge(&mut data, personal);
    serde_json::value::to_raw_value(&data)
}

/// Lays `over` on `under`: objects are merged member by member, everything else is replaced.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                merge(under.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        reason = "a test fails by panicking"
    )]

    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_unix_millis(1_700_000_000_000)
    }

    fn event(scope: &str, locations: Vec<LocationId>, personal: bool) -> Event {
        Event {
            id: EventId::new(now()),
            kind: "order.placed".to_owned(),
            resource: Resource {
                kind: "order".to_owned(),
                id: "ord_1".to_owned(),
                version: 3,
            },
            scope: scope.to_owned(),
            locations,
            data: RawValue::from_string(r#"{"total":"1.00","shipTo":{"country":"DE"}}"#.to_owned())
                .unwrap(),
            request: Some(RequestId::new(now())),
            occurred_at: now(),
            personal: personal.then(|| Sealed {
                subject: DataSubjectId::new(now()),
                bytes: vec![1],
            }),
            trace_parent: None,
        }
    }

    fn receiver(scopes: &str, locations: Option<Vec<LocationId>>, personal_data: bool) -> Receiver {
        Receiver(Some(Access {
            scopes: scopes.parse().unwrap(),
            locations,
            personal_data,
        }))
    }

    fn shown(event: &Event, receiver: &Receiver) -> Value {
        let personal = json!({"shipTo": {"name": "Ada"}, "email": "ada@example.com"});
        let envelope = envelope(
            event,
            MerchantId::new(now()),
            Some(7),
            receiver,
            Some(&personal),
        )
        .unwrap();
        serde_json::to_value(envelope).unwrap()
    }

    #[test]
    fn who_may_see_it_gets_the_resource() {
        let shown = shown(
            &event("orders:read", vec![], true),
            &receiver("orders:write", None, false),
        );
        assert_eq!(shown["type"], "order.placed");
        assert_eq!(shown["sequence"], 7);
        assert_eq!(
            shown["resource"],
            json!({"type": "order", "id": "ord_1", "version": 3})
        );
        assert_eq!(
            shown["data"],
            json!({"total": "1.00", "shipTo": {"country": "DE"}})
        );
        assert!(shown["requestId"].is_string());
    }

    #[test]
    fn who_may_not_see_it_gets_the_number_and_nothing_of_it() {
        let place = LocationId::new(now());
        for (event, receiver) in [
            (
                event("orders:read", vec![], false),
                receiver("catalog:read", None, true),
            ),
            (
                event("orders:read", vec![place], false),
                receiver("orders:read", Some(vec![LocationId::new(now())]), true),
            ),
            (event("orders:read", vec![], false), Receiver(None)),
            (event("moons:read", vec![], false), Receiver::merchant()),
        ] {
            let shown = shown(&event, &receiver);
            assert_eq!(shown["type"], WITHHELD);
            assert_eq!(shown["sequence"], 7);
            assert_eq!(shown["id"], event.id.to_string());
            let mut members: Vec<_> = shown
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            members.sort_unstable();
            assert_eq!(
                members,
                [
                    "apiVersion",
                    "id",
                    "merchantId",
                    "occurredAt",
                    "sequence",
                    "type"
                ]
            );
        }
    }

    #[test]
    fn one_location_in_common_is_enough() {
        let (here, there) = (LocationId::new(now()), LocationId::new(now()));
        let event = event("orders:read", vec![here, there], false);
        assert_eq!(
            shown(&event, &receiver("orders:read", Some(vec![there]), false))["type"],
            "order.placed"
        );
    }

    #[test]
    fn personal_data_takes_both_the_grant_and_the_scope() {
        let event = event("orders:read", vec![], true);
        let full = json!({"total": "1.00", "shipTo": {"country": "DE", "name": "Ada"}, "email": "ada@example.com"});
        assert_eq!(
            shown(&event, &receiver("orders:read orders.pii:read", None, true))["data"],
            full
        );
        for receiver in [
            receiver("orders:read orders.pii:read", None, false),
            receiver("orders:read", None, true),
        ] {
            assert_eq!(
                shown(&event, &receiver)["data"],
                json!({"total": "1.00", "shipTo": {"country": "DE"}})
            );
        }
    }

    #[test]
    fn a_reader_sees_no_more_than_their_own_token_allows() {
        let (here, there) = (LocationId::new(now()), LocationId::new(now()));
        let event = event("orders:read", vec![here], true);
        let plain = json!({"total": "1.00", "shipTo": {"country": "DE"}});
        let owner = || receiver("orders:write orders.pii:read", None, true);
        let read = |scopes: &str, locations: Option<Vec<LocationId>>, personal_data: bool| {
            let reader = receiver(scopes, locations, personal_data).0.unwrap();
            shown(&event, &owner().read_by(&reader))
        };
        assert_ne!(
            read("orders:read orders.pii:read", None, true)["data"],
            plain
        );
        assert_eq!(read("orders:read", None, true)["data"], plain);
        assert_eq!(
            read("orders:read orders.pii:read", None, false)["data"],
            plain
        );
        assert_eq!(read("orders:read", Some(vec![here]), false)["data"], plain);
        assert_eq!(
            read("orders:read", Some(vec![there]), false)["type"],
            WITHHELD
        );
        assert_eq!(read("webhooks:read", None, true)["type"], WITHHELD);
    }

    #[test]
    fn a_grant_that_has_ended_allows_nothing() {
        let row = |expires_at: Option<Timestamp>, revoked_at: Option<Timestamp>| GrantRow {
            is_granted: true,
            scopes: Some(vec!["orders:read".to_owned(), "moons:read".to_owned()]),
            locations: None,
            personal_data: Some(true),
            expires_at: expires_at.map(Into::into),
            revoked_at: revoked_at.map(Into::into),
        };
        let later = now().plus(std::time::Duration::from_secs(1));
        assert!(
            row(Some(later), None)
                .receiver(now())
                .may_see("orders:read", &[])
        );
        assert!(
            !row(Some(now()), None)
                .receiver(now())
                .may_see("orders:read", &[])
        );
        assert!(
            !row(None, Some(now()))
                .receiver(now())
                .may_see("orders:read", &[])
        );
        assert!(
            !GrantRow {
                scopes: None,
                ..row(None, None)
            }
            .receiver(now())
            .may_see("orders:read", &[])
        );
        assert!(
            GrantRow {
                is_granted: false,
                scopes: None,
                ..row(None, None)
            }
            .receiver(now())
            .may_see("orders:read", &[])
        );
    }
}
