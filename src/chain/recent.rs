//! A cache of bounded size: what was used lately is kept.

use std::collections::HashMap;
use std::hash::Hash;

/// Keeps the values used last: at least as many as weigh `most` together, unless one alone weighs more,
/// and at most as many as weigh twice that and one more.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    most: usize,
    weigh: fn(&V) -> usize,
    young: HashMap<K, V>,
    young_weight: usize,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Counts values: each weighs one.
    pub(super) fn new(most: usize) -> Recent<K, V> {
        Recent::weighed(most, |_| 1)
    }

    pub(super) fn weighed(most: usize, weigh: fn(&V) -> usize) -> Recent<K, V> {
        Recent {
            most,
            weigh,
            young: HashMap::new(),
            young_weight: 0,
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
        if self.young_weight >= self.most {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += (self.weigh)(&value);
        if let Some(before) = self.young.insert(key, value) {
            self.young_weight -= (self.weigh)(&before);
        }
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

    #[test]
    fn the_heavy_make_room_for_fewer() {
        let mut recent = Recent::weighed(100, |v: &Vec<u8>| v.len());
        for i in 0..1000 {
            recent.put(i % 50, vec![0; 30]);
            assert!(recent.young.len() + recent.old.len() <= 8);
        }
        assert_eq!(recent.young_weight, recent.young.len() * 30);
    }
}
