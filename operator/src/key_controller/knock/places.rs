//! So many places for all, and so many for each that takes them, so that nobody fills them alone. It must not know what
//! they are for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Cheap to clone: all clones are of the same places.
#[derive(Clone)]
pub(super) struct Places<K> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
    most_of_one: usize,
}

/// Given back when it is dropped.
pub(super) struct Place<K: Hash + Eq> {
    places: Places<K>,
    whose: K,
}

impl<K: Hash + Eq + Clone> Places<K> {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            taken: Arc::default(),
            most,
            most_of_one,
        }
    }

    pub(super) fn take(&self, whose: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = taken.get(&whose).copied().unwrap_or_default();
        if of_one >= self.most_of_one || taken.values().sum::<usize>() >= self.most {
            return None;
        }
        taken.insert(whose.clone(), of_one + 1);
        Some(Place {
            places: self.clone(),
            whose,
        })
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.whose) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leaves_places_to_others() {
        let places = Places::new(10, 3);
        let mut taken: Vec<_> = (0..10).filter_map(|_| places.take("greedy")).collect();
        assert_eq!(taken.len(), 3);
        let place = places.take("other");
        assert!(place.is_some());
        taken.pop();
        assert!(places.take("greedy").is_some(), "what ends gives its place back");
        drop((taken, place));
        assert!(places.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn all_together_have_so_many_places() {
        let places = Places::new(10, 3);
        let taken: Vec<_> = (0..20).filter_map(|number| places.take(number)).collect();
        assert_eq!(taken.len(), 10);
    }
}
