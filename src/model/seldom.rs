//! What is told once in a while only, however often it happens. Pure: the moment comes from outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two lines of the same kind.
const WHILE: Duration = Duration::from_secs(30);
/// Kinds that are remembered: what the oldest was is told again.
const KINDS: usize = 64;

/// When each kind was told last, and how often it has happened since.
#[derive(Debug, Default)]
pub struct Seldom(BTreeMap<String, (Instant, u64)>);

impl Seldom {
    /// Whether it is to be told now: how often it has happened untold since the last time.
    pub fn admit(&mut self, kind: &str, now: Instant) -> Option<u64> {
        match self.0.get_mut(kind) {
            Some((told, untold)) if now.saturating_duration_since(*told) < WHILE => {
                *untold += 1;
                None
            }
            Some(known) => {
                let (_told, untold) = std::mem::replace(known, (now, 0));
                Some(untold)
            }
            None => {
                if self.0.len() >= KINDS {
                    let oldest = self.0.iter().min_by_key(|(_, (told, _))| *told).map(|(kind, _)| kind.clone());
                    oldest.and_then(|kind| self.0.remove(&kind));
                }
                self.0.insert(kind.to_owned(), (now, 0));
                Some(0)
            }
        }
    }

    /// It is over: what comes next is news.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_at_once_and_then_once_in_a_while_with_how_often_it_was_not() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.admit("full", start), Some(0));
        assert_eq!(seldom.admit("refused", start), Some(0), "one does not hide another");
        for second in 1..30 {
            assert_eq!(seldom.admit("full", start + Duration::from_secs(second)), None, "{second}");
        }
        assert_eq!(seldom.admit("full", start + WHILE), Some(29));
        assert_eq!(seldom.admit("full", start + WHILE), None);
        seldom.forget();
        assert_eq!(seldom.admit("full", start + WHILE), Some(0));
    }

    #[test]
    fn kinds_without_end_take_no_memory_without_end() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        for kind in 0..1000 {
            assert_eq!(seldom.admit(&kind.to_string(), start + Duration::from_millis(kind)), Some(0));
        }
        assert_eq!(seldom.0.len(), KINDS);
        assert_eq!(seldom.admit("999", start + Duration::from_secs(1)), None);
    }
}
