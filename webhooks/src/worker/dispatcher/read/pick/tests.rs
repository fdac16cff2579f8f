//! What a read takes, without a database.

use kernel::{
    clock::Timestamp,
    id::{EventId, MerchantId},
};
use uuid::Uuid;

use super::*;
use crate::{delivery::Signal, worker::lanes::ReadAfter};

fn lease(endpoint: u128) -> Lease {
    Lease {
        endpoint: EndpointId::from_uuid(Uuid::from_u128(endpoint)),
        merchant: MerchantId::from_uuid(Uuid::from_u128(1)),
        fence: 1,
        signal: Signal::default(),
    }
}

fn due(endpoint: u128, sequence: i64, priority: i16) -> Due {
    let lease = lease(endpoint);
    Due {
        merchant: lease.merchant,
        endpoint: lease.endpoint,
        sequence,
        event: EventId::from_uuid(Uuid::from_u128(sequence.unsigned_abs().into())),
        attempt_count: 0,
        due_at: Timestamp::from_unix_millis(sequence),
        priority,
        resource_key: None,
        data_bytes: 100,
    }
}

fn want(endpoint: u128, rows_max: usize, known: &[i64]) -> Want {
    Want {
        lease: lease(endpoint),
        rows_max,
        after: ReadAfter::BEGINNING,
        known: known.iter().copied().collect(),
    }
}

fn sequences(line: &Line) -> Vec<i64> {
    line.rows.iter().map(|due| due.sequence).collect()
}

#[test]
fn what_somebody_waits_for_comes_before_bulk() {
    let found = vec![due(1, 1, 1), due(1, 2, 1), due(1, 3, 0)];
    let lines = lines(vec![want(1, 2, &[])], found);
    let line = lines
        .first()
        .map(|line| (sequences(line), line.extent.complete));
    assert_eq!(line, Some((vec![3, 1], false)));
}

#[test]
fn what_is_known_is_not_taken_again_and_the_next_read_goes_on_behind_it() {
    let found = vec![due(1, 1, 0), due(1, 2, 0), due(1, 3, 0)];
    let lines = lines(vec![want(1, 10, &[1, 3])], found);
    let line = lines.first().map(|line| {
        (
            sequences(line),
            line.extent.complete,
            line.extent.after.normal,
        )
    });
    assert_eq!(
        line,
        Some((vec![2], true, Some((Timestamp::from_unix_millis(3), 3))))
    );
}

#[test]
fn lanes_share_the_room_and_one_row_is_taken_in_any_case() {
    let found: Vec<Due> = (1..=5)
        .flat_map(|sequence| [due(1, sequence, 0), due(2, sequence, 0)])
        .collect();
    let wants = || vec![want(1, 10, &[]), want(2, 10, &[])];
    let mut shared = lines(wants(), found.clone());
    limit(&mut shared, 450, 50);
    let taken: Vec<_> = shared
        .iter()
        .map(|line| (sequences(line), line.extent.complete))
        .collect();
    assert_eq!(taken, [(vec![1, 2], false), (vec![1], false)]);
    let mut scarce = lines(wants(), found);
    limit(&mut scarce, 0, 50);
    assert_eq!(scarce.iter().map(|line| line.rows.len()).sum::<usize>(), 1);
}

#[test]
fn of_each_lanes_resource_as_many_are_looked_at_as_are_here_or_known_and_one_more() {
    let of = |endpoint, sequence, key| Due {
        resource_key: key,
        ..due(endpoint, sequence, 0)
    };
    let found = vec![
        of(1, 1, Some(7)),
        of(1, 2, Some(7)),
        of(1, 3, Some(8)),
        of(1, 4, None),
        of(2, 1, Some(7)),
    ];
    let lines = lines(vec![want(1, 10, &[]), want(2, 10, &[5, 6])], found);
    let mut looked_at = resources(&lines);
    looked_at.sort_by_key(|(lease, key, _)| (lease.endpoint, *key));
    assert_eq!(
        looked_at,
        [(lease(1), 7, 3), (lease(1), 8, 2), (lease(2), 7, 4),]
    );
}

#[test]
fn where_room_ends_no_delivery_of_a_resource_is_taken_without_those_before_it() {
    let of = |sequence, key, due_at| Due {
        resource_key: key,
        due_at: Timestamp::from_unix_millis(due_at),
        ..due(1, sequence, 0)
    };
    // The first of the resource failed, and is due again after those behind it.
    let found = vec![
        of(2, Some(7), 10),
        of(4, None, 20),
        of(3, Some(7), 30),
        of(1, Some(7), 40),
    ];
    let mut lines = lines(vec![want(1, 10, &[])], found);
    for line in &mut lines {
        order(&mut line.rows);
    }
    limit(&mut lines, 300, 50);
    let line = lines.first().map(|line| (sequences(line), line.extent));
    let before = ReadAfter {
        normal: Some((Timestamp::from_unix_millis(10), 1)),
        bulk: None,
    };
    let extent = Extent {
        after: before,
        settled: before,
        complete: false,
    };
    assert_eq!(line, Some((vec![1, 4], extent)));
}
