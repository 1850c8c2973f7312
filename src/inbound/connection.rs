//! One connection: what its own task notes while it reads and writes, and what it is asked for from outside. Noting costs a
//! few plain stores for a request, and no clock.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

use super::progress::{Phase, Seen};

/// Why a connection was closed before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// A head did not end in time.
    Head,
    /// A body came too slowly.
    Body,
    /// An answer was not read.
    Answer,
    /// It made room for another.
    Full,
    /// Its address had as many as it may have.
    Address,
}

impl Closed {
    pub const ALL: [Self; 5] = [Self::Head, Self::Body, Self::Answer, Self::Full, Self::Address];

    /// As it stands in figures.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Body => "body",
            Self::Answer => "answer",
            Self::Full => "full",
            Self::Address => "address",
        }
    }
}

/// What a connection's task is to do, having been woken from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing any more: the client has moved.
    Nothing,
    /// To go on: whoever reads the body is told that it comes too slowly.
    RefuseBody,
    Close(Closed),
}

/// The state of a connection. Its own task writes it, others read it.
#[derive(Debug)]
pub(super) struct Connection {
    phase: AtomicU8,
    stage: AtomicU64,
    bytes: AtomicU64,
    /// What was to be written did not fit: the client takes nothing.
    blocked: AtomicBool,
    body_refused: AtomicBool,
    /// In which stage it was found too slow, and asked to make room; 0: never.
    too_slow: AtomicU64,
    make_room: AtomicU64,
    wake: Notify,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            stage: AtomicU64::new(1),
            bytes: AtomicU64::default(),
            blocked: AtomicBool::default(),
            body_refused: AtomicBool::default(),
            too_slow: AtomicU64::default(),
            make_room: AtomicU64::default(),
            wake: Notify::new(),
        }
    }
}

impl Connection {
    pub fn seen(&self) -> Seen {
        Seen { phase: self.phase(), stage: self.stage.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }

    fn phase(&self) -> Phase {
        let phase = self.phase.load(Relaxed);
        let all = [Phase::Idle, Phase::Head, Phase::Body, Phase::Answer];
        all.into_iter().find(|one| *one as u8 == phase).unwrap_or(Phase::Deciding)
    }

    /// A new stage.
    pub fn begin(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.stage.store(self.stage.load(Relaxed) + 1, Relaxed);
    }

    /// More of a body is waited for, or was got: within the stage, so that a byte at a time is no progress.
    pub fn waits_for_body(&self, waits: bool) {
        let phase = if waits { Phase::Body } else { Phase::Deciding };
        self.phase.store(phase as u8, Relaxed);
    }

    /// Whether its client has let a body down, which whoever reads it is then told.
    pub fn refuses_body(&self) -> bool {
        let refuses = self.too_slow.load(Relaxed) == self.stage.load(Relaxed);
        if refuses {
            self.body_refused.store(true, Relaxed);
        }
        refuses
    }

    /// Whether a body was refused since it came too slowly.
    pub fn has_refused_body(&self) -> bool {
        self.body_refused.load(Relaxed)
    }

    /// What the socket has read.
    pub fn received(&self, bytes: usize) {
        match self.phase() {
            Phase::Idle if bytes > 0 => self.begin(Phase::Head),
            // What comes instead of taking the answer is no progress.
            Phase::Answer => return,
            Phase::Idle | Phase::Head | Phase::Body | Phase::Deciding => {}
        }
        self.add(bytes);
    }

    /// What the socket has written.
    pub fn sent(&self, bytes: usize) {
        match self.phase() {
            // The rest of an answer that came in parts.
            Phase::Idle => self.begin(Phase::Answer),
            Phase::Head | Phase::Body | Phase::Deciding => {}
            Phase::Answer => self.add(bytes),
        }
        self.blocked.store(false, Relaxed);
    }

    /// Nothing more of what was answered can be written now.
    pub fn block(&self) {
        self.blocked.store(true, Relaxed);
        if matches!(self.phase(), Phase::Idle | Phase::Head) {
            self.begin(Phase::Answer);
        }
    }

    /// Everything is written.
    pub fn flushed(&self) {
        if self.phase() == Phase::Answer {
            self.begin(Phase::Idle);
        }
    }

    /// Whether its client does not take what was answered.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    fn add(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.store(self.bytes.load(Relaxed).saturating_add(bytes), Relaxed);
    }

    /// From outside: it was too slow in this stage.
    pub fn is_too_slow(&self, stage: u64) {
        self.too_slow.store(stage, Relaxed);
        self.wake.notify_one();
    }

    /// From outside: it is to make room, if it is in this stage still.
    pub fn make_room(&self, stage: u64) {
        self.make_room.store(stage, Relaxed);
        self.wake.notify_one();
    }

    /// Until something is asked.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What was asked, as things stand now: only its own task knows.
    pub fn asked(&self) -> Asked {
        let Seen { phase, stage, .. } = self.seen();
        let (too_slow, room) = (self.too_slow.load(Relaxed) == stage, self.make_room.load(Relaxed) == stage);
        match phase {
            Phase::Answer if too_slow => Asked::Close(Closed::Answer),
            Phase::Body if too_slow => Asked::RefuseBody,
            Phase::Idle | Phase::Head | Phase::Body | Phase::Answer if room => Asked::Close(Closed::Full),
            Phase::Idle | Phase::Head | Phase::Body | Phase::Answer | Phase::Deciding => Asked::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn at(connection: &Connection) -> (Phase, u64, u64) {
        let Seen { phase, stage, bytes } = connection.seen();
        (phase, stage, bytes)
    }

    /// A request has come, with the first byte of a body.
    fn with_a_body_begun() -> Connection {
        let connection = Connection::default();
        connection.received(100);
        connection.begin(Phase::Deciding);
        connection.waits_for_body(true);
        connection
    }

    #[test]
    fn a_request_goes_through_its_phases_and_only_what_the_client_does_counts() {
        let connection = Connection::default();
        assert_eq!(at(&connection), (Phase::Idle, 1, 0));
        connection.received(60);
        connection.received(40);
        assert_eq!(at(&connection), (Phase::Head, 2, 100));
        connection.begin(Phase::Deciding);
        connection.waits_for_body(true);
        connection.received(1);
        assert_eq!(at(&connection), (Phase::Body, 3, 101));
        connection.waits_for_body(false);
        connection.waits_for_body(true);
        assert_eq!(at(&connection), (Phase::Body, 3, 101), "a byte at a time is no new stage");
        connection.flushed();
        connection.begin(Phase::Answer);
        connection.received(1000);
        connection.sent(10);
        assert_eq!(at(&connection), (Phase::Answer, 4, 111), "what is sent instead of reading does not count");
        connection.flushed();
        assert_eq!(at(&connection), (Phase::Idle, 5, 111));
    }

    #[test]
    fn who_takes_no_answers_is_known_until_he_does_and_an_answer_to_half_a_head_is_one() {
        let connection = Connection::default();
        connection.received(1);
        connection.block();
        assert_eq!((connection.phase(), connection.is_blocked()), (Phase::Answer, true));
        connection.sent(1);
        assert!(!connection.is_blocked());
    }

    #[test]
    fn a_slow_body_is_refused_and_an_answer_that_is_not_read_cut_off() {
        let connection = with_a_body_begun();
        let stage = connection.seen().stage;
        assert!(!connection.refuses_body() && !connection.has_refused_body());
        connection.is_too_slow(stage);
        assert!(connection.woken().now_or_never().is_some());
        assert_eq!(connection.asked(), Asked::RefuseBody);
        assert!(connection.refuses_body() && connection.has_refused_body());
        connection.begin(Phase::Answer);
        assert_eq!(connection.asked(), Asked::Nothing, "that was about the body");
        connection.is_too_slow(stage + 1);
        assert_eq!(connection.asked(), Asked::Close(Closed::Answer));
    }

    #[test]
    fn who_is_to_make_room_stays_if_he_has_moved_meanwhile_or_his_message_is_being_decided_upon() {
        let idle = Connection::default();
        idle.make_room(1);
        assert_eq!(idle.asked(), Asked::Close(Closed::Full));
        idle.received(1);
        assert_eq!(idle.asked(), Asked::Nothing);

        let sending = with_a_body_begun();
        sending.make_room(sending.seen().stage);
        assert_eq!(sending.asked(), Asked::Close(Closed::Full));
        sending.waits_for_body(false);
        assert_eq!(sending.asked(), Asked::Nothing);
    }
}
