//! What a batch comes to: pure decisions of order, audience and numbers.

use std::{collections::HashMap, sync::Arc};

use kernel::{
    clock::Timestamp,
    id::{AppId, EventId, LocationId, MerchantId},
};
use serde_json::value::RawValue;

use sha2::{Digest, Sha256};

use crate::{
    endpoint::{EndpointId, Outlet},
    event::{ENDPOINT_RESOURCE, PING, Receiver, TEST},
    filter::{Facts, Filter, FilterInput},
    places,
};

/// An event in the outbox, as far as the relay needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) id: EventId,
    /// Where its row lies (`ctid`), for as long as the merchant's feed is locked: rows of the outbox do not change, and nobody else takes them out.
    pub(super) place: String,
    pub(super) kind: String,
    pub(super) resource_kind: String,
    pub(super) resource_id: String,
    pub(super) resource_version: i64,
    pub(super) scope: String,
    pub(super) locations: Vec<LocationId>,
    pub(super) occurred_at: Timestamp,
    /// 0: somebody waits for it; 1: bulk.
    pub(super) priority: i16,
    pub(super) data_bytes: i32,
}

/// An endpoint that may be interested.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own, and asked for by itself"
)]
#[derive(Debug, Clone)]
pub(super) struct Audience {
    pub(super) endpoint: EndpointId,
    pub(super) app: AppId,
    pub(super) of_merchant: bool,
    /// Which events it has asked for.
    pub(super) filter: Arc<Filter>,
    /// What becomes of its events: nothing beyond their numbers while it is disabled.
    pub(super) outlet: Outlet,
    /// Whether one resource's deliveries wait for one another.
    pub(super) is_ordered: bool,
    /// Whether it wants each change that an import makes.
    pub(super) takes_bulk: bool,
    pub(super) receiver: Receiver,
}

/// The events of a batch that go into one endpoint's stream, in order.
#[derive(Debug, Clone)]
pub(super) struct Interest<'b> {
    pub(super) endpoint: EndpointId,
    pub(super) outlet: Outlet,
    is_ordered: bool,
    pub(super) events: Vec<&'b Pending>,
}

/// One event in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) endpoint: EndpointId,
    pub(super) event: EventId,
    pub(super) sequence: i64,
    pub(super) outlet: Outlet,
    pub(super) priority: i16,
    /// Where its endpoint wants order: the resource.
    pub(super) resource_key: Option<i64>,
    pub(super) data_bytes: i32,
}

/// What stands for a resource in the queue: the first eight bytes of the SHA-256 of its type and id. Two resources of one key merely wait for each other.
pub(crate) fn resource_key(kind: &str, id: &str) -> i64 {
    let digest = Sha256::digest(format!("{kind}:{id}"));
    digest
        .first_chunk()
        .map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// Orders a batch by time, and each resource's events by their versions: the places that a resource's events have by time stay theirs, and are
/// filled in the order of versions. Times alone can't order them, because clocks differ between machines.
pub(super) fn order(batch: &mut [Pending]) {
    batch.sort_by_key(|event| (event.occurred_at, event.id));
    let mut places: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (place, event) in batch.iter().enumerate() {
        places
            .entry((&event.resource_kind, &event.resource_id))
            .or_default()
            .push(place);
    }
    let groups: Vec<Vec<usize>> = places.into_values().collect();
    places::fill(batch, groups, |event| event.resource_version);
}

/// Who is interested in what of a batch, in the order of endpoints. `data` has the data of those events that [`needs_data`] named.
pub(super) fn interest<'b>(
    batch: &'b [Pending],
    merchant: MerchantId,
    data: &HashMap<EventId, Box<RawValue>>,
    audience: &[Audience],
) -> Vec<Interest<'b>> {
    let apps: HashMap<String, AppId> = audience
        .iter()
        .map(|one| (one.endpoint.to_string(), one.app))
        .collect();
    let inputs: Vec<(&Pending, FilterInput<'_>)> = batch
        .iter()
        .map(|event| {
            let facts = Facts {
                kind: &event.kind,
                resource_kind: &event.resource_kind,
                resource_id: &event.resource_id,
                resource_version: event.resource_version,
                merchant,
                occurred_at: event.occurred_at,
                data: data.get(&event.id).map(|data| &**data),
            };
            (event, FilterInput::new(facts))
        })
        .collect();
    let interests = audience.iter().map(|one| Interest {
        endpoint: one.endpoint,
        outlet: one.outlet,
        is_ordered: one.is_ordered,
        events: inputs
            .iter()
            .filter(|(event, input)| concerns(event, input, one, &apps))
            .map(|(event, _)| *event)
            .collect(),
    });
    let mut interests: Vec<Interest<'_>> = interests
        .filter(|interest| !interest.events.is_empty())
        .collect();
    interests.sort_by_key(|interest| interest.endpoint);
    interests
}

/// The events whose data somebody's condition looks at.
pub(super) fn needs_data<'b>(batch: &'b [Pending], audience: &[Audience]) -> Vec<&'b Pending> {
    let curious: Vec<&Filter> = audience
        .iter()
        .map(|one| &*one.filter)
        .filter(|filter| filter.needs_data())
        .collect();
    let looked_at = batch
        .iter()
        .filter(|event| curious.iter().any(|filter| filter.wants_type(&event.kind)));
    looked_at.collect()
}

fn concerns(
    event: &Pending,
    input: &FilterInput<'_>,
    one: &Audience,
    apps: &HashMap<String, AppId>,
) -> bool {
    if !one.receiver.may_see(&event.scope, &event.locations) {
        return false;
    }
    if event.priority > 0 && !one.takes_bulk {
        return false;
    }
    if event.kind == PING || event.kind == TEST {
        return event.resource_id == one.endpoint.to_string();
    }
    if event.resource_kind == ENDPOINT_RESOURCE
        && !one.of_merchant
        && apps.get(&event.resource_id) != Some(&one.app)
    {
        return false;
    }
    // Better one too many than one that is lost without a trace.
    one.filter.matches(input).unwrap_or(true)
}

/// Numbers each interest from its endpoint's cursor on.
pub(super) fn number(interests: &[Interest<'_>], cursors: &HashMap<EndpointId, i64>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for interest in interests {
        let Some(last) = cursors.get(&interest.endpoint) else {
            continue;
        };
        let sequences = last.saturating_add(1)..;
        entries.extend(
            interest
                .events
                .iter()
                .zip(sequences)
                .map(|(event, sequence)| Entry {
                    endpoint: interest.endpoint,
                    event: event.id,
                    sequence,
                    outlet: interest.outlet,
                    priority: event.priority,
                    resource_key: interest
                        .is_ordered
                        .then(|| resource_key(&event.resource_kind, &event.resource_id)),
                    data_bytes: event.data_bytes,
                }),
        );
    }
    entries
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use kernel::actor::Access;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn pending(resource: &str, version: i64, millis: i64) -> Pending {
        let at = Timestamp::from_unix_millis(millis);
        Pending {
            id: EventId::new(at),
            place: "(0,1)".to_owned(),
            kind: "order.placed".to_owned(),
            resource_kind: "order".to_owned(),
            resource_id: resource.to_owned(),
            resource_version: version,
            scope: "orders:read".to_owned(),
            locations: Vec::new(),
            occurred_at: at,
            priority: 0,
            data_bytes: 2,
        }
    }

    fn filter(kinds: Option<&[&str]>, condition: Option<&str>) -> Filter {
        let kinds: Option<Vec<String>> =
            kinds.map(|kinds| kinds.iter().map(|kind| (*kind).to_owned()).collect());
        Filter::compile(kinds.as_deref(), condition).unwrap()
    }

    fn interested<'b>(batch: &'b [Pending], audience: &[Audience]) -> Vec<Interest<'b>> {
        let merchant = MerchantId::from_uuid(Uuid::from_u128(1));
        interest(batch, merchant, &HashMap::new(), audience)
    }

    fn audience(endpoint: u128, app: u128, kinds: Option<&[&str]>, scopes: &str) -> Audience {
        Audience {
            endpoint: EndpointId::from_uuid(Uuid::from_u128(endpoint)),
            app: AppId::from_uuid(Uuid::from_u128(app)),
            of_merchant: false,
            filter: Arc::new(filter(kinds, None)),
            outlet: Outlet::Sent,
            is_ordered: false,
            takes_bulk: true,
            receiver: Receiver(Some(Access {
                scopes: scopes.parse().unwrap(),
                locations: None,
                personal_data: false,
            })),
        }
    }

    #[test]
    fn a_clock_that_is_behind_does_not_turn_a_resources_events_round() {
        let mut batch = vec![
            pending("b", 1, 15),
            pending("a", 1, 20),
            pending("a", 2, 10),
            pending("a", 3, 30),
        ];
        order(&mut batch);
        let places: Vec<_> = batch
            .iter()
            .map(|event| (event.resource_id.as_str(), event.resource_version))
            .collect();
        assert_eq!(places, [("a", 1), ("b", 1), ("a", 2), ("a", 3)]);
    }

    #[test]
    fn each_endpoint_gets_what_it_asked_for_and_may_see() {
        let order = pending("a", 1, 1);
        let ping = |endpoint: &Audience| Pending {
            kind: PING.to_owned(),
            resource_kind: ENDPOINT_RESOURCE.to_owned(),
            resource_id: endpoint.endpoint.to_string(),
            scope: "webhooks:read".to_owned(),
            ..pending("", 1, 2)
        };
        let all = audience(1, 1, None, "orders:read webhooks:read");
        let cancelled_only = audience(
            2,
            1,
            Some(&["order.cancelled"]),
            "orders:read webhooks:read",
        );
        let without_scope = audience(3, 2, None, "catalog:read webhooks:read");
        let (to_all, to_second) = (ping(&all), ping(&cancelled_only));
        let disabled = Pending {
            kind: "webhook_endpoint.disabled".to_owned(),
            ..ping(&cancelled_only)
        };
        let merchants = Audience {
            of_merchant: true,
            ..audience(4, 3, Some(&["webhook_endpoint.disabled"]), "webhooks:read")
        };
        let batch = [
            order.clone(),
            to_all.clone(),
            to_second.clone(),
            disabled.clone(),
        ];
        let interests = interested(
            &batch,
            &[
                merchants.clone(),
                all.clone(),
                cancelled_only.clone(),
                without_scope,
            ],
        );
        let interests: Vec<(EndpointId, Vec<EventId>)> = interests
            .into_iter()
            .map(|interest| {
                let events = interest.events.iter().map(|event| event.id);
                (interest.endpoint, events.collect())
            })
            .collect();
        assert_eq!(
            interests,
            [
                (all.endpoint, vec![order.id, to_all.id, disabled.id]),
                (cancelled_only.endpoint, vec![to_second.id]),
                (merchants.endpoint, vec![disabled.id]),
            ]
        );
    }

    #[test]
    fn a_condition_on_the_data_is_judged_by_the_data_and_only_that_is_read() {
        let (cheap, dear, other) = (pending("a", 1, 1), pending("b", 1, 2), pending("c", 1, 3));
        let other = Pending {
            kind: "product.created".to_owned(),
            ..other
        };
        let one = Audience {
            filter: Arc::new(filter(
                Some(&["order.*"]),
                Some("double(event.data.total) > 100.0"),
            )),
            ..audience(1, 1, None, "orders:read")
        };
        let batch = [cheap.clone(), dear.clone(), other];
        let audience = [one];
        assert_eq!(needs_data(&batch, &audience), [&cheap, &dear]);
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let data = HashMap::from([
            (cheap.id, raw(r#"{"total": "99.99"}"#)),
            (dear.id, raw(r#"{"total": "100.01"}"#)),
        ]);
        let merchant = MerchantId::from_uuid(Uuid::from_u128(1));
        let interests = interest(&batch, merchant, &data, &audience);
        let events: Vec<EventId> = interests
            .iter()
            .flat_map(|one| one.events.iter().map(|event| event.id))
            .collect();
        assert_eq!(events, [dear.id]);
    }

    #[test]
    fn an_endpoint_that_wants_a_summary_of_imports_is_not_sent_each_change() {
        let change = Pending {
            priority: 1,
            ..pending("a", 1, 1)
        };
        let each = audience(1, 1, None, "orders:read");
        let summary = Audience {
            takes_bulk: false,
            ..audience(2, 1, None, "orders:read")
        };
        let batch = [change, pending("b", 1, 2)];
        let counts: Vec<usize> = interested(&batch, &[each, summary])
            .iter()
            .map(|interest| interest.events.len())
            .collect();
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn only_where_order_is_wanted_has_a_delivery_its_resource() {
        let ordered = Audience {
            is_ordered: true,
            ..audience(1, 1, None, "orders:read")
        };
        let plain = audience(2, 1, None, "orders:read");
        let batch = [pending("a", 1, 1), pending("a", 2, 2), pending("b", 1, 3)];
        let interests = interested(&batch, &[ordered.clone(), plain.clone()]);
        let cursors = HashMap::from([(ordered.endpoint, 0), (plain.endpoint, 0)]);
        let keys: Vec<Option<i64>> = number(&interests, &cursors)
            .iter()
            .map(|entry| entry.resource_key)
            .collect();
        let (a, b) = (resource_key("order", "a"), resource_key("order", "b"));
        assert_eq!(keys, [Some(a), Some(a), Some(b), None, None, None]);
        assert_ne!(a, b);
    }

    #[test]
    fn numbers_go_on_where_the_cursor_stands() {
        let (first, second) = (
            audience(1, 1, None, "orders:read"),
            audience(2, 1, None, "orders:read"),
        );
        let batch = [pending("a", 1, 1), pending("b", 1, 2)];
        let interests = interested(&batch, &[first.clone(), second]);
        let entries = number(&interests, &HashMap::from([(first.endpoint, 41)]));
        let numbered: Vec<_> = entries
            .iter()
            .map(|entry| (entry.endpoint, entry.event, entry.sequence))
            .collect();
        assert_eq!(
            numbered,
            [
                (first.endpoint, batch[0].id, 42),
                (first.endpoint, batch[1].id, 43)
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_the_clocks_say_versions_ascend_and_nothing_is_lost(
            events in proptest::collection::vec((0_u8..4, 0_i64..20), 0..40),
        ) {
            let mut versions: HashMap<u8, i64> = HashMap::new();
            let mut batch: Vec<Pending> = events
                .iter()
                .map(|(resource, millis)| {
                    let version = versions.entry(*resource).or_default();
                    *version += 1;
                    pending(&resource.to_string(), *version, *millis)
                })
                .collect();
            let mut before: Vec<_> = batch.iter().map(|event| event.id).collect();
            order(&mut batch);
            for resource in versions.keys() {
                let of_resource = batch.iter().filter(|event| event.resource_id == resource.to_string());
                let seen: Vec<_> = of_resource.map(|event| event.resource_version).collect();
                prop_assert!(seen.is_sorted());
            }
            let mut after: Vec<_> = batch.iter().map(|event| event.id).collect();
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
        }
    }
}
