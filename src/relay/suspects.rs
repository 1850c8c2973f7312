//! Messages that were under way when a channel or a connection ended: whoever was there twice is published apart, so that the
//! next time it is alone. A hint in memory: to forget it costs a channel.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::publish::lock;
use crate::broker::{About, Doubt, PublishError};
use crate::model::TxId;

/// So often is chance enough.
const ENOUGH: u8 = 2;
/// Beyond so many they are forgotten: that many are not to blame.
const MOST: usize = 4096;
/// The longest pause between two publishes of a suspect.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<BTreeMap<TxId, u8>>);

impl Suspects {
    /// Whether it is to be published apart.
    pub fn has(&self, tx_id: TxId) -> bool {
        lock(&self.0).get(&tx_id).is_some_and(|times| *times >= ENOUGH)
    }

    pub fn note(&self, tx_id: TxId, error: &PublishError) {
        let weight = weight(error);
        if weight == 0 {
            return;
        }
        let mut suspects = lock(&self.0);
        if suspects.len() >= MOST && !suspects.contains_key(&tx_id) {
            suspects.clear();
        }
        let times = suspects.entry(tx_id).or_default();
        *times = times.saturating_add(weight);
    }

    /// The broker has it.
    pub fn clear(&self, tx_id: TxId) {
        lock(&self.0).remove(&tx_id);
    }

    /// How long it waits for its next publish, when it was there more than once.
    pub fn pause(&self, tx_id: TxId) -> Option<Duration> {
        let times = lock(&self.0).get(&tx_id).copied().filter(|times| *times >= ENOUGH)?;
        Some(Duration::from_secs(1_u64.wrapping_shl(u32::from(times - ENOUGH).min(6))).min(LONGEST))
    }
}

/// How much is to be made of its having been there.
fn weight(error: &PublishError) -> u8 {
    match error {
        PublishError::Refused { .. } => ENOUGH,
        PublishError::Unknown(doubt) => match doubt {
            Doubt::Ended(end) => match end.about {
                About::Message => ENOUGH,
                About::Broker => 1,
                About::Destination => 0,
            },
            Doubt::Lost => 1,
            Doubt::NoConfirm | Doubt::Unsettled => 0,
        },
        PublishError::NotSent(_) | PublishError::Returned { .. } | PublishError::Nacked => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{End, Scope};

    fn ended(about: About) -> PublishError {
        PublishError::Unknown(Doubt::Ended(End { about, scope: Scope::Channel, reason: "why".into() }))
    }

    #[test]
    fn who_was_there_twice_goes_apart_or_once_when_the_broker_speaks_of_a_message() {
        let (suspects, tx_id) = (Suspects::default(), TxId::mint());
        suspects.note(tx_id, &PublishError::Unknown(Doubt::Lost));
        assert!(!suspects.has(tx_id));
        suspects.note(tx_id, &ended(About::Broker));
        assert!(suspects.has(tx_id));
        suspects.clear(tx_id);
        assert!(!suspects.has(tx_id));
        suspects.note(tx_id, &ended(About::Message));
        assert!(suspects.has(tx_id) && !suspects.has(TxId::mint()));
    }

    #[test]
    fn back_pressure_makes_nobody_suspect() {
        let (suspects, tx_id) = (Suspects::default(), TxId::mint());
        for _ in 0..100 {
            let returned = PublishError::Returned { reason: "312".to_owned() };
            let silent = PublishError::Unknown(Doubt::NoConfirm);
            for error in [PublishError::Nacked, returned, silent, ended(About::Destination)] {
                suspects.note(tx_id, &error);
            }
        }
        assert!(!suspects.has(tx_id) && suspects.pause(tx_id).is_none());
    }

    #[test]
    fn a_suspect_is_published_ever_more_rarely_down_to_once_a_minute() {
        let (suspects, tx_id) = (Suspects::default(), TxId::mint());
        let mut pauses = Vec::new();
        for _ in 0..20 {
            suspects.note(tx_id, &PublishError::Unknown(Doubt::Lost));
            pauses.push(suspects.pause(tx_id).map(|pause| pause.as_secs()));
        }
        assert_eq!(pauses[..6], [None, Some(1), Some(2), Some(4), Some(8), Some(16)]);
        assert_eq!(pauses[19], Some(60));
    }

    #[test]
    fn their_number_is_bounded() {
        let suspects = Suspects::default();
        for _ in 0..=MOST {
            suspects.note(TxId::mint(), &PublishError::Unknown(Doubt::Lost));
        }
        assert_eq!(lock(&suspects.0).len(), 1);
    }
}
