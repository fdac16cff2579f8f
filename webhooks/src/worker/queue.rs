//! What waits in one lane: first what somebody waits for, then bulk; and where the endpoint asks for it, one resource's deliveries one after the other.
//!
//! Used by `lanes`. Invariants: a delivery waits once; of a resource that is ordered, no delivery is given out while another is out, and the one with the
//! smallest sequence goes first.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// A delivery that waits.
#[derive(Debug)]
pub(super) struct Row<T> {
    pub(super) sequence: i64,
    /// Whether all others go first.
    pub(super) is_bulk: bool,
    /// The resource, if its deliveries wait for one another.
    pub(super) resource: Option<i64>,
    /// Bytes that are held for it.
    pub(super) bytes: usize,
    pub(super) payload: T,
}

#[derive(Debug)]
enum Turn<T> {
    /// A delivery of its own.
    Row(Row<T>),
    /// Whichever delivery of this resource is first by then. There may be more turns than deliveries.
    Resource(i64),
}

/// An ordered resource that has something waiting or out.
#[derive(Debug)]
struct Resource<T> {
    waiting: BTreeMap<i64, Row<T>>,
    out: usize,
}

/// What waits in one lane.
#[derive(Debug)]
pub(super) struct Queue<T> {
    normal: VecDeque<Turn<T>>,
    bulk: VecDeque<Turn<T>>,
    resources: HashMap<i64, Resource<T>>,
    sequences: HashSet<i64>,
    bytes: usize,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            normal: VecDeque::new(),
            bulk: VecDeque::new(),
            resources: HashMap::new(),
            sequences: HashSet::new(),
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sequences.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Whether all that waits waits for something that is out.
    pub(super) fn is_blocked(&self) -> bool {
        self.normal.is_empty() && self.bulk.is_empty()
    }

    /// Bytes that are held for what waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = i64> {
        self.sequences.iter().copied()
    }

    /// Adds a delivery at the end, unless it waits already.
    pub(super) fn push(&mut self, row: Row<T>) {
        if !self.sequences.insert(row.sequence) {
            return;
        }
        self.bytes = self.bytes.saturating_add(row.bytes);
        let line = if row.is_bulk {
            &mut self.bulk
        } else {
            &mut self.normal
        };
        let Some(key) = row.resource else {
            line.push_back(Turn::Row(row));
            return;
        };
        line.push_back(Turn::Resource(key));
        let resource = self.resources.entry(key).or_insert_with(|| Resource {
            waiting: BTreeMap::new(),
            out: 0,
        });
        resource.waiting.insert(row.sequence, row);
    }

    /// The deliveries of the next request: up to `count` of them, and `bytes` unless one alone has more. Those of one resource stay in their order.
    pub(super) fn pop(&mut self, count: usize, bytes: usize) -> Vec<Row<T>> {
        let mut taken: Vec<Row<T>> = Vec::new();
        let mut taken_bytes = 0_usize;
        while taken.len() < count {
            let (line, turn) = match (self.normal.pop_front(), &mut self.bulk) {
                (Some(turn), _) => (&mut self.normal, turn),
                (None, bulk) => match bulk.pop_front() {
                    Some(turn) => (bulk, turn),
                    None => break,
                },
            };
            match turn {
                Turn::Row(row) => {
                    let is_too_much =
                        !taken.is_empty() && taken_bytes.saturating_add(row.bytes) > bytes;
                    if is_too_much {
                        line.push_front(Turn::Row(row));
                        break;
                    }
                    taken_bytes = taken_bytes.saturating_add(row.bytes);
                    taken.push(row);
                }
                Turn::Resource(key) => {
                    let Some(resource) = self
                        .resources
                        .get_mut(&key)
                        .filter(|resource| resource.out == 0)
                    else {
                        // It is out; its turn comes again when that is over.
                        continue;
                    };
                    let Some((_, row)) = resource.waiting.first_key_value() else {
                        continue;
                    };
                    if !taken.is_empty() && taken_bytes.saturating_add(row.bytes) > bytes {
                        line.push_front(Turn::Resource(key));
                        break;
                    }
                    // As many of it as fit: within one request they keep their order.
                    while taken.len() < count
                        && let Some(entry) = resource.waiting.first_entry()
                        && (resource.out == 0
                            || taken_bytes.saturating_add(entry.get().bytes) <= bytes)
                    {
                        let row = entry.remove();
                        resource.out = resource.out.saturating_add(1);
                        taken_bytes = taken_bytes.saturating_add(row.bytes);
                        taken.push(row);
                    }
                }
            }
        }
        for row in &taken {
            self.sequences.remove(&row.sequence);
            self.bytes = self.bytes.saturating_sub(row.bytes);
        }
        taken
    }

    /// A delivery of an ordered resource is no longer out. If it is still to be delivered, what waits behind it is dropped: it is read again once that may go.
    pub(super) fn returned(&mut self, key: i64, is_over: bool) {
        let Some(resource) = self.resources.get_mut(&key) else {
            return;
        };
        resource.out = resource.out.saturating_sub(1);
        if !is_over {
            for row in std::mem::take(&mut resource.waiting).into_values() {
                self.sequences.remove(&row.sequence);
                self.bytes = self.bytes.saturating_sub(row.bytes);
            }
        }
        if resource.out > 0 {
            return;
        }
        match resource.waiting.first_key_value() {
            Some((_, row)) if row.is_bulk => self.bulk.push_back(Turn::Resource(key)),
            Some(_) => self.normal.push_front(Turn::Resource(key)),
            None => {
                self.resources.remove(&key);
            }
        }
    }

    /// Forgets what waits; what is out stays so.
    pub(super) fn clear(&mut self) {
        self.normal.clear();
        self.bulk.clear();
        self.sequences.clear();
        self.bytes = 0;
        for resource in self.resources.values_mut() {
            resource.waiting.clear();
        }
        self.resources.retain(|_, resource| resource.out > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sequence: i64, is_bulk: bool, resource: Option<i64>) -> Row<()> {
        Row {
            sequence,
            is_bulk,
            resource,
            bytes: 10,
            payload: (),
        }
    }

    fn pop(queue: &mut Queue<()>, count: usize) -> Vec<i64> {
        queue
            .pop(count, 1_000)
            .iter()
            .map(|row| row.sequence)
            .collect()
    }

    #[test]
    fn bulk_goes_after_everything_else_however_long_it_has_waited() {
        let mut queue = Queue::new();
        for sequence in 1..=3 {
            queue.push(row(sequence, true, None));
        }
        queue.push(row(4, false, None));
        assert_eq!(pop(&mut queue, 1), [4]);
        assert_eq!(pop(&mut queue, 10), [1, 2, 3]);
        assert!(queue.is_empty());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_resource_is_out_once_and_others_are_not_held_back() {
        let mut queue = Queue::new();
        queue.push(row(1, false, Some(7)));
        queue.push(row(2, false, Some(7)));
        queue.push(row(3, false, Some(8)));
        assert_eq!(pop(&mut queue, 1), [1]);
        assert_eq!(pop(&mut queue, 1), [3]);
        assert!(pop(&mut queue, 1).is_empty());
        queue.returned(7, true);
        assert_eq!(pop(&mut queue, 1), [2]);
    }

    #[test]
    fn what_waits_behind_a_failure_is_dropped_and_read_again() {
        let mut queue = Queue::new();
        for sequence in 1..=3 {
            queue.push(row(sequence, false, Some(7)));
        }
        assert_eq!(pop(&mut queue, 1), [1]);
        queue.returned(7, false);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
        assert!(pop(&mut queue, 1).is_empty());
        queue.push(row(1, false, Some(7)));
        queue.push(row(2, false, Some(7)));
        assert_eq!(pop(&mut queue, 1), [1]);
    }

    #[test]
    fn an_earlier_one_that_comes_later_goes_first() {
        let mut queue = Queue::new();
        queue.push(row(5, false, Some(7)));
        queue.push(row(2, true, Some(7)));
        assert_eq!(pop(&mut queue, 1), [2]);
        queue.returned(7, true);
        assert_eq!(pop(&mut queue, 1), [5]);
    }

    #[test]
    fn one_request_takes_a_resource_in_its_order_and_no_more_than_fits() {
        let mut queue = Queue::new();
        for sequence in [3, 1, 2] {
            queue.push(row(sequence, false, Some(7)));
        }
        queue.push(row(4, false, None));
        assert_eq!(queue.pop(10, 25).len(), 2);
        queue.returned(7, true);
        assert!(pop(&mut queue, 10).contains(&4));
        queue.returned(7, true);
        assert_eq!(pop(&mut queue, 10), [3]);
    }

    #[test]
    fn one_that_is_larger_than_what_fits_goes_alone() {
        let mut queue = Queue::new();
        queue.push(row(1, false, None));
        queue.push(row(2, false, None));
        assert_eq!(queue.pop(10, 5).len(), 1);
    }
}
