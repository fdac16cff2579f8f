//! Turns, windows, shares, breakers and what is held, without a database.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::worker::pace::WINDOW_START;

const LIMITS: Limits = Limits {
    lanes: 4,
    lanes_per_merchant: 3,
    in_flight: 64,
    in_flight_per_merchant: 20,
    in_flight_per_endpoint: 10,
    unrecorded: 100,
    unrecorded_per_endpoint: 50,
    held_bytes: 10_000,
    linger: Duration::from_secs(1),
};

const ROW_BYTES: usize = 10;

/// Of a read that found all that is due.
const ALL: Extent = Extent {
    after: ReadAfter::BEGINNING,
    settled: ReadAfter::BEGINNING,
    complete: true,
};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

fn lease(endpoint: u128, merchant: u128) -> Lease {
    Lease {
        endpoint: EndpointId::from_uuid(Uuid::from_u128(endpoint)),
        merchant: MerchantId::from_uuid(Uuid::from_u128(merchant)),
        fence: 1,
        signal: Signal::default(),
    }
}

fn row(sequence: i64) -> Row<()> {
    Row {
        sequence,
        is_bulk: false,
        resource: None,
        bytes: ROW_BYTES,
        payload: (),
    }
}

fn take(
    lanes: &mut Lanes<()>,
    lease: Lease,
    openings: u32,
    sequences: std::ops::RangeInclusive<i64>,
) {
    lanes.take(lease, openings);
    read(lanes, lease, sequences);
}

fn read(lanes: &mut Lanes<()>, lease: Lease, sequences: std::ops::RangeInclusive<i64>) {
    let wants = lanes.begin_read();
    assert!(wants.iter().any(|want| want.lease == lease), "{wants:?}");
    lanes.fill(lease, sequences.map(row), &ALL, at(0));
}

fn filled(leases: &[(Lease, i64)]) -> Lanes<()> {
    let mut lanes = Lanes::new(LIMITS);
    for (lease, count) in leases {
        take(&mut lanes, *lease, 0, 1..=*count);
    }
    lanes
}

fn drain(lanes: &mut Lanes<()>) -> Vec<(Lease, i64)> {
    drain_at(lanes, at(0))
}

fn drain_at(lanes: &mut Lanes<()>, now: Timestamp) -> Vec<(Lease, i64)> {
    std::iter::from_fn(|| lanes.next(now))
        .map(|(lease, rows)| (lease, rows[0].sequence))
        .collect()
}

fn answer(lanes: &mut Lanes<()>, lease: Lease, sequence: i64, ending: Ending) {
    lanes.answered(lease, &[sequence], ending, Duration::from_millis(5), at(0));
}

fn end(lanes: &mut Lanes<()>, lease: Lease, sequence: i64, ending: Ending) {
    answer(lanes, lease, sequence, ending);
    lanes.recorded(
        lease,
        sequence,
        (ending != Ending::Accepted).then_some(at(0)),
        at(0),
    );
}

#[test]
fn lanes_take_turns_whatever_waits_in_them() {
    let (busy, quiet) = (lease(1, 1), lease(2, 2));
    let mut lanes = filled(&[(busy, 100), (quiet, 2)]);
    let sent = drain(&mut lanes);
    assert_eq!(sent[..4], [(busy, 1), (quiet, 1), (busy, 2), (quiet, 2)]);
    assert_eq!(sent.len(), WINDOW_START + 2);
}

#[test]
fn merchants_take_turns_however_many_lanes_one_has() {
    let many = [lease(1, 1), lease(2, 1), lease(3, 1)];
    let one = lease(4, 2);
    let mut lanes = filled(&[(many[0], 9), (many[1], 9), (many[2], 9), (one, 9)]);
    let sent: Vec<_> = drain(&mut lanes).into_iter().take(8).collect();
    assert_eq!(sent.iter().filter(|(lease, _)| *lease == one).count(), 4);
}

#[test]
fn an_accepting_endpoint_opens_its_window_up_to_the_limit() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 100)]);
    for _ in 0..3 {
        for (_, sequence) in drain(&mut lanes) {
            end(&mut lanes, lane, sequence, Ending::Accepted);
        }
    }
    assert_eq!(drain(&mut lanes).len(), LIMITS.in_flight_per_endpoint);
}

#[test]
fn the_owner_of_an_endpoint_says_how_fast_it_is_sent_to() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 100)]);
    let wishes = Wishes {
        rate_per_second: Some(10),
        concurrency_max: Some(3),
        batch_events_max: 1,
    };
    lanes.heed(lane.endpoint, wishes, at(0));
    assert_eq!(drain(&mut lanes), [(lane, 1)]);
    assert_eq!(lanes.next_timer(), Some(at(100)));
    let second = drain_at(&mut lanes, at(100));
    let third = drain_at(&mut lanes, at(200));
    assert_eq!((second, third), (vec![(lane, 2)], vec![(lane, 3)]));
    assert_eq!(drain_at(&mut lanes, at(300)), [], "three are in flight");
    answer(&mut lanes, lane, 2, Ending::Accepted);
    assert_eq!(drain_at(&mut lanes, at(300)), [(lane, 4)]);
}

#[test]
fn a_request_carries_as_many_as_its_endpoint_takes() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 25)]);
    let wishes = Wishes {
        batch_events_max: 10,
        ..Wishes::default()
    };
    lanes.heed(lane.endpoint, wishes, at(0));
    let sizes: Vec<usize> = std::iter::from_fn(|| lanes.next(at(0)))
        .map(|(_, rows)| rows.len())
        .collect();
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(lanes.in_flight, 3);
}

#[test]
fn a_merchant_that_takes_everything_leaves_room_for_others() {
    let mut lanes = Lanes::new(Limits {
        in_flight_per_merchant: 64,
        in_flight_per_endpoint: 64,
        ..LIMITS
    });
    take(&mut lanes, lease(1, 1), 0, 1..=200);
    lanes.lanes.get_mut(&lease(1, 1).endpoint).unwrap().window = {
        let mut window = Window::new();
        for _ in 0..200 {
            window.accepted(Duration::from_millis(1), 64, at(0));
        }
        window
    };
    let greedy = drain(&mut lanes).len();
    assert!(
        (20..=22).contains(&greedy),
        "half of what would then be free: {greedy}"
    );
    take(&mut lanes, lease(2, 2), 0, 1..=3);
    assert_eq!(drain(&mut lanes).len(), 3);
}

#[test]
fn a_lane_whose_breaker_opens_drops_what_waits_and_is_probed_by_its_next_owner() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 100)]);
    let mut failures = 0;
    while lanes.rest_until(lane.endpoint).is_none() {
        for (_, sequence) in drain(&mut lanes) {
            end(&mut lanes, lane, sequence, Ending::Failed(None));
            failures += 1;
        }
        assert!(failures < 50);
    }
    assert_eq!(drain(&mut lanes), []);
    assert_eq!(lanes.idle(), [lane], "whatever is due in it");
    assert_eq!(
        (lanes.held_bytes, lanes.breaker_openings(lane.endpoint)),
        (0, 1)
    );
    assert!(lanes.begin_read().is_empty());

    lanes.forget(lane.endpoint);
    lanes.take(lane, 1);
    let wants = lanes.begin_read();
    assert_eq!(wants[0].rows_max, PROBE_ROWS);
    lanes.fill(lane, [row(1), row(2)], &Extent::default(), at(0));
    assert_eq!(drain(&mut lanes), [(lane, 1)]);
    end(&mut lanes, lane, 1, Ending::Accepted);
    assert_eq!(lanes.breaker_openings(lane.endpoint), 0);
    assert_eq!(drain(&mut lanes), [(lane, 2)]);
    read(&mut lanes, lane, 2..=9);
}

#[test]
fn a_receiver_that_asks_for_a_pause_gets_it() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 9)]);
    assert_eq!(drain(&mut lanes).len(), WINDOW_START);
    answer(&mut lanes, lane, 1, Ending::Failed(Some(at(2_000))));
    for sequence in 2..=8 {
        answer(&mut lanes, lane, sequence, Ending::Accepted);
    }
    assert_eq!(drain_at(&mut lanes, at(1_999)), []);
    assert_eq!(lanes.next_timer(), Some(at(2_000)));
    assert_eq!(drain_at(&mut lanes, at(2_000)), [(lane, 9)]);
}

#[test]
fn a_delivery_that_is_known_is_not_taken_in_twice() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 3)]);
    assert_eq!(lanes.next(at(0)).unwrap().1[0].sequence, 1);
    lanes.look_again();
    let wants = lanes.begin_read();
    assert_eq!(wants[0].known, HashSet::from([1, 2, 3]));
    // Recorded while the read was under way, which may have seen it as due.
    end(&mut lanes, lane, 1, Ending::Accepted);
    lanes.fill(lane, (1..=4).map(row), &ALL, at(0));
    let sent: Vec<i64> = drain(&mut lanes)
        .into_iter()
        .map(|(_, sequence)| sequence)
        .collect();
    assert_eq!(sent, [2, 3, 4]);
}

#[test]
fn an_endpoint_is_free_once_it_has_answered_but_not_without_bound() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 100)]);
    let mut answered = 0;
    loop {
        let sent = drain(&mut lanes);
        if sent.is_empty() {
            break;
        }
        for (_, sequence) in sent {
            answer(&mut lanes, lane, sequence, Ending::Accepted);
            answered += 1;
        }
    }
    assert!((50..60).contains(&answered), "{answered}");
    lanes.recorded(lane, 1, None, at(0));
    for sequence in 2..=20 {
        lanes.recorded(lane, sequence, None, at(0));
    }
    assert!(!drain(&mut lanes).is_empty());
}

#[test]
fn a_lane_is_idle_only_when_nothing_can_be_in_it() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 1)]);
    assert!(lanes.idle().is_empty(), "something waits");
    lanes.next(at(0)).unwrap();
    assert!(lanes.idle().is_empty(), "something is in flight");
    answer(&mut lanes, lane, 1, Ending::Accepted);
    assert!(lanes.idle().is_empty(), "something is not recorded");
    lanes.recorded(lane, 1, None, at(0));
    assert_eq!(lanes.idle(), [lane]);
    let raised = Lease {
        signal: Signal {
            number: 1,
            ..Signal::default()
        },
        ..lane
    };
    assert!(lanes.raise(lane.endpoint, raised.signal));
    assert!(lanes.idle().is_empty(), "something was added");
    let wants = lanes.begin_read();
    assert_eq!(wants.len(), 1);
    assert!(lanes.idle().is_empty(), "it is being read");
    lanes.fill(raised, [], &ALL, at(0));
    assert_eq!(lanes.idle(), [raised]);
}

#[test]
fn what_a_former_ownership_reports_changes_nothing() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 1)]);
    lanes.next(at(0)).unwrap();
    let again = Lease { fence: 2, ..lane };
    take(&mut lanes, again, 0, 1..=1);
    assert_eq!(lanes.in_flight, 0);
    lanes.next(at(0)).unwrap();
    end(&mut lanes, lane, 1, Ending::Accepted);
    assert_eq!(lanes.in_flight, 1);
    end(&mut lanes, again, 1, Ending::Accepted);
    assert_eq!(
        (lanes.in_flight, lanes.unrecorded, lanes.held_bytes),
        (0, 0, 0)
    );
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

/// What may happen to the lanes.
#[derive(Debug, Clone)]
enum Step {
    Take(u128),
    Forget(u128),
    Read(u128, u8),
    Send,
    Answer(usize, bool),
    Record(usize),
    Clear(u128),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1_u128..=4).prop_map(Step::Take),
        1 => (1_u128..=4).prop_map(Step::Forget),
        4 => (1_u128..=4, 0_u8..30).prop_map(|(lane, rows)| Step::Read(lane, rows)),
        10 => Just(Step::Send),
        10 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(which, is_ok)| Step::Answer(which, is_ok)),
        10 => any::<usize>().prop_map(Step::Record),
        1 => (1_u128..=4).prop_map(Step::Clear),
        2 => (0_u16..3_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens in whatever order: nothing is on its way twice, limits hold, and what is counted is what there is.
    #[test]
    fn what_is_counted_is_what_there_is(steps in proptest::collection::vec(step(), 1..300)) {
        let mut lanes: Lanes<()> = Lanes::new(LIMITS);
        let mut fences = HashMap::new();
        let mut next_sequence = 1;
        let mut sent: Vec<(Lease, i64, bool)> = Vec::new();
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Take(endpoint) => {
                    let fence = fences.entry(endpoint).or_insert(0);
                    *fence += 1;
                    lanes.take(Lease { fence: *fence, ..lease(endpoint, endpoint % 2) }, 0);
                    sent.retain(|(lane, ..)| lane.endpoint != lease(endpoint, 0).endpoint);
                }
                Step::Forget(endpoint) => {
                    lanes.forget(lease(endpoint, 0).endpoint);
                    sent.retain(|(lane, ..)| lane.endpoint != lease(endpoint, 0).endpoint);
                }
                Step::Read(endpoint, rows) => {
                    lanes.look_again();
                    for want in lanes.begin_read() {
                        let of_this = want.lease.endpoint == lease(endpoint, 0).endpoint;
                        let count = if of_this { i64::from(rows) } else { 0 };
                        // Also rows that are known already, as a read from the beginning brings them.
                        let known: Vec<i64> = want.known.into_iter().collect();
                        let fresh = next_sequence..next_sequence + count;
                        next_sequence += count;
                        let rows = known.into_iter().chain(fresh).map(|sequence| Row {
                            resource: (sequence % 3 == 0).then_some(sequence % 7),
                            ..row(sequence)
                        });
                        lanes.fill(want.lease, rows, &ALL, now);
                    }
                }
                Step::Send => {
                    if let Some((lease, rows)) = lanes.next(now) {
                        for row in rows {
                            prop_assert!(!sent.iter().any(|(other, sequence, _)| other.endpoint == lease.endpoint && *sequence == row.sequence));
                            sent.push((lease, row.sequence, false));
                        }
                    }
                }
                Step::Answer(which, is_ok) => {
                    let waiting: Vec<usize> = (0..sent.len()).filter(|place| !sent[*place].2).collect();
                    if let Some(place) = waiting.get(which % waiting.len().max(1)) {
                        sent[*place].2 = true;
                        let ending = if is_ok { Ending::Accepted } else { Ending::Failed(None) };
                        let (lease, sequence, _) = sent[*place];
                        lanes.answered(lease, &[sequence], ending, Duration::from_millis(3), now);
                    }
                }
                Step::Record(which) => {
                    let answered: Vec<usize> = (0..sent.len()).filter(|place| sent[*place].2).collect();
                    if let Some(place) = answered.get(which % answered.len().max(1)) {
                        let (lease, sequence, _) = sent.swap_remove(*place);
                        lanes.recorded(lease, sequence, None, now);
                    }
                }
                Step::Clear(endpoint) => lanes.reread(lease(endpoint, 0).endpoint),
                Step::Wait(millis) => now = now.plus(Duration::from_millis(u64::from(millis))),
            }
            let in_flight = sent.iter().filter(|(.., is_answered)| !is_answered).count();
            prop_assert_eq!(lanes.in_flight, in_flight);
            prop_assert_eq!(lanes.unrecorded, sent.len() - in_flight);
            let held: usize = lanes.lanes.values().map(Lane::held_bytes).sum();
            prop_assert_eq!(lanes.held_bytes, held);
            for share in lanes.merchants.values() {
                prop_assert!(share.in_flight <= LIMITS.in_flight_per_merchant);
            }
        }
        // Nobody who may be sent something waits for a turn that never comes.
        let mut last = now;
        for _ in 0..2_000 {
            while let Some((lease, rows)) = lanes.next(last) {
                sent.extend(rows.iter().map(|row| (lease, row.sequence, false)));
            }
            for (lease, sequence, is_answered) in std::mem::take(&mut sent) {
                if !is_answered {
                    lanes.answered(lease, &[sequence], Ending::Accepted, Duration::from_millis(3), last);
                }
                lanes.recorded(lease, sequence, None, last);
            }
            last = last.plus(Duration::from_secs(1));
        }
        let stuck: Vec<_> = lanes.lanes.values().filter(|lane| !lane.queue.is_empty()).collect();
        prop_assert!(stuck.is_empty(), "{:?}", stuck);
    }
}

#[test]
fn a_lane_stays_quiet_for_as_long_as_its_receiver_or_its_breaker_wants_longer() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 1)]);
    assert_eq!(drain(&mut lanes).len(), 1);
    end(&mut lanes, lane, 1, Ending::Failed(Some(at(90_000))));
    assert_eq!(lanes.quiet_until(lane.endpoint, at(0)), Some(at(90_000)));
    assert_eq!(lanes.quiet_until(lane.endpoint, at(90_000)), None);
    let breaker = &mut lanes.lanes.get_mut(&lane.endpoint).unwrap().breaker;
    for _ in 0..20 {
        breaker.failed(at(95_000));
    }
    assert_eq!(lanes.quiet_until(lane.endpoint, at(0)), Some(at(96_000)));
}

#[test]
fn a_receiver_that_is_gone_is_sent_nothing_more_before_that_is_recorded() {
    let lane = lease(1, 1);
    let mut lanes = filled(&[(lane, 20)]);
    let sent = drain(&mut lanes);
    answer(&mut lanes, lane, sent[0].1, Ending::Gone);
    answer(&mut lanes, lane, sent[1].1, Ending::Failed(None));
    read(&mut lanes, lane, 1..=20);
    assert_eq!(drain(&mut lanes), []);
    assert!(!lanes.recorded(lane, sent[1].1, Some(at(0)), at(0)));
    assert_eq!(drain(&mut lanes), []);
    assert!(lanes.recorded(lane, sent[0].1, Some(at(0)), at(0)));
    for (_, sequence) in &sent[2..] {
        end(&mut lanes, lane, *sequence, Ending::Accepted);
    }
    assert!(!drain(&mut lanes).is_empty());
}
