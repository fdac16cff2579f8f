//! How an endpoint should fare: a part of the model.

use std::time::Duration;

use kernel::clock::Timestamp;

use super::seen::{Seen, Sent};

/// How long nothing but failures came when its owner first hears of it.
const WARNED_AFTER: Duration = Duration::from_hours(1);

/// How long its owner hears nothing more of it then.
const WARNED_EVERY: Duration = Duration::from_hours(24);

/// How long nothing but failures came when it is switched off.
const OFF_AFTER: Duration = Duration::from_hours(5 * 24);

/// How long before that its owner has heard of it at least.
const WARNED_BEFORE: Duration = Duration::from_hours(12);

/// Since when nothing but failures came, and when that was last told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fare {
    failing_since: Option<Timestamp>,
    warned_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait,
    Recovered,
    Warn,
    SwitchOff,
}

impl Fare {
    /// What should come of what was sent at `now`.
    pub(super) fn observe(
        &mut self,
        sent: &[Sent],
        seen: &Seen,
        now: Timestamp,
    ) -> Result<Verdict, String> {
        let taken = sent.iter().filter(|one| one.said.is_taken()).count();
        let failed = sent.len() - taken;
        let before = *self;
        let mut verdict = Verdict::Wait;
        if failed > 0 {
            let since = *self.failing_since.get_or_insert(now);
            verdict = self.verdict(now.since(since), now);
        }
        if verdict == Verdict::Warn {
            self.warned_at = Some(now);
        }
        if taken > 0 && failed > 0 {
            // Which came last is not known; both were at `now`. A failure that was settled before any success may have been the last straw.
            let is_told = seen.announced.iter().any(|(kind, at)| {
                *at == now && (kind.ends_with(".failing") || kind.ends_with(".disabled"))
            });
            if !is_told {
                verdict = Verdict::Wait;
            }
            *self = match seen.fare.failing_since {
                None => Self::default(),
                Some(since) if since == now => Self {
                    failing_since: Some(now),
                    warned_at: None,
                },
                Some(_) => return Err(format!("{:?} although something was taken", seen.fare)),
            };
        } else if taken > 0 {
            if before.failing_since.is_some() {
                verdict = Verdict::Recovered;
            }
            *self = Self::default();
        }
        if *self != seen.fare {
            return Err(format!("it fares as {:?} and not {self:?}", seen.fare));
        }
        Ok(verdict)
    }

    fn verdict(&self, failing_for: Duration, now: Timestamp) -> Verdict {
        match self.warned_at.map(|warned_at| now.since(warned_at)) {
            Some(warned) if failing_for >= OFF_AFTER && warned >= WARNED_BEFORE => {
                Verdict::SwitchOff
            }
            Some(warned) if warned >= WARNED_EVERY => Verdict::Warn,
            None if failing_for >= WARNED_AFTER => Verdict::Warn,
            Some(_) | None => Verdict::Wait,
        }
    }

    pub(super) fn new(failing_since: Option<Timestamp>, warned_at: Option<Timestamp>) -> Self {
        Self {
            failing_since,
            warned_at,
        }
    }
}
