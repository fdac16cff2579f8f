//! How signing keys take each other's place.
//!
//! A key signs for thirty days. Its successor is made and published a day before it signs, and never less than a quarter of an hour: whoever keeps
//! the JWK set for as long as it may be kept knows a key before the first token under it. The predecessor verifies until its last token has
//! expired, and is then retired. Of several processes one does what is due, under a lock; the others read what it did.
//!
//! An operator rotates by `stoa signing-key rotate`: in the same order, but as soon as may be; or at once, if a key has become known.

use std::time::Duration;

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::{Clock, Timestamp},
    db::{self, Database},
    id::RequestId,
    keyring::Keyring,
};
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;

use super::{
    super::store::{self, KeyRow},
    RELOAD_INTERVAL, generate,
};
use crate::{Error, token};

/// For how long a key signs.
pub const SIGNING_PERIOD: Duration = Duration::from_hours(30 * 24);

/// How long before it signs a successor is made when nothing presses.
pub const MADE_AHEAD: Duration = Duration::from_hours(24);

/// How long a key is published before it signs, at least: five minutes for which the JWK set may be kept, the time until every process has
/// read the key, and as much again for clocks that differ and processes that stumble.
pub const PUBLISHED_AHEAD: Duration = Duration::from_mins(15);

const _: () = assert!(
    PUBLISHED_AHEAD.as_secs() > 2 * (300 + RELOAD_INTERVAL.as_secs()),
    "a key must be known before it signs"
);

/// How long after its successor has begun to sign a key is retired: once its last token has expired, and some minutes for clocks that differ.
pub const RETIRED_AFTER: Duration = Duration::from_mins(15);

const _: () = assert!(
    RETIRED_AFTER.as_secs() > token::LIFETIME.as_secs() + 4 * 60,
    "a key must outlive its tokens"
);

/// How to rotate by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Publish the successor now, and have it sign as soon as everybody may know it.
    Announced,
    /// The keys may be known to others: retire all of them, and sign with a new one at once. Every token that is out is refused.
    AtOnce,
}

/// What a key is to new and old tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Published, and will sign.
    Upcoming,
    /// Signs.
    Signing,
    /// Signs no more, and verifies what it has signed.
    Verifying,
    /// Verifies nothing.
    Retired,
}

/// A key, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySummary {
    /// The thumbprint (RFC 7638).
    pub kid: String,
    /// What it is at the moment.
    pub state: KeyState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it began to sign, or will.
    pub signs_from: Timestamp,
    /// When it was retired; null: it is not.
    pub retired_at: Option<Timestamp>,
}

/// A key that is not retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyTime<'k> {
    pub(super) kid: &'k str,
    pub(super) signs_from: Timestamp,
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan<'k> {
    /// A successor that signs from then on.
    successor_from: Option<Timestamp>,
    retire: Vec<&'k str>,
}

impl Plan<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.successor_from.is_none() && self.retire.is_empty()
    }
}

/// What is due at `now` for `keys`, those first whose time comes last.
pub(super) fn plan<'k>(keys: &[KeyTime<'k>], now: Timestamp) -> Plan<'k> {
    let last = keys.first();
    let successor_from = last
        .map(|last| last.signs_from.plus(SIGNING_PERIOD))
        .filter(|due| due.minus(MADE_AHEAD) <= now)
        .map(|due| due.max(now.plus(PUBLISHED_AHEAD)));
    let retire = keys
        .iter()
        .zip(keys.iter().skip(1))
        .filter(|(successor, _)| successor.signs_from.plus(RETIRED_AFTER) <= now)
        .map(|(_, key)| key.kid)
        .collect();
    Plan {
        successor_from,
        retire,
    }
}

/// Does what is due, unless another process has.
pub(super) async fn run(
    database: &Database,
    keyring: &Keyring,
    clock: &Clock,
) -> Result<(), Error> {
    let mut tx = database.begin().await?;
    store::lock(&mut tx).await?;
    let rows = store::select(&mut tx).await?;
    let now = clock.now();
    let caller = Caller::local(RequestId::new(now));
    let Plan {
        successor_from,
        retire: retired,
    } = plan(&times(&rows), now);
    if let Some(signs_from) = successor_from {
        create(&mut tx, keyring, &caller, signs_from, now).await?;
    }
    retire(&mut tx, &caller, &retired, now).await?;
    Ok(tx.commit().await.map_err(db::Error::from)?)
}

/// Rotates by hand; the keys afterwards. The transaction must have entered no merchant. Processes follow within ten seconds.
pub async fn rotate(
    tx: &mut PgConnection,
    keyring: &Keyring,
    caller: &Caller,
    pace: Pace,
    now: Timestamp,
) -> Result<Vec<KeySummary>, Error> {
    store::lock(&mut *tx).await?;
    let rows = store::select(&mut *tx).await?;
    let successor = match pace {
        Pace::AtOnce => {
            let known: Vec<&str> = rows.iter().map(|row| row.kid.as_str()).collect();
            retire(&mut *tx, caller, &known, now).await?;
            create(&mut *tx, keyring, caller, now, now).await?
        }
        Pace::Announced => {
            let soon = now.plus(PUBLISHED_AHEAD);
            match rows.into_iter().next().filter(|row| row.signs_from > now) {
                // One that is waiting already is not kept waiting.
                Some(mut waiting) => {
                    waiting.signs_from = waiting.signs_from.min(soon);
                    store::bring_forward(&mut *tx, &waiting.kid, waiting.signs_from).await?;
                    waiting
                }
                None => create(&mut *tx, keyring, caller, soon, now).await?,
            }
        }
    };
    let entry = NewEntry::succeeded("signing_key.rotated")
        .to("signing_key", &successor.kid)
        .with(json!({"signsFrom": successor.signs_from, "atOnce": pace == Pace::AtOnce}));
    audit::record(&mut *tx, Log::Installation, caller, now, &entry).await?;
    list(tx, now).await
}

/// Every key, those first whose time to sign came last.
pub async fn list(tx: &mut PgConnection, now: Timestamp) -> Result<Vec<KeySummary>, Error> {
    let lives = store::select_lives(tx).await?;
    let signing = lives
        .iter()
        .position(|life| life.retired_at.is_none() && life.signs_from <= now);
    let keys = lives
        .into_iter()
        .enumerate()
        .map(|(place, life)| KeySummary {
            state: if life.retired_at.is_some() {
                KeyState::Retired
            } else if life.signs_from > now {
                KeyState::Upcoming
            } else if signing == Some(place) {
                KeyState::Signing
            } else {
                KeyState::Verifying
            },
            kid: life.kid,
            created_at: life.created_at,
            signs_from: life.signs_from,
            retired_at: life.retired_at,
        });
    Ok(keys.collect())
}

/// Makes a key that signs from `signs_from` on. The lock must be held.
pub(super) async fn create(
    tx: &mut PgConnection,
    keyring: &Keyring,
    caller: &Caller,
    signs_from: Timestamp,
    now: Timestamp,
) -> Result<KeyRow, Error> {
    let row = generate(keyring, signs_from)?;
    store::insert(&mut *tx, &row, now).await?;
    let entry = NewEntry::succeeded("signing_key.created")
        .to("signing_key", &row.kid)
        .with(json!({"signsFrom": signs_from}));
    audit::record(tx, Log::Installation, caller, now, &entry).await?;
    Ok(row)
}

async fn retire(
    tx: &mut PgConnection,
    caller: &Caller,
    kids: &[&str],
    now: Timestamp,
) -> Result<(), Error> {
    store::retire(&mut *tx, kids, now).await?;
    for kid in kids {
        let entry = NewEntry::succeeded("signing_key.retired").to("signing_key", kid);
        audit::record(&mut *tx, Log::Installation, caller, now, &entry).await?;
    }
    Ok(())
}

fn times(rows: &[KeyRow]) -> Vec<KeyTime<'_>> {
    rows.iter()
        .map(|row| KeyTime {
            kid: &row.kid,
            signs_from: row.signs_from,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_successor_is_made_a_day_ahead_and_the_predecessor_outlives_its_tokens() {
        let start = Timestamp::from_unix_millis(0);
        let first = KeyTime {
            kid: "first",
            signs_from: start,
        };
        let due = start.plus(SIGNING_PERIOD);
        let second = KeyTime {
            kid: "second",
            signs_from: due,
        };
        let made = due.minus(MADE_AHEAD);
        let nothing = Plan::default();
        let successor = |at| Plan {
            successor_from: Some(at),
            retire: vec![],
        };
        assert_eq!(plan(&[first], made.minus(SECOND)), nothing);
        assert_eq!(plan(&[first], made), successor(due));
        // Nobody was there in time: the successor is late rather than unknown.
        let late = due.plus(MADE_AHEAD);
        assert_eq!(plan(&[first], late), successor(late.plus(PUBLISHED_AHEAD)));
        let both = [second, first];
        let over = due.plus(RETIRED_AFTER);
        assert_eq!(plan(&both, made), nothing);
        assert_eq!(plan(&both, over.minus(SECOND)), nothing);
        assert_eq!(
            plan(&both, over),
            Plan {
                successor_from: None,
                retire: vec!["first"],
            }
        );
        assert_eq!(plan(&[], start), nothing);
    }
}
