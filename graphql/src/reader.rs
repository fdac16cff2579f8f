//! Reading on behalf of one request: its actor, and a share of the pool.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use commerce::order::{self, Order};
use kernel::{
    actor::Actor,
    db::{Database, Transaction},
    keyring::Keyring,
    problem::Problem,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{fault::Fault, limits::TRANSACTIONS_MAX};

/// What resolvers and loaders of one request read with.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) actor: Arc<Actor>,
    database: Database,
    keyring: Arc<Keyring>,
    permits: Arc<Semaphore>,
}

impl Reader {
    /// For one request.
    pub(crate) fn new(actor: Arc<Actor>, database: Database, keyring: Arc<Keyring>) -> Self {
        Self {
            actor,
            database,
            keyring,
            permits: Arc::new(Semaphore::new(TRANSACTIONS_MAX)),
        }
    }

    /// A transaction that has entered the actor's merchant. Nobody holds one while waiting for another.
    pub(crate) async fn begin(&self) -> Result<Reading, Fault> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(Problem::internal)?;
        Ok(Reading {
            tx: self.database.enter(self.actor.merchant).await?,
            _permit: permit,
        })
    }

    /// Adds personal data to orders, for those who may see it.
    pub(crate) async fn reveal(
        &self,
        tx: &mut Transaction,
        orders: Vec<Order>,
    ) -> Result<Vec<Order>, Fault> {
        Ok(order::reveal(tx, &self.keyring, &self.actor, orders).await?)
    }

    /// The same for what a mutation has made, fresh or replayed.
    pub(crate) async fn reveal_one(&self, order: Order) -> Result<Order, Fault> {
        let mut reading = self.begin().await?;
        let revealed = self.reveal(&mut reading, vec![order.clone()]).await?.pop();
        reading.end().await?;
        Ok(revealed.unwrap_or(order))
    }
}

/// A transaction that reads, and its place among those of the request.
pub(crate) struct Reading {
    tx: Transaction,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// Gives the connection back; a reading that is dropped does so too, by a rollback.
    pub(crate) async fn end(self) -> Result<(), Fault> {
        Ok(self.tx.commit().await.map_err(kernel::db::Error::from)?)
    }
}

impl Deref for Reading {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.tx
    }
}

impl DerefMut for Reading {
    fn deref_mut(&mut self) -> &mut Transaction {
        &mut self.tx
    }
}
