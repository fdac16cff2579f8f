//! A bounded map of things that are costly to make, of which the least recently used goes first.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

/// At most `most` values; cheap to clone, such as an `Arc`.
pub(super) struct Kept<K, V> {
    most: usize,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    /// Counts uses, by which their order is known.
    uses: u64,
    values: HashMap<K, (u64, V)>,
}

impl<K: Eq + Hash + Clone, V: Clone> Kept<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::new(State {
                uses: 0,
                values: HashMap::new(),
            }),
        }
    }

    /// The value that is kept for the key, or else a new one.
    pub(super) fn get_or_make<E>(
        &self,
        key: &K,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses = state.uses.saturating_add(1);
        let use_number = state.uses;
        if let Some((used, value)) = state.values.get_mut(key) {
            *used = use_number;
            return Ok(value.clone());
        }
        let value = make()?;
        while state.values.len() >= self.most {
            // Looking at each is dear only beside not having made anything.
            let oldest = state.values.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            state.values.remove(&oldest);
        }
        state
            .values
            .insert(key.clone(), (use_number, value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_makes_room() {
        let kept: Kept<u8, u32> = Kept::new(2);
        let mut made = 0;
        let mut get = |key: u8| {
            let value = kept.get_or_make::<()>(&key, || {
                made += 1;
                Ok(made)
            });
            value.unwrap_or_default()
        };
        assert_eq!((get(1), get(2), get(1)), (1, 2, 1));
        // 2 goes, for 1 was used after it.
        assert_eq!((get(3), get(1), get(2)), (3, 1, 4));
        assert_eq!(kept.get_or_make(&9, || Err("no")), Err("no"));
    }
}
