//! What a batch comes to: pure decisions of order, audience and numbers.

use std::collections::HashMap;

use kernel::{
    clock::Timestamp,
    id::{AppId, EventId, LocationId},
};

use crate::{
    endpoint::EndpointId,
    event::{ENDPOINT_RESOURCE, PING, Receiver},
};

/// An event in the outbox, as far as the relay needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) id: EventId,
    pub(super) kind: String,
    pub(super) resource_kind: String,
    pub(super) resource_id: String,
    pub(super) resource_version: i64,
    pub(super) scope: String,
    pub(super) locations: Vec<LocationId>,
    pub(super) occurred_at: Timestamp,
}

/// An endpoint that may be interested.
#[derive(Debug, Clone)]
pub(super) struct Audience {
    pub(super) endpoint: EndpointId,
    pub(super) app: AppId,
    pub(super) of_merchant: bool,
    pub(super) kinds: Option<Vec<String>>,
    /// Whether it is sent deliveries: it has a URL, and is enabled.
    pub(super) pushed: bool,
    pub(super) receiver: Receiver,
}

/// The events of a batch that go into one endpoint's stream, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) endpoint: EndpointId,
    pub(super) pushed: bool,
    pub(super) events: Vec<EventId>,
}

/// One event in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) endpoint: EndpointId,
    pub(super) event: EventId,
    pub(super) sequence: i64,
    pub(super) pushed: bool,
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
    let mut moves = Vec::new();
    for places in places.into_values().filter(|places| places.len() > 1) {
        let mut by_version: Vec<&Pending> = places
            .iter()
            .filter_map(|&place| batch.get(place))
            .collect();
        by_version.sort_by_key(|event| event.resource_version);
        moves.extend(places.iter().copied().zip(by_version.into_iter().cloned()));
    }
    for (place, event) in moves {
        if let Some(slot) = batch.get_mut(place) {
            *slot = event;
        }
    }
}

/// Who is interested in what of a batch, in the order of endpoints.
pub(super) fn interest(batch: &[Pending], audience: &[Audience]) -> Vec<Interest> {
    let apps: HashMap<String, AppId> = audience
        .iter()
        .map(|one| (one.endpoint.to_string(), one.app))
        .collect();
    let interests = audience.iter().map(|one| Interest {
        endpoint: one.endpoint,
        pushed: one.pushed,
        events: batch
            .iter()
            .filter(|event| concerns(event, one, &apps))
            .map(|event| event.id)
            .collect(),
    });
    let mut interests: Vec<Interest> = interests
        .filter(|interest| !interest.events.is_empty())
        .collect();
    interests.sort_by_key(|interest| interest.endpoint);
    interests
}

fn concerns(event: &Pending, one: &Audience, apps: &HashMap<String, AppId>) -> bool {
    if !one.receiver.may_see(&event.scope, &event.locations) {
        return false;
    }
    if event.kind == PING {
        return event.resource_id == one.endpoint.to_string();
    }
    if event.resource_kind == ENDPOINT_RESOURCE
        && !one.of_merchant
        && apps.get(&event.resource_id) != Some(&one.app)
    {
        return false;
    }
    one.kinds
        .as_ref()
        .is_none_or(|kinds| kinds.contains(&event.kind))
}

/// Numbers each interest from its endpoint's cursor on.
pub(super) fn number(interests: &[Interest], cursors: &HashMap<EndpointId, i64>) -> Vec<Entry> {
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
                    event: *event,
                    sequence,
                    pushed: interest.pushed,
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
            kind: "order.placed".to_owned(),
            resource_kind: "order".to_owned(),
            resource_id: resource.to_owned(),
            resource_version: version,
            scope: "orders:read".to_owned(),
            locations: Vec::new(),
            occurred_at: at,
        }
    }

    fn audience(endpoint: u128, app: u128, kinds: Option<&[&str]>, scopes: &str) -> Audience {
        Audience {
            endpoint: EndpointId::from_uuid(Uuid::from_u128(endpoint)),
            app: AppId::from_uuid(Uuid::from_u128(app)),
            of_merchant: false,
            kinds: kinds.map(|kinds| kinds.iter().map(|kind| (*kind).to_owned()).collect()),
            pushed: true,
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
        let interests = interest(
            &batch,
            &[
                merchants.clone(),
                all.clone(),
                cancelled_only.clone(),
                without_scope,
            ],
        );
        assert_eq!(
            interests,
            [
                Interest {
                    endpoint: all.endpoint,
                    pushed: true,
                    events: vec![order.id, to_all.id, disabled.id]
                },
                Interest {
                    endpoint: cancelled_only.endpoint,
                    pushed: true,
                    events: vec![to_second.id]
                },
                Interest {
                    endpoint: merchants.endpoint,
                    pushed: true,
                    events: vec![disabled.id]
                },
            ]
        );
    }

    #[test]
    fn numbers_go_on_where_the_cursor_stands() {
        let (first, second) = (
            audience(1, 1, None, "orders:read"),
            audience(2, 1, None, "orders:read"),
        );
        let batch = [pending("a", 1, 1), pending("b", 1, 2)];
        let interests = interest(&batch, &[first.clone(), second]);
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
