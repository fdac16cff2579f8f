//! Up to which version the events of resources have been relayed, so that earlier ones are looked for only where some may be missing.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

use kernel::id::MerchantId;

use super::plan::Pending;

/// Resources that are remembered at most: about a megabyte. With more, all are forgotten, and their events looked for once more.
const RESOURCES_MAX: usize = 16_384;

/// How many versions of a resource may lie between two of its events of which the earlier one is looked for: what was relayed is in the way of looking.
const VERSIONS_BEFORE: i64 = 64;

/// Where an event of a resource may be missing that comes before one of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap<'b> {
    pub(super) kind: &'b str,
    pub(super) id: &'b str,
    pub(super) from_version: i64,
    /// The last one in the batch.
    pub(super) before_version: i64,
}

/// What this process has relayed. Others may have relayed more since: that is looked for in vain, and not missed.
#[derive(Debug, Default)]
pub(super) struct Versions {
    relayed: Mutex<HashMap<(MerchantId, u64), i64>>,
    hasher: RandomState,
}

impl Versions {
    /// The gaps in a batch: where the versions of a resource do not follow each other, and the last one that was relayed. A resource has none before its first,
    /// which spares an import of new products the search.
    pub(super) fn gaps<'b>(&self, merchant: MerchantId, batch: &'b [Pending]) -> Vec<Gap<'b>> {
        let mut resources: HashMap<(&str, &str), Vec<i64>> = HashMap::new();
        for event in batch {
            resources
                .entry((&event.resource_kind, &event.resource_id))
                .or_default()
                .push(event.resource_version);
        }
        let relayed = self.relayed.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = |((kind, id), mut versions): ((&'b str, &'b str), Vec<i64>)| {
            versions.sort_unstable();
            let key = (merchant, self.hasher.hash_one((kind, id)));
            let mut before = relayed.get(&key).copied().unwrap_or_default();
            let is_whole = versions.iter().all(|version| {
                let follows = (0..=1).contains(&version.saturating_sub(before));
                before = *version;
                follows
            });
            let (first, last) = (versions.first()?, versions.last()?);
            (!is_whole).then(|| Gap {
                kind,
                id,
                from_version: first.saturating_sub(VERSIONS_BEFORE),
                before_version: *last,
            })
        };
        resources.into_iter().filter_map(gap).collect()
    }

    /// Notes that a batch was relayed, and with it whatever came before its events.
    pub(super) fn note(&self, merchant: MerchantId, batch: &[Pending]) {
        let mut relayed = self.relayed.lock().unwrap_or_else(PoisonError::into_inner);
        if relayed.len().saturating_add(batch.len()) > RESOURCES_MAX {
            relayed.clear();
        }
        for event in batch {
            let resource = (&*event.resource_kind, &*event.resource_id);
            let version = relayed
                .entry((merchant, self.hasher.hash_one(resource)))
                .or_default();
            *version = event.resource_version.max(*version);
        }
    }
}

#[cfg(test)]
mod tests {
    use kernel::{clock::Timestamp, id::EventId};

    use super::*;

    fn batch(versions: &[(&str, i64)]) -> Vec<Pending> {
        let at = Timestamp::from_unix_millis(0);
        let pending = versions.iter().map(|(resource, version)| Pending {
            id: EventId::new(at),
            place: "(0,1)".to_owned(),
            kind: "order.placed".to_owned(),
            resource_kind: "order".to_owned(),
            resource_id: (*resource).to_owned(),
            resource_version: *version,
            scope: "orders:read".to_owned(),
            locations: Vec::new(),
            occurred_at: at,
            priority: 0,
            data_bytes: 2,
        });
        pending.collect()
    }

    fn gaps(versions: &Versions, merchant: i64, events: &[(&str, i64)]) -> Vec<(String, i64, i64)> {
        let merchant = MerchantId::least(Timestamp::from_unix_millis(merchant));
        let batch = batch(events);
        let mut gaps: Vec<(String, i64, i64)> = versions
            .gaps(merchant, &batch)
            .into_iter()
            .map(|gap| (gap.id.to_owned(), gap.from_version, gap.before_version))
            .collect();
        gaps.sort();
        gaps
    }

    fn gap(id: &str, from_version: i64, before_version: i64) -> (String, i64, i64) {
        (id.to_owned(), from_version, before_version)
    }

    #[test]
    fn what_does_not_follow_what_was_relayed_has_a_gap() {
        let versions = Versions::default();
        assert_eq!(
            gaps(&versions, 1, &[("a", 1), ("a", 2), ("a", 2), ("b", 1)]),
            []
        );
        assert_eq!(gaps(&versions, 1, &[("a", 100)]), [gap("a", 36, 100)]);
        assert_eq!(
            gaps(&versions, 1, &[("a", 3), ("b", 1), ("a", 1)]),
            [gap("a", -63, 3)]
        );

        let merchant = MerchantId::least(Timestamp::from_unix_millis(1));
        versions.note(merchant, &batch(&[("a", 5), ("a", 4)]));
        assert_eq!(gaps(&versions, 1, &[("a", 7), ("a", 6)]), []);
        assert_eq!(
            gaps(&versions, 1, &[("a", 5)]),
            [],
            "another of that version"
        );
        assert_eq!(gaps(&versions, 1, &[("a", 7)]), [gap("a", -57, 7)]);
        // One that should have been relayed already may not be the only one.
        assert_eq!(gaps(&versions, 1, &[("a", 4)]), [gap("a", -60, 4)]);
        // Of another merchant, and of another resource, nothing is known.
        assert_eq!(gaps(&versions, 2, &[("a", 6)]), [gap("a", -58, 6)]);
        assert_eq!(gaps(&versions, 1, &[("b", 6)]), [gap("b", -58, 6)]);
    }

    #[test]
    fn no_more_is_remembered_than_has_room() {
        let versions = Versions::default();
        let merchant = MerchantId::least(Timestamp::from_unix_millis(1));
        for number in 0..=RESOURCES_MAX {
            versions.note(merchant, &batch(&[(&format!("r{number}"), 1)]));
        }
        let remembered = versions.relayed.lock().map(|relayed| relayed.len());
        assert!(remembered.is_ok_and(|count| count <= RESOURCES_MAX));
        let last = format!("r{RESOURCES_MAX}");
        assert_eq!(gaps(&versions, 1, &[(&last, 2)]), []);
        assert_eq!(gaps(&versions, 1, &[("r1", 2)]).len(), 1);
    }
}
