//! An installation that reaches its servers through relays.

use super::{App, TcpRelay};

/// The ways of one instance to its servers. What tests themselves ask goes to the servers directly.
pub struct Links {
    pub postgres: TcpRelay,
    pub amqp: TcpRelay,
}

impl App {
    /// From its next start on, the process reaches its servers through these.
    pub async fn behind_relays(&self) -> Links {
        let (postgres, amqp) = (self.db_url(), self.amqp_url().to_owned());
        Links { postgres: self.relay_to(&postgres).await, amqp: self.relay_to(&amqp).await }
    }

    async fn relay_to(&self, url: &str) -> TcpRelay {
        let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
        let relay = TcpRelay::start(address.parse().unwrap()).await;
        self.edit_resources(url, &url.replace(address, &relay.addr().to_string()));
        relay
    }
}
