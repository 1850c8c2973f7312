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
    /// In force in every session from its start, whatever the user; `None`: the one that the log-in gives.
    pub role: Option<String>,
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
        if let Some(role) = &self.role {
            // A start-up option: it wins over what is set for the user, and is what a RESET comes back to.
            let given = config.get_options().map(|given| format!("{given} ")).unwrap_or_default();
            config.options(format!("{given}-c role={}", escaped(role)));
        }
        config.connect_timeout(Duration::from_secs(5));
        config.tcp_user_timeout(Duration::from_secs(10));
        config.keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(3));
        config.keepalives_retries(3);
        Ok(config)
    }

    /// For people: what to look at when a session was refused for this reason.
    #[must_use]
    pub fn advice(&self, refused: &str) -> String {
        match &self.role {
            Some(role) if refused.contains(role.as_str()) => format!(
                "{refused}: the postgres entry {} has the key role, and its user must be a member: GRANT \"{role}\" TO that user, \
                 or correct the key",
                self.name
            ),
            Some(_) | None => refused.to_owned(),
        }
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
            .field("role", &self.role)
            .field("pool_max_size", &self.pool_max_size)
            .field("branches", &self.branches)
            .finish_non_exhaustive()
    }
}

/// As a value among start-up options, which are split at spaces.
pub(super) fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_whitespace() || character == '\\' {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
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

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_value_among_start_up_options_keeps_its_spaces_and_backslashes() {
        assert_eq!(escaped("owner"), "owner");
        assert_eq!(escaped(r"Two words\"), r"Two\ words\\");
    }
}
