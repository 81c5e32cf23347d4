//! Answers of others, kept as long as they hold, within bounds. Pure: time is given.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// No more answers are kept, and no more bytes of them.
const MAX_ENTRIES: usize = 1024;
const MAX_BYTES: usize = 1 << 20;

/// The oldest answers make room for new ones.
#[derive(Default)]
pub struct Cache {
    entries: HashMap<Vec<u8>, Entry>,
    /// In the order in which they came, each with its number; those that were replaced since are passed over.
    order: VecDeque<(u64, Vec<u8>)>,
    next: u64,
    bytes: usize,
}

struct Entry {
    number: u64,
    answer: Vec<u8>,
    came: Instant,
    lifetime: Duration,
}

impl Cache {
    /// An answer that still holds, and for how many seconds it was kept.
    pub fn get(&self, key: &[u8], now: Instant) -> Option<(Vec<u8>, u32)> {
        let entry = self.entries.get(key)?;
        let age = now.saturating_duration_since(entry.came);
        (age < entry.lifetime).then(|| (entry.answer.clone(), age.as_secs() as u32))
    }

    /// Keeps an answer for so many seconds.
    pub fn put(&mut self, key: Vec<u8>, answer: Vec<u8>, seconds: u32, now: Instant) {
        if seconds == 0 {
            return;
        }
        self.remove(&key);
        self.next += 1;
        self.bytes += key.len() + answer.len();
        let lifetime = Duration::from_secs(seconds.into());
        self.order.push_back((self.next, key.clone()));
        self.entries.insert(key, Entry { number: self.next, answer, came: now, lifetime });
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES || self.order.len() > 2 * MAX_ENTRIES {
            let Some((number, key)) = self.order.pop_front() else { break };
            if self.entries.get(&key).is_some_and(|entry| entry.number == number) {
                self.remove(&key);
            }
        }
    }

    /// Forgets everything, as other servers may know other things.
    pub fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= key.len() + entry.answer.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    #[test]
    fn an_answer_is_kept_as_long_as_it_holds() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.put(key(1), vec![7], 10, now);
        assert_eq!(cache.get(&key(1), now + Duration::from_secs(9)), Some((vec![7], 9)));
        assert_eq!(cache.get(&key(1), now + Duration::from_secs(10)), None);
        cache.put(key(2), vec![7], 0, now);
        assert_eq!(cache.get(&key(2), now), None);
        cache.clear();
        assert_eq!(cache.get(&key(1), now), None);
    }

    #[test]
    fn neither_entries_nor_bytes_grow_beyond_their_bounds() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..3 * MAX_ENTRIES {
            cache.put(key(number), vec![0; 8], 60, now);
            cache.put(key(7), vec![0; 8], 60, now);
        }
        assert!(cache.entries.len() <= MAX_ENTRIES && cache.order.len() <= 2 * MAX_ENTRIES);
        assert!(cache.get(&key(7), now).is_some() && cache.get(&key(8), now).is_none());
        for number in 0..64 {
            cache.put(key(number), vec![0; 60_000], 60, now);
        }
        assert!(cache.bytes <= MAX_BYTES && !cache.entries.is_empty());
        assert_eq!(cache.bytes, cache.entries.iter().map(|(key, e)| key.len() + e.answer.len()).sum::<usize>());
    }
}
