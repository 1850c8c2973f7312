//! Nothing goes over a guarded connection before the broker was compared with the home, nor after it was found to be ahead.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Interval;

use super::connection::{CallError, Handle};
use super::guard::{Compared, Guard, WAITS};
use super::link::{LOOK, Supervisor};

/// Whether the epoch is still shown at the broker is looked at this often.
pub(super) const WITNESS: Duration = Duration::from_secs(15);

impl Supervisor {
    /// Compares, and waits as long as the broker has seen more than the home's database holds. `false`: the connection has
    /// ended meanwhile.
    pub(super) async fn admits(&self, handle: &Handle, guard: Option<&mut Guard>) -> bool {
        let Some(guard) = guard else { return true };
        self.say_down(WAITS.into());
        let admission = async {
            while let Compared::Newer(newer) = guard.compare(handle).await? {
                self.down(newer.to_string().into());
                guard.until_another().await?;
            }
            Ok(())
        };
        let admitted: Result<(), CallError> = tokio::select! {
            admitted = admission => admitted,
            () = self.stopped() => Err(CallError::Down("closed".into())),
            () = ended(handle) => Err(CallError::Down("the connection was closed".into())),
        };
        let Err(error) = admitted else { return true };
        self.down(with_cause(&error));
        handle.close().await;
        false
    }

    /// What the guard finds while the connection lasts; `changed`: the database has said something. `false`: nothing more may
    /// go over it.
    pub(super) async fn agrees(&self, handle: &Handle, guard: &mut Guard, changed: bool) -> bool {
        let work = async { if changed { guard.follow(handle).await } else { guard.look(handle).await } };
        let late = |_elapsed| CallError::Down("the home's database does not answer".into());
        let compared = tokio::select! {
            compared = tokio::time::timeout(WITNESS, work) => compared.map_err(late).flatten(),
            () = self.stopped() => return true,
            () = ended(handle) => return true,
        };
        match compared {
            Ok(Compared::Agrees) => true,
            Ok(Compared::Newer(newer)) => {
                self.down(newer.to_string().into());
                false
            }
            // Tried again with the next look.
            Err(error) => {
                tracing::debug!(reason = %with_cause(&error), "the epoch is not compared now");
                true
            }
        }
    }
}

/// Waits until the guard has something to do: `true` when the database has said something, `false` when it is time to look.
pub(super) async fn news(guard: Option<&mut Guard>, look: &mut Interval) -> bool {
    let Some(guard) = guard else { return std::future::pending().await };
    tokio::select! {
        () = guard.changed() => true,
        _ = look.tick() => false,
    }
}

async fn ended(handle: &Handle) {
    while handle.alive() {
        tokio::select! {
            () = handle.until_given_up() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn with_cause(error: &CallError) -> Arc<str> {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}").into(),
        None => error.to_string().into(),
    }
}
