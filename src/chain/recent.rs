//! A cache of bounded size: what was used lately is kept.

use std::collections::HashMap;
use std::hash::Hash;

/// Keeps at least the `most` values used last, and at most twice as many.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    most: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    pub(super) fn new(most: usize) -> Recent<K, V> {
        Recent {
            most,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut recent = Recent::new(10);
        for i in 0..1000 {
            recent.put(i, i);
            assert_eq!(recent.get(&0), Some(0), "used all the time");
            assert_eq!(recent.get(&i), Some(i));
        }
        assert_eq!(recent.get(&500), None);
        assert!(recent.young.len() + recent.old.len() <= 20);
    }
}
