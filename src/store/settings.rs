//! What the store needs to know; checked by `config`.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

/// One entry under `postgres:` in resources.yml.
#[derive(Clone)]
pub struct PostgresSettings {
    pub name: String,
    /// As written, possibly with user and password: never printed.
    pub url: SecretString,
    /// Wins over the url's user; never parsed as url text.
    pub username: Option<String>,
    /// Wins over the url's password; never parsed as url text.
    pub password: Option<SecretString>,
    /// Connections that process messages. Default 16.
    pub pool_max_size: usize,
    /// Transactions that one instance may have prepared there at once; 0 for the home, and where nobody writes.
    pub branches: usize,
}

impl PostgresSettings {
    /// The client's configuration: the url with username and password put over it.
    pub fn client_config(&self) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
        let mut config: tokio_postgres::Config = self.url.expose_secret().parse()?;
        if let Some(username) = &self.username {
            config.user(username);
        }
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        config.connect_timeout(Duration::from_secs(5));
        config.tcp_user_timeout(Duration::from_secs(10));
        config.keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(3));
        config.keepalives_retries(3);
        Ok(config)
    }

    /// `host:port/database`, for people: no user, no password.
    #[must_use]
    pub fn address(&self) -> String {
        let Ok(config) = self.client_config() else { return self.name.clone() };
        let host = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        format!("{host}:{port}/{}", config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("name", &self.name)
            .field("address", &self.address())
            .field("pool_max_size", &self.pool_max_size)
            .field("branches", &self.branches)
            .finish_non_exhaustive()
    }
}

/// Session bounds, in the order in which they must grow.
#[derive(Debug, Clone, Copy)]
pub struct SessionTimeouts {
    /// Longest wait for a row lock. Default 2 s.
    pub lock: Duration,
    /// Longest statement. Default 30 s.
    pub statement: Duration,
    /// Longest pause inside a transaction. Default 90 s.
    pub idle_in_transaction: Duration,
}

impl Default for SessionTimeouts {
    fn default() -> Self {
        Self {
            lock: Duration::from_secs(2),
            statement: Duration::from_secs(30),
            idle_in_transaction: Duration::from_secs(90),
        }
    }
}
