//! What is seen of the engine from outside: what receivers were sent, and what the tables say of an endpoint.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use kernel::clock::Timestamp;
use sqlx::{AssertSqlSafe, Row};

use super::{
    super::world::{ATTEMPTS, World},
    fare::Fare,
};
use crate::{delivery::AttemptId, endpoint::EndpointId, replay::ReplayId};

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// A status, and for how many seconds it wants to be left alone.
    Status(u16, Option<u64>),
    /// Nothing: it hangs up.
    Nothing,
}

impl Said {
    pub(super) fn is_taken(self) -> bool {
        matches!(self, Self::Status(200..300, _))
    }

    pub(super) fn is_busy(self) -> bool {
        matches!(self, Self::Status(429 | 503, _))
    }

    pub(super) fn retry_after(self) -> Duration {
        match self {
            Self::Status(_, Some(seconds)) => Duration::from_secs(seconds),
            Self::Status(_, None) | Self::Nothing => Duration::ZERO,
        }
    }

    fn status(self) -> Option<i32> {
        match self {
            Self::Status(status, _) => Some(status.into()),
            Self::Nothing => None,
        }
    }
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) sequence: i64,
    /// Which attempt it is recorded as.
    pub(super) number: i32,
    pub(super) said: Said,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) is_held: bool,
    pub(super) breaker_count: u32,
    pub(super) rest_until: Option<Timestamp>,
}

/// What the tables say of an endpoint.
#[derive(Debug)]
pub(super) struct Seen {
    /// Why it is disabled, and the last number of its stream then.
    pub(super) off: Option<(String, i64)>,
    pub(super) fare: Fare,
    pub(super) lane: Lane,
    /// Sequences with the resources of their events.
    pub(super) stream: Vec<(i64, String)>,
    /// Sequences with the attempts that were made, and when they are due.
    pub(super) queued: BTreeMap<i64, (u32, Timestamp)>,
    /// Sequences and reasons of dead letters.
    pub(super) letters: Vec<(i64, String)>,
    /// Events about the endpoint, with their times.
    pub(super) announced: Vec<(String, Timestamp)>,
    pub(super) completed_replays: HashSet<ReplayId>,
    /// What was attempted at the present, by sequences: numbers and statuses.
    attempts: BTreeMap<i64, (i32, Option<i32>)>,
}

impl Seen {
    /// What they say of these endpoints, in that order.
    pub(super) async fn of(world: &World, endpoints: &[EndpointId], now: Timestamp) -> Vec<Self> {
        let mut tx = world.worker.begin().await.unwrap();
        let mut seen = HashMap::new();
        let whole = sqlx::query(
            "select endpoints.id, disabled_reason, coalesce(disabled_at_sequence, 0), failing_since, warned_at,
                coalesce(lease_until > $2, false), breaker_count, rest_until
            from endpoints
            join lanes on lanes.endpoint_id = endpoints.id
            left join endpoint_health on endpoint_health.merchant_id = endpoints.merchant_id and endpoint_health.endpoint_id = endpoints.id
            where endpoints.merchant_id = $1",
        );
        let whole = whole.bind(world.merchant).bind(now);
        for row in whole.fetch_all(&mut *tx).await.unwrap() {
            let reason: Option<String> = row.get(1);
            let breaker_count: i32 = row.get(6);
            let one = Self {
                off: reason.map(|reason| (reason, row.get(2))),
                fare: Fare::new(row.get(3), row.get(4)),
                lane: Lane {
                    is_held: row.get(5),
                    breaker_count: breaker_count.try_into().unwrap(),
                    rest_until: row.get(7),
                },
                stream: Vec::new(),
                queued: BTreeMap::new(),
                letters: Vec::new(),
                announced: Vec::new(),
                completed_replays: HashSet::new(),
                attempts: BTreeMap::new(),
            };
            seen.insert(row.get::<EndpointId, _>(0), one);
        }
        // A union of all, since a walk looks after each of its steps.
        let rows = sqlx::query(AssertSqlSafe(format!(
            "select 'stream', endpoint_id, sequence, events.resource_id, null::timestamptz, null::integer, null::uuid
            from streams
            join events on events.merchant_id = streams.merchant_id and events.id = streams.event_id
            where streams.merchant_id = $1
            union all
            select 'queued', endpoint_id, sequence, null, due_at, attempt_count, null
            from deliveries
            where merchant_id = $1
            union all
            select 'letter', endpoint_id, sequence, reason, null, null, null
            from dead_letters
            where merchant_id = $1
            union all
            select 'replay', endpoint_id, 0, null, null, null, id
            from replays
            where merchant_id = $1 and status = 'completed'
            union all
            select 'attempt', endpoint_id, sequence, status::text, null, number, null
            from {ATTEMPTS}
            where merchant_id = $1 and id >= $3 and started_at = $2
            order by 1, 3, 4",
        )));
        let rows = rows
            .bind(world.merchant)
            .bind(now)
            .bind(AttemptId::least(now));
        for row in rows.fetch_all(&mut *tx).await.unwrap() {
            let one = seen.get_mut(&row.get(1)).unwrap();
            let (what, sequence): (String, i64) = (row.get(0), row.get(2));
            match what.as_str() {
                "stream" => one.stream.push((sequence, row.get(3))),
                "queued" => {
                    let attempts: i32 = row.get(5);
                    let queued = (attempts.try_into().unwrap(), row.get(4));
                    one.queued.insert(sequence, queued);
                }
                "letter" => one.letters.push((sequence, row.get(3))),
                "replay" => drop(one.completed_replays.insert(row.get(6))),
                _ => {
                    let status: Option<String> = row.get(3);
                    let status = status.map(|status| status.parse().unwrap());
                    one.attempts.insert(sequence, (row.get(5), status));
                }
            }
        }
        let announced = sqlx::query(
            "select resource_id, type, occurred_at from events where merchant_id = $1 and resource_type = 'webhook_endpoint' order by feed_number",
        );
        for row in announced
            .bind(world.merchant)
            .fetch_all(&mut *tx)
            .await
            .unwrap()
        {
            let id: String = row.get(0);
            let one = seen.get_mut(&id.parse().unwrap()).unwrap();
            one.announced.push((row.get(1), row.get(2)));
        }
        tx.commit().await.unwrap();
        let all = endpoints.iter().map(|endpoint| seen.remove(endpoint));
        all.map(|one| one.expect("no endpoint is ever deleted"))
            .collect()
    }

    /// What was received, each with the number of the attempt that it is recorded as; or why that does not go together.
    pub(super) fn recorded(&self, received: &[(i64, Said)]) -> Result<Vec<Sent>, String> {
        let mut unmatched = self.attempts.clone();
        let mut sent = Vec::with_capacity(received.len());
        for (sequence, said) in received {
            let (number, status) = unmatched
                .remove(sequence)
                .ok_or(format!("{sequence} was received and is not recorded"))?;
            if status != said.status() {
                return Err(format!("{sequence}: {said:?} is recorded as {status:?}"));
            }
            sent.push(Sent {
                sequence: *sequence,
                number,
                said: *said,
            });
        }
        if unmatched.is_empty() {
            Ok(sent)
        } else {
            Err(format!("recorded and not received: {unmatched:?}"))
        }
    }
}
