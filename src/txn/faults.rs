//! The named crash points (protocol §4–§7), where a test makes things go wrong. Only builds with the feature `faults`
//! know their names or act on them; in any other build `reach` is nothing.

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A place in the program that the protocol names.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub enum Point { $($(#[$doc])* $name),+ }

        impl Point {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As the protocol calls it, after a word that stands nowhere else: a test looks for it in the program.
            #[cfg(feature = "faults")]
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => concat!("fault-point-", stringify!($name))),+ }
            }
        }
    };
}

points!(
    /// Before the statement of an acceptance is sent.
    IN1,
    /// Sent, and its answer not read.
    IN2,
    /// Committed, not published.
    IN3,
    /// Published, not confirmed.
    IN4,
    /// Confirmed, not marked.
    IN5,
    /// As IN2, with PostgreSQL itself gone.
    IN6,
    /// Published, and the broker loses the queue.
    IN7,
    /// Cut off from the broker.
    IN8,
    /// A relay that slept too long publishes.
    IN9,
    /// A disk is full.
    IN10,
    /// Before the COMMIT of an attempt.
    DQ1,
    /// The COMMIT was sent, and its answer not read.
    DQ2,
    /// Committed, not acknowledged.
    DQ3,
    /// The channel closes meanwhile.
    DQ4,
    /// A consumer that slept too long goes on.
    DQ5,
    /// PostgreSQL is gone.
    DQ6,
    /// The broker has lost the message after its delivery.
    DQ7,
    /// Redelivered messages are noted, and not tried.
    DQ8,
    /// A group's transaction was rolled back; nothing is counted, nothing tried again.
    GR1,
    /// Amid the replay of a group with savepoints; or before it is tried again without one that failed.
    GR2,
    /// In the work of several databases.
    MD1,
    /// After a PREPARE; the others may not have answered.
    MD2,
    /// A PREPARE was sent, and its answer not read.
    MD3,
    /// The home's COMMIT was sent, and its answer not read.
    MD4,
    /// Decided; before or amid COMMIT PREPARED: met before each branch's, and again when its answer is not read yet.
    MD5,
    /// A database is gone after the decision.
    MD6,
    /// The home is gone after the PREPAREs.
    MD7,
    /// A coordinator that slept too long is about to decide.
    MD8,
    /// A PREPARE is lost, after the decision: a fail-over, or somebody's hand.
    MD9,
    /// All committed, before the acknowledgement.
    MD10,
    /// The home's epoch is raised in its database, and not shown at the broker.
    HW1,
    /// A rehearsal's transaction is prepared, and not finished.
    RH1,
    /// Recovery: before the fence.
    RC1,
    /// Recovery: fenced, nothing finished.
    RC2,
    /// Recovery: in doubt is known, the decisions are not read.
    RC3,
    /// Recovery: before a branch is finished.
    RC4,
    /// Recovery: a branch is finished, others are not.
    RC5,
    /// Recovery: all is finished, the decision still stands.
    RC6,
);

/// A test wants the call at this point to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fault injected")]
pub struct Injected;

/// Passes a point.
///
/// # Errors
/// `Injected`, in a test that wants it.
#[cfg(not(feature = "faults"))]
#[inline]
pub async fn reach(_point: Point) -> Result<(), Injected> {
    Ok(())
}

/// What a group does as one: a test may arm a point for that alone.
#[cfg(not(feature = "faults"))]
#[inline]
pub async fn in_group<T>(work: impl Future<Output = T>) -> T {
    work.await
}

#[cfg(feature = "faults")]
pub use armed::{in_group, reach};

#[cfg(feature = "faults")]
mod armed {
    //! `POSTHASTE_FAULT=<point>:<kind>[:<nth>[:group]]` arms one point, for groups alone if it says so; what happens there
    //! leaves a file with the point's name in the folder `POSTHASTE_FAULT_HITS`.

    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::{Injected, Point};

    tokio::task_local! {
        static IN_GROUP: ();
    }

    /// What a group does as one.
    pub async fn in_group<T>(work: impl Future<Output = T>) -> T {
        IN_GROUP.scope((), work).await
    }

    struct Armed {
        point: String,
        kind: Kind,
        nth: u32,
        groups: bool,
        hits: PathBuf,
        passed: AtomicU32,
    }

    #[derive(Clone, Copy)]
    enum Kind {
        /// The call fails.
        Error,
        /// The process is gone.
        Exit,
        /// The whole process stands still until somebody lets it go on.
        Stop,
        /// The task that is there panics.
        Panic,
        /// This call waits until the file `<point>.go` is there.
        Wait,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        ARMED.get_or_init(read).as_ref()
    }

    /// What cannot be read arms nothing: the test then finds the point never hit.
    fn read() -> Option<Armed> {
        let wish = std::env::var("POSTHASTE_FAULT").ok()?;
        let mut parts = wish.split(':');
        let point = parts.next()?.to_owned();
        let kind = match parts.next()? {
            "error" => Kind::Error,
            "exit" => Kind::Exit,
            "stop" => Kind::Stop,
            "panic" => Kind::Panic,
            "wait" => Kind::Wait,
            _ => return None,
        };
        let nth = parts.next().and_then(|nth| nth.parse().ok()).unwrap_or(1);
        let groups = parts.next() == Some("group");
        let hits = std::env::var_os("POSTHASTE_FAULT_HITS")?.into();
        Some(Armed { point, kind, nth, groups, hits, passed: AtomicU32::new(0) })
    }

    /// Passes a point.
    ///
    /// # Errors
    /// `Injected`, in a test that wants it.
    #[expect(clippy::panic, reason = "it is what a test wants")]
    pub async fn reach(point: Point) -> Result<(), Injected> {
        let Some(armed) = armed().filter(|armed| armed.point == point.name()) else { return Ok(()) };
        if armed.groups && IN_GROUP.try_with(|()| ()).is_err() {
            return Ok(());
        }
        if armed.passed.fetch_add(1, Ordering::SeqCst) + 1 != armed.nth {
            return Ok(());
        }
        // A hit that cannot be noted is a point that was never hit, for the test.
        let _noted = std::fs::write(armed.hits.join(point.name()), b"").is_ok();
        let me = Pid::this();
        match armed.kind {
            Kind::Error => return Err(Injected),
            Kind::Panic => panic!("fault injected"),
            // The signal may reach another thread first: this one goes no further.
            Kind::Exit => {
                let _sent = kill(me, Signal::SIGKILL).is_ok();
                std::future::pending::<()>().await;
            }
            Kind::Stop => {
                let _sent = kill(me, Signal::SIGSTOP).is_ok();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Kind::Wait => {
                let go = armed.hits.join(format!("{}.go", point.name()));
                while !go.exists() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        Ok(())
    }
}
