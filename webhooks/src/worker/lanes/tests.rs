//! Turns, windows, shares and rests, without a database.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use uuid::Uuid;

use super::*;

const LIMITS: Limits = Limits {
    lanes: 4,
    lanes_per_merchant: 3,
    in_flight: 20,
    in_flight_per_merchant: 12,
    in_flight_per_endpoint: 10,
};

fn lease(endpoint: u128, merchant: u128) -> Lease {
    Lease {
        endpoint: EndpointId::from_uuid(Uuid::from_u128(endpoint)),
        merchant: MerchantId::from_uuid(Uuid::from_u128(merchant)),
        fence: 1,
        signal: 0,
    }
}

fn filled(leases: &[(Lease, i64)]) -> Lanes<()> {
    let mut lanes = Lanes::new(LIMITS);
    for (lease, count) in leases {
        lanes.take(*lease);
        lanes.fill(
            lease.endpoint,
            (1..=*count).map(|sequence| (sequence, ())),
            true,
        );
    }
    lanes
}

fn drain(lanes: &mut Lanes<()>) -> Vec<(Lease, i64)> {
    std::iter::from_fn(|| lanes.next())
        .map(|(lease, sequence, ())| (lease, sequence))
        .collect()
}

#[test]
fn lanes_take_turns_whatever_waits_in_them() {
    let (busy, quiet) = (lease(1, 1), lease(2, 2));
    let mut lanes = filled(&[(busy, 100), (quiet, 2)]);
    let sent = drain(&mut lanes);
    assert_eq!(
        sent.iter().take(4).copied().collect::<Vec<_>>(),
        [(busy, 1), (quiet, 1), (busy, 2), (quiet, 2)]
    );
    assert_eq!(sent.len(), WINDOW_START + 2);
}

#[test]
fn a_failing_endpoint_is_narrowed_to_one_and_remembered_so() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 100)]);
    for (_, sequence) in drain(&mut lanes) {
        lanes.end(lane, sequence, Ending::Failed);
    }
    assert_eq!(drain(&mut lanes).len(), 1);
    lanes.forget(lane.endpoint);
    assert_eq!(lanes.in_flight, 0);
    lanes.take(lane);
    lanes.fill(lane.endpoint, (1..=9).map(|sequence| (sequence, ())), true);
    assert_eq!(drain(&mut lanes).len(), 1);
}

#[test]
fn lanes_that_only_fail_give_way_once_there_is_no_room_and_rest_longer_each_time() {
    let failing = lease(1, 1);
    let mut lanes = filled(&[(failing, 100), (lease(2, 2), 1), (lease(3, 3), 1)]);
    let fail_all = |lanes: &mut Lanes<()>| {
        for (lease, sequence) in drain(lanes) {
            if lease == failing {
                lanes.end(lease, sequence, Ending::Failed);
            }
        }
    };
    fail_all(&mut lanes);
    lanes.give_way();
    assert_eq!(lanes.rest(failing.endpoint), None, "there is room");
    lanes.take(lease(4, 4));
    lanes.give_way();
    assert_eq!(lanes.rest(failing.endpoint), Some(REST_FIRST));
    assert_eq!(lanes.idle(), [failing], "whatever waited in it");
    assert_eq!(lanes.rest(lease(2, 2).endpoint), None);
    for expected in [2, 4, 8, 16, 32, 60, 60] {
        lanes.forget(failing.endpoint);
        lanes.take(failing);
        lanes.fill(failing.endpoint, [(1, ()), (2, ())], true);
        lanes.give_way();
        assert_eq!(
            lanes.rest(failing.endpoint),
            None,
            "it is tried again first"
        );
        fail_all(&mut lanes);
        lanes.give_way();
        let rest = Duration::from_secs(expected);
        assert_eq!(lanes.rest(failing.endpoint), Some(rest));
    }
}

#[test]
fn a_lane_that_accepts_something_while_it_gives_way_goes_on() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 8), (lease(2, 1), 0), (lease(3, 1), 0)]);
    let sent = drain(&mut lanes);
    for (lane, sequence) in sent.iter().take(7) {
        lanes.end(*lane, *sequence, Ending::Failed);
    }
    lanes.give_way();
    assert_eq!(
        lanes.rest(lane.endpoint),
        Some(REST_FIRST),
        "its merchant's share is used up"
    );
    assert!(!lanes.idle().contains(&lane), "one is in flight");
    assert_eq!(lanes.to_read(), []);
    lanes.end(lane, sent.last().unwrap().1, Ending::Accepted);
    assert_eq!(lanes.rest(lane.endpoint), None);
    assert_eq!(lanes.to_read(), [(lane, 0)]);
}

#[test]
fn an_accepting_endpoint_opens_its_window_up_to_the_limit() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 100)]);
    for _ in 0..3 {
        for (_, sequence) in drain(&mut lanes) {
            lanes.end(lane, sequence, Ending::Accepted);
        }
    }
    assert_eq!(drain(&mut lanes).len(), LIMITS.in_flight_per_endpoint);
}

#[test]
fn a_merchant_has_no_more_in_flight_than_its_share() {
    let mut lanes = filled(&[(lease(1, 1), 50), (lease(2, 1), 50), (lease(3, 2), 50)]);
    let sent = drain(&mut lanes);
    let of_first = sent
        .iter()
        .filter(|(lease, _)| lease.merchant == MerchantId::from_uuid(Uuid::from_u128(1)))
        .count();
    assert_eq!((of_first, sent.len()), (12, 20));
}

#[test]
fn a_delivery_that_is_known_is_not_taken_in_twice() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 3)]);
    assert_eq!(lanes.next().map(|(_, sequence, ())| sequence), Some(1));
    lanes.look_again();
    assert_eq!(lanes.to_read(), [(lane, 3)]);
    assert!((1..=3).all(|sequence| lanes.knows(lane.endpoint, sequence)));
    assert!(!lanes.knows(lane.endpoint, 4));
    lanes.fill(lane.endpoint, (1..=4).map(|sequence| (sequence, ())), true);
    assert_eq!(
        drain(&mut lanes)
            .into_iter()
            .map(|(_, sequence)| sequence)
            .collect::<Vec<_>>(),
        [2, 3, 4]
    );
}

#[test]
fn a_lane_is_idle_only_when_nothing_can_be_in_it() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 1)]);
    assert!(lanes.idle().is_empty(), "something waits");
    lanes.next().unwrap();
    assert!(lanes.idle().is_empty(), "something is in flight");
    lanes.end(lane, 1, Ending::Accepted);
    assert_eq!(lanes.idle(), [lane]);
    assert!(lanes.raise(lane.endpoint, 1));
    assert!(lanes.idle().is_empty(), "something was added");
    lanes.fill(lane.endpoint, [], true);
    assert_eq!(lanes.idle(), [Lease { signal: 1, ..lane }]);
}

#[test]
fn what_a_former_ownership_reports_changes_nothing() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 1)]);
    lanes.next().unwrap();
    let again = Lease { fence: 2, ..lane };
    lanes.take(again);
    assert_eq!(lanes.in_flight, 0);
    lanes.fill(again.endpoint, [(1, ())], true);
    lanes.next().unwrap();
    lanes.end(lane, 1, Ending::Accepted);
    assert_eq!(lanes.in_flight, 1);
    lanes.end(again, 1, Ending::Accepted);
    assert_eq!(lanes.in_flight, 0);
}

#[test]
fn room_and_shares_of_lanes_are_counted() {
    let mut lanes = filled(&[(lease(1, 1), 1), (lease(2, 1), 1), (lease(3, 1), 1)]);
    assert_eq!(lanes.room(), 1);
    assert_eq!(lanes.merchants_at_their_share(), [lease(1, 1).merchant]);
    lanes.forget(lease(2, 1).endpoint);
    assert_eq!(lanes.room(), 2);
    assert!(lanes.merchants_at_their_share().is_empty());
}
