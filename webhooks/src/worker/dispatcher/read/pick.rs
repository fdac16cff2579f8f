//! Which of the due rows a read takes: none that is known already, none that waits for an earlier one of its resource, and no more than there is room for.

use std::collections::{HashMap, HashSet};

use kernel::db::Transaction;

use crate::{
    delivery::{Due, Lease, store},
    endpoint::EndpointId,
    error::Error,
    places,
    worker::lanes::{Extent, Want},
};

/// What is due in one lane, the order of its turns kept.
pub(super) struct Line {
    pub(super) lease: Lease,
    pub(super) rows: Vec<Due>,
    pub(super) extent: Extent,
    known: HashSet<i64>,
}

impl Line {
    /// Whether some of its deliveries wait for one another.
    pub(super) fn is_ordered(&self) -> bool {
        self.rows.iter().any(|due| due.resource_key.is_some())
    }
}

/// Sorts what was found by lanes: first what somebody waits for, then bulk, each by the time when it became due.
pub(super) fn lines(wants: Vec<Want>, found: Vec<Due>) -> Vec<Line> {
    let mut by_lane: HashMap<EndpointId, Vec<Due>> = HashMap::new();
    for due in found {
        by_lane.entry(due.endpoint).or_default().push(due);
    }
    let lines = wants.into_iter().map(|want| {
        let mut rows = by_lane.remove(&want.lease.endpoint).unwrap_or_default();
        rows.sort_by_key(|due| (due.priority, due.due_at, due.sequence));
        // Of each priority no more than that was read; with fewer of both there is nothing else.
        let full = |priority: i16| {
            rows.iter().filter(|due| due.priority == priority).count() >= want.rows_max
        };
        let complete = !full(0) && !full(1) && rows.len() <= want.rows_max;
        rows.truncate(want.rows_max);
        let extent = Extent::of(want.after, &rows, complete);
        // What waits or is on its way is still due in the table.
        rows.retain(|due| !want.known.contains(&due.sequence));
        Line {
            lease: want.lease,
            rows,
            extent,
            known: want.known,
        }
    });
    lines.collect()
}

/// Drops what has to wait for an earlier delivery of its resource that is neither here nor among what is taken: one that is due later. What is kept of a resource
/// takes its places in the order of its sequences, so that none is taken without those before it.
pub(super) async fn hold_back(tx: &mut Transaction, lines: &mut [Line]) -> Result<(), Error> {
    let first = store::first_of_resources(tx, &resources(lines)).await?;
    let mut by_resource: HashMap<(EndpointId, i64), Vec<i64>> = HashMap::new();
    for (endpoint, key, sequence) in first {
        by_resource
            .entry((endpoint, key))
            .or_default()
            .push(sequence);
    }
    for line in lines {
        let here: HashSet<i64> = line
            .rows
            .iter()
            .map(|due| due.sequence)
            .chain(line.known.iter().copied())
            .collect();
        line.rows.retain(|due| {
            let Some(key) = due.resource_key else {
                return true;
            };
            let first = by_resource.get(&(due.endpoint, key));
            let elsewhere = first
                .into_iter()
                .flatten()
                .find(|sequence| !here.contains(sequence));
            let is_next = elsewhere.is_none_or(|sequence| due.sequence < *sequence);
            if !is_next {
                line.extent.leave(due);
            }
            is_next
        });
        order(&mut line.rows);
    }
    Ok(())
}

fn order(rows: &mut [Due]) {
    let mut resources: HashMap<i64, Vec<usize>> = HashMap::new();
    for (place, due) in rows.iter().enumerate() {
        if let Some(key) = due.resource_key {
            resources.entry(key).or_default().push(place);
        }
    }
    places::fill(rows, resources.into_values(), |due| due.sequence);
}

/// The resources of what is due, each with how many of its deliveries are to be looked at: those that are here, those that are known, and one more.
fn resources(lines: &[Line]) -> Vec<(Lease, i64, i64)> {
    let mut counts: HashMap<(EndpointId, i64), (Lease, i64)> = HashMap::new();
    for line in lines {
        // What is here or on its way may come first, of whichever resource.
        let known = i64::try_from(line.known.len()).unwrap_or(i64::MAX);
        for key in line.rows.iter().filter_map(|due| due.resource_key) {
            let (_, count) = counts
                .entry((line.lease.endpoint, key))
                .or_insert((line.lease, known.saturating_add(1)));
            *count = count.saturating_add(1);
        }
    }
    let resources = counts.into_iter();
    resources
        .map(|((_, key), (lease, count))| (lease, key, count))
        .collect()
}

/// Takes from each lane in turn for as long as there is room, and one row in any case.
pub(super) fn limit(lines: &mut [Line], room_bytes: usize, bytes_beside_data: usize) {
    let longest = lines.iter().map(|line| line.rows.len()).max().unwrap_or(0);
    let mut taken = vec![0_usize; lines.len()];
    let mut room = room_bytes;
    let mut is_first = true;
    'rounds: for round in 0..longest {
        for (line, taken) in lines.iter().zip(&mut taken) {
            let Some(due) = line.rows.get(round) else {
                continue;
            };
            let bytes = usize::try_from(due.data_bytes)
                .unwrap_or(0)
                .saturating_add(bytes_beside_data);
            if bytes > room && !is_first {
                break 'rounds;
            }
            is_first = false;
            room = room.saturating_sub(bytes);
            *taken = round.saturating_add(1);
        }
    }
    for (line, taken) in lines.iter_mut().zip(taken) {
        for left in line.rows.drain(taken..) {
            line.extent.break_off(&left);
        }
    }
}

#[cfg(test)]
mod tests;
