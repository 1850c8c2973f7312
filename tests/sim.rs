//! The real coordinator and janitor on simulated databases, in virtual time: one history for each seed (protocol §9.2).
//!
//! `POSTHASTE_SEED=<n>` plays one history alone, `POSTHASTE_SEEDS=<n>` so many. A seed that once failed stands in `FROZEN`,
//! with what it found.

#![expect(clippy::disallowed_methods, reason = "a simulated process spawns its own tasks, and ends with them")]

#[cfg(test)]
mod sim {
    #[path = "history.rs"]
    pub mod history;
}
#[cfg(test)]
#[path = "sim/home.rs"]
mod home;
#[cfg(test)]
#[path = "sim/ports.rs"]
mod ports;
#[cfg(test)]
#[path = "sim/world.rs"]
mod world;

#[cfg(test)]
mod tests {
    use crate::sim::history::{Cut, play};
    use crate::world::Planted;

    /// Histories of each run.
    const SEEDS: u64 = 2000;
    /// 37: a coordinator that slept while others committed for it and forgot asked the log, and took it for aborted.
    const FROZEN: &[u64] = &[37];

    #[test]
    fn two_thousand_histories_end_with_every_message_done_once_and_nothing_in_doubt() {
        let seeds: Vec<u64> = match std::env::var("POSTHASTE_SEED") {
            Ok(seed) => vec![seed.parse().unwrap()],
            Err(_) => {
                let count = std::env::var("POSTHASTE_SEEDS").map_or(SEEDS, |count| count.parse().unwrap());
                (0..count).chain(FROZEN.iter().copied()).collect()
            }
        };
        let mut total = Cut::default();
        for seed in seeds.iter().copied() {
            match play(seed, None) {
                Ok(cut) => total = total.and(cut),
                Err(wrong) => panic!("POSTHASTE_SEED={seed}: {wrong}"),
            }
        }
        println!("{} histories: {total:?}", seeds.len());
        assert!(seeds.len() == 1 || total.everything_happened(), "the dice have spared something: {total:?}");
    }

    #[test]
    fn each_planted_defect_is_found_by_some_history() {
        for planted in [
            Planted::FenceDoesNotWait,
            Planted::DecisionIgnoresFence,
            Planted::KeyIsFree,
            Planted::FencedAsksTheLog,
            Planted::CommitPreparedIsLost,
            Planted::NoRowLock,
            Planted::FirstAloneIsDone,
        ] {
            let found = (0..SEEDS).find(|seed| play(*seed, Some(planted)).is_err());
            println!("{planted:?}: seed {found:?}");
            assert!(found.is_some(), "{planted:?} was not found");
        }
    }
}
