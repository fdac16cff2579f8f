//! Whatever is added, left, sent again or forgotten while reads are under way, reads find it; and they go through little again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use kernel::id::{EventId, MerchantId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{delivery::Signal, endpoint::EndpointId};

/// Rows of each priority that a read brings at most.
const ROWS_MAX: usize = 3;

fn at(time: i64) -> Timestamp {
    Timestamp::from_unix_millis(time)
}

fn due(sequence: i64, is_bulk: bool, due_at: Timestamp) -> Due {
    Due {
        merchant: MerchantId::from_uuid(Uuid::nil()),
        endpoint: EndpointId::from_uuid(Uuid::nil()),
        sequence,
        event: EventId::from_uuid(Uuid::nil()),
        attempt_count: 0,
        due_at,
        priority: i16::from(is_bulk),
        resource_key: None,
        data_bytes: 0,
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A delivery is added by a clock that is late by so much, at the end of the table or among what is there.
    Add {
        is_bulk: bool,
        late_by: i64,
    },
    /// The same, of one that has to wait for something.
    AddWaiting {
        is_bulk: bool,
    },
    /// What the first of those waits for is over.
    LetGo,
    /// The lane's signal is looked at.
    Look,
    Begin,
    /// The read that was begun sees the table.
    Read {
        room: usize,
    },
    End,
    /// What is known first is over.
    Over,
    /// It is to be sent again after so long.
    Again {
        wait: i64,
    },
    Forget,
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<bool>(), prop_oneof![5 => Just(0), 1 => 0..5_i64])
            .prop_map(|(is_bulk, late_by)| Step::Add { is_bulk, late_by }),
        1 => any::<bool>().prop_map(|is_bulk| Step::AddWaiting { is_bulk }),
        1 => Just(Step::LetGo),
        2 => Just(Step::Look),
        3 => Just(Step::Begin),
        3 => (1..=2 * ROWS_MAX).prop_map(|room| Step::Read { room }),
        3 => Just(Step::End),
        2 => Just(Step::Over),
        1 => (0..4_i64).prop_map(|wait| Step::Again { wait }),
        1 => Just(Step::Forget),
        2 => Just(Step::Tick),
    ];
    prop::collection::vec(step, 0..120)
}

#[derive(Debug, Default)]
struct Lane {
    reach: Reach,
    seen: Signal,
    known: BTreeSet<i64>,
    begun: Option<ReadAfter>,
    found: Option<(Extent, Vec<i64>)>,
    wants_read: bool,
}

/// A table, and a lane that reads it.
#[derive(Debug, Default)]
struct World {
    now: i64,
    signal: Signal,
    rows: BTreeMap<i64, Due>,
    waiting: BTreeSet<i64>,
    next_sequence: i64,
    lane: Lane,
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Add { is_bulk, late_by } => self.add(is_bulk, late_by),
            Step::AddWaiting { is_bulk } => {
                self.add(is_bulk, 0);
                self.waiting.insert(self.next_sequence);
            }
            Step::LetGo => {
                if self.waiting.pop_first().is_some() {
                    self.lane.reach.go_back();
                }
            }
            Step::Look => self.look(),
            Step::Begin => {
                self.lane.found = None;
                self.lane.begun = Some(self.lane.reach.begin());
            }
            Step::Read { room } => self.read(room),
            Step::End => self.end(),
            Step::Over => {
                if let Some(sequence) = self.lane.known.pop_first() {
                    self.rows.remove(&sequence);
                }
            }
            Step::Again { wait } => {
                if let Some(sequence) = self.lane.known.pop_first() {
                    let due_at = at(self.now + wait);
                    self.rows.get_mut(&sequence).unwrap().due_at = due_at;
                    self.lane.reach.add(ReadAfter::before(due_at));
                }
            }
            Step::Forget => {
                self.lane.known.clear();
                self.lane.reach.forget();
                // A read that is under way counts no more.
                self.lane.begun = None;
                self.lane.found = None;
            }
            Step::Tick => self.now += 1,
        }
    }

    /// As the statement does that raises lanes.
    fn add(&mut self, is_bulk: bool, late_by: i64) {
        self.next_sequence += 1;
        let due_at = at(self.now - late_by);
        self.rows
            .insert(self.next_sequence, due(self.next_sequence, is_bulk, due_at));
        let Signal {
            number,
            added_at,
            unordered_number,
        } = self.signal;
        let is_unordered = added_at.is_some_and(|added_at| due_at <= added_at);
        self.signal = Signal {
            number: number + 1,
            added_at: added_at.max(Some(due_at)),
            unordered_number: if is_unordered {
                number + 1
            } else {
                unordered_number
            },
        };
    }

    fn look(&mut self) {
        if self.signal != self.lane.seen {
            let added_after = self.signal.added_after(self.lane.seen);
            let place = added_after.map_or(ReadAfter::BEGINNING, ReadAfter::behind);
            self.lane.reach.add(place);
            self.lane.seen = self.signal;
        }
    }

    /// As the statement does that reads what is due, and what then is picked.
    fn read(&mut self, room: usize) {
        let (Some(began), None) = (self.lane.begun, &self.lane.found) else {
            return;
        };
        let now = at(self.now);
        let of = |is_bulk: bool, after: Option<(Timestamp, i64)>| {
            let mut rows: Vec<Due> = self
                .rows
                .values()
                .filter(|row| (row.priority > 0) == is_bulk && row.due_at <= now)
                .filter(|row| Some((row.due_at, row.sequence)) > after)
                .cloned()
                .collect();
            rows.sort_by_key(|row| (row.due_at, row.sequence));
            let is_full = rows.len() > ROWS_MAX;
            rows.truncate(ROWS_MAX);
            (rows, is_full)
        };
        let (mut rows, normal_is_full) = of(false, began.normal);
        let (bulk, bulk_is_full) = of(true, began.bulk);
        rows.extend(bulk);
        let mut extent = Extent::of(began, &rows, !normal_is_full && !bulk_is_full);
        let mut taken = Vec::new();
        for row in rows {
            if self.lane.known.contains(&row.sequence) {
                continue;
            }
            if self.waiting.contains(&row.sequence) {
                extent.leave(&row);
            } else if taken.len() >= room {
                extent.break_off(&row);
            } else {
                taken.push(row.sequence);
            }
        }
        self.lane.found = Some((extent, taken));
    }

    fn end(&mut self) {
        if let Some((extent, taken)) = self.lane.found.take() {
            self.lane.begun = None;
            self.lane.wants_read = self.lane.reach.end(&extent, !taken.is_empty());
            // What is over meanwhile was known to the read: here nothing becomes known but by a read.
            self.lane.known.extend(taken);
        }
    }

    /// Reads until nothing more is found, as far as is due at the end of all time.
    fn drain(&mut self) {
        self.lane.begun = None;
        self.lane.found = None;
        self.now += 1_000;
        self.waiting.clear();
        self.lane.reach.go_back();
        self.look();
        for _ in 0..1_000 {
            self.step(Step::Begin);
            self.read(usize::MAX);
            self.end();
            if !self.lane.wants_read {
                return;
            }
        }
        panic!("it never came to an end: {self:?}");
    }
}

proptest! {
    #[test]
    fn no_row_is_passed_over(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
        }
        world.drain();
        let rows: BTreeSet<i64> = world.rows.keys().copied().collect();
        prop_assert_eq!(&rows, &world.lane.known, "{:?}", world);
    }
}

#[test]
fn what_was_added_in_order_is_read_without_going_through_what_was_there() {
    let mut world = World::default();
    for _ in 0..10 {
        world.now += 1;
        world.add(false, 0);
        world.look();
        let before = world.lane.reach.begin();
        let last = world.now - 1;
        assert!(
            last == 0 || before.normal >= Some((at(last), 0)),
            "{before:?}"
        );
        world.lane.begun = Some(before);
        world.read(usize::MAX);
        world.end();
        world.step(Step::Over);
    }
    assert_eq!(world.rows.len(), 0);
    // One that comes out of order has it read from the beginning.
    world.add(false, 5);
    world.look();
    assert_eq!(world.lane.reach.begin(), ReadAfter::BEGINNING);
}

#[test]
fn what_waits_is_passed_by_until_it_may_go() {
    let mut world = World::default();
    for _ in 0..3 {
        world.now += 1;
        world.step(Step::AddWaiting { is_bulk: false });
        world.now += 1;
        world.add(false, 0);
    }
    world.look();
    for _ in 0..3 {
        world.step(Step::Begin);
        world.read(usize::MAX);
        world.end();
    }
    assert_eq!(world.lane.known, BTreeSet::from([2, 4, 6]));
    assert!(world.lane.reach.next.normal >= Some((at(6), 6)));
    world.step(Step::LetGo);
    assert_eq!(world.lane.reach.next.normal, Some((at(1), 0)));
}

#[test]
fn what_waits_is_in_the_way_of_nothing_however_often_something_may_go() {
    let mut world = World::default();
    for _ in 0..4 * ROWS_MAX {
        world.now += 1;
        world.step(Step::AddWaiting { is_bulk: false });
    }
    for _ in 0..ROWS_MAX {
        world.now += 1;
        world.add(false, 0);
    }
    world.look();
    // Something is recorded during each read, and between them.
    let mut reads = 0;
    while world.lane.known.len() < ROWS_MAX {
        reads += 1;
        assert!(reads < 10, "{world:?}");
        world.step(Step::Begin);
        world.lane.reach.go_back();
        world.read(usize::MAX);
        world.end();
        world.lane.reach.go_back();
    }
    assert_eq!(
        world.lane.reach.begin().normal,
        Some((at(1), 0)),
        "then it goes back"
    );
}
