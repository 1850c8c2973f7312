//! Over which connection a lane publishes.

use super::connection::{Handle, Purpose, connect};
use super::endpoint::Endpoint;
use super::link::{Link, LinkWatch};
use super::outcome::NotSent;
use super::publisher::refusal;

/// A lane's way to the broker.
pub(super) enum Way {
    /// The connection that all lanes share.
    Shared(LinkWatch),
    Apart(Apart),
}

/// A connection of its own, opened when something is to be sent and closed when nothing waits. What the broker ends it for
/// was sent over it, and nobody else's messages go with it.
pub(super) struct Apart {
    endpoint: Endpoint,
    /// The shared one: while that is down or blocked, nothing is sent here either.
    shared: LinkWatch,
    open: Option<Handle>,
}

impl Way {
    pub(super) const fn apart(endpoint: Endpoint, shared: LinkWatch) -> Self {
        Self::Apart(Apart { endpoint, shared, open: None })
    }

    pub(super) const fn is_apart(&self) -> bool {
        match self {
            Self::Shared(_) => false,
            Self::Apart(_) => true,
        }
    }

    const fn link(&self) -> &LinkWatch {
        match self {
            Self::Shared(link) => link,
            Self::Apart(apart) => &apart.shared,
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.link().current(), Link::Blocked { .. })
    }

    /// Waits until the broker takes no messages, and says why.
    pub(super) async fn blocked(&self) -> NotSent {
        while self.until(|link| matches!(link, Link::Blocked { .. })).await {
            if let Link::Blocked { reason, .. } = self.link().current() {
                return NotSent::Blocked(reason);
            }
        }
        // The connection is looked after no longer: its calls end by themselves.
        std::future::pending().await
    }

    pub(super) async fn until(&self, wanted: impl FnMut(&Link) -> bool) -> bool {
        self.link().clone().until(wanted).await
    }

    /// The connection to publish over, or why there is none.
    pub(super) async fn handle(&mut self) -> Result<Handle, NotSent> {
        let link = self.link().current();
        refusal(&link)?;
        match self {
            Self::Shared(_) => match link {
                Link::Up(handle) => Ok(handle),
                Link::Blocked { .. } | Link::Down { .. } => Err(NotSent::Closed),
            },
            Self::Apart(apart) => apart.handle().await,
        }
    }

    /// A channel of it hangs: a connection of one's own is left without a word, which would not be answered.
    pub(super) fn abandon(&mut self) {
        match self {
            Self::Shared(_) => {}
            Self::Apart(apart) => {
                if let Some(handle) = apart.open.take() {
                    handle.abandon();
                }
            }
        }
    }

    /// Nothing waits: a connection of one's own is closed.
    pub(super) async fn rest(&mut self) {
        match self {
            Self::Shared(_) => {}
            Self::Apart(apart) => {
                if let Some(handle) = apart.open.take() {
                    handle.leave().await;
                }
            }
        }
    }
}

impl Apart {
    async fn handle(&mut self) -> Result<Handle, NotSent> {
        if let Some(handle) = &self.open
            && handle.alive()
        {
            return Ok(handle.clone());
        }
        match connect(&self.endpoint, Purpose::Publish).await {
            Ok(handle) => {
                self.open = Some(handle.clone());
                Ok(handle)
            }
            Err(error) => Err(NotSent::Down(error.to_string().into())),
        }
    }
}
