//! For how long a merchant gives something: the choices at consent, and whenever a grant is extended or shortened.

use std::time::Duration;

use kernel::clock::Timestamp;
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_hours(24);

/// For how long, counted from when it is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
    /// 365 days.
    Year,
    /// Without an end of its own.
    UntilRevoked,
}

impl Term {
    /// Every term, the shortest first.
    pub const ALL: [Self; 5] = [
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Year,
        Self::UntilRevoked,
    ];

    /// How long it is; `None`: without end.
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Day => Some(DAY),
            Self::Week => Some(Duration::from_hours(7 * 24)),
            Self::Month => Some(Duration::from_hours(30 * 24)),
            Self::Year => Some(Duration::from_hours(365 * 24)),
            Self::UntilRevoked => None,
        }
    }

    /// When what is given at `now` ends; `None`: not by itself.
    pub fn end(self, now: Timestamp) -> Option<Timestamp> {
        self.duration().map(|duration| now.plus(duration))
    }

    /// The name, as forms have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
            Self::UntilRevoked => "until_revoked",
        }
    }

    /// The term of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|term| term.name() == name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn each_term_is_longer_than_the_one_before_and_is_found_by_its_name() {
        let now = Timestamp::from_unix_millis(0);
        let ends = Term::ALL.map(|term| {
            term.end(now)
                .map_or(i64::MAX, |end| end.unix_seconds() / 86_400)
        });
        assert_eq!(ends, [1, 7, 30, 365, i64::MAX]);
        for term in Term::ALL {
            assert_eq!(Term::of_name(term.name()), Some(term));
            assert_eq!(serde_json::to_value(term).unwrap(), term.name());
        }
        assert_eq!(Term::of_name("decade"), None);
    }
}
