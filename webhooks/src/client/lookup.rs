//! How names become addresses: by the system's resolver, asked once at a time for each name.
//!
//! The system's resolver holds a thread until it has answered, long after whoever asked has given up. So deliveries to a name whose name servers hang wait
//! for one question instead of asking each their own, and the threads are left to others.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};

/// The system's way, or a test's.
pub(super) type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// What came of a question, for all that wait for it.
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// The questions that are under way, by name.
type UnderWay = Arc<Mutex<HashMap<String, Shared<BoxFuture<'static, Found>>>>>;

/// Asks the system's resolver.
pub(super) fn system_lookup() -> Lookup {
    once_at_a_time(Arc::new(|name| {
        Box::pin(async move {
            // The port is set by whoever dials.
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.collect())
        })
    }))
}

/// Asks `lookup` once at a time for each name. A question goes on until it is answered, whether anybody still waits or not; nothing is remembered of the
/// answer.
pub(super) fn once_at_a_time(lookup: Lookup) -> Lookup {
    let under_way = UnderWay::default();
    Arc::new(move |name| {
        let found = locked(&under_way)
            .entry(name.clone())
            .or_insert_with(|| {
                let asked = lookup(name.clone());
                let ending = Ending {
                    under_way: Arc::clone(&under_way),
                    name,
                };
                let task = tokio::spawn(async move {
                    let _ending = ending;
                    asked.await.map_err(Arc::new)
                });
                let answered = task.map(|ended| {
                    ended.unwrap_or_else(|error| Err(Arc::new(io::Error::other(error))))
                });
                answered.boxed().shared()
            })
            .clone();
        Box::pin(async move {
            found
                .await
                .map_err(|error| io::Error::new(error.kind(), error))
        })
    })
}

/// Takes a question from those under way when it is over, however that comes about.
struct Ending {
    under_way: UnderWay,
    name: String,
}

impl Drop for Ending {
    fn drop(&mut self) {
        locked(&self.under_way).remove(&self.name);
    }
}

fn locked(
    under_way: &UnderWay,
) -> MutexGuard<'_, HashMap<String, Shared<BoxFuture<'static, Found>>>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_name_is_asked_for_once_while_its_answer_is_awaited() {
        let asked = Arc::new(AtomicUsize::new(0));
        let answering = Arc::new(Semaphore::new(0));
        let lookup = {
            let (asked, answering) = (Arc::clone(&asked), Arc::clone(&answering));
            once_at_a_time(Arc::new(move |name: String| {
                asked.fetch_add(1, Ordering::SeqCst);
                let answering = Arc::clone(&answering);
                Box::pin(async move {
                    answering.acquire().await.unwrap().forget();
                    if name == "missing.example" {
                        return Err(io::Error::from(io::ErrorKind::NotFound));
                    }
                    Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
                })
            }))
        };
        // Some give up before there is an answer, and the question stays the same.
        drop(lookup("one.example".to_owned()));
        let waiting: Vec<_> = (0..20).map(|_| lookup("one.example".to_owned())).collect();
        let other = lookup("missing.example".to_owned());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        answering.add_permits(2);
        for found in futures_util::future::join_all(waiting).await {
            assert_eq!(found.unwrap().len(), 1);
        }
        assert_eq!(other.await.unwrap_err().kind(), io::ErrorKind::NotFound);
        // Nothing is remembered.
        let again = lookup("one.example".to_owned());
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        answering.add_permits(1);
        again.await.unwrap();
    }
}
