//! Groups: concurrent calls of one merchant share a transaction.
//!
//! A commit costs a flush, and the locks of hot rows are held across it. So while one group of a merchant is being committed, the calls that arrive
//! queue, and the next group takes all of them: a flash sale runs at the speed of groups, and a call at a quiet moment is a group of one that waits for
//! nobody.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    Error, Failed, GROUP_MAX, GROUP_WEIGHT_MAX, Idempotency, Key, Member, Operation, Outcome,
};
use crate::{actor::Actor, id::MerchantId};

/// Runs one kind of operation in groups. One per process; clones share it.
pub struct Groups<O: Operation> {
    idempotency: Idempotency,
    queues: Arc<Mutex<Queues<O>>>,
}

/// The calls that wait, by merchant. A merchant has an entry as long as somebody is at work for it.
type Queues<O> = HashMap<MerchantId, VecDeque<Waiting<O>>>;

struct Waiting<O: Operation> {
    actor: Actor,
    key: Key,
    operation: O,
    answer: oneshot::Sender<Outcome<O>>,
}

impl<O: Operation> Clone for Groups<O> {
    fn clone(&self) -> Self {
        Self {
            idempotency: self.idempotency.clone(),
            queues: Arc::clone(&self.queues),
        }
    }
}

impl<O: Operation> fmt::Debug for Groups<O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Groups({})", O::NAME)
    }
}

impl<O> Groups<O>
where
    O: Operation + 'static,
    O::Output: 'static,
    O::Error: 'static,
{
    /// Over the process's idempotency.
    pub fn new(idempotency: Idempotency) -> Self {
        Self {
            idempotency,
            queues: Arc::default(),
        }
    }

    /// Does `operation` if this key has not done it yet, in a group with whatever else the merchant has waiting. It is done even if the caller goes
    /// away: the answer is then kept under its key.
    pub async fn once(&self, actor: Actor, key: Key, operation: O) -> Outcome<O> {
        let merchant = actor.merchant;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            actor,
            key,
            operation,
            answer,
        };
        let leads = {
            let mut queues = self.lock();
            let leads = !queues.contains_key(&merchant);
            queues.entry(merchant).or_default().push_back(waiting);
            leads
        };
        if leads {
            let groups = self.clone();
            tokio::spawn(async move { groups.work(merchant).await });
        }
        // The sender is dropped unanswered only if the work panicked.
        answered
            .await
            .unwrap_or_else(|_gone| Err(Failed::from(Error::InProgress)))
    }

    /// Runs group after group until nobody waits.
    async fn work(&self, merchant: MerchantId) {
        // Whatever happens to a group, the next call of the merchant must not wait for somebody who is gone.
        let _turn = Turn {
            queues: &self.queues,
            merchant,
        };
        while let Some(group) = self.next_group(merchant) {
            let members: Vec<_> = group
                .iter()
                .map(|waiting| Member {
                    actor: &waiting.actor,
                    key: &waiting.key,
                    operation: &waiting.operation,
                })
                .collect();
            let outcomes = self.idempotency.try_many(merchant, &members).await;
            drop(members);
            for (waiting, outcome) in group.into_iter().zip(outcomes) {
                match outcome {
                    // A caller who has gone away finds the answer under its key.
                    Some(outcome) => drop(waiting.answer.send(outcome)),
                    // Whoever has to wait for a twin holds up nobody else.
                    None => self.finish_aside(waiting),
                }
            }
        }
    }

    fn finish_aside(&self, waiting: Waiting<O>) {
        let idempotency = self.idempotency.clone();
        tokio::spawn(async move {
            let Waiting {
                actor,
                key,
                operation,
                answer,
            } = waiting;
            let outcome = idempotency.once(&actor, &key, &operation).await;
            drop(answer.send(outcome));
        });
    }

    /// The next group; with none, the merchant's entry goes, in the same breath.
    fn next_group(&self, merchant: MerchantId) -> Option<Vec<Waiting<O>>> {
        let mut queues = self.lock();
        let queue = queues.get_mut(&merchant)?;
        if queue.is_empty() {
            queues.remove(&merchant);
            return None;
        }
        let mut weight = 0_usize;
        let joins = |waiting: &&Waiting<O>| {
            let has_room = weight < GROUP_WEIGHT_MAX;
            weight = weight.saturating_add(waiting.operation.weight());
            has_room
        };
        let count = queue.iter().take(GROUP_MAX).take_while(joins).count();
        Some(queue.drain(..count).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Queues<O>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to work for a merchant. Dropped by a panic, it takes the entry along, so that those who wait are told and the next call leads anew.
struct Turn<'q, O: Operation> {
    queues: &'q Mutex<Queues<O>>,
    merchant: MerchantId,
}

impl<O: Operation> Drop for Turn<'_, O> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queues
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&self.merchant);
        }
    }
}
