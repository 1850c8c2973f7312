//! What goes wrong, in which order and for how long: the seed alone decides.

use std::fmt;
use std::time::Duration;

use crate::load::Dice;
use crate::support::Direction;

/// What is done. Each has its own way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, and a new start.
    KillInstance,
    /// SIGSTOP, and SIGCONT: it may find itself fenced and end.
    FreezeInstance,
    /// SIGTERM, and a new start: what is in hand is cut off when it takes longer than the stop may.
    Redeploy,
    /// Both instances at once, for longer than any lease: ids that they have made are old when they go on.
    PauseBoth,
    /// The connections of one instance to PostgreSQL are reset.
    CutPostgres,
    SilencePostgres(Silence),
    CutAmqp,
    SilenceAmqp(Silence),
    StopPostgresImmediately,
    /// kill -9 of all its processes.
    KillPostgres,
    /// kill -9 of the postmaster; its backends find out by themselves.
    KillPostmaster,
    /// No free block where its data are.
    FillDisk,
    KillRabbit,
    /// A memory alarm: the broker reads no more from connections that publish.
    RaiseAlarm,
    DeleteQueue,
    PurgeQueue,
    /// The queue is full, and says so to whoever publishes.
    RejectPublishes,
    /// The queue takes messages and confirms none of them.
    WithholdConfirms,
    /// The clock of PostgreSQL's machine is hours ahead, or minutes behind, and is put right.
    JumpClock(Jump),
    /// Commits wait for a standby that is away.
    LoseStandby,
    /// A standby that is behind takes its primary's place.
    PromoteStandby,
    /// The home is copied, and an instance is started on the copy, with the same broker.
    StartACopy,
}

/// By how many seconds a clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump(pub i64);

/// Connections stay open, and these bytes do not arrive; then they do, or the connections are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    pub direction: Direction,
    pub ends_in_cut: bool,
}

/// One fault: what, to which of the two instances when it concerns one, and how long until the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blow {
    pub fault: Fault,
    pub instance: usize,
    pub lasts: Duration,
}

/// One or two faults at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    pub blows: Vec<Blow>,
    /// The second comes so long after the first.
    pub apart: Duration,
    /// The next round waits until both instances accept again.
    pub recovers: bool,
    /// Before the next round, and after the recovery.
    pub rest: Duration,
}

/// Deals the faults like cards: all kinds come before the deck is shuffled again.
pub struct Plan {
    dice: Dice,
    deck: Vec<Fault>,
}

/// Which one is for the dice to say.
const ANY: Silence = Silence { direction: Direction::Both, ends_in_cut: false };
/// Instances die more often than servers.
const DECK: [Fault; 27] = [
    Fault::KillInstance,
    Fault::KillInstance,
    Fault::KillInstance,
    Fault::KillInstance,
    Fault::FreezeInstance,
    Fault::FreezeInstance,
    Fault::Redeploy,
    Fault::Redeploy,
    Fault::PauseBoth,
    Fault::CutPostgres,
    Fault::SilencePostgres(ANY),
    Fault::CutAmqp,
    Fault::SilenceAmqp(ANY),
    Fault::StopPostgresImmediately,
    Fault::KillPostgres,
    Fault::KillPostmaster,
    Fault::FillDisk,
    Fault::KillRabbit,
    Fault::RaiseAlarm,
    Fault::DeleteQueue,
    Fault::PurgeQueue,
    Fault::RejectPublishes,
    Fault::WithholdConfirms,
    Fault::JumpClock(Jump(0)),
    Fault::LoseStandby,
    Fault::PromoteStandby,
    Fault::StartACopy,
];

/// What a fault concerns. Two faults at a time never concern the same.
#[derive(Debug, PartialEq, Eq)]
enum Harmed {
    Instance(usize),
    BothInstances,
    WayToPostgres(usize),
    WayToRabbit(usize),
    Postgres,
    Rabbit,
}

impl Plan {
    pub fn new(seed: u32) -> Self {
        Self { dice: Dice(u64::from(seed) ^ 0x6e65_6d65_7369_7300), deck: Vec::new() }
    }

    /// There is always another.
    pub fn next(&mut self) -> Round {
        let mut blows = vec![self.draw()];
        if self.dice.one_in(3) {
            let second = self.draw();
            if second.harmed().meets(&blows[0].harmed()) {
                self.deck.push(second.fault);
            } else {
                blows.push(second);
            }
        }
        let apart = self.milliseconds(0, 1500);
        Round { blows, apart, recovers: !self.dice.one_in(4), rest: self.milliseconds(200, 1200) }
    }

    fn draw(&mut self) -> Blow {
        if self.deck.is_empty() {
            self.deck = DECK.to_vec();
            self.dice.shuffle(&mut self.deck);
        }
        let fault = match self.deck.pop().unwrap() {
            Fault::SilencePostgres(_) => Fault::SilencePostgres(self.silence()),
            Fault::SilenceAmqp(_) => Fault::SilenceAmqp(self.silence()),
            Fault::JumpClock(_) => Fault::JumpClock(self.jump()),
            fault => fault,
        };
        let (shortest, longest) = match fault {
            Fault::KillInstance
            | Fault::Redeploy
            | Fault::StopPostgresImmediately
            | Fault::KillPostgres
            | Fault::KillPostmaster => (0, 700),
            Fault::PauseBoth => (3_000, 9_000),
            Fault::RejectPublishes | Fault::WithholdConfirms | Fault::JumpClock(_) | Fault::LoseStandby => {
                (2_000, 8_000)
            }
            Fault::PromoteStandby | Fault::StartACopy => (1_000, 4_000),
            Fault::FreezeInstance => (2_000, 8_000),
            Fault::SilencePostgres(_) | Fault::SilenceAmqp(_) => (1_000, 7_000),
            Fault::FillDisk => (1_000, 4_000),
            Fault::RaiseAlarm => (1_000, 6_000),
            Fault::KillRabbit => (0, 1_000),
            Fault::CutPostgres | Fault::CutAmqp | Fault::DeleteQueue | Fault::PurgeQueue => (0, 1),
        };
        let instance = usize::from(self.dice.one_in(2));
        Blow { fault, instance, lasts: self.milliseconds(shortest, longest) }
    }

    fn silence(&mut self) -> Silence {
        let direction = match self.dice.below(3) {
            0 => Direction::ToServer,
            1 => Direction::ToClient,
            _ => Direction::Both,
        };
        Silence { direction, ends_in_cut: self.dice.one_in(2) }
    }

    fn jump(&mut self) -> Jump {
        let seconds = 120 + i64::try_from(self.dice.below(7_200)).unwrap();
        Jump(if self.dice.one_in(3) { -seconds } else { seconds })
    }

    fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.dice.below(to - from))
    }
}

impl Blow {
    fn harmed(&self) -> Harmed {
        match self.fault {
            Fault::KillInstance | Fault::FreezeInstance | Fault::Redeploy => Harmed::Instance(self.instance),
            Fault::PauseBoth => Harmed::BothInstances,
            Fault::CutPostgres | Fault::SilencePostgres(_) => Harmed::WayToPostgres(self.instance),
            Fault::CutAmqp | Fault::SilenceAmqp(_) => Harmed::WayToRabbit(self.instance),
            Fault::StopPostgresImmediately
            | Fault::KillPostgres
            | Fault::KillPostmaster
            | Fault::FillDisk
            | Fault::JumpClock(_)
            | Fault::LoseStandby
            | Fault::PromoteStandby
            | Fault::StartACopy => Harmed::Postgres,
            Fault::KillRabbit
            | Fault::RaiseAlarm
            | Fault::DeleteQueue
            | Fault::PurgeQueue
            | Fault::RejectPublishes
            | Fault::WithholdConfirms => Harmed::Rabbit,
        }
    }
}

impl Harmed {
    /// Whether two faults would concern the same.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::BothInstances, Self::Instance(_)) | (Self::Instance(_), Self::BothInstances) => true,
            (one, other) => one == other,
        }
    }
}

impl Fault {
    /// The same word for every fault of a kind: to count them.
    pub fn kind(self) -> &'static str {
        match self {
            Self::KillInstance => "instance killed",
            Self::FreezeInstance => "instance frozen",
            Self::Redeploy => "instance redeployed",
            Self::PauseBoth => "both instances paused",
            Self::CutPostgres => "way to PostgreSQL cut",
            Self::SilencePostgres(_) => "way to PostgreSQL silent",
            Self::CutAmqp => "way to RabbitMQ cut",
            Self::SilenceAmqp(_) => "way to RabbitMQ silent",
            Self::StopPostgresImmediately => "PostgreSQL stopped immediately",
            Self::KillPostgres => "PostgreSQL killed",
            Self::KillPostmaster => "postmaster killed",
            Self::FillDisk => "disk full",
            Self::KillRabbit => "RabbitMQ killed",
            Self::RaiseAlarm => "memory alarm",
            Self::DeleteQueue => "queue deleted",
            Self::PurgeQueue => "queue purged",
            Self::RejectPublishes => "queue rejects",
            Self::WithholdConfirms => "queue confirms nothing",
            Self::JumpClock(_) => "clock jumps",
            Self::LoseStandby => "standby lost",
            Self::PromoteStandby => "standby promoted",
            Self::StartACopy => "copy of the home started",
        }
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.kind())?;
        match self.harmed() {
            Harmed::Instance(n) | Harmed::WayToPostgres(n) | Harmed::WayToRabbit(n) => write!(f, ", instance {n}")?,
            Harmed::BothInstances | Harmed::Postgres | Harmed::Rabbit => {}
        }
        match self.fault {
            Fault::SilencePostgres(silence) | Fault::SilenceAmqp(silence) => {
                let end = if silence.ends_in_cut { "then cut" } else { "then on" };
                write!(f, ", {:?}, {end}", silence.direction)?;
            }
            Fault::JumpClock(Jump(seconds)) => write!(f, ", by {seconds} s")?,
            _ => {}
        }
        if self.lasts.is_zero() { Ok(()) } else { write!(f, ", {:?}", self.lasts) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rounds(seed: u32, count: usize) -> Vec<Round> {
        let mut plan = Plan::new(seed);
        (0..count).map(|_| plan.next()).collect()
    }

    #[test]
    fn the_seed_alone_decides_what_happens() {
        assert_eq!(rounds(42, 200), rounds(42, 200));
        assert_ne!(rounds(42, 20), rounds(43, 20));
    }

    #[test]
    fn every_kind_of_fault_comes_before_the_deck_is_dealt_again() {
        for seed in 0..50 {
            let kinds: BTreeSet<&str> =
                rounds(seed, DECK.len()).iter().flat_map(|round| &round.blows).map(|blow| blow.fault.kind()).collect();
            let all: BTreeSet<&str> = DECK.iter().map(|fault| fault.kind()).collect();
            assert_eq!(kinds, all, "seed {seed}");
        }
    }

    #[test]
    fn at_most_two_faults_come_at_a_time_and_never_to_the_same() {
        let all = rounds(7, 2_000);
        assert!(all.iter().all(|round| matches!(round.blows.len(), 1 | 2)));
        let pairs: Vec<_> = all.iter().filter(|round| round.blows.len() == 2).collect();
        assert!(pairs.len() > 300, "{} pairs", pairs.len());
        assert!(pairs.iter().all(|round| !round.blows[0].harmed().meets(&round.blows[1].harmed())));
        assert!(all.iter().any(|round| !round.recovers));
    }

    #[test]
    fn every_silence_falls_on_both_ways_of_both_instances() {
        let blows: Vec<Blow> = rounds(7, 1_000).into_iter().flat_map(|round| round.blows).collect();
        for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
            for (instance, ends_in_cut) in [(0, false), (0, true), (1, false), (1, true)] {
                let silence = Silence { direction, ends_in_cut };
                for fault in [Fault::SilencePostgres(silence), Fault::SilenceAmqp(silence)] {
                    assert!(blows.iter().any(|blow| blow.fault == fault && blow.instance == instance), "{fault:?}");
                }
            }
        }
    }
}
