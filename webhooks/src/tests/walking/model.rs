//! What an endpoint is promised, as a model: schedules, breaker, health, switching off, catch-up. Written from the documentation, and its numbers
//! stated anew, so that what the engine does is held against what is said of it and not against itself.
//!
//! It is told what the script does, and then, each time that nothing more is to be done at the clock's present, what was sent meanwhile and what the tables
//! say. Whatever does not agree is a fault.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use kernel::clock::Timestamp;

use super::{
    breaker::Breaker,
    fare::{Fare, Verdict},
    seen::{Lane, Said, Seen, Sent},
};
use crate::{
    endpoint::CatchUp,
    replay::{ReplayId, SelectedState},
};

/// The longest wait that a `Retry-After` is granted.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// The longest that it holds back what else waits for the endpoint.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Queued(Queued),
    Taken,
    /// Given up on: a dead letter.
    Dead,
    /// Numbered while the endpoint was disabled.
    Unqueued,
    /// Taken off the queue because the owner wanted nothing of what was missed.
    Dropped,
}

/// A delivery on the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queued {
    /// Attempts since it was queued.
    attempts: u32,
    /// Between these it is due again.
    earliest: Timestamp,
    latest: Timestamp,
}

impl Queued {
    fn anew(now: Timestamp) -> State {
        State::Queued(Self {
            attempts: 0,
            earliest: now,
            latest: now,
        })
    }
}

#[derive(Debug)]
struct Entry {
    resource: String,
    state: State,
    /// Whether the receiver has ever taken it.
    was_taken: bool,
}

#[derive(Debug)]
struct Letter {
    sequence: i64,
    reason: &'static str,
    was_replayed: bool,
}

/// Why and since when an endpoint is disabled.
#[derive(Debug, Clone, Copy)]
struct Off {
    reason: &'static str,
    /// The last number of its stream then.
    sequence: i64,
}

/// A replay that is not over.
#[derive(Debug)]
struct Running {
    id: ReplayId,
    state: SelectedState,
    after: i64,
    until: i64,
}

/// An endpoint, as it should be.
#[derive(Debug)]
pub(super) struct Model {
    /// The waits between attempts.
    waits: Vec<Duration>,
    is_ordered: bool,
    /// Requests in flight at most.
    concurrency: usize,
    /// By sequence, from 1.
    entries: Vec<Entry>,
    letters: Vec<Letter>,
    off: Option<Off>,
    breaker: Breaker,
    /// The receiver asked to be left alone until then.
    paused_until: Option<Timestamp>,
    fare: Fare,
    /// Events that tell of the endpoint itself, with their times.
    announced: Vec<(String, Timestamp)>,
    replays: Vec<Running>,
    faults: Vec<String>,
    /// How often what happened, to see that a walk has come to it.
    pub(super) tally: BTreeMap<&'static str, u32>,
}

impl Model {
    pub(super) fn new(waits: Vec<Duration>, is_ordered: bool, concurrency: usize) -> Self {
        Self {
            waits,
            is_ordered,
            concurrency,
            entries: Vec::new(),
            letters: Vec::new(),
            off: None,
            breaker: Breaker::default(),
            paused_until: None,
            fare: Fare::default(),
            announced: Vec::new(),
            replays: Vec::new(),
            faults: Vec::new(),
            tally: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// What does not agree so far.
    pub(super) fn faults(&self) -> &[String] {
        &self.faults
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.off.is_none()
    }

    pub(super) fn last_sequence(&self) -> i64 {
        i64::try_from(self.entries.len()).unwrap()
    }

    fn entry(&mut self, sequence: i64) -> &mut Entry {
        let place = usize::try_from(sequence - 1).unwrap();
        &mut self.entries[place]
    }

    fn sequences(&self) -> impl Iterator<Item = (i64, &Entry)> {
        (1..).zip(&self.entries)
    }

    /// An event was relayed.
    pub(super) fn numbered(&mut self, resource: &str, now: Timestamp) {
        let state = match self.off {
            None => Queued::anew(now),
            Some(_) => State::Unqueued,
        };
        self.entries.push(Entry {
            resource: resource.to_owned(),
            state,
            was_taken: false,
        });
    }

    /// The owner has disabled it.
    pub(super) fn disable(&mut self, now: Timestamp) {
        self.switch_off("requested", now);
    }

    fn switch_off(&mut self, reason: &'static str, now: Timestamp) {
        self.off = Some(Off {
            reason,
            sequence: self.last_sequence(),
        });
        self.announced
            .push(("webhook_endpoint.disabled".to_owned(), now));
        self.count(reason);
    }

    /// The owner has enabled it, and a replay was begun for what it has missed.
    pub(super) fn enable(
        &mut self,
        catch_up: Option<CatchUp>,
        replay: Option<ReplayId>,
        now: Timestamp,
    ) {
        let Some(off) = self.off.take() else { return };
        self.announced
            .push(("webhook_endpoint.enabled".to_owned(), now));
        // It gets another chance: how it fared before says nothing of how it will.
        self.fare = Fare::default();
        self.breaker = Breaker::default();
        self.paused_until = None;
        let has_missed = off.sequence < self.last_sequence();
        match catch_up {
            Some(CatchUp::All) => {
                self.count("catch up with all");
                match replay {
                    Some(id) if has_missed => {
                        self.replay(id, SelectedState::Missed, off.sequence);
                    }
                    None if !has_missed => {}
                    other => self.fault(format!("missed: {has_missed}, replay: {other:?}")),
                }
            }
            Some(CatchUp::None) => {
                self.count("catch up with none");
                for entry in &mut self.entries {
                    if matches!(entry.state, State::Queued(_)) {
                        entry.state = State::Dropped;
                    }
                }
            }
            None => self.count("catch up with what waited"),
        }
    }

    /// A replay was begun.
    pub(super) fn replay(&mut self, id: ReplayId, state: SelectedState, after: i64) {
        self.replays.push(Running {
            id,
            state,
            after,
            until: self.last_sequence(),
        });
    }

    /// One event is to be sent again at once.
    pub(super) fn bring_forward(&mut self, sequence: i64, now: Timestamp) {
        let entry = self.entry(sequence);
        entry.state = match entry.state {
            State::Queued(queued) => State::Queued(Queued {
                earliest: queued.earliest.min(now),
                latest: queued.latest.min(now),
                ..queued
            }),
            _ => Queued::anew(now),
        };
        self.letters_replayed(&[sequence]);
    }

    /// The newest dead letter is to be sent again at once.
    pub(super) fn letter_replayed(&mut self, sequence: i64, now: Timestamp) {
        let others: Vec<bool> = self
            .letters
            .iter()
            .map(|letter| letter.was_replayed)
            .collect();
        self.bring_forward(sequence, now);
        for (letter, was_replayed) in self.letters.iter_mut().zip(others) {
            letter.was_replayed = was_replayed;
        }
        let newest = |letter: &&mut Letter| letter.sequence == sequence;
        if let Some(letter) = self.letters.iter_mut().rev().find(newest) {
            letter.was_replayed = true;
        }
    }

    fn letters_replayed(&mut self, sequences: &[i64]) {
        for letter in &mut self.letters {
            letter.was_replayed |= sequences.contains(&letter.sequence);
        }
    }

    /// All that a replay names, and is not queued, is queued.
    fn replayed(&mut self, replay: &Running, now: Timestamp) {
        self.count("replay");
        let mut queued = Vec::new();
        let dead: Vec<i64> = self
            .letters
            .iter()
            .filter(|letter| !letter.was_replayed)
            .map(|letter| letter.sequence)
            .collect();
        for (sequence, entry) in (1..).zip(&mut self.entries) {
            let is_chosen = match replay.state {
                SelectedState::All => true,
                SelectedState::Missed => !entry.was_taken,
                SelectedState::Dead => dead.contains(&sequence),
            };
            let is_within = sequence > replay.after && sequence <= replay.until;
            if is_within && is_chosen && !matches!(entry.state, State::Queued(_)) {
                entry.state = Queued::anew(now);
                queued.push(sequence);
            }
        }
        self.letters_replayed(&queued);
    }

    /// A worker was killed while it held the lane: what only it knew is forgotten.
    pub(super) fn owner_died(&mut self, lane: &Lane) {
        self.paused_until = None;
        self.breaker.owner_died(lane);
    }

    /// Until when the receiver asked to be left alone, if that is to come.
    pub(super) fn paused_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.paused_until.filter(|until| *until > now)
    }

    /// What is queued and does not wait for an earlier one of its resource.
    fn firsts(&self) -> Vec<(i64, Queued)> {
        let mut waited_for = HashSet::new();
        let mut firsts = Vec::new();
        for (sequence, entry) in self.sequences() {
            if let State::Queued(queued) = entry.state {
                let is_first = waited_for.insert(&entry.resource);
                if is_first || !self.is_ordered {
                    firsts.push((sequence, queued));
                }
            }
        }
        firsts
    }

    /// When something may be sent next, as far as is known.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.firsts().into_iter().map(|(_, queued)| queued.latest);
        let due = due.min().filter(|_| self.is_enabled())?;
        Some(due.max(self.quiet_until(now).unwrap_or(due)))
    }

    fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.breaker.rests_until(now).max(self.paused_until(now))
    }

    /// Nothing more is to be done at `now`, the first time since the last observation that the clock has moved. What was sent since then, in its order, and
    /// what the tables say.
    pub(super) fn observe(&mut self, sent: &[Sent], seen: &Seen, now: Timestamp) {
        let (over, running): (Vec<_>, Vec<_>) = std::mem::take(&mut self.replays)
            .into_iter()
            .partition(|replay| seen.completed_replays.contains(&replay.id));
        self.replays = running;
        for replay in &over {
            self.replayed(replay, now);
        }
        self.may_send(sent, now);
        for one in sent {
            self.is_in_turn(one, now);
            self.ends(one, seen, now);
        }
        self.fares(sent, seen, now);
        let mut breaker = self.breaker;
        match breaker.observe(sent, seen, self.concurrency, now) {
            Ok(whats) => whats.into_iter().for_each(|what| self.count(what)),
            Err(fault) => self.fault(fault),
        }
        self.breaker = breaker;
        self.pauses(sent, now);
        self.agrees_with(seen, now);
        self.has_sent_what_was_due(seen, now);
    }

    /// Whether anything may be sent at all.
    fn may_send(&mut self, sent: &[Sent], now: Timestamp) {
        let Some(first) = sent.first() else { return };
        if let Some(off) = self.off {
            self.fault(format!("{first:?} while it is disabled: {off:?}"));
        }
        if let Some(until) = self.breaker.rests_until(now) {
            self.fault(format!("{first:?} while the breaker rests until {until}"));
        }
        if let Some(until) = self.paused_until(now) {
            self.fault(format!(
                "{first:?} while it is to be left alone until {until}"
            ));
        }
    }

    /// Whether a request was due, and the first of its resource. What is taken leaves the queue.
    fn is_in_turn(&mut self, one: &Sent, now: Timestamp) {
        let entry = self.entry(one.sequence);
        let (resource, state) = (entry.resource.clone(), entry.state);
        match state {
            State::Queued(queued) if queued.earliest <= now => {
                if i64::from(one.number) != i64::from(queued.attempts) + 1 {
                    self.fault(format!("{one:?} after {queued:?}"));
                }
            }
            state => self.fault(format!("{one:?} was sent, being {state:?}")),
        }
        let firsts = self.firsts();
        let mut firsts = firsts.iter().map(|(sequence, _)| *sequence);
        if self.is_ordered && !firsts.any(|first| first == one.sequence) {
            self.fault(format!("{one:?} was sent before another of {resource}"));
        }
    }

    /// What comes of an attempt: it leaves the queue, is due again within the schedule's bounds, or is a dead letter.
    fn ends(&mut self, one: &Sent, seen: &Seen, now: Timestamp) {
        if one.said.is_taken() {
            let entry = self.entry(one.sequence);
            entry.state = State::Taken;
            entry.was_taken = true;
            return;
        }
        let State::Queued(queued) = self.entry(one.sequence).state else {
            return;
        };
        let attempts = queued.attempts + 1;
        if one.said == Said::Status(410, None) {
            // Of several it is the first that is given up on; whichever is settled first.
            let gone = |(sequence, reason): &(i64, String)| {
                *sequence == one.sequence && reason == "endpoint_gone"
            };
            let count = seen.letters.iter().filter(|letter| gone(letter)).count();
            let before = |letter: &&Letter| {
                letter.sequence == one.sequence && letter.reason == "endpoint_gone"
            };
            if count > self.letters.iter().filter(before).count() {
                self.bury(one.sequence, "endpoint_gone");
            } else {
                self.entry(one.sequence).state = State::Queued(Queued {
                    attempts,
                    earliest: now,
                    latest: now,
                });
            }
            return;
        }
        let place = usize::try_from(queued.attempts).unwrap();
        let Some(wait) = self.waits.get(place).copied() else {
            self.bury(one.sequence, "attempts_exhausted");
            return;
        };
        let asked = one.said.retry_after().min(RETRY_AFTER_MAX);
        self.entry(one.sequence).state = State::Queued(Queued {
            attempts,
            earliest: now.plus((wait * 4 / 5).max(asked)),
            latest: now.plus((wait * 6 / 5).max(asked)),
        });
    }

    fn bury(&mut self, sequence: i64, reason: &'static str) {
        self.count(reason);
        self.entry(sequence).state = State::Dead;
        self.letters.push(Letter {
            sequence,
            reason,
            was_replayed: false,
        });
    }

    /// Health, warnings, switching off.
    fn fares(&mut self, sent: &[Sent], seen: &Seen, now: Timestamp) {
        let verdict = match self.fare.observe(sent, seen, now) {
            Ok(verdict) => verdict,
            Err(fault) => return self.fault(fault),
        };
        match verdict {
            Verdict::Wait => {}
            Verdict::Recovered => self.count("recovered"),
            Verdict::Warn => {
                self.count("warned");
                self.announced
                    .push(("webhook_endpoint.failing".to_owned(), now));
            }
            Verdict::SwitchOff => return self.switch_off("failing", now),
        }
        if sent.iter().any(|one| one.said == Said::Status(410, None)) {
            self.switch_off("gone", now);
        }
    }

    /// Nothing more is sent to a receiver that is gone, or wants to be left alone, but what was on its way already when it said so.
    fn is_heeded(&mut self, sent: &[Sent], says: fn(&Sent) -> bool) {
        let first = sent.iter().position(says).unwrap_or(sent.len());
        if sent.len() - first > self.concurrency {
            self.fault(format!("not heeded: {:?}", sent[first].said));
        }
    }

    /// A receiver that is overloaded says so of itself, rather than of one event.
    fn pauses(&mut self, sent: &[Sent], now: Timestamp) {
        let asks = |one: &Sent| one.said.is_busy() && !one.said.retry_after().is_zero();
        self.is_heeded(sent, asks);
        self.is_heeded(sent, |one| one.said == Said::Status(410, None));
        let asked = sent.iter().filter(|one| asks(one));
        let Some(asked) = asked.map(|one| one.said.retry_after()).max() else {
            return;
        };
        self.count("paused");
        let until = now.plus(asked.min(PAUSE_MAX));
        self.paused_until = self.paused_until.max(Some(until));
    }

    fn agrees_with(&mut self, seen: &Seen, now: Timestamp) {
        let status = self.off.map(|off| (off.reason.to_owned(), off.sequence));
        if status != seen.off {
            self.fault(format!("disabled is {:?} and not {status:?}", seen.off));
        }
        if self.announced != seen.announced {
            let expected = &self.announced;
            self.fault(format!(
                "{:?} and not {expected:?} was announced",
                seen.announced
            ));
        }
        let stream: Vec<(i64, String)> = self
            .sequences()
            .map(|(sequence, entry)| (sequence, entry.resource.clone()))
            .collect();
        if stream != seen.stream {
            self.fault(format!(
                "the stream is {:?} and not {stream:?}",
                seen.stream
            ));
        }
        let mut letters: Vec<(i64, String)> = self
            .letters
            .iter()
            .map(|letter| (letter.sequence, letter.reason.to_owned()))
            .collect();
        letters.sort_unstable();
        if letters != seen.letters {
            self.fault(format!(
                "dead letters are {:?} and not {letters:?}",
                seen.letters
            ));
        }
        for sequence in 1..=self.last_sequence() {
            let state = self.entry(sequence).state;
            let (seen, fits) = match (state, seen.queued.get(&sequence)) {
                (State::Queued(queued), Some((attempts, due_at))) => (
                    Some((*attempts, *due_at)),
                    *attempts == queued.attempts
                        && (queued.earliest..=queued.latest).contains(due_at),
                ),
                (State::Queued(_), None) => (None, false),
                (_, seen) => (seen.copied(), seen.is_none()),
            };
            if !fits {
                self.fault(format!(
                    "{sequence} is queued as {seen:?} at {now}, and not {state:?}"
                ));
            } else if let (State::Queued(queued), Some((_, due_at))) = (state, seen) {
                // Where in its bounds it fell is known from here on.
                self.entry(sequence).state = State::Queued(Queued {
                    earliest: due_at,
                    latest: due_at,
                    ..queued
                });
            }
        }
    }

    /// Nothing waits beyond its time but what has to.
    fn has_sent_what_was_due(&mut self, seen: &Seen, now: Timestamp) {
        if !self.is_enabled() || self.quiet_until(now).is_some() {
            return;
        }
        for (sequence, queued) in self.firsts() {
            if queued.latest <= now {
                let (due, lane) = (queued.latest, &seen.lane);
                self.fault(format!(
                    "{sequence} is due since {due} and was not sent by {lane:?}"
                ));
            }
        }
    }

    /// Nothing is left to do: what became of all that was numbered?
    pub(super) fn ended(&mut self) {
        for sequence in 1..=self.last_sequence() {
            let Entry {
                state, was_taken, ..
            } = self.entry(sequence);
            let (state, was_taken) = (*state, *was_taken);
            match state {
                State::Taken if was_taken => self.count("taken"),
                State::Dead => self.count("left dead"),
                State::Unqueued => self.count("left unqueued"),
                State::Dropped => self.count("left dropped"),
                State::Taken | State::Queued(_) => self.fault(format!("{sequence} is {state:?}")),
            }
        }
    }
}
